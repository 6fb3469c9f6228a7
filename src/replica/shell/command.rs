//! `halab-agent replica …`: the daemon of one resource, and a bare way to ask it.
//!
//! ```text
//! halab-agent replica serve RESOURCE [MINOR [VOLUME [DEVICE]]]   runs until it is taken down
//! halab-agent replica ask RESOURCE COMMAND                       one command as JSON, the answer as JSON
//! ```
//!
//! People use `drbdadm`; it starts the one and speaks as the other does.

use std::ffi::OsString;
use std::io::{self, Write};

use nix::libc;

use super::control_socket::ask;
use super::driver::{Daemon, Surroundings};
use crate::replica::buffers::Pool;
use crate::replica::control::{Answer, Command};
use crate::replica::export::{self, Backend};
use crate::replica::settings::Names;

/// Buffers of this size get pages of their own.
const LARGE_BYTES: i32 = 256 << 10;
/// The exit code of a call that could not run.
const COULD_NOT_RUN: u8 = 2;
/// The exit code of a command that was refused, as drbdsetup's.
const REFUSED: u8 = 10;

/// Writes the log to standard error, where the service manager takes it.
#[derive(Debug)]
pub struct Journal {
    resource: String,
}

impl Journal {
    pub fn new(resource: &str) -> Self {
        Self {
            resource: resource.to_owned(),
        }
    }
}

impl Surroundings for Journal {
    fn log(&mut self, line: &str) {
        let _ = writeln!(io::stderr(), "{}: {line}", self.resource);
    }

    fn handler(&mut self, name: &str) {
        self.log(&format!("handler {name}: none is configured"));
    }
}

/// Runs what the words after the program's name say.
pub fn main(words: &[OsString]) -> u8 {
    let words: Vec<String> = words
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", resource, rest @ ..] => serve(resource, rest),
        ["ask", resource, command] => say(resource, command),
        _ => complain(
            "usage: halab-agent replica serve RESOURCE [MINOR [VOLUME]] | ask RESOURCE COMMAND",
        ),
    }
}

fn complain(text: &str) -> u8 {
    let _ = writeln!(io::stderr(), "{text}");
    COULD_NOT_RUN
}

fn serve(resource: &str, numbers: &[&str]) -> u8 {
    let number = |index: usize| numbers.get(index).map_or(Ok(0), |text| text.parse::<u32>());
    let (Ok(minor), Ok(volume)) = (number(0), number(1)) else {
        return complain(&format!("minor and volume are numbers; found {numbers:?}"));
    };
    let names = Names {
        resource: resource.to_owned(),
        minor,
        volume: u16::try_from(volume).unwrap_or(u16::MAX),
    };
    let journal = Journal::new(resource);
    let usual = format!("/dev/drbd{minor}");
    let device = numbers.get(2).copied().unwrap_or(&usual);
    give_memory_back();
    let pool = Pool::default();
    let export = match export::open(Backend::Auto, device, minor, &pool) {
        Ok(export) => export,
        Err(error) => return complain(&format!("{resource}: {device}: {error}")),
    };
    let mut daemon = match Daemon::new(names, export, Box::new(journal), pool) {
        Ok(daemon) => daemon,
        Err(error) => return complain(&format!("{resource}: {error}")),
    };
    match daemon.run() {
        Ok(()) => 0,
        Err(error) => {
            // As a crash: the device stays, and its users wait for the next daemon.
            std::mem::forget(daemon);
            complain(&format!("{resource}: {error}"))
        }
    }
}

/// Has the allocator return large buffers when they are freed. By itself it learns from each large one that is freed to
/// keep its like for ever, in pieces between which nothing else fits.
fn give_memory_back() {
    #[expect(
        unsafe_code,
        reason = "a setting of the C library's allocator; nix has no word for it"
    )]
    // SAFETY: two numbers that the allocator keeps.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    }
}

fn say(resource: &str, command: &str) -> u8 {
    let command: Command = match serde_json::from_slice(command.as_bytes()) {
        Ok(command) => command,
        Err(error) => return complain(&format!("no command: {error}")),
    };
    match ask(resource, &command) {
        Ok(answer) => {
            let text = serde_json::to_string(&answer).unwrap_or_default();
            let _ = writeln!(io::stdout(), "{text}");
            if matches!(answer, Answer::Refused(_)) {
                REFUSED
            } else {
                0
            }
        }
        Err(error) => complain(&format!(
            "the daemon of {resource} does not answer: {error}"
        )),
    }
}
