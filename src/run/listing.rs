//! What `--list-tasks`, `--list-hosts` and `--list-tags` print, in Ansible's shape (pure).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::plan::written_name;
use super::tags::Selection;
use crate::base::yaml::Node;
use crate::playbook::model::{Play, Task};

/// What to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    pub tasks: bool,
    pub hosts: bool,
    pub tags: bool,
}

impl Listing {
    pub fn is_asked_for(self) -> bool {
        self.tasks || self.hosts || self.tags
    }

    /// Describes one play; `number` counts from 1.
    pub fn play(
        self,
        number: usize,
        play: &Play,
        hosts: &[String],
        selection: &Selection,
    ) -> String {
        let patterns: Vec<String> = play.hosts.iter().map(Node::key_text).collect();
        let patterns = patterns.join(",");
        let name = play
            .name
            .as_ref()
            .map_or_else(|| patterns.clone(), Node::key_text);
        let tags = play.tags.join(",");
        let mut text = format!("\n  play #{number} ({patterns}): {name}\tTAGS: [{tags}]\n");
        if self.hosts {
            let count = hosts.len();
            let _ = write!(text, "    pattern: ['{patterns}']\n    hosts ({count}):\n");
            for host in hosts {
                let _ = writeln!(text, "      {host}");
            }
        }
        let sections = [&play.pre_tasks, &play.tasks, &play.post_tasks];
        let steps = sections.into_iter().flatten();
        let tasks: Vec<&Task> = steps
            .flat_map(|step| step.tasks())
            .filter(|task| selection.takes(&task.tags))
            .collect();
        if self.tasks {
            text.push_str("    tasks:\n");
            for task in &tasks {
                let tags: BTreeSet<&str> = task.tags.iter().map(String::as_str).collect();
                let tags: Vec<&str> = tags.into_iter().collect();
                let _ = writeln!(
                    text,
                    "      {}\tTAGS: [{}]",
                    written_name(task),
                    tags.join(", ")
                );
            }
        }
        if self.tags {
            let own = play.tags.iter();
            let tags: BTreeSet<&String> = own
                .chain(tasks.iter().flat_map(|task| &task.tags))
                .collect();
            let tags: Vec<&str> = tags.into_iter().map(String::as_str).collect();
            let _ = writeln!(text, "      TASK TAGS: [{}]", tags.join(", "));
        }
        text
    }
}
