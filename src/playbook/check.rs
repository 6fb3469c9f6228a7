//! Playbook files to a [`Playbook`] that cannot be wrong, or every problem there is.
//!
//! After the files are read ([`parse`](super::parse)), questions are asked that need the whole: are there
//! the files, handlers, tags, hosts and variables that are named? Included files are read
//! for that too, where their names are literal or match files that are there.

use std::collections::BTreeSet;

use super::files::{self, SourceLoader};
use super::inventory::Inventory;
use super::model::checks_of;
use super::model::{Action, IncludeTasks, Play, Playbook, Step, Task, Vars};
use super::names::Names;
use super::parse::{Outer, Reader, no_file};
use super::pattern::{Pattern, glob_regex};
use super::schema::Place;
use super::template;
use super::vars::Layer;
use crate::base::diagnostic::{Diagnostic, Severity, nearest};
use crate::base::yaml::Node;

/// What the command line and the inventory say about a run.
#[derive(Clone, Copy, Debug)]
pub struct Context<'run> {
    pub inventory: &'run Inventory,
    /// `-e`
    pub extra: &'run Layer,
    /// `-l`
    pub limit: &'run [String],
    /// `-t`
    pub tags: &'run [String],
    /// `--skip-tags`
    pub skip_tags: &'run [String],
    /// `--start-at-task`
    pub start_at_task: Option<&'run str>,
}

/// Tags that every playbook knows.
const SPECIAL_TAGS: &[&str] = &["all", "tagged", "untagged", "always", "never"];

/// Reads playbooks; what is wrong comes all at once, warnings only with errors.
pub fn load(
    paths: &[String],
    loader: &dyn SourceLoader,
    context: &Context<'_>,
) -> Result<Playbook, Vec<Diagnostic>> {
    let mut reader = Reader::new(loader);
    let plays: Vec<Play> = paths
        .iter()
        .flat_map(|path| reader.playbook(path, None))
        .collect();
    let mut included = Included::default();
    for play in &plays {
        for task in play.tasks() {
            included.follow(task, play, &mut reader);
        }
    }
    check_hosts(&plays, context, &mut reader);
    check_handlers(&plays, &mut reader);
    check_selection(&plays, &included, context, &mut reader);
    let literal = plays
        .iter()
        .flat_map(|play| play.tasks().map(move |task| (task, play.folder.as_str())));
    let checked: Vec<(&Task, &str)> = literal.chain(included.checked()).collect();
    for (task, folder) in &checked {
        check_files(task, folder, &mut reader);
    }
    let tasks = plays.iter().flat_map(Play::tasks);
    reader
        .problems
        .extend(super::grading::check_checks(&checks_of(tasks)));
    let mut names = Names::new(context.inventory, context.extra);
    for play in &plays {
        names.add_play(play, loader);
    }
    for task in plays
        .iter()
        .flat_map(Play::tasks)
        .chain(included.tasks.iter().map(|found| &found.task))
    {
        names.add_task(task, loader);
    }
    if included.unknown {
        names.give_up();
    }
    for (task, folder) in &checked {
        names.check_task(task, folder, loader, &mut reader.problems);
    }
    finish(reader, plays)
}

fn finish(mut reader: Reader<'_>, plays: Vec<Play>) -> Result<Playbook, Vec<Diagnostic>> {
    let place = |problem: &Diagnostic| {
        let origin = problem.origin.as_ref();
        origin.map(|origin| (origin.source.name.clone(), origin.start))
    };
    let sound = reader.is_sound();
    let mut seen: Vec<Diagnostic> = Vec::new();
    for problem in std::mem::take(&mut reader.problems) {
        if !seen.contains(&problem) {
            seen.push(problem);
        }
    }
    seen.sort_by_key(|problem| (problem.severity == Severity::Warning, place(problem)));
    if sound {
        Ok(Playbook {
            plays,
            warnings: seen,
        })
    } else {
        Err(seen)
    }
}

