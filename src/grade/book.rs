//! Which checks of a grade file have ended how: what may start, what is skipped and why.
//!
//! A check is a run of tasks. It is *open* from its first task to the first task of another;
//! then it is *closed*, once, and never opened again:
//!
//! ```text
//!            ┌─ a need has not passed ─► skipped
//!  open(c) ──┤
//!            └─ else ─► open ── note(host, …)* ── close ─► passed | failed
//! ```
//!
//! It passed when a task of it went well on some host and none failed on any. A check on several
//! hosts costs each host's share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::outcome::CheckVerdict;
use crate::playbook::model::Check;

/// Whether a check's task may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Run,
    /// A check it needs did not pass; these are their ids, given once.
    Skip {
        because: Vec<String>,
        first: bool,
    },
}

/// A task's end on a host, as far as its check cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    Well,
    /// It was not for this host.
    Skipped,
    Failed,
}

/// A check that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub check: Arc<Check>,
    pub verdict: CheckVerdict,
    /// Hosts on which it failed with what the task said, in the order they did.
    pub failures: Vec<(String, String)>,
    /// Of the hosts it was for, the share on which it did not fail.
    pub share: f64,
    pub started: Duration,
    pub took: Duration,
}

#[derive(Debug)]
struct Open {
    check: Arc<Check>,
    went_well: BTreeSet<String>,
    failures: Vec<(String, String)>,
    started: Duration,
}

#[derive(Debug, Default)]
pub struct Gradebook {
    ended: BTreeMap<String, CheckVerdict>,
    open: Option<Open>,
}

impl Gradebook {
    /// Whether a task of `next` ends the open check.
    pub fn leaves(&self, next: Option<&Arc<Check>>) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| next.is_none_or(|next| !Arc::ptr_eq(&open.check, next)))
    }

    /// Asks for a task of a check; the open one, if another, has been closed.
    pub fn open(&mut self, check: &Arc<Check>, now: Duration) -> Admission {
        if self.open.is_some() {
            return Admission::Run;
        }
        if self.ended.get(&check.id) == Some(&CheckVerdict::Skipped) {
            return Admission::Skip {
                because: Vec::new(),
                first: false,
            };
        }
        let because: Vec<String> = check
            .needs
            .iter()
            .map(crate::base::yaml::Node::key_text)
            .filter(|id| self.ended.get(id) != Some(&CheckVerdict::Passed))
            .collect();
        if !because.is_empty() {
            self.ended.insert(check.id.clone(), CheckVerdict::Skipped);
            return Admission::Skip {
                because,
                first: true,
            };
        }
        self.open = Some(Open {
            check: Arc::clone(check),
            went_well: BTreeSet::new(),
            failures: Vec::new(),
            started: now,
        });
        Admission::Run
    }

    /// Takes down how a task of the open check ended on a host.
    pub fn note(&mut self, host: &str, noted: Noted, said: &str) {
        let Some(open) = &mut self.open else { return };
        match noted {
            Noted::Well => {
                open.went_well.insert(host.to_owned());
            }
            Noted::Skipped => {}
            Noted::Failed => {
                if !open.failures.iter().any(|(each, _)| each == host) {
                    open.failures.push((host.to_owned(), said.to_owned()));
                }
            }
        }
    }

    /// Ends the open check.
    pub fn close(&mut self, now: Duration) -> Option<Closed> {
        let open = self.open.take()?;
        let failed = open.failures.len();
        let well = open
            .went_well
            .iter()
            .filter(|host| !open.failures.iter().any(|(each, _)| each == *host))
            .count();
        #[expect(clippy::cast_precision_loss, reason = "a lab has a handful of hosts")]
        let share = well as f64 / (well + failed).max(1) as f64;
        let verdict = if well > 0 && failed == 0 {
            CheckVerdict::Passed
        } else {
            CheckVerdict::Failed
        };
        self.ended.insert(open.check.id.clone(), verdict);
        Some(Closed {
            check: open.check,
            verdict,
            failures: open.failures,
            share,
            started: open.started,
            took: now.saturating_sub(open.started),
        })
    }

    /// Whether a check was come to at all.
    pub fn knows(&self, id: &str) -> bool {
        self.ended.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::{Origin, Source};
    use crate::base::yaml::{Kind, Node};
    use crate::playbook::model::Wording;

    fn check(id: &str, needs: &[&str]) -> Arc<Check> {
        let source = Source::new("grade.yml", "x");
        let origin = Origin::new(&source, 0, 1);
        let node = |text: &str| Node {
            origin: origin.clone(),
            kind: Kind::Str(text.to_owned()),
        };
        Arc::new(Check {
            id: id.to_owned(),
            points: 1.0,
            needs: needs.iter().map(|need| node(need)).collect(),
            see: None,
            is_block: false,
            wording: Wording::default(),
            translations: Vec::new(),
            causes: Vec::new(),
            origin: origin.clone(),
        })
    }

    const T: Duration = Duration::from_secs(1);

    #[test]
    fn a_check_passes_with_something_done_and_nothing_failed() {
        let mut book = Gradebook::default();
        let one = check("one", &[]);
        assert_eq!(book.open(&one, T), Admission::Run);
        book.note("a", Noted::Well, "");
        book.note("b", Noted::Skipped, "");
        assert!(!book.leaves(Some(&one)) && book.leaves(None));
        let closed = book.close(3 * T).expect("it was open");
        assert_eq!(closed.verdict, CheckVerdict::Passed);
        assert_eq!((closed.started, closed.took), (T, 2 * T));
    }

    #[test]
    fn nothing_done_is_nothing_earned() {
        let mut book = Gradebook::default();
        book.open(&check("one", &[]), T);
        book.note("a", Noted::Skipped, "");
        assert_eq!(
            book.close(T).map(|closed| closed.verdict),
            Some(CheckVerdict::Failed)
        );
    }

    #[test]
    fn one_host_that_fails_fails_the_check_and_says_so_once() {
        let mut book = Gradebook::default();
        book.open(&check("one", &[]), T);
        book.note("a", Noted::Well, "");
        book.note("b", Noted::Failed, "first");
        book.note("b", Noted::Failed, "second");
        let closed = book.close(T).expect("open");
        assert_eq!(closed.verdict, CheckVerdict::Failed);
        assert_eq!(closed.failures, [("b".to_owned(), "first".to_owned())]);
        assert!((closed.share - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn what_needs_a_failed_check_is_skipped_once_and_so_is_what_needs_that() {
        let mut book = Gradebook::default();
        book.open(&check("one", &[]), T);
        book.note("a", Noted::Failed, "");
        book.close(T);
        let (two, three) = (check("two", &["one"]), check("three", &["two"]));
        let skip = |because: &[&str], first| Admission::Skip {
            because: because.iter().map(|id| (*id).to_owned()).collect(),
            first,
        };
        assert_eq!(book.open(&two, T), skip(&["one"], true));
        assert_eq!(book.open(&two, T), skip(&[], false));
        assert_eq!(book.open(&three, T), skip(&["two"], true));
        assert!(book.knows("three") && !book.knows("four"));
    }
}
