//! Linux Virtual Server control: the kernel's IPVS tables by generic netlink.
//!
//! ```text
//!   words     model, refusal       what the kernel's tables hold and say no with
//!   bytes     codec                those values <-> generic netlink messages
//!   text      names, listing,      values -> what ipvsadm prints
//!             connections
//!             popt, options        what was typed after ipvsadm -> a checked command
//!   decisions diff                 wanted + actual -> the least changes
//!   shells    socket, command      the kernel; ipvsadm as a program
//! ```

#[cfg(feature = "agent")]
pub mod codec;
#[cfg(feature = "agent")]
pub mod command;
pub mod connections;
pub mod diff;
pub mod listing;
pub mod model;
#[cfg(feature = "agent")]
mod name_service;
pub mod names;
pub mod options;
mod popt;
pub mod refusal;
#[cfg(feature = "agent")]
pub mod socket;
#[cfg(feature = "agent")]
mod sockopt;
