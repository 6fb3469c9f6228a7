//! Checks within a run: whether one may start, what its tasks came to, and its texts, rendered
//! when it ends with the variables of the host where it failed.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::dispatcher::{Dispatcher, Running};
use super::event::{Event, HostLabel, HostResult, Outcome, ResultShape};
use super::executor::{Effect, Ended};
use super::result::{self, Object};
use crate::base::yaml::Node;
use crate::grade::book::{Admission, Closed, Noted};
use crate::grade::outcome::{CheckResult, CheckVerdict, harmless, shortened};
use crate::grade::words::words;
use crate::playbook::condition;
use crate::playbook::model::{Check, Task, Wording};
use crate::playbook::vars::{Level, Scope, written};

/// Longer texts of a machine's are cut: nobody reads more, and a machine may say anything.
const SAID_CHARS_MAX: usize = 600;

/// A machine that was not reached so often in a row is not asked again. Each time was several
/// tries.
const SILENT_TIMES: u32 = 1;

impl Dispatcher<'_> {
    /// Whether a task runs: what belongs to no check does, and what a failed check spoils does not.
    pub(super) fn admits(&mut self, running: &Running<'_>, task: &Arc<Task>) -> bool {
        if self.book.leaves(task.check.as_ref()) {
            self.close_check(running);
        }
        let Some(check) = &task.check else {
            return true;
        };
        match self.book.open(check, self.begun.elapsed()) {
            Admission::Run => {
                self.check_task.get_or_insert_with(|| Arc::clone(task));
                true
            }
            Admission::Skip { because, first } => {
                if first {
                    let closed = Closed {
                        check: Arc::clone(check),
                        verdict: CheckVerdict::Skipped,
                        failures: Vec::new(),
                        share: 0.0,
                        started: self.begun.elapsed(),
                        took: std::time::Duration::ZERO,
                    };
                    self.check_task = Some(Arc::clone(task));
                    self.tell_check(running, &closed, &because);
                }
                false
            }
        }
    }

    /// Parts the hosts that are not worth another try from those that are: a machine whose
    /// network is gone would cost ten seconds a task.
    pub(super) fn part_silent(&self, task: &Task, hosts: &[String]) -> (Vec<String>, Vec<String>) {
        let spared = self.services.flags.grading.is_some() && task.delegate_to.is_none();
        let is_silent = |host: &String| {
            let times = self.silent.get(host).copied().unwrap_or(0);
            spared && times >= SILENT_TIMES
        };
        hosts.iter().cloned().partition(is_silent)
    }

    /// The results of hosts that are not asked any more.
    pub(super) fn given_up(task: &Task, hosts: &[String]) -> Vec<Ended> {
        hosts
            .iter()
            .map(|host| {
                let result = result::unreachable(format!("{host} does not answer"));
                let registered = task.register.as_ref().map(|name| Effect::SetFacts {
                    host: host.clone(),
                    values: Map::from_iter([(name.clone(), Value::Object(result.clone()))]),
                });
                Ended {
                    host: host.clone(),
                    shown: HostResult {
                        host: HostLabel::new(host),
                        outcome: Outcome::Unreachable,
                        result: Arc::new(result.clone()),
                        ignored: true,
                        shape: ResultShape::Plain,
                    },
                    result,
                    effects: registered.into_iter().collect(),
                    ignored: true,
                }
            })
            .collect()
    }

    /// Takes down what a task of the open check came to.
    pub(super) fn note_check(&mut self, task: &Task, ended: &[Ended]) {
        for each in ended.iter().filter(|_| task.delegate_to.is_none()) {
            match each.shown.outcome {
                Outcome::Unreachable => *self.silent.entry(each.host.clone()).or_default() += 1,
                Outcome::Skipped => {}
                _ => {
                    self.silent.remove(&each.host);
                }
            }
        }
        let Some(check) = &task.check else { return };
        for each in ended {
            // Within a block an author may have a task fail on purpose.
            let on_purpose = check.is_block && each.ignored;
            let noted = match each.shown.outcome {
                Outcome::Ok | Outcome::Changed => Noted::Well,
                Outcome::Skipped => Noted::Skipped,
                Outcome::Failed if on_purpose => Noted::Well,
                Outcome::Failed | Outcome::Unreachable => Noted::Failed,
            };
            let said = said(&each.result);
            self.book.note(&each.host, noted, &said);
            if noted == Noted::Failed {
                let mut facts = Map::new();
                facts.insert(
                    "ansible_failed_result".to_owned(),
                    Value::Object(each.result.clone()),
                );
                Arc::make_mut(&mut self.known).set_facts(&each.host, facts);
            }
        }
    }

    /// Ends the open check, if there is one.
    pub(super) fn close_check(&mut self, running: &Running<'_>) {
        if let Some(closed) = self.book.close(self.begun.elapsed()) {
            self.tell_check(running, &closed, &[]);
        }
        self.check_task = None;
    }

    fn tell_check(&mut self, running: &Running<'_>, closed: &Closed, because: &[String]) {
        let check = &closed.check;
        let first = closed.failures.first().map(|(host, _)| host.clone());
        let host = first.or_else(|| running.batch.first().cloned());
        let mut scope = self.host_scope(running, &host.unwrap_or_default());
        for vars in self.check_task.iter().flat_map(|task| &task.vars) {
            scope = scope.with(Level::TaskVars, written(vars));
        }
        let language = self.services.flags.grading.clone().unwrap_or_default();
        let own = check
            .translations
            .iter()
            .find(|(each, _)| *each == language)
            .map(|(_, wording)| wording);
        let texts = Texts {
            own,
            check,
            scope: &scope,
        };
        let found = texts.one(self, |wording| wording.found.as_ref());
        let failures = closed.failures.iter();
        let told: Vec<String> = match failures.len() {
            0 => Vec::new(),
            1 => failures.map(|(_, said)| said.clone()).collect(),
            _ => failures
                .map(|(host, said)| format!("{host}: {said}"))
                .collect(),
        };
        let found = match found {
            Some(found) if !found.trim().is_empty() => found,
            _ => told.join("\n"),
        };
        let silent: Vec<String> = closed
            .failures
            .iter()
            .map(|(host, _)| host.clone())
            .filter(|host| self.silent.contains_key(host))
            .collect();
        let (cause, undecided) = match closed.verdict {
            CheckVerdict::Failed if silent.is_empty() => self.cause(&texts),
            CheckVerdict::Failed => {
                let say = words(&language).silent;
                (Some(format!("{} {say}", silent.join(", "))), Vec::new())
            }
            _ => (None, Vec::new()),
        };
        let result = CheckResult {
            id: check.id.clone(),
            name: texts
                .one(self, |wording| wording.name.as_ref())
                .unwrap_or_else(|| check.id.clone()),
            points: check.points * closed.share,
            max: check.points,
            verdict: closed.verdict,
            hosts: closed
                .failures
                .iter()
                .map(|(host, _)| host.clone())
                .collect(),
            expected: texts
                .one(self, |wording| wording.expected.as_ref())
                .unwrap_or_default(),
            found: if silent.is_empty() {
                shortened(&harmless(&found), SAID_CHARS_MAX)
            } else {
                told.join("\n")
            },
            see: check.see.as_ref().and_then(|see| self.text(see, &scope)),
            causes: cause.into_iter().collect(),
            hints: texts.all(self, |wording| &wording.hints),
            because: because
                .iter()
                .map(|id| self.check_names.get(id).unwrap_or(id).clone())
                .collect(),
            started_seconds: closed.started.as_secs_f64(),
            seconds: closed.took.as_secs_f64(),
        };
        self.check_names
            .insert(result.id.clone(), result.name.clone());
        for why in undecided {
            self.reporter.report(&Event::Warning(why));
        }
        self.reporter.report(&Event::CheckDone(Box::new(result)));
    }

    /// The first cause that is proven, in the order of the file: the later ones were written for when it is not the one.
    /// And for the file's author, why one before it could not be judged.
    fn cause(&self, texts: &Texts<'_>) -> (Option<String>, Vec<String>) {
        let renderer = &self.services.renderer;
        let mut undecided = Vec::new();
        for (index, cause) in texts.check.causes.iter().enumerate() {
            // What cannot be evaluated, because a machine said nothing, proves nothing.
            match condition::evaluate(renderer, &cause.when, texts.scope) {
                Ok(verdict) if verdict.holds() => {
                    let own = texts.own.and_then(|own| own.causes.get(index));
                    let said = self.text(own.unwrap_or(&cause.say), texts.scope);
                    if said.is_some() {
                        return (said, undecided);
                    }
                }
                Ok(_) => {}
                Err(why) => undecided.push(format!(
                    "check {}, cause {} cannot be judged: {}",
                    texts.check.id,
                    index + 1,
                    why.message
                )),
            }
        }
        (None, undecided)
    }

    fn text(&self, node: &Node, scope: &Scope) -> Option<String> {
        let value = self.services.renderer.node(node, scope).ok()?;
        Some(match value {
            Value::String(text) => shortened(&harmless(&text), SAID_CHARS_MAX),
            Value::Null => return None,
            other => shortened(&harmless(&other.to_string()), SAID_CHARS_MAX),
        })
    }
}

