//! Checks: tasks and blocks with `points`, as grade files have them.
//!
//! ```text
//! - name: The page comes from both servers
//!   id: both                    names the check in reports and in other checks' `needs`
//!   points: 4
//!   needs: [vip]                skipped, and said why, when that one failed
//!   http_check: …               any task, or a `block:` of them
//!   expected: six pages, three from each server
//!   found: "{{ pages.msg }}"    without it: what the failed task said
//!   see: halab shell -- curl http://10.0.0.1
//!   causes:                     the most useful first; each with what proves it
//!     - when: "'REDIRECT' not in rules"
//!       say: "{{ inventory_hostname }} has no rule that takes packets for 10.0.0.1"
//!   hint: [the idea, the place]
//!   ro: {name: …, expected: …, found: …, causes: […], hint: […]}
//! ```

use std::sync::Arc;

use super::model::{Action, Cause, Check, LoopControl, MetaKind, Setting, Task, Vars, Wording};
use super::parse::{Outer, Reader, list};
use super::schema::{CHECK, LANGUAGES};
use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::yaml::{Kind, Node};

/// What a translation may hold.
const WORDING: &[&str] = &["causes", "expected", "found", "hint", "name"];
/// What a cause holds.
const CAUSE: &[&str] = &["say", "when"];

impl Reader<'_> {
    /// Returns the check that a task or block is, or the one it is a part of.
    pub(super) fn check(&mut self, node: &Node, outer: Option<&Arc<Check>>) -> Option<Arc<Check>> {
        let Some(points) = node.get("points") else {
            self.refuse_stray(node);
            return outer.cloned();
        };
        if outer.is_some() {
            let problem = Diagnostic::error("a check inside a check").at(&points.origin);
            self.report(problem.help("give the points to the block or to its tasks"));
            return outer.cloned();
        }
        let worth = match self.number(node, "points") {
            Some(Setting::Fixed(worth)) if worth >= 0.0 => worth,
            _ => {
                self.wrong(points, "a number of points");
                0.0
            }
        };
        let Some(id) = node.get("id").and_then(|id| self.text(id)) else {
            let problem = Diagnostic::error("a check without an `id`").at(&node.origin);
            self.report(
                problem.help("add `id:`, a short word that stays when the name is reworded"),
            );
            return None;
        };
        let causes = node
            .get("causes")
            .map(list)
            .unwrap_or_default()
            .iter()
            .filter_map(|cause| self.cause(cause))
            .collect();
        let mut check = Check {
            id,
            points: worth,
            needs: node.get("needs").map(list).unwrap_or_default(),
            see: node.get("see").cloned(),
            is_block: node.get("block").is_some(),
            wording: Wording {
                name: node.get("name").cloned(),
                expected: node.get("expected").cloned(),
                found: node.get("found").cloned(),
                hints: node.get("hint").map(list).unwrap_or_default(),
                causes: Vec::new(),
            },
            translations: Vec::new(),
            causes,
            origin: node.origin.clone(),
        };
        if check.wording.name.is_none() {
            self.report(Diagnostic::error("a check without a name").at(&node.origin));
        }
        for language in LANGUAGES {
            if let Some(words) = node.get(language) {
                let wording = self.wording(words, &check);
                check.translations.push(((*language).to_owned(), wording));
            }
        }
        Some(Arc::new(check))
    }

    /// Words of a check on a task without points would be silently useless.
    fn refuse_stray(&mut self, node: &Node) {
        for (key, _) in node.as_map().unwrap_or_default() {
            let name = key.key_text();
            if CHECK.contains(&name.as_str()) || LANGUAGES.contains(&name.as_str()) {
                let problem = Diagnostic::error(format!("`{name}` without `points`"));
                self.report(
                    problem
                        .at(&key.origin)
                        .label("belongs to a check")
                        .help("a task or block becomes a check by `points:`"),
                );
            }
        }
    }

    fn cause(&mut self, node: &Node) -> Option<Cause> {
        self.only(node, CAUSE, "a cause");
        let say = node.get("say");
        if say.is_none() {
            let problem = Diagnostic::error("a cause without `say`").at(&node.origin);
            self.report(problem.help("write `- when: what proves it` and `say: what it means`"));
        }
        Some(Cause {
            when: self.conditions(node, "when").unwrap_or_default(),
            say: say?.clone(),
        })
    }

    fn wording(&mut self, node: &Node, check: &Check) -> Wording {
        self.only(node, WORDING, "a translation");
        let causes = node.get("causes").map(list).unwrap_or_default();
        if !causes.is_empty() && causes.len() != check.causes.len() {
            let problem = Diagnostic::error(format!(
                "{} causes are translated, the check has {}",
                causes.len(),
                check.causes.len()
            ));
            self.report(problem.at(&node.origin));
        }
        Wording {
            name: node.get("name").cloned(),
            expected: node.get("expected").cloned(),
            found: node.get("found").cloned(),
            hints: node.get("hint").map(list).unwrap_or_default(),
            causes,
        }
    }

    fn only(&mut self, node: &Node, known: &[&str], what: &str) {
        let Some(entries) = node.as_map() else {
            self.wrong(node, "a mapping");
            return;
        };
        for (key, _) in entries {
            let name = key.key_text();
            if !known.contains(&name.as_str()) {
                let problem = Diagnostic::error(format!("{what} has no `{name}`")).at(&key.origin);
                self.report(match nearest(&name, known.iter().copied()) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem.help(format!("it has {}", known.join(", "))),
                });
            }
        }
    }
}

