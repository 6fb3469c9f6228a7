//! Hosts, the groups they are in, and the variables given to both.
//!
//! An inventory comes from the topology, from files (INI or YAML), or from a list of names
//! with a comma (`-i host,`). Groups form a graph under `all`; a host in no other group is in `ungrouped`;
//! `localhost` is there when it is asked for by name. Patterns that choose hosts are in
//! [`pattern`](super::pattern).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::files::{self, SourceLoader};
use super::ini;
use super::vars::{Layer, Variable, entries};
use crate::base::diagnostic::{Diagnostic, Origin, Source};
use crate::base::yaml::{self, Kind, Node};
use crate::vm::spec::Topology;

type Variables = IndexMap<String, Variable>;

/// A range such as `web[1:9]` may stand for so many hosts; more is a slip of the finger.
const RANGE_HOSTS_MAX: usize = 10_000;

#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub(super) groups: IndexMap<String, Group>,
    pub(super) hosts: IndexMap<String, Variables>,
    /// Files it was read from.
    files: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub hosts: Vec<String>,
    pub children: Vec<String>,
    pub vars: Variables,
}

impl Inventory {
    fn empty() -> Self {
        let mut inventory = Self::default();
        inventory.group("all");
        inventory.group("ungrouped");
        inventory
    }

    /// Reads what was typed after `-i`; all problems of all files at once.
    pub fn load(sources: &[String], loader: &dyn SourceLoader) -> Result<Self, Vec<Diagnostic>> {
        let mut inventory = Self::empty();
        let mut problems = Vec::new();
        for source in sources {
            inventory.read(source, loader, &mut problems);
        }
        inventory.settle();
        inventory.refuse_loops(&mut problems);
        if problems.is_empty() {
            Ok(inventory)
        } else {
            Err(problems)
        }
    }

    /// The lab's machines, in the groups the topology puts them in, and its client.
    pub fn from_topology(topology: &Topology) -> Self {
        let mut inventory = Self::empty();
        for machine in &topology.machines {
            inventory.add_host(&machine.name, &machine.groups);
            let address = machine.nics.iter().find_map(|nic| nic.address);
            if let Some(address) = address {
                let address = json!(address.address.to_string());
                inventory.set(&machine.name, "ansible_host", address);
            }
            let known: Vec<String> = machine.nics.iter().map(|nic| nic.mac.to_string()).collect();
            inventory.set(&machine.name, "lab_macs", json!(known));
            let known: Vec<String> = machine
                .nics
                .iter()
                .filter_map(|nic| Some(nic.address?.address.to_string()))
                .collect();
            inventory.set(&machine.name, "lab_addresses", json!(known));
            inventory.set(&machine.name, "ansible_connection", json!("ssh"));
            inventory.set(&machine.name, "ansible_user", json!("root"));
        }
        let client = &topology.client;
        inventory.add_host(&client.name, &client.groups);
        let known: Vec<String> = topology
            .networks
            .iter()
            .filter_map(|network| Some(network.client?.address.to_string()))
            .collect();
        inventory.set(&client.name, "lab_addresses", json!(known));
        inventory.set(&client.name, "ansible_connection", json!("local"));
        inventory.settle();
        inventory
    }

    /// Groups with all their hosts, children's too, in the order written: `groups`.
    pub fn groups(&self) -> IndexMap<String, Vec<String>> {
        let names = self.groups.keys();
        names
            .map(|name| (name.clone(), self.hosts_of(name)))
            .collect()
    }

    /// Hosts of a group and of its children, breadth first, each once.
    pub fn hosts_of(&self, group: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for name in self.descendants(group) {
            for host in &self.groups[&name].hosts {
                if !found.contains(host) {
                    found.push(host.clone());
                }
            }
        }
        found
    }

    /// Every host, in the order of the groups.
    pub fn host_names(&self) -> Vec<String> {
        self.hosts_of("all")
    }

    /// The first file it was read from.
    pub fn file(&self) -> Option<&str> {
        self.files.first().map(String::as_str)
    }

