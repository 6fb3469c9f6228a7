//! Modules that look at files: `stat`, `slurp`, `find`; and `tempfile`.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use nix::unistd::{AccessFlags, access};
use serde_json::{Map, Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::super::error::ModuleError;
use super::super::files;
use super::super::process::unix_now;
use super::super::work::{Work, accounts};
use crate::base::hex::hex;
use crate::task::accounts::Accounts;
use crate::task::find::{Criteria, Seen};
use crate::task::mode::MODE_MASK;
use crate::task::outcome::{Outcome, Refusal};
use crate::task::wildcard;

/// Largest file that is read into a result.
const SLURP_BYTES_MAX: u64 = 32 * 1024 * 1024;

pub(super) fn stat(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let path = work.required_path("path");
    let found = if args.flag("follow") {
        files::metadata(&path)?
    } else {
        files::link_metadata(&path)?
    };
    let Some(found) = found else {
        return Ok(Outcome::changed(false).with("stat", json!({"exists": false})));
    };
    let mut stat = described(&path, &found, &accounts()?);
    if found.is_symlink() {
        let aim = fs::read_link(&path).map_err(ModuleError::file("read the link", &path))?;
        let real = fs::canonicalize(&path).unwrap_or_else(|_| aim_of(&path, &aim));
        stat.insert("lnk_source".to_owned(), real.to_string_lossy().into());
        stat.insert("lnk_target".to_owned(), aim.to_string_lossy().into());
    }
    if found.is_file() && args.flag("get_checksum") && is_readable(&path) {
        let bytes = fs::read(&path).map_err(ModuleError::file("read", &path))?;
        let checksum = match args.word("checksum_algorithm") {
            "sha256" => sha256_hex(&bytes),
            _ => sha1_hex(&bytes),
        };
        stat.insert("checksum".to_owned(), checksum.into());
    }
    Ok(Outcome::changed(false).with("stat", stat))
}

/// Returns where a link leads that leads nowhere.
fn aim_of(link: &Path, aim: &Path) -> PathBuf {
    let directory = link.parent().unwrap_or_else(|| Path::new(""));
    files::real_path(directory).join(aim)
}

fn is_readable(path: &Path) -> bool {
    access(path, AccessFlags::R_OK).is_ok()
}

/// Returns the fields Ansible's `stat` and `find` have in common.
fn described(path: &Path, found: &Metadata, accounts: &Accounts) -> Map<String, Value> {
    let mode = found.mode();
    let bit = |bit: u32| mode & bit != 0;
    let may = |flag: AccessFlags| access(path, flag).is_ok();
    let seconds = |whole: i64, nanos: i64| {
        #[expect(clippy::cast_precision_loss, reason = "a time as Python's float")]
        let seconds = whole as f64 + nanos as f64 / 1e9;
        seconds
    };
    let kind = found.file_type();
    let value = json!({
        "exists": true,
        "path": path.to_string_lossy(),
        "mode": format!("{:04o}", mode & MODE_MASK),
        "isdir": kind.is_dir(),
        "ischr": kind.is_char_device(),
        "isblk": kind.is_block_device(),
        "isreg": kind.is_file(),
        "isfifo": kind.is_fifo(),
        "islnk": kind.is_symlink(),
        "issock": kind.is_socket(),
        "uid": found.uid(),
        "gid": found.gid(),
        "size": found.size(),
        "inode": found.ino(),
        "dev": found.dev(),
        "nlink": found.nlink(),
        "atime": seconds(found.atime(), found.atime_nsec()),
        "mtime": seconds(found.mtime(), found.mtime_nsec()),
        "ctime": seconds(found.ctime(), found.ctime_nsec()),
        "wusr": bit(0o200), "rusr": bit(0o400), "xusr": bit(0o100),
        "wgrp": bit(0o020), "rgrp": bit(0o040), "xgrp": bit(0o010),
        "woth": bit(0o002), "roth": bit(0o004), "xoth": bit(0o001),
        "isuid": bit(0o4000), "isgid": bit(0o2000),
        "readable": may(AccessFlags::R_OK),
        "writeable": may(AccessFlags::W_OK),
        "executable": may(AccessFlags::X_OK),
        "pw_name": accounts.user_name(found.uid()),
        "gr_name": accounts.group_name(found.gid()),
        "block_size": found.blksize(),
        "blocks": found.blocks(),
        "device_type": found.rdev(),
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

pub(super) fn slurp(work: &Work) -> Result<Outcome, ModuleError> {
    let path = work.required_path("src");
    let shown = path.display();
    let Some(found) = files::metadata(&path)? else {
        return Err(Refusal::new(format!("file not found: {shown}")).into());
    };
    if found.is_dir() {
        let why = format!("source is a directory and must be a file: {shown}");
        return Err(Refusal::new(why).into());
    }
    if found.len() > SLURP_BYTES_MAX {
        let why = format!(
            "{shown} has {} bytes, at most {SLURP_BYTES_MAX} are read",
            found.len()
        );
        return Err(Refusal::new(why).into());
    }
    let bytes = fs::read(&path).map_err(ModuleError::file("read", &path))?;
    Ok(Outcome::changed(false)
        .with("content", STANDARD.encode(bytes))
        .with("source", shown.to_string())
        .with("encoding", "base64"))
}

pub(super) fn find(work: &Work) -> Result<Outcome, ModuleError> {
    let criteria = Criteria::from_args(work.args(), unix_now())?;
    let accounts = accounts()?;
    let mut files_found = Vec::new();
    let mut examined = 0;
    let mut skipped = Map::new();
    for root in work.args().list("paths") {
        let root = PathBuf::from(work.expand(root));
        if !root.is_dir() {
            let why = format!("'{}' is not a directory", root.display());
            skipped.insert(root.display().to_string(), why.into());
            continue;
        }
        let mut pending = vec![(root, 1)];
        while let Some((directory, depth)) = pending.pop() {
            work.lifeline.check()?;
            let names = match files::entries(&directory) {
                Ok(names) => names,
                Err(error) => {
                    skipped.insert(directory.display().to_string(), error.to_string().into());
                    continue;
                }
            };
            for name in names {
                examined += 1;
                let path = directory.join(&name);
                let Ok(found) = fs::symlink_metadata(&path) else {
                    continue;
                };
                let name = name.to_string_lossy();
                if found.is_dir() && criteria.descends(depth) && criteria.shows(&name) {
                    pending.push((path.clone(), depth + 1));
                }
                if criteria.accepts(&seen(&name, &path, &found, &criteria)) {
                    files_found.push(Value::Object(described(&path, &found, &accounts)));
                }
            }
        }
    }
    files_found.truncate(criteria.limit);
    let matched = files_found.len();
    Ok(Outcome::changed(false)
        .msg(if skipped.is_empty() {
            "All paths examined"
        } else {
            "Not all paths examined, check warnings for details"
        })
        .with("files", files_found)
        .with("matched", matched)
        .with("examined", examined)
        .with("skipped_paths", skipped))
}

fn seen(name: &str, path: &Path, found: &Metadata, criteria: &Criteria) -> Seen {
    let content = if criteria.reads_content() && found.is_file() {
        let bytes = fs::read(path).unwrap_or_default();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    } else {
        None
    };
    let since = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Seen {
        name: name.to_owned(),
        is_directory: found.is_dir(),
        is_link: found.is_symlink(),
        is_file: found.is_file(),
        size: found.size(),
        modified: since(found.mtime()),
        accessed: since(found.atime()),
        status_changed: since(found.ctime()),
        content,
    }
}

/// So many names in a row that are taken would be no accident.
const ATTEMPTS_MAX: u32 = 100;

pub(super) fn tempfile(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let directory = work.path("path").unwrap_or_else(std::env::temp_dir);
    for attempt in 0..ATTEMPTS_MAX {
        let unique = unix_now().as_nanos() + u128::from(attempt);
        let name = format!("{}{unique:x}{}", args.word("prefix"), args.word("suffix"));
        let path = directory.join(name);
        let (made, mode) = if args.word("state") == "directory" {
            (fs::create_dir(&path), 0o700)
        } else {
            let made = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path);
            (made.map(drop), 0o600)
        };
        match made {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                    .map_err(ModuleError::file("change the mode of", &path))?;
                let outcome = Outcome::changed(true).with("path", path.display().to_string());
                return files::with_path_info(outcome, &path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ModuleError::file("make", &path)(error)),
        }
    }
    let why = format!(
        "no free name in {} after {ATTEMPTS_MAX} attempts",
        directory.display()
    );
    Err(Refusal::new(why).into())
}

/// Returns the paths that a pattern names; one without wildcards names itself if there.
pub(super) fn glob(pattern: &Path) -> Result<Vec<PathBuf>, ModuleError> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !wildcard::is_pattern(&text) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let mut next = Vec::new();
        for directory in found.iter().filter(|path| path.is_dir()) {
            for name in files::entries(directory)? {
                if wildcard::matches(&text, &name.to_string_lossy()) {
                    next.push(directory.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    Ok(found)
}

pub(super) fn sha1_hex(bytes: &[u8]) -> String {
    hex(&Sha1::digest(bytes))
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}
