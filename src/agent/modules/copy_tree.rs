//! A directory of the host copied whole: what differs or is missing is written, what is
//! only at the target stays.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::super::error::ModuleError;
use super::super::files;
use super::super::work::Work;
use crate::task::attributes::Wanted;
use crate::task::mode::MODE_MASK;

/// Returns owner and group for everything in a tree; modes come from the source.
pub(super) fn owners(work: &Work) -> Result<Wanted, ModuleError> {
    Ok(Wanted {
        mode: None,
        ..files::wanted(work, None)?
    })
}

/// Copies all of `source` to `target`; returns whether anything changed.
pub(super) fn copy_tree(
    work: &Work,
    source: &Path,
    target: &Path,
    owners: &Wanted,
) -> Result<bool, ModuleError> {
    let mut changed = false;
    let mut pending: Vec<(PathBuf, PathBuf)> = vec![(source.to_owned(), target.to_owned())];
    while let Some((from, to)) = pending.pop() {
        work.lifeline.check()?;
        changed |= copy_directory_itself(work, &from, &to)?;
        changed |= files::apply_attributes(work, &to, owners)?.is_some();
        for name in files::entries(&from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            let Some(found) = files::link_metadata(&from)? else {
                continue;
            };
            if found.is_dir() {
                pending.push((from, to));
                continue;
            }
            changed |= if found.is_symlink() {
                copy_link(work, &from, &to)?
            } else if found.is_file() {
                copy_file(work, &from, &to, found.mode() & MODE_MASK)?
            } else {
                // Sockets, pipes and devices are nothing to copy.
                continue;
            };
            changed |= files::apply_attributes(work, &to, owners)?.is_some();
        }
    }
    Ok(changed)
}

fn copy_directory_itself(work: &Work, from: &Path, to: &Path) -> Result<bool, ModuleError> {
    if files::metadata(to)?.is_some() {
        return Ok(false);
    }
    if !work.check {
        fs::create_dir_all(to).map_err(ModuleError::file("make the directory", to))?;
        let mode = files::metadata(from)?.map_or(0o755, |found| found.mode() & MODE_MASK);
        files::set_mode(to, mode)?;
    }
    Ok(true)
}

fn copy_file(work: &Work, from: &Path, to: &Path, mode: u32) -> Result<bool, ModuleError> {
    let content = fs::read(from).map_err(ModuleError::file("read", from))?;
    if files::read_if_there(to)?.as_deref() == Some(&content) {
        return Ok(false);
    }
    if !work.check {
        files::replace(to, &content)?;
        files::set_mode(to, mode)?;
    }
    Ok(true)
}

fn copy_link(work: &Work, from: &Path, to: &Path) -> Result<bool, ModuleError> {
    let aim = fs::read_link(from).map_err(ModuleError::file("read the link", from))?;
    if fs::read_link(to).is_ok_and(|current| current == aim) {
        return Ok(false);
    }
    if !work.check {
        if files::link_metadata(to)?.is_some() {
            fs::remove_file(to).map_err(ModuleError::file("replace", to))?;
        }
        symlink(&aim, to).map_err(ModuleError::file("make the link", to))?;
    }
    Ok(true)
}
