//! Playbook files to plays: what stands where, static imports unfolded.
//!
//! Every problem is noted and reading goes on, so that one run tells all that is wrong.
//! Tasks are lowered in [`task`](super::task); whether names and files exist that only the
//! whole run knows is asked in [`check`](super::check).

use std::sync::Arc;

use super::files::{self, SourceLoader};
use super::grading;
use super::model::{
    Action, Batch, Block, Check, GatherFacts, Handler, HostOrder, Inherited, Play, Setting, Step,
    Strategy, Task, Vars,
};
use super::schema::{self, Place};
use super::words;
use crate::base::diagnostic::{Diagnostic, Severity, Source};
use crate::base::yaml::{self, Kind, Node};

/// Files may import files so deep; deeper is a loop that changes its path.
const IMPORTS_DEPTH_MAX: usize = 32;

/// Reads files and keeps what is wrong with them.
pub(super) struct Reader<'loader> {
    pub loader: &'loader dyn SourceLoader,
    pub problems: Vec<Diagnostic>,
    /// Absolute paths of the files being read, outermost first.
    open: Vec<String>,
}

/// What a play or block hands down to its tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct Outer {
    pub when: Vec<Node>,
    pub tags: Vec<String>,
    pub vars: Vec<Vars>,
    pub include_params: Vec<Vars>,
    pub notify: Vec<Node>,
    pub inherited: Inherited,
    pub delegate_to: Option<Node>,
    pub delegate_facts: Option<Setting<bool>>,
    pub run_once: Option<Setting<bool>>,
    pub connection: Option<Node>,
    pub remote_user: Option<Node>,
    /// The check that the block around is.
    pub check: Option<Arc<Check>>,
    /// Folder of the file the tasks stand in, and the playbook's.
    pub folder: String,
    pub playbook_folder: String,
}

impl<'loader> Reader<'loader> {
    pub(super) fn new(loader: &'loader dyn SourceLoader) -> Self {
        Self {
            loader,
            problems: Vec::new(),
            open: Vec::new(),
        }
    }

    pub(super) fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// True when nothing worse than a warning was found.
    pub(super) fn is_sound(&self) -> bool {
        self.problems
            .iter()
            .all(|problem| problem.severity == Severity::Warning)
    }

    /// Reads a playbook and those it imports.
    pub(super) fn playbook(&mut self, path: &str, named_at: Option<&Node>) -> Vec<Play> {
        let Some(tree) = self.file(path, named_at) else {
            return Vec::new();
        };
        let plays = match &tree.kind {
            Kind::Seq(items) => items
                .iter()
                .flat_map(|item| self.play(item, path))
                .collect(),
            Kind::Null => {
                self.report(Diagnostic::error(format!("{path} has no plays")).at(&tree.origin));
                Vec::new()
            }
            _ => {
                let problem = Diagnostic::error(format!(
                    "a playbook is a list of plays, this is {}",
                    tree.kind_name()
                ));
                self.report(
                    problem
                        .at(&tree.origin)
                        .label("expected a list")
                        .help("begin each play with `- hosts:`"),
                );
                Vec::new()
            }
        };
        self.open.pop();
        plays
    }

    /// Opens a YAML file; [`Reader::close`] or a pop of `open` follows when it gave a tree.
    fn file(&mut self, path: &str, named_at: Option<&Node>) -> Option<Node> {
        let at = |problem: Diagnostic| match named_at {
            Some(node) => problem.at(&node.origin),
            None => problem,
        };
        let absolute = self.loader.absolute(path);
        if self.open.contains(&absolute) {
            self.report(at(Diagnostic::error(format!("{path} imports itself"))
                .help(format!(
                    "the way round: {}",
                    [self.open.as_slice(), &[absolute]].concat().join(" → ")
                ))));
            return None;
        }
        if self.open.len() > IMPORTS_DEPTH_MAX {
            self.report(at(Diagnostic::error(format!(
                "imports more than {IMPORTS_DEPTH_MAX} deep"
            ))));
            return None;
        }
        let text = match self.loader.read(path) {
            Ok(text) => text,
            Err(reason) => {
                self.report(at(Diagnostic::error(format!(
                    "failed to read {path}: {reason}"
                ))));
                return None;
            }
        };
        match yaml::parse(&Source::new(path, text)) {
            Ok(tree) => {
                self.open.push(absolute);
                Some(tree)
            }
            Err(problem) => {
                self.report(problem);
                None
            }
        }
    }