/// Reads the file of an `include_tasks` when it runs; `path` is its rendered name.
/// Its tasks inherit the play's settings, the tags of what is around the include, and the
/// include's variables, not its own tags or conditions.
pub fn load_included(
    path: &str,
    include: &Task,
    spec: &IncludeTasks,
    playbook_folder: &str,
    loader: &dyn SourceLoader,
) -> Result<Vec<Step>, Vec<Diagnostic>> {
    let mut reader = Reader::new(loader);
    let outer = included_outer(include, spec, playbook_folder, &mut reader);
    let steps = match files::find(loader, "tasks", path, &[&include.folder, playbook_folder]) {
        Ok(found) => reader.tasks_file(&found, Some(&spec.file), &outer, Place::Task),
        Err(tried) => {
            reader.report(no_file(path, &spec.file, &tried));
            Vec::new()
        }
    };
    if reader.is_sound() {
        Ok(steps)
    } else {
        Err(reader.problems)
    }
}

fn included_outer(
    include: &Task,
    spec: &IncludeTasks,
    playbook_folder: &str,
    reader: &mut Reader<'_>,
) -> Outer {
    let mut vars = include.vars.clone();
    let own = vars.pop().unwrap_or_default();
    let mut include_params = include.include_params.clone();
    include_params.push(own);
    let outer = Outer {
        vars,
        include_params,
        inherited: include.inherited.clone(),
        connection: include.connection.clone(),
        remote_user: include.remote_user.clone(),
        folder: include.folder.clone(),
        playbook_folder: playbook_folder.to_owned(),
        tags: spec.tags.clone(),
        ..Outer::default()
    };
    match &spec.apply {
        Some(apply) => reader.inner(apply, &outer),
        None => outer,
    }
}

/// Tasks of included files, as far as they can be known before the run.
#[derive(Default)]
struct Included {
    tasks: Vec<Found>,
    /// Files read, so that a file that includes itself ends.
    read: BTreeSet<String>,
    /// Some file may be included that nobody can name yet.
    unknown: bool,
}

struct Found {
    task: Task,
    folder: String,
    /// Named literally: its problems are the playbook's.
    literal: bool,
}

impl Included {
    fn checked(&self) -> impl Iterator<Item = (&Task, &str)> {
        let literal = self.tasks.iter().filter(|found| found.literal);
        literal.map(|found| (&found.task, found.folder.as_str()))
    }

    fn follow(&mut self, task: &Task, play: &Play, reader: &mut Reader<'_>) {
        let Action::IncludeTasks(spec) = &task.action else {
            return;
        };
        let Some(name) = spec.file.as_str() else {
            return;
        };
        let literal = !template::is_template(name);
        let paths = if literal {
            match files::find(reader.loader, "tasks", name, &[&task.folder, &play.folder]) {
                Ok(path) => vec![path],
                Err(tried) => {
                    reader.report(no_file(name, &spec.file, &tried));
                    return;
                }
            }
        } else {
            let paths = matching(name, &[&task.folder, &play.folder], reader.loader);
            self.unknown |= paths.is_empty();
            paths
        };
        for path in paths {
            if !self.read.insert(reader.loader.absolute(&path)) {
                continue;
            }
            let outer = included_outer(task, spec, &play.folder, reader);
            let mut own = Reader::new(reader.loader);
            let steps = own.tasks_file(&path, Some(&spec.file), &outer, Place::Task);
            if literal {
                reader.problems.append(&mut own.problems);
            }
            for inner in steps.iter().flat_map(Step::tasks) {
                self.tasks.push(Found {
                    task: inner.clone(),
                    folder: play.folder.clone(),
                    literal,
                });
                self.follow(inner, play, reader);
            }
        }
    }
}

