//! What an exercise says of itself in its first play: `exercise: {title, points, needs, choices}`.
//!
//! Plain variables, so that ansible-core reads the file too. `needs` names the exercises it
//! builds on; `choices` names what may be chosen with `-e` and matters to whoever builds on
//! this exercise, each rendered with the play's variables.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{SourceLoader, join};
use super::inventory::variables_file;
use super::model::{Play, Playbook};
use super::render::Renderer;
use super::vars::{Known, Level, Scope, written};
use crate::base::diagnostic::Diagnostic;
use crate::base::yaml::Node;

/// What was chosen, by the choice's name.
pub type Choices = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exercise {
    pub name: String,
    pub title: String,
    /// The exercises this one names, not those that they build on.
    pub needs: Vec<String>,
    pub choices: Choices,
}

/// An exercise that stands on the machines, and what was chosen for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub name: String,
    pub choices: Choices,
}

impl Done {
    /// Returns what is typed after `-e` to choose the same again.
    pub fn typed(&self) -> Vec<String> {
        let variable = |(name, value): (&String, &String)| {
            match serde_json::from_str(value) {
                // Each node its own.
                Ok(chosen @ (Value::Object(_) | Value::Array(_))) => {
                    serde_json::json!({ name: chosen }).to_string()
                }
                _ => format!("{name}={value}"),
            }
        };
        self.choices.iter().map(variable).collect()
    }
}

impl Exercise {
    /// Reads the header of an exercise's playbook. `exercises` are the names there are.
    pub fn read(
        name: &str,
        playbook: &Playbook,
        exercises: &[String],
        renderer: &Renderer,
        known: &Arc<Known>,
        loader: &dyn SourceLoader,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut exercise = Self {
            name: name.to_owned(),
            title: name.to_owned(),
            needs: Vec::new(),
            choices: Choices::new(),
        };
        let Some(play) = playbook.plays.first() else {
            return Ok(exercise);
        };
        let scope = scope(play, renderer, known, loader)?;
        let header = play.vars.get("exercise");
        let part = |key: &str| header.and_then(|header| header.get(key));
        if let Some(title) = part("title") {
            exercise.title = renderer.text(title, &scope).map_err(one)?;
        }
        for need in part("needs").and_then(Node::as_seq).unwrap_or_default() {
            let needed = renderer.text(need, &scope).map_err(one)?;
            if !exercises.contains(&needed) {
                let known = exercises.iter().map(String::as_str);
                let problem = Diagnostic::error(format!("there is no exercise `{needed}`"))
                    .at(&need.origin)
                    .label("needed here")
                    .nearest(&needed, known);
                return Err(vec![problem]);
            }
            exercise.needs.push(needed);
        }
        match part("choices") {
            Some(choices) => {
                for (key, value) in choices.as_map().unwrap_or_default() {
                    let chosen = renderer.node(value, &scope).map_err(one)?;
                    exercise.choices.insert(key.key_text(), word(&chosen));
                }
            }
            // The choice that every exercise has.
            None => {
                if let Some(tools) = renderer.variable("tools", &scope).map_err(one)? {
                    exercise.choices.insert("tools".to_owned(), word(&tools));
                }
            }
        }
        Ok(exercise)
    }

    /// What is written down once it stands.
    pub fn done(&self) -> Done {
        Done {
            name: self.name.clone(),
            choices: self.choices.clone(),
        }
    }
}

