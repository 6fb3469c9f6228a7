//! Looks at the host: who runs halab, and what is there. Decides nothing; [`super::doctor`] does.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::apt::{self, AptSource, OsRelease};

/// Where system programs lie that an ordinary user's search path leaves out.
const SYSTEM_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Tells whether this process has root's rights.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The user's search path, with the system's folders behind it.
pub fn search_path() -> OsString {
    match env::var_os("PATH") {
        Some(mut path) if !path.is_empty() => {
            path.push(":");
            path.push(SYSTEM_PATHS);
            path
        }
        _ => SYSTEM_PATHS.into(),
    }
}

pub fn os_release() -> OsRelease {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    OsRelease::parse(&text)
}

/// Reads apt's sources; a file that cannot be read is as good as none.
pub fn apt_sources() -> Vec<AptSource> {
    let mut sources = apt::parse_list(&read("/etc/apt/sources.list"));
    let entries = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(apt::parse_list(&read(&file))),
            Some("sources") => sources.extend(apt::parse_deb822(&read(&file))),
            _ => {}
        }
    }
    sources
}

/// The mirror this machine's own apt uses, where that has Debian's packages.
pub fn debian_mirror() -> String {
    apt::debian_mirror(&os_release(), &apt_sources())
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