/// Files a templated name may stand for: each template in it stands for any text.
fn matching(name: &str, folders: &[&str], loader: &dyn SourceLoader) -> Vec<String> {
    let mut glob = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("{{") {
        glob.push_str(before);
        glob.push('*');
        rest = after.split_once("}}").map_or("", |(_, after)| after);
    }
    glob.push_str(rest);
    let (folder, pattern) = (
        files::folder_of(&glob),
        glob.rsplit('/').next().unwrap_or(&glob),
    );
    if folder.contains('*') || !pattern.contains(|one: char| one.is_alphanumeric()) {
        return Vec::new();
    }
    let Ok(regex) = fancy_regex::Regex::new(&format!("^{}$", glob_regex(pattern))) else {
        return Vec::new();
    };
    for base in files::candidates("tasks", folder, folders) {
        let base = if base.is_empty() {
            ".".to_owned()
        } else {
            base
        };
        let names = loader.list(&base).into_iter();
        let found: Vec<String> = names
            .filter(|name| regex.is_match(name).unwrap_or(false))
            .map(|name| files::join(&base, &name))
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn check_hosts(plays: &[Play], context: &Context<'_>, reader: &mut Reader<'_>) {
    let makes_hosts = |task: &Task| matches!(task.action, Action::AddHost(_) | Action::GroupBy(_));
    for (index, play) in plays.iter().enumerate() {
        // Hosts and groups made by an earlier play are met when the later one begins.
        if plays[..index].iter().flat_map(Play::tasks).any(makes_hosts) {
            break;
        }
        let literal = |node: &&Node| !node.as_str().is_none_or(template::is_template);
        let patterns: Vec<Pattern> = play
            .hosts
            .iter()
            .filter(literal)
            .filter_map(|node| {
                let text = node.as_str()?.to_owned();
                Some(Pattern {
                    text,
                    origin: Some(node.origin.clone()),
                })
            })
            .collect();
        if let Err(problem) = context.inventory.select(&patterns) {
            reader.report(problem);
        }
    }
    let limits: Vec<Pattern> = context
        .limit
        .iter()
        .map(|text| Pattern::typed(text))
        .collect();
    if let Err(mut problem) = context.inventory.select(&limits) {
        problem.message = format!("--limit: {}", problem.message);
        reader.report(problem);
    }
}

fn check_handlers(plays: &[Play], reader: &mut Reader<'_>) {
    for play in plays {
        let open = play.handlers.iter().any(|handler| {
            let templated = handler
                .task
                .name
                .as_ref()
                .and_then(Node::as_str)
                .is_some_and(template::is_template);
            templated || matches!(handler.task.action, Action::IncludeTasks(_))
        });
        let names: Vec<&str> = play
            .handlers
            .iter()
            .flat_map(|handler| {
                let name = handler.task.name.as_ref().and_then(Node::as_str);
                name.into_iter()
                    .chain(handler.listen.iter().map(String::as_str))
            })
            .collect();
        for notify in play.tasks().flat_map(|task| &task.notify) {
            let Some(name) = notify.as_str() else {
                continue;
            };
            if open || template::is_template(name) || names.contains(&name) {
                continue;
            }
            let problem =
                Diagnostic::error(format!("there is no handler `{name}`")).at(&notify.origin);
            reader.report(match nearest(name, names.iter().copied()) {
                Some(near) => problem
                    .label("notified here")
                    .help(format!("did you mean `{near}`?")),
                None if names.is_empty() => problem
                    .label("notified here")
                    .help("the play has no handlers"),
                None => problem
                    .label("notified here")
                    .help(format!("the play's handlers: {}", names.join(", "))),
            });
        }
    }
}

/// Tags and the start task of the command line must be there.
fn check_selection(
    plays: &[Play],
    included: &Included,
    context: &Context<'_>,
    reader: &mut Reader<'_>,
) {
    let inside = included.tasks.iter().map(|found| &found.task);
    let tasks: Vec<&Task> = plays.iter().flat_map(Play::tasks).chain(inside).collect();
    let of_plays = plays.iter().flat_map(|play| &play.tags);
    let tags: BTreeSet<&str> = tasks
        .iter()
        .flat_map(|task| &task.tags)
        .chain(of_plays)
        .map(String::as_str)
        .filter(|tag| !SPECIAL_TAGS.contains(tag))
        .collect();
    let open = included.unknown || tags.iter().any(|tag| template::is_template(tag));
    for (option, typed) in [("--tags", context.tags), ("--skip-tags", context.skip_tags)] {
        for tag in typed.iter().flat_map(|tags| tags.split(',')).map(str::trim) {
            if open || tags.contains(tag) || SPECIAL_TAGS.contains(&tag) {
                continue;
            }
            let problem = Diagnostic::error(format!("{option}: no task has the tag `{tag}`"));
            let problem = problem.nearest(tag, tags.iter().copied());
            let all: Vec<&str> = tags.iter().copied().collect();
            reader.report(problem.help(match all.as_slice() {
                [] => "the playbook has no tags".to_owned(),
                all => format!("tags there are: {}", all.join(", ")),
            }));
        }
    }
    if let Some(typed) = context.start_at_task {
        let regex = fancy_regex::Regex::new(&format!("^(?s:{})$", glob_regex(typed)));
        let names: Vec<&str> = tasks
            .iter()
            .filter_map(|task| task.name.as_ref()?.as_str())
            .collect();
        let matches = |name: &&str| {
            *name == typed
                || regex
                    .as_ref()
                    .is_ok_and(|regex| regex.is_match(name).unwrap_or(false))
        };
        let templated = names.iter().any(|name| template::is_template(name));
        if !names.iter().any(matches) && !templated {
            let problem =
                Diagnostic::error(format!("--start-at-task: no task is called `{typed}`"));
            reader.report(problem.nearest(typed, names.iter().copied()));
        }
    }
}

/// Files of this machine that a task names literally.
fn check_files(task: &Task, playbook_folder: &str, reader: &mut Reader<'_>) {
    let (kind, src) = match &task.action {
        Action::Module(module) => {
            let remote = ["remote_src", "content"]
                .iter()
                .any(|name| module.args.named.get(name).is_some());
            match module.name.as_str() {
                "template" => ("templates", module.args.named.get("src")),
                "copy" if !remote => ("files", module.args.named.get("src")),
                _ => return,
            }
        }
        Action::IncludeVars(args) => (
            "vars",
            args.free_form.as_ref().or_else(|| args.named.get("file")),
        ),
        _ => return,
    };
    let Some((node, name)) = src.and_then(|node| Some((node, node.as_str()?))) else {
        return;
    };
    if template::is_template(name) || name.ends_with('/') {
        return;
    }
    let folders = [task.folder.as_str(), playbook_folder];
    let paths = files::candidates(kind, name, &folders);
    let there = |path: &String| reader.loader.is_file(path) || reader.loader.is_directory(path);
    if !paths.iter().any(there) {
        reader.report(no_file(name, node, &paths));
    }
}

/// Variables of every place a task has them, for [`Names`].
pub(super) fn task_vars(task: &Task) -> impl Iterator<Item = &Vars> {
    task.vars.iter().chain(&task.include_params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::files::Memory;
    use crate::playbook::model::{Loop, Module, Setting, WithKind};
    use proptest::prelude::*;

    const FILES: &[(&str, &str)] = &[
        ("templates/good.j2", "{{ weight }}\n"),
        ("templates/wrong.j2", "one\n{{ wieght }}\n"),
        ("templates/broken.j2", "one\n{% if weight %}\n"),
        (
            "tasks/more.yml",
            "- command: echo {{ weight }}\n  tags: inner\n",
        ),
        ("inc/a.yml", "- set_fact: {from_a: 1}\n"),
        ("loop.yml", "- import_tasks: loop.yml\n"),
    ];

    fn load_text(
        text: &str,
        tags: &[&str],
        start: Option<&str>,
    ) -> Result<Playbook, Vec<Diagnostic>> {
        let mut loader = Memory::new(FILES.iter().copied());
        loader.files.insert("/site.yml".to_owned(), text.to_owned());
        let hosts = Inventory::load(&["rs1,rs2".to_owned()], &loader).expect("names");
        let tags: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
        let context = Context {
            inventory: &hosts,
            extra: &Layer::default(),
            limit: &[],
            tags: &tags,
            skip_tags: &[],
            start_at_task: start,
        };
        load(&["site.yml".to_owned()], &loader, &context)
    }

    fn tasks(text: &str) -> Result<Playbook, Vec<Diagnostic>> {
        load_text(
            &format!("- hosts: all\n  vars: {{weight: 3}}\n  tasks:\n{text}"),
            &[],
            None,
        )
    }

    /// Tasks begin at line 4. Each with the place of its first problem, and what is said of it.
    #[test]
    fn every_mistake_has_its_place_and_its_help() {
        let table = [
            (
                "  - coppy: {content: x, dest: /x}\n",
                "4:5",
                "there is no module and no keyword `coppy`",
                "did you mean `copy`?",
            ),
            (
                "  - copy: {content: x, dset: /x}\n",
                "4:",
                "`copy` has no argument `dset`",
                "did you mean `dest`?",
            ),
            ("  - copy: {content: x}\n", "4:5", "`copy` needs `dest`", ""),
            (
                "  - command: echo x\n    whne: true\n",
                "5:5",
                "a task has no keyword `whne`",
                "did you mean `when`?",
            ),
            (
                "  - whne: true\n",
                "4:5",
                "there is no module and no keyword `whne`",
                "did you mean `when`?",
            ),
            (
                "  - wait_for: {port: eighty}\n",
                "4:22",
                "`port` must be a whole number",
                "",
            ),
            (
                "  - copy: {content: x, dest: /x}\n    command: ls\n",
                "5:5",
                "a task has one module, this one has `copy` and `command`",
                "begin a new task",
            ),
            (
                "  - name: x\n    copy:\n    src: a\n    dest: /b\n",
                "5:5",
                "`copy` needs `dest`",
                "",
            ),
            (
                "  - name: x\n",
                "4:5",
                "a task without a module",
                "add a module",
            ),
            (
                "  - debug: {msg: \"w {{ wieght }}\"}\n",
                "4:24",
                "`wieght` is undefined",
                "did you mean `weight`? (site.yml:2:",
            ),
            (
                "  - command: echo x\n    when: wieght > 2\n",
                "5:11",
                "`wieght` is undefined",
                "did you mean `weight`?",
            ),
            (
                "  - debug: {msg: \"{{ weight | }}\"}\n",
                "4:31",
                "template syntax",
                "",
            ),
            (
                "  - debug: {msg: \"{{ weight | uper }}\"}\n",
                "4:31",
                "there is no filter `uper`",
                "did you mean `upper`?",
            ),
            (
                "  - command: x\n    when: weight is chagned\n",
                "5:21",
                "there is no test `chagned`",
                "did you mean `changed`?",
            ),
            (
                "  - template: {src: nosuch.j2, dest: /x}\n",
                "4:21",
                "there is no file `nosuch.j2`",
                "looked for templates/nosuch.j2",
            ),
            (
                "  - include_tasks: nosuch.yml\n",
                "4:20",
                "there is no file `nosuch.yml`",
                "looked for",
            ),
            (
                "  - import_tasks: loop.yml\n",
                "1:17",
                "loop.yml imports itself",
                "the way round",
            ),
            (
                "  - command: x\n    notify: restrat\n",
                "5:13",
                "there is no handler `restrat`",
                "no handlers",
            ),
            (
                "  - command: x\n    retries: many\n",
                "5:14",
                "`retries` is a whole number, found `many`",
                "",
            ),
            (
                "  - command: x\n    loop: weight\n",
                "5:11",
                "`loop` goes over a list",
                "",
            ),
            (
                "  - command: x\n    with_itmes: [1]\n",
                "5:5",
                "there is no loop `with_itmes`",
                "did you mean `items`?",
            ),
            (
                "  - command: x\n    async: 5\n",
                "5:5",
                "`async` is not supported",
                "",
            ),
            (
                "  - command: x\n    vars: {a-b: 1}\n",
                "5:12",
                "`a-b` is no name for a variable",
                "write `a_b`",
            ),
            (
                "  - rescue: []\n",
                "4:5",
                "`rescue` and `always` belong to a `block`",
                "",
            ),
            (
                "  - just words\n",
                "4:5",
                "a task is a mapping, this is text",
                "is a colon missing after `just`?",
            ),
            (
                "  - template: {src: wrong.j2, dest: /x}\n",
                "2:4",
                "`wieght` is undefined",
                "did you mean `weight`?",
            ),
            (
                "  - template: {src: broken.j2, dest: /x}\n",
                "",
                "template syntax",
                "",
            ),
            (
                "  - meta: flush_handler\n",
                "4:",
                "must be one of",
                "did you mean `flush_handlers`?",
            ),
        ];
        let mut wrong = Vec::new();
        for (text, place, message, help) in table {
            let Err(problems) = tasks(text) else {
                wrong.push(format!("{text}is taken for right"));
                continue;
            };
            let first = &problems[0];
            let at = first
                .origin
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let at = at.split_once(':').map_or("", |(_, at)| at);
            let all_help = first.help.join("\n");
            if !at.starts_with(place)
                || !first.message.contains(message)
                || !all_help.contains(help)
            {
                wrong.push(format!(
                    "{text}   at {at}: {}\n   help: {all_help}",
                    first.message
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn plays_are_checked_too() {
        let table = [
            (
                "- hosts: al\n",
                "1:10",
                "no host or group is called `al`",
                "did you mean `all`?",
            ),
            (
                "- hosts: all\n  tasks:\n    command: ls\n",
                "3:5",
                "tasks are a list",
                "`- command: …`",
            ),
            (
                "- hosts: all\n  tasks: []\n  command: ls\n",
                "3:3",
                "a play has no keyword `command`",
                "indent it",
            ),
            (
                "- hosts: all\n  taks: []\n",
                "2:3",
                "a play has no keyword `taks`",
                "did you mean `tasks`?",
            ),
            (
                "- hosts: all\n  roles: [x]\n",
                "2:3",
                "`roles` is not supported",
                "import_tasks",
            ),
            ("- tasks: []\n", "1:3", "a play has no `hosts`", ""),
            (
                "hosts: all\n",
                "1:1",
                "a playbook is a list of plays",
                "begin each play",
            ),
            (
                "- hosts: all\n  strategy: freee\n",
                "2:13",
                "`strategy` is one of",
                "did you mean `free`?",
            ),
            (
                "- hosts: all\n  serial: few\n",
                "2:11",
                "expected a number of hosts",
                "",
            ),
            (
                "- import_playbook: nosuch.yml\n",
                "1:20",
                "failed to read nosuch.yml",
                "",
            ),
            (
                "- import_playbook: site.yml\n",
                "1:20",
                "site.yml imports itself",
                "",
            ),
        ];
        for (text, place, message, help) in table {
            let problems = load_text(text, &[], None).expect_err(text);
            let first = &problems[0];
            let at = first
                .origin
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert_eq!(at, format!("site.yml:{place}"), "{text}{first:?}");
            assert!(first.message.contains(message), "{text}{}", first.message);
            assert!(
                first.help.join("\n").contains(help),
                "{text}{:?}",
                first.help
            );
        }
    }

    #[test]
    fn all_problems_come_at_once_in_the_order_of_the_file() {
        let problems =
            tasks("  - coppy: {}\n  - debug: {mgs: 1}\n  - command: x\n    when: nope\n")
                .expect_err("three");
        let lines: Vec<usize> = problems
            .iter()
            .filter_map(|problem| Some(problem.origin.as_ref()?.line()))
            .collect();
        assert_eq!(lines, [4, 5, 7]);
    }

    #[test]
    fn tags_and_start_tasks_must_be_there() {
        let text = "- hosts: all\n  tasks:\n  - {name: First, command: x, tags: setup}\n  - include_tasks: more.yml\n    vars: {weight: 1}\n";
        let problem = |tags: &[&str], start| {
            load_text(text, tags, start)
                .expect_err("not there")
                .remove(0)
        };
        assert_eq!(problem(&["setpu"], None).help[0], "did you mean `setup`?");
        assert_eq!(problem(&[], Some("Frist")).help[0], "did you mean `First`?");
        load_text(text, &["setup,inner", "always"], Some("Fir*")).expect("all there");
    }

    #[test]
    fn names_that_may_be_defined_are_let_through() {
        let good = [
            "  - command: x\n    register: out\n  - debug: {msg: \"{{ out.rc }}\"}\n",
            "  - debug: {msg: \"{{ maybe | default(1) }}{{ ansible_hostname }}{{ groups.all }}\"}\n",
            "  - debug: {msg: \"{{ maybe }}\"}\n    when: maybe is defined\n",
            "  - debug: {msg: \"{{ item }}{{ i }}\"}\n    loop: [1]\n    loop_control: {index_var: i}\n",
            "  - include_tasks: \"inc/{{ weight }}.yml\"\n  - debug: {msg: \"{{ from_a }}\"}\n",
            "  - include_tasks: \"none/{{ weight }}.yml\"\n  - debug: {msg: \"{{ who_knows }}\"}\n",
            "  - set_fact: {a: 1}\n  - assert: {that: [a == 1, weight == 3]}\n",
            "  - debug: {msg: \"{% for x in [1] %}{{ x }}{{ loop.index }}{% endfor %}\"}\n",
            "  - debug: {var: whatever}\n",
            "  - template: {src: good.j2, dest: /x}\n",
        ];
        for text in good {
            if let Err(problems) = tasks(text) {
                panic!(
                    "{text}{}",
                    crate::base::diagnostic::render_all(
                        &problems,
                        crate::base::diagnostic::Colour::Never
                    )
                );
            }
        }
    }

    #[test]
    fn braces_in_a_condition_are_a_warning() {
        let playbook =
            tasks("  - command: x\n    when: \"{{ weight == 3 }}\"\n").expect("only a warning");
        assert_eq!(playbook.warnings.len(), 1);
    }

    fn only(playbook: &Playbook) -> &Task {
        playbook.tasks().next().expect("a task")
    }

    #[test]
    fn a_task_has_everything_its_surroundings_hand_down() {
        let playbook = tasks(
            "  - block:\n    - command: chdir=/tmp echo \"a b\" c=d\n      when: b\n      tags: [t2, t1]\n      vars: {v: 2}\n    \
               tags: t1\n    when: weight == 3\n    vars: {v: 1, b: true}\n    become: true\n",
        )
        .expect("good");
        let task = only(&playbook);
        let texts: Vec<_> = task.when.iter().filter_map(Node::as_str).collect();
        assert_eq!(texts, ["weight == 3", "b"]);
        assert_eq!(task.tags, ["t1", "t2"]);
        assert_eq!(task.vars.len(), 2);
        assert_eq!(task.inherited.r#become, Some(Setting::Fixed(true)));
        let Action::Module(Module { name, args }) = &task.action else {
            panic!("a module: {:?}", task.action);
        };
        assert_eq!(name, "command");
        assert_eq!(
            args.free_form.as_ref().and_then(Node::as_str),
            Some("echo \"a b\" c=d")
        );
        assert_eq!(args.named.get("chdir").and_then(Node::as_str), Some("/tmp"));
    }

    #[test]
    fn imports_are_unfolded_and_their_variables_are_as_a_blocks() {
        let playbook = tasks(
            "  - import_tasks: more.yml\n    vars: {weight: 9}\n    tags: outer\n    when: true\n",
        )
        .expect("good");
        let task = only(&playbook);
        assert_eq!(task.tags, ["outer", "inner"]);
        assert_eq!((task.include_params.len(), task.vars.len()), (0, 2));
        assert_eq!(task.when.len(), 1);
        assert_eq!(task.folder, "tasks");
    }

    #[test]
    fn arguments_on_one_line_and_loops() {
        let playbook =
            tasks("  - copy: src=templates/good.j2 dest=\"/a b\"\n    with_items: [1]\n")
                .expect("good");
        let task = only(&playbook);
        let Action::Module(module) = &task.action else {
            panic!("a module")
        };
        assert_eq!(
            module.args.named.get("dest").and_then(Node::as_str),
            Some("/a b")
        );
        assert!(matches!(task.repeat, Some(Loop::With(WithKind::Items, _))));
    }

    #[test]
    fn an_included_file_inherits_variables_and_the_blocks_tags_but_not_the_includes() {
        let playbook = tasks(
            "  - block:\n    - include_tasks: more.yml\n      vars: {weight: 9}\n      tags: own\n    tags: around\n",
        )
        .expect("good");
        let include = only(&playbook);
        let Action::IncludeTasks(spec) = &include.action else {
            panic!("an include")
        };
        let loader = Memory::new(FILES.iter().copied());
        let steps = load_included("more.yml", include, spec, "", &loader).expect("good");
        let task = steps[0].tasks().next().expect("a task");
        assert_eq!(task.tags, ["around", "inner"]);
        assert!(task.include_params[0].get("weight").is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_a_playbook_or_refused(text in "[a-z:{}\\[\\]\\- \n'\"|%]{0,80}") {
            let _ = load_text(&text, &[], None);
            let _ = tasks(&text);
        }
    }
}
