//! Variables that nobody defines, found before anything runs.
//!
//! A name is taken for undefined only when no inventory, play, task, file or `-e` of the
//! whole run can define it: the order of tasks and what hosts do is not guessed at. Where
//! a name can come from a place that cannot be read yet, nothing is said.

use std::collections::{BTreeMap, BTreeSet};

use super::check::task_vars;
use super::files::{self, SourceLoader};
use super::inventory::{Inventory, variables_file};
use super::model::{Action, Check, DebugShow, Loop, Play, Task};
use super::template::{self, Analysis, Form};
use super::vars::{Layer, MAGIC_NAMES};
use super::{filters, place, predicates};
use crate::base::diagnostic::{Diagnostic, Origin, Source, nearest};
use crate::base::yaml::{Kind, Node};

/// Functions and constants of templates.
const BUILT_IN: &[&str] = &[
    "False",
    "None",
    "True",
    "caller",
    "cycler",
    "dict",
    "false",
    "joiner",
    "lipsum",
    "lookup",
    "loop",
    "namespace",
    "none",
    "now",
    "q",
    "query",
    "range",
    "self",
    "true",
    "undef",
    "debug",
];

pub(super) struct Names<'run> {
    inventory: &'run Inventory,
    /// Names with the place that defines them, where it is in a file.
    defined: BTreeMap<String, Option<Origin>>,
    /// Something may define names that cannot be known yet.
    open: bool,
}

impl<'run> Names<'run> {
    pub(super) fn new(inventory: &'run Inventory, extra: &Layer) -> Self {
        let mut names = Self {
            inventory,
            defined: BTreeMap::new(),
            open: false,
        };
        let known = MAGIC_NAMES.iter().chain(BUILT_IN).copied();
        for name in known.chain(extra.keys().map(String::as_str)) {
            names.add(name, None);
        }
        names
    }

    /// From now on any name may be defined.
    pub(super) fn give_up(&mut self) {
        self.open = true;
    }

    fn add(&mut self, name: &str, origin: Option<&Origin>) {
        if template::is_template(name) {
            self.open = true;
        }
        self.defined
            .entry(name.to_owned())
            .or_insert_with(|| origin.cloned());
    }

    pub(super) fn add_play(&mut self, play: &Play, loader: &dyn SourceLoader) {
        for (name, value) in &play.vars.0 {
            self.add(&name.key_text(), Some(&value.origin));
        }
        match self.inventory.variables(&play.folder, loader) {
            Ok(hosts) => {
                for name in hosts.iter().flat_map(|(_, layer)| layer.keys()) {
                    self.add(name, None);
                }
            }
            Err(_) => self.open = true,
        }
        for file in &play.vars_files {
            let names = match &file.kind {
                Kind::Seq(items) => items.iter().collect(),
                _ => vec![file],
            };
            for name in names {
                self.add_file(name, "vars", &[&play.folder], loader);
            }
        }
    }

    /// Adds what a file of variables defines; a name that cannot be read yet may define anything.
    fn add_file(&mut self, node: &Node, kind: &str, folders: &[&str], loader: &dyn SourceLoader) {
        let literal = node.as_str().filter(|name| !template::is_template(name));
        let path = literal.and_then(|name| files::find(loader, kind, name, folders).ok());
        match path.map(|path| variables_file(&path, loader)) {
            Some(Ok(entries)) => {
                for (name, _) in entries {
                    self.add(&name, None);
                }
            }
            _ => self.open = true,
        }
    }

    pub(super) fn add_task(&mut self, task: &Task, loader: &dyn SourceLoader) {
        for (name, value) in task_vars(task).flat_map(|vars| &vars.0) {
            self.add(&name.key_text(), Some(&value.origin));
        }
        if let Some(register) = &task.register {
            self.add(register, Some(&task.origin));
        }
        if task.repeat.is_some() {
            self.add(&task.loop_control.loop_var, None);
            if let Some(index) = &task.loop_control.index_var {
                self.add(index, None);
            }
        }
        match &task.action {
            Action::SetFact { facts, .. } => {
                for (name, value) in &facts.0 {
                    self.add(&name.key_text(), Some(&value.origin));
                }
            }
            Action::AddHost(args) => {
                for (name, _) in &args.named.0 {
                    self.add(&name.key_text(), None);
                }
            }
            Action::IncludeVars(args) => {
                match (
                    args.named.get("name"),
                    args.free_form.as_ref().or_else(|| args.named.get("file")),
                ) {
                    (Some(name), _) => self.add(&name.key_text(), None),
                    (None, Some(file)) => self.add_file(file, "vars", &[&task.folder], loader),
                    (None, None) => self.open = true,
                }
            }
            _ => {}
        }
    }

