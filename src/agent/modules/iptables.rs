//! `iptables`: asks iptables whether a rule is there, and has it changed.

use super::super::error::ModuleError;
use super::super::process;
use super::super::work::Work;
use crate::task::args::Args;
use crate::task::iptables::{Table, Wish, has_rules, policy, wish};
use crate::task::outcome::{Outcome, Refusal};

pub(super) fn iptables(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let table = Table::from_args(args);
    let wish = wish(args)?;
    let change = change(work, args, &table, &wish)?;
    if let (Some(command), false) = (&change, work.check) {
        process::must(work, command)?;
    }
    let rule = match &wish {
        Wish::Rule { rule, .. } => rule.join(" "),
        _ => String::new(),
    };
    Ok(Outcome::changed(change.is_some())
        .with("table", args.word("table"))
        .with("chain", args.text("chain"))
        .with("ip_version", args.word("ip_version"))
        .with("state", args.word("state"))
        .with("flush", args.flag("flush"))
        .with("rule", rule))
}

/// Returns the call that brings the wish about; `None` when it is so already.
fn change(
    work: &Work,
    args: Args<'_>,
    table: &Table,
    wish: &Wish,
) -> Result<Option<Vec<String>>, ModuleError> {
    match wish {
        // Ansible counts every flush as a change; here only one that throws something away.
        Wish::Flush => {
            let listing = process::must(work, &table.call("-S", &[]))?.stdout_text();
            let has_rules = listing.lines().any(|line| line.starts_with("-A"));
            Ok(has_rules.then(|| table.call("-F", &[])))
        }
        Wish::Policy(wanted) => {
            let listing = process::must(work, &table.call("-S", &[]))?.stdout_text();
            let current =
                policy(&listing).ok_or_else(|| Refusal::new("Can't detect current policy"))?;
            Ok((current != wanted).then(|| table.call("-P", std::slice::from_ref(wanted))))
        }
        Wish::Chain { is_wanted } => {
            let is_there = process::tool(work, &table.call("-S", &[]))?.rc == 0;
            if !args.flag("chain_management") || is_there == *is_wanted {
                return Ok(None);
            }
            Ok(Some(table.call(if *is_wanted { "-N" } else { "-X" }, &[])))
        }
        Wish::Rule { rule, is_wanted } => {
            let is_there = is_there(work, table, rule)?;
            Ok(match (is_there, is_wanted) {
                (false, true) => Some(table.add(args, rule)),
                (true, false) => Some(table.call("-D", rule)),
                _ => None,
            })
        }
    }
}

/// Asks whether a rule is there. The exit code is 1 for "no" and for a chain that does
/// not exist; anything else is a rule iptables does not understand.
///
/// A chain without rules is not asked: the question alone would load the modules of the
/// rule's matches and targets, and with them connection tracking and its settings.
fn is_there(work: &Work, table: &Table, rule: &[String]) -> Result<bool, ModuleError> {
    let listing = process::tool(work, &table.call("-S", &[]))?;
    if listing.rc == 0 && !has_rules(&listing.stdout_text()) {
        return Ok(false);
    }
    let call = table.call("-C", rule);
    let asked = process::tool(work, &call)?;
    match asked.rc {
        0 => Ok(true),
        1 => Ok(false),
        rc => Err(ModuleError::Program {
            command: call.join(" "),
            rc,
            stderr: asked.stderr_text().trim_end().to_owned(),
        }),
    }
}
