//! One task: which module, with which arguments, under which conditions.

use serde_json::Map;

use super::lookup;
use super::model::{
    Action, Args, DebugShow, IncludeTasks, Loop, LoopControl, MetaKind, Module, Retry, Setting,
    Step, Task, Vars,
};
use super::parse::{Outer, Reader, list};
use super::schema::{self, Place};
use super::words;
use crate::base::diagnostic::{Diagnostic, Origin};
use crate::base::yaml::{Kind, Node};
use crate::task::kind::{self, ModuleSpec};

/// Attempts after the first when a task has `until` and no `retries`.
const RETRIES_DEFAULT: i64 = 3;
/// Seconds between attempts.
const DELAY_DEFAULT: f64 = 5.0;

/// Arguments that may stand as `key=value` among a command's words.
const COMMAND_WORDS: &[&str] = &[
    "argv",
    "chdir",
    "cmd",
    "creates",
    "executable",
    "expand_argument_vars",
    "removes",
    "stdin",
    "stdin_add_newline",
    "strip_empty_ends",
];

/// The key that names a task's module, with what stands under it.
struct Call<'node> {
    key: Node,
    spec: &'static ModuleSpec,
    value: &'node Node,
}

impl Reader<'_> {
    /// A task; an import becomes the tasks of its file.
    pub(super) fn task(&mut self, node: &Node, outer: &Outer, place: Place) -> Vec<Step> {
        let Some(call) = self.call(node, place) else {
            return Vec::new();
        };
        let args = self.args(&call, node);
        self.check_args(&call, &args);
        let inner = self.inner(node, outer);
        if call.spec.name == "import_tasks" {
            return self.import(&args, &inner, node, place);
        }
        let Some(mut action) = self.action(&call, args) else {
            return Vec::new();
        };
        if let Action::IncludeTasks(include) = &mut action {
            include.tags.clone_from(&outer.tags);
        }
        vec![Step::Task(Box::new(
            self.task_of(node, call.key, action, inner),
        ))]
    }

    fn import(&mut self, args: &Args, inner: &Outer, node: &Node, place: Place) -> Vec<Step> {
        if node.get("loop").is_some()
            || node.as_map().is_some_and(|keys| {
                keys.iter()
                    .any(|(key, _)| key.key_text().starts_with("with_"))
            })
        {
            let problem = Diagnostic::error("import_tasks cannot loop").at(&node.origin);
            self.report(problem.help("use include_tasks, which is read when it runs"));
        }
        match args.free_form.as_ref().or_else(|| args.named.get("file")) {
            Some(file) => self.import_tasks(file, inner, place),
            None => Vec::new(),
        }
    }

    /// Finds the one module of a task among its keys.
    fn call<'node>(&mut self, node: &'node Node, place: Place) -> Option<Call<'node>> {
        let entries = node.as_map()?;
        let mut calls: Vec<Call<'node>> = Vec::new();
        let mut unknown: Vec<&Node> = Vec::new();
        for (key, value) in entries {
            let name = key.key_text();
            if let Some(problem) = schema::missing(key) {
                self.report(problem);
            } else if name == "action" {
                calls.extend(self.action_keyword(key, value));
            } else if schema::is_keyword(place, &name) {
            } else if let Some(spec) = kind::lookup(&name) {
                calls.push(Call {
                    key: key.clone(),
                    spec,
                    value,
                });
            } else {
                unknown.push(key);
            }
        }
        let spec = calls.first().map(|call| call.spec);
        for key in &unknown {
            let problem = if place == Place::Task && key.key_text() == "listen" {
                Diagnostic::error("`listen` belongs to handlers").at(&key.origin)
            } else {
                schema::unknown_in_task(key, place, spec)
            };
            self.report(problem);
        }
        if let [first, second, ..] = calls.as_slice() {
            let problem = Diagnostic::error(format!(
                "a task has one module, this one has `{}` and `{}`",
                first.key.key_text(),
                second.key.key_text()
            ));
            self.report(
                problem
                    .at(&second.key.origin)
                    .label("the second module")
                    .related(&first.key.origin, "the first")
                    .help("begin a new task with `- `"),
            );
            return None;
        }
        if calls.is_empty()
            && unknown.is_empty()
            && !entries
                .iter()
                .any(|(key, _)| schema::missing(key).is_some())
        {
            let problem = Diagnostic::error("a task without a module").at(&node.origin);
            self.report(
                problem
                    .label("what is to be done?")
                    .help("add a module, such as `command:` or `copy:`"),
            );
        }
        calls.into_iter().next()
    }

    /// `action: copy src=a dest=b`, the old way of naming a module.
    fn action_keyword<'node>(&mut self, key: &Node, value: &'node Node) -> Option<Call<'node>> {
        let name = match &value.kind {
            Kind::Str(text) => text.split_whitespace().next().unwrap_or("").to_owned(),
            Kind::Map(_) => value.get("module").map(Node::key_text).unwrap_or_default(),
            _ => String::new(),
        };
        let Some(spec) = kind::lookup(&name) else {
            let problem =
                Diagnostic::error(format!("there is no module `{name}`")).at(&value.origin);
            self.report(match kind::nearest_name(&name) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem,
            });
            return None;
        };
        let key = Node {
            origin: key.origin.clone(),
            kind: Kind::Str(name),
        };
        Some(Call { key, spec, value })
    }

    fn args(&mut self, call: &Call<'_>, task: &Node) -> Args {
        let via_action = call.key.origin.text() == "action";
        let mut args = match &call.value.kind {
            Kind::Null => Args::default(),
            Kind::Map(entries) => {
                let own = entries
                    .iter()
                    .filter(|(name, _)| !(via_action && name.as_str() == Some("module")));
                Args {
                    named: Vars(own.cloned().collect()),
                    free_form: None,
                }
            }
            Kind::Str(text) => {
                let skipped = if via_action {
                    text.find(char::is_whitespace).unwrap_or(text.len())
                } else {
                    0
                };
                self.text_args(call, text, skipped)
            }
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) if call.spec.free_form.is_some() => {
                Args {
                    named: Vars::default(),
                    free_form: Some(Node {
                        origin: call.value.origin.clone(),
                        kind: Kind::Str(call.value.key_text()),
                    }),
                }
            }
            _ => {
                self.wrong(
                    call.value,
                    &format!("arguments of `{}` as a mapping", call.spec.name),
                );
                Args::default()
            }
        };
        if let Some(more) = task.get("args") {
            let more = self.vars(more);
            for (name, value) in more.0 {
                if args.named.get(&name.key_text()).is_none() {
                    args.named.0.push((name, value));
                }
            }
        }
        args
    }

    /// Arguments on one line: `a=b c=d`, or a free text.
    fn text_args(&mut self, call: &Call<'_>, text: &str, skipped: usize) -> Args {
        let mut args = Args::default();
        let source = &call.value.origin.source;
        let place =
            |range: std::ops::Range<usize>| super::place::within(&call.value.origin, text, range);
        let local = crate::base::diagnostic::Source::new(source.name.clone(), text);
        let words = match words::split(&local, skipped..text.len()) {
            Ok(words) => words,
            Err(problem) if call.spec.free_form.is_none() => {
                let range = problem
                    .origin
                    .as_ref()
                    .map_or(0..text.len(), |at| at.start..at.end);
                self.report(problem.at(&place(range)));
                return args;
            }
            // A command's text is a shell's business.
            Err(_) => Vec::new(),
        };
        let is_command = matches!(call.spec.name, "command" | "shell" | "script" | "raw");
        let mut free: Vec<Origin> = Vec::new();
        for word in words {
            let named = word.value.split_once('=').filter(|(name, _)| {
                let known = if is_command {
                    COMMAND_WORDS.contains(name)
                } else {
                    call.spec.arg(name).is_some() || call.spec.free_form.is_none()
                };
                known
                    && !name.is_empty()
                    && name.chars().all(|one| one.is_alphanumeric() || one == '_')
            });
            match named {
                Some((name, value)) => {
                    let at = place(word.origin.start..word.origin.end);
                    let key = Node {
                        origin: at.clone(),
                        kind: Kind::Str(name.to_owned()),
                    };
                    args.named.0.push((
                        key,
                        Node {
                            origin: at,
                            kind: Kind::Str(value.to_owned()),
                        },
                    ));
                }
                None if call.spec.free_form.is_some() => free.push(word.origin),
                None => {
                    let at = place(word.origin.start..word.origin.end);
                    let problem =
                        Diagnostic::error(format!("`{}` is no argument", word.raw)).at(&at);
                    self.report(problem.label("expected name=value").help(format!(
                        "write the arguments of `{}` as a mapping below it",
                        call.spec.name
                    )));
                }
            }
        }
        if call.spec.free_form.is_some() {
            args.free_form = free_text(call.value, text, skipped, &args, &free);
        }
        args
    }

    /// Checks names and literal values against the module's table.
    fn check_args(&mut self, call: &Call<'_>, args: &Args) {
        let mut literal = Map::new();
        for (name, value) in args.named.iter() {
            literal.insert(name, value.to_json());
        }
        if let (Some(argument), Some(text)) = (call.spec.free_form, &args.free_form) {
            literal.entry(argument).or_insert_with(|| text.to_json());
        }
        let problems = kind::check_literal_args(call.spec, &literal);
        // An argument that is missing because its name is misspelt is one problem.
        let misspelt: Vec<&str> = problems
            .iter()
            .filter_map(|problem| match problem {
                kind::ArgProblem::Unknown { nearest, .. } => *nearest,
                _ => None,
            })
            .collect();
        let is_effect = |problem: &kind::ArgProblem| matches!(problem, kind::ArgProblem::Missing { argument, .. } if misspelt.contains(argument));
        for problem in problems.iter().filter(|problem| !is_effect(problem)) {
            let argument = problem.argument().map(str::to_owned);
            let entry = argument.as_deref().and_then(|argument| {
                let canonical = call.spec.arg(argument).map_or(argument, |arg| arg.name);
                args.named.0.iter().find(|(name, _)| {
                    let name = name.key_text();
                    name == argument
                        || call
                            .spec
                            .arg(&name)
                            .is_some_and(|arg| arg.name == canonical)
                })
            });
            let unknown = matches!(problem, kind::ArgProblem::Unknown { .. });
            let origin = match entry {
                Some((name, _)) if unknown => &name.origin,
                Some((_, value)) => &value.origin,
                None => &call.key.origin,
            };
            let mut diagnostic = Diagnostic::error(problem.to_string()).at(origin);
            if unknown {
                diagnostic = diagnostic.label("no such argument");
            }
            for help in problem.help() {
                diagnostic = diagnostic.help(help);
            }
            self.report(diagnostic);
        }
    }

    fn action(&mut self, call: &Call<'_>, args: Args) -> Option<Action> {
        let named = |name: &str| {
            let canonical = call.spec.arg(name)?;
            let names = std::iter::once(canonical.name).chain(canonical.aliases.iter().copied());
            names
                .into_iter()
                .find_map(|name| args.named.get(name))
                .cloned()
        };
        Some(match call.spec.name {
            "include_tasks" => Action::IncludeTasks(IncludeTasks {
                file: args.free_form.clone().or_else(|| named("file"))?,
                apply: named("apply"),
                tags: Vec::new(),
            }),
            "include_vars" => Action::IncludeVars(args),
            "set_fact" => self.set_fact(args),
            "assert" => {
                let that = named("that")?;
                Action::Assert {
                    that: list(&that),
                    fail_msg: named("fail_msg"),
                    success_msg: named("success_msg"),
                    quiet: named("quiet"),
                }
            }
            "debug" => Action::Debug {
                show: match (named("var"), named("msg")) {
                    (Some(var), _) => DebugShow::Var(var),
                    (None, Some(msg)) => DebugShow::Msg(msg),
                    (None, None) => DebugShow::Greeting,
                },
                verbosity: named("verbosity"),
            },
            "fail" => Action::Fail { msg: named("msg") },
            "meta" => Action::Meta(meta(
                args.free_form
                    .as_ref()
                    .or_else(|| args.named.get("action"))?,
            )?),
            "pause" => Action::Pause(args),
            "add_host" => Action::AddHost(args),
            "group_by" => Action::GroupBy(args),
            "import_playbook" => {
                let problem =
                    Diagnostic::error("import_playbook stands beside plays, not among tasks");
                self.report(problem.at(&call.key.origin));
                return None;
            }
            name => Action::Module(Module {
                name: name.to_owned(),
                args,
            }),
        })
    }

    fn set_fact(&mut self, args: Args) -> Action {
        let (flags, facts): (Vec<_>, Vec<_>) = args
            .named
            .0
            .into_iter()
            .partition(|(name, _)| name.as_str() == Some("cacheable"));
        for (name, _) in &facts {
            self.variable_name(name);
        }
        let cacheable = flags
            .iter()
            .any(|(_, value)| words::boolean(&value.to_json()) == Some(true));
        Action::SetFact {
            facts: Vars(facts),
            cacheable,
        }
    }

    fn task_of(
        &mut self,
        node: &Node,
        action_name: Node,
        action: Action,
        mut inner: Outer,
    ) -> Task {
        if node.get("vars").is_none() {
            inner.vars.push(Vars::default());
        }
        let register = node.get("register").and_then(|name| {
            self.variable_name(name);
            self.text(name)
        });
        Task {
            name: node.get("name").filter(|name| !name.is_null()).cloned(),
            action,
            action_name,
            when: inner.when,
            repeat: self.repeat(node),
            loop_control: node
                .get("loop_control")
                .map(|control| self.loop_control(control))
                .unwrap_or_default(),
            register,
            retry: self.retry(node),
            changed_when: self.conditions(node, "changed_when"),
            failed_when: self.conditions(node, "failed_when"),
            notify: inner.notify,
            delegate_to: inner.delegate_to,
            delegate_facts: inner.delegate_facts,
            run_once: inner.run_once,
            tags: inner.tags,
            vars: inner.vars,
            include_params: inner.include_params,
            connection: inner.connection,
            remote_user: inner.remote_user,
            inherited: inner.inherited,
            check: inner.check,
            folder: inner.folder,
            origin: node.origin.clone(),
        }
    }

    fn repeat(&mut self, node: &Node) -> Option<Loop> {
        let mut found: Option<(Loop, Origin)> = None;
        for (key, value) in node.as_map()? {
            let name = key.key_text();
            let repeat = if name == "loop" {
                if !matches!(value.kind, Kind::Seq(_))
                    && !value.as_str().is_some_and(super::template::is_template)
                {
                    self.report(
                        Diagnostic::error(format!(
                            "`loop` goes over a list, this is {}",
                            value.kind_name()
                        ))
                        .at(&value.origin)
                        .label("expected a list or a template of one"),
                    );
                }
                Loop::Items(value.clone())
            } else if let Some(kind) = name.strip_prefix("with_") {
                let kind = kind.rsplit('.').next().unwrap_or(kind);
                let Some(with) = lookup::kind_of(kind) else {
                    let problem =
                        Diagnostic::error(format!("there is no loop `{name}`")).at(&key.origin);
                    self.report(
                        problem
                            .nearest(kind, lookup::NAMES.iter().copied())
                            .help("`loop` goes over any list"),
                    );
                    continue;
                };
                Loop::With(with, value.clone())
            } else {
                continue;
            };
            if let Some((_, first)) = &found {
                let problem = Diagnostic::error("a task has two loops")
                    .at(&key.origin)
                    .related(first, "the first");
                self.report(problem.help("use one, over `product` or nested lists"));
            }
            found = Some((repeat, key.origin.clone()));
        }
        found.map(|(repeat, _)| repeat)
    }

    fn loop_control(&mut self, node: &Node) -> LoopControl {
        const KNOWN: [&str; 7] = [
            "label",
            "loop_var",
            "index_var",
            "pause",
            "extended",
            "extended_allitems",
            "break_when",
        ];
        for (key, _) in node.as_map().unwrap_or_default() {
            let name = key.key_text();
            if !KNOWN.contains(&name.as_str()) {
                let problem =
                    Diagnostic::error(format!("loop_control has no `{name}`")).at(&key.origin);
                self.report(problem.nearest(&name, KNOWN));
            }
        }
        if node.as_map().is_none() {
            self.wrong(node, "a mapping");
        }
        let mut name = |keyword: &str| {
            let value = node.get(keyword)?;
            self.variable_name(value);
            self.text(value)
        };
        let loop_var = name("loop_var").unwrap_or_else(|| "item".to_owned());
        let index_var = name("index_var");
        LoopControl {
            loop_var,
            index_var,
            label: node.get("label").cloned(),
            pause: self.number(node, "pause"),
            extended: self.fixed_flag(node, "extended").unwrap_or(false),
            break_when: self.conditions(node, "break_when").unwrap_or_default(),
        }
    }

    fn retry(&mut self, node: &Node) -> Option<Retry> {
        let until = self.conditions(node, "until");
        let retries = self.integer(node, "retries");
        let delay = self.number(node, "delay");
        if until.is_none() && retries.is_none() {
            return None;
        }
        Some(Retry {
            until: until.unwrap_or_default(),
            retries: retries.unwrap_or(Setting::Fixed(RETRIES_DEFAULT)),
            delay: delay.unwrap_or(Setting::Fixed(DELAY_DEFAULT)),
        })
    }
}

