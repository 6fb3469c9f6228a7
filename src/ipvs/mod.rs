//! Linux Virtual Server control: the kernel's IPVS tables by generic netlink.
//!
//! ```text
//!   words     model      what the kernel's table can hold, and the changes it takes
//!   bytes     codec      those values <-> generic netlink messages
//!   decisions diff       wanted + actual -> the least changes
//!   errors    refusal    the kernel's error numbers in an administrator's words
//! ```

#[cfg(feature = "agent")]
pub mod codec;
pub mod diff;
pub mod model;
pub mod refusal;
