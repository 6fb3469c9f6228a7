//! Counts for each host, and the verdict on the whole run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::event::Outcome;

/// Ansible's seven counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub ok: u32,
    pub changed: u32,
    pub unreachable: u32,
    pub failed: u32,
    pub skipped: u32,
    pub rescued: u32,
    pub ignored: u32,
}

/// What a task's end means for the host besides its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing beyond the outcome; a failure ends the host's run.
    Plain,
    /// It failed and the playbook said to go on; whether it changed something counts too.
    Ignored { changed: bool },
    /// It failed inside a block with a `rescue`.
    Rescued,
}

/// Hosts that did anything, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recap(pub BTreeMap<String, Counts>);

impl Recap {
    pub fn count(&mut self, host: &str, outcome: Outcome, consequence: Consequence) {
        let counts = self.0.entry(host.to_owned()).or_default();
        match (outcome, consequence) {
            (Outcome::Ok, _) => counts.ok += 1,
            (Outcome::Changed, _) => {
                counts.ok += 1;
                counts.changed += 1;
            }
            (Outcome::Skipped, _) => counts.skipped += 1,
            (Outcome::Failed | Outcome::Unreachable, Consequence::Ignored { changed }) => {
                counts.ok += 1;
                counts.ignored += 1;
                counts.changed += u32::from(changed);
            }
            (Outcome::Failed, Consequence::Rescued) => counts.rescued += 1,
            (Outcome::Failed, Consequence::Plain) => counts.failed += 1,
            (Outcome::Unreachable, _) => counts.unreachable += 1,
        }
    }

    /// Whether any count tells of a failure; a host may have been forgiven since.
    pub fn has_failures(&self) -> bool {
        self.0
            .values()
            .any(|counts| counts.failed > 0 || counts.unreachable > 0)
    }
}

/// Several exercises, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub lines: Vec<SummaryLine>,
    pub took: Duration,
}

/// One exercise of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryLine {
    pub exercise: String,
    /// What was chosen, as `-e` would say it.
    pub choices: Vec<String>,
    pub end: ExerciseEnd,
    /// Over all hosts.
    pub counts: Counts,
    /// To where it begins: a reset, what it builds on.
    pub prepared: Duration,
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExerciseEnd {
    Done,
    Failed,
    /// Never begun, and why.
    NotRun(String),
}

impl Summary {
    pub fn has_failures(&self) -> bool {
        self.lines.iter().any(|line| line.end != ExerciseEnd::Done)
    }
}

impl Recap {
    /// Adds all hosts up.
    pub fn total(&self) -> Counts {
        self.0.values().fold(Counts::default(), |sum, each| Counts {
            ok: sum.ok + each.ok,
            changed: sum.changed + each.changed,
            unreachable: sum.unreachable + each.unreachable,
            failed: sum.failed + each.failed,
            skipped: sum.skipped + each.skipped,
            rescued: sum.rescued + each.rescued,
            ignored: sum.ignored + each.ignored,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_failure_counts_as_ok_and_ignored() {
        let mut recap = Recap::default();
        recap.count("h", Outcome::Failed, Consequence::Ignored { changed: true });
        let expected = Counts {
            ok: 1,
            changed: 1,
            ignored: 1,
            ..Counts::default()
        };
        assert_eq!(recap.0["h"], expected);
        assert!(!recap.has_failures());
    }

    #[test]
    fn a_rescued_host_has_not_failed() {
        let mut recap = Recap::default();
        recap.count("h", Outcome::Failed, Consequence::Rescued);
        assert_eq!((recap.0["h"].rescued, recap.0["h"].failed), (1, 0));
        recap.count("h", Outcome::Unreachable, Consequence::Plain);
        assert!(recap.has_failures());
    }
}