/// The text that is left for the module when named words are taken out of it.
fn free_text(
    value: &Node,
    text: &str,
    skipped: usize,
    args: &Args,
    free: &[Origin],
) -> Option<Node> {
    if args.named.0.is_empty() {
        let body = text[skipped..].trim();
        return (!body.is_empty()).then(|| Node {
            origin: value.origin.clone(),
            kind: Kind::Str(body.to_owned()),
        });
    }
    // Between the words that stay the text is kept as written, quotes and all.
    let words: Vec<&str> = free
        .iter()
        .map(|origin| &text[origin.start..origin.end])
        .collect();
    (!words.is_empty()).then(|| Node {
        origin: value.origin.clone(),
        kind: Kind::Str(words.join(" ")),
    })
}

fn meta(node: &Node) -> Option<MetaKind> {
    Some(match node.as_str()?.trim() {
        "noop" => MetaKind::Noop,
        "flush_handlers" => MetaKind::FlushHandlers,
        "refresh_inventory" => MetaKind::RefreshInventory,
        "clear_facts" => MetaKind::ClearFacts,
        "clear_host_errors" => MetaKind::ClearHostErrors,
        "end_play" => MetaKind::EndPlay,
        "end_host" => MetaKind::EndHost,
        "end_batch" => MetaKind::EndBatch,
        "reset_connection" => MetaKind::ResetConnection,
        _ => return None,
    })
}
