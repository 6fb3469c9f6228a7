//! A DRBD 8.4 peer in user space: a block device that two nodes keep the same.
//!
//! Reading order: [`state`] (one node's view of the pair), [`generation`] (whose data
//! wins), [`layout`], [`bitmap`] and [`activity`] (what is on disk), [`transfer`] and
//! [`message`] (what is on the wire); [`settings`], [`control`] and [`device`] are the
//! seams to configuration, tools and the block device. [`config`] reads drbd.conf.

pub mod activity;
pub mod bitmap;
pub mod buffers;
pub mod config;
pub mod control;
pub mod device;
pub mod digest;
pub mod engine;
pub mod establish;
#[cfg(feature = "agent")]
pub mod export;
pub mod fields;
pub mod generation;
pub mod layout;
pub mod locks;
pub mod message;
pub mod recovery;
pub mod settings;
#[cfg(feature = "agent")]
pub mod shell;
pub mod state;
pub mod text;
#[cfg(feature = "agent")]
pub mod tools;
pub mod transfer;