    fn play(&mut self, node: &Node, path: &str) -> Vec<Play> {
        let Some(entries) = node.as_map() else {
            let problem =
                Diagnostic::error(format!("a play is a mapping, this is {}", node.kind_name()));
            self.report(
                problem
                    .at(&node.origin)
                    .label("expected `hosts:` and `tasks:`"),
            );
            return Vec::new();
        };
        let import = entries.iter().find(|(key, _)| {
            key.as_str()
                .is_some_and(|key| key.rsplit('.').next() == Some("import_playbook"))
        });
        if let Some((_, file)) = import {
            return self.import_playbook(node, file, path);
        }
        for (key, _) in entries {
            if let Some(problem) = schema::missing(key) {
                self.report(problem);
            } else if !schema::is_keyword(Place::Play, &key.key_text()) {
                self.report(schema::unknown_in_play(key));
            }
        }
        let Some(hosts) = node.get("hosts") else {
            let problem = Diagnostic::error("a play has no `hosts`").at(&node.origin);
            self.report(
                problem
                    .label("which hosts?")
                    .help("add `hosts: all`, or a group's name"),
            );
            return Vec::new();
        };
        vec![self.play_of(node, hosts, path)]
    }

    fn import_playbook(&mut self, node: &Node, file: &Node, path: &str) -> Vec<Play> {
        let Some(name) = self.text(file) else {
            return Vec::new();
        };
        let target = files::join(files::folder_of(path), &name);
        let mut plays = self.playbook(&target, Some(file));
        let vars = node
            .get("vars")
            .map(|vars| self.vars(vars))
            .unwrap_or_default();
        let tags = node
            .get("tags")
            .map(|tags| self.names(tags))
            .unwrap_or_default();
        for play in &mut plays {
            play.vars.0.extend(vars.0.iter().cloned());
            add_tags(&mut play.tags, &tags);
            for step in [&mut play.pre_tasks, &mut play.tasks, &mut play.post_tasks]
                .into_iter()
                .flatten()
            {
                tag_step(step, &tags);
            }
        }
        plays
    }

    fn play_of(&mut self, node: &Node, hosts: &Node, path: &str) -> Play {
        let folder = files::folder_of(path).to_owned();
        let tags = node
            .get("tags")
            .map(|tags| self.names(tags))
            .unwrap_or_default();
        let outer = Outer {
            tags: tags.clone(),
            inherited: self.inherited(node, &Inherited::default()),
            connection: node.get("connection").cloned(),
            remote_user: node.get("remote_user").cloned(),
            run_once: self.flag(node, "run_once"),
            folder: folder.clone(),
            playbook_folder: folder.clone(),
            ..Outer::default()
        };
        let section = |reader: &mut Self, name: &str| match node.get(name) {
            Some(list) => reader.steps(list, &outer, Place::Task),
            None => Vec::new(),
        };
        let pre_tasks = section(self, "pre_tasks");
        let tasks = section(self, "tasks");
        let post_tasks = section(self, "post_tasks");
        let handlers = node
            .get("handlers")
            .map(|list| self.handlers(list, &outer))
            .unwrap_or_default();
        Play {
            name: node.get("name").filter(|name| !name.is_null()).cloned(),
            hosts: list(hosts),
            vars: node
                .get("vars")
                .map(|vars| self.vars(vars))
                .unwrap_or_default(),
            vars_files: node.get("vars_files").map(list).unwrap_or_default(),
            gather_facts: match self.fixed_flag(node, "gather_facts") {
                None => GatherFacts::Default,
                Some(true) => GatherFacts::Yes,
                Some(false) => GatherFacts::No,
            },
            serial: node
                .get("serial")
                .map(|serial| self.serial(serial))
                .unwrap_or_default(),
            max_fail_percentage: self.number(node, "max_fail_percentage"),
            any_errors_fatal: self.fixed_flag(node, "any_errors_fatal").unwrap_or(false),
            force_handlers: self.fixed_flag(node, "force_handlers").unwrap_or(false),
            strategy: self
                .choice(
                    node,
                    "strategy",
                    &[("linear", Strategy::Linear), ("free", Strategy::Free)],
                )
                .unwrap_or(Strategy::Linear),
            order: self
                .choice(
                    node,
                    "order",
                    &[
                        ("inventory", HostOrder::Inventory),
                        ("reverse_inventory", HostOrder::ReverseInventory),
                        ("sorted", HostOrder::Sorted),
                        ("reverse_sorted", HostOrder::ReverseSorted),
                        ("shuffle", HostOrder::Shuffle),
                    ],
                )
                .unwrap_or(HostOrder::Inventory),
            pre_tasks,
            tasks,
            post_tasks,
            handlers,
            tags,
            connection: outer.connection.clone(),
            remote_user: outer.remote_user.clone(),
            port: node.get("port").cloned(),
            inherited: outer.inherited.clone(),
            folder,
            origin: node.origin.clone(),
        }
    }

