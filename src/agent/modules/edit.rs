//! `lineinfile`, `blockinfile`, `replace`: reads the file, has the edit decided, writes.

use std::fs;
use std::path::Path;

use super::super::error::ModuleError;
use super::super::files;
use super::super::work::Work;
use crate::task::lineinfile::Edit;
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::replace::Plan;
use crate::task::text::{Text, looks_binary};
use crate::task::{blockinfile, lineinfile, replace};

pub(super) fn lineinfile(work: &Work) -> Result<Outcome, ModuleError> {
    let path = work.required_path("path");
    let args = work.args();
    let file = read(&path, "Destination")?;
    if file.is_none() && args.word("state") == "absent" {
        return Ok(Outcome::changed(false).msg("file not present"));
    }
    let Some(original) = file.or_else(|| args.flag("create").then(Text::empty)) else {
        return Err(missing(&path, "Destination"));
    };
    let edit = lineinfile::plan(&original, args)?;
    let outcome = finish(work, &path, &original, &edit)?;
    let outcome = if outcome.values.contains_key("backup") {
        outcome
    } else {
        outcome.with("backup", "")
    };
    Ok(outcome.with_if("found", edit.found))
}

pub(super) fn blockinfile(work: &Work) -> Result<Outcome, ModuleError> {
    let path = work.required_path("path");
    let args = work.args();
    let file = read(&path, "Path")?;
    if file.is_none() {
        if !args.flag("create") {
            return Err(missing(&path, "Path"));
        }
        if args.word("state") == "absent" {
            let msg = format!("File {} not present", path.display());
            return Ok(Outcome::changed(false).msg(msg));
        }
    }
    let edit = blockinfile::plan(file.as_ref(), args)?;
    finish(work, &path, &file.unwrap_or_else(Text::empty), &edit)
}

pub(super) fn replace(work: &Work) -> Result<Outcome, ModuleError> {
    let path = work.required_path("path");
    let file = read(&path, "Path")?.ok_or_else(|| missing(&path, "Path"))?;
    match replace::plan(&file, work.args())? {
        Plan::Edit(edit) => finish(work, &path, &file, &edit),
        Plan::Leave(why) => Ok(Outcome::changed(false).msg(why)),
    }
}

fn read(path: &Path, word: &str) -> Result<Option<Text>, ModuleError> {
    if files::metadata(path)?.is_some_and(|found| found.is_dir()) {
        let msg = format!("{word} {} is a directory !", path.display());
        return Err(Refusal::new(msg).with("rc", 256).into());
    }
    Ok(files::read_if_there(path)?.map(Text::from_bytes))
}

fn missing(path: &Path, word: &str) -> ModuleError {
    let msg = format!("{word} {} does not exist !", path.display());
    Refusal::new(msg).with("rc", 257).into()
}

fn finish(work: &Work, path: &Path, original: &Text, edit: &Edit) -> Result<Outcome, ModuleError> {
    // A link stays one: what it points to is edited.
    let real = files::real_path(path);
    let content = original.bytes_of(&edit.content);
    let mut outcome = Outcome::changed(edit.changed);
    if edit.changed && !work.check {
        if work.args().flag("backup") && files::metadata(&real)?.is_some() {
            let kept = files::backup(&real)?.display().to_string();
            outcome = outcome
                .with("backup", kept.as_str())
                .with("backup_file", kept);
        }
        files::validate(work, &content)?;
        make_parents(&real)?;
        files::replace(&real, &content)?;
    }
    if !looks_binary(&content) {
        let header = format!("{} (content)", path.display());
        let before = original.content.as_str();
        outcome = outcome.diff(Diff::of_text(&header, before, edit.content.as_str()));
    }
    let wanted = files::wanted(work, None)?;
    let mut msg = edit.msg.clone();
    if let Some(diff) = files::apply_attributes(work, path, &wanted)? {
        let link = if outcome.changed { " and " } else { "" };
        msg.push_str(link);
        msg.push_str("ownership, perms or SE linux context changed");
        outcome.changed = true;
        outcome = outcome.diff(diff);
    }
    Ok(outcome.msg(msg))
}

fn make_parents(path: &Path) -> Result<(), ModuleError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            fs::create_dir_all(parent).map_err(ModuleError::file("make the directory", parent))
        }
        _ => Ok(()),
    }
}
