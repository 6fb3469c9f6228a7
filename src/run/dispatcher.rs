//! The loop that owns a run: plays, batches, turns; who has failed; what is known of hosts.
//!
//! It alone writes to what is known and tells the reporter; tasks run beside each other
//! on their hosts, at most `forks` at once, and hand back what follows from them. A host
//! that is lost or late ends by its task's own deadline, and nobody waits longer for it
//! than for the slowest of that task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::event::{
    Event, HostLabel, HostResult, Outcome, ResultShape, TaskId, TaskKind, TaskStarted,
};
use super::executor::{self, Effect, Ended, Include, Job, task_scope};
use super::keyword;
use super::plan::{self, Filter, Plan, Slot, Work, written_name};
use super::recap::{Consequence, Recap};
use super::result::{self, Object};
use super::schedule::{self, Fate, Schedule, Turn};
use super::services::Services;
use super::tags::Selection;
use crate::base::diagnostic::Diagnostic;
use crate::base::yaml::{Kind, Node};
use crate::grade::book::Gradebook;
use crate::playbook;
use crate::playbook::condition::{self, Verdict as Condition};
use crate::playbook::inventory::Inventory;
use crate::playbook::model::{
    Action, Args, Batch, Handler, HostOrder, MetaKind, Module, Play, Playbook, Setting, Step, Task,
};
use crate::playbook::pattern::Pattern;
use crate::playbook::vars::{Known, Layer, Level, Scope, written};
use crate::report::reporter::Reporter;

/// Events that may wait for the reporter; an executor with more to say waits.
const EVENT_QUEUE: usize = 64;

/// Includes inside includes. A file may include itself under a condition; one that does so
/// without end is a mistake.
const INCLUDES_DEEP_MAX: usize = 128;

/// What was asked for besides the playbook.
#[derive(Debug, Default)]
pub struct Wishes {
    pub tags: Selection,
    /// `--limit`; empty: every host of a play.
    pub limit: Vec<Pattern>,
    pub start_at: Option<String>,
    /// Whether a play that says nothing of `gather_facts` gathers.
    pub gathers_by_default: bool,
}

/// What a user answers before a task with `--step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepAnswer {
    No,
    Yes,
    /// Yes to this and all others.
    Continue,
}

/// Asks before a task, by its name.
pub type Ask = Box<dyn FnMut(&str) -> StepAnswer + Send>;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// A host failed or was not reached.
    Failed,
    /// The playbook could not go on for a reason of its own; it was reported.
    CouldNotRun,
    Interrupted,
}

/// Why a play stops before its end.
enum Stop {
    Interrupted,
    Written(Vec<Diagnostic>),
}

impl From<Diagnostic> for Stop {
    fn from(problem: Diagnostic) -> Self {
        Self::Written(vec![problem])
    }
}

type Flow<T = ()> = Result<T, Stop>;

/// A run in progress.
pub struct Dispatcher<'run> {
    pub(super) services: Arc<Services>,
    inventory: Inventory,
    pub(super) known: Arc<Known>,
    wishes: Wishes,
    step: Option<Ask>,
    pub(super) reporter: &'run mut dyn Reporter,
    interrupt: watch::Receiver<bool>,
    recap: Recap,
    /// Hosts that failed or were not reached: they take no part in later plays.
    failed: BTreeSet<String>,
    tasks_begun: u64,
    pub(super) book: Gradebook,
    /// The first task of the open check: its variables are those of the check's texts.
    pub(super) check_task: Option<Arc<Task>>,
    pub(super) begun: Instant,
    /// What checks that have ended are called.
    pub(super) check_names: BTreeMap<String, String>,
    /// In a grading: how often in a row a host was not reached.
    pub(super) silent: BTreeMap<String, u32>,
    /// Problems shown already: the same mistake on every host is one mistake.
    shown: BTreeSet<String>,
}

impl std::fmt::Debug for Dispatcher<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

/// One batch of one play while it runs.
pub(super) struct Running<'play> {
    pub(super) play: &'play Play,
    schedule: Schedule,
    /// Hosts of this batch when it began.
    pub(super) batch: Vec<String>,
    /// By handler, hosts that notified it and not yet saw it run.
    notified: BTreeMap<usize, BTreeSet<String>>,
    keywords: Arc<Vec<(&'static str, Node)>>,
    vars: Layer,
    vars_files: BTreeMap<String, Layer>,
    blocks: usize,
    ends_play: bool,
}

impl<'run> Dispatcher<'run> {
    pub fn new(
        services: Arc<Services>,
        inventory: Inventory,
        known: Known,
        wishes: Wishes,
        reporter: &'run mut dyn Reporter,
        interrupt: watch::Receiver<bool>,
    ) -> Self {
        Self {
            services,
            inventory,
            known: Arc::new(known),
            wishes,
            step: None,
            reporter,
            interrupt,
            recap: Recap::default(),
            failed: BTreeSet::new(),
            tasks_begun: 0,
            book: Gradebook::default(),
            check_task: None,
            begun: Instant::now(),
            check_names: BTreeMap::new(),
            silent: BTreeMap::new(),
            shown: BTreeSet::new(),
        }
    }

