//! What a module is: its names, its arguments, where it runs; and the look-up by name.
//!
//! The table itself is data in [`table`](super::table). A playbook's reader checks what
//! was written against it before the first task runs ([`check_literal_args`]); the run
//! engine brings rendered arguments into their final types with it ([`coerce`]), so that
//! neither the engine nor the agent ever meets an unknown name or a wrong type again.

use super::table;
use crate::base::diagnostic;

pub use super::coerce::{ArgProblem, check_literal_args, coerce};

/// One module: how it is called and who does the work.
#[derive(Debug, PartialEq)]
pub struct ModuleSpec {
    /// Short name, also the name that travels to the agent.
    pub name: &'static str,
    pub collection: Collection,
    /// Other short names for the same module.
    pub aliases: &'static [&'static str],
    /// The argument that free text after the module's name goes to (`command: ls /`).
    pub free_form: Option<&'static str>,
    pub args: &'static [ArgSpec],
    /// How arguments stand to each other.
    pub rules: &'static [Rule],
    /// Takes any further argument, as `set_fact` does.
    pub open: bool,
    pub runs: Runs,
    /// Can say what would change without changing it; others are skipped in check mode.
    pub supports_check: bool,
}

/// Where Ansible keeps the module, and with it the module's long names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    Builtin,
    Posix,
    General,
    /// The lab's own; Ansible does not know it.
    Lab,
}

/// Who does a module's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The agent, on the host.
    Agent,
    /// The engine reads or renders something here, then has the agent do another module
    /// (`template` becomes `copy`, `fetch` becomes `slurp`).
    Staged,
    /// The engine alone.
    Controller,
    /// The lab: machines and cables.
    Lab,
}

/// One argument of a module.
#[derive(Debug, PartialEq)]
pub struct ArgSpec {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub kind: ArgKind,
    pub required: bool,
    /// As it would be typed; brought into the argument's kind like any other text.
    pub default: Option<&'static str>,
    /// Empty: any value of the kind.
    pub choices: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    Str,
    Bool,
    Int,
    Float,
    /// Text; the module expands `~` and `$NAME` on the host.
    Path,
    /// Permission bits, octal or symbolic; a number becomes octal text.
    Mode,
    /// A list of texts; "a,b" is split.
    List,
    /// A list of anything.
    RawList,
    Dict,
    /// Whatever was written.
    Raw,
}

/// How arguments of one module stand to each other.
#[derive(Debug, PartialEq)]
pub enum Rule {
    /// At most one of these.
    Exclusive(&'static [&'static str]),
    /// At least one of these.
    OneOf(&'static [&'static str]),
    /// Who gives the first must give the second.
    Requires(&'static str, &'static str),
    /// When the first has the second as its value, the third is needed.
    Needs(&'static str, &'static str, &'static str),
}

impl ModuleSpec {
    /// Returns the argument of this name or alias.
    pub fn arg(&self, name: &str) -> Option<&'static ArgSpec> {
        self.args
            .iter()
            .find(|arg| arg.name == name || arg.aliases.contains(&name))
    }

    /// Returns the name under which Ansible knows the module, `ansible.builtin.copy`.
    pub fn long_name(&self) -> String {
        format!("{}.{}", self.collection.prefix(), self.name)
    }

    fn is_called(&self, short: &str) -> bool {
        self.name == short || self.aliases.contains(&short)
    }
}

impl Collection {
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Builtin => "ansible.builtin",
            Self::Posix => "ansible.posix",
            Self::General => "community.general",
            Self::Lab => "halab",
        }
    }

    /// Whether `prefix.module` names a module of this collection. Ansible redirects the
    /// two builtin prefixes to modules that moved out.
    fn answers_to(self, prefix: &str) -> bool {
        prefix == self.prefix()
            || (self != Self::Lab && ["ansible.builtin", "ansible.legacy"].contains(&prefix))
    }
}

