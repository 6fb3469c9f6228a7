//! `file`: looks at the path, takes the one step, sets the attributes.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::super::error::ModuleError;
use super::super::files;
use super::super::work::Work;
use crate::task::attributes::Wanted;
use crate::task::file::{End, Facts, Plan, Replaces, Step, There, plan};
use crate::task::outcome::{Diff, Outcome, Refusal};

pub(super) fn file(work: &Work) -> Result<Outcome, ModuleError> {
    let path = path(work)?;
    let facts = facts(work, &path)?;
    let plan = plan(work.args(), &facts)?;
    let mut outcome = Outcome::changed(plan.step != Step::Nothing);
    if plan.step != Step::Nothing {
        outcome = outcome.diff(state_diff(&path, &facts.there, plan.state));
    }
    if plan.state == "absent" {
        if !work.check {
            perform(work, &path, &plan.step)?;
        }
        let shown = path.display().to_string();
        return Ok(outcome.with("path", shown).with("state", "absent"));
    }
    let wanted = files::wanted(work, None)?;
    let made = new_directories(&path, &plan);
    if !work.check {
        perform(work, &path, &plan.step)?;
    }
    for directory in made.iter().rev() {
        files::apply_attributes(work, directory, &wanted)?;
    }
    let target = attributed(work, &path, plan.state);
    if let Some(diff) = files::apply_attributes(work, &target, &wanted)? {
        outcome.changed = true;
        outcome = outcome.diff(diff);
    }
    if work.args().flag("recurse") {
        outcome.changed |= recurse(work, &target, &wanted)?;
    }
    outcome.changed |= set_times(work, &target, plan.state)?;
    report(work, outcome, &path, &plan)
}

/// Returns the path; one that is a directory is completed with the source's name.
fn path(work: &Work) -> Result<PathBuf, ModuleError> {
    let args = work.args();
    let path = work.required_path("path");
    let is_kept = matches!(args.text("state"), Some("link" | "absent"));
    if is_kept || !files::metadata(&path)?.is_some_and(|found| found.is_dir()) {
        return Ok(path);
    }
    let name = match (args.text("_original_basename"), work.path("src")) {
        (Some(name), _) => Some(PathBuf::from(name)),
        (None, Some(src)) => src.file_name().map(PathBuf::from),
        (None, None) => None,
    };
    Ok(name.map_or_else(|| path.clone(), |name| path.join(name)))
}

fn facts(work: &Work, path: &Path) -> Result<Facts, ModuleError> {
    let there = match files::link_metadata(path)? {
        None => There::Absent,
        Some(found) if found.is_symlink() => There::Link {
            target: fs::read_link(path)
                .map_err(ModuleError::file("read the link", path))?
                .to_string_lossy()
                .into_owned(),
        },
        Some(found) if found.is_dir() => There::Directory {
            is_empty: files::entries(path)?.is_empty(),
        },
        Some(found) if found.nlink() > 1 => There::Hard,
        Some(_) => There::File,
    };
    let at_path = files::metadata(path)?;
    let source = match work.path("src") {
        // A relative link is meant from where it stands.
        Some(src) if there_is_link_state(work) => files::metadata(&beside(path, &src))?,
        Some(src) => files::metadata(&src)?,
        None => None,
    };
    let is_source = match (&at_path, &source) {
        (Some(at_path), Some(source)) => {
            (at_path.dev(), at_path.ino()) == (source.dev(), source.ino())
        }
        _ => false,
    };
    Ok(Facts {
        there,
        leads_to: match &at_path {
            None => End::Nothing,
            Some(found) if found.is_dir() => End::Directory,
            Some(_) => End::Other,
        },
        source_exists: source.is_some(),
        is_source,
    })
}

fn there_is_link_state(work: &Work) -> bool {
    work.args().text("state") != Some("hard")
}

fn beside(path: &Path, src: &Path) -> PathBuf {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let from = if is_directory {
        Some(path)
    } else {
        path.parent()
    };
    from.unwrap_or_else(|| Path::new("")).join(src)
}

