//! Variables of one host, level by level, in Ansible's order of precedence.
//!
//! A [`Scope`] is a stack of [`Layer`]s; the highest level that knows a name wins (no deep
//! merge). Ansible's 22 levels, without roles and prompts, are [`Level`]. Layers are
//! shared, so a scope costs a few pointers and may be made for every task.
//!
//! [`Known`] is what a run knows of all hosts and grows while it goes: facts, `set_fact`,
//! registered results. The engine keeps one, writes to it after each task, and takes
//! scopes from it; `hostvars` reads the copy the scope was made with.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::files::SourceLoader;
use super::inventory::Inventory;
use super::model::Vars;
use crate::base::diagnostic::{Diagnostic, Source};
use crate::base::yaml::{self, Kind, Node};

/// The version of Ansible whose language this is, as `ansible_version` tells it.
const ANSIBLE_VERSION: [u64; 3] = [2, 19, 14];

/// A variable's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Variable {
    /// Written by somebody: texts in it are templates, rendered when they are asked for.
    Written(Node),
    /// Found at run time (facts, results): never taken for a template.
    Found(Value),
}

/// Variables of one level.
pub type Layer = Arc<IndexMap<String, Variable>>;

/// Where a variable comes from, lowest precedence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Inventory, `group_vars`, `host_vars` (Ansible's 3 to 10, merged by [`Inventory::variables`]).
    Inventory,
    Facts,
    PlayVars,
    VarsFiles,
    BlockVars,
    TaskVars,
    IncludeVars,
    /// `set_fact` and `register`.
    SetFacts,
    IncludeParams,
    Extra,
    /// `item`, `ansible_loop_var`, … of a running loop.
    Loop,
    Magic,
}

impl Level {
    /// Names the level for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Facts => "facts",
            Self::PlayVars => "play vars",
            Self::VarsFiles => "vars_files",
            Self::BlockVars => "block vars",
            Self::TaskVars => "task vars",
            Self::IncludeVars => "include_vars",
            Self::SetFacts => "set_fact or register",
            Self::IncludeParams => "include parameters",
            Self::Extra => "-e",
            Self::Loop => "loop",
            Self::Magic => "built in",
        }
    }
}

/// Makes a layer of variables written in a file.
pub fn written(vars: &Vars) -> Layer {
    let entries = vars.iter();
    Arc::new(
        entries
            .map(|(name, node)| (name, Variable::Written(node.clone())))
            .collect(),
    )
}

/// Makes a layer of values found at run time.
pub fn found(values: Map<String, Value>) -> Layer {
    let entries = values.into_iter();
    Arc::new(
        entries
            .map(|(name, value)| (name, Variable::Found(value)))
            .collect(),
    )
}

/// The variables with which one host renders.
#[derive(Clone, Debug)]
pub struct Scope {
    pub host: Arc<str>,
    /// By level, lowest first; several of one level in the order they were added.
    layers: Vec<(Level, Layer)>,
    known: Arc<Known>,
}

impl Scope {
    /// A scope with one host's lasting variables; further levels are added by [`Scope::with`].
    pub fn new(known: &Arc<Known>, host: &str) -> Self {
        let mut scope = Self {
            host: Arc::from(host),
            layers: Vec::new(),
            known: Arc::clone(known),
        };
        if let Some(own) = known.hosts.get(host) {
            scope.push(Level::Inventory, Arc::clone(&own.inventory));
            scope.push(Level::Facts, Arc::clone(&own.facts));
            scope.push(Level::IncludeVars, Arc::clone(&own.include_vars));
            scope.push(Level::SetFacts, Arc::clone(&own.set_facts));
        }
        scope.push(Level::Extra, Arc::clone(&known.extra));
        scope.push(Level::Magic, known.magic(host));
        scope
    }

    /// Adds a layer; within one level the later one wins.
    #[must_use]
    pub fn with(mut self, level: Level, layer: Layer) -> Self {
        self.push(level, layer);
        self
    }

    /// Adds one value found at run time.
    #[must_use]
    pub fn with_value(self, level: Level, name: &str, value: Value) -> Self {
        let layer = IndexMap::from([(name.to_owned(), Variable::Found(value))]);
        self.with(level, Arc::new(layer))
    }

    fn push(&mut self, level: Level, layer: Layer) {
        if !layer.is_empty() {
            let at = self.layers.partition_point(|(other, _)| *other <= level);
            self.layers.insert(at, (level, layer));
        }
    }

    pub fn get(&self, name: &str) -> Option<&Variable> {
        self.explain(name).map(|(_, variable)| variable).next()
    }

