//! `service` and `systemd`: asks systemd, plans, calls systemctl to change.

use std::path::Path;

use super::super::error::ModuleError;
use super::super::work::Work;
use super::super::{files, process, systemd};
use super::inspect::glob;
use crate::task::outcome::Outcome;
use crate::task::service::{UnitFacts, outcome, plan};

pub(super) fn service(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let facts = match args.text("name") {
        Some(unit) => Some(unit_facts(work, unit)?),
        None => None,
    };
    let plan = plan(args, facts.as_ref())?;
    if !work.check {
        for step in &plan.steps {
            process::must(work, &step.argv)?;
        }
    }
    Ok(outcome(args, &plan, facts.as_ref()))
}

/// The properties that decide, and those that people look at, with the interface of each.
const PROPERTIES: &[(&str, &str)] = &[
    ("Unit", "Id"),
    ("Unit", "Names"),
    ("Unit", "LoadState"),
    ("Unit", "ActiveState"),
    ("Unit", "SubState"),
    ("Unit", "UnitFileState"),
    ("Unit", "UnitFilePreset"),
    ("Unit", "FragmentPath"),
    ("Service", "MainPID"),
    ("Unit", "Description"),
    ("Service", "Result"),
    ("Service", "ExecMainStatus"),
    ("Unit", "NeedDaemonReload"),
];

fn unit_facts(work: &Work, unit: &str) -> Result<UnitFacts, ModuleError> {
    let shown = match systemd::properties(unit, PROPERTIES) {
        Some(shown) => shown,
        None => shown_by_systemctl(work, unit)?,
    };
    let mut facts = UnitFacts::parse(&shown);
    let name = unit.strip_suffix(".service").unwrap_or(unit);
    facts.is_sysv =
        !name.contains('/') && files::metadata(&Path::new("/etc/init.d").join(name))?.is_some();
    if facts.is_sysv {
        let links = format!("/etc/rc[2345].d/S??{name}");
        facts.sysv_enabled = !glob(Path::new(&links))?.is_empty();
    }
    Ok(facts)
}

fn shown_by_systemctl(work: &Work, unit: &str) -> Result<String, ModuleError> {
    let names: Vec<&str> = PROPERTIES.iter().map(|(_, name)| *name).collect();
    let shown = process::must(
        work,
        &["systemctl", "show", "-p", &names.join(","), "--", unit],
    )?;
    Ok(shown.stdout_text())
}
