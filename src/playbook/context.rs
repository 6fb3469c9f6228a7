//! A host's variables as minijinja sees them: rendered when they are asked for.
//!
//! A variable may be a template that names others, and so on; each is rendered at the
//! moment its value is needed, as in Ansible, so an undefined name in a value nobody uses
//! does no harm. A [`Trail`] of the texts being rendered finds variables that name themselves.

use std::sync::{Arc, Mutex};

use minijinja::Error;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde_json::{Map, Value as Json};

use super::problem::Problem;
use super::render::{self, Core};
use super::template;
use super::value::{self, Omit};
use super::vars::{Scope, Variable};
use crate::base::diagnostic::{Diagnostic, Origin};
use crate::base::yaml::{Kind, Node};

/// Variables may name variables so deep.
const DEPTH_MAX: usize = 64;

/// The name under which lookups find the context they were called in.
pub(super) const SELF: &str = "__context";

/// One host's variables during one rendering.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub core: Arc<Core>,
    pub scope: Scope,
    /// Where relative files are looked for: the task's folder, then the playbook's.
    pub folders: Arc<Vec<String>>,
    trail: Option<Arc<Trail>>,
    /// Names that came out undefined because something they name is; with the reason.
    pub notes: Arc<Mutex<Vec<(String, Diagnostic)>>>,
}

/// The texts being rendered, innermost first.
#[derive(Debug)]
struct Trail {
    origin: Origin,
    host: Arc<str>,
    depth: usize,
    outer: Option<Arc<Self>>,
}

impl Context {
    pub(super) fn new(core: &Arc<Core>, scope: &Scope, folders: &[&str]) -> Self {
        let mut folders: Vec<String> = folders.iter().map(|&folder| folder.to_owned()).collect();
        let last = scope.playbook_folder();
        if !folders.iter().any(|folder| folder == last) {
            folders.push(last.to_owned());
        }
        Self {
            core: Arc::clone(core),
            scope: scope.clone(),
            folders: Arc::new(folders),
            trail: None,
            notes: Arc::default(),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        Value::from_object(self.clone())
    }

    /// The value of a variable; `None` when it is not defined.
    pub(super) fn lookup(&self, name: &str) -> Option<Value> {
        match self.scope.get(name)? {
            Variable::Found(json) => Some(value::from_json(json)),
            Variable::Written(node) => self.defined(name, node),
        }
    }

    /// Renders a text, one level deeper; a text inside its own rendering defines itself.
    fn text(&self, text: &str, origin: &Origin) -> Result<Value, Problem> {
        let mut outer = self.trail.as_deref();
        while let Some(trail) = outer {
            if trail.origin == *origin && trail.host == self.scope.host {
                return Err(Problem::from(
                    Diagnostic::error("the variable is defined by itself").at(origin),
                ));
            }
            outer = trail.outer.as_deref();
        }
        let depth = self.trail.as_ref().map_or(0, |trail| trail.depth + 1);
        if depth > DEPTH_MAX {
            return Err(Problem::from(
                Diagnostic::error(format!(
                    "variables name variables more than {DEPTH_MAX} deep"
                ))
                .at(origin),
            ));
        }
        let trail = Trail {
            origin: origin.clone(),
            host: Arc::clone(&self.scope.host),
            depth,
            outer: self.trail.clone(),
        };
        let inner = Self {
            trail: Some(Arc::new(trail)),
            ..self.clone()
        };
        self.core.text(text, origin, &inner)
    }

    /// A value that may turn out undefined; then the reason is noted under its name.
    fn defined(&self, name: &str, node: &Node) -> Option<Value> {
        match self.lazy(node) {
            Ok(value) => Some(value),
            Err(Problem {
                undefined: true,
                diagnostic,
            }) => {
                if let Ok(mut notes) = self.notes.lock() {
                    notes.push((name.to_owned(), *diagnostic));
                }
                None
            }
            Err(problem) => Some(Value::from(problem.into_error())),
        }
    }

    /// Renders texts; lists and mappings stay templates until their parts are asked for.
    pub(super) fn lazy(&self, node: &Node) -> Result<Value, Problem> {
        match &node.kind {
            Kind::Str(text) if template::is_template(text) => self.text(text, &node.origin),
            Kind::Seq(_) | Kind::Map(_) if has_template(node) => Ok(Value::from_object(Lazy {
                node: node.clone(),
                context: self.clone(),
            })),
            _ => Ok(value_of(node)),
        }
    }

    /// Renders a whole tree. `None`: it is `omit`.
    pub(super) fn tree(&self, node: &Node) -> Result<Option<Json>, Problem> {
        match &node.kind {
            Kind::Seq(items) => {
                let mut rendered = Vec::with_capacity(items.len());
                for item in items {
                    rendered.extend(self.tree(item)?);
                }
                Ok(Some(Json::Array(rendered)))
            }
            Kind::Map(entries) => {
                let mut rendered = Map::new();
                for (key, value) in entries {
                    if let Some(value) = self.tree(value)? {
                        rendered.insert(self.key(key)?, value);
                    }
                }
                Ok(Some(Json::Object(rendered)))
            }
            Kind::Str(text) if template::is_template(text) => {
                let value = self.text(text, &node.origin)?;
                value::to_json(&value)
                    .map_err(|error| render::unfinished(&error, text, &node.origin, self))
            }
            _ => Ok(Some(node.to_json())),
        }
    }

    fn key(&self, key: &Node) -> Result<String, Problem> {
        match &key.kind {
            Kind::Str(text) if template::is_template(text) => {
                Ok(self.text(text, &key.origin)?.to_string())
            }
            _ => Ok(key.key_text()),
        }
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "omit" => Some(Value::from_object(Omit)),
            "hostvars" => Some(Value::from_object(Hosts {
                context: Self::clone(self),
            })),
            "vars" if self.scope.get("vars").is_none() => Some(Value::from_object(Variables {
                context: Self::clone(self),
            })),
            SELF => Some(Value::from_dyn_object(Arc::clone(self))),
            name => self.lookup(name),
        }
    }
}