    /// Every level that sets a name, the winner first.
    pub fn explain(&self, name: &str) -> impl Iterator<Item = (Level, &Variable)> {
        let found = self.layers.iter().rev();
        found.filter_map(move |(level, layer)| layer.get(name).map(|variable| (*level, variable)))
    }

    /// All names, for suggestions and for `vars`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers
            .iter()
            .flat_map(|(_, layer)| layer.keys().map(String::as_str))
    }

    /// Another host's lasting variables, as `hostvars[host]` shows them.
    pub fn of_host(&self, host: &str) -> Option<Self> {
        let there = self.known.hosts.contains_key(host);
        there.then(|| Self::new(&self.known, host))
    }

    /// The hosts `hostvars` knows.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.known.hosts.keys().map(String::as_str)
    }

    /// The folder of the playbook, where files are looked for last.
    pub fn playbook_folder(&self) -> &str {
        &self.known.playbook_folder
    }
}

/// One host's lasting variables.
#[derive(Clone, Debug, Default)]
pub struct HostVars {
    pub inventory: Layer,
    pub facts: Layer,
    pub include_vars: Layer,
    pub set_facts: Layer,
}

/// What a run knows of all hosts. Cloning is cheap; a [`Scope`] holds the state it was made with.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub hosts: IndexMap<String, HostVars>,
    pub extra: Layer,
    /// Groups in the inventory's order, with their hosts: `groups`.
    pub groups: IndexMap<String, Vec<String>>,
    /// Hosts of the play that are still in it: `ansible_play_hosts`.
    pub play_hosts: Vec<String>,
    /// All hosts of the play, failed ones too: `ansible_play_hosts_all`.
    pub play_hosts_all: Vec<String>,
    /// Hosts of the running batch: `ansible_play_batch`.
    pub play_batch: Vec<String>,
    pub play_name: String,
    /// As typed; `playbook_dir` is its absolute form.
    pub playbook_folder: String,
    pub playbook_dir: String,
    pub inventory_dir: Option<String>,
    pub inventory_file: Option<String>,
    pub flags: RunFlags,
}

/// What the command line said, as variables tell it.
#[derive(Clone, Debug, Default)]
pub struct RunFlags {
    pub check_mode: bool,
    pub diff_mode: bool,
    pub forks: usize,
    pub verbosity: u8,
    pub limit: Option<String>,
    pub tags: Vec<String>,
    pub skip_tags: Vec<String>,
}

impl Known {
    /// Starts with an inventory and the `-e` variables; `playbook_folder` as it was typed.
    pub fn new(
        inventory: &Inventory,
        extra: Layer,
        playbook_folder: &str,
        loader: &dyn SourceLoader,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut known = Self {
            extra,
            groups: inventory.groups(),
            playbook_folder: playbook_folder.to_owned(),
            playbook_dir: loader.absolute(if playbook_folder.is_empty() {
                "."
            } else {
                playbook_folder
            }),
            inventory_file: inventory.file().map(|file| loader.absolute(file)),
            ..Self::default()
        };
        known.inventory_dir = known
            .inventory_file
            .as_deref()
            .map(|file| super::files::folder_of(file).to_owned());
        for (host, layer) in inventory.variables(playbook_folder, loader)? {
            known.hosts.entry(host).or_default().inventory = layer;
        }
        Ok(known)
    }

    /// Keeps `set_fact` values or a registered result of a host.
    pub fn set_facts(&mut self, host: &str, values: Map<String, Value>) {
        let own = self.hosts.entry(host.to_owned()).or_default();
        extend(&mut own.set_facts, values);
    }

