//! The agent in the place of drbd-utils' programs: the names that people, init scripts,
//! resource agents and heartbeat call; and all of that gone again.
//!
//! Those scripts say `/sbin/drbdadm`, or put `/usr/sbin` first into their PATH, so the
//! names themselves are taken: the package's programs are diverted, as Debian calls it,
//! and stay there under another name, whatever the package does meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name under which the newest agent of a machine is found.
const AGENT: &str = "/usr/local/lib/halab/halab-agent";

const NAMES: [&str; 3] = [
    "/usr/sbin/drbdadm",
    "/usr/sbin/drbdsetup",
    "/usr/sbin/drbd-overview",
];

/// What the agent's own files are called.
const MARK: &str = "halab-agent";

#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    #[error("failed to {attempt} {}: {source}", .path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("dpkg-divert of {} failed: {text}", .path.display())]
    Divert { path: PathBuf, text: String },
    #[error("the kernel's DRBD has devices ({0}): `drbdadm down all` first")]
    KernelInUse(String),
    #[error("resources are up here ({0}): `drbdadm down all` first")]
    AgentInUse(String),
}

/// Whether the agent answers to the names now.
pub fn stands_in() -> bool {
    NAMES.iter().all(|name| is_own(Path::new(name)))
}

/// Takes the names. Twice is as once.
pub fn stand_in() -> Result<(), StandInError> {
    if stands_in() {
        return Ok(());
    }
    let devices = names_in("/sys/block", "drbd", "");
    if !devices.is_empty() {
        return Err(StandInError::KernelInUse(devices.join(", ")));
    }
    let agent = agent();
    for name in NAMES.map(Path::new) {
        if is_own(name) {
            continue;
        }
        if fs::symlink_metadata(name).is_ok() {
            divert(name, "--add")?;
        }
        symlink(&agent, name).map_err(file("make the link", name))?;
    }
    Ok(())
}

/// Gives the names back. Twice is as once.
pub fn stand_aside() -> Result<(), StandInError> {
    let resources = names_in(crate::replica::control::SOCKET_DIR, "", ".sock");
    if stands_in() && !resources.is_empty() {
        return Err(StandInError::AgentInUse(resources.join(", ")));
    }
    for name in NAMES.map(Path::new) {
        if is_own(name) {
            fs::remove_file(name).map_err(file("remove", name))?;
        }
        if diverted(name).exists() {
            divert(name, "--remove")?;
        }
    }
    Ok(())
}

fn diverted(name: &Path) -> PathBuf {
    let mut name = name.as_os_str().to_owned();
    name.push(".distrib");
    name.into()
}

/// Moves the package's program aside or back, and tells dpkg.
fn divert(name: &Path, action: &str) -> Result<(), StandInError> {
    let aside = diverted(name);
    let output = Command::new("dpkg-divert")
        .args(["--quiet", "--local", "--rename", "--divert"])
        .arg(&aside)
        .arg(action)
        .arg(name)
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(StandInError::Divert {
            path: name.to_owned(),
            text: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
        // No dpkg: nobody else has to know.
        Err(_) => {
            let (from, to) = match action {
                "--add" => (name, aside.as_path()),
                _ => (aside.as_path(), name),
            };
            fs::rename(from, to).map_err(file("move", from))
        }
    }
}

fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StandInError {
    let path = path.to_owned();
    move |source| StandInError::File {
        attempt,
        path,
        source,
    }
}

/// The stable name when the agent is there under it, else this very program.
fn agent() -> PathBuf {
    let stable = PathBuf::from(AGENT);
    if stable.exists() {
        return stable;
    }
    std::env::current_exe().unwrap_or(stable)
}

fn is_own(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| {
        let name = target.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(MARK)
    })
}

/// The names in a folder that begin and end so, without their end.
fn names_in(folder: &str, start: &str, end: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(start) && name.ends_with(end))
        .map(|name| name.trim_end_matches(end).to_owned())
        .collect();
    names.sort();
    names
}
