//! Heartbeat: a two-node cluster daemon that reads Linux-HA's files and speaks its protocol.
//!
//! Reading order: [`config`] (the three files), [`message`] and [`codec`] with
//! [`signature`] (the wire).

pub mod codec;
pub mod config;
pub mod message;
pub mod signature;