    /// Keeps variables `include_vars` read for a host.
    pub fn include_vars(&mut self, host: &str, layer: &Layer) {
        let own = self.hosts.entry(host.to_owned()).or_default();
        let all = Arc::make_mut(&mut own.include_vars);
        all.extend(
            layer
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }

    /// Keeps facts as `setup` returns them (`ansible_hostname`, …): each under its own name,
    /// and all in `ansible_facts` without the prefix.
    pub fn add_facts(&mut self, host: &str, facts: Map<String, Value>) {
        let own = self.hosts.entry(host.to_owned()).or_default();
        let mut short = match own.facts.get("ansible_facts") {
            Some(Variable::Found(Value::Object(known))) => known.clone(),
            _ => Map::new(),
        };
        for (name, value) in &facts {
            let name = name.strip_prefix("ansible_").unwrap_or(name);
            short.insert(name.to_owned(), value.clone());
        }
        extend(&mut own.facts, facts);
        let all = Arc::make_mut(&mut own.facts);
        all.insert(
            "ansible_facts".to_owned(),
            Variable::Found(Value::Object(short)),
        );
    }

    /// Forgets facts and `set_fact` values, as `meta: clear_facts` does.
    pub fn clear_facts(&mut self, host: &str) {
        if let Some(own) = self.hosts.get_mut(host) {
            own.facts = Layer::default();
        }
    }

    /// Ansible's built-in variables for one host.
    fn magic(&self, host: &str) -> Layer {
        let groups_of = self
            .groups
            .iter()
            .filter(|(name, hosts)| *name != "all" && hosts.iter().any(|other| other == host));
        let mut group_names: Vec<&String> = groups_of.map(|(name, _)| name).collect();
        group_names.sort();
        let [major, minor, revision] = ANSIBLE_VERSION;
        let full = format!("{major}.{minor}.{revision}");
        let Value::Object(mut values) = json!({
            "inventory_hostname": host,
            "inventory_hostname_short": host.split('.').next(),
            "group_names": group_names,
            "groups": self.groups,
            "play_hosts": self.play_batch,
            "ansible_play_hosts": self.play_hosts,
            "ansible_play_hosts_all": self.play_hosts_all,
            "ansible_play_batch": self.play_batch,
            "ansible_play_name": self.play_name,
            "playbook_dir": self.playbook_dir,
            "ansible_check_mode": self.flags.check_mode,
            "ansible_diff_mode": self.flags.diff_mode,
            "ansible_forks": self.flags.forks,
            "ansible_verbosity": self.flags.verbosity,
            "ansible_run_tags": if self.flags.tags.is_empty() { vec!["all".to_owned()] } else { self.flags.tags.clone() },
            "ansible_skip_tags": self.flags.skip_tags,
            "ansible_version": {
                "full": full, "string": full, "major": major, "minor": minor, "revision": revision,
            },
        }) else {
            return Layer::default();
        };
        let optional = [
            ("ansible_limit", &self.flags.limit),
            ("inventory_dir", &self.inventory_dir),
            ("inventory_file", &self.inventory_file),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                values.insert(name.to_owned(), json!(value));
            }
        }
        found(values)
    }
}

fn extend(layer: &mut Layer, values: Map<String, Value>) {
    let all = Arc::make_mut(layer);
    all.extend(
        values
            .into_iter()
            .map(|(name, value)| (name, Variable::Found(value))),
    );
}

/// Names every playbook may use without defining them; the checks needs them
/// before there is a host.
pub const MAGIC_NAMES: &[&str] = &[
    "ansible_check_mode",
    "ansible_config_file",
    "ansible_dependent_role_names",
    "ansible_diff_mode",
    "ansible_facts",
    "ansible_failed_result",
    "ansible_failed_task",
    "ansible_forks",
    "ansible_index_var",
    "ansible_inventory_sources",
    "ansible_limit",
    "ansible_local",
    "ansible_loop",
    "ansible_loop_var",
    "ansible_parent_role_names",
    "ansible_play_batch",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_play_name",
    "ansible_playbook_python",
    "ansible_role_name",
    "ansible_run_tags",
    "ansible_search_path",
    "ansible_skip_tags",
    "ansible_verbosity",
    "ansible_version",
    "environment",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_file",
    "inventory_hostname",
    "inventory_hostname_short",
    "omit",
    "play_hosts",
    "playbook_dir",
    "template_destpath",
    "template_fullpath",
    "template_host",
    "template_mtime",
    "template_path",
    "template_run_date",
    "template_uid",
    "vars",
];