    /// Every host's variables, those of `group_vars/` and `host_vars/` beside the inventory
    /// and beside the playbook included (Ansible's levels 3 to 10).
    pub fn variables(
        &self,
        playbook_folder: &str,
        loader: &dyn SourceLoader,
    ) -> Result<Vec<(String, Layer)>, Vec<Diagnostic>> {
        let mut folders: Vec<&str> = self
            .files
            .iter()
            .map(|file| files::folder_of(file))
            .collect();
        folders.dedup();
        let mut beside = Beside {
            loader,
            read: BTreeMap::new(),
            problems: Vec::new(),
        };
        let mut all = Vec::new();
        let mut names: Vec<&String> = self.hosts.keys().collect();
        let localhost = "localhost".to_owned();
        if !self.hosts.contains_key(&localhost) {
            names.push(&localhost);
        }
        for host in names {
            let mut merged = Variables::new();
            self.merge_groups(host, &mut merged, &mut beside, &folders, playbook_folder);
            if let Some(own) = self.hosts.get(host) {
                extend(&mut merged, own);
            } else {
                let local = Variable::Found(json!("local"));
                merged.insert("ansible_connection".to_owned(), local);
            }
            for folder in folders.iter().chain([&playbook_folder]) {
                extend(&mut merged, &beside.get(folder, "host_vars", host));
            }
            all.push((host.clone(), Arc::new(merged)));
        }
        if beside.problems.is_empty() {
            Ok(all)
        } else {
            Err(beside.problems)
        }
    }

    fn merge_groups(
        &self,
        host: &str,
        merged: &mut Variables,
        beside: &mut Beside<'_>,
        folders: &[&str],
        playbook_folder: &str,
    ) {
        let groups = self.groups_of(host);
        for group in &groups {
            extend(merged, &self.groups[group].vars);
        }
        let everywhere: Vec<&str> = folders.iter().copied().chain([playbook_folder]).collect();
        for folder in &everywhere {
            extend(merged, &beside.get(folder, "group_vars", "all"));
        }
        for folder in &everywhere {
            for group in groups.iter().filter(|group| *group != "all") {
                extend(merged, &beside.get(folder, "group_vars", group));
            }
        }
    }

    /// Groups of a host, those that win last: by depth, `ansible_group_priority`, name.
    fn groups_of(&self, host: &str) -> Vec<String> {
        let depths = self.depths();
        let mut groups: Vec<&String> = self
            .groups
            .keys()
            .filter(|group| *group == "all" || self.hosts_of(group).iter().any(|name| name == host))
            .collect();
        groups.sort_by_key(|group| {
            let depth = depths.get(group.as_str()).copied().unwrap_or(0);
            (depth, self.priority(group), *group)
        });
        groups.into_iter().cloned().collect()
    }

    fn priority(&self, group: &str) -> i64 {
        match self.groups[group].vars.get("ansible_group_priority") {
            Some(Variable::Written(Node {
                kind: Kind::Int(priority),
                ..
            })) => *priority,
            Some(Variable::Written(node)) => node
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or(1),
            _ => 1,
        }
    }

    /// The longest way from `all` to each group.
    fn depths(&self) -> BTreeMap<&str, usize> {
        let mut depths: BTreeMap<&str, usize> = BTreeMap::from([("all", 0)]);
        // Each round settles at least one more level; there are no loops.
        for _ in 0..self.groups.len() {
            for (name, group) in &self.groups {
                let Some(&depth) = depths.get(name.as_str()) else {
                    continue;
                };
                for child in &group.children {
                    let known = depths.entry(child).or_insert(0);
                    *known = (*known).max(depth + 1);
                }
            }
        }
        depths
    }

    /// The group and everything below it, breadth first, each once.
    fn descendants(&self, group: &str) -> Vec<String> {
        let mut found: Vec<String> = vec![group.to_owned()];
        let mut next = 0;
        while let Some(name) = found.get(next).cloned() {
            next += 1;
            for child in self
                .groups
                .get(&name)
                .iter()
                .flat_map(|group| &group.children)
            {
                if !found.contains(child) {
                    found.push(child.clone());
                }
            }
        }
        found.retain(|name| self.groups.contains_key(name));
        found
    }

