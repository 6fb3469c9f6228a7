//! Users, groups, the host's name, and what the name service's files say.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::error::ModuleError;
use super::super::work::{Work, accounts};
use super::super::{files, process};
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::user::{Commands, UserFacts, plan_group, plan_user, user_outcome};

pub(super) fn user(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let before = accounts()?;
    let name = args.word("name");
    let shadow = files::text_of("/etc/shadow");
    let entry = shadow
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let home = match args.text("home") {
        Some(home) => Some(home.to_owned()),
        None => before.user(name).map(|user| user.home.clone()),
    };
    let facts = UserFacts {
        password: entry.and_then(|rest| rest.split(':').next()),
        home_exists: home.is_some_and(|home| Path::new(&home).exists()),
    };
    let commands = plan_user(args, &before, facts)?;
    run_all(work, &commands)?;
    Ok(user_outcome(args, !commands.is_empty(), &accounts()?))
}

pub(super) fn group(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let commands = plan_group(args, &accounts()?);
    run_all(work, &commands)?;
    let gid = accounts()?.group(args.word("name")).map(|group| group.gid);
    Ok(Outcome::changed(!commands.is_empty())
        .with("name", args.word("name"))
        .with("state", args.word("state"))
        .with("system", args.flag("system"))
        .with_if("gid", gid))
}

fn run_all(work: &Work, commands: &Commands) -> Result<(), ModuleError> {
    if !work.check {
        for command in commands {
            process::must(work, command)?;
        }
    }
    Ok(())
}

pub(super) fn hostname(work: &Work) -> Result<Outcome, ModuleError> {
    let wanted = work.args().word("name");
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !wanted.split('.').all(is_label) || wanted.len() > 64 {
        return Err(Refusal::new(format!("`{wanted}` is not a host's name")).into());
    }
    let current = files::text_of("/proc/sys/kernel/hostname");
    let permanent = files::text_of("/etc/hostname");
    let changed = current != wanted || permanent != wanted;
    if changed && !work.check {
        if permanent != wanted {
            files::replace(Path::new("/etc/hostname"), format!("{wanted}\n").as_bytes())?;
        }
        nix::unistd::sethostname(wanted).map_err(ModuleError::errno("set the host's name"))?;
    }
    let before = format!("hostname = {current}\n");
    let after = format!("hostname = {wanted}\n");
    Ok(Outcome::changed(changed)
        .with("name", wanted)
        .with(
            "ansible_facts",
            json!({
                "ansible_hostname": wanted.split('.').next(),
                "ansible_nodename": wanted,
            }),
        )
        .diff(Diff::of_text("hostname", before, after)))
}

/// The databases that are plain files, and what parts their fields.
const DATABASES: &[(&str, &str, Option<char>)] = &[
    ("passwd", "/etc/passwd", Some(':')),
    ("group", "/etc/group", Some(':')),
    ("shadow", "/etc/shadow", Some(':')),
    ("gshadow", "/etc/gshadow", Some(':')),
    ("hosts", "/etc/hosts", None),
    ("services", "/etc/services", None),
    ("protocols", "/etc/protocols", None),
    ("networks", "/etc/networks", None),
];

pub(super) fn getent(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let database = args.word("database");
    let Some((_, path, usual)) = DATABASES.iter().find(|(name, ..)| *name == database) else {
        return Err(Refusal::new(format!("unknown database `{database}`")).into());
    };
    let separator = args
        .text("split")
        .and_then(|split| split.chars().next())
        .or(*usual);
    let bytes = fs::read(path).map_err(ModuleError::file("read", Path::new(path)))?;
    let text = String::from_utf8_lossy(&bytes);
    let wanted = args.word("key");
    let mut entries = Map::new();
    for line in text
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
    {
        let mut fields: Vec<&str> = match separator {
            Some(separator) => line.split(separator).collect(),
            None => line.split_whitespace().collect(),
        };
        if fields.first().is_none_or(|key| key.is_empty()) {
            continue;
        }
        let is_wanted = wanted.is_empty()
            || fields[0] == wanted
            || (separator.is_none() && fields.contains(&wanted));
        if is_wanted {
            let key = fields.remove(0);
            entries.insert(key.to_owned(), fields.into());
        }
    }
    if entries.is_empty() && !wanted.is_empty() {
        if args.flag("fail_key") {
            return Err(Refusal::new(
                "One or more supplied key could not be found in the database.",
            )
            .into());
        }
        entries.insert(wanted.to_owned(), Value::Null);
    }
    let facts = Map::from_iter([(format!("getent_{database}"), Value::Object(entries))]);
    Ok(Outcome::changed(false).with("ansible_facts", facts))
}
