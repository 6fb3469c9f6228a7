//! A playbook that cannot be wrong: what `check` makes of a file.
//!
//! Names of keywords, modules and arguments are settled, static imports are unfolded, and
//! whatever a block or a play hands down to its tasks (conditions, tags, variables,
//! `become`, …) is already written into each [`Task`], so that nobody who runs a task has
//! to look at its surroundings. What only a host can tell stays a [`Node`]: a text in it is
//! a template, to be rendered with that host's variables.

use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, Origin};
use crate::base::yaml::Node;

/// What was given on the command line: the plays of all files in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Playbook {
    pub plays: Vec<Play>,
    /// What is likely wrong but does not keep the playbook from running.
    pub warnings: Vec<Diagnostic>,
}

impl Playbook {
    /// Names of the exercises this one builds on, from the first play's variable
    /// `exercise: {needs: […]}`: plain Ansible, so that ansible-core reads the file too.
    pub fn needs(&self) -> Vec<String> {
        let header = self
            .plays
            .first()
            .and_then(|play| play.vars.get("exercise"));
        let needs = header.and_then(|node| node.get("needs"));
        needs
            .and_then(Node::as_seq)
            .unwrap_or_default()
            .iter()
            .filter_map(|node| node.as_str().map(str::to_owned))
            .collect()
    }

    /// Every check, once each, in the order written.
    pub fn checks(&self) -> Vec<Arc<Check>> {
        checks_of(self.tasks())
    }

    /// Every task of every play, in the order written; handlers after a play's own.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.plays.iter().flat_map(Play::tasks)
    }
}

/// Returns the checks that tasks are parts of, once each, in order.
pub fn checks_of<'task>(tasks: impl Iterator<Item = &'task Task>) -> Vec<Arc<Check>> {
    let mut all: Vec<Arc<Check>> = Vec::new();
    for check in tasks.filter_map(|task| task.check.as_ref()) {
        if !all.iter().any(|each| Arc::ptr_eq(each, check)) {
            all.push(Arc::clone(check));
        }
    }
    all
}

/// Variables of one place, in the order written; the later of two equal names wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vars(pub Vec<(Node, Node)>);

impl Vars {
    pub fn get(&self, name: &str) -> Option<&Node> {
        let found = self
            .0
            .iter()
            .rev()
            .find(|(key, _)| key.as_str() == Some(name));
        found.map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (String, &Node)> {
        self.0.iter().map(|(key, value)| (key.key_text(), value))
    }
}

/// A keyword's value: known when the file is read, or only with a host's variables.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting<T> {
    Fixed(T),
    Template(Node),
}

