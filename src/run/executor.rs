//! One task on one host, from its condition to its result.
//!
//! ```text
//! loop items ─► each: when ─► delegate ─► attempts: action ─► changed_when, failed_when, until
//!                                  │                             │ not yet: delay, again
//!                                  └─ module ─► staged here ─► Remote ─► result ─► censored event
//! ```
//!
//! Nothing outside is changed here: what follows from a result (facts, notifications,
//! includes) is returned as [`Effect`]s to whoever owns the run. Dropping the future gives
//! the task up; the agent is told to cancel it.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::action;
use super::event::{Event, HostLabel, HostResult, Outcome, ResultShape, TaskId};
use super::keyword;
use super::result::{self, Object};
use super::services::Services;
use crate::base::diagnostic::Diagnostic;
use crate::base::yaml::Node;
use crate::playbook::condition;
use crate::playbook::model::{Action, Setting, Task};
use crate::playbook::vars::{Layer, Level, Scope, written};

/// A task about to run on a host.
#[derive(Clone, Debug)]
pub struct Job {
    pub task: Arc<Task>,
    pub id: TaskId,
    /// The rendered name, for messages.
    pub name: String,
    pub host: String,
    /// The host's variables with the play's, without the task's.
    pub scope: Scope,
    /// The play's `connection`, `remote_user`, `port`.
    pub play_keywords: Arc<Vec<(&'static str, Node)>>,
}

/// What a result means for the rest of the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// `set_fact` and `register`.
    SetFacts {
        host: String,
        values: Object,
    },
    /// Facts as `setup` finds them.
    AddFacts {
        host: String,
        values: Object,
    },
    IncludeVars {
        host: String,
        values: Layer,
    },
    /// Handlers or topics by name.
    Notify(Vec<String>),
    /// `include_tasks`, once an item.
    Include(Include),
    AddHost {
        name: String,
        groups: Vec<String>,
        vars: Object,
    },
    GroupBy {
        key: String,
        parents: Vec<String>,
    },
    /// Machines may have been reset: ask for a sign of life.
    LabChanged,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Include {
    /// The rendered file name.
    pub file: String,
    /// Variables for the included tasks, the loop's among them.
    pub params: Layer,
    pub label: Option<Value>,
}

/// A task that ended on a host.
#[derive(Clone, Debug)]
pub struct Ended {
    pub host: String,
    pub shown: HostResult,
    /// Uncensored.
    pub result: Object,
    pub effects: Vec<Effect>,
    /// A failure does not end the host.
    pub ignored: bool,
}

/// Where item events go while a task runs.
pub type Events = mpsc::Sender<Event>;

/// Runs the task to its end on its host.
pub async fn execute(services: Arc<Services>, job: Job, events: Events) -> Ended {
    let mut run = Run {
        scope: task_scope(&job),
        services: &services,
        job: &job,
        events: &events,
        effects: Vec::new(),
        label: HostLabel::new(&job.host),
        went_wrong: false,
    };
    let (result, looped) = run.all().await;
    run.end(result, looped)
}

/// Adds the task's own variables to its host's.
pub fn task_scope(job: &Job) -> Scope {
    let mut scope = job.scope.clone();
    for vars in &job.task.vars {
        scope = scope.with(Level::TaskVars, written(vars));
    }
    for vars in &job.task.include_params {
        scope = scope.with(Level::IncludeParams, written(vars));
    }
    scope
}

/// What an attempt says of how far it is: its line with a percentage, else its last one.
fn said(done: &Object) -> Option<String> {
    let stdout = done.get("stdout")?.as_str()?;
    let mut lines = stdout.lines().rev().map(str::trim);
    let line = lines
        .clone()
        .find(|line| line.contains('%'))
        .or_else(|| lines.find(|line| !line.is_empty()))?;
    Some(line.to_owned())
}

/// One execution's working state.
pub(super) struct Run<'run> {
    pub(super) services: &'run Services,
    pub(super) job: &'run Job,
    pub(super) events: &'run Events,
    pub(super) scope: Scope,
    pub(super) effects: Vec<Effect>,
    pub(super) label: HostLabel,
    /// Something in the playbook kept the action from being done.
    went_wrong: bool,
}

/// Why an attempt came to no result of its own.
pub(super) enum Trouble {
    /// Something written in the playbook cannot be rendered or decided.
    Written(Vec<Diagnostic>),
    /// A result already: failed or unreachable.
    Result(Object),
}