    pub(super) fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    pub(super) fn host(&mut self, name: &str) -> &mut Variables {
        self.hosts.entry(name.to_owned()).or_default()
    }

    pub(super) fn add_child(&mut self, parent: &str, child: &str) {
        self.group(child);
        let children = &mut self.group(parent).children;
        if !children.iter().any(|name| name == child) {
            children.push(child.to_owned());
        }
    }

    pub(super) fn add_to(&mut self, group: &str, host: &str) {
        self.host(host);
        let hosts = &mut self.group(group).hosts;
        if !hosts.iter().any(|name| name == host) {
            hosts.push(host.to_owned());
        }
    }

    /// Takes in a host met while a playbook runs (`add_host`, `group_by`).
    pub fn add_found_host(&mut self, name: &str, groups: &[String]) {
        self.add_host(name, groups);
        self.settle();
    }

    fn add_host(&mut self, name: &str, groups: &[String]) {
        self.host(name);
        for group in groups {
            self.add_to(group, name);
        }
    }

    fn set(&mut self, host: &str, name: &str, value: Value) {
        let own = self.host(host);
        own.insert(name.to_owned(), Variable::Found(value));
    }

    /// Puts groups without a parent under `all` and hosts without a group into `ungrouped`.
    fn settle(&mut self) {
        let children: BTreeSet<String> = self
            .groups
            .values()
            .flat_map(|group| group.children.iter().cloned())
            .collect();
        let tops: Vec<String> = self
            .groups
            .keys()
            .filter(|name| *name != "all" && !children.contains(*name))
            .cloned()
            .collect();
        for top in tops {
            self.add_child("all", &top);
        }
        let grouped: BTreeSet<&String> = self
            .groups
            .iter()
            .filter(|(name, _)| *name != "all" && *name != "ungrouped")
            .flat_map(|(_, group)| &group.hosts)
            .collect();
        let (inside, outside): (Vec<String>, Vec<String>) = self
            .hosts
            .keys()
            .cloned()
            .partition(|host| grouped.contains(host));
        let ungrouped = &mut self.group("ungrouped").hosts;
        ungrouped.retain(|host| !inside.contains(host));
        for host in outside {
            self.add_to("ungrouped", &host);
        }
    }

    fn refuse_loops(&self, problems: &mut Vec<Diagnostic>) {
        for (name, group) in &self.groups {
            let back = group
                .children
                .iter()
                .any(|child| self.descendants(child).contains(name));
            if back {
                problems.push(
                    Diagnostic::error(format!("the group `{name}` contains itself"))
                        .help("look at its children, and at theirs"),
                );
            }
        }
    }

    fn read(&mut self, typed: &str, loader: &dyn SourceLoader, problems: &mut Vec<Diagnostic>) {
        if typed.contains(',') {
            for name in typed
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
            {
                self.add_to("ungrouped", name);
            }
            return;
        }
        if loader.is_directory(typed) {
            for name in loader.list(typed) {
                let path = files::join(typed, &name);
                let skipped = name.starts_with('.') || name.ends_with('~');
                if !skipped && loader.is_file(&path) {
                    self.read(&path, loader, problems);
                }
            }
            return;
        }
        match loader.read(typed) {
            Ok(text) => {
                self.files.push(typed.to_owned());
                self.read_text(&Source::new(typed, text), problems);
            }
            Err(reason) => problems.push(
                Diagnostic::error(format!("failed to read the inventory {typed}: {reason}"))
                    .help("-i takes an INI or YAML file, or host names with a comma: -i host,"),
            ),
        }
    }

    fn read_text(&mut self, source: &Arc<Source>, problems: &mut Vec<Diagnostic>) {
        if !is_yaml(source) {
            return ini::read(source, self, problems);
        }
        match yaml::parse(source) {
            Ok(tree) => self.read_groups(&tree, None, problems),
            Err(problem) => problems.push(problem),
        }
    }

    /// A mapping of group names to groups.
    fn read_groups(&mut self, node: &Node, parent: Option<&str>, problems: &mut Vec<Diagnostic>) {
        if node.is_null() {
            return;
        }
        let Some(entries) = node.as_map() else {
            problems.push(not_a_mapping(node, "groups by name"));
            return;
        };
        for (name, body) in entries {
            let group = name.key_text();
            self.group(&group);
            if let Some(parent) = parent {
                self.add_child(parent, &group);
            }
            self.read_group(&group, body, problems);
        }
    }

