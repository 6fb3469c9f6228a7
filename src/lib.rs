//! halab runs high-availability labs.

pub mod base;
#[cfg(feature = "orchestrator")]
pub mod cli;
#[cfg(feature = "orchestrator")]
pub mod playbook;
#[cfg(feature = "orchestrator")]
pub mod remote;
#[cfg(feature = "orchestrator")]
pub mod vm;
