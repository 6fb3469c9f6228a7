//! `lineinfile`: one line is in a file, or lines are not; Ansible's rules to the letter.

use std::borrow::Cow;

use super::args::Args;
use super::outcome::Refusal;
use super::pattern::{Pattern, expand};
use super::text::{Text, lines_of, without_end};

/// What an editing module makes of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// In the text's own characters; see [`Text::bytes_of`].
    pub content: String,
    pub changed: bool,
    pub msg: String,
    /// How many lines an absent line had.
    pub found: Option<usize>,
}

type Lines<'t> = Vec<Cow<'t, str>>;

/// Where a new line goes when nothing is there to be replaced.
enum Insert {
    AtStart,
    AtEnd,
    After(Pattern),
    Before(Pattern),
}

/// What of the file is the line already, or stands for it.
enum Found {
    Nothing,
    /// A line that `regexp` or `search_string` matches: it is replaced by this text.
    Matched {
        index: usize,
        line: String,
    },
    /// The wanted line itself.
    Exact(usize),
}

/// Decides what `state: present` or `absent` makes of the file.
pub fn plan(file: &Text, args: Args<'_>) -> Result<Edit, Refusal> {
    if args.word("state") == "absent" {
        return absent(file, args);
    }
    let backrefs = args.flag("backrefs");
    if backrefs && !args.has("regexp") {
        return Err(Refusal::new("`backrefs` needs `regexp`"));
    }
    let wanted = file.foreign(args.word("line"));
    let insert = Insert::from_args(file, args)?;
    let mut lines = lines_of(&file.content);
    let anchor = insert.anchor(&lines, &wanted, args.flag("firstmatch"));
    let added = match find(file, &lines, args, &wanted, anchor)? {
        Found::Matched { index, line } => return Ok(replaced(lines, index, line)),
        Found::Exact(index) => {
            let line = wanted.clone().into_owned();
            return Ok(replaced(lines, index, line));
        }
        Found::Nothing if backrefs => false,
        Found::Nothing => insert.insert(&mut lines, &wanted, anchor),
    };
    Ok(Edit {
        content: lines.concat(),
        changed: added,
        msg: if added { "line added" } else { "" }.to_owned(),
        found: None,
    })
}

/// Looks for what stands for the line. With `firstmatch` the search for the line itself
/// ends at the anchor, as Ansible's does.
fn find(
    file: &Text,
    lines: &Lines<'_>,
    args: Args<'_>,
    wanted: &str,
    anchor: Option<usize>,
) -> Result<Found, Refusal> {
    let is_first = args.flag("firstmatch");
    let pick = |matches: &dyn Fn(&str) -> bool| {
        let mut numbered = lines.iter().enumerate().filter(|(_, line)| matches(line));
        let picked = if is_first {
            numbered.next()
        } else {
            numbered.next_back()
        };
        picked.map(|(index, _)| index)
    };
    if let Some(expression) = args.text("regexp") {
        let pattern = Pattern::new(&file.foreign(expression))?;
        if let Some(index) = pick(&|line| pattern.is_in(searched(line))) {
            let line = match pattern.search(searched(&lines[index])) {
                Some(found) if args.flag("backrefs") => expand(wanted, &found)?,
                _ => wanted.to_owned(),
            };
            return Ok(Found::Matched { index, line });
        }
    }
    if let Some(part) = args.text("search_string") {
        let part = file.foreign(part);
        if let Some(index) = pick(&|line| line.contains(part.as_ref())) {
            let line = wanted.to_owned();
            return Ok(Found::Matched { index, line });
        }
    }
    let end = anchor.filter(|_| is_first).unwrap_or(lines.len());
    let exact = lines[..end]
        .iter()
        .rposition(|line| without_end(line) == wanted);
    Ok(exact.map_or(Found::Nothing, Found::Exact))
}

/// Returns what of a line is searched: Python's `$` matches before the newline.
fn searched(line: &str) -> &str {
    line.strip_suffix('\n').unwrap_or(line)
}

fn replaced(mut lines: Lines<'_>, index: usize, mut line: String) -> Edit {
    if !line.ends_with('\n') {
        line.push('\n');
    }
    let changed = lines[index] != line;
    lines[index] = line.into();
    Edit {
        content: lines.concat(),
        changed,
        msg: if changed { "line replaced" } else { "" }.to_owned(),
        found: None,
    }
}

impl Insert {
    fn from_args(file: &Text, args: Args<'_>) -> Result<Self, Refusal> {
        let pattern = |expression: &str| Pattern::new(&file.foreign(expression));
        Ok(
            match (args.text("insertafter"), args.text("insertbefore")) {
                (Some("BOF"), _) | (_, Some("BOF")) => Self::AtStart,
                (None | Some("EOF"), None) => Self::AtEnd,
                (Some(expression), _) => Self::After(pattern(expression)?),
                (None, Some(expression)) => Self::Before(pattern(expression)?),
            },
        )
    }

    /// Finds the line that `insertafter` or `insertbefore` means: the last or the first
    /// that matches and is not the wanted one itself.
    fn anchor(&self, lines: &Lines<'_>, wanted: &str, first: bool) -> Option<usize> {
        let (Self::After(pattern) | Self::Before(pattern)) = self else {
            return None;
        };
        let is_anchor =
            |line: &Cow<'_, str>| without_end(line) != wanted && pattern.is_in(searched(line));
        if first {
            lines.iter().position(is_anchor)
        } else {
            lines.iter().rposition(is_anchor)
        }
    }

