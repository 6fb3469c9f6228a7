//! drbd.conf and its includes: read, checked, printed again, lowered to what the engine
//! is told.
//!
//! ```text
//!  files    the main file and what it includes → trees
//!  tree     one file's text → statements and blocks; goes on after a mistake
//!  options  every option of 8.4, its section, its kind, its bounds
//!  check    trees → model, all problems at once
//!  model    what is configured; valid by construction
//!  lower    one resource on one host → settings of a disk and a connection
//!  dump     as `drbdadm dump` prints it
//! ```
//!
//! A parser crate would not carry its weight: the language has seven kinds of tokens, and
//! what takes the code is going on after a mistake so that all problems come at once.

pub mod check;
pub mod dump;
pub mod files;
pub mod lower;
pub mod model;
pub mod options;
pub mod tree;
