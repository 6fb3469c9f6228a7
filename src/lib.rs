//! halab runs high-availability labs.

#[cfg(feature = "agent")]
pub mod agent;
pub mod base;
#[cfg(feature = "orchestrator")]
pub mod cli;
pub mod heartbeat;
pub mod ipvs;
#[cfg(feature = "orchestrator")]
pub mod playbook;
#[cfg(feature = "orchestrator")]
pub mod remote;
pub mod replica;
#[cfg(feature = "orchestrator")]
pub mod report;
#[cfg(feature = "orchestrator")]
pub mod run;
pub mod task;
#[cfg(feature = "orchestrator")]
pub mod vm;
