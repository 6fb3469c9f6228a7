//! `modprobe` and `sysctl`: the running kernel and the files it starts from.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::error::ModuleError;
use super::super::work::Work;
use super::super::{files, process};
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::sysctl::{self, kernel_path, settings};

const SETTINGS: &str = "/proc/sys";

pub(super) fn modprobe(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let name = args.word("name");
    let is_name = |char: char| char.is_ascii_alphanumeric() || "_-".contains(char);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(Refusal::new(format!("`{name}` is not a kernel module's name")).into());
    }
    let loaded = is_loaded(name)?;
    let wanted = args.word("state") == "present";
    let changes_kernel = loaded != Some(Origin::BuiltIn) && loaded.is_some() != wanted;
    if changes_kernel && !work.check {
        let mut command = vec!["modprobe".to_owned()];
        if !wanted {
            command.push("-r".to_owned());
        }
        command.push(name.to_owned());
        if wanted {
            command.extend(args.word("params").split_whitespace().map(str::to_owned));
        }
        process::must(work, &command)?;
    }
    let changes_files = persist(work, name)?;
    Ok(Outcome::changed(changes_kernel || changes_files)
        .with("name", name)
        .with("params", args.word("params"))
        .with("state", args.word("state")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Loaded,
    BuiltIn,
}

fn is_loaded(name: &str) -> Result<Option<Origin>, ModuleError> {
    let wanted = name.replace('-', "_");
    let loaded = files::text_of("/proc/modules");
    if loaded
        .lines()
        .any(|line| line.split(' ').next() == Some(&wanted))
    {
        return Ok(Some(Origin::Loaded));
    }
    let release = files::text_of("/proc/sys/kernel/osrelease");
    let list = PathBuf::from(format!("/lib/modules/{release}/modules.builtin"));
    let built_in = files::read_if_there(&list)?.unwrap_or_default();
    let built_in = String::from_utf8_lossy(&built_in);
    let is_it = |line: &str| {
        let file = line.rsplit('/').next().unwrap_or(line);
        file.strip_suffix(".ko")
            .is_some_and(|file| file.replace('-', "_") == wanted)
    };
    Ok(built_in.lines().any(is_it).then_some(Origin::BuiltIn))
}

/// Keeps the module, with its parameters, over a reboot, or stops keeping it.
fn persist(work: &Work, name: &str) -> Result<bool, ModuleError> {
    let args = work.args();
    let params = args.word("params");
    let wanted: [(PathBuf, Option<String>); 2] = match args.word("persistent") {
        "present" => [
            (load_file(name), Some(format!("{name}\n"))),
            (
                options_file(name),
                (!params.is_empty()).then(|| format!("options {name} {params}\n")),
            ),
        ],
        "absent" => [(load_file(name), None), (options_file(name), None)],
        _ => return Ok(false),
    };
    let mut changed = false;
    for (path, content) in wanted {
        let current = files::read_if_there(&path)?;
        if current.as_deref() == content.as_deref().map(str::as_bytes) {
            continue;
        }
        changed = true;
        if work.check {
            continue;
        }
        match content {
            Some(content) => files::replace(&path, content.as_bytes())?,
            None => fs::remove_file(&path).map_err(ModuleError::file("remove", &path))?,
        }
    }
    Ok(changed)
}

fn load_file(name: &str) -> PathBuf {
    PathBuf::from(format!("/etc/modules-load.d/{name}.conf"))
}

fn options_file(name: &str) -> PathBuf {
    PathBuf::from(format!("/etc/modprobe.d/{name}.conf"))
}

pub(super) fn sysctl(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let path = files::real_path(&work.required_path("sysctl_file"));
    let name = args.word("name");
    let setting = setting_path(name)?;
    let content = files::read_if_there(&path)?.unwrap_or_default();
    let content = String::from_utf8_lossy(&content).into_owned();
    let current = setting.exists().then(|| files::text_of(&setting));
    let plan = sysctl::plan(args, &content, current.as_deref());
    if !work.check {
        if let Some(value) = &plan.kernel {
            set(name, value, args.flag("ignoreerrors"))?;
        }
        if let Some(content) = &plan.file {
            files::replace(&path, content.as_bytes())?;
            if plan.reloads {
                reload(content, args.flag("ignoreerrors"))?;
            }
        }
    }
    let shown = path.display().to_string();
    let after = plan.file.clone().unwrap_or_else(|| content.clone());
    Ok(Outcome::changed(plan.is_change())
        .with("name", name)
        .diff(Diff::of_text(&shown, content, after)))
}

fn setting_path(name: &str) -> Result<PathBuf, ModuleError> {
    let path = kernel_path(name);
    let path =
        path.ok_or_else(|| Refusal::new(format!("`{name}` is not a kernel setting's name")))?;
    Ok(Path::new(SETTINGS).join(path))
}

/// Gives the running kernel every setting of the file, as `sysctl -p` does.
fn reload(content: &str, ignores_errors: bool) -> Result<(), ModuleError> {
    for (name, value) in settings(content) {
        set(name, value, ignores_errors)?;
    }
    Ok(())
}

fn set(name: &str, value: &str, ignores_errors: bool) -> Result<(), ModuleError> {
    let path = setting_path(name)?;
    match fs::write(&path, value) {
        Err(error) if !ignores_errors => Err(ModuleError::file("set", &path)(error)),
        _ => Ok(()),
    }
}
