//! Files of the host: their facts, atomic replacement, backups, attributes.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ModuleError;
use super::process;
use super::work::{Work, accounts};
use crate::task::attributes::{Actual, Change, Wanted, octal};
use crate::task::command;
use crate::task::mode::MODE_MASK;
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::time::Moment;

/// Returns what is at a path; `None` when nothing is.
pub fn metadata(path: &Path) -> Result<Option<Metadata>, ModuleError> {
    found(fs::metadata(path), path)
}

/// The same for a link itself.
pub fn link_metadata(path: &Path) -> Result<Option<Metadata>, ModuleError> {
    found(fs::symlink_metadata(path), path)
}

fn found<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, ModuleError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(ModuleError::file("look at", path)(error)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    // A link that leads to itself leads nowhere.
    error.raw_os_error() == Some(nix::libc::ELOOP)
        || matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
}

/// Returns a file's bytes; `None` when there is no file.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, ModuleError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(ModuleError::file("read", path)(error)),
    }
}

/// Returns a file's text, for the kernel's and the system's own files; empty when absent.
pub fn text_of(path: impl AsRef<Path>) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// Returns where a link leads in the end; the path itself when it is none or leads nowhere.
pub fn real_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

pub fn actual(metadata: &Metadata) -> Actual {
    Actual {
        mode: metadata.mode() & MODE_MASK,
        uid: metadata.uid(),
        gid: metadata.gid(),
        is_directory: metadata.is_dir(),
        is_link: metadata.is_symlink(),
    }
}

/// Makes a file with this content take the path's place in one step. An existing file's
/// mode and owner are kept; a new one gets what the umask leaves.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), ModuleError> {
    let existing = link_metadata(path)?.filter(|found| !found.is_symlink());
    let temporary = temporary_beside(path);
    let written = write_new(&temporary, content, existing.as_ref())
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        ModuleError::file("write", path)(error)
    })
}

fn write_new(path: &Path, content: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    // Nobody else reads it before it has its final mode.
    let first_mode = if like.is_some() { 0o600 } else { 0o666 };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(first_mode)
        .open(path)?;
    file.write_all(content)?;
    if let Some(like) = like {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            // Who may not give files away keeps them, as a plain copy would.
            let _ = chown(path, Some(like.uid()), Some(like.gid()));
        }
        file.set_permissions(Permissions::from_mode(like.mode() & MODE_MASK))?;
    }
    Ok(())
}

/// Returns a name in the same directory that nobody else has.
pub fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{number}.halab", std::process::id()))
}

/// Keeps a copy under Ansible's name for backups; returns it.
pub fn backup(path: &Path) -> Result<PathBuf, ModuleError> {
    let now = Moment::from_unix(process::unix_now());
    let name_of = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}.{}@{}~", now.date(), now.time()));
        PathBuf::from(name)
    };
    // The number is Ansible's process id; the agent keeps its own over many backups, of
    // which several may fall into one second.
    let mut kept = name_of(std::process::id());
    for number in std::process::id() + 1.. {
        if link_metadata(&kept)?.is_none() {
            break;
        }
        kept = name_of(number);
    }
    fs::copy(path, &kept).map_err(ModuleError::file("back up", path))?;
    if let Ok(found) = fs::metadata(path) {
        let _ = chown(&kept, Some(found.uid()), Some(found.gid()));
        set_mode(&kept, found.mode() & MODE_MASK)?;
    }
    Ok(kept)
}

/// Has the `validate` command, where there is one, judge a content before it is used.
pub fn validate(work: &Work, content: &[u8]) -> Result<(), ModuleError> {
    let Some(line) = work.args().text("validate") else {
        return Ok(());
    };
    if !line.contains("%s") {
        return Err(Refusal::new(format!("validate must contain %s: {line}")).into());
    }
    let temporary = temporary_beside(&std::env::temp_dir().join("validate"));
    write_new(&temporary, content, None).map_err(ModuleError::file("write", &temporary))?;
    let judged = command::split(&line.replace("%s", &temporary.to_string_lossy()))
        .map_err(ModuleError::from)
        .and_then(|argv| process::tool(work, &argv));
    let _ = fs::remove_file(&temporary);
    let judged = judged?;
    if judged.rc == 0 {
        return Ok(());
    }
    Err(Refusal::new("failed to validate")
        .with("exit_status", judged.rc)
        .with("stdout", judged.stdout_text())
        .with("stderr", judged.stderr_text())
        .into())
}

/// Reads the wanted attributes from a task's arguments.
pub fn wanted(work: &Work, preserved: Option<u32>) -> Result<Wanted, ModuleError> {
    let args = work.args();
    if !(args.has("mode") || args.has("owner") || args.has("group")) {
        return Ok(Wanted::default());
    }
    Ok(Wanted::from_args(args, &accounts()?, preserved)?)
}

/// Brings mode, owner and group of a path there, or says what would change.
pub fn apply_attributes(
    work: &Work,
    path: &Path,
    wanted: &Wanted,
) -> Result<Option<Diff>, ModuleError> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let Some(found) = link_metadata(path)? else {
        return Ok(None);
    };
    let actual = actual(&found);
    let change = wanted.change(actual, umask());
    if change.is_nothing() {
        return Ok(None);
    }
    if !work.check {
        perform(path, change)?;
    }
    let (before, after) = change.described(actual);
    Ok(Some(Diff::of_values("", before.into(), after.into())))
}

fn perform(path: &Path, change: Change) -> Result<(), ModuleError> {
    if change.uid.is_some() || change.gid.is_some() {
        lchown(path, change.uid, change.gid)
            .map_err(ModuleError::file("change the owner of", path))?;
    }
    if let Some(mode) = change.mode {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(ModuleError::file("change the mode of", path))?;
    }
    Ok(())
}

/// Returns the umask of this process; it never changes.
fn umask() -> u32 {
    let status = text_of("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let bits = line.and_then(|bits| u32::from_str_radix(bits.trim(), 8).ok());
    bits.unwrap_or(0o022)
}

/// Adds what Ansible tells of the file a task was about.
pub fn with_path_info(outcome: Outcome, path: &Path) -> Result<Outcome, ModuleError> {
    let Some(found) = link_metadata(path)? else {
        return Ok(outcome.with("state", "absent"));
    };
    let accounts = accounts()?;
    Ok(outcome
        .with("uid", found.uid())
        .with("gid", found.gid())
        .with("owner", accounts.user_name(found.uid()))
        .with("group", accounts.group_name(found.gid()))
        .with("mode", octal(found.mode()))
        .with("size", found.len())
        .with("state", state_of(&found)))
}

/// Returns Ansible's word for what is at a path.
pub fn state_of(metadata: &Metadata) -> &'static str {
    if metadata.is_symlink() {
        "link"
    } else if metadata.is_dir() {
        "directory"
    } else if metadata.nlink() > 1 {
        "hard"
    } else {
        "file"
    }
}

pub fn set_mode(path: &Path, mode: u32) -> Result<(), ModuleError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ModuleError::file("change the mode of", path))
}

/// Returns the names in a directory, sorted.
pub fn entries(path: &Path) -> Result<Vec<std::ffi::OsString>, ModuleError> {
    let failed = || ModuleError::file("list", path);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed())? {
        names.push(entry.map_err(failed())?.file_name());
    }
    names.sort();
    Ok(names)
}
