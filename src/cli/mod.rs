//! The command line of `halab`: what was typed, what will be done, how it ended.

pub mod args;
pub mod bench;
mod bench_failover;
pub mod capture;
pub mod doctor;
pub mod exercises;
pub mod exit;
mod faults;
pub mod folder;
pub mod grade;
pub mod hosts;
pub mod playbook;
pub mod run;
pub mod settings;
pub mod submissions;
pub mod topology;

use std::env;
use std::io::{self, Write};

use terminal_size::terminal_size_of;

/// Prints one text for the user. A reader that went away (`halab status | head -1`) is no error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// How wide standard output is: what COLUMNS says, or the terminal; none: nobody knows.
pub(crate) fn columns() -> Option<usize> {
    let said = env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    said.or_else(|| terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)))
}

/// Tells the user something that is no result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
