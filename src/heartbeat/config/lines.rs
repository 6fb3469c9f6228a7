//! Lines of words, the grammar that the three files share.
//!
//! | file | words end at | `#` | `\` at the end |
//! |---|---|---|---|
//! | ha.cf | blank, tab, comma, form feed, carriage return | anywhere | nothing special |
//! | authkeys | blanks | at the first place of a line | nothing special |
//! | haresources | blanks | anywhere | joins the next line |

use std::sync::Arc;

use crate::base::diagnostic::{Origin, Source};

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    pub text: String,
    pub origin: Origin,
}

impl Word {
    /// Changes the spelling and keeps the place: node names are lower-case on the wire.
    #[must_use]
    pub fn lower_case(mut self) -> Self {
        self.text = self.text.to_lowercase();
        self
    }
}

/// How one file's lines are cut into words.
#[derive(Clone, Copy, Debug)]
pub struct Grammar {
    pub separators: &'static [char],
    pub comment: Comment,
    pub continued: Continued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comment {
    Anywhere,
    WholeLine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continued {
    Never,
    ByBackslash,
}

/// Returns the lines that hold words.
pub fn lines(source: &Arc<Source>, grammar: Grammar) -> Vec<Vec<Word>> {
    let mut found: Vec<Vec<Word>> = Vec::new();
    let mut offset = 0;
    let mut continues = false;
    for line in source.text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let mut text = line.trim_end_matches(['\n', '\r']);
        match (grammar.comment, text.find('#')) {
            (Comment::Anywhere, Some(at)) => text = &text[..at],
            (Comment::WholeLine, Some(at)) if text[..at].trim().is_empty() => text = "",
            _ => {}
        }
        let joins_next =
            grammar.continued == Continued::ByBackslash && text.trim_end().ends_with('\\');
        if joins_next {
            text = text.trim_end().trim_end_matches('\\');
        }
        let mut words = words(source, start, text, grammar.separators);
        match found.last_mut() {
            Some(last) if continues => last.append(&mut words),
            _ => found.push(words),
        }
        continues = joins_next;
    }
    found.retain(|words| !words.is_empty());
    found
}

fn words(source: &Arc<Source>, start: usize, text: &str, separators: &[char]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = start;
    for piece in text.split(separators) {
        if !piece.is_empty() {
            words.push(Word {
                text: piece.to_owned(),
                origin: Origin::new(source, at, at + piece.len()),
            });
        }
        // Every separator is one byte long.
        at += piece.len() + 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINED: Grammar = Grammar {
        separators: &[' ', '\t'],
        comment: Comment::Anywhere,
        continued: Continued::ByBackslash,
    };

    fn texts(text: &str, grammar: Grammar) -> Vec<Vec<String>> {
        lines(&Source::new("f", text), grammar)
            .into_iter()
            .map(|line| line.into_iter().map(|word| word.text).collect())
            .collect()
    }

    #[test]
    fn a_backslash_joins_lines_and_a_hash_ends_them() {
        assert_eq!(
            texts("a b \\\n  c # d\n\n# e\nf\n", JOINED),
            [vec!["a", "b", "c"], vec!["f"]]
        );
    }

    #[test]
    fn words_know_their_places() {
        let source = Source::new("f", "node\ta,b\r\n");
        let found = lines(
            &source,
            Grammar {
                separators: &[' ', '\t', ','],
                comment: Comment::Anywhere,
                continued: Continued::Never,
            },
        );
        let columns: Vec<usize> = found[0].iter().map(|word| word.origin.column()).collect();
        assert_eq!(columns, [1, 6, 8]);
    }

    #[test]
    fn a_hash_inside_a_key_is_part_of_the_key() {
        let grammar = Grammar {
            separators: &[' '],
            comment: Comment::WholeLine,
            continued: Continued::Never,
        };
        assert_eq!(
            texts("# x\n1 sha1 a#b\n", grammar),
            [vec!["1", "sha1", "a#b"]]
        );
    }
}
