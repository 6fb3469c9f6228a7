//! Python's literals, in which an INI inventory's values are written: `3`, `True`, `[1, 'a']`.
//!
//! What is no literal stays text, as Ansible has it: `yes`, `08`, `a b`.

use crate::base::diagnostic::Origin;
use crate::base::yaml::{Kind, Node};

/// Deepest nesting read; the reader recurses.
const DEPTH_MAX: usize = 32;

/// Returns the value of a literal; text as it stands otherwise.
pub(super) fn value(text: &str, origin: &Origin) -> Node {
    let mut reader = Reader {
        text,
        at: 0,
        origin,
    };
    let kind = reader
        .value(0)
        .filter(|_| {
            reader.skip_blanks();
            reader.rest().is_empty() || reader.rest().starts_with('#')
        })
        .unwrap_or_else(|| Kind::Str(text.to_owned()));
    Node {
        origin: origin.clone(),
        kind,
    }
}

struct Reader<'text> {
    text: &'text str,
    at: usize,
    origin: &'text Origin,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn node(&mut self, depth: usize) -> Option<Node> {
        let kind = self.value(depth)?;
        Some(Node {
            origin: self.origin.clone(),
            kind,
        })
    }

    fn value(&mut self, depth: usize) -> Option<Kind> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_blanks();
        match self.rest().chars().next()? {
            '\'' | '"' => self.string(),
            '[' => {
                self.at += 1;
                self.items("]", depth).map(Kind::Seq)
            }
            '(' => {
                self.at += 1;
                self.items(")", depth).map(Kind::Seq)
            }
            '{' => {
                self.at += 1;
                self.entries(depth).map(Kind::Map)
            }
            _ => self.word(),
        }
    }

    fn items(&mut self, close: &str, depth: usize) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            if self.eat(close) {
                return Some(items);
            }
            items.push(self.node(depth + 1)?);
            if !self.eat(",") {
                return self.eat(close).then_some(items);
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Option<Vec<(Node, Node)>> {
        let mut entries = Vec::new();
        loop {
            if self.eat("}") {
                return Some(entries);
            }
            let key = self.node(depth + 1)?;
            if !self.eat(":") {
                return None;
            }
            entries.push((key, self.node(depth + 1)?));
            if !self.eat(",") {
                return self.eat("}").then_some(entries);
            }
        }
    }

    /// One or more strings side by side, joined.
    fn string(&mut self) -> Option<Kind> {
        let mut text = String::new();
        loop {
            self.skip_blanks();
            let Some(quote @ ('\'' | '"')) = self.rest().chars().next() else {
                return Some(Kind::Str(text));
            };
            self.at += 1;
            self.string_body(quote, &mut text)?;
        }
    }

    fn string_body(&mut self, quote: char, text: &mut String) -> Option<()> {
        loop {
            let character = self.rest().chars().next()?;
            self.at += character.len_utf8();
            match character {
                close if close == quote => return Some(()),
                '\\' => {
                    let escaped = self.rest().chars().next()?;
                    self.at += escaped.len_utf8();
                    match escaped {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        '\\' | '\'' | '"' => text.push(escaped),
                        other => text.extend(['\\', other]),
                    }
                }
                other => text.push(other),
            }
        }
    }

    fn word(&mut self) -> Option<Kind> {
        let rest = self.rest();
        let end = rest
            .find(|character: char| !(character.is_alphanumeric() || "_.+-".contains(character)))
            .unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        match word.as_str() {
            "None" => Some(Kind::Null),
            "True" => Some(Kind::Bool(true)),
            "False" => Some(Kind::Bool(false)),
            word => number(word),
        }
    }
}

fn number(word: &str) -> Option<Kind> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    let clean = digits.replace('_', "").to_ascii_lowercase();
    let radix = match clean.get(..2) {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 10,
    };
    if radix != 10 {
        let value = i64::from_str_radix(&clean[2..], radix).ok()?;
        return Some(Kind::Int(sign * value));
    }
    if clean.bytes().all(|byte| byte.is_ascii_digit()) {
        let octal_of_old =
            clean.len() > 1 && clean.starts_with('0') && !clean.trim_matches('0').is_empty();
        return (!octal_of_old)
            .then(|| clean.parse::<i64>().ok())
            .flatten()
            .map(|value| Kind::Int(sign * value));
    }
    let float: f64 = clean.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "the sign is 1 or -1")]
    Some(Kind::Float(sign as f64 * float))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Value {
        value(text, &Origin::new(&Source::new("t", text), 0, text.len())).to_json()
    }

    /// As `ansible-inventory` of 2.19.14 shows them.
    #[test]
    fn values_are_what_ansible_makes_of_them() {
        let table = [
            ("3", json!(3)),
            ("0x10", json!(16)),
            ("1_000", json!(1000)),
            ("1.10", json!(1.1)),
            ("-1.5", json!(-1.5)),
            ("08", json!("08")),
            ("True", json!(true)),
            ("True # x", json!(true)),
            ("None", json!(null)),
            ("yes", json!("yes")),
            ("true", json!("true")),
            ("", json!("")),
            ("[1, 'x'] # c", json!([1, "x"])),
            ("{'a': (1, 2)}", json!({"a": [1, 2]})),
            ("{a:1}", json!("{a:1}")),
            ("\"quoted\"", json!("quoted")),
            ("some text # not comment", json!("some text # not comment")),
            ("{{ a1 }}", json!("{{ a1 }}")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("1e3", json!(1000.0)),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_value(text in "\\PC{0,40}") {
            read(&text);
        }
    }
}
