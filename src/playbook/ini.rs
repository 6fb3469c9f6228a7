//! Ansible's INI inventories: `[group]`, `[group:children]`, `[group:vars]`.

use std::sync::Arc;

use super::inventory::{Inventory, expand};
use super::vars::Variable;
use super::{literal, words};
use crate::base::diagnostic::{Diagnostic, Origin, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Hosts,
    Children,
    Vars,
}

/// Reads a text into an inventory; every line that is wrong is a problem.
pub(super) fn read(
    source: &Arc<Source>,
    inventory: &mut Inventory,
    problems: &mut Vec<Diagnostic>,
) {
    let mut reader = Reader {
        source,
        inventory,
        group: "ungrouped".to_owned(),
        section: Section::Hosts,
        declared: Vec::new(),
        wanted: Vec::new(),
    };
    let mut offset = 0;
    for line in source.text.split_inclusive('\n') {
        let trimmed = line.trim();
        let start = offset + (line.len() - line.trim_start().len());
        offset += line.len();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let origin = Origin::new(source, start, start + trimmed.len());
        if let Err(problem) = reader.line(trimmed, &origin) {
            problems.push(problem);
        }
    }
    problems.extend(reader.undeclared());
}

struct Reader<'read> {
    source: &'read Arc<Source>,
    inventory: &'read mut Inventory,
    group: String,
    section: Section,
    /// Groups that have a section of hosts or children.
    declared: Vec<String>,
    /// Groups that are named as children or given variables, and where.
    wanted: Vec<(String, Origin)>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, origin: &Origin) -> Result<(), Diagnostic> {
        if line.starts_with('[') && self.header(line, origin)? {
            return Ok(());
        }
        match self.section {
            Section::Hosts => self.hosts(line, origin),
            Section::Vars => self.variable(line, origin),
            Section::Children => {
                let child = line.split('#').next().unwrap_or(line).trim();
                self.wanted.push((child.to_owned(), origin.clone()));
                let group = self.group.clone();
                self.inventory.add_child(&group, child);
                Ok(())
            }
        }
    }

    /// `[name]` or `[name:kind]`; false when the line is a host range such as `[0:2].x`.
    fn header(&mut self, line: &str, origin: &Origin) -> Result<bool, Diagnostic> {
        let Some((inside, after)) = line[1..].split_once(']') else {
            return Err(Diagnostic::error("the section's `]` is missing").at(origin));
        };
        let after = after.trim();
        if !(after.is_empty() || after.starts_with('#')) {
            return Ok(false);
        }
        let (name, kind) = match inside.split_once(':') {
            Some((name, kind)) => (name, kind),
            None => (inside, "hosts"),
        };
        self.section = match kind {
            "hosts" => Section::Hosts,
            "children" => Section::Children,
            "vars" => Section::Vars,
            other => {
                return Err(
                    Diagnostic::error(format!("a section has no kind `{other}`"))
                        .at(origin)
                        .label("expected [group], [group:children] or [group:vars]")
                        .nearest(other, ["hosts", "children", "vars"]),
                );
            }
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Diagnostic::error("a group's name has no spaces").at(origin));
        }
        name.clone_into(&mut self.group);
        self.inventory.group(name);
        if self.section == Section::Vars {
            self.wanted.push((name.to_owned(), origin.clone()));
        } else {
            self.declared.push(name.to_owned());
        }
        Ok(true)
    }

    fn hosts(&mut self, line: &str, origin: &Origin) -> Result<(), Diagnostic> {
        let end = comment_start(line);
        let words = words::split(self.source, origin.start..origin.start + end)?;
        let Some((name, assignments)) = words.split_first() else {
            return Ok(());
        };
        let (names, port) = expand(&name.value, &name.origin)?;
        let mut own = Vec::new();
        for word in assignments {
            let Some((key, value)) = word.value.split_once('=') else {
                return Err(
                    Diagnostic::error(format!("`{}` gives the host nothing", word.value))
                        .at(&word.origin)
                        .label("expected key=value")
                        .help("no spaces around `=`; one host a line"),
                );
            };
            let node = literal::value(value, &word.origin);
            own.push((key.to_owned(), Variable::Written(node)));
        }
        if let Some(port) = port {
            own.push(("ansible_port".to_owned(), Variable::Found(port.into())));
        }
        for host in names {
            let group = self.group.clone();
            self.inventory.add_to(&group, &host);
            self.inventory.host(&host).extend(own.iter().cloned());
        }
        Ok(())
    }

    fn variable(&mut self, line: &str, origin: &Origin) -> Result<(), Diagnostic> {
        let Some((key, value)) = line.split_once('=') else {
            return Err(
                Diagnostic::error("a line of a [group:vars] section sets a variable")
                    .at(origin)
                    .label("expected key=value"),
            );
        };
        let value = value.trim();
        let at = Origin::new(self.source, origin.end - value.len(), origin.end);
        let node = literal::value(value, &at);
        let vars = &mut self.inventory.group(&self.group).vars;
        vars.insert(key.trim().to_owned(), Variable::Written(node));
        Ok(())
    }

    /// Groups somebody names and nobody declares.
    fn undeclared(&self) -> Vec<Diagnostic> {
        let known =
            |name: &String| self.declared.contains(name) || name == "all" || name == "ungrouped";
        let missing = self.wanted.iter().filter(|(name, _)| !known(name));
        missing
            .map(|(name, origin)| {
                Diagnostic::error(format!("there is no group `{name}`"))
                    .at(origin)
                    .nearest(name, self.declared.iter().map(String::as_str))
                    .help(format!("declare it with a section [{name}]"))
            })
            .collect()
    }
}

/// Where a comment begins: at a `#` outside quotes, as a shell's reader has it.
fn comment_start(line: &str) -> usize {
    let mut quote = None;
    for (offset, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') => return offset,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use crate::playbook::files::Memory;
    use crate::playbook::inventory::Inventory;

    #[test]
    fn every_wrong_line_is_reported_with_its_place() {
        let text = "[web]\nh1 a = 1\n[web:childs]\n[lab:children]\nwebb\n[x:vars]\nnovalue\n";
        let loader = Memory::new([("t.ini", text)]);
        let problems = Inventory::load(&["t.ini".to_owned()], &loader).expect_err("wrong");
        let places: Vec<String> = problems
            .iter()
            .filter_map(|problem| problem.origin.as_ref().map(ToString::to_string))
            .collect();
        assert_eq!(
            places,
            [
                "t.ini:2:4",
                "t.ini:3:1",
                "t.ini:7:1",
                "t.ini:5:1",
                "t.ini:6:1"
            ]
        );
        assert_eq!(problems[3].help[0], "did you mean `web`?");
    }
}