    /// A list of tasks and blocks.
    pub(super) fn steps(&mut self, list: &Node, outer: &Outer, place: Place) -> Vec<Step> {
        match &list.kind {
            Kind::Null => Vec::new(),
            Kind::Seq(items) => items
                .iter()
                .flat_map(|item| self.step(item, outer, place))
                .collect(),
            Kind::Map(entries) => {
                let problem =
                    Diagnostic::error("tasks are a list, this is a mapping").at(&list.origin);
                let first = entries
                    .first()
                    .map_or_else(String::new, |(key, _)| key.key_text());
                self.report(
                    problem
                        .label("expected a list")
                        .help(format!("begin each task with `- `: `- {first}: …`")),
                );
                Vec::new()
            }
            _ => {
                let problem =
                    Diagnostic::error(format!("tasks are a list, this is {}", list.kind_name()));
                self.report(problem.at(&list.origin).label("expected a list"));
                Vec::new()
            }
        }
    }

    fn step(&mut self, node: &Node, outer: &Outer, place: Place) -> Vec<Step> {
        if node.is_null() {
            self.report(
                Diagnostic::error("an empty task")
                    .at(&node.origin)
                    .label("nothing stands after this `-`"),
            );
            return Vec::new();
        }
        let Some(entries) = node.as_map() else {
            let problem =
                Diagnostic::error(format!("a task is a mapping, this is {}", node.kind_name()));
            let typed = node.key_text();
            let problem = problem
                .at(&node.origin)
                .label("expected `module: arguments`");
            self.report(if node.as_str().is_some() {
                problem.help(format!(
                    "is a colon missing after `{}`?",
                    typed.split_whitespace().next().unwrap_or("")
                ))
            } else {
                problem
            });
            return Vec::new();
        };
        let is_block = |(key, _): &(Node, Node)| {
            ["block", "rescue", "always"].contains(&key.key_text().as_str())
        };
        if entries.iter().any(is_block) {
            return self
                .block(node, outer, place)
                .map(|block| Step::Block(Box::new(block)))
                .into_iter()
                .collect();
        }
        self.task(node, outer, place)
    }

    fn block(&mut self, node: &Node, outer: &Outer, place: Place) -> Option<Block> {
        for (key, _) in node.as_map().unwrap_or_default() {
            let name = key.key_text();
            if let Some(problem) = schema::missing(key) {
                self.report(problem);
            } else if !schema::is_keyword(Place::Block, &name) {
                let known = schema::keywords(Place::Block);
                let problem =
                    Diagnostic::error(format!("a block has no keyword `{name}`")).at(&key.origin);
                self.report(problem.label("not a block's keyword").nearest(&name, known));
            }
        }
        let Some(body) = node.get("block") else {
            self.report(
                Diagnostic::error("`rescue` and `always` belong to a `block`").at(&node.origin),
            );
            return None;
        };
        let inner = self.inner(node, outer);
        let part = |reader: &mut Self, list: Option<&Node>| match list {
            Some(list) => reader.steps(list, &inner, place),
            None => Vec::new(),
        };
        let mut rescue = part(self, node.get("rescue"));
        if let Some(check) = inner
            .check
            .as_ref()
            .filter(|_| node.get("points").is_some())
        {
            // A check that failed ends its block, not its host's run.
            rescue.push(Step::Task(Box::new(grading::noop(check, &inner))));
        }
        Some(Block {
            name: node.get("name").cloned(),
            body: part(self, Some(body)),
            rescue,
            always: part(self, node.get("always")),
            tags: inner.tags.clone(),
            origin: node.origin.clone(),
        })
    }

