//! `replica`: writes the resource's file, asks and calls drbdadm.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::error::ModuleError;
use super::super::process::Ended;
use super::super::work::Work;
use super::super::{files, process};
use crate::replica::tools::stand_in;
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::replica::{Facts, State, Step, file, path, role_step, steps};

/// How often a state is looked at that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn replica(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let drbdadm = Drbdadm::of(work)?;
    let path = path(args);
    let wanted = file(args)?;
    let before = files::read_if_there(Path::new(&path))?;
    let before = before.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let is_gone = args.word("state") == "absent";
    // Whoever shall go is asked while its file is still there.
    let has_file = before.is_some() || wanted.is_some() && !work.check && !is_gone;
    if !has_file {
        return Ok(nothing_there(work, &path, wanted.as_deref()));
    }
    let file_changes = !is_gone && wanted.is_some() && wanted != before;
    let mut changed = file_changes | stands(work)?;
    let mut done: Vec<String> = Vec::new();
    if file_changes && !work.check {
        files::replace(
            Path::new(&path),
            wanted.as_deref().unwrap_or_default().as_bytes(),
        )?;
    }
    if args.word("state") != "configured" {
        let facts = drbdadm.facts()?;
        for step in steps(args, &facts, file_changes) {
            changed = true;
            done.push(step.0.join(" "));
            if !work.check {
                drbdadm.must(step)?;
            }
        }
        let state = if work.check || done.is_empty() {
            facts.state.clone()
        } else {
            drbdadm.state()?
        };
        if let Some(step) = role_step(args, state.as_ref()) {
            changed = true;
            done.push(step.0.join(" "));
            if !work.check {
                drbdadm.must(step)?;
            }
        }
    }
    if is_gone && before.is_some() {
        changed = true;
        if !work.check {
            std::fs::remove_file(&path).map_err(ModuleError::file("remove", Path::new(&path)))?;
        }
    }
    let mut outcome = Outcome::changed(changed)
        .with("path", path.as_str())
        .with("done", done);
    if args.word("state") == "up" && !work.check {
        let state = wait(work, &drbdadm)?;
        for (name, value) in [
            ("role", state.role),
            ("peer_role", state.peer),
            ("connection", state.connection),
            ("disk_state", state.disk),
            ("peer_disk_state", state.peer_disk),
        ] {
            outcome = outcome.with(name, value);
        }
    }
    let after = if is_gone {
        None
    } else {
        wanted.or_else(|| before.clone())
    };
    Ok(outcome.diff(Diff::of_text(
        &path,
        before.unwrap_or_default(),
        after.unwrap_or_default(),
    )))
}

/// Lets those answer to the names whom the task wants; returns whether that changes.
fn stands(work: &Work) -> Result<bool, ModuleError> {
    let wants_agent = work.args().word("tools") == "agent";
    let changes = wants_agent != stand_in::stands_in();
    if changes && !work.check {
        let done = if wants_agent {
            stand_in::stand_in()
        } else {
            stand_in::stand_aside()
        };
        done.map_err(|error| Refusal::new(error.to_string()))?;
    }
    Ok(changes)
}

/// There is no file, and none is written: in check mode, or when all shall go.
fn nothing_there(work: &Work, path: &str, wanted: Option<&str>) -> Outcome {
    let is_wanted = wanted.is_some() && work.args().word("state") != "absent";
    let outcome = Outcome::changed(is_wanted).with("path", path);
    match wanted {
        Some(wanted) if is_wanted => outcome.diff(Diff::of_new_text(path, wanted)),
        _ => outcome,
    }
}

/// Waits for the state that was asked for; returns the last one seen.
fn wait(work: &Work, drbdadm: &Drbdadm<'_>) -> Result<State, ModuleError> {
    let args = work.args();
    let limit = Duration::from_secs_f64(args.seconds("timeout").unwrap_or(120.0));
    let deadline = Instant::now() + limit;
    let wanted = args.text("wait_for").unwrap_or_default();
    loop {
        let state = drbdadm.state()?;
        match state {
            Some(state) if state.has_reached(wanted) => return Ok(state),
            state if Instant::now() > deadline || wanted.is_empty() => {
                let name = args.word("name");
                let found = state.map_or_else(
                    || "it is down".to_owned(),
                    |state| {
                        format!(
                            "cs:{} ro:{}/{} ds:{}/{}",
                            state.connection, state.role, state.peer, state.disk, state.peer_disk
                        )
                    },
                );
                let seconds = limit.as_secs();
                return Err(Refusal::new(format!(
                    "`{name}` is not {wanted} after {seconds} s: {found}"
                ))
                .into());
            }
            _ => work.lifeline.wait(LOOK_INTERVAL)?,
        }
    }
}

/// Whoever answers to the name on this host.
struct Drbdadm<'a> {
    work: &'a Work,
    command: Vec<String>,
}

impl<'a> Drbdadm<'a> {
    fn of(work: &'a Work) -> Result<Self, ModuleError> {
        let command = if work.args().word("tools") == "agent" {
            let own = std::env::current_exe()
                .map_err(ModuleError::system("find the agent's own file"))?;
            vec![own.to_string_lossy().into_owned(), "drbdadm".to_owned()]
        } else {
            vec!["drbdadm".to_owned()]
        };
        Ok(Self { work, command })
    }

    fn call(&self, words: &[&str]) -> Result<Ended, ModuleError> {
        let mut argv = self.command.clone();
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        argv.push(self.work.args().word("name").to_owned());
        process::tool(self.work, &argv)
    }

    fn must(&self, step: Step) -> Result<(), ModuleError> {
        let ended = self.call(step.0)?;
        if ended.rc == 0 {
            return Ok(());
        }
        Err(ModuleError::Program {
            command: format!(
                "drbdadm {} {}",
                step.0.join(" "),
                self.work.args().word("name")
            ),
            rc: ended.rc,
            stderr: format!("{}{}", ended.stdout_text(), ended.stderr_text()),
        })
    }

    fn facts(&self) -> Result<Facts, ModuleError> {
        let state = self.state()?;
        let is_attached = state.as_ref().is_some_and(|state| state.disk != "Diskless");
        Ok(Facts {
            has_metadata: is_attached || self.call(&["get-gi"])?.rc == 0,
            state,
        })
    }

    /// Asks for the state; `None` while the resource is down.
    fn state(&self) -> Result<Option<State>, ModuleError> {
        let role = self.call(&["role"])?;
        if role.rc != 0 {
            return Ok(None);
        }
        let connection = self.call(&["cstate"])?;
        let disks = self.call(&["dstate"])?;
        Ok(State::read(
            &role.stdout_text(),
            &connection.stdout_text(),
            &disks.stdout_text(),
        ))
    }
}
