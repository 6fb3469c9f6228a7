//! `blockinfile`: lines between two marker lines; Ansible's rules to the letter.

use std::borrow::Cow;

use super::args::Args;
use super::lineinfile::Edit;
use super::outcome::Refusal;
use super::pattern::Pattern;
use super::text::{Text, lines_of};

type Lines<'t> = Vec<Cow<'t, str>>;

/// Decides what the file becomes; `None`: there is no file yet.
pub fn plan(file: Option<&Text>, args: Args<'_>) -> Result<Edit, Refusal> {
    let empty = Text::empty();
    let text = file.unwrap_or(&empty);
    let block = block_lines(text, args);
    let mut lines = lines_of(&text.content);
    let index = make_room(text, &mut lines, args)?;
    insert(&mut lines, index, &block, args);
    let content = lines.concat();
    let changed = file.is_none() || content != text.content;
    let msg = match (changed, file.is_some(), block.is_empty()) {
        (false, _, _) => "",
        (true, false, _) => "File created",
        (true, true, true) => "Block removed",
        (true, true, false) => "Block inserted",
    };
    Ok(Edit {
        content,
        changed,
        msg: msg.to_owned(),
        found: None,
    })
}

fn marker(text: &Text, args: Args<'_>, side: &str) -> String {
    let marker = args.word("marker").replace("{mark}", args.word(side));
    format!("{}\n", text.foreign(&marker))
}

/// Returns the block with its markers; nothing when the block goes or is empty.
fn block_lines(text: &Text, args: Args<'_>) -> Vec<String> {
    let block = args.word("block");
    if args.word("state") == "absent" || block.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![marker(text, args, "marker_begin")];
    lines.extend(text.foreign(block).split_inclusive('\n').map(str::to_owned));
    if let Some(last) = lines.last_mut()
        && !last.ends_with('\n')
    {
        last.push('\n');
    }
    lines.push(marker(text, args, "marker_end"));
    lines
}

/// Takes the old block out; returns where the new one goes.
fn make_room(text: &Text, lines: &mut Lines<'_>, args: Args<'_>) -> Result<usize, Refusal> {
    let last_of = |side: &str| {
        let marker = marker(text, args, side);
        lines.iter().rposition(|line| *line == marker)
    };
    if let (Some(begin), Some(end)) = (last_of("marker_begin"), last_of("marker_end")) {
        let (first, last) = (begin.min(end), begin.max(end));
        lines.drain(first..=last);
        return Ok(first);
    }
    let expression = match (args.text("insertafter"), args.text("insertbefore")) {
        (None | Some("EOF"), None) => return Ok(lines.len()),
        (None, Some("BOF")) => return Ok(0),
        (Some(after), _) => after,
        (None, Some(before)) => before,
    };
    let pattern = Pattern::new(&text.foreign(expression))?;
    let found = if expression.contains("(?m") {
        line_of_match(&pattern, &text.content, args.has("insertafter"))
    } else {
        let matches = |line: &Cow<'_, str>| pattern.is_in(line.strip_suffix('\n').unwrap_or(line));
        lines.iter().rposition(matches)
    };
    Ok(match found {
        None => lines.len(),
        Some(index) => index + usize::from(args.has("insertafter")),
    })
}

/// Returns the line in which a match over several lines ends or begins.
fn line_of_match(pattern: &Pattern, content: &str, at_end: bool) -> Option<usize> {
    let found = pattern.search(content)?;
    let whole = found.get(0)?;
    let place = if at_end { whole.end() } else { whole.start() };
    Some(content[..place].matches('\n').count())
}

fn insert(lines: &mut Lines<'_>, mut index: usize, block: &[String], args: Args<'_>) {
    const BLANK: Cow<'static, str> = Cow::Borrowed("\n");
    if index > 0 && !lines[index - 1].ends_with('\n') {
        lines[index - 1].to_mut().push('\n');
    }
    let is_present = args.word("state") == "present";
    if args.flag("prepend_newline") && is_present && index > 0 && lines[index - 1] != BLANK {
        lines.insert(index, BLANK);
        index += 1;
    }
    let after = index + block.len();
    lines.splice(
        index..index,
        block.iter().map(|line| Cow::Owned(line.clone())),
    );
    if args.flag("append_newline") && is_present && after < lines.len() && lines[after] != BLANK {
        lines.insert(after, BLANK);
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn edited(content: Option<&str>, mut args: Value) -> Edit {
        args["path"] = "/x".into();
        let Value::Object(map) = args else {
            panic!("a mapping")
        };
        let args = coerce(lookup("blockinfile").expect("known"), &map).expect("valid");
        let text = content.map(|content| Text::from_bytes(content.as_bytes().to_vec()));
        plan(text.as_ref(), Args(&args)).expect("a plan")
    }

    const BLOCK: &str = "# BEGIN ANSIBLE MANAGED BLOCK\nx\n# END ANSIBLE MANAGED BLOCK\n";

    #[test]
    fn a_block_is_added_changed_and_removed() {
        let added = edited(Some("a"), json!({"block": "x"}));
        assert_eq!(added.content, format!("a\n{BLOCK}"));
        assert_eq!(added.msg, "Block inserted");
        let changed = edited(Some(&added.content), json!({"block": "y\nz\n"}));
        assert!(
            changed
                .content
                .contains("BEGIN ANSIBLE MANAGED BLOCK\ny\nz\n# END")
        );
        let removed = edited(Some(&changed.content), json!({"state": "absent"}));
        assert_eq!(
            (removed.content.as_str(), removed.msg.as_str()),
            ("a\n", "Block removed")
        );
    }

    #[test]
    fn a_new_file_holds_the_block_alone() {
        let created = edited(None, json!({"block": "x"}));
        assert_eq!(
            (created.content.as_str(), created.msg.as_str()),
            (BLOCK, "File created")
        );
    }

    #[test]
    fn a_block_goes_where_it_is_told_with_blank_lines_around() {
        let args = json!({"block": "x", "insertafter": "^a", "append_newline": true, "prepend_newline": true});
        assert_eq!(
            edited(Some("a\nb\n"), args).content,
            format!("a\n\n{BLOCK}\nb\n")
        );
    }

    proptest! {
        #[test]
        fn twice_is_the_same_as_once(
            content in "([ab]{0,2}\n){0,6}[ab]{0,2}",
            block in "[ab\n]{1,6}",
            place in proptest::option::of("[ab^$]{1,2}|EOF"),
        ) {
            let mut args = json!({"block": block});
            if let Some(place) = place {
                args["insertafter"] = place.into();
            }
            let once = edited(Some(&content), args.clone());
            prop_assert!(!edited(Some(&once.content), args).changed);
        }
    }
}
