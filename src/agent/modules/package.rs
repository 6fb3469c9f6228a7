//! `package` and `apt`: asks dpkg, plans, calls apt-get.

use super::super::error::ModuleError;
use super::super::process;
use super::super::work::Work;
use crate::task::command::with_streams;
use crate::task::outcome::{Outcome, Refusal};
use crate::task::package::{Installed, Plan, plan, would_change};

pub(super) fn package(work: &Work) -> Result<Outcome, ModuleError> {
    let format = "${db:Status-Status} ${Package} ${Version} ${Provides}\n";
    let listing = process::must(work, &["dpkg-query", "-W", "-f", format])?;
    let installed = Installed::parse(&listing.stdout_text());
    let plan = plan(work.args(), &installed)?;
    let asks_refresh = work.args().flag("update_cache");
    if plan.packages.is_empty() {
        run_all(work, &plan)?;
        let outcome =
            Outcome::changed(asks_refresh).with("cache_updated", asks_refresh && !work.check);
        return Ok(outcome);
    }
    if plan.asks_apt && !would_upgrade(work, &plan)? {
        return Ok(Outcome::changed(false));
    }
    let (stdout, stderr) = run_all(work, &plan)?;
    let outcome = Outcome::changed(true).with("cache_updated", asks_refresh && !work.check);
    Ok(with_streams(outcome, &stdout, &stderr))
}

fn would_upgrade(work: &Work, plan: &Plan) -> Result<bool, ModuleError> {
    let mut argv = vec![
        "apt-get".to_owned(),
        "-q".into(),
        "-y".into(),
        "-s".into(),
        "install".into(),
    ];
    argv.extend(plan.packages.iter().cloned());
    let simulated = process::tool(work, &argv)?;
    if simulated.rc != 0 {
        return Err(unavailable(plan, &simulated.stderr_text()));
    }
    Ok(would_change(&simulated.stdout_text()))
}

fn run_all(work: &Work, plan: &Plan) -> Result<(String, String), ModuleError> {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    for command in &plan.commands {
        let mut argv = vec![
            "env".to_owned(),
            "DEBIAN_FRONTEND=noninteractive".to_owned(),
        ];
        argv.extend(command.iter().cloned());
        if work.check {
            // apt-get itself says whether it could; a refresh of its lists is no check.
            if command.iter().any(|word| word == "update") {
                continue;
            }
            argv.push("-s".to_owned());
        }
        let ended = process::tool(work, &argv)?;
        if ended.rc != 0 {
            return Err(unavailable(plan, &ended.stderr_text()));
        }
        stdout.push_str(&ended.stdout_text());
        stderr.push_str(&ended.stderr_text());
    }
    Ok((stdout, stderr))
}

/// A lab has no way out: what its image lacks cannot be fetched, and that is said first.
fn unavailable(plan: &Plan, stderr: &str) -> ModuleError {
    let why = if plan.packages.is_empty() {
        "apt could not refresh its lists of packages".to_owned()
    } else {
        format!(
            "apt could not change {}: a lab's machines reach no package server, \
             packages belong into the image's recipe",
            plan.packages.join(", ")
        )
    };
    Refusal::new(why).with("stderr", stderr).into()
}
