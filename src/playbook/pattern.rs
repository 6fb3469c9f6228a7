//! Host patterns: `all`, `web*`, `lab:&reals:!rs2`, `reals[0]`, `~rs[12]`.
//!
//! The rules are Ansible's, but a name that matches nothing is an error with the nearest
//! name instead of a warning: a play that silently runs on nobody helps nobody.

use std::ops::Range;

use fancy_regex::Regex;

use super::inventory::Inventory;
use super::place;
use crate::base::diagnostic::{Diagnostic, Origin};

/// A pattern and, where it was written in a file, its place.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    pub origin: Option<Origin>,
}

impl Pattern {
    /// A pattern of the command line.
    pub fn typed(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            origin: None,
        }
    }

    fn place(&self, range: Range<usize>) -> Option<Origin> {
        let origin = self.origin.as_ref()?;
        Some(place::within(origin, &self.text, range))
    }
}

impl Inventory {
    /// Returns the hosts all patterns together choose, each once, in the order named.
    pub fn select(&self, patterns: &[Pattern]) -> Result<Vec<String>, Diagnostic> {
        let mut parts: Vec<(&Pattern, Range<usize>)> = patterns
            .iter()
            .flat_map(|pattern| {
                split(&pattern.text)
                    .into_iter()
                    .map(move |range| (pattern, range))
            })
            .collect();
        // Ansible asks for unions first, then intersections, then exclusions.
        parts.sort_by_key(
            |(pattern, range)| match pattern.text.as_bytes()[range.start] {
                b'!' => 2,
                b'&' => 1,
                _ => 0,
            },
        );
        let plain = |(pattern, range): &(&Pattern, Range<usize>)| {
            !pattern.text[range.clone()].starts_with(['!', '&'])
        };
        let mut hosts = if parts.iter().any(plain) || parts.is_empty() {
            Vec::new()
        } else {
            self.host_names()
        };
        for (pattern, range) in parts {
            let text = &pattern.text[range.clone()];
            let bare = text.trim_start_matches(['!', '&']);
            let matched = self.matching(bare).map_err(|problem| {
                match pattern.place(range.end - bare.len()..range.end) {
                    Some(origin) => problem.at(&origin),
                    None => problem,
                }
            })?;
            match text.as_bytes()[0] {
                b'!' => hosts.retain(|host| !matched.contains(host)),
                b'&' => hosts.retain(|host| matched.contains(host)),
                _ => {
                    for host in matched {
                        if !hosts.contains(&host) {
                            hosts.push(host);
                        }
                    }
                }
            }
        }
        Ok(hosts)
    }

    /// Hosts of one pattern without its sign.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, Diagnostic> {
        if self.hosts.contains_key(pattern) {
            return Ok(vec![pattern.to_owned()]);
        }
        let (name, subscript) = subscript(pattern);
        let matcher = Matcher::new(name)?;
        let groups: Vec<&String> = self
            .groups
            .keys()
            .filter(|group| matcher.is_match(group))
            .collect();
        let mut found: Vec<String> = Vec::new();
        for group in &groups {
            found.extend(self.hosts_of(group));
        }
        if groups.is_empty() || name.starts_with('~') || name.contains(['.', '?', '*', '[']) {
            found.extend(
                self.hosts
                    .keys()
                    .filter(|host| matcher.is_match(host))
                    .cloned(),
            );
        }
        if found.is_empty() && ["localhost", "127.0.0.1", "::1"].contains(&name) {
            found.push("localhost".to_owned());
        }
        let mut seen = Vec::with_capacity(found.len());
        for host in found {
            if !seen.contains(&host) {
                seen.push(host);
            }
        }
        if seen.is_empty() && groups.is_empty() && name != "all" {
            return Err(self.nobody(name));
        }
        match subscript {
            None => Ok(seen),
            Some(subscript) => subscript.take(&seen).ok_or_else(|| {
                Diagnostic::error(format!(
                    "`{pattern}` chooses no host: {}",
                    counted(seen.len(), name)
                ))
                .label("out of range")
            }),
        }
    }

    fn nobody(&self, name: &str) -> Diagnostic {
        let known = self
            .groups
            .keys()
            .chain(self.hosts.keys())
            .map(String::as_str);
        let groups: Vec<&str> = self
            .groups
            .keys()
            .map(String::as_str)
            .filter(|group| *group != "ungrouped")
            .collect();
        Diagnostic::error(format!("no host or group is called `{name}`"))
            .label("matches nothing in the inventory")
            .nearest(name, known)
            .help(format!("groups there are: {}", groups.join(", ")))
    }
}

fn counted(hosts: usize, name: &str) -> String {
    match hosts {
        1 => format!("`{name}` has 1 host, [0]"),
        hosts => format!(
            "`{name}` has {hosts} hosts, [0] to [{}]",
            hosts.saturating_sub(1)
        ),
    }
}

/// Splits at `,`, or at `:` outside brackets when there is no comma; blanks do not count.
fn split(text: &str) -> Vec<Range<usize>> {
    let separator = if text.contains(',') { ',' } else { ':' };
    let address = text.parse::<std::net::Ipv6Addr>().is_ok();
    let mut parts = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (offset, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if character == separator && !address && (separator == ',' || depth == 0) => {
                parts.push(start..offset);
                start = offset + 1;
            }
            _ => {}
        }
    }
    parts.push(start..text.len());
    parts
        .into_iter()
        .filter_map(|part| {
            let inner = &text[part.clone()];
            let trimmed = inner.trim();
            let lead = part.start + inner.len() - inner.trim_start().len();
            (!trimmed.trim_start_matches(['!', '&']).is_empty()).then(|| lead..lead + trimmed.len())
        })
        .flat_map(|range| {
            // Between commas a part may still be joined by colons.
            let inner = &text[range.clone()];
            if separator == ',' && inner.contains(':') {
                split(inner)
                    .into_iter()
                    .map(|part| range.start + part.start..range.start + part.end)
                    .collect()
            } else {
                vec![range]
            }
        })
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Subscript {
    One(i64),
    /// Both ends included.
    Span(usize, Option<usize>),
}

