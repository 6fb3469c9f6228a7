//! Asks for names: the files, and by `getent` whatever else `/etc/nsswitch.conf` names.
//!
//! `getent` comes with the C library, so the answer is what a program of the machine's own,
//! ipvsadm among them, gets. Where it is missing, the files are all there is.

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use super::names::Texts;

/// Addresses of one question: an argument list of a few 10 KiB.
const ADDRESSES_MAX: usize = 1000;

pub(super) fn texts() -> Texts {
    Texts {
        hosts: read_or_nothing("/etc/hosts"),
        services: read_or_nothing("/etc/services"),
    }
}

/// A missing file has no names.
pub(super) fn read_or_nothing(path: &str) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

pub(super) fn hosts(addresses: &[IpAddr]) -> String {
    addresses
        .chunks(ADDRESSES_MAX)
        .map(|some| getent("hosts", some.iter().map(IpAddr::to_string)))
        .collect()
}

pub(super) fn addresses(name: &str) -> String {
    getent("ahostsv4", std::iter::once(name.to_owned()))
}

/// Returns what it printed. It also ends with an error when only some are unknown.
fn getent(database: &str, keys: impl Iterator<Item = String>) -> String {
    let output = Command::new("getent")
        .arg(database)
        .args(keys)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let printed = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&printed).into_owned()
}