impl<T: Copy> Setting<T> {
    /// Returns the value when no host is needed to know it.
    pub fn fixed(&self) -> Option<T> {
        match self {
            Self::Fixed(value) => Some(*value),
            Self::Template(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Play {
    /// As written; a template. Without one the play is called by its hosts.
    pub name: Option<Node>,
    /// Host patterns, all of which count together; each a template.
    pub hosts: Vec<Node>,
    pub vars: Vars,
    /// Each a file name (a template) or a list of which the first that exists is read.
    pub vars_files: Vec<Node>,
    pub gather_facts: GatherFacts,
    /// Batch sizes; the last one is used again for the hosts that are left. Empty: all at once.
    pub serial: Vec<Batch>,
    /// More than so many percent of a batch's hosts failed: the play ends.
    pub max_fail_percentage: Option<Setting<f64>>,
    pub any_errors_fatal: bool,
    pub force_handlers: bool,
    pub strategy: Strategy,
    pub order: HostOrder,
    pub pre_tasks: Vec<Step>,
    pub tasks: Vec<Step>,
    pub post_tasks: Vec<Step>,
    pub handlers: Vec<Handler>,
    /// The play's own tags; its tasks have them too.
    pub tags: Vec<String>,
    /// `connection`, `remote_user`, `port` of the play.
    pub connection: Option<Node>,
    pub remote_user: Option<Node>,
    pub port: Option<Node>,
    /// Settings the play's fact gathering runs with; tasks have their own copy.
    pub inherited: Inherited,
    /// Folder of the playbook's file, as the user would type it.
    pub folder: String,
    pub origin: Origin,
}

impl Play {
    /// Every task, also those inside blocks; handlers last.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        let sections = [&self.pre_tasks, &self.tasks, &self.post_tasks];
        let own = sections.into_iter().flatten().flat_map(Step::tasks);
        own.chain(self.handlers.iter().map(|handler| &handler.task))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatherFacts {
    /// Not said: Ansible gathers.
    Default,
    Yes,
    No,
}

/// The size of one batch of hosts.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    Hosts(usize),
    /// Of the play's hosts, rounded down, at least one.
    Percent(f64),
    Template(Node),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Every host ends a task before any begins the next.
    Linear,
    /// Each host at its own pace.
    Free,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOrder {
    Inventory,
    ReverseInventory,
    Sorted,
    ReverseSorted,
    Shuffle,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Task(Box<Task>),
    Block(Box<Block>),
}

impl Step {
    /// Makes all tasks of the step parts of a check.
    pub fn belong_to(&mut self, check: &Arc<Check>) {
        match self {
            Self::Task(task) => task.check = Some(Arc::clone(check)),
            Self::Block(block) => {
                let parts = [&mut block.body, &mut block.rescue, &mut block.always];
                for step in parts.into_iter().flatten() {
                    step.belong_to(check);
                }
            }
        }
    }

    /// Every task of the step, in the order written.
    pub fn tasks(&self) -> Box<dyn Iterator<Item = &Task> + '_> {
        match self {
            Self::Task(task) => Box::new(std::iter::once(task.as_ref())),
            Self::Block(block) => {
                let parts = [&block.body, &block.rescue, &block.always];
                Box::new(parts.into_iter().flatten().flat_map(Self::tasks))
            }
        }
    }
}

/// `block`/`rescue`/`always`. Its conditions, tags, variables… are in its tasks already.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub name: Option<Node>,
    pub body: Vec<Step>,
    pub rescue: Vec<Step>,
    pub always: Vec<Step>,
    pub tags: Vec<String>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Handler {
    pub task: Task,
    /// Topics that notify it besides its own name.
    pub listen: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// As written; a template. Without one the task is called by its action.
    pub name: Option<Node>,
    pub action: Action,
    /// The module's name as written (`ansible.builtin.copy`), for output and messages.
    pub action_name: Node,
    /// Enclosing blocks' and imports' conditions first. All must hold, asked in order.
    pub when: Vec<Node>,
    pub repeat: Option<Loop>,
    pub loop_control: LoopControl,
    pub register: Option<String>,
    /// `until`/`retries`/`delay`; with `retries` alone it goes on until the task succeeds.
    pub retry: Option<Retry>,
    pub changed_when: Option<Vec<Node>>,
    pub failed_when: Option<Vec<Node>>,
    /// Handler names or topics; each a template.
    pub notify: Vec<Node>,
    pub delegate_to: Option<Node>,
    pub delegate_facts: Option<Setting<bool>>,
    pub run_once: Option<Setting<bool>>,
    /// Of the play, the blocks and imports around, and its own; each once.
    pub tags: Vec<String>,
    /// Variables of the blocks around, outermost first, and the task's own last, perhaps empty.
    pub vars: Vec<Vars>,
    /// Variables of the `include_tasks` around, outermost first: they beat `set_fact`
    /// ([`Level::IncludeParams`](super::vars::Level)).
    pub include_params: Vec<Vars>,
    pub connection: Option<Node>,
    pub remote_user: Option<Node>,
    pub inherited: Inherited,
    /// The check of a grade file that the task is (a part of).
    pub check: Option<Arc<Check>>,
    /// Folder of the task's file: relative `src:`, templates and includes are looked for there.
    pub folder: String,
    /// The whole task; its line is the one to name.
    pub origin: Origin,
}

/// What a task or block with `points` is worth, and what is said when it fails. All texts are
/// templates, rendered with the variables of the host where the check failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Names the check in reports and in `needs`; stays when its name is reworded.
    pub id: String,
    pub points: f64,
    /// Checks without which this one means nothing: it is skipped when one of them failed.
    pub needs: Vec<Node>,
    /// A command with which the reader sees it for himself.
    pub see: Option<Node>,
    /// Whether it is a block: its first failure ends it.
    pub is_block: bool,
    /// As the file has it, in English.
    pub wording: Wording,
    /// In other languages, by their codes; what is missing is said in English.
    pub translations: Vec<(String, Wording)>,
    /// Possible causes with what proves them, the most useful first.
    pub causes: Vec<Cause>,
    pub origin: Origin,
}

/// A check's texts in one language.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wording {
    pub name: Option<Node>,
    pub expected: Option<Node>,
    pub found: Option<Node>,
    /// From the idea to the place; none gives the answer.
    pub hints: Vec<Node>,
    /// As many as the check has causes.
    pub causes: Vec<Node>,
}

/// Why a check may have failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// What proves it; all must hold.
    pub when: Vec<Node>,
    pub say: Node,
}

/// Settings that a play or block hands down unless the task says otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inherited {
    pub r#become: Option<Setting<bool>>,
    pub become_user: Option<Node>,
    pub become_method: Option<Node>,
    /// Mappings (or templates of one) of the play, blocks and task, outermost first.
    pub environment: Vec<Node>,
    pub ignore_errors: Option<Setting<bool>>,
    pub ignore_unreachable: Option<Setting<bool>>,
    pub any_errors_fatal: Option<Setting<bool>>,
    pub no_log: Option<Setting<bool>>,
    pub check_mode: Option<Setting<bool>>,
    pub diff: Option<Setting<bool>>,
    /// At most so many hosts at once; 0 is no limit.
    pub throttle: Option<Setting<i64>>,
    /// Seconds; 0 is no limit.
    pub timeout: Option<Setting<i64>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Loop {
    /// `loop`: a list, or a template of one.
    Items(Node),
    /// `with_KIND`.
    With(WithKind, Node),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithKind {
    Items,
    List,
    Dict,
    Nested,
    Together,
    Sequence,
    Subelements,
    Fileglob,
    FirstFound,
    IndexedItems,
    Flattened,
    RandomChoice,
    Lines,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LoopControl {
    pub loop_var: String,
    pub index_var: Option<String>,
    /// A template of what stands for the item in the output.
    pub label: Option<Node>,
    /// Seconds between items.
    pub pause: Option<Setting<f64>>,
    pub extended: bool,
    pub break_when: Vec<Node>,
}

impl Default for LoopControl {
    fn default() -> Self {
        Self {
            loop_var: "item".to_owned(),
            index_var: None,
            label: None,
            pause: None,
            extended: false,
            break_when: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// All must hold for the task to be done; empty: it must not fail.
    pub until: Vec<Node>,
    /// Ansible's default is 3.
    pub retries: Setting<i64>,
    /// Seconds between attempts; Ansible's default is 5.
    pub delay: Setting<f64>,
}

/// What a task does. Everything but [`Action::Module`] is done on the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Module(Module),
    IncludeTasks(IncludeTasks),
    IncludeVars(Args),
    SetFact {
        facts: Vars,
        cacheable: bool,
    },
    Assert {
        that: Vec<Node>,
        fail_msg: Option<Node>,
        success_msg: Option<Node>,
        quiet: Option<Node>,
    },
    Debug {
        show: DebugShow,
        /// Shown from this many `-v` on.
        verbosity: Option<Node>,
    },
    Fail {
        msg: Option<Node>,
    },
    Meta(MetaKind),
    Pause(Args),
    AddHost(Args),
    GroupBy(Args),
}

#[derive(Clone, Debug, PartialEq)]
pub enum DebugShow {
    /// Neither `msg` nor `var`: "Hello world!".
    Greeting,
    Msg(Node),
    /// An expression without braces.
    Var(Node),
}

/// A call of a module from the table `task::kind`.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Short name: `copy`.
    pub name: String,
    pub args: Args,
}

/// Arguments as written; names are checked, values are still templates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    pub named: Vars,
    /// The text after the module's name, for modules that take one (`command: ls /`).
    pub free_form: Option<Node>,
}

/// `include_tasks`: read when it runs, for each host and item on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct IncludeTasks {
    /// A file name; a template.
    pub file: Node,
    /// `apply:` — what the included tasks inherit.
    pub apply: Option<Node>,
    /// Tags of the play and the blocks around it, which the included tasks have too; the
    /// include's own tags only choose whether it happens.
    pub tags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKind {
    Noop,
    FlushHandlers,
    RefreshInventory,
    ClearFacts,
    ClearHostErrors,
    EndPlay,
    EndHost,
    EndBatch,
    ResetConnection,
}