    /// Asks before every task.
    #[must_use]
    pub fn asking(mut self, ask: Ask) -> Self {
        self.step = Some(ask);
        self
    }

    /// Runs the plays in order and reports the recap.
    pub async fn run(mut self, playbook: &Playbook) -> Verdict {
        let ended = self.plays(playbook).await;
        let verdict = match ended {
            Ok(()) if !self.failed.is_empty() => Verdict::Failed,
            Ok(()) => Verdict::Done,
            Err(Stop::Interrupted) => {
                self.reporter.report(&Event::Interrupted);
                Verdict::Interrupted
            }
            Err(Stop::Written(problems)) => {
                for problem in problems {
                    self.reporter.report(&Event::Problem(problem));
                }
                Verdict::CouldNotRun
            }
        };
        self.reporter.report(&Event::Finished(self.recap.clone()));
        verdict
    }

    async fn plays(&mut self, playbook: &Playbook) -> Flow {
        for play in &playbook.plays {
            if !self.play(play).await? {
                return Ok(());
            }
        }
        match &self.wishes.start_at {
            // The files that could have had it are read when they are included.
            Some(name) => Err(Diagnostic::error(format!("no task is called `{name}`"))
                .help("--start-at-task can only find tasks that no include_tasks brings; --list-tasks shows them")
                .into()),
            None => Ok(()),
        }
    }

    /// Runs one play; false: nothing more is to be run.
    async fn play(&mut self, play: &Play) -> Flow<bool> {
        let hosts = self.hosts_of(play)?;
        let name = self.play_name(play);
        self.enter_play(play, &name, &hosts);
        let filter = Filter {
            tags: &self.wishes.tags,
            start_at: self.wishes.start_at.as_deref(),
        };
        let plan = Plan::new(play, self.wishes.gathers_by_default, &filter);
        if plan.found_start {
            self.wishes.start_at = None;
        }
        let sizes = self.batch_sizes(play, hosts.len())?;
        for batch in schedule::batches(&hosts, &sizes) {
            self.reporter
                .report(&Event::PlayStarted { name: name.clone() });
            let failed_before = self.failed.len();
            let ends_play = self.batch(play, &plan, &batch).await?;
            let failed_now = self.failed.len() - failed_before;
            if failed_now == batch.len() {
                return Ok(false);
            }
            match ends_play {
                BatchEnd::Next => {}
                BatchEnd::Play => return Ok(true),
                BatchEnd::Run => return Ok(false),
            }
        }
        Ok(true)
    }

    fn hosts_of(&self, play: &Play) -> Flow<Vec<String>> {
        let scope = Scope::new(&self.known, "").with(Level::PlayVars, written(&play.vars));
        let mut patterns = Vec::new();
        for node in &play.hosts {
            let value = self.services.renderer.node(node, &scope)?;
            for text in keyword_list(&value) {
                patterns.push(Pattern {
                    text,
                    origin: Some(node.origin.clone()),
                });
            }
        }
        let mut hosts = self.inventory.select(&patterns)?;
        if !self.wishes.limit.is_empty() {
            let limit = self.inventory.select(&self.wishes.limit)?;
            hosts.retain(|host| limit.contains(host));
        }
        match play.order {
            HostOrder::Inventory | HostOrder::Shuffle => {}
            HostOrder::ReverseInventory => hosts.reverse(),
            HostOrder::Sorted => hosts.sort(),
            HostOrder::ReverseSorted => {
                hosts.sort();
                hosts.reverse();
            }
        }
        Ok(hosts)
    }

    fn play_name(&self, play: &Play) -> String {
        let scope = Scope::new(&self.known, "").with(Level::PlayVars, written(&play.vars));
        if let Some(node) = &play.name {
            return self.rendered_text(node, &scope);
        }
        let patterns = play.hosts.iter();
        let patterns: Vec<String> = patterns
            .map(|node| self.rendered_text(node, &scope))
            .collect();
        patterns.join(",")
    }

