//! `find`: which of the files that were seen are meant.

use std::time::Duration;

use super::args::Args;
use super::outcome::Refusal;
use super::pattern::Pattern;
use super::wildcard;

/// One file as the walk saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    pub is_directory: bool,
    pub is_link: bool,
    pub is_file: bool,
    pub size: u64,
    /// Times since 1970.
    pub modified: Duration,
    pub accessed: Duration,
    pub status_changed: Duration,
    /// Read only when the criteria ask for it.
    pub content: Option<String>,
}

/// What a task looks for.
#[derive(Clone, Debug)]
pub struct Criteria {
    patterns: Vec<NamePattern>,
    excludes: Vec<NamePattern>,
    contains: Option<Pattern>,
    kind: Kind,
    age: Option<Bound>,
    stamp: Stamp,
    size: Option<Bound>,
    now: Duration,
    recurses: bool,
    depth: Option<u64>,
    hidden: bool,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Any,
    Directory,
    File,
    Link,
}

#[derive(Clone, Copy, Debug)]
enum Stamp {
    Modified,
    Accessed,
    StatusChanged,
}

#[derive(Clone, Debug)]
enum NamePattern {
    Wildcard(String),
    Expression(Pattern),
}

/// At least so much, or at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    AtLeast(u64),
    AtMost(u64),
}

impl Criteria {
    /// `now` is the time since 1970.
    pub fn from_args(args: Args<'_>, now: Duration) -> Result<Self, Refusal> {
        let is_regex = args.flag("use_regex");
        let patterns = |name: &str| -> Result<Vec<NamePattern>, Refusal> {
            let texts = args.list(name).into_iter();
            texts
                .map(|text| {
                    if is_regex {
                        Pattern::new(&format!("^(?:{text})")).map(NamePattern::Expression)
                    } else {
                        Ok(NamePattern::Wildcard(text.to_owned()))
                    }
                })
                .collect()
        };
        let contains = args.text("contains").map(|text| {
            if args.flag("read_whole_file") {
                Pattern::new(text)
            } else {
                Pattern::multi_line(&format!("^(?:{text})"))
            }
        });
        Ok(Self {
            patterns: patterns("patterns")?,
            excludes: patterns("excludes")?,
            contains: contains.transpose()?,
            kind: match args.word("file_type") {
                "any" => Kind::Any,
                "directory" => Kind::Directory,
                "link" => Kind::Link,
                _ => Kind::File,
            },
            age: bound(args, "age", AGE_UNITS)?,
            stamp: match args.word("age_stamp") {
                "atime" => Stamp::Accessed,
                "ctime" => Stamp::StatusChanged,
                _ => Stamp::Modified,
            },
            size: bound(args, "size", SIZE_UNITS)?,
            now,
            recurses: args.flag("recurse"),
            depth: args
                .number("depth")
                .and_then(|depth| u64::try_from(depth).ok()),
            hidden: args.flag("hidden"),
            limit: args
                .number("limit")
                .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(0)),
        })
    }

    /// Whether directories at this depth (the root's own entries are 1) are entered.
    pub fn descends(&self, depth: u64) -> bool {
        self.recurses && self.depth.is_none_or(|most| depth < most)
    }

    /// Whether a name is looked at, at all.
    pub fn shows(&self, name: &str) -> bool {
        self.hidden || !name.starts_with('.')
    }

    pub fn reads_content(&self) -> bool {
        self.contains.is_some()
    }

    pub fn accepts(&self, seen: &Seen) -> bool {
        let is_kind = match self.kind {
            Kind::Any => true,
            Kind::Directory => seen.is_directory,
            Kind::File => seen.is_file,
            Kind::Link => seen.is_link,
        };
        let stamp = match self.stamp {
            Stamp::Modified => seen.modified,
            Stamp::Accessed => seen.accessed,
            Stamp::StatusChanged => seen.status_changed,
        };
        let age = self.now.saturating_sub(stamp).as_secs();
        let named =
            |patterns: &[NamePattern]| patterns.iter().any(|pattern| pattern.is(&seen.name));
        is_kind
            && self.shows(&seen.name)
            && (self.patterns.is_empty() || named(&self.patterns))
            && !named(&self.excludes)
            && self.age.is_none_or(|bound| bound.holds(age))
            && (!seen.is_file || self.size.is_none_or(|bound| bound.holds(seen.size)))
            && self.contains.as_ref().is_none_or(|pattern| {
                seen.content
                    .as_deref()
                    .is_some_and(|content| pattern.is_in(content))
            })
    }
}

impl NamePattern {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Wildcard(pattern) => wildcard::matches_anything(pattern, name),
            Self::Expression(pattern) => pattern.is_in(name),
        }
    }
}

impl Bound {
    fn holds(self, value: u64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// Seconds.
const AGE_UNITS: &[(char, u64)] = &[
    ('s', 1),
    ('m', 60),
    ('h', 3600),
    ('d', 86_400),
    ('w', 604_800),
];
/// Bytes.
const SIZE_UNITS: &[(char, u64)] = &[
    ('b', 1),
    ('k', 1 << 10),
    ('m', 1 << 20),
    ('g', 1 << 30),
    ('t', 1 << 40),
];

/// Reads `3d` (at least) or `-3d` (at most).
fn bound(args: Args<'_>, name: &str, units: &[(char, u64)]) -> Result<Option<Bound>, Refusal> {
    let Some(text) = args.text(name) else {
        return Ok(None);
    };
    let lower = text.trim().to_ascii_lowercase();
    let (is_most, number) = match lower.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, lower.as_str()),
    };
    let unit = units.iter().find(|(unit, _)| number.ends_with(*unit));
    let (digits, factor) = match unit {
        Some((unit, factor)) => (number.trim_end_matches(*unit), *factor),
        None => (number, 1),
    };
    let value = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    let value =
        value.ok_or_else(|| Refusal::new(format!("failed to understand {name} `{text}`")))?;
    Ok(Some(if is_most {
        Bound::AtMost(value)
    } else {
        Bound::AtLeast(value)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Value, json};

    fn accepts(args: Value, seen: &Seen) -> bool {
        let Value::Object(mut map) = args else {
            panic!("a mapping")
        };
        map.insert("paths".to_owned(), "/".into());
        let args = coerce(lookup("find").expect("known"), &map).expect("valid");
        let criteria = Criteria::from_args(Args(&args), Duration::from_secs(1_000_000));
        criteria.expect("valid").accepts(seen)
    }

    fn log() -> Seen {
        Seen {
            name: "a.log".to_owned(),
            is_directory: false,
            is_link: false,
            is_file: true,
            size: 2048,
            modified: Duration::from_secs(1_000_000 - 7200),
            accessed: Duration::ZERO,
            status_changed: Duration::ZERO,
            content: Some("one\ntwo\n".to_owned()),
        }
    }

    #[test]
    fn every_criterion_has_to_hold() {
        assert!(accepts(
            json!({"patterns": "*.log,*.txt", "age": "1h", "size": "1k"}),
            &log()
        ));
        assert!(!accepts(json!({"age": "1d"}), &log()));
        assert!(accepts(json!({"age": "-1d", "contains": "tw"}), &log()));
        assert!(!accepts(json!({"contains": "wo"}), &log()));
        assert!(!accepts(json!({"excludes": "a*"}), &log()));
        assert!(!accepts(json!({"file_type": "directory"}), &log()));
        assert!(accepts(
            json!({"patterns": "^a\\.", "use_regex": true}),
            &log()
        ));
        assert!(!accepts(
            json!({}),
            &Seen {
                name: ".a".to_owned(),
                ..log()
            }
        ));
    }
}
