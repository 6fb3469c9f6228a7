//! A play as a list of slots in the order its tasks may run.
//!
//! Blocks are flattened: a slot knows the blocks around it and the part of each it is in,
//! body before rescue before always. What a host does next is then a matter of walking
//! forward ([`Schedule`](super::schedule::Schedule)). Tags and `--start-at-task` are
//! settled here; conditions are the host's own affair.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::tags::Selection;
use crate::playbook::model::{Block, GatherFacts, Play, Step, Task};
use crate::playbook::vars::Layer;

/// A block of one play; numbers are given in the order blocks are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId(pub usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Body,
    Rescue,
    Always,
}

/// Blocks around a slot, outermost first.
pub type Path = Vec<(BlockId, Part)>;

#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub work: Work,
    pub path: Path,
    /// Only these hosts meet it (it was included for them); `None`: all.
    pub only: Option<BTreeSet<String>>,
    /// Variables that the includes around gave, outermost first.
    pub params: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    GatherFacts,
    Task(Arc<Task>),
    /// The end of a section: notified handlers run, with `force_handlers` also those of
    /// failed hosts.
    Flush,
}

/// What the command line left of a play.
#[derive(Debug)]
pub struct Filter<'run> {
    pub tags: &'run Selection,
    /// `--start-at-task`: name or shell pattern; `None` once it was found.
    pub start_at: Option<&'run str>,
}

/// A play's slots, and whether the start task was among them.
#[derive(Debug, PartialEq)]
pub struct Plan {
    pub slots: Vec<Slot>,
    pub found_start: bool,
    /// Numbers from here on are free for included blocks.
    pub blocks: usize,
}

impl Plan {
    pub fn new(play: &Play, gathers_by_default: bool, filter: &Filter<'_>) -> Self {
        let mut flat = Flattener {
            tags: filter.tags,
            slots: Vec::new(),
            blocks: 0,
            params: Vec::new(),
        };
        let gathers = match play.gather_facts {
            GatherFacts::Yes => true,
            GatherFacts::No => false,
            GatherFacts::Default => gathers_by_default,
        };
        // Gathering belongs to every selection unless the play is tagged itself.
        let gather_tags = if play.tags.is_empty() {
            vec!["always".to_owned()]
        } else {
            play.tags.clone()
        };
        if gathers && filter.tags.takes(&gather_tags) {
            flat.push(Work::GatherFacts, &Path::new());
        }
        for section in [&play.pre_tasks, &play.tasks, &play.post_tasks] {
            flat.steps(section, &Path::new());
            flat.push(Work::Flush, &Path::new());
        }
        let mut plan = Self {
            slots: flat.slots,
            found_start: filter.start_at.is_none(),
            blocks: flat.blocks,
        };
        if let Some(pattern) = filter.start_at {
            plan.start_at(pattern);
        }
        plan
    }

    /// Leaves out everything before the first task of this name.
    fn start_at(&mut self, pattern: &str) {
        let is_start = |slot: &Slot| match &slot.work {
            Work::Task(task) => name_matches(pattern, &written_name(task)),
            _ => false,
        };
        let start = self.slots.iter().position(is_start);
        self.found_start = start.is_some();
        let start = start.unwrap_or(self.slots.len());
        let mut index = 0;
        self.slots.retain(|slot| {
            let before = index < start;
            index += 1;
            !(before && matches!(slot.work, Work::Task(_)))
        });
        if !self.found_start {
            self.slots.clear();
        }
    }
}

/// Flattens the steps an `include_tasks` read, to stand inside `path`.
pub fn included(
    steps: &[Step],
    path: &Path,
    blocks: &mut usize,
    tags: &Selection,
    hosts: &BTreeSet<String>,
    params: &[Layer],
) -> Vec<Slot> {
    let mut flat = Flattener {
        tags,
        slots: Vec::new(),
        blocks: *blocks,
        params: params.to_vec(),
    };
    flat.steps(steps, path);
    *blocks = flat.blocks;
    for slot in &mut flat.slots {
        slot.only = Some(hosts.clone());
    }
    flat.slots
}

/// A task's name as it was written, or its action.
pub fn written_name(task: &Task) -> String {
    let name = task.name.as_ref().unwrap_or(&task.action_name);
    name.as_str().map_or_else(|| name.key_text(), str::to_owned)
}

struct Flattener<'run> {
    tags: &'run Selection,
    slots: Vec<Slot>,
    blocks: usize,
    params: Vec<Layer>,
}

impl Flattener<'_> {
    fn push(&mut self, work: Work, path: &Path) {
        self.slots.push(Slot {
            work,
            path: path.clone(),
            only: None,
            params: self.params.clone(),
        });
    }

    fn steps(&mut self, steps: &[Step], path: &Path) {
        for step in steps {
            match step {
                Step::Task(task) => self.task(task, path),
                Step::Block(block) => self.block(block, path),
            }
        }
    }

    fn task(&mut self, task: &Task, path: &Path) {
        if !self.tags.takes(&task.tags) {
            return;
        }
        self.push(Work::Task(Arc::new(task.clone())), path);
    }

    fn block(&mut self, block: &Block, path: &Path) {
        let id = BlockId(self.blocks);
        self.blocks += 1;
        let parts = [
            (Part::Body, &block.body),
            (Part::Rescue, &block.rescue),
            (Part::Always, &block.always),
        ];
        for (part, steps) in parts {
            let mut inner = path.clone();
            inner.push((id, part));
            self.steps(steps, &inner);
        }
    }
}

/// Shell patterns as `fnmatch`: `*`, `?`; anything else stands for itself.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    fn matches(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => {
                matches(&pattern[1..], name) || (!name.is_empty() && matches(pattern, &name[1..]))
            }
            (Some('?'), Some(_)) => matches(&pattern[1..], &name[1..]),
            (Some(wanted), Some(found)) if wanted == found => matches(&pattern[1..], &name[1..]),
            _ => false,
        }
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    pattern == name || matches(&pattern, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_patterns_are_fnmatch() {
        assert!(name_matches("install *", "install web server"));
        assert!(name_matches("a?c", "abc"));
        assert!(!name_matches("install", "install web server"));
        assert!(name_matches("what*?", "what*?"));
    }
}
