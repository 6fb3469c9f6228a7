//! Which tool was called, and its words to people.

use std::ffi::OsString;
use std::io::Write as _;

use super::stand_in::{self, StandInError};
use super::{drbdadm, overview};
use crate::replica::export::{self, Backend};

/// The exit code of a call that could not run.
const COULD_NOT_RUN: u8 = 2;

/// Runs a tool; the first word is its name. Returns the exit code.
pub fn main(words: Vec<OsString>) -> u8 {
    let mut words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let name = if words.is_empty() {
        String::new()
    } else {
        words.remove(0)
    };
    match name.rsplit('/').next().unwrap_or_default() {
        "drbdadm" => drbdadm::drbdadm(&words),
        "drbdsetup" => drbdadm::drbdsetup(&words),
        "drbd-overview" => overview::main(),
        _ => drbd(&words),
    }
}

/// `halab-agent drbd …`: what has no name of its own.
fn drbd(words: &[String]) -> u8 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["status"] => drbdadm::drbdadm(&["status".to_owned()]),
        ["status", "--json"] => drbdadm::status_json(),
        ["proc"] => {
            say(super::proc_file::text().trim_end());
            0
        }
        ["install"] => installed(stand_in::stand_in()),
        ["uninstall"] => installed(stand_in::stand_aside()),
        ["proc", "serve"] => super::proc_file::serve(),
        ["export", file, device] => export_file(file, device, Backend::Auto),
        ["export", "--ublk", file, device] => export_file(file, device, Backend::Ublk),
        ["export", "--nbd", file, device] => export_file(file, device, Backend::Nbd),
        _ => {
            complain(
                "usage: halab-agent drbd status [--json]     every resource's state
       halab-agent drbd proc                the text of /proc/drbd
       halab-agent drbd install|uninstall   take the names drbdadm, drbdsetup, drbd-overview; give them back
       halab-agent drbd export [--ublk|--nbd] FILE /dev/drbdN
                                            a file as a device, without replication, until stdin ends",
            );
            COULD_NOT_RUN
        }
    }
}

fn installed(done: Result<(), StandInError>) -> u8 {
    match done {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("halab-agent drbd: {error}"));
            1
        }
    }
}

fn export_file(file: &str, device: &str, backend: Backend) -> u8 {
    let Some(minor) = device
        .strip_prefix("/dev/drbd")
        .and_then(|digits| digits.parse().ok())
    else {
        complain(&format!("`{device}` is not /dev/drbdN"));
        return COULD_NOT_RUN;
    };
    let stop = match nix::unistd::dup(std::io::stdin()) {
        Ok(descriptor) => std::os::unix::net::UnixStream::from(descriptor),
        Err(error) => {
            complain(&format!("stdin: {error}"));
            return COULD_NOT_RUN;
        }
    };
    match export::file::serve(backend, file, device, minor, &stop, || say("ready")) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("{device}: {error}"));
            1
        }
    }
}

/// A program's own words to its user. Whoever closed the pipe does not want them.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
