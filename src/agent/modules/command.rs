//! `command`, `shell`, `raw`: looks for the marker files, runs the program.

use std::path::Path;

use super::super::error::ModuleError;
use super::super::process::{self, Program, Stopwatch};
use super::super::work::Work;
use super::inspect::glob;
use crate::task::command::{self, Finished, Invocation, Markers};
use crate::task::outcome::Outcome;
use crate::task::time::{Moment, delta};

pub(super) fn command(work: &Work) -> Result<Outcome, ModuleError> {
    let invocation = command::direct(work.args(), |word| work.expand(word))?;
    run(work, invocation)
}

pub(super) fn shell(work: &Work) -> Result<Outcome, ModuleError> {
    run(work, command::through_shell(work.args())?)
}

fn run(work: &Work, invocation: Invocation) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let directory = work.path("chdir");
    let exists = |name: &str| -> Result<Option<bool>, ModuleError> {
        let Some(path) = work.path(name) else {
            return Ok(None);
        };
        let path = directory
            .as_deref()
            .unwrap_or_else(|| Path::new(""))
            .join(path);
        Ok(Some(!glob(&path)?.is_empty()))
    };
    let markers = Markers {
        creates_exists: exists("creates")?,
        removes_exists: exists("removes")?,
    };
    if let Some(outcome) = command::without_running(args, &invocation.shown, markers, work.check) {
        return Ok(outcome);
    }
    let program = Program {
        argv: invocation.argv,
        stdin: input(work),
        directory,
        is_tool: false,
    };
    let stopwatch = Stopwatch::start();
    let ended = process::run(work, &program)?;
    let (start, end, elapsed) = stopwatch.stop();
    let finished = Finished {
        rc: ended.rc,
        stdout: ended.stdout_text(),
        stderr: ended.stderr_text(),
        start: Moment::from_unix(start).with_micros(),
        end: Moment::from_unix(end).with_micros(),
        delta: delta(elapsed),
    };
    let strips = args.flag_if_given("strip_empty_ends").unwrap_or(true);
    Ok(command::after_running(invocation.shown, &finished, strips))
}

fn input(work: &Work) -> Vec<u8> {
    let Some(text) = work.args().text("stdin") else {
        return Vec::new();
    };
    let mut input = text.as_bytes().to_vec();
    if work.args().flag("stdin_add_newline") {
        input.push(b'\n');
    }
    input
}
