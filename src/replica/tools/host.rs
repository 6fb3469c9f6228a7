//! This machine: its name, its addresses, and the files of the configuration.

use std::fs;
use std::io;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::unistd::gethostname;

use crate::replica::config::check::Checked;
use crate::replica::config::files::{Files, load};
use crate::replica::config::model::Node;

/// As drbd-utils look for it with an 8.4 module, first to last.
const CONFIGURATIONS: [&str; 5] = [
    "/etc/drbd-84.conf",
    "/etc/drbd-83.conf",
    "/etc/drbd-82.conf",
    "/etc/drbd-08.conf",
    "/etc/drbd.conf",
];

/// The machine's own files.
struct HostFiles;

impl Files for HostFiles {
    fn read(&self, path: &str) -> io::Result<String> {
        let bytes = fs::read(path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Returns the name and the addresses of this machine.
pub(super) fn node() -> Node {
    let name = gethostname().map_or_else(
        |_| String::new(),
        |name| name.to_string_lossy().into_owned(),
    );
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
    });
    Node {
        name,
        addresses: addresses.collect(),
    }
}

/// Reads the configuration: the file that was named, or the first of the usual ones.
pub(super) fn configuration(named: Option<&str>, node: &Node) -> Checked {
    let usual = CONFIGURATIONS.iter().find(|path| Path::new(path).exists());
    let path = named.unwrap_or_else(|| usual.unwrap_or(&CONFIGURATIONS[4]));
    let path = fs::canonicalize(path).map_or_else(
        |_| path.to_owned(),
        |path| path.to_string_lossy().into_owned(),
    );
    load(&path, &HostFiles, node)
}