    /// What the tasks inside a block, an import or the task itself inherit.
    pub(super) fn inner(&mut self, node: &Node, outer: &Outer) -> Outer {
        let mut inner = outer.clone();
        inner
            .when
            .extend(self.conditions(node, "when").unwrap_or_default());
        let tags = node
            .get("tags")
            .map(|tags| self.names(tags))
            .unwrap_or_default();
        add_tags(&mut inner.tags, &tags);
        if let Some(vars) = node.get("vars") {
            inner.vars.push(self.vars(vars));
        }
        if let Some(notify) = node.get("notify") {
            inner.notify.extend(list(notify));
        }
        inner.inherited = self.inherited(node, &outer.inherited);
        inner.check = self.check(node, outer.check.as_ref());
        inner.delegate_to = node.get("delegate_to").cloned().or(inner.delegate_to);
        inner.delegate_facts = self.flag(node, "delegate_facts").or(inner.delegate_facts);
        inner.run_once = self.flag(node, "run_once").or(inner.run_once);
        inner.connection = node.get("connection").cloned().or(inner.connection);
        inner.remote_user = node.get("remote_user").cloned().or(inner.remote_user);
        inner
    }

    fn inherited(&mut self, node: &Node, outer: &Inherited) -> Inherited {
        let mut inner = outer.clone();
        inner.r#become = self.flag(node, "become").or(inner.r#become);
        inner.become_user = node.get("become_user").cloned().or(inner.become_user);
        inner.become_method = node.get("become_method").cloned().or(inner.become_method);
        inner.environment.extend(
            node.get("environment")
                .filter(|value| !value.is_null())
                .cloned(),
        );
        inner.ignore_errors = self.flag(node, "ignore_errors").or(inner.ignore_errors);
        inner.ignore_unreachable = self
            .flag(node, "ignore_unreachable")
            .or(inner.ignore_unreachable);
        inner.any_errors_fatal = self
            .flag(node, "any_errors_fatal")
            .or(inner.any_errors_fatal);
        inner.no_log = self.flag(node, "no_log").or(inner.no_log);
        inner.check_mode = self.flag(node, "check_mode").or(inner.check_mode);
        inner.diff = self.flag(node, "diff").or(inner.diff);
        inner.throttle = self.integer(node, "throttle").or(inner.throttle);
        inner.timeout = self.integer(node, "timeout").or(inner.timeout);
        inner
    }

    fn handlers(&mut self, list: &Node, outer: &Outer) -> Vec<Handler> {
        let items = list.as_seq().unwrap_or_default();
        let mut handlers = Vec::new();
        if !list.is_null() && list.as_seq().is_none() {
            self.steps(list, outer, Place::Handler);
        }
        for item in items {
            let listen = item
                .get("listen")
                .map(|listen| self.names(listen))
                .unwrap_or_default();
            for step in self.step(item, outer, Place::Handler) {
                handlers.extend(step_tasks(step).into_iter().map(|task| Handler {
                    task,
                    listen: listen.clone(),
                }));
            }
        }
        handlers
    }

    /// `import_tasks`: the file's tasks with what the import hands down.
    pub(super) fn import_tasks(&mut self, file: &Node, outer: &Outer, place: Place) -> Vec<Step> {
        let Some(name) = self.text(file) else {
            return Vec::new();
        };
        if super::template::is_template(&name) {
            let problem =
                Diagnostic::error("import_tasks needs a name that is known before the run")
                    .at(&file.origin);
            self.report(
                problem
                    .label("a template")
                    .help("use include_tasks, which is read when it runs"),
            );
            return Vec::new();
        }
        let path = match files::find(
            self.loader,
            "tasks",
            &name,
            &[&outer.folder, &outer.playbook_folder],
        ) {
            Ok(path) => path,
            Err(tried) => {
                self.report(no_file(&name, file, &tried));
                return Vec::new();
            }
        };
        self.tasks_file(&path, Some(file), outer, place)
    }

