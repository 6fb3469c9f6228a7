//! `copy`: a content, or a file or directory of the host, is at a path.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::error::ModuleError;
use super::super::files;
use super::super::work::Work;
use super::copy_tree::{copy_tree, owners};
use super::inspect::{md5_hex, sha1_hex};
use crate::task::attributes::Wanted;
use crate::task::copy::{Destination, DestinationFacts, Source, place, place_directory};
use crate::task::mode::MODE_MASK;
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::text::looks_binary;

pub(super) fn copy(work: &Work) -> Result<Outcome, ModuleError> {
    let source = source(work)?;
    let dest = work.expand(work.args().word("dest"));
    let mut facts = destination_facts(Path::new(&dest))?;
    // When nothing is changed the directory may be one that an earlier task would have made.
    facts.parent_exists |= work.check;
    match source {
        Source::Directory(path) => copy_directory(work, &path, &dest, facts),
        Source::Content { bytes, name } => {
            let dest = place(&dest, name.as_deref(), facts)?;
            copy_content(work, &bytes, None, &dest)
        }
        Source::File { path, mode } => {
            let dest = place(&dest, file_name(&path).as_deref(), facts)?;
            let bytes = fs::read(&path).map_err(ModuleError::file("read", &path))?;
            let outcome = copy_content(work, &bytes, Some(mode), &dest)?;
            Ok(outcome.with("src", path.display().to_string()))
        }
    }
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn source(work: &Work) -> Result<Source, ModuleError> {
    let args = work.args();
    let name = args.text("_original_basename").map(str::to_owned);
    if args.flag("_content_in_body") {
        let bytes = work.body.clone();
        return Ok(Source::Content { bytes, name });
    }
    if let Some(content) = args.get("content") {
        let text = match content {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let bytes = text.into_bytes();
        return Ok(Source::Content { bytes, name });
    }
    let path = work.required_path("src");
    if !args.flag("remote_src") {
        let why = "`src` without `remote_src` has to be read by the orchestrator";
        return Err(Refusal::new(why).into());
    }
    match files::metadata(&path)? {
        None => Err(Refusal::new(format!("Source {} not found", path.display())).into()),
        Some(found) if found.is_dir() => {
            Ok(Source::Directory(if args.word("src").ends_with('/') {
                path.join("")
            } else {
                path
            }))
        }
        Some(found) => Ok(Source::File {
            path,
            mode: found.mode() & MODE_MASK,
        }),
    }
}

fn destination_facts(dest: &Path) -> Result<DestinationFacts, ModuleError> {
    let is_directory = |path: &Path| {
        let found = files::metadata(path)?;
        Ok::<_, ModuleError>(found.is_some_and(|found| found.is_dir()))
    };
    Ok(DestinationFacts {
        is_directory: is_directory(dest)?,
        is_other: files::metadata(dest)?.is_some_and(|found| !found.is_dir()),
        parent_exists: match dest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => is_directory(parent)?,
            _ => true,
        },
    })
}

fn copy_content(
    work: &Work,
    content: &[u8],
    source_mode: Option<u32>,
    dest: &Destination,
) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let mut path = PathBuf::from(&dest.path);
    let is_link = files::link_metadata(&path)?.is_some_and(|found| found.is_symlink());
    if is_link && args.flag("follow") {
        path = files::real_path(&path);
    }
    if files::metadata(&path)?.is_some() && !args.flag("force") {
        let shown = path.display().to_string();
        return Ok(Outcome::changed(false)
            .msg("file already exists")
            .with("dest", shown));
    }
    let existing = files::read_if_there(&path)?;
    let replaces_link = is_link && !args.flag("follow");
    let existed = existing.is_some() || is_link;
    let differs = existing.as_deref() != Some(content) || replaces_link;
    let checksum = sha1_hex(content);
    if let Some(expected) = args
        .text("checksum")
        .filter(|expected| *expected != checksum)
    {
        let why = "Copied file does not match the expected checksum. Transfer failed.";
        let refusal = Refusal::new(why).with("checksum", checksum);
        return Err(refusal.with("expected_checksum", expected).into());
    }
    let wanted = files::wanted(work, source_mode)?;
    let mut outcome = Outcome::changed(differs || dest.makes_parents);
    if differs && !work.check {
        if args.flag("backup") && existing.is_some() {
            let kept = files::backup(&path)?.display().to_string();
            outcome = outcome.with("backup_file", kept);
        }
        files::validate(work, content)?;
        if dest.makes_parents {
            make_parents(work, &path)?;
        }
        files::replace(&path, content)?;
        // Ansible's way with files of the host: a new one gets the usual mode, one that
        // was there takes over the source's.
        if let (Some(mode), true) = (source_mode, existed && wanted.mode.is_none()) {
            files::set_mode(&path, mode)?;
        }
    }
    if work.diff && !looks_binary(content) && !existing.as_deref().is_some_and(looks_binary) {
        let before = String::from_utf8_lossy(existing.as_deref().unwrap_or_default());
        let after = String::from_utf8_lossy(content);
        let shown = path.display().to_string();
        outcome = outcome.diff(if existing.is_some() {
            Diff::of_text(&shown, before, after)
        } else {
            Diff::of_new_text(&shown, after)
        });
    }
    outcome = with_attributes(work, outcome, &path, &wanted)?
        .with("dest", path.display().to_string())
        .with("checksum", checksum)
        .with("md5sum", md5_hex(content));
    if work.check && existing.is_none() {
        return Ok(outcome);
    }
    files::with_path_info(outcome, &path)
}

