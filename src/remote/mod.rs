//! Hosts as the run engine sees them: whatever lies between, a module goes in and a
//! result comes out.
//!
//! ```text
//! transport::Remote ─┬─ reconnect::AgentRemote ── Connect ─┬─ openssh::OpenSshHost ─┐
//!                    │                                     └─ local::LocalHost ─────┴─ agent_link::AgentLink
//!                    ├─ vm::remote (the modules that act on machines and cables)
//!                    └─ scripted::ScriptedRemote (tests)
//! ```

pub mod agent_file;
pub mod agent_link;
pub mod local;
pub mod openssh;
pub mod reconnect;
pub mod scripted;
pub mod ssh_config;
pub mod transport;