    /// Reads a file of tasks.
    pub(super) fn tasks_file(
        &mut self,
        path: &str,
        named_at: Option<&Node>,
        outer: &Outer,
        place: Place,
    ) -> Vec<Step> {
        let Some(tree) = self.file(path, named_at) else {
            return Vec::new();
        };
        let mut inner = outer.clone();
        files::folder_of(path).clone_into(&mut inner.folder);
        let plays = tree
            .as_seq()
            .unwrap_or_default()
            .iter()
            .any(|item| item.get("hosts").is_some());
        let steps = if plays {
            let problem = Diagnostic::error(format!("{path} is a playbook, not a file of tasks"));
            self.report(
                problem
                    .at(&tree.origin)
                    .help("a file of tasks is a list of tasks without `hosts`"),
            );
            Vec::new()
        } else {
            self.steps(&tree, &inner, place)
        };
        self.open.pop();
        steps
    }

    // What values may look like.

    /// A text, which a number or boolean may stand for.
    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Str(text) => Some(text.clone()),
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => Some(node.key_text()),
            _ => {
                self.wrong(node, "text");
                None
            }
        }
    }

    pub(super) fn wrong(&mut self, node: &Node, expected: &str) {
        self.report(
            Diagnostic::error(format!("expected {expected}, found {}", node.kind_name()))
                .at(&node.origin)
                .label(format!("expected {expected}")),
        );
    }

    /// Tags and topics: a list of texts, or texts with commas.
    pub(super) fn names(&mut self, node: &Node) -> Vec<String> {
        let mut names = Vec::new();
        for item in list(node) {
            if let Some(text) = self.text(&item) {
                names.extend(
                    text.split(',')
                        .map(str::trim)
                        .filter(|name| !name.is_empty())
                        .map(str::to_owned),
                );
            }
        }
        names
    }

    pub(super) fn vars(&mut self, node: &Node) -> Vars {
        match &node.kind {
            Kind::Null => Vars::default(),
            Kind::Map(entries) => {
                for (name, _) in entries {
                    self.variable_name(name);
                }
                Vars(entries.clone())
            }
            _ => {
                self.wrong(node, "a mapping of variables");
                Vars::default()
            }
        }
    }

    pub(super) fn variable_name(&mut self, name: &Node) {
        let text = name.key_text();
        let first = text
            .chars()
            .next()
            .is_some_and(|first| first.is_alphabetic() || first == '_');
        if first && text.chars().all(|one| one.is_alphanumeric() || one == '_') {
            return;
        }
        if super::template::is_template(&text) {
            return;
        }
        let problem =
            Diagnostic::error(format!("`{text}` is no name for a variable")).at(&name.origin);
        self.report(
            problem
                .label("letters, digits and `_`, no digit first")
                .help(format!(
                    "write `{}`",
                    text.replace(|one: char| !one.is_alphanumeric(), "_")
                )),
        );
    }

    /// `when`, `until`, …: one condition or a list. `None`: the keyword is not there.
    pub(super) fn conditions(&mut self, node: &Node, keyword: &str) -> Option<Vec<Node>> {
        let value = node.get(keyword)?;
        let conditions = list(value);
        for condition in &conditions {
            match &condition.kind {
                Kind::Str(text) if text.trim().is_empty() => {
                    self.report(
                        Diagnostic::error(format!("`{keyword}` is empty")).at(&condition.origin),
                    );
                }
                Kind::Str(text) if super::template::is_template(text) => {
                    let problem = Diagnostic::warning(format!(
                        "`{keyword}` is an expression already: no {{{{ }}}}"
                    ));
                    self.report(
                        problem
                            .at(&condition.origin)
                            .label("write it without the braces"),
                    );
                }
                Kind::Bool(_) | Kind::Str(_) => {}
                _ => self.wrong(condition, "a condition"),
            }
        }
        Some(conditions)
    }

    pub(super) fn flag(&mut self, node: &Node, keyword: &str) -> Option<Setting<bool>> {
        self.setting(node, keyword, "a boolean", words::boolean)
    }

    pub(super) fn integer(&mut self, node: &Node, keyword: &str) -> Option<Setting<i64>> {
        self.setting(node, keyword, "a whole number", |json| match json {
            serde_json::Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        })
    }

    pub(super) fn number(&mut self, node: &Node, keyword: &str) -> Option<Setting<f64>> {
        self.setting(node, keyword, "a number", |json| match json {
            serde_json::Value::String(text) => text.trim().trim_end_matches('%').parse().ok(),
            other => other.as_f64(),
        })
    }

    fn setting<T>(
        &mut self,
        node: &Node,
        keyword: &str,
        expected: &str,
        read: impl Fn(&serde_json::Value) -> Option<T>,
    ) -> Option<Setting<T>> {
        let value = node.get(keyword)?;
        if value.is_null() {
            return None;
        }
        if value.as_str().is_some_and(super::template::is_template) {
            return Some(Setting::Template(value.clone()));
        }
        let found = read(&value.to_json());
        if found.is_none() {
            let written = value.origin.text().lines().next().unwrap_or("").trim();
            let problem =
                Diagnostic::error(format!("`{keyword}` is {expected}, found `{written}`"));
            self.report(
                problem
                    .at(&value.origin)
                    .label(format!("expected {expected}")),
            );
        }
        found.map(Setting::Fixed)
    }

    /// A boolean that must be known before there is a host.
    pub(super) fn fixed_flag(&mut self, node: &Node, keyword: &str) -> Option<bool> {
        match self.flag(node, keyword)? {
            Setting::Fixed(value) => Some(value),
            Setting::Template(value) => {
                let problem = Diagnostic::error(format!("`{keyword}` cannot be a template here"))
                    .at(&value.origin);
                self.report(problem.label("expected true or false"));
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, node: &Node, keyword: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = node.get(keyword)?;
        let text = self.text(value)?;
        let short = text.rsplit('.').next().unwrap_or(&text);
        let found = choices.iter().find(|(name, _)| *name == short);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let problem = Diagnostic::error(format!(
                "`{keyword}` is one of {}, found `{text}`",
                names.join(", ")
            ));
            self.report(problem.at(&value.origin).nearest(&text, names));
        }
        found.map(|(_, value)| *value)
    }

    fn serial(&mut self, node: &Node) -> Vec<Batch> {
        let mut batches = Vec::new();
        for item in list(node) {
            let text = item.as_str().map(str::trim);
            let batch = match (&item.kind, text) {
                (Kind::Int(count), _) => usize::try_from(*count).ok().map(Batch::Hosts),
                (_, Some(text)) if super::template::is_template(text) => {
                    Some(Batch::Template(item.clone()))
                }
                (_, Some(text)) => match text.strip_suffix('%') {
                    Some(percent) => percent.trim().parse().ok().map(Batch::Percent),
                    None => text.parse().ok().map(Batch::Hosts),
                },
                _ => None,
            };
            match batch {
                // 0 means all hosts at once, which is also what no entry means.
                Some(Batch::Hosts(0)) => {}
                Some(batch) => batches.push(batch),
                None => self.wrong(&item, "a number of hosts or a percentage"),
            }
        }
        batches
    }
}

