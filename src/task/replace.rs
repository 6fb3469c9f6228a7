//! `replace`: every match of an expression becomes a text, in all of a file or a part.

use super::args::Args;
use super::lineinfile::Edit;
use super::outcome::Refusal;
use super::pattern::{Part, Pattern};
use super::text::Text;

/// What becomes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Edit(Edit),
    /// The part that `after` and `before` name is not there: nothing is touched, the
    /// message says so.
    Leave(String),
}

pub fn plan(file: &Text, args: Args<'_>) -> Result<Plan, Refusal> {
    let content = file.content.as_str();
    let section = match section(file, args)? {
        Section::All => 0..content.len(),
        Section::Part(range) => range,
        Section::Missing(expression) => {
            return Ok(Plan::Leave(format!(
                "Pattern for before/after params did not match the given file: {expression}"
            )));
        }
    };
    let pattern = Pattern::multi_line(&file.foreign(args.word("regexp")))?;
    let old = &content[section.clone()];
    let (new, count) = pattern.replace_all(old, &file.foreign(args.word("replace")))?;
    if new == old {
        return Ok(Plan::Edit(Edit {
            content: content.to_owned(),
            changed: false,
            msg: String::new(),
            found: None,
        }));
    }
    Ok(Plan::Edit(Edit {
        content: [&content[..section.start], &new, &content[section.end..]].concat(),
        changed: true,
        msg: format!("{count} replacements made"),
        found: None,
    }))
}

/// The part of a file between `after` and `before`.
enum Section {
    All,
    Part(std::ops::Range<usize>),
    /// The expression that should have found it.
    Missing(String),
}

fn section(file: &Text, args: Args<'_>) -> Result<Section, Refusal> {
    let expression = match (args.text("after"), args.text("before")) {
        (None, None) => return Ok(Section::All),
        (Some(after), Some(before)) => format!("{after}(?P<subsection>.*?){before}"),
        (Some(after), None) => format!("{after}(?P<subsection>.*)"),
        (None, Some(before)) => format!("(?P<subsection>.*){before}"),
    };
    let pattern = Pattern::across_lines(&file.foreign(&expression))?;
    let found = pattern.search(&file.content);
    let part = found.and_then(|found| found.name("subsection").map(Part::range));
    Ok(part.map_or(Section::Missing(expression), Section::Part))
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Value, json};

    fn edited(content: &str, args: Value) -> Edit {
        let Value::Object(map) = args else {
            panic!("a mapping")
        };
        let args = coerce(lookup("replace").expect("known"), &map).expect("valid");
        match plan(&Text::from_bytes(content.into()), Args(&args)) {
            Ok(Plan::Edit(edit)) => edit,
            other => panic!("no edit: {other:?}"),
        }
    }

    #[test]
    fn only_the_section_is_touched() {
        let args = json!({"path": "/x", "regexp": "^a$", "replace": "b", "after": "BEGIN", "before": "END"});
        let edit = edited("a\nBEGIN\na\na\nEND\na\n", args);
        assert_eq!(edit.content, "a\nBEGIN\nb\nb\nEND\na\n");
        assert_eq!(edit.msg, "2 replacements made");
    }

    #[test]
    fn a_replacement_that_is_the_same_is_no_change() {
        assert!(!edited("aa", json!({"path": "/x", "regexp": "a", "replace": "a"})).changed);
    }
}
