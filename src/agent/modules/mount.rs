//! `mount`: edits the table of mounts, calls mount and umount.

use std::fs;
use std::path::Path;

use super::super::error::ModuleError;
use super::super::work::Work;
use super::super::{files, process};
use crate::task::mount::{Facts, Step, is_mounted, options, plan};
use crate::task::outcome::{Diff, Outcome};

const TABLE: &str = "/etc/fstab";

pub(super) fn mount(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let place = work.required_path("path");
    let table_path = work.path("fstab").unwrap_or_else(|| TABLE.into());
    let table = files::read_if_there(&table_path)?.unwrap_or_default();
    let table = String::from_utf8_lossy(&table).into_owned();
    let mounts = files::text_of("/proc/self/mounts");
    let facts = Facts {
        is_mounted: is_mounted(&mounts, &place.to_string_lossy()),
        directory_exists: place.is_dir(),
    };
    let plan = plan(args, &table, facts);
    let mut outcome = Outcome::changed(plan.is_change());
    if !work.check {
        if let Some(content) = &plan.table {
            if args.flag("backup") && table_path.exists() {
                let kept = files::backup(&table_path)?.display().to_string();
                outcome = outcome.with("backup_file", kept);
            }
            files::replace(&table_path, content.as_bytes())?;
        }
        for step in &plan.steps {
            perform(work, *step, &place, &table_path)?;
        }
    }
    let shown = table_path.display().to_string();
    let after = plan.table.unwrap_or_else(|| table.clone());
    Ok(outcome
        .with("name", place.display().to_string())
        .with_if("src", args.text("src"))
        .with_if("fstype", args.text("fstype"))
        .with("opts", options(args))
        .with("dump", args.word("dump"))
        .with("passno", args.word("passno"))
        .with("fstab", shown.as_str())
        .diff(Diff::of_text(&shown, table, after)))
}

fn perform(work: &Work, step: Step, place: &Path, table: &Path) -> Result<(), ModuleError> {
    let args = work.args();
    let shown = place.to_string_lossy().into_owned();
    let table = table.to_string_lossy().into_owned();
    let command: Vec<String> = match step {
        Step::MakeDirectory => {
            return fs::create_dir_all(place)
                .map_err(ModuleError::file("make the directory", place));
        }
        Step::RemoveDirectory => {
            return fs::remove_dir(place).map_err(ModuleError::file("remove the directory", place));
        }
        Step::Mount => vec!["mount".into(), "-T".into(), table, shown],
        Step::MountDirectly => vec![
            "mount".into(),
            "-t".into(),
            args.word("fstype").into(),
            "-o".into(),
            options(args),
            args.word("src").into(),
            shown,
        ],
        Step::Remount => vec![
            "mount".into(),
            "-T".into(),
            table,
            "-o".into(),
            "remount".into(),
            shown,
        ],
        Step::Unmount => vec!["umount".into(), shown],
    };
    process::must(work, &command).map(drop)
}