/// Adds tags that are not there yet.
pub(super) fn add_tags(all: &mut Vec<String>, more: &[String]) {
    for tag in more {
        if !all.contains(tag) {
            all.push(tag.clone());
        }
    }
}

fn tag_step(step: &mut Step, tags: &[String]) {
    match step {
        Step::Task(task) => {
            add_tags(&mut task.tags, tags);
            if let Action::IncludeTasks(include) = &mut task.action {
                add_tags(&mut include.tags, tags);
            }
        }
        Step::Block(block) => {
            add_tags(&mut block.tags, tags);
            let parts = [&mut block.body, &mut block.rescue, &mut block.always];
            parts
                .into_iter()
                .flatten()
                .for_each(|step| tag_step(step, tags));
        }
    }
}

/// The tasks of a step by themselves: handlers are notified one by one.
fn step_tasks(step: Step) -> Vec<Task> {
    match step {
        Step::Task(task) => vec![*task],
        Step::Block(block) => block.body.into_iter().flat_map(step_tasks).collect(),
    }
}

/// A list, or one value alone; a text with commas is one value.
pub(super) fn list(node: &Node) -> Vec<Node> {
    match &node.kind {
        Kind::Null => Vec::new(),
        Kind::Seq(items) => items.clone(),
        _ => vec![node.clone()],
    }
}

/// A file that is named and not there.
pub(super) fn no_file(name: &str, at: &Node, tried: &[String]) -> Diagnostic {
    Diagnostic::error(format!("there is no file `{name}`"))
        .at(&at.origin)
        .label("not found")
        .help(format!("looked for {}", tried.join(", ")))
}