impl Subscript {
    fn take(self, hosts: &[String]) -> Option<Vec<String>> {
        match self {
            Self::One(index) => {
                let length = i64::try_from(hosts.len()).ok()?;
                let index = if index < 0 { index + length } else { index };
                let index = usize::try_from(index).ok()?;
                hosts.get(index).map(|host| vec![host.clone()])
            }
            Self::Span(from, to) => {
                let end = to.map_or(hosts.len(), |to| (to + 1).min(hosts.len()));
                let span = hosts.get(from..end.max(from))?;
                (!span.is_empty()).then(|| span.to_vec())
            }
        }
    }
}

fn subscript(pattern: &str) -> (&str, Option<Subscript>) {
    if pattern.starts_with('~') {
        return (pattern, None);
    }
    let Some((name, inside)) = pattern
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
        .filter(|(name, _)| !name.is_empty())
    else {
        return (pattern, None);
    };
    let parsed = match inside.split_once(':') {
        Some((from, "")) => from.parse().ok().map(|from| Subscript::Span(from, None)),
        Some((from, to)) => from
            .parse()
            .ok()
            .zip(to.parse().ok())
            .map(|(from, to)| Subscript::Span(from, Some(to))),
        None => inside.parse().ok().map(Subscript::One),
    };
    match parsed {
        Some(subscript) => (name, Some(subscript)),
        None => (pattern, None),
    }
}

/// A shell glob, or a regular expression after `~`, at the beginning of a name.
struct Matcher(Regex);

impl Matcher {
    fn new(pattern: &str) -> Result<Self, Diagnostic> {
        let expression = match pattern.strip_prefix('~') {
            Some(regex) => format!("^(?:{regex})"),
            None => format!("^(?s:{})$", glob_regex(pattern)),
        };
        Regex::new(&expression).map(Self).map_err(|error| {
            Diagnostic::error(format!("`{pattern}` is no pattern: {error}"))
                .label("not a regular expression or glob")
        })
    }

    fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name).unwrap_or(false)
    }
}

/// `*`, `?`, `[abc]`, `[!abc]` as a regular expression.
pub(super) fn glob_regex(glob: &str) -> String {
    let mut regex = String::new();
    let mut rest = glob.chars();
    while let Some(character) = rest.next() {
        match character {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => {
                let inside: String = rest.clone().take_while(|next| *next != ']').collect();
                let closed = rest.clone().any(|next| next == ']');
                if closed && !inside.is_empty() {
                    let negated = inside.strip_prefix('!').map(|set| format!("^{set}"));
                    let set = negated
                        .unwrap_or_else(|| inside.clone())
                        .replace('\\', "\\\\")
                        .replace('[', "\\[");
                    regex.extend(["[", &set, "]"]);
                    rest.nth(inside.chars().count());
                } else {
                    regex.push_str("\\[");
                }
            }
            other => regex.push_str(&fancy_regex::escape(&other.to_string())),
        }
    }
    regex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::files::Memory;
    use proptest::prelude::*;

    fn inventory() -> Inventory {
        let text = "zeta\n[reals]\nrs2\nrs1\n[dirs]\nd1\n[lab:children]\nreals\ndirs\n";
        let loader = Memory::new([("i.ini", text)]);
        Inventory::load(&["i.ini".to_owned()], &loader).expect("a good inventory")
    }

    /// As `ansible --list-hosts` of 2.19.14 lists them.
    #[test]
    fn patterns_choose_what_ansible_chooses() {
        let table = [
            ("all", "zeta rs2 rs1 d1"),
            ("*", "zeta rs2 rs1 d1"),
            ("reals:d*", "rs2 rs1 d1"),
            ("lab", "rs2 rs1 d1"),
            ("all:!d1", "zeta rs2 rs1"),
            ("lab:&reals", "rs2 rs1"),
            ("lab[1:2]", "rs1 d1"),
            ("lab[1:]", "rs1 d1"),
            ("lab[-1]", "d1"),
            ("reals,dirs", "rs2 rs1 d1"),
            ("reals[0],dirs", "rs2 d1"),
            ("~rs.", "rs2 rs1"),
            ("dirs:reals:!rs2", "d1 rs1"),
            ("!d1", "zeta rs2 rs1"),
            ("ungrouped", "zeta"),
            ("localhost", "localhost"),
        ];
        for (pattern, expected) in table {
            let hosts = inventory()
                .select(&[Pattern::typed(pattern)])
                .expect(pattern);
            assert_eq!(hosts.join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn a_name_that_matches_nothing_is_an_error_with_the_nearest() {
        let problem = inventory()
            .select(&[Pattern::typed("real")])
            .expect_err("nobody");
        assert_eq!(problem.help[0], "did you mean `reals`?");
        let problem = inventory()
            .select(&[Pattern::typed("reals[5]")])
            .expect_err("range");
        assert!(
            problem.message.contains("2 hosts, [0] to [1]"),
            "{}",
            problem.message
        );
    }

    proptest! {
        #[test]
        fn any_pattern_chooses_or_is_refused(text in "[a-z0-9:,&!~*?\\[\\]\\-.()+é ]{0,30}") {
            let _ = inventory().select(&[Pattern::typed(&text)]);
        }
    }
}
