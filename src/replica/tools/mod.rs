//! The tools by name: drbdadm, drbdsetup as far as scripts call it, drbd-overview.
//!
//! ```text
//!  words      what was typed, as drbd-utils takes it
//!  host       this machine: its name, its addresses, the configuration's files
//!  metadata   create-md, dump-md, wipe-md, show-gi on a disk that nobody has attached
//!  daemon     starts a resource's daemon, asks it
//!  drbdadm    commands on resources; drbdsetup's words for scripts
//!  overview   drbd-overview, and what is mounted where
//!  proc_file  makes `cat /proc/drbd` show ours
//!  stand_in   takes the names of drbd-utils' programs, and gives them back
//! ```

pub mod command;
mod daemon;
mod drbdadm;
mod host;
mod metadata;
mod overview;
mod proc_file;
pub mod stand_in;
mod words;