fn with_attributes(
    work: &Work,
    mut outcome: Outcome,
    path: &Path,
    wanted: &Wanted,
) -> Result<Outcome, ModuleError> {
    if let Some(diff) = files::apply_attributes(work, path, wanted)? {
        outcome.changed = true;
        // New content speaks for itself; attributes are shown when they alone change.
        if outcome.diff.is_empty() {
            outcome = outcome.diff(diff);
        }
    }
    Ok(outcome)
}

/// Makes the directories above a file, new ones with `directory_mode`.
fn make_parents(work: &Work, path: &Path) -> Result<(), ModuleError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let new: Vec<&Path> = parent
        .ancestors()
        .take_while(|above| !above.is_dir())
        .collect();
    fs::create_dir_all(parent).map_err(ModuleError::file("make the directory", parent))?;
    let wanted = directory_attributes(work)?;
    for directory in new.into_iter().rev() {
        files::apply_attributes(work, directory, &wanted)?;
    }
    Ok(())
}

/// Returns what directories that the module makes shall have.
fn directory_attributes(work: &Work) -> Result<Wanted, ModuleError> {
    let mode = match work.args().text("directory_mode") {
        Some(text) => crate::task::mode::Mode::parse(text).ok(),
        None => None,
    };
    Ok(Wanted {
        mode,
        ..files::wanted(work, None)?
    })
}

/// Copies a directory of the host; a source without a closing slash lands inside the
/// destination under its own name.
fn copy_directory(
    work: &Work,
    source: &Path,
    dest: &str,
    facts: DestinationFacts,
) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let takes_contents = args.word("src").ends_with('/');
    let name = file_name(source).unwrap_or_default();
    let placed = place_directory(dest, &name, takes_contents, facts)?;
    let (target, attributed) = (
        PathBuf::from(&placed.target),
        PathBuf::from(&placed.attributed),
    );
    let shown = attributed.display().to_string();
    if !args.flag("force") && files::metadata(&attributed)?.is_some() {
        return Ok(Outcome::changed(false)
            .msg("file already exists")
            .with("dest", shown));
    }
    if files::real_path(&target).starts_with(files::real_path(source)) {
        let (source, target) = (source.display(), target.display());
        return Err(Refusal::new(format!("cannot copy {source} into itself, to {target}")).into());
    }
    let changed = copy_tree(work, source, &target, &owners(work)?)?;
    let outcome = Outcome::changed(changed)
        .with("src", source.display().to_string())
        .with("dest", shown);
    let wanted = files::wanted(work, Some(source_mode(source)?))?;
    files::with_path_info(
        with_attributes(work, outcome, &attributed, &wanted)?,
        &attributed,
    )
}

fn source_mode(path: &Path) -> Result<u32, ModuleError> {
    Ok(files::metadata(path)?.map_or(0, |found| found.mode() & MODE_MASK))
}
