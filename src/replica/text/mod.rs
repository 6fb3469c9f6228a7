//! What people read: `/proc/drbd`, `drbdadm status`, `drbd-overview`, metadata dumps; as
//! the real thing prints it.

pub mod dump_md;
pub mod generations;
pub mod overview;
pub mod proc;
pub mod status;