    /// Inserts the line; returns whether it was not there already.
    fn insert(&self, lines: &mut Lines<'_>, wanted: &str, anchor: Option<usize>) -> bool {
        let index = match (self, anchor) {
            (Self::AtStart, _) => 0,
            (Self::After(_), Some(anchor)) => anchor + 1,
            (Self::Before(_), Some(anchor)) => anchor,
            _ => lines.len(),
        };
        let follows_anchor = matches!(self, Self::After(_)) && anchor.is_some();
        if follows_anchor
            && lines
                .get(index)
                .is_some_and(|line| without_end(line) == wanted)
        {
            return false;
        }
        if index == lines.len() {
            end_last_line(lines);
        }
        lines.insert(index, format!("{wanted}\n").into());
        true
    }
}

/// Ends the last line, where it is not: what comes after it shall not join it.
fn end_last_line(lines: &mut Lines<'_>) {
    if let Some(last) = lines.last_mut()
        && !last.ends_with(['\n', '\r'])
    {
        last.to_mut().push('\n');
    }
}

fn absent(file: &Text, args: Args<'_>) -> Result<Edit, Refusal> {
    let pattern = match args.text("regexp") {
        Some(expression) => Some(Pattern::new(&file.foreign(expression))?),
        None => None,
    };
    let part = args.text("search_string").map(|part| file.foreign(part));
    let line = args.text("line").map(|line| file.foreign(line));
    if pattern.is_none() && part.is_none() && line.is_none() {
        return Err(Refusal::new(
            "`state: absent` needs one of `line`, `search_string`, `regexp`",
        ));
    }
    let goes = |current: &str| match (&pattern, &part, &line) {
        (Some(pattern), _, _) => pattern.is_in(searched(current)),
        (None, Some(part), _) => current.contains(part.as_ref()),
        (None, None, line) => line.as_deref() == Some(without_end(current)),
    };
    let mut lines = lines_of(&file.content);
    let before = lines.len();
    lines.retain(|current| !goes(current));
    let found = before - lines.len();
    Ok(Edit {
        content: lines.concat(),
        changed: found > 0,
        msg: if found > 0 {
            format!("{found} line(s) removed")
        } else {
            String::new()
        },
        found: Some(found),
    })
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn args(value: Value) -> Map<String, Value> {
        let Value::Object(mut map) = value else {
            panic!("a mapping")
        };
        map.insert("path".to_owned(), "/x".into());
        coerce(lookup("lineinfile").expect("known"), &map).expect("valid")
    }

    fn edited(content: &str, value: Value) -> Edit {
        let text = Text::from_bytes(content.as_bytes().to_vec());
        plan(&text, Args(&args(value))).expect("a plan")
    }

    #[test]
    fn a_missing_line_goes_to_the_end() {
        let edit = edited("a\nb", json!({"line": "c"}));
        assert_eq!(
            (edit.content.as_str(), edit.msg.as_str()),
            ("a\nb\nc\n", "line added")
        );
    }

    #[test]
    fn the_last_match_is_replaced_or_the_first_when_asked() {
        let content = "k=1\nk=2\n";
        assert_eq!(
            edited(content, json!({"line": "k=3", "regexp": "^k=\\d$"})).content,
            "k=1\nk=3\n"
        );
        let first = json!({"line": "k=3", "regexp": "^k=", "firstmatch": true});
        assert_eq!(edited(content, first).content, "k=3\nk=2\n");
    }

    #[test]
    fn back_references_come_from_the_match_and_without_one_nothing_happens() {
        let wanted = json!({"line": "\\1=9", "regexp": "^(k)=", "backrefs": true});
        assert_eq!(edited("k=1\n", wanted.clone()).content, "k=9\n");
        assert!(!edited("j=1\n", wanted).changed);
    }

    #[test]
    fn a_line_goes_after_or_before_what_matches() {
        let content = "one\ntwo\none\n";
        assert_eq!(
            edited(content, json!({"line": "x", "insertafter": "^one"})).content,
            "one\ntwo\none\nx\n"
        );
        let first = json!({"line": "x", "insertafter": "^one", "firstmatch": true});
        assert_eq!(edited(content, first).content, "one\nx\ntwo\none\n");
        assert_eq!(
            edited(content, json!({"line": "x", "insertbefore": "^two"})).content,
            "one\nx\ntwo\none\n"
        );
        assert_eq!(
            edited(content, json!({"line": "x", "insertbefore": "BOF"})).content,
            "x\none\ntwo\none\n"
        );
    }

    #[test]
    fn absent_lines_are_counted() {
        let edit = edited("a\nb\na\n", json!({"line": "a", "state": "absent"}));
        assert_eq!((edit.content.as_str(), edit.found), ("b\n", Some(2)));
    }

    proptest! {
        #[test]
        fn twice_is_the_same_as_once(
            content in "([ab]{0,2}\r?\n){0,6}[ab]{0,2}",
            line in "[ab]{0,3}",
            place in proptest::option::of("[ab^$]{1,2}|BOF|EOF"),
            before in any::<bool>(),
            first in any::<bool>(),
        ) {
            let mut wanted = json!({"line": line, "firstmatch": first});
            if let Some(place) = place {
                wanted[if before { "insertbefore" } else { "insertafter" }] = place.into();
            }
            let once = edited(&content, wanted.clone());
            let twice = edited(&once.content, wanted);
            prop_assert!(!twice.changed);
            prop_assert_eq!(twice.content, once.content);
        }

        #[test]
        fn an_absent_line_is_gone(content in "([ab]{0,2}\n){0,6}", line in "[ab]{1,2}") {
            let edit = edited(&content, json!({"line": line, "state": "absent"}));
            prop_assert!(!edit.content.lines().any(|left| left == line));
        }
    }
}
