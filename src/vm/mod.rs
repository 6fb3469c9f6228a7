//! The lab's machines: the host's preparation, their image, their topology, and what runs them.

pub mod access;
pub mod apt;
pub mod argv;
pub mod doctor;
pub mod guest;
pub mod host;
pub mod image;
pub mod image_plan;
mod kvm;
pub mod layers;
pub mod lifecycle;
pub mod network;
pub mod probe;
pub mod progress;
pub mod qcow2;
pub mod recipe;
pub mod spec;
pub mod topology;