/// The task that takes a host out of a check that failed: it does nothing.
pub(super) fn noop(check: &Arc<Check>, inner: &Outer) -> Task {
    Task {
        name: None,
        action: Action::Meta(MetaKind::Noop),
        action_name: Node {
            origin: check.origin.clone(),
            kind: Kind::Str("meta".to_owned()),
        },
        when: Vec::new(),
        repeat: None,
        loop_control: LoopControl::default(),
        register: None,
        retry: None,
        changed_when: None,
        failed_when: None,
        notify: Vec::new(),
        delegate_to: None,
        delegate_facts: None,
        run_once: None,
        tags: inner.tags.clone(),
        vars: vec![Vars::default()],
        include_params: Vec::new(),
        connection: None,
        remote_user: None,
        inherited: inner.inherited.clone(),
        check: Some(Arc::clone(check)),
        folder: inner.folder.clone(),
        origin: check.origin.clone(),
    }
}

/// What is wrong with a playbook's checks together: ids given twice, needs of nothing.
pub(super) fn check_checks(checks: &[Arc<Check>]) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        let before = &checks[..index];
        if let Some(first) = before.iter().find(|each| each.id == check.id) {
            let problem = Diagnostic::error(format!("two checks have the id `{}`", check.id));
            problems.push(
                problem
                    .at(&check.origin)
                    .related(&first.origin, "the first"),
            );
        }
        for need in &check.needs {
            let id = need.key_text();
            if !before.iter().any(|each| each.id == id) {
                let known = before.iter().map(|each| each.id.as_str());
                let problem =
                    Diagnostic::error(format!("no check before this one has the id `{id}`"));
                problems.push(problem.at(&need.origin).nearest(&id, known));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use crate::playbook::files::Memory;
    use crate::playbook::inventory::Inventory;
    use crate::playbook::model::Playbook;
    use crate::playbook::vars::Layer;
    use crate::playbook::{Context, load};

    fn read(tasks: &str) -> Result<Playbook, String> {
        let text = format!("- hosts: localhost\n  gather_facts: false\n  tasks:\n{tasks}");
        let memory = Memory::new([("grade.yml", text.as_str()), ("hosts", "localhost\n")]);
        let inventory = Inventory::load(&["hosts".to_owned()], &memory).expect("an inventory");
        let context = Context {
            inventory: &inventory,
            extra: &Layer::default(),
            limit: &[],
            tags: &[],
            skip_tags: &[],
            start_at_task: None,
        };
        load(&["grade.yml".to_owned()], &memory, &context).map_err(|problems| {
            problems
                .iter()
                .map(|problem| problem.message.clone())
                .collect::<Vec<_>>()
                .join("; ")
        })
    }

    #[test]
    fn a_task_and_a_block_become_checks() {
        let playbook = read(
            "    - {name: One, id: one, points: 2, ping: {}}
    - name: Two
      id: two
      points: 2.5
      needs: [one]
      hint: [idea, place]
      causes: [{when: true, say: because}]
      ro: {name: Doi, causes: [fiindcă]}
      block:
        - ping: {}
        - ping: {}
",
        )
        .expect("sound");
        let checks = playbook.checks();
        let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids, ["one", "two"]);
        assert!(checks[1].is_block && checks[1].points > 2.4);
        assert_eq!(checks[1].wording.hints.len(), 2);
        assert_eq!(checks[1].translations[0].1.causes.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_check_is_said() {
        for (tasks, said) in [
            ("    - {name: a, points: 1, ping: {}}\n", "without an `id`"),
            (
                "    - {name: a, hint: b, ping: {}}\n",
                "`hint` without `points`",
            ),
            (
                "    - {name: a, id: a, points: many, ping: {}}\n",
                "a number of points",
            ),
            (
                "    - {name: a, id: a, points: 1, ping: {}}\n    - {name: b, id: a, points: 1, ping: {}}\n",
                "two checks have the id `a`",
            ),
            (
                "    - {name: a, id: a, points: 1, needs: [b], ping: {}}\n",
                "no check before this one has the id `b`",
            ),
            (
                "    - {name: a, id: a, points: 1, ping: {}, causes: [{wenn: true, say: x}]}\n",
                "a cause has no `wenn`",
            ),
            (
                "    - {name: a, id: a, points: 1, ping: {}, causes: [{when: true, say: x}], ro: {causes: [y, z]}}\n",
                "2 causes are translated, the check has 1",
            ),
            (
                "    - {name: a, id: a, points: 1, ping: {}, found: '{{ nothing_has_it }}'}\n",
                "`nothing_has_it` is undefined",
            ),
        ] {
            let problem = read(tasks).expect_err(tasks);
            assert!(problem.contains(said), "{tasks}: {problem}");
        }
    }
}
