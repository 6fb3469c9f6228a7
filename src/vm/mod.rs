//! The lab's machines: the host's preparation, their image, their topology, and what runs them.

pub mod progress;
pub mod qcow2;
pub mod spec;
pub mod topology;
