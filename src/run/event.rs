//! Everything a run may say, as values; reporters turn them into text.
//!
//! Within one play: `PlayStarted`, then for each task `TaskStarted` and, per host in the
//! order they end, any number of `ItemDone` and `Retrying`, then one `HostDone`. The run
//! ends with `Finished`. Results are censored before they get here: a reporter may print
//! all it is given.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::recap::{Recap, Summary};
use crate::base::diagnostic::Diagnostic;
use crate::grade::outcome::CheckResult;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An exercise begins, whole or a part of it; what follows belongs to it.
    ExerciseStarted(ExerciseStarted),
    /// Exercises are over, those asked for and those on the way to them.
    Summary(Summary),
    PlayStarted {
        /// The play's name, or its host patterns.
        name: String,
    },
    TaskStarted(TaskStarted),
    /// One item of a loop ended on one host.
    ItemDone {
        task: TaskId,
        result: HostResult,
        /// The item as it is shown: its label, or the value itself.
        label: Value,
    },
    /// A task ended on one host, with all its items.
    HostDone {
        task: TaskId,
        result: HostResult,
    },
    /// `until` does not hold yet.
    Retrying {
        id: TaskId,
        host: HostLabel,
        task: String,
        retries_left: i64,
        /// What the attempt printed last: of a task that waits, how far it is.
        said: Option<String>,
    },
    /// `include_tasks` read a file for these hosts.
    Included {
        file: String,
        hosts: Vec<String>,
        label: Option<Value>,
    },
    /// A check of a grade file has ended.
    CheckDone(Box<CheckResult>),
    /// No host of the play is left to go on.
    NoHostsLeft,
    /// Something about the playbook, a template, a host's variables.
    Problem(Diagnostic),
    /// A warning or remark of a module.
    Warning(String),
    Interrupted,
    Finished(Recap),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExerciseStarted {
    pub name: String,
    pub title: String,
    /// What was chosen, as `-e` would say it.
    pub choices: Vec<String>,
    pub part: Part,
}

/// What of an exercise is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What was asked for.
    Asked,
    /// Only set up, because another builds on it.
    SetUp,
    /// Undone, because it stands otherwise than another needs it.
    Undo,
}

/// One start of a task: a task that is begun again, or by another host at its own pace,
/// has another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskId(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub struct TaskStarted {
    pub id: TaskId,
    pub kind: TaskKind,
    /// The rendered name, or the action's.
    pub name: String,
    /// `file:line`.
    pub place: String,
    /// Who will run it; conditions may still skip some.
    pub hosts: Vec<String>,
    pub tags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    Task,
    Handler,
}

/// Whose result it is, and who did the work when that was another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLabel {
    pub host: String,
    pub delegate: Option<String>,
}

impl HostLabel {
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            delegate: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct HostResult {
    pub host: HostLabel,
    pub outcome: Outcome,
    /// As `register` keeps it; with `no_log` only that it was hidden.
    pub result: Arc<Map<String, Value>>,
    /// It failed and the playbook said to go on.
    pub ignored: bool,
    pub shape: ResultShape,
}

/// What a result shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultShape {
    /// The result is shown when it failed or when more is asked for.
    Plain,
    /// The items were shown already.
    Looped,
    /// The result is what the task is for: `assert`.
    Shown,
    /// The same without what every result has: `debug`.
    Debug,
    /// `debug` in a task tagged `show`: text for a reader rather than JSON.
    Readable,
    /// `include_tasks`: [`Event::Included`] speaks for it.
    Include,
    /// `meta`: there is nothing to show but that it was skipped.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Changed,
    Skipped,
    Failed,
    Unreachable,
}
