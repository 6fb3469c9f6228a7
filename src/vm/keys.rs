//! The lab's SSH keys, made by `ssh-keygen` the first time the lab comes up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::access::{SshFiles, known_hosts, ssh_config};
use super::guest::GuestKeys;
use super::spec::Topology;
use super::state::{LabFolders, StateError, create_folder, write_whole};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("failed to run `ssh-keygen` (package openssh-client)")]
    Run(#[source] io::Error),
    #[error("`ssh-keygen` failed: {reason}")]
    Generate { reason: String },
    #[error("failed to read the key {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes what is missing of the lab's keys and OpenSSH's files, and returns each machine's.
pub fn ensure(
    folders: &LabFolders,
    topology: &Topology,
    connect: &[String],
) -> Result<BTreeMap<String, GuestKeys>, KeyError> {
    let identity = folders.root.join("id_ed25519");
    let host_keys = folders.root.join("host_keys");
    create_folder(&host_keys)?;
    let user_public = public_key(&identity, &format!("halab {}", folders.lab))?;
    let mut keys = BTreeMap::new();
    let mut public = Vec::new();
    for name in topology.machine_names() {
        let path = host_keys.join(name);
        public.push((name, public_key(&path, name)?));
        let host_key =
            fs::read_to_string(&path).map_err(|source| KeyError::Read { path, source })?;
        let guest = GuestKeys {
            authorized_keys: user_public.clone(),
            host_key,
        };
        keys.insert(name.to_owned(), guest);
    }
    let known = folders.root.join("known_hosts");
    let pairs = public.iter().map(|(name, key)| (*name, key.as_str()));
    write_whole(&known, known_hosts(pairs).as_bytes(), 0o600)?;
    let config = ssh_config(&SshFiles {
        topology,
        connect,
        identity: &identity,
        known_hosts: &known,
    });
    write_whole(&folders.ssh_config(), config.as_bytes(), 0o600)?;
    Ok(keys)
}

/// Returns a new private host key of which nothing stays behind.
pub fn throwaway_host_key(folder: &Path) -> Result<String, KeyError> {
    let path = folder.join("throwaway_key");
    let _ = fs::remove_file(&path);
    generate(&path, "throwaway")?;
    let key = fs::read_to_string(&path);
    let _ = fs::remove_file(beside(&path, "pub"));
    let _ = fs::remove_file(&path);
    key.map_err(|source| KeyError::Read { path, source })
}

/// Returns a key's public half, making the pair first where it is missing. Made under another
/// name and moved, so that a kill leaves no half a key.
fn public_key(path: &Path, comment: &str) -> Result<String, KeyError> {
    let public = beside(path, "pub");
    if !path.exists() {
        let unfinished = beside(path, "unfinished");
        let unfinished_public = beside(&unfinished, "pub");
        let _ = fs::remove_file(&unfinished);
        generate(&unfinished, comment)?;
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|source| KeyError::Read {
                path: to.to_owned(),
                source,
            })
        };
        rename(&unfinished_public, &public)?;
        rename(&unfinished, path)?;
    }
    fs::read_to_string(&public).map_err(|source| KeyError::Read {
        path: public,
        source,
    })
}

/// Appends to a file's name; a machine's may hold points.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn generate(path: &Path, comment: &str) -> Result<(), KeyError> {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(KeyError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(KeyError::Generate {
        reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
