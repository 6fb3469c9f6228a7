//! haresources: groups of resources, each with the node that prefers it.
//!
//! `node resource resource …`: a line is one group, started from left to right and
//! stopped from right to left. A resource is `script::argument::…`; a bare address
//! stands for `IPaddr::address`. The first resource names the group on the wire.

use std::sync::Arc;

use super::address::Address;
use super::lines::{Comment, Continued, Grammar, Word, lines};
use crate::base::diagnostic::{Diagnostic, Source};

const GRAMMAR: Grammar = Grammar {
    separators: &[' ', '\t'],
    comment: Comment::Anywhere,
    continued: Continued::ByBackslash,
};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HaResources {
    pub groups: Vec<Group>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The node that runs the group when it can.
    pub owner: Word,
    /// In the order of starting; at least one.
    pub resources: Vec<Resource>,
}

impl Group {
    /// Names the group on the wire: its first resource, as written.
    pub fn key(&self) -> &str {
        &self.resources[0].word.text
    }

    /// Shows the group as its line does: `node resource resource`.
    pub fn line(&self) -> String {
        let mut line = self.owner.text.clone();
        for resource in &self.resources {
            line.push(' ');
            line.push_str(&resource.word.text);
        }
        line
    }
}

/// One resource of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// As written.
    pub word: Word,
    /// The script's name: `IPaddr` for a bare address.
    pub script: String,
    pub arguments: Vec<String>,
    /// What an `IPaddr` or `IPaddr2` is to configure.
    pub address: Option<Address>,
}

impl Resource {
    /// Shows the script with its arguments, as it is called.
    pub fn call(&self) -> String {
        let mut call = self.script.clone();
        for argument in &self.arguments {
            call.push(' ');
            call.push_str(argument);
        }
        call
    }
}

impl HaResources {
    /// Spells the content out, blanks and comments aside: two nodes with the same text
    /// share resources in the same way.
    pub fn canonical(&self) -> String {
        self.groups
            .iter()
            .map(|group| group.line() + "\n")
            .collect()
    }

    pub fn find(&self, key: &str) -> Option<usize> {
        self.groups.iter().position(|group| group.key() == key)
    }
}

/// Reads the file; complaints go to `diagnostics`.
pub fn parse(source: &Arc<Source>, diagnostics: &mut Vec<Diagnostic>) -> HaResources {
    let mut groups: Vec<Group> = Vec::new();
    for mut words in lines(source, GRAMMAR) {
        let owner = words.remove(0).lower_case();
        let mut resources: Vec<Resource> = Vec::new();
        for word in words {
            match resource(word) {
                Ok(resource) => {
                    let earlier = groups.iter().flat_map(|group| &group.resources);
                    if let Some(twin) = find_twin(&resource, earlier.chain(&resources)) {
                        diagnostics.push(twice(&resource, twin));
                    }
                    resources.push(resource);
                }
                Err(problem) => diagnostics.push(*problem),
            }
        }
        if resources.is_empty() {
            diagnostics.push(
                Diagnostic::error(format!("`{}` with no resource", owner.text))
                    .at(&owner.origin)
                    .label("a line is a node and its resources")
                    .help(format!("such as `{} 10.0.0.50 apache2`", owner.text)),
            );
            continue;
        }
        groups.push(Group { owner, resources });
    }
    HaResources { groups }
}

fn resource(word: Word) -> Result<Resource, Box<Diagnostic>> {
    let mut parts = word.text.split("::").map(str::to_owned);
    let mut script = parts.next().unwrap_or_default();
    let mut arguments: Vec<String> = parts.collect();
    if script.starts_with(|letter: char| letter.is_ascii_digit()) && script.contains('.') {
        arguments.insert(0, std::mem::replace(&mut script, "IPaddr".into()));
    }
    if script.is_empty() || script.contains('/') {
        return Err(Box::new(
            Diagnostic::error(format!("`{}` names no script", word.text))
                .at(&word.origin)
                .label("`script`, `script::argument` or an address")
                .help("scripts are looked for in /etc/ha.d/resource.d and /etc/init.d"),
        ));
    }
    let address = match script.as_str() {
        "IPaddr" | "IPaddr2" => Some(address(&word, &arguments)?),
        _ => None,
    };
    Ok(Resource {
        word,
        script,
        arguments,
        address,
    })
}

