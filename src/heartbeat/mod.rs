//! Heartbeat: a two-node cluster daemon that reads Linux-HA's files and speaks its protocol.
//!
//! Reading order: [`config`] (the three files), [`message`] and [`codec`] with
//! [`signature`] (the wire), [`sequence`] and [`detector`] (what is known of another
//! node), [`resources`] and [`legacy`] (who holds what), [`jobs`] (starting and stopping
//! in order), [`ping`] (hosts outside), [`agreement`] (the same haresources?), [`node`] (all of it
//! together). Everything up to there takes time, packets
//! and outcomes as arguments and does nothing itself; `shell` is the daemon around it.

pub mod agreement;
pub mod codec;
pub mod config;
pub mod detector;
pub mod effect;
pub mod jobs;
pub mod legacy;
pub mod message;
pub mod node;
pub mod ping;
pub mod random;
pub mod resources;
pub mod sequence;
#[cfg(feature = "agent")]
pub mod shell;
pub mod signature;
pub mod status;