/// A check's texts in the wanted language, English where it has none.
struct Texts<'check> {
    own: Option<&'check Wording>,
    check: &'check Check,
    scope: &'check Scope,
}

impl Texts<'_> {
    fn one(
        &self,
        dispatcher: &Dispatcher<'_>,
        of: impl Fn(&Wording) -> Option<&Node>,
    ) -> Option<String> {
        let node = self.own.and_then(&of).or_else(|| of(&self.check.wording))?;
        dispatcher.text(node, self.scope)
    }

    fn all(&self, dispatcher: &Dispatcher<'_>, of: impl Fn(&Wording) -> &Vec<Node>) -> Vec<String> {
        let own = self.own.map(&of).filter(|nodes| !nodes.is_empty());
        own.unwrap_or_else(|| of(&self.check.wording))
            .iter()
            .filter_map(|node| dispatcher.text(node, self.scope))
            .collect()
    }
}

/// What a result says of a failure, in one text.
fn said(result: &Object) -> String {
    let text = |name: &str| {
        let text = result.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty())
    };
    if let Some(Value::Array(items)) = result.get("results") {
        let failed = items
            .iter()
            .filter_map(Value::as_object)
            .filter(|item| result::flag(item, "failed") || result::flag(item, "unreachable"));
        return failed.map(said).collect::<Vec<_>>().join("\n");
    }
    if let (Some(assertion), Some("Assertion failed") | None) =
        (result.get("assertion"), text("msg"))
    {
        let assertion = assertion
            .as_str()
            .map_or_else(|| assertion.to_string(), str::to_owned);
        return format!("this does not hold: {assertion}");
    }
    let message = text("msg").filter(|msg| !msg.starts_with("non-zero return code"));
    let rc = || result.get("rc").map(|rc| format!("it ended with {rc}"));
    message
        .or_else(|| text("stderr"))
        .or_else(|| text("stdout"))
        .map(str::to_owned)
        .or_else(rc)
        .unwrap_or_else(|| "it failed without a word".to_owned())
}