    /// Reads every template of a task.
    pub(super) fn check_task(
        &self,
        task: &Task,
        playbook_folder: &str,
        loader: &dyn SourceLoader,
        problems: &mut Vec<Diagnostic>,
    ) {
        let mut texts = Vec::new();
        task_texts(task, &mut texts);
        let mut guarded = BTreeSet::new();
        let mut read: Vec<(&Node, Analysis)> = Vec::new();
        for (node, form) in texts {
            let text = node.as_str().unwrap_or("");
            match template::analyse(text, form) {
                Ok(analysis) => {
                    guarded.extend(analysis.guarded.iter().cloned());
                    read.push((node, analysis));
                }
                Err(problem) => problems.push(syntax(&node.origin, text, &problem)),
            }
        }
        for (node, analysis) in &read {
            self.check(
                analysis,
                &node.origin,
                node.as_str().unwrap_or(""),
                &guarded,
                problems,
            );
        }
        self.check_template(task, playbook_folder, loader, &guarded, problems);
    }

    /// Reads the template file a task names, and those it includes.
    fn check_template(
        &self,
        task: &Task,
        playbook_folder: &str,
        loader: &dyn SourceLoader,
        guarded: &BTreeSet<String>,
        problems: &mut Vec<Diagnostic>,
    ) {
        let Action::Module(module) = &task.action else {
            return;
        };
        let Some(src) = module.args.named.get("src").and_then(Node::as_str) else {
            return;
        };
        if module.name != "template" || template::is_template(src) {
            return;
        }
        let mut next = files::find(loader, "templates", src, &[&task.folder, playbook_folder])
            .ok()
            .into_iter()
            .collect::<Vec<_>>();
        let mut seen = BTreeSet::new();
        while let Some(path) = next.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let Ok(text) = loader.read(&path) else {
                continue;
            };
            let source = Source::new(path.clone(), text);
            let origin = Origin::new(&source, 0, source.text.len());
            let analysis = match template::analyse(&source.text, Form::File) {
                Ok(analysis) => analysis,
                Err(problem) => {
                    problems.push(syntax(&origin, &source.text, &problem));
                    continue;
                }
            };
            let own = analysis.guarded.union(guarded).cloned().collect();
            // Imported macros may be named by what they are imported as; included files share names.
            if analysis.includes.is_empty() {
                self.check(&analysis, &origin, &source.text, &own, problems);
            }
            for include in &analysis.includes {
                let folders = [files::folder_of(&path), &task.folder, playbook_folder];
                match files::find(loader, "templates", &include.name, &folders) {
                    Ok(found) if seen.len() < 64 => next.push(found),
                    Ok(_) => {}
                    Err(tried) => problems.push(
                        Diagnostic::error(format!("there is no template `{}`", include.name))
                            .at(&place::within(&origin, &source.text, include.range.clone()))
                            .label("not found")
                            .help(format!("looked for {}", tried.join(", "))),
                    ),
                }
            }
        }
    }

    fn check(
        &self,
        analysis: &Analysis,
        origin: &Origin,
        text: &str,
        guarded: &BTreeSet<String>,
        problems: &mut Vec<Diagnostic>,
    ) {
        let unknown = |what: &str, name: &str, known: &[&str]| {
            Diagnostic::error(format!("there is no {what} `{name}`"))
                .nearest(name, known.iter().copied())
        };
        for filter in &analysis.filters {
            if !filters::NAMES.contains(&filter.name.as_str()) {
                let at = place::within(origin, text, filter.range.clone());
                problems.push(
                    unknown("filter", &filter.name, filters::NAMES)
                        .at(&at)
                        .label("no such filter"),
                );
            }
        }
        for test in &analysis.tests {
            let operator = !test.name.starts_with(|first: char| first.is_alphabetic());
            if !operator && !predicates::NAMES.contains(&test.name.as_str()) {
                let at = place::within(origin, text, test.range.clone());
                problems.push(
                    unknown("test", &test.name, predicates::NAMES)
                        .at(&at)
                        .label("no such test"),
                );
            }
        }
        for used in &analysis.variables {
            if self.open || guarded.contains(&used.name) || self.is_defined(&used.name) {
                continue;
            }
            let at = place::within(origin, text, used.range.clone());
            let message = format!("`{}` is undefined", used.name);
            let problem = if used.always {
                Diagnostic::error(message)
            } else {
                Diagnostic::warning(message)
            };
            problems.push(self.suggested(
                problem.at(&at).label("nothing defines this name"),
                &used.name,
            ));
        }
    }

    fn is_defined(&self, name: &str) -> bool {
        // Facts: which there are, a host tells.
        self.defined.contains_key(name) || name.starts_with("ansible_")
    }

    fn suggested(&self, problem: Diagnostic, name: &str) -> Diagnostic {
        let own = self
            .defined
            .keys()
            .map(String::as_str)
            .filter(|name| !BUILT_IN.contains(name));
        let Some(near) = nearest(name, own) else {
            return problem;
        };
        match self.defined.get(near).and_then(Option::as_ref) {
            Some(origin) => problem.help(format!("did you mean `{near}`? ({origin})")),
            None => problem.help(format!("did you mean `{near}`?")),
        }
    }
}

