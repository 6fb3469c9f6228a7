//! The guest side's shell: takes tasks from the orchestrator, looks at the host, has the
//! pure modules of `task` decide, and does what they decided.

pub mod error;
pub mod files;
pub mod helper;
pub mod lifeline;
pub mod modules;
pub mod net;
pub mod netlink;
pub mod packet;
pub mod process;
pub mod serve;
pub mod systemd;
pub mod work;
