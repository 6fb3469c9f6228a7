//! From a range inside a scalar's value to the range in the file it was written in.
//!
//! A template error is found in the value, after quotes, escapes, folding and indents
//! were resolved; the reader wants the caret under the characters typed.

use std::ops::Range;

use crate::base::diagnostic::Origin;

/// Returns where a range (in bytes) of a scalar's text was written; the whole scalar when that cannot be told.
pub(super) fn within(origin: &Origin, value: &str, range: Range<usize>) -> Origin {
    match offsets(origin.text(), value) {
        Some(offsets) if range.start < value.len() => {
            let start = offsets[range.start];
            let last = range.end.clamp(range.start + 1, value.len()) - 1;
            let width = value[floor(value, last)..]
                .chars()
                .next()
                .map_or(1, char::len_utf8);
            let end = offsets[last] + width;
            Origin::new(&origin.source, origin.start + start, origin.start + end)
        }
        _ => origin.clone(),
    }
}

fn floor(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// For each byte of the value, the offset of its character in the written text.
fn offsets(written: &str, value: &str) -> Option<Vec<usize>> {
    let (mut at, quote) = opening(written, value);
    let mut offsets = Vec::with_capacity(value.len());
    for wanted in value.chars() {
        let start = find(written, &mut at, wanted, quote)?;
        offsets.extend(std::iter::repeat_n(start, wanted.len_utf8()));
    }
    Some(offsets)
}

/// Skips what opens the scalar: a quote, or a block's header line.
fn opening(written: &str, value: &str) -> (usize, Option<char>) {
    match written.chars().next() {
        Some(quote @ ('"' | '\'')) if !value.starts_with(quote) => (1, Some(quote)),
        Some(quote @ ('"' | '\'')) if written.len() > value.len() => (1, Some(quote)),
        Some(mark @ ('|' | '>')) if !value.starts_with(mark) => (
            written.find('\n').map_or(written.len(), |end| end + 1),
            None,
        ),
        _ => (0, None),
    }
}

/// Finds the next character of the value at or after `at` and moves behind it.
fn find(written: &str, at: &mut usize, wanted: char, quote: Option<char>) -> Option<usize> {
    loop {
        let start = *at;
        let found = written.get(start..)?.chars().next()?;
        *at += found.len_utf8();
        if found == '\\' && quote == Some('"') {
            skip_escape(written, at, wanted);
            return Some(start);
        }
        if found == wanted {
            if quote == Some('\'') && found == '\'' && written[*at..].starts_with('\'') {
                *at += 1;
            }
            return Some(start);
        }
        // A folded line break is a space (or a break) in the value; indents are nothing.
        if !found.is_whitespace() {
            return None;
        }
        if wanted == ' ' && found == '\n' {
            let rest = &written[*at..];
            *at += rest.len() - rest.trim_start().len();
            return Some(start);
        }
    }
}

/// Moves behind an escape of a double-quoted scalar whose backslash was just read.
fn skip_escape(written: &str, at: &mut usize, wanted: char) {
    let Some(kind) = written[*at..].chars().next() else {
        return;
    };
    *at += kind.len_utf8();
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '\n' => {
            let rest = &written[*at..];
            *at += rest.len() - rest.trim_start().len();
            if written[*at..].starts_with(wanted) {
                *at += wanted.len_utf8();
            }
            0
        }
        _ => 0,
    };
    *at = (*at + digits).min(written.len());
    while !written.is_char_boundary(*at) {
        *at -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use crate::base::yaml;
    use proptest::prelude::*;

    fn shown(yaml_text: &str, needle: &str) -> String {
        let tree = yaml::parse(&Source::new("t", yaml_text)).expect("it is YAML");
        let node = tree.get("k").expect("the key is there");
        let value = node.as_str().expect("text");
        let start = value.find(needle).expect("it is in the value");
        let origin = within(&node.origin, value, start..start + needle.len());
        format!("{}:{}", origin, origin.text())
    }

    #[test]
    fn the_caret_stands_under_the_characters_typed() {
        assert_eq!(shown("k: a {{ foo }}\n", "foo"), "t:1:9:foo");
        assert_eq!(shown("k: 'it''s {{ foo }}'\n", "foo"), "t:1:14:foo");
        assert_eq!(shown("k: \"a\\n\\\"{{ foo }}\"\n", "foo"), "t:1:13:foo");
        assert_eq!(shown("k: |\n  one\n  {{ foo }}\n", "foo"), "t:3:6:foo");
        assert_eq!(shown("k: >-\n  one\n  {{ foo }}\n", "foo"), "t:3:6:foo");
        assert_eq!(shown("k: one\n  two {{ foo }}\n", "foo"), "t:2:10:foo");
        assert_eq!(shown("k: é {{ foo }}\n", "foo"), "t:1:9:foo");
    }

    proptest! {
        #[test]
        fn any_scalar_and_range_give_a_place_inside_the_file(
            text in "\\PC{0,40}", value in "\\PC{0,40}", start in 0usize..50, length in 0usize..50,
        ) {
            let source = Source::new("t", text.clone());
            let origin = Origin::new(&source, 0, text.len());
            let place = within(&origin, &value, start..start + length);
            prop_assert!(place.end <= text.len());
        }
    }
}