/// A list or mapping with templates in it.
#[derive(Debug)]
pub(super) struct Lazy {
    node: Node,
    context: Context,
}

impl Lazy {
    pub(super) fn to_json(&self) -> Result<Option<Json>, Error> {
        self.context.tree(&self.node).map_err(Problem::into_error)
    }

    fn part(&self, name: &str, node: &Node) -> Value {
        self.context.defined(name, node).unwrap_or(Value::UNDEFINED)
    }
}

impl Object for Lazy {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.node.kind {
            Kind::Map(_) => ObjectRepr::Map,
            _ => ObjectRepr::Seq,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match &self.node.kind {
            Kind::Seq(items) => {
                let item = items.get(key.as_usize()?)?;
                Some(self.part(&key.to_string(), item))
            }
            Kind::Map(entries) => {
                let wanted = key.to_string();
                let (name, value) = entries.iter().find(|(name, _)| {
                    let name = self.context.key(name);
                    name.is_ok_and(|name| name == wanted)
                })?;
                Some(self.part(&name.key_text(), value))
            }
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.node.kind {
            Kind::Seq(items) => Enumerator::Seq(items.len()),
            Kind::Map(entries) => Enumerator::Values(
                entries
                    .iter()
                    .map(|(key, _)| match self.context.key(key) {
                        Ok(key) => Value::from(key),
                        Err(problem) => Value::from(problem.into_error()),
                    })
                    .collect(),
            ),
            _ => Enumerator::Empty,
        }
    }
}

/// `hostvars`: every host's variables, rendered in that host's own scope.
#[derive(Debug)]
struct Hosts {
    context: Context,
}

impl Object for Hosts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let scope = self.context.scope.of_host(key.as_str()?)?;
        let context = Context {
            scope,
            ..self.context.clone()
        };
        Some(Value::from_object(Variables { context }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.context.scope.hosts().map(Value::from).collect())
    }
}

/// All variables of a scope as a mapping: `vars`, `hostvars[host]`.
#[derive(Debug)]
struct Variables {
    context: Context,
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.context.lookup(key.as_str()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut names: Vec<&str> = self.context.scope.names().collect();
        names.sort_unstable();
        names.dedup();
        Enumerator::Values(names.into_iter().map(Value::from).collect())
    }
}

fn has_template(node: &Node) -> bool {
    match &node.kind {
        Kind::Str(text) => template::is_template(text),
        Kind::Seq(items) => items.iter().any(has_template),
        Kind::Map(entries) => entries
            .iter()
            .any(|(key, value)| has_template(key) || has_template(value)),
        _ => false,
    }
}

/// A tree without templates as a value; keys keep their types.
fn value_of(node: &Node) -> Value {
    match &node.kind {
        Kind::Seq(items) => items.iter().map(value_of).collect(),
        Kind::Map(entries) => Value::from_pairs(
            entries
                .iter()
                .map(|(key, value)| (value_of(key), value_of(value))),
        ),
        _ => value::from_json(&node.to_json()),
    }
}