fn address(word: &Word, arguments: &[String]) -> Result<Address, Box<Diagnostic>> {
    let problem = |what: String| {
        Box::new(
            Diagnostic::error(what)
                .at(&word.origin)
                .label("`address[/bits[/interface[:label]][/broadcast]]`"),
        )
    };
    match arguments {
        [text] => Address::parse(text).map_err(|error| problem(error.to_string())),
        [] => Err(problem(format!("`{}` without an address", word.text))),
        _ => Err(problem(format!(
            "`{}` with more than one argument",
            word.text
        ))),
    }
}

/// What may be held once only: the same words, or the same address in other words.
fn find_twin<'a>(
    resource: &Resource,
    mut earlier: impl Iterator<Item = &'a Resource>,
) -> Option<&'a Resource> {
    earlier.find(|other| {
        other.word.text == resource.word.text
            || matches!(
                (&other.address, &resource.address),
                (Some(one), Some(two)) if one.ip == two.ip
            )
    })
}

fn twice(resource: &Resource, twin: &Resource) -> Diagnostic {
    Diagnostic::error(format!("the resource `{}` stands twice", resource.word.text))
        .at(&resource.word.origin)
        .label("again here")
        .related(&twin.word.origin, "first here")
        .help("a resource belongs to one group; a line for each node is not needed: the other node takes the line over when its node fails")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::{Colour, render_all};

    fn read(text: &str) -> (HaResources, String) {
        let mut diagnostics = Vec::new();
        let resources = parse(&Source::new("haresources", text), &mut diagnostics);
        (resources, render_all(&diagnostics, Colour::Never))
    }

    #[test]
    fn the_labs_line_with_drbd_is_four_resources() {
        let (read, said) = read(
            "Saisp-VM-2 drbddisk::r0 \\\n Filesystem::/dev/drbd0::/var/www::ext4 10.0.0.50 apache2 # all\n",
        );
        assert_eq!(said, "");
        let group = &read.groups[0];
        assert_eq!(group.owner.text, "saisp-vm-2");
        assert_eq!(group.key(), "drbddisk::r0");
        let scripts: Vec<&str> = group
            .resources
            .iter()
            .map(|resource| resource.script.as_str())
            .collect();
        assert_eq!(scripts, ["drbddisk", "Filesystem", "IPaddr", "apache2"]);
        assert_eq!(
            group.resources[1].arguments,
            ["/dev/drbd0", "/var/www", "ext4"]
        );
    }

    #[test]
    fn a_resource_on_two_lines_is_refused_with_both_places() {
        let (_, said) = read("a 10.0.0.50 apache2\nb IPaddr::10.0.0.50/24\n");
        assert!(said.contains("stands twice"), "{said}");
        assert!(said.contains("first here"), "{said}");
    }

    #[test]
    fn each_mistake_has_its_words() {
        for (text, expected) in [
            ("a\n", "`a` with no resource"),
            ("a IPaddr\n", "without an address"),
            ("a 10.0.0.500\n", "10.0.0.500"),
            ("a ../../bin/sh\n", "names no script"),
            ("a IPaddr::1.2.3.4::5\n", "more than one argument"),
        ] {
            let (_, said) = read(text);
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }

    #[test]
    fn blanks_and_comments_do_not_make_two_files_differ() {
        let (one, _) = read("a  10.0.0.50   apache2\n# x\n");
        let (two, _) = read("A 10.0.0.50 \\\n apache2");
        assert_eq!(one.canonical(), two.canonical());
    }
}
