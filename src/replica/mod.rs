//! A DRBD 8.4 peer in user space: a block device that two nodes keep the same.
//!
//! Reading order: [`state`] (one node's view of the pair), [`generation`] (whose data
//! wins), [`layout`], [`bitmap`] and [`activity`] (what is on disk), [`transfer`] and
//! [`message`] (what is on the wire); [`settings`], [`control`] and [`device`] are the
//! seams to configuration, tools and the block device.

pub mod activity;
pub mod bitmap;
pub mod control;
pub mod device;
pub mod fields;
pub mod generation;
pub mod layout;
pub mod message;
pub mod settings;
pub mod state;
pub mod transfer;
