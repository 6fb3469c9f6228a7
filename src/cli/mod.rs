//! The command line of `halab`: what was typed, what will be done, how it ended.

pub mod args;
pub mod exit;
pub mod folder;
pub mod settings;