/// Reads what was typed after `-e`, in order: `key=value …`, YAML or JSON, `@FILE`.
pub fn extra(typed: &[String], loader: &dyn SourceLoader) -> Result<Layer, Vec<Diagnostic>> {
    let mut all = IndexMap::new();
    let mut problems = Vec::new();
    for text in typed {
        match extra_one(text.trim(), loader) {
            Ok(entries) => all.extend(entries),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(Arc::new(all))
    } else {
        Err(problems)
    }
}

fn extra_one(text: &str, loader: &dyn SourceLoader) -> Result<Vec<(String, Variable)>, Diagnostic> {
    let (source, structured) = match text.strip_prefix('@') {
        Some(path) => {
            let read = loader.read(path).map_err(|reason| {
                Diagnostic::error(format!(
                    "failed to read the variables' file {path}: {reason}"
                ))
                .help("-e @FILE reads a YAML or JSON file")
            })?;
            (Source::new(path, read), true)
        }
        None => (
            Source::new("<-e>", text),
            text.starts_with(['{', '[']) || (text.contains(": ") && !text.contains('=')),
        ),
    };
    if !structured {
        return key_values(&source);
    }
    entries(&yaml::parse(&source)?, "-e")
}

/// Lowers a file of variables: a mapping, or nothing.
pub(super) fn entries(node: &Node, what: &str) -> Result<Vec<(String, Variable)>, Diagnostic> {
    match &node.kind {
        Kind::Null => Ok(Vec::new()),
        Kind::Map(entries) => Ok(entries
            .iter()
            .map(|(name, value)| (name.key_text(), Variable::Written(value.clone())))
            .collect()),
        _ => Err(Diagnostic::error(format!(
            "{what}: variables are a mapping, this is {}",
            node.kind_name()
        ))
        .at(&node.origin)
        .label("expected `name: value`")),
    }
}

/// `key=value key2="a b"`: every value is text.
fn key_values(source: &Arc<Source>) -> Result<Vec<(String, Variable)>, Diagnostic> {
    let mut found = Vec::new();
    for word in super::words::split(source, 0..source.text.len())? {
        let Some(equals) = word.value.find('=') else {
            return Err(
                Diagnostic::error(format!("`{}` sets no variable", word.value))
                    .at(&word.origin)
                    .label("expected key=value")
                    .help("also possible: -e '{key: value}' and -e @FILE"),
            );
        };
        let node = Node {
            origin: word.origin.clone(),
            kind: Kind::Str(word.value[equals + 1..].to_owned()),
        };
        found.push((word.value[..equals].to_owned(), Variable::Written(node)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::files::Memory;

    fn known() -> Arc<Known> {
        let mut known = Known::default();
        known.set_facts("h", Map::from_iter([("q".to_owned(), json!("fact"))]));
        known.groups = IndexMap::from([("g".to_owned(), vec!["h".to_owned()])]);
        Arc::new(known)
    }

    fn layer(name: &str, value: &str) -> Layer {
        found(Map::from_iter([(name.to_owned(), json!(value))]))
    }

    #[test]
    fn set_fact_beats_task_vars_and_extra_beats_both() {
        let scope = Scope::new(&known(), "h").with(Level::TaskVars, layer("q", "task"));
        assert_eq!(scope.get("q"), Some(&Variable::Found(json!("fact"))));
        let scope = scope.with(Level::Extra, layer("q", "extra"));
        assert_eq!(scope.get("q"), Some(&Variable::Found(json!("extra"))));
        let levels: Vec<_> = scope.explain("q").map(|(level, _)| level).collect();
        assert_eq!(levels, [Level::Extra, Level::SetFacts, Level::TaskVars]);
    }

    #[test]
    fn the_later_layer_of_a_level_wins() {
        let scope = Scope::new(&known(), "h")
            .with(Level::BlockVars, layer("b", "outer"))
            .with(Level::BlockVars, layer("b", "inner"));
        assert_eq!(scope.get("b"), Some(&Variable::Found(json!("inner"))));
    }

    #[test]
    fn facts_are_there_with_and_without_prefix() {
        let mut known = Known::default();
        known.add_facts(
            "h",
            Map::from_iter([("ansible_kernel".to_owned(), json!("6.12"))]),
        );
        let scope = Scope::new(&Arc::new(known), "h");
        assert_eq!(
            scope.get("ansible_kernel"),
            Some(&Variable::Found(json!("6.12")))
        );
        assert_eq!(
            scope.get("ansible_facts"),
            Some(&Variable::Found(json!({"kernel": "6.12"})))
        );
    }

    #[test]
    fn extra_variables_of_all_kinds() {
        let loader = Memory::new([("v.yml", "d: [1]")]);
        let typed = ["a=1 b='x y'", "{\"c\": 2}", "@v.yml", "a=3"].map(str::to_owned);
        let layer = extra(&typed, &loader).expect("all good");
        let json = |name: &str| match &layer[name] {
            Variable::Written(node) => node.to_json(),
            Variable::Found(value) => value.clone(),
        };
        assert_eq!(json("a"), json!("3"));
        assert_eq!(json("b"), json!("x y"));
        assert_eq!(json("c"), json!(2));
        assert_eq!(json("d"), json!([1]));
    }

    #[test]
    fn an_extra_variable_without_a_value_is_refused() {
        let problems = extra(&["novalue".to_owned()], &Memory::default()).expect_err("no =");
        assert!(problems[0].message.contains("sets no variable"));
    }
}
