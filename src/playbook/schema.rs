//! The keywords of plays, blocks and tasks: which there are, and what to say of those
//! that Ansible knows and this language does not.

use crate::base::diagnostic::Diagnostic;
use crate::base::yaml::Node;
use crate::task::kind;

/// Where a keyword stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Play,
    Block,
    Task,
    Handler,
}

/// Keywords that plays, blocks and tasks share.
const SHARED: &[&str] = &[
    "any_errors_fatal",
    "become",
    "become_exe",
    "become_flags",
    "become_method",
    "become_user",
    "check_mode",
    "collections",
    "connection",
    "diff",
    "environment",
    "ignore_errors",
    "ignore_unreachable",
    "name",
    "no_log",
    "port",
    "remote_user",
    "run_once",
    "tags",
    "throttle",
    "timeout",
    "vars",
];

const PLAY: &[&str] = &[
    "fact_path",
    "force_handlers",
    "gather_facts",
    "gather_subset",
    "gather_timeout",
    "handlers",
    "hosts",
    "max_fail_percentage",
    "order",
    "post_tasks",
    "pre_tasks",
    "serial",
    "strategy",
    "tasks",
    "vars_files",
];

const BLOCK: &[&str] = &[
    "always",
    "block",
    "delegate_facts",
    "delegate_to",
    "notify",
    "rescue",
    "when",
];

const TASK: &[&str] = &[
    "action",
    "args",
    "changed_when",
    "delay",
    "delegate_facts",
    "delegate_to",
    "failed_when",
    "loop",
    "loop_control",
    "notify",
    "register",
    "retries",
    "until",
    "when",
];

/// Keywords of a grade file's checks: tasks and blocks with `points`.
pub(super) const CHECK: &[&str] = &[
    "causes", "expected", "found", "hint", "id", "needs", "points", "see",
];

/// Languages a check can be worded in besides English.
pub(super) const LANGUAGES: &[&str] = &["ro"];

/// What Ansible knows and this language does not, and the way round.
const MISSING: &[(&str, &str)] = &[
    (
        "roles",
        "put the role's tasks into a file and use import_tasks, its variables into vars_files",
    ),
    (
        "include_role",
        "put the role's tasks into a file and use include_tasks",
    ),
    (
        "import_role",
        "put the role's tasks into a file and use import_tasks",
    ),
    (
        "local_action",
        "write the module as usual and add `delegate_to: localhost`",
    ),
    (
        "async",
        "let the command go to the background itself, or use wait_for",
    ),
    ("poll", "tasks are always waited for"),
    (
        "module_defaults",
        "write the arguments out, or keep them in a variable with `args`",
    ),
    ("vars_prompt", "give the variables with -e name=value"),
    ("debugger", "run with --step"),
];

/// Every keyword of a place.
pub(super) fn keywords(place: Place) -> Vec<&'static str> {
    let own: &[&str] = match place {
        Place::Play => PLAY,
        Place::Block => BLOCK,
        Place::Task | Place::Handler => TASK,
    };
    let mut all: Vec<&str> = own.iter().chain(SHARED).copied().collect();
    if place != Place::Play {
        all.extend(CHECK.iter().copied().chain(LANGUAGES.iter().copied()));
    }
    if place == Place::Handler {
        all.push("listen");
    }
    all
}

/// Whether a key is a keyword of a place (`with_items` and its kin are a task's).
pub(super) fn is_keyword(place: Place, key: &str) -> bool {
    let looped = matches!(place, Place::Task | Place::Handler) && key.starts_with("with_");
    looped || keywords(place).contains(&key)
}

/// A keyword of Ansible that is not one here.
pub(super) fn missing(key: &Node) -> Option<Diagnostic> {
    let name = key.key_text();
    let (_, way) = MISSING.iter().find(|(missing, _)| *missing == name)?;
    Some(
        Diagnostic::error(format!("`{name}` is not supported"))
            .at(&key.origin)
            .label("Ansible knows it, halab does not")
            .help(*way),
    )
}

/// A play's key that is no keyword: often a task with a wrong indent.
pub(super) fn unknown_in_play(key: &Node) -> Diagnostic {
    let name = key.key_text();
    let problem = Diagnostic::error(format!("a play has no keyword `{name}`")).at(&key.origin);
    if is_keyword(Place::Task, &name) || name == "block" {
        return problem
            .label("this is a task's keyword")
            .help("indent it so that it stands under its task's `- name`");
    }
    if kind::lookup(&name).is_some() {
        return problem
            .label("this is a module")
            .help("indent it so that it stands under its task's `- name`, below `tasks:`");
    }
    let known = keywords(Place::Play);
    match crate::base::diagnostic::nearest(&name, known.iter().copied()) {
        Some(near) => problem
            .label("not a keyword")
            .help(format!("did you mean `{near}`?")),
        None => problem
            .label("not a keyword")
            .help("a play has hosts, vars, tasks, handlers, …"),
    }
}

/// A task's key that is neither keyword nor module. `module`: the one the task has.
pub(super) fn unknown_in_task(
    key: &Node,
    place: Place,
    module: Option<&'static kind::ModuleSpec>,
) -> Diagnostic {
    let name = key.key_text();
    let known = keywords(place);
    let near = crate::base::diagnostic::nearest(&name, known.iter().copied());
    let Some(module) = module else {
        let problem = Diagnostic::error(format!("there is no module and no keyword `{name}`"))
            .at(&key.origin)
            .label("neither module nor keyword");
        return match (kind::nearest_name(&name), near) {
            (Some(module), Some(keyword))
                if likeness(&name, keyword) > likeness(&name, &module) =>
            {
                problem.help(format!("did you mean `{keyword}`?"))
            }
            (Some(module), _) => problem.help(format!("did you mean `{module}`?")),
            (None, Some(keyword)) => problem.help(format!("did you mean `{keyword}`?")),
            (None, None) => problem.help("a task names one module, such as `command:` or `copy:`"),
        };
    };
    let problem = Diagnostic::error(format!("a task has no keyword `{name}`")).at(&key.origin);
    if module.arg(&name).is_some() {
        return problem
            .label(format!("this is an argument of `{}`", module.name))
            .help(format!(
                "indent it so that it stands below `{}:`",
                module.name
            ));
    }
    match near {
        Some(near) => problem
            .label("not a keyword")
            .help(format!("did you mean `{near}`?")),
        None => problem.label("not a keyword"),
    }
}

fn likeness(typed: &str, known: &str) -> f64 {
    strsim::jaro_winkler(typed, known)
}