impl From<Diagnostic> for Trouble {
    fn from(problem: Diagnostic) -> Self {
        Self::Written(vec![problem])
    }
}

impl From<Vec<Diagnostic>> for Trouble {
    fn from(problems: Vec<Diagnostic>) -> Self {
        Self::Written(problems)
    }
}

impl Run<'_> {
    async fn all(&mut self) -> (Object, bool) {
        let items = match self.items() {
            Ok(None) => {
                let scope = self.scope.clone();
                return (self.one(&scope, None).await, false);
            }
            Ok(Some(items)) => items,
            Err(problem) => return (self.without_items(problem).await, false),
        };
        if items.is_empty() {
            return (result::no_items(), true);
        }
        let results = self.each(&items).await;
        (result::looped(results), true)
    }

    /// A loop that cannot be rendered matters only when the condition holds without it.
    async fn without_items(&mut self, problem: Diagnostic) -> Object {
        let scope = self.scope.clone();
        match self.false_condition(&self.job.task.when, &scope) {
            Ok(Some(condition)) => result::skipped(&condition),
            _ => self.explain(problem.into()).await,
        }
    }

    fn items(&self) -> Result<Option<Vec<Value>>, Diagnostic> {
        let folders = [self.job.task.folder.as_str()];
        let renderer = &self.services.renderer;
        let repeat = self.job.task.repeat.as_ref();
        repeat
            .map(|repeat| renderer.loop_items(repeat, &self.scope, &folders))
            .transpose()
    }

    async fn each(&mut self, items: &[Value]) -> Vec<Object> {
        let control = &self.job.task.loop_control;
        let mut results: Vec<Object> = Vec::with_capacity(items.len());
        let outer = self.scope.clone();
        let mut registered: Option<Object> = None;
        for (index, item) in items.iter().enumerate() {
            let loop_vars = self.loop_vars(items, index);
            let mut scope = outer.clone();
            if let (Some(name), Some(previous)) = (&self.job.task.register, registered.take()) {
                scope = scope.with_value(Level::SetFacts, name, Value::Object(previous));
            }
            for (name, value) in &loop_vars {
                scope = scope.with_value(Level::Loop, name, value.clone());
            }
            if index > 0
                && let Some(pause) = self.float(control.pause.as_ref(), &scope)
            {
                sleep(seconds(pause)).await;
            }
            let mut done = self.one(&scope, Some(item)).await;
            for (name, value) in loop_vars {
                done.insert(name, value);
            }
            registered = Some(done.clone());
            if let Some(name) = &self.job.task.register {
                scope = scope.with_value(Level::SetFacts, name, Value::Object(done.clone()));
            }
            let label = self.item_label(item, &scope, &mut done);
            self.tell_item(&done, label).await;
            let breaks = !control.break_when.is_empty()
                && self.holds(&control.break_when, &scope).unwrap_or(false);
            results.push(done);
            if breaks {
                break;
            }
        }
        results
    }

    fn loop_vars(&self, items: &[Value], index: usize) -> Vec<(String, Value)> {
        let control = &self.job.task.loop_control;
        let mut vars = vec![
            (control.loop_var.clone(), items[index].clone()),
            ("ansible_loop_var".to_owned(), json!(control.loop_var)),
        ];
        if let Some(name) = &control.index_var {
            vars.push((name.clone(), json!(index)));
            vars.push(("ansible_index_var".to_owned(), json!(name)));
        }
        if control.extended {
            let last = items.len() - 1;
            let mut extended = result::object(json!({
                "index": index + 1,
                "index0": index,
                "first": index == 0,
                "last": index == last,
                "length": items.len(),
                "revindex": items.len() - index,
                "revindex0": last - index,
                "allitems": items,
            }));
            if index > 0 {
                extended.insert("previtem".to_owned(), items[index - 1].clone());
            }
            if index < last {
                extended.insert("nextitem".to_owned(), items[index + 1].clone());
            }
            vars.push(("ansible_loop".to_owned(), Value::Object(extended)));
        }
        vars
    }

    fn item_label(&self, item: &Value, scope: &Scope, done: &mut Object) -> Value {
        if self.is_secret(scope) {
            return json!("(censored due to no_log)");
        }
        match &self.job.task.loop_control.label {
            None => item.clone(),
            Some(label) => match self.render(label, scope) {
                Ok(label) => label,
                Err(problem) => {
                    done.insert("failed".to_owned(), Value::Bool(true));
                    let msg = format!("failed to render loop_control.label: {}", problem.message);
                    done.insert("msg".to_owned(), msg.into());
                    item.clone()
                }
            },
        }
    }

    async fn tell_item(&self, done: &Object, label: Value) {
        if matches!(self.job.task.action, Action::IncludeTasks(_)) {
            return;
        }
        let shown = HostResult {
            host: self.label.clone(),
            outcome: result::outcome(done),
            result: Arc::new(self.presentable(done)),
            ignored: false,
            shape: self.shape(done, false),
        };
        let event = Event::ItemDone {
            task: self.job.id,
            result: shown,
            label,
        };
        // Nobody listens any more when the run was interrupted.
        let _ = self.events.send(event).await;
    }

    /// One item, or the task itself: condition, attempts, effects.
    async fn one(&mut self, scope: &Scope, item: Option<&Value>) -> Object {
        match self.try_one(scope, item).await {
            Ok(done) => done,
            Err(trouble) => self.explain(trouble).await,
        }
    }

    async fn try_one(&mut self, scope: &Scope, item: Option<&Value>) -> Result<Object, Trouble> {
        let task = Arc::clone(&self.job.task);
        self.label.delegate = None;
        self.went_wrong = false;
        if let Some(condition) = self.false_condition(&task.when, scope)? {
            return Ok(result::skipped(&condition));
        }
        if let Some(node) = &task.delegate_to {
            let delegate = self.render(node, scope)?;
            let delegate = delegate
                .as_str()
                .filter(|name| !name.is_empty() && *name != self.job.host);
            self.label.delegate = delegate.map(str::to_owned);
        }
        let done = self.attempts(scope, item).await?;
        self.collect_effects(&done, scope, item)?;
        Ok(done)
    }

    async fn attempts(&mut self, scope: &Scope, item: Option<&Value>) -> Result<Object, Trouble> {
        let task = Arc::clone(&self.job.task);
        let Some(retry) = &task.retry else {
            return self.attempt(scope, item, None).await.map(|(done, _)| done);
        };
        let retries = self
            .setting(&retry.retries, scope, keyword::integer)?
            .max(0);
        let delay = self.setting(&retry.delay, scope, keyword::float)?;
        let delay = seconds(if delay < 0.0 { 1.0 } else { delay });
        for attempt in 1..=retries + 1 {
            let counted = (retries > 0).then_some(attempt);
            let (mut done, with_result) = self.attempt(scope, item, counted).await?;
            if retries == 0 {
                return Ok(done);
            }
            let is_done = if retry.until.is_empty() {
                !result::flag(&done, "failed")
            } else {
                self.holds(&retry.until, &with_result)?
            };
            if is_done {
                return Ok(done);
            }
            if attempt == retries + 1 {
                // Ansible's count: the last attempt is not one of the retries.
                done.insert("attempts".to_owned(), json!(retries));
                done.insert("failed".to_owned(), Value::Bool(true));
                return Ok(done);
            }
            let event = Event::Retrying {
                id: self.job.id,
                host: self.label.clone(),
                task: self.job.name.clone(),
                retries_left: retries + 1 - attempt,
                said: if self.is_secret(scope) {
                    None
                } else {
                    said(&done)
                },
            };
            let _ = self.events.send(event).await;
            sleep(delay).await;
        }
        unreachable!("the last attempt returns")
    }

    /// One attempt; also returns the scope in which the result has its name.
    async fn attempt(
        &mut self,
        scope: &Scope,
        item: Option<&Value>,
        attempt: Option<i64>,
    ) -> Result<(Object, Scope), Trouble> {
        let task = Arc::clone(&self.job.task);
        let mut done = action::perform(self, scope, item).await?;
        result::normalise(&mut done);
        if let Some(attempt) = attempt {
            done.insert("attempts".to_owned(), json!(attempt));
        }
        let mut after = self.with_result(scope, &done);
        if done.contains_key("skipped") || result::flag(&done, "unreachable") {
            return Ok((done, after));
        }
        if let Some(conditions) = &task.changed_when {
            match self.holds(conditions, &after) {
                Ok(changed) => {
                    done.insert("changed".to_owned(), Value::Bool(changed));
                    after = self.with_result(scope, &done);
                }
                Err(problem) => self.blame(&mut done, "changed_when_result", problem).await,
            }
        }
        if let Some(conditions) = &task.failed_when {
            match self.holds(conditions, &after) {
                Ok(failed) => {
                    done.insert("failed".to_owned(), Value::Bool(failed));
                    done.insert("failed_when_result".to_owned(), Value::Bool(failed));
                }
                Err(problem) => self.blame(&mut done, "failed_when_result", problem).await,
            }
        }
        let after = self.with_result(scope, &done);
        Ok((done, after))
    }

    async fn blame(&self, done: &mut Object, name: &str, problem: Diagnostic) {
        done.insert("failed".to_owned(), Value::Bool(true));
        done.insert(name.to_owned(), json!(problem.message));
        self.tell_problem(problem).await;
    }

    /// The scope after an attempt: the registered name, and facts just found.
    fn with_result(&self, scope: &Scope, done: &Object) -> Scope {
        let mut after = scope.clone();
        if let Some(Value::Object(facts)) = done.get("ansible_facts") {
            for (name, value) in facts {
                after = after.with_value(Level::SetFacts, name, value.clone());
            }
        }
        match &self.job.task.register {
            Some(name) => after.with_value(Level::SetFacts, name, Value::Object(done.clone())),
            None => after,
        }
    }

    fn collect_effects(
        &mut self,
        done: &Object,
        scope: &Scope,
        _item: Option<&Value>,
    ) -> Result<(), Diagnostic> {
        let task = &self.job.task;
        if let Some(Value::Object(facts)) = done.get("ansible_facts") {
            let delegate_facts = self.boolean(task.delegate_facts.as_ref(), scope);
            let host = match &self.label.delegate {
                Some(delegate) if delegate_facts == Some(true) => delegate.clone(),
                _ => self.job.host.clone(),
            };
            let values = facts.clone();
            self.effects.push(match task.action {
                Action::SetFact { .. } => Effect::SetFacts { host, values },
                Action::IncludeVars(_) => Effect::IncludeVars {
                    host,
                    values: crate::playbook::vars::found(values),
                },
                _ => Effect::AddFacts { host, values },
            });
        }
        if result::flag(done, "changed") && !result::flag(done, "failed") {
            let mut names = Vec::new();
            for node in &task.notify {
                names.extend(keyword::names(&self.render(node, scope)?));
            }
            if !names.is_empty() {
                self.effects.push(Effect::Notify(names));
            }
        }
        Ok(())
    }

    fn end(mut self, done: Object, looped: bool) -> Ended {
        let task = &self.job.task;
        if let Some(name) = &task.register {
            let values = Map::from_iter([(name.clone(), Value::Object(done.clone()))]);
            // A fact of the same name set by the task itself is older than its result.
            self.effects.push(Effect::SetFacts {
                host: self.job.host.clone(),
                values,
            });
        }
        let outcome = result::outcome(&done);
        let settings = &task.inherited;
        let ignored = match outcome {
            Outcome::Failed => self.boolean(settings.ignore_errors.as_ref(), &self.scope),
            Outcome::Unreachable => self.boolean(settings.ignore_unreachable.as_ref(), &self.scope),
            _ => None,
        };
        let ignored = ignored == Some(true) || self.is_graded(outcome);
        let shown = HostResult {
            host: self.label.clone(),
            outcome,
            result: Arc::new(self.presentable(&done)),
            ignored,
            shape: self.shape(&done, looped),
        };
        Ended {
            host: self.job.host.clone(),
            shown,
            result: done,
            effects: self.effects,
            ignored,
        }
    }

    /// In a grading a failure ends no host's run; within a block that is a check it ends the
    /// block, whose rescue takes the host on.
    fn is_graded(&self, outcome: Outcome) -> bool {
        let task = &self.job.task;
        match (&task.check, outcome) {
            (Some(check), Outcome::Failed) => !check.is_block,
            (Some(_), Outcome::Unreachable) => true,
            (None, Outcome::Failed | Outcome::Unreachable) => self.services.flags.grading.is_some(),
            _ => false,
        }
    }

    fn shape(&self, done: &Object, looped: bool) -> ResultShape {
        let task = &self.job.task;
        if self.went_wrong {
            return ResultShape::Plain;
        }
        if looped && done.contains_key("results") && !matches!(task.action, Action::IncludeTasks(_))
        {
            return ResultShape::Looped;
        }
        match &task.action {
            Action::IncludeTasks(_) => ResultShape::Include,
            Action::Debug { .. } if task.tags.iter().any(|tag| tag == "show") => {
                ResultShape::Readable
            }
            Action::Debug { .. } => ResultShape::Debug,
            Action::Assert { quiet, .. } => {
                let quiet = quiet
                    .as_ref()
                    .and_then(|quiet| self.render(quiet, &self.scope).ok());
                match quiet.as_ref().and_then(keyword::boolean) {
                    Some(true) => ResultShape::Plain,
                    _ => ResultShape::Shown,
                }
            }
            _ => ResultShape::Plain,
        }
    }

    /// The result as anybody may see it.
    fn presentable(&self, done: &Object) -> Object {
        if self.is_secret(&self.scope) {
            result::censored(done)
        } else {
            done.clone()
        }
    }

    fn is_secret(&self, scope: &Scope) -> bool {
        // When in doubt whether it is a secret, it is.
        match &self.job.task.inherited.no_log {
            None => false,
            Some(setting) => self
                .setting(setting, scope, keyword::boolean)
                .unwrap_or(true),
        }
    }

    /// Turns trouble into a result; what is wrong in the playbook is shown with its place.
    async fn explain(&mut self, trouble: Trouble) -> Object {
        match trouble {
            Trouble::Result(done) => done,
            Trouble::Written(problems) => {
                let messages: Vec<&str> = problems
                    .iter()
                    .map(|problem| problem.message.as_str())
                    .collect();
                let done = result::object(json!({"failed": true, "msg": messages.join("; ")}));
                self.went_wrong = true;
                for problem in problems {
                    self.tell_problem(problem).await;
                }
                done
            }
        }
    }

    async fn tell_problem(&self, problem: Diagnostic) {
        if !self.is_secret(&self.scope) {
            let _ = self.events.send(Event::Problem(problem)).await;
        }
    }

    /// Returns the first condition that does not hold, as it was written.
    fn false_condition(
        &self,
        conditions: &[Node],
        scope: &Scope,
    ) -> Result<Option<Value>, Diagnostic> {
        for each in conditions {
            if !self.holds(slice::from_ref(each), scope)? {
                return Ok(Some(each.to_json()));
            }
        }
        Ok(None)
    }

    pub(super) fn holds(&self, conditions: &[Node], scope: &Scope) -> Result<bool, Diagnostic> {
        let verdict = condition::evaluate(&self.services.renderer, conditions, scope)?;
        Ok(verdict.holds())
    }

    /// Renders a tree, looking for files beside the task first.
    pub(super) fn render(&self, node: &Node, scope: &Scope) -> Result<Value, Diagnostic> {
        let folders = [self.job.task.folder.as_str()];
        let renderer = self.services.renderer.in_folders(&folders);
        Ok(renderer.optional(node, scope)?.unwrap_or(Value::Null))
    }

    pub(super) fn setting<T: Copy>(
        &self,
        setting: &Setting<T>,
        scope: &Scope,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, Diagnostic> {
        match setting {
            Setting::Fixed(value) => Ok(*value),
            Setting::Template(node) => {
                let value = self.render(node, scope)?;
                read(&value).ok_or_else(|| {
                    Diagnostic::error(format!("`{value}` is not what this keyword takes"))
                        .at(&node.origin)
                })
            }
        }
    }

    pub(super) fn boolean(&self, setting: Option<&Setting<bool>>, scope: &Scope) -> Option<bool> {
        self.setting(setting?, scope, keyword::boolean).ok()
    }

    fn float(&self, setting: Option<&Setting<f64>>, scope: &Scope) -> Option<f64> {
        self.setting(setting?, scope, keyword::float).ok()
    }
}

/// Seconds as typed; nothing sensible is no wait.
pub(super) fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or_default()
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Makes a layer of values found at run time, in their order.
pub(super) fn layer(values: impl IntoIterator<Item = (String, Value)>) -> Layer {
    let found = values
        .into_iter()
        .map(|(name, value)| (name, crate::playbook::vars::Variable::Found(value)));
    Arc::new(found.collect::<IndexMap<_, _>>())
}