fn one(problem: Diagnostic) -> Vec<Diagnostic> {
    vec![problem]
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first play's variables, its files' among them.
fn scope(
    play: &Play,
    renderer: &Renderer,
    known: &Arc<Known>,
    loader: &dyn SourceLoader,
) -> Result<Scope, Vec<Diagnostic>> {
    let mut scope = Scope::new(known, "").with(Level::PlayVars, written(&play.vars));
    for node in &play.vars_files {
        let names = match node.as_seq() {
            Some(names) => names.to_vec(),
            None => vec![node.clone()],
        };
        for name in &names {
            let path = join(&play.folder, &renderer.text(name, &scope).map_err(one)?);
            if loader.is_file(&path) {
                let entries = variables_file(&path, loader).map_err(one)?;
                scope = scope.with(Level::VarsFiles, Arc::new(entries.into_iter().collect()));
                break;
            }
        }
    }
    Ok(scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::files::Memory;
    use crate::playbook::inventory::Inventory;
    use crate::playbook::vars::extra;
    use crate::playbook::{Context, load};

    const FILES: &[(&str, &str)] = &[
        ("vars/all.yml", "tools: agent\nreplication: '{{ tools }}'\n"),
        (
            "04.yml",
            "- hosts: localhost\n  vars_files: [vars/all.yml]\n  vars:\n    exercise:\n      title: DRBD\n      \
             needs: [03-ha]\n      choices: {replication: '{{ replication }}'}\n  tasks: []\n",
        ),
        (
            "03-ha.yml",
            "- hosts: localhost\n  vars_files: [vars/all.yml]\n  tasks: []\n",
        ),
    ];

    fn read(name: &str, typed: &[&str], exercises: &[&str]) -> Result<Exercise, Vec<Diagnostic>> {
        let loader: Arc<dyn SourceLoader> = Arc::new(Memory::new(FILES.iter().copied()));
        let inventory = Inventory::load(&["localhost,".to_owned()], &*loader)?;
        let typed: Vec<String> = typed.iter().map(|each| (*each).to_owned()).collect();
        let extra = extra(&typed, &*loader)?;
        let context = Context {
            inventory: &inventory,
            extra: &extra,
            limit: &[],
            tags: &[],
            skip_tags: &[],
            start_at_task: None,
        };
        let playbook = load(&[format!("{name}.yml")], &*loader, &context)?;
        let known = Arc::new(Known::new(&inventory, extra, "", &*loader)?);
        let renderer = Renderer::new(Arc::clone(&loader), 0);
        let exercises: Vec<String> = exercises.iter().map(|each| (*each).to_owned()).collect();
        Exercise::read(name, &playbook, &exercises, &renderer, &known, &*loader)
    }

    #[test]
    fn choices_are_what_the_play_would_see() {
        let plain = read("04", &[], &["03-ha", "04"]).expect("read");
        assert_eq!(plain.needs, ["03-ha"]);
        assert_eq!(plain.choices["replication"], "agent");
        let typed = read("04", &["tools=native"], &["03-ha", "04"]).expect("read");
        assert_eq!(typed.choices["replication"], "native");
        let mixed = read("04", &["replication=native"], &["03-ha", "04"]).expect("read");
        assert_eq!(mixed.choices["replication"], "native");
    }

    #[test]
    fn what_was_chosen_can_be_typed_again() {
        for typed in [
            "replication=native",
            "{\"replication\": {\"a\": \"native\", \"b\": \"agent\"}}",
        ] {
            let first = read("04", &[typed], &["03-ha", "04"]).expect("read");
            let again = first.done().typed();
            assert_eq!(again.len(), 1);
            let second = read("04", &[&again[0]], &["03-ha", "04"]).expect("read");
            assert_eq!(first.choices, second.choices, "{again:?}");
        }
    }

    #[test]
    fn without_a_header_the_tools_are_the_choice() {
        let exercise = read("03-ha", &["tools=native"], &["03-ha"]).expect("read");
        assert_eq!(exercise.choices["tools"], "native");
        assert!(exercise.needs.is_empty());
    }

    #[test]
    fn a_need_that_is_no_exercise_is_said_with_its_place() {
        let problems = read("04", &[], &["04", "03-linux-ha"]).expect_err("refused");
        assert!(problems[0].message.contains("no exercise `03-ha`"));
        assert!(problems[0].origin.is_some());
    }
}
