//! Words shared by everything: places in texts, YAML trees, frames. Imports nothing else of the crate.

pub mod chain;
pub mod diagnostic;
pub mod frame;
pub mod hex;
pub mod latency;
#[cfg(feature = "orchestrator")]
pub mod units;
pub mod wire;
#[cfg(feature = "orchestrator")]
pub mod yaml;