fn perform(work: &Work, path: &Path, step: &Step) -> Result<(), ModuleError> {
    match step {
        Step::Nothing => Ok(()),
        Step::Remove => {
            let is_directory = files::link_metadata(path)?.is_some_and(|found| found.is_dir());
            let removed = if is_directory {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            removed.map_err(ModuleError::file("remove", path))
        }
        Step::MakeDirectory => {
            fs::create_dir_all(path).map_err(ModuleError::file("make the directory", path))
        }
        Step::MakeEmptyFile => {
            let made = fs::OpenOptions::new().create(true).append(true).open(path);
            made.map(drop).map_err(ModuleError::file("make", path))
        }
        Step::SymbolicLink { target, replaces } => {
            let target = work.expand(target);
            put_in_place(path, *replaces, "make the link", |at| symlink(&target, at))
        }
        Step::HardLink { source, replaces } => {
            let source = work.expand(source);
            put_in_place(path, *replaces, "make the hard link", |at| {
                fs::hard_link(&source, at)
            })
        }
    }
}

/// Makes a link beside the path and moves it there, so that there is always one of both.
fn put_in_place(
    path: &Path,
    replaces: Replaces,
    attempt: &'static str,
    make: impl Fn(&Path) -> std::io::Result<()>,
) -> Result<(), ModuleError> {
    if replaces == Replaces::Nothing {
        return make(path).map_err(ModuleError::file(attempt, path));
    }
    if replaces == Replaces::EmptyDirectory {
        fs::remove_dir(path).map_err(ModuleError::file("replace", path))?;
    }
    let temporary = files::temporary_beside(path);
    let placed = make(&temporary).and_then(|()| fs::rename(&temporary, path));
    placed.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        ModuleError::file(attempt, path)(error)
    })
}

/// Returns the directories that will be new, the innermost first and without the path
/// itself: they get the same attributes.
fn new_directories(path: &Path, plan: &Plan) -> Vec<PathBuf> {
    if plan.step != Step::MakeDirectory {
        return Vec::new();
    }
    let above = path.ancestors().skip(1);
    let new = above.take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    new.map(Path::to_owned).collect()
}

/// Returns what gets the attributes: what a link leads to, when it is followed.
fn attributed(work: &Work, path: &Path, state: &str) -> PathBuf {
    if !work.args().flag("follow") || state == "hard" {
        return path.to_owned();
    }
    files::real_path(path)
}

fn recurse(work: &Work, directory: &Path, wanted: &Wanted) -> Result<bool, ModuleError> {
    let mut changed = false;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        work.lifeline.check()?;
        if files::metadata(&directory)?.is_none() {
            continue;
        }
        for name in files::entries(&directory)? {
            let path = directory.join(name);
            changed |= files::apply_attributes(work, &path, wanted)?.is_some();
            if files::link_metadata(&path)?.is_some_and(|found| found.is_dir()) {
                pending.push(path);
            }
        }
    }
    Ok(changed)
}

/// Sets the times a task names: `now`, `preserve`; touching means now.
fn set_times(work: &Work, path: &Path, state: &str) -> Result<bool, ModuleError> {
    let args = work.args();
    let is_now = |name: &str| match args.text(name) {
        Some("now") => Ok(true),
        Some("preserve") => Ok(false),
        None => Ok(state == "touch"),
        Some(other) => Err(Refusal::new(format!(
            "`{name}` takes now or preserve, found `{other}`"
        ))),
    };
    let (modified, accessed) = (is_now("modification_time")?, is_now("access_time")?);
    if !(modified || accessed) {
        return Ok(false);
    }
    if work.check {
        return Ok(true);
    }
    let now = SystemTime::now();
    let mut times = fs::FileTimes::new();
    if modified {
        times = times.set_modified(now);
    }
    if accessed {
        times = times.set_accessed(now);
    }
    let set = fs::File::open(path).and_then(|file| file.set_times(times));
    set.map(|()| true)
        .map_err(ModuleError::file("set the times of", path))
}

fn state_diff(path: &Path, there: &There, state: &str) -> Diff {
    let shown = path.display().to_string();
    Diff::of_values(
        "",
        json!({"path": shown, "state": there.word()}),
        json!({"path": shown, "state": state}),
    )
}

fn report(work: &Work, outcome: Outcome, path: &Path, plan: &Plan) -> Result<Outcome, ModuleError> {
    let shown = path.display().to_string();
    let outcome = match plan.state {
        "link" | "hard" => outcome
            .with("dest", shown)
            .with_if("src", work.args().text("src")),
        "touch" => outcome.with("dest", shown),
        _ => outcome.with("path", shown),
    };
    if work.check && plan.step != Step::Nothing {
        return Ok(outcome);
    }
    files::with_path_info(outcome, path)
}