    /// Renders a name; one that cannot be rendered (yet) stays as it was written.
    fn rendered_text(&self, node: &Node, scope: &Scope) -> String {
        match self.services.renderer.node(node, scope) {
            Ok(Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(_) => node.key_text(),
        }
    }

    fn enter_play(&mut self, play: &Play, name: &str, hosts: &[String]) {
        let known = Arc::make_mut(&mut self.known);
        name.clone_into(&mut known.play_name);
        known.play_hosts_all = hosts.to_vec();
        known.playbook_folder.clone_from(&play.folder);
        let folder = if play.folder.is_empty() {
            "."
        } else {
            &play.folder
        };
        known.playbook_dir = self.services.loader.absolute(folder);
    }

    fn batch_sizes(&self, play: &Play, hosts: usize) -> Flow<Vec<usize>> {
        let scope = Scope::new(&self.known, "").with(Level::PlayVars, written(&play.vars));
        let mut sizes = Vec::new();
        for batch in &play.serial {
            sizes.push(match batch {
                Batch::Hosts(size) => *size,
                Batch::Percent(percent) => schedule::share(*percent, hosts),
                Batch::Template(node) => {
                    let value = self.services.renderer.node(node, &scope)?;
                    batch_size(&value, hosts).ok_or_else(|| {
                        Diagnostic::error(format!("`{value}` is no size of a batch"))
                            .at(&node.origin)
                            .label("expected a number or a percentage")
                    })?
                }
            });
        }
        Ok(sizes)
    }

    async fn batch(&mut self, play: &Play, plan: &Plan, batch: &[String]) -> Flow<BatchEnd> {
        let alive: Vec<String> = batch
            .iter()
            .filter(|host| !self.failed.contains(*host))
            .cloned()
            .collect();
        let keywords = [
            ("connection", &play.connection),
            ("remote_user", &play.remote_user),
            ("port", &play.port),
        ];
        let keywords = keywords
            .into_iter()
            .filter_map(|(name, node)| node.clone().map(|node| (name, node)));
        let mut running = Running {
            play,
            schedule: Schedule::new(plan.slots.clone(), &alive, play.force_handlers),
            batch: batch.to_vec(),
            notified: BTreeMap::new(),
            keywords: Arc::new(keywords.collect()),
            vars: written(&play.vars),
            vars_files: BTreeMap::new(),
            blocks: plan.blocks,
            ends_play: false,
        };
        self.tell_batch(&running);
        for host in &alive {
            let layer = self.vars_files(&running, host)?;
            running.vars_files.insert(host.clone(), layer);
        }
        while let Some(turn) = running.schedule.next_turn() {
            let ended = self.turn(&mut running, &turn).await?;
            self.tell_batch(&running);
            if self.too_many_failed(&mut running, &ended)? {
                return Ok(BatchEnd::Run);
            }
        }
        self.close_check(&running);
        Ok(if running.ends_play {
            BatchEnd::Play
        } else {
            BatchEnd::Next
        })
    }

    fn tell_batch(&mut self, running: &Running<'_>) {
        let known = Arc::make_mut(&mut self.known);
        known.play_batch = running.schedule.left();
        let failed = &self.failed;
        known.play_hosts = known
            .play_hosts_all
            .iter()
            .filter(|host| !failed.contains(*host))
            .cloned()
            .collect();
    }

    fn vars_files(&self, running: &Running<'_>, host: &str) -> Flow<Layer> {
        let mut all = Layer::default();
        for node in &running.play.vars_files {
            let scope = self
                .host_scope(running, host)
                .with(Level::VarsFiles, Arc::clone(&all));
            let names = match &node.kind {
                Kind::Seq(names) => names.clone(),
                _ => vec![node.clone()],
            };
            let mut tried = Vec::new();
            let mut found = None;
            for name in &names {
                let name = self.services.renderer.node(name, &scope)?;
                let name = name.as_str().unwrap_or_default().to_owned();
                let path = playbook::files::join(&running.play.folder, &name);
                if self.services.loader.is_file(&path) {
                    found = Some(path);
                    break;
                }
                tried.push(path);
            }
            let Some(path) = found else {
                let problem = format!("could not find the variables' file {}", tried.join(" or "));
                return Err(Diagnostic::error(problem).at(&node.origin).into());
            };
            let entries = playbook::inventory::variables_file(&path, &*self.services.loader)?;
            Arc::make_mut(&mut all).extend(entries);
        }
        Ok(all)
    }

    pub(super) fn host_scope(&self, running: &Running<'_>, host: &str) -> Scope {
        let scope = Scope::new(&self.known, host).with(Level::PlayVars, Arc::clone(&running.vars));
        match running.vars_files.get(host) {
            Some(layer) => scope.with(Level::VarsFiles, Arc::clone(layer)),
            None => scope,
        }
    }

    /// Has the turn's hosts do their slot; returns how it ended for each.
    async fn turn(&mut self, running: &mut Running<'_>, turn: &Turn) -> Flow<Vec<Ended>> {
        let slot = running.schedule.slot(turn.slot).clone();
        match &slot.work {
            Work::Flush => {
                self.flush(running, turn).await?;
                Ok(Vec::new())
            }
            Work::GatherFacts => {
                let task = Arc::new(gather_task(running.play));
                self.task_turn(running, turn, &task, &slot).await
            }
            Work::Task(task) => match &task.action {
                Action::Meta(kind) => {
                    self.meta(running, turn, task, *kind).await?;
                    Ok(Vec::new())
                }
                _ => self.task_turn(running, turn, task, &slot).await,
            },
        }
    }

    async fn task_turn(
        &mut self,
        running: &mut Running<'_>,
        turn: &Turn,
        task: &Arc<Task>,
        slot: &Slot,
    ) -> Flow<Vec<Ended>> {
        let work = Assigned {
            task,
            kind: TaskKind::Task,
            params: &slot.params,
        };
        let ended = if self.admits(running, task) {
            let (silent, asked) = self.part_silent(task, &turn.hosts);
            let mut given_up = Self::given_up(task, &silent);
            for each in &mut given_up {
                self.apply(running, each, &[])?;
            }
            let done = if asked.is_empty() {
                Some(Vec::new())
            } else {
                self.run_task(running, &work, &asked).await?
            };
            done.map(|done| [given_up, done].concat())
        } else {
            None
        };
        let Some(ended) = ended else {
            for host in &turn.hosts {
                running.schedule.succeed(host);
            }
            return Ok(Vec::new());
        };
        self.note_check(task, &ended);
        self.insert_included(running, turn, task, slot, &ended);
        self.settle(running, turn, task, &ended);
        Ok(ended)
    }

    /// Moves the hosts' cursors as their results say.
    fn settle(&mut self, running: &mut Running<'_>, turn: &Turn, task: &Task, ended: &[Ended]) {
        let once = ended.len() < turn.hosts.len() || self.is_once(running, task, &turn.hosts[0]);
        let mut broken = false;
        for each in ended {
            match each.shown.outcome {
                Outcome::Failed if !each.ignored => {
                    broken = true;
                    self.fail(running, &each.host, Some((task, &each.result)));
                }
                Outcome::Unreachable if !each.ignored => {
                    broken = true;
                    running.schedule.remove(&each.host);
                    self.failed.insert(each.host.clone());
                }
                _ => running.schedule.succeed(&each.host),
            }
        }
        let settings = &task.inherited;
        let fatal = settings.any_errors_fatal.as_ref().and_then(Setting::fixed);
        let all_fail = broken && (once || fatal.unwrap_or(running.play.any_errors_fatal));
        let done: BTreeSet<&String> = ended.iter().map(|each| &each.host).collect();
        for host in running.schedule.left() {
            let failed_itself = ended.iter().any(|each| {
                each.host == host && each.shown.outcome == Outcome::Failed && !each.ignored
            });
            if all_fail && !failed_itself {
                self.fail(running, &host, None);
            } else if turn.hosts.contains(&host) && !done.contains(&host) {
                running.schedule.succeed(&host);
            }
        }
    }

    fn fail(&mut self, running: &mut Running<'_>, host: &str, what: Option<(&Task, &Object)>) {
        match running.schedule.fail(host) {
            Fate::Fatal => {
                self.failed.insert(host.to_owned());
            }
            Fate::Rescued => {
                let Some((task, result)) = what else { return };
                let values = result::object(serde_json::json!({
                    "ansible_failed_task": {
                        "name": written_name(task),
                        "action": task.action_name.key_text(),
                    },
                    "ansible_failed_result": result,
                }));
                Arc::make_mut(&mut self.known).set_facts(host, values);
            }
        }
    }

    /// After a turn: more than `max_fail_percentage` of the batch failed.
    fn too_many_failed(&mut self, running: &mut Running<'_>, ended: &[Ended]) -> Flow<bool> {
        let Some(setting) = &running.play.max_fail_percentage else {
            return Ok(false);
        };
        if ended.is_empty() {
            return Ok(false);
        }
        let percent = match setting {
            Setting::Fixed(percent) => *percent,
            Setting::Template(node) => {
                let scope = Scope::new(&self.known, "").with(Level::PlayVars, running.vars.clone());
                let value = self.services.renderer.node(node, &scope)?;
                keyword::float(&value).unwrap_or(100.0)
            }
        };
        if !schedule::too_many_failed(self.failed.len(), running.batch.len(), percent) {
            return Ok(false);
        }
        for host in running.schedule.left() {
            running.schedule.remove(&host);
            self.failed.insert(host);
        }
        // Twice, as Ansible does: for the share, and because nobody is left.
        self.reporter.report(&Event::NoHostsLeft);
        self.reporter.report(&Event::NoHostsLeft);
        Ok(true)
    }

    fn is_once(&self, running: &Running<'_>, task: &Task, host: &str) -> bool {
        if matches!(task.action, Action::Pause(_) | Action::AddHost(_)) {
            return true;
        }
        match &task.run_once {
            None => false,
            Some(Setting::Fixed(once)) => *once,
            Some(Setting::Template(node)) => {
                let scope = self.host_scope(running, host);
                let value = self.services.renderer.node(node, &scope).ok();
                value.as_ref().and_then(keyword::boolean).unwrap_or(false)
            }
        }
    }

    /// Runs a task on hosts; `None`: the user said no.
    async fn run_task(
        &mut self,
        running: &mut Running<'_>,
        work: &Assigned<'_>,
        hosts: &[String],
    ) -> Flow<Option<Vec<Ended>>> {
        let once = self.is_once(running, work.task, &hosts[0]);
        let doing = if once { &hosts[..1] } else { hosts };
        let jobs = self.jobs(running, work, doing);
        let name = jobs[0].name.clone();
        if let Some(ask) = &mut self.step {
            match tokio::task::block_in_place(|| ask(&name)) {
                StepAnswer::No => return Ok(None),
                StepAnswer::Yes => {}
                StepAnswer::Continue => self.step = None,
            }
        }
        self.reporter.report(&Event::TaskStarted(TaskStarted {
            id: jobs[0].id,
            kind: work.kind,
            name,
            place: place(work.task),
            hosts: doing.to_vec(),
            tags: work.task.tags.clone(),
        }));
        let throttle = work
            .task
            .inherited
            .throttle
            .as_ref()
            .and_then(Setting::fixed);
        let throttle = throttle.and_then(|limit| usize::try_from(limit).ok());
        let at_once = match throttle {
            Some(limit @ 1..) => limit.min(self.services.flags.forks),
            _ => self.services.flags.forks,
        };
        let mut ended = self.run_jobs(running, jobs, at_once.max(1)).await?;
        let spread: &[String] = if once { hosts } else { &[] };
        for each in &mut ended {
            self.apply(running, each, spread)?;
        }
        Ok(Some(ended))
    }

    fn jobs(&mut self, running: &Running<'_>, work: &Assigned<'_>, doing: &[String]) -> Vec<Job> {
        self.tasks_begun += 1;
        let id = TaskId(self.tasks_begun);
        let mut jobs: Vec<Job> = Vec::with_capacity(doing.len());
        for host in doing {
            let mut scope = self.host_scope(running, host);
            for params in work.params {
                scope = scope.with(Level::IncludeParams, Arc::clone(params));
            }
            jobs.push(Job {
                task: Arc::clone(work.task),
                id,
                name: String::new(),
                host: host.clone(),
                scope,
                play_keywords: Arc::clone(&running.keywords),
            });
        }
        // One banner for all: the name as the first host renders it.
        let name = match &work.task.name {
            Some(node) => self.rendered_text(node, &task_scope(&jobs[0])),
            None => work.task.action_name.key_text(),
        };
        for job in &mut jobs {
            name.trim().clone_into(&mut job.name);
        }
        jobs
    }

    async fn run_jobs(
        &mut self,
        running: &Running<'_>,
        jobs: Vec<Job>,
        at_once: usize,
    ) -> Flow<Vec<Ended>> {
        let (sender, mut events) = mpsc::channel(EVENT_QUEUE);
        let services = Arc::clone(&self.services);
        let id = jobs[0].id;
        let order: Vec<String> = jobs.iter().map(|job| job.host.clone()).collect();
        let mut waiting = jobs.into_iter();
        let mut set = JoinSet::new();
        let start_next = |set: &mut JoinSet<Ended>, waiting: &mut std::vec::IntoIter<Job>| {
            if let Some(job) = waiting.next() {
                set.spawn(executor::execute(
                    Arc::clone(&services),
                    job,
                    sender.clone(),
                ));
            }
        };
        for _ in 0..at_once {
            start_next(&mut set, &mut waiting);
        }
        let mut ended: Vec<Ended> = Vec::new();
        let mut interrupt = self.interrupt.clone();
        loop {
            tokio::select! {
                biased;
                // Dropping the set gives the tasks up; their agents are told.
                _ = interrupt.wait_for(|asked| *asked) => return Err(Stop::Interrupted),
                Some(event) = events.recv() => self.report(&event),
                joined = set.join_next() => match joined {
                    None => break,
                    Some(done) => {
                        let done = done.expect("an executor neither panics nor is aborted");
                        // What the task said before its end comes before its end.
                        while let Ok(event) = events.try_recv() {
                            self.report(&event);
                        }
                        self.report_end(running, id, &done);
                        ended.push(done);
                        start_next(&mut set, &mut waiting);
                    }
                },
            }
        }
        // Whatever follows is done in the play's order, not in that of the hosts' speed.
        ended.sort_by_key(|each| order.iter().position(|host| *host == each.host));
        Ok(ended)
    }

    /// Reports; a problem of the playbook once.
    fn report(&mut self, event: &Event) {
        if let Event::Problem(problem) = event
            && !self.shown.insert(format!("{problem:?}"))
        {
            return;
        }
        self.reporter.report(event);
    }

    fn report_end(&mut self, running: &Running<'_>, task: TaskId, ended: &Ended) {
        let is_include = ended.shown.shape == ResultShape::Include;
        let went_well = matches!(ended.shown.outcome, Outcome::Ok | Outcome::Changed);
        if !(is_include && went_well) {
            let fate = running.schedule.fate(&ended.host);
            let consequence = match ended.shown.outcome {
                _ if ended.ignored => Consequence::Ignored {
                    changed: result::flag(&ended.result, "changed"),
                },
                Outcome::Failed if fate == Fate::Rescued => Consequence::Rescued,
                _ => Consequence::Plain,
            };
            self.recap
                .count(&ended.host, ended.shown.outcome, consequence);
        }
        self.reporter.report(&Event::HostDone {
            task,
            result: ended.shown.clone(),
        });
    }

    /// Writes down what follows from a result; with `run_once` for all hosts.
    fn apply(&mut self, running: &mut Running<'_>, ended: &mut Ended, spread: &[String]) -> Flow {
        for effect in std::mem::take(&mut ended.effects) {
            let targets = |host: String| {
                if spread.is_empty() || host != ended.host {
                    vec![host]
                } else {
                    spread.to_vec()
                }
            };
            let known = Arc::make_mut(&mut self.known);
            match effect {
                Effect::SetFacts { host, values } => {
                    for host in targets(host) {
                        known.set_facts(&host, values.clone());
                    }
                }
                Effect::AddFacts { host, values } => {
                    for host in targets(host) {
                        known.add_facts(&host, values.clone());
                    }
                }
                Effect::IncludeVars { host, values } => {
                    for host in targets(host) {
                        known.include_vars(&host, &values);
                    }
                }
                Effect::Notify(names) => {
                    for name in names {
                        self.notify(running, &ended.host, &name)?;
                    }
                }
                include @ Effect::Include(_) => ended.effects.push(include),
                Effect::AddHost { name, groups, vars } => {
                    self.inventory.add_found_host(&name, &groups);
                    self.refresh_known(&name, vars);
                }
                Effect::GroupBy { key, parents } => {
                    let mut groups = vec![key.clone()];
                    groups.extend(parents.into_iter().filter(|parent| parent != "all"));
                    self.inventory.add_found_host(&ended.host, &groups);
                    self.refresh_known(&ended.host.clone(), Object::new());
                }
                Effect::LabChanged => {
                    // Links prove themselves before their next task (remote::reconnect).
                    self.silent.clear();
                }
            }
        }
        Ok(())
    }

    fn refresh_known(&mut self, host: &str, vars: Object) {
        let known = Arc::make_mut(&mut self.known);
        known.groups = self.inventory.groups();
        let own = known.hosts.entry(host.to_owned()).or_default();
        let inventory = Arc::make_mut(&mut own.inventory);
        for (name, value) in vars {
            inventory.insert(name, playbook::vars::Variable::Found(value));
        }
    }

    fn notify(&mut self, running: &mut Running<'_>, host: &str, name: &str) -> Flow {
        let scope = self.host_scope(running, host);
        let called = |handler: &Handler| {
            let own = handler.task.name.as_ref();
            own.is_some_and(|node| self.rendered_text(node, &scope) == name)
        };
        let handlers = &running.play.handlers;
        let by_name = handlers.iter().position(called);
        let listening = handlers
            .iter()
            .enumerate()
            .filter(|(_, handler)| handler.listen.iter().any(|topic| topic == name))
            .map(|(index, _)| index);
        let mut found: BTreeSet<usize> = listening.collect();
        found.extend(by_name);
        if found.is_empty() {
            let names: Vec<String> = handlers
                .iter()
                .filter_map(|handler| handler.task.name.as_ref())
                .map(Node::key_text)
                .collect();
            let problem = Diagnostic::error(format!(
                "no handler is called `{name}`, and none listens to it"
            ))
            .nearest(name, names.iter().map(String::as_str));
            return Err(problem.into());
        }
        for index in found {
            running
                .notified
                .entry(index)
                .or_default()
                .insert(host.to_owned());
        }
        Ok(())
    }

    /// Runs notified handlers in the order of their definition, then moves on.
    async fn flush(&mut self, running: &mut Running<'_>, turn: &Turn) -> Flow {
        let play = running.play;
        for (index, handler) in play.handlers.iter().enumerate() {
            let waiting = running.notified.get(&index).cloned().unwrap_or_default();
            let hosts: Vec<String> = turn
                .hosts
                .iter()
                .filter(|host| waiting.contains(*host))
                .filter(|host| running.schedule.position(host) == Some(turn.slot))
                .cloned()
                .collect();
            if hosts.is_empty() {
                continue;
            }
            if let Some(still) = running.notified.get_mut(&index) {
                still.retain(|host| !hosts.contains(host));
            }
            let task = Arc::new(handler.task.clone());
            self.handler(running, turn, &task, &hosts).await?;
        }
        for host in &turn.hosts {
            if running.schedule.position(host) == Some(turn.slot) {
                running.schedule.succeed(host);
            }
        }
        Ok(())
    }

    async fn handler(
        &mut self,
        running: &mut Running<'_>,
        turn: &Turn,
        task: &Arc<Task>,
        hosts: &[String],
    ) -> Flow {
        let mut queue = vec![(Arc::clone(task), hosts.to_vec(), Vec::new())];
        while let Some((task, hosts, params)) = queue.pop() {
            let hosts: Vec<String> = hosts
                .into_iter()
                .filter(|host| running.schedule.position(host) == Some(turn.slot))
                .collect();
            if hosts.is_empty() {
                continue;
            }
            let work = Assigned {
                task: &task,
                kind: TaskKind::Handler,
                params: &params,
            };
            let Some(ended) = self.run_task(running, &work, &hosts).await? else {
                continue;
            };
            let found = self.load_included(&task, &ended, params.len());
            for included in found.into_iter().rev() {
                let mut inner = params.clone();
                inner.push(included.params);
                let tasks: Vec<Task> = included
                    .steps
                    .iter()
                    .flat_map(Step::tasks)
                    .cloned()
                    .collect();
                for task in tasks.into_iter().rev() {
                    queue.push((Arc::new(task), included.hosts.clone(), inner.clone()));
                }
            }
            for each in &ended {
                match each.shown.outcome {
                    Outcome::Failed if !each.ignored => self.fail(running, &each.host, None),
                    Outcome::Unreachable if !each.ignored => {
                        running.schedule.remove(&each.host);
                        self.failed.insert(each.host.clone());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Puts the tasks that includes read behind the include, for the hosts that asked.
    fn insert_included(
        &mut self,
        running: &mut Running<'_>,
        turn: &Turn,
        task: &Arc<Task>,
        slot: &Slot,
        ended: &[Ended],
    ) {
        let mut slots = Vec::new();
        for included in self.load_included(task, ended, slot.params.len()) {
            let mut params = slot.params.clone();
            params.push(included.params);
            let hosts: BTreeSet<String> = included.hosts.into_iter().collect();
            slots.extend(plan::included(
                &included.steps,
                &slot.path,
                &mut running.blocks,
                &self.wishes.tags,
                &hosts,
                &params,
            ));
        }
        running.schedule.insert_after(turn.slot, slots);
    }

    /// Reads each included file once for all hosts that include it alike, and says so.
    fn load_included(&mut self, task: &Arc<Task>, ended: &[Ended], depth: usize) -> Vec<Included> {
        let mut groups: Vec<(Include, Vec<String>)> = Vec::new();
        for each in ended {
            for effect in &each.effects {
                let Effect::Include(include) = effect else {
                    continue;
                };
                match groups.iter_mut().find(|(other, _)| other == include) {
                    Some((_, hosts)) => hosts.push(each.host.clone()),
                    None => groups.push((include.clone(), vec![each.host.clone()])),
                }
            }
        }
        let mut all = Vec::new();
        for (include, hosts) in groups {
            let Action::IncludeTasks(spec) = &task.action else {
                unreachable!("only an include has this effect");
            };
            let folder = self.known.playbook_folder.clone();
            let loader = &*self.services.loader;
            let read = if depth < INCLUDES_DEEP_MAX {
                playbook::load_included(&include.file, task, spec, &folder, loader)
            } else {
                Err(vec![
                    Diagnostic::error(format!(
                        "`{}` is the {depth}th file included inside another",
                        include.file
                    ))
                    .at(&spec.file.origin)
                    .help("a file that includes itself needs a `when` that ends it"),
                ])
            };
            match read {
                Ok(mut steps) => {
                    if let Some(check) = &task.check {
                        for step in &mut steps {
                            step.belong_to(check);
                        }
                    }
                    for host in &hosts {
                        self.recap.count(host, Outcome::Ok, Consequence::Plain);
                    }
                    let folders = [task.folder.as_str(), folder.as_str()];
                    let path = playbook::files::find(loader, "tasks", &include.file, &folders);
                    self.reporter.report(&Event::Included {
                        file: loader.absolute(&path.unwrap_or(include.file)),
                        hosts: hosts.clone(),
                        label: include.label,
                    });
                    all.push(Included {
                        steps,
                        hosts,
                        params: include.params,
                    });
                }
                Err(problems) => {
                    for problem in problems {
                        self.report(&Event::Problem(problem));
                    }
                    for host in &hosts {
                        self.recap.count(host, Outcome::Failed, Consequence::Plain);
                        self.failed.insert(host.clone());
                    }
                }
            }
        }
        all
    }

    async fn meta(
        &mut self,
        running: &mut Running<'_>,
        turn: &Turn,
        task: &Arc<Task>,
        kind: MetaKind,
    ) -> Flow {
        let for_each = matches!(
            kind,
            MetaKind::Noop
                | MetaKind::ResetConnection
                | MetaKind::EndHost
                | MetaKind::FlushHandlers
        );
        // What is meant for all is decided by the first host.
        let asked = if for_each {
            &turn.hosts[..]
        } else {
            &turn.hosts[..1]
        };
        let meant = self.meta_hosts(running, turn, task, asked)?;
        if kind == MetaKind::FlushHandlers {
            for host in turn.hosts.iter().filter(|host| !meant.contains(host)) {
                running.schedule.succeed(host);
            }
            let (slot, hosts) = (turn.slot, meant);
            return self.flush(running, &Turn { slot, hosts }).await;
        }
        for host in &turn.hosts {
            running.schedule.succeed(host);
        }
        if meant.is_empty() {
            return Ok(());
        }
        match kind {
            MetaKind::Noop | MetaKind::RefreshInventory | MetaKind::FlushHandlers => {}
            MetaKind::ClearFacts => {
                for host in &turn.hosts {
                    Arc::make_mut(&mut self.known).clear_facts(host);
                }
            }
            MetaKind::ClearHostErrors => {
                // As in Ansible they take part again from the next play on.
                for host in &running.batch {
                    self.failed.remove(host);
                }
            }
            MetaKind::EndPlay | MetaKind::EndBatch => {
                for host in running.schedule.left() {
                    running.schedule.remove(&host);
                }
                running.ends_play |= kind == MetaKind::EndPlay;
            }
            MetaKind::EndHost => {
                for host in &meant {
                    running.schedule.remove(host);
                }
            }
            MetaKind::ResetConnection => {
                for host in &meant {
                    self.services.hosts.reset(host);
                }
            }
        }
        Ok(())
    }

    /// Announces a meta task for each host and returns those whose conditions hold.
    fn meta_hosts(
        &mut self,
        running: &Running<'_>,
        turn: &Turn,
        task: &Arc<Task>,
        asked: &[String],
    ) -> Flow<Vec<String>> {
        let slot = running.schedule.slot(turn.slot).clone();
        let work = Assigned {
            task,
            kind: TaskKind::Task,
            params: &slot.params,
        };
        let mut meant = Vec::new();
        for job in self.jobs(running, &work, asked) {
            self.reporter.report(&Event::TaskStarted(TaskStarted {
                id: job.id,
                kind: work.kind,
                name: job.name.clone(),
                place: place(task),
                hosts: vec![job.host.clone()],
                tags: task.tags.clone(),
            }));
            let scope = task_scope(&job);
            let verdict = condition::evaluate(&self.services.renderer, &task.when, &scope)?;
            let outcome = match &verdict {
                Condition::Holds => Outcome::Ok,
                Condition::Fails(_) => Outcome::Skipped,
            };
            self.reporter.report(&Event::HostDone {
                task: job.id,
                result: HostResult {
                    host: HostLabel::new(&job.host),
                    outcome,
                    result: Arc::default(),
                    ignored: false,
                    shape: ResultShape::Silent,
                },
            });
            if verdict.holds() {
                meant.push(job.host);
            }
        }
        Ok(meant)
    }
}

/// What follows after a batch.
enum BatchEnd {
    Next,
    Play,
    Run,
}

/// A task given to hosts.
struct Assigned<'turn> {
    task: &'turn Arc<Task>,
    kind: TaskKind,
    params: &'turn [Layer],
}

/// What an `include_tasks` brought, and for whom.
struct Included {
    steps: Vec<Step>,
    hosts: Vec<String>,
    params: Layer,
}

/// `file:line`.
fn place(task: &Task) -> String {
    format!("{}:{}", task.origin.source.name, task.origin.line())
}

fn keyword_list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(keyword_list).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

fn batch_size(value: &Value, hosts: usize) -> Option<usize> {
    if let Some(percent) = value.as_str().and_then(|text| text.strip_suffix('%')) {
        return percent
            .trim()
            .parse()
            .ok()
            .map(|percent| schedule::share(percent, hosts));
    }
    keyword::integer(value).and_then(|size| usize::try_from(size).ok())
}

/// The task that gathers facts before a play's own.
fn gather_task(play: &Play) -> Task {
    let named = |text: &str| Node {
        origin: play.origin.clone(),
        kind: Kind::Str(text.to_owned()),
    };
    Task {
        name: Some(named("Gathering Facts")),
        action: Action::Module(Module {
            name: "setup".to_owned(),
            args: Args::default(),
        }),
        action_name: named("gather_facts"),
        when: Vec::new(),
        repeat: None,
        loop_control: playbook::model::LoopControl::default(),
        register: None,
        retry: None,
        changed_when: None,
        failed_when: None,
        notify: Vec::new(),
        delegate_to: None,
        delegate_facts: None,
        run_once: None,
        tags: play.tags.clone(),
        vars: Vec::new(),
        include_params: Vec::new(),
        connection: None,
        remote_user: None,
        inherited: play.inherited.clone(),
        check: None,
        folder: play.folder.clone(),
        origin: play.origin.clone(),
    }
}