    fn read_group(&mut self, group: &str, body: &Node, problems: &mut Vec<Diagnostic>) {
        if body.is_null() {
            return;
        }
        let Some(parts) = body.as_map() else {
            problems.push(not_a_mapping(body, "hosts, vars and children of a group"));
            return;
        };
        for (key, value) in parts {
            match key.key_text().as_str() {
                "hosts" => self.read_hosts(group, value, problems),
                "vars" => match entries(value, "the group's vars") {
                    Ok(vars) => self.group(group).vars.extend(vars),
                    Err(problem) => problems.push(problem),
                },
                "children" => self.read_groups(value, Some(group), problems),
                other => problems.push(
                    Diagnostic::error(format!("a group has no `{other}`"))
                        .at(&key.origin)
                        .label("expected hosts, vars or children")
                        .nearest(other, ["hosts", "vars", "children"]),
                ),
            }
        }
    }

    fn read_hosts(&mut self, group: &str, node: &Node, problems: &mut Vec<Diagnostic>) {
        if node.is_null() {
            return;
        }
        let Some(hosts) = node.as_map() else {
            problems.push(not_a_mapping(
                node,
                "hosts by name, each with a colon behind",
            ));
            return;
        };
        for (name, vars) in hosts {
            match expand(&name.key_text(), &name.origin) {
                Ok((names, port)) => {
                    let own = entries(vars, "a host's variables");
                    for host in names {
                        self.add_to(group, &host);
                        if let Some(port) = port {
                            self.set(&host, "ansible_port", json!(port));
                        }
                        if let Ok(own) = &own {
                            self.host(&host).extend(own.iter().cloned());
                        }
                    }
                    problems.extend(own.err());
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
}

fn extend(merged: &mut Variables, more: &Variables) {
    merged.extend(
        more.iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
}

fn not_a_mapping(node: &Node, expected: &str) -> Diagnostic {
    Diagnostic::error(format!("expected {expected}, found {}", node.kind_name()))
        .at(&node.origin)
        .label("expected a mapping")
}

/// Tells YAML from INI: by the name, else by the first line that says something.
fn is_yaml(source: &Source) -> bool {
    let extension = source.name.rsplit('.').next().unwrap_or("");
    match extension {
        "yml" | "yaml" | "json" => return true,
        "ini" => return false,
        _ => {}
    }
    let first = source
        .text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    first.is_some_and(|line| line == "---" || line.starts_with('{') || line.ends_with(':'))
}

/// Variable files beside an inventory or playbook, each read once.
struct Beside<'loader> {
    loader: &'loader dyn SourceLoader,
    read: BTreeMap<String, Variables>,
    problems: Vec<Diagnostic>,
}

impl Beside<'_> {
    /// Variables of `FOLDER/KIND/NAME`, `NAME.yml`, `NAME.yaml`, `NAME.json` or all files in the directory of that name.
    fn get(&mut self, folder: &str, kind: &str, name: &str) -> Variables {
        let base = files::join(&files::join(folder, kind), name);
        if let Some(known) = self.read.get(&base) {
            return known.clone();
        }
        let mut merged = Variables::new();
        for path in [".yml", ".yaml", ".json", ""].map(|end| format!("{base}{end}")) {
            self.read_into(&path, &mut merged);
        }
        self.read.insert(base, merged.clone());
        merged
    }

    fn read_into(&mut self, path: &str, merged: &mut Variables) {
        if self.loader.is_file(path) {
            match variables_file(path, self.loader) {
                Ok(vars) => merged.extend(vars),
                Err(problem) => self.problems.push(problem),
            }
        } else if self.loader.is_directory(path) {
            for name in self.loader.list(path) {
                self.read_into(&files::join(path, &name), merged);
            }
        }
    }
}

/// Reads a file of variables: `vars_files`, `include_vars`, `group_vars`.
pub fn variables_file(
    path: &str,
    loader: &dyn SourceLoader,
) -> Result<Vec<(String, Variable)>, Diagnostic> {
    let text = loader.read(path).map_err(|reason| {
        Diagnostic::error(format!(
            "failed to read the variables' file {path}: {reason}"
        ))
    })?;
    entries(
        &yaml::parse(&Source::new(path, text))?,
        "a file of variables",
    )
}

/// Unfolds `web[01:10].lan:22` to names and a port.
pub(super) fn expand(
    written: &str,
    origin: &Origin,
) -> Result<(Vec<String>, Option<u16>), Diagnostic> {
    let (name, port) = split_port(written);
    let mut names = vec![String::new()];
    let mut rest = name;
    while let Some((before, range, after)) = next_range(rest) {
        let values = range_values(range).ok_or_else(|| {
            Diagnostic::error(format!("`[{range}]` is no range of hosts"))
                .at(origin)
                .label("expected [1:9], [01:20:2] or [a:f]")
        })?;
        if names.len() * values.len() > RANGE_HOSTS_MAX {
            return Err(
                Diagnostic::error(format!("a range of more than {RANGE_HOSTS_MAX} hosts"))
                    .at(origin),
            );
        }
        names = names
            .iter()
            .flat_map(|start| {
                values
                    .iter()
                    .map(move |value| format!("{start}{before}{value}"))
            })
            .collect();
        rest = after;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok((names, port))
}

/// Splits a port off a name or `[address]`; an IPv6 address without brackets has none.
fn split_port(written: &str) -> (&str, Option<u16>) {
    let unbracketed = written
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .filter(|(address, _)| {
            address.matches(':').count() >= 2 && address.parse::<std::net::Ipv6Addr>().is_ok()
        });
    if let Some((address, after)) = unbracketed {
        let port = after.strip_prefix(':').and_then(|port| port.parse().ok());
        return (address, port);
    }
    let tail = written.rfind(']').map_or(0, |end| end + 1);
    match written[tail..].split_once(':') {
        Some((name, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (&written[..tail + name.len()], Some(port)),
            Err(_) => (written, None),
        },
        _ => (written, None),
    }
}

fn next_range(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (range, after) = rest.split_once(']')?;
    Some((before, range, after))
}

fn range_values(range: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = range.split(':').collect();
    let (from, to, step) = match parts[..] {
        [from, to] => (from, to, 1),
        [from, to, step] => (from, to, step.parse().ok().filter(|step| *step > 0)?),
        _ => return None,
    };
    let from = if from.is_empty() { "0" } else { from };
    if let (Ok(first), Ok(last)) = (from.parse::<usize>(), to.parse::<usize>()) {
        let padded = from.len() > 1 && from.starts_with('0');
        let width = if padded { from.len() } else { 0 };
        let count = last.checked_sub(first)? / step;
        (count < RANGE_HOSTS_MAX).then_some(())?;
        let values = (first..=last).step_by(step);
        return Some(values.map(|value| format!("{value:0width$}")).collect());
    }
    let mut letters = (from.chars(), to.chars());
    let (first, last) = (letters.0.next()?, letters.1.next()?);
    let single = letters.0.next().is_none() && letters.1.next().is_none();
    let letters = first.is_ascii_alphabetic() && last.is_ascii_alphabetic() && first <= last;
    (single && letters).then(|| (first..=last).step_by(step).map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::files::Memory;
    use proptest::prelude::*;

    fn ini(text: &str) -> Inventory {
        let loader = Memory::new([("inv.ini", text)]);
        Inventory::load(&["inv.ini".to_owned()], &loader).expect("a good inventory")
    }

    fn variables(inventory: &Inventory, host: &str, loader: &Memory) -> Value {
        let all = inventory.variables("", loader).expect("all readable");
        let (_, layer) = all
            .into_iter()
            .find(|(name, _)| name == host)
            .expect("known");
        layer
            .iter()
            .map(|(name, variable)| {
                let value = match variable {
                    Variable::Written(node) => node.to_json(),
                    Variable::Found(value) => value.clone(),
                };
                (name.clone(), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Orders and members as ansible-inventory 2.19.14 lists them.
    #[test]
    fn an_ini_inventory() {
        let inventory = ini(
            "zeta\n[reals]\nrs2\nrs1 x=3 y=yes w=\"a b\" # note\n[dirs]\nd1:2222\n\
            [lab:children]\nreals\ndirs\n[lab:vars]\ngv=True\ngs=some text # kept\n",
        );
        assert_eq!(inventory.host_names(), ["zeta", "rs2", "rs1", "d1"]);
        let groups = inventory.groups();
        assert_eq!(groups["lab"], ["rs2", "rs1", "d1"]);
        assert_eq!(groups["ungrouped"], ["zeta"]);
        let names: Vec<_> = groups.keys().map(String::as_str).collect();
        assert_eq!(names, ["all", "ungrouped", "reals", "dirs", "lab"]);
        assert_eq!(
            variables(&inventory, "rs1", &Memory::default()),
            json!({"gv": true, "gs": "some text # kept", "x": 3, "y": "yes", "w": "a b"})
        );
        assert_eq!(
            variables(&inventory, "d1", &Memory::default())["ansible_port"],
            2222
        );
    }

    #[test]
    fn a_yaml_inventory() {
        let text = "all:\n  hosts:\n    h[1:2]: {a: yes}\n    x:\n  vars: {v: 1}\n  children:\n    g:\n      \
            hosts: {h1: {b: 2}, y: }\n      vars: {v: 2}\n";
        let loader = Memory::new([("inv.yml", text)]);
        let inventory = Inventory::load(&["inv.yml".to_owned()], &loader).expect("good");
        assert_eq!(inventory.host_names(), ["h1", "h2", "x", "y"]);
        assert_eq!(
            variables(&inventory, "h1", &loader),
            json!({"v": 2, "a": true, "b": 2})
        );
        assert_eq!(inventory.hosts_of("ungrouped"), ["h2", "x"]);
    }

    #[test]
    fn files_beside_the_inventory_beat_it_and_hosts_beat_groups() {
        let loader = Memory::new([
            (
                "i/hosts",
                "[lab]\nh1\n[lab:vars]\na=inventory\nb=inventory\nc=inventory\n",
            ),
            ("i/group_vars/all.yml", "a: all\nb: all\n"),
            ("i/group_vars/lab.yml", "b: lab\n"),
            ("i/host_vars/h1/main.yml", "c: host\n"),
        ]);
        let inventory = Inventory::load(&["i/hosts".to_owned()], &loader).expect("good");
        assert_eq!(
            variables(&inventory, "h1", &loader),
            json!({"a": "all", "b": "lab", "c": "host"})
        );
    }

    #[test]
    fn a_list_of_names_is_an_inventory() {
        let inventory = Inventory::load(&["a,b,".to_owned()], &Memory::default()).expect("names");
        assert_eq!(inventory.host_names(), ["a", "b"]);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let problems =
            Inventory::load(&["nope.ini".to_owned()], &Memory::default()).expect_err("missing");
        assert!(problems[0].message.contains("nope.ini: no such file"));
    }

    #[test]
    fn ranges_unfold() {
        let origin = Origin::new(&Source::new("t", ""), 0, 0);
        let names = |text: &str| expand(text, &origin).expect("a range").0;
        assert_eq!(
            names("web[08:10].lan"),
            ["web08.lan", "web09.lan", "web10.lan"]
        );
        assert_eq!(names("h[a:c]"), ["ha", "hb", "hc"]);
        assert_eq!(names("[0:4:2].x"), ["0.x", "2.x", "4.x"]);
        assert_eq!(expand("h:22", &origin).expect("a name").1, Some(22));
        assert_eq!(expand("::1", &origin).expect("an address").0, ["::1"]);
        let problem = expand("h[1-3]", &origin).expect_err("no range");
        assert!(problem.message.contains("1-3"), "{}", problem.message);
    }

    proptest! {
        #[test]
        fn any_text_is_an_inventory_or_refused(text in "[a-c\\[\\]:=# \n'\"{}0-9]{0,80}") {
            for name in ["t.ini", "t.yml"] {
                let loader = Memory::new([(name, text.as_str())]);
                let _ = Inventory::load(&[name.to_owned()], &loader);
            }
        }
    }
}
