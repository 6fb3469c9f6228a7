//! Hosts as the run engine sees them.

pub mod transport;