impl ArgKind {
    /// Returns what a value of this kind is, for messages: "a whole number".
    pub fn expectation(self) -> &'static str {
        match self {
            Self::Str => "text",
            Self::Bool => "a boolean (true or false)",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Path => "a path",
            Self::Mode => "permission bits, such as '0644' or 'u=rw,go=r'",
            Self::List | Self::RawList => "a list",
            Self::Dict => "a mapping",
            Self::Raw => "any value",
        }
    }
}

/// Returns the module of this short, alias or long name.
pub fn lookup(name: &str) -> Option<&'static ModuleSpec> {
    match name.rsplit_once('.') {
        None => table::modules().find(|module| module.is_called(name)),
        Some((prefix, short)) => table::modules()
            .find(|module| module.collection.answers_to(prefix) && module.is_called(short)),
    }
}

/// Returns every short name and alias.
pub fn names() -> impl Iterator<Item = &'static str> {
    table::modules()
        .flat_map(|module| std::iter::once(module.name).chain(module.aliases.iter().copied()))
}

/// Returns the module's name that is most like what was typed, long when that was long.
pub fn nearest_name(typed: &str) -> Option<String> {
    let Some((_, short)) = typed.rsplit_once('.') else {
        return diagnostic::nearest(typed, names()).map(str::to_owned);
    };
    let near = lookup(short).or_else(|| lookup(diagnostic::nearest(short, names())?))?;
    Some(near.long_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_module_answers_to_its_short_alias_and_long_names() {
        let copy = lookup("copy").expect("copy is a module");
        assert_eq!(lookup("ansible.builtin.copy"), Some(copy));
        assert_eq!(lookup("ansible.legacy.copy"), Some(copy));
        assert_eq!(
            lookup("ansible.posix.sysctl"),
            lookup("ansible.builtin.sysctl")
        );
        assert_eq!(lookup("systemd_service"), lookup("systemd"));
        assert_eq!(lookup("ansible.posix.copy"), None);
        assert_eq!(lookup("ansible.builtin.http_check"), None);
    }

    #[test]
    fn the_nearest_name_is_as_long_as_what_was_typed() {
        assert_eq!(nearest_name("coppy").as_deref(), Some("copy"));
        assert_eq!(
            nearest_name("ansible.builtin.coppy").as_deref(),
            Some("ansible.builtin.copy")
        );
        assert_eq!(
            nearest_name("ansible.posix.copy").as_deref(),
            Some("ansible.builtin.copy")
        );
        assert_eq!(nearest_name("zzz"), None);
    }

    #[test]
    fn no_two_modules_or_arguments_share_a_name() {
        let mut seen = HashSet::new();
        assert!(names().all(|name| seen.insert(name)));
        for module in table::modules() {
            let mut seen = HashSet::new();
            for arg in module.args {
                assert!(seen.insert(arg.name), "{}: {}", module.name, arg.name);
                for alias in arg.aliases {
                    assert!(seen.insert(alias), "{}: {alias}", module.name);
                }
            }
        }
    }

    #[test]
    fn rules_and_free_forms_speak_of_arguments_that_exist() {
        for module in table::modules() {
            let mut mentioned: Vec<&str> = module.free_form.into_iter().collect();
            for rule in module.rules {
                match rule {
                    Rule::Exclusive(args) | Rule::OneOf(args) => {
                        mentioned.extend(*args);
                    }
                    Rule::Requires(left, right) | Rule::Needs(left, _, right) => {
                        mentioned.extend([left, right]);
                    }
                }
            }
            for name in mentioned {
                let arg = module.args.iter().find(|arg| arg.name == name);
                assert!(arg.is_some(), "{}: {name}", module.name);
            }
        }
    }

    #[test]
    fn every_default_is_a_valid_value() {
        for module in table::modules() {
            for arg in module.args {
                if let Some(default) = arg.default {
                    let value = super::super::coerce::value(arg, &default.into());
                    assert!(value.is_ok(), "{}: {}", module.name, arg.name);
                }
            }
        }
    }
}
