//! Text split into words as a shell would, for `key=value` lists: `-e`, inventories,
//! and a module's arguments written on one line.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use crate::base::diagnostic::{Diagnostic, Origin, Source};

/// A word without its quotes, and where it stands with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub value: String,
    /// As written, quotes kept.
    pub raw: String,
    pub origin: Origin,
}

/// Splits a part of a source at blanks outside quotes and outside `{{ }}`.
pub(super) fn split(source: &Arc<Source>, range: Range<usize>) -> Result<Vec<Word>, Diagnostic> {
    let text = &source.text[range.clone()];
    let mut words = Vec::new();
    let mut splitter = Splitter::default();
    for (offset, character) in text.char_indices() {
        if splitter.feed(&text[offset..], offset, character) {
            words.extend(splitter.take(source, range.start, text, offset));
        }
    }
    if let Some(open) = splitter.quote {
        return Err(
            Diagnostic::error(format!("the quote {} is not closed", open.0))
                .at(&Origin::new(
                    source,
                    range.start + open.1,
                    range.start + open.1 + 1,
                ))
                .label("opened here"),
        );
    }
    words.extend(splitter.take(source, range.start, text, text.len()));
    Ok(words)
}

#[derive(Debug, Default)]
struct Splitter {
    start: Option<usize>,
    value: String,
    quote: Option<(char, usize)>,
    braces: usize,
    escaped: bool,
}

impl Splitter {
    /// Takes one character in; true when a word ended before it.
    fn feed(&mut self, rest: &str, offset: usize, character: char) -> bool {
        if self.escaped {
            self.escaped = false;
            if !matches!(character, '"' | '\'' | '\\' | ' ') {
                self.value.push('\\');
            }
            self.value.push(character);
            return false;
        }
        match (self.quote, character) {
            (None, ' ' | '\t' | '\n') if self.braces == 0 => return self.start.is_some(),
            (Some((open, _)), close) if open == close => self.quote = None,
            (None, '"' | '\'') if self.braces == 0 => self.quote = Some((character, offset)),
            (_, '\\') => self.escaped = true,
            _ => {
                if rest.starts_with("{{") {
                    self.braces += 1;
                } else if rest.starts_with("}}") {
                    self.braces = self.braces.saturating_sub(1);
                }
                self.value.push(character);
            }
        }
        self.start.get_or_insert(offset);
        false
    }

    fn take(&mut self, source: &Arc<Source>, base: usize, text: &str, end: usize) -> Option<Word> {
        let start = self.start.take()?;
        Some(Word {
            value: std::mem::take(&mut self.value),
            raw: text[start..end].to_owned(),
            origin: Origin::new(source, base + start, base + end),
        })
    }
}

/// Ansible's booleans: `yes`, `on`, `1`, `true`, `t`, `y` and their opposites, in any case.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    let text = match value {
        Value::Bool(value) => return Some(*value),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        _ => return None,
    };
    match text.as_str() {
        "yes" | "on" | "1" | "true" | "t" | "y" | "1.0" => Some(true),
        "no" | "off" | "0" | "false" | "f" | "n" | "0.0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<String> {
        let source = Source::new("t", text);
        let words = split(&source, 0..text.len()).expect("closed");
        words.into_iter().map(|word| word.value).collect()
    }

    #[test]
    fn quotes_and_braces_hold_words_together() {
        assert_eq!(
            values("a=1 b=\"x y\" c='p q'r d={{ e f }}"),
            ["a=1", "b=x y", "c=p qr", "d={{ e f }}"]
        );
    }

    #[test]
    fn an_open_quote_is_pointed_at() {
        let problem = split(&Source::new("t", "a='b"), 0..4).expect_err("open");
        assert_eq!(problem.origin.map(|origin| origin.column()), Some(3));
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(text in "\\PC{0,40}") {
            let _ = split(&Source::new("t", text.clone()), 0..text.len());
        }
    }
}