fn syntax(origin: &Origin, text: &str, problem: &template::SyntaxProblem) -> Diagnostic {
    Diagnostic::error(format!("template syntax: {}", problem.message))
        .at(&place::within(origin, text, problem.range.clone()))
        .label("not expected here")
}

/// Every text of a task that is a template or an expression.
fn task_texts<'task>(task: &'task Task, texts: &mut Vec<(&'task Node, Form)>) {
    let expressions = task
        .when
        .iter()
        .chain(task.retry.iter().flat_map(|retry| &retry.until));
    let expressions = expressions
        .chain(task.changed_when.iter().flatten())
        .chain(task.failed_when.iter().flatten());
    for node in expressions.chain(&task.loop_control.break_when) {
        expression(node, texts);
    }
    let nodes = [
        &task.name,
        &task.delegate_to,
        &task.inherited.become_user,
        &task.loop_control.label,
    ];
    for node in nodes
        .into_iter()
        .flatten()
        .chain(&task.notify)
        .chain(&task.inherited.environment)
    {
        tree(node, texts);
    }
    if let Some(Loop::Items(node) | Loop::With(_, node)) = &task.repeat {
        tree(node, texts);
    }
    if let Some(check) = &task.check {
        check_texts(check, texts);
    }
    match &task.action {
        Action::Module(module) => args(&module.args, texts),
        Action::IncludeVars(own)
        | Action::Pause(own)
        | Action::AddHost(own)
        | Action::GroupBy(own) => args(own, texts),
        Action::IncludeTasks(include) => tree(&include.file, texts),
        Action::SetFact { facts, .. } => facts.0.iter().for_each(|(_, value)| tree(value, texts)),
        Action::Assert { that, .. } => that.iter().for_each(|node| expression(node, texts)),
        Action::Debug {
            show: DebugShow::Msg(node),
            ..
        }
        | Action::Fail { msg: Some(node) } => tree(node, texts),
        // `debug: var` shows an undefined variable as such.
        Action::Debug { .. } | Action::Fail { msg: None } | Action::Meta(_) => {}
    }
}

/// What a check says when it failed.
fn check_texts<'task>(check: &'task Check, texts: &mut Vec<(&'task Node, Form)>) {
    let wordings = check.translations.iter().map(|(_, wording)| wording);
    for wording in wordings.chain([&check.wording]) {
        let single = [&wording.name, &wording.expected, &wording.found];
        let single = single.into_iter().flatten();
        for node in single.chain(&wording.hints).chain(&wording.causes) {
            tree(node, texts);
        }
    }
    for node in check.causes.iter().flat_map(|cause| &cause.when) {
        expression(node, texts);
    }
    if let Some(node) = &check.see {
        tree(node, texts);
    }
}

fn args<'task>(args: &'task super::model::Args, texts: &mut Vec<(&'task Node, Form)>) {
    for node in args
        .named
        .0
        .iter()
        .map(|(_, value)| value)
        .chain(&args.free_form)
    {
        tree(node, texts);
    }
}

fn expression<'task>(node: &'task Node, texts: &mut Vec<(&'task Node, Form)>) {
    if let Some(text) = node.as_str() {
        let form = if template::is_template(text) {
            Form::Template
        } else {
            Form::Expression
        };
        texts.push((node, form));
    }
}

fn tree<'task>(node: &'task Node, texts: &mut Vec<(&'task Node, Form)>) {
    match &node.kind {
        Kind::Str(text) if template::is_template(text) => texts.push((node, Form::Template)),
        Kind::Seq(items) => items.iter().for_each(|item| tree(item, texts)),
        Kind::Map(entries) => entries.iter().for_each(|(key, value)| {
            tree(key, texts);
            tree(value, texts);
        }),
        _ => {}
    }
}
