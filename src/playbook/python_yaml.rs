//! YAML as `PyYAML` writes it for `to_yaml` and `to_nice_yaml`.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::value::float_text;
use crate::base::diagnostic::Source;
use crate::base::yaml::{self, Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub indent: usize,
    pub sort_keys: bool,
    /// Every list and mapping over several lines; else those without inner ones stand in one.
    pub block: bool,
    /// Texts are folded at blanks beyond so many characters.
    pub width: usize,
}

/// Writes a value with a line break at its end.
pub(super) fn dump(json: &Json, layout: Layout) -> String {
    let mut writer = Writer {
        out: String::new(),
        layout,
    };
    match json {
        Json::Array(_) | Json::Object(_) => writer.node(json, 0, Place::Top),
        _ => {
            writer.scalar(json, 0);
            // A document that is one plain scalar is closed by three dots.
            if !writer.out.starts_with(['\'', '"']) {
                writer.out.push_str("\n...");
            }
        }
    }
    writer.out.push('\n');
    writer.out
}

/// Where a list or mapping begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Top,
    /// After `key:`.
    Value,
    /// After `-`.
    Item,
}

struct Writer {
    out: String,
    layout: Layout,
}

impl Writer {
    fn node(&mut self, json: &Json, indent: usize, place: Place) {
        match json {
            Json::Array(items) if !self.flow(json) => self.list(items, indent, place),
            Json::Object(entries) if !self.flow(json) => self.mapping(entries, indent, place),
            Json::Array(_) | Json::Object(_) => {
                self.blank(place);
                let text = self.flow_text(json);
                self.out.push_str(&text);
            }
            _ => {
                self.blank(place);
                self.scalar(json, indent);
            }
        }
    }

    fn blank(&mut self, place: Place) {
        if place != Place::Top {
            self.out.push(' ');
        }
    }

    /// Whether a list or mapping stands in one line, in brackets.
    fn flow(&self, json: &Json) -> bool {
        let inner = |value: &Json| matches!(value, Json::Array(_) | Json::Object(_));
        match json {
            Json::Array(items) => {
                items.is_empty() || (!self.layout.block && !items.iter().any(inner))
            }
            Json::Object(entries) => {
                entries.is_empty() || (!self.layout.block && !entries.values().any(inner))
            }
            _ => true,
        }
    }

    fn list(&mut self, items: &[Json], indent: usize, place: Place) {
        for (index, item) in items.iter().enumerate() {
            self.start(index, indent, place);
            self.out.push('-');
            self.node(item, indent + self.layout.indent, Place::Item);
        }
    }

    fn mapping(&mut self, entries: &Map<String, Json>, indent: usize, place: Place) {
        let mut entries: Vec<_> = entries.iter().collect();
        if self.layout.sort_keys {
            entries.sort_by_key(|(name, _)| *name);
        }
        for (index, (name, value)) in entries.into_iter().enumerate() {
            self.start(index, indent, place);
            let key = self.text(name, indent);
            self.out.push_str(&key);
            self.out.push(':');
            // Lists stand at their key's own indent.
            let deeper = if value.is_array() {
                indent
            } else {
                indent + self.layout.indent
            };
            self.node(value, deeper, Place::Value);
        }
    }

    /// Moves to where an entry begins.
    fn start(&mut self, index: usize, indent: usize, place: Place) {
        match (index, place) {
            (0, Place::Top) => {}
            (0, Place::Item) => self
                .out
                .push_str(&" ".repeat(self.layout.indent.saturating_sub(1).max(1))),
            _ => {
                self.out.push('\n');
                self.out.push_str(&" ".repeat(indent));
            }
        }
    }

    fn flow_text(&self, json: &Json) -> String {
        match json {
            Json::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.flow_text(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Json::Object(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                if self.layout.sort_keys {
                    entries.sort_by_key(|(name, _)| *name);
                }
                let entries: Vec<String> = entries
                    .into_iter()
                    .map(|(name, value)| {
                        format!("{}: {}", self.text(name, 0), self.flow_text(value))
                    })
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
            Json::String(text) if text.contains([',', '[', ']', '{', '}']) => single_quoted(text),
            other => self.scalar_text(other, 0),
        }
    }

    fn scalar(&mut self, json: &Json, indent: usize) {
        let text = self.scalar_text(json, indent);
        self.out.push_str(&text);
    }

    fn scalar_text(&self, json: &Json, indent: usize) -> String {
        match json {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => value.to_string(),
            Json::Number(number) if number.is_f64() => match number.as_f64().unwrap_or(0.0) {
                value if value.is_nan() => ".nan".to_owned(),
                value => float_text(value),
            },
            Json::Number(number) => number.to_string(),
            Json::String(text) => self.text(text, indent),
            Json::Array(_) | Json::Object(_) => self.flow_text(json),
        }
    }

    fn text(&self, text: &str, indent: usize) -> String {
        let odd = |character: char| character.is_control() && character != '\n';
        if text.chars().any(odd) || !text.is_ascii() {
            return double_quoted(text);
        }
        if text.contains('\n') {
            // In single quotes a line break is written as an empty line.
            let pad = format!("\n\n{}", " ".repeat(indent));
            let lines: Vec<String> = text
                .split('\n')
                .map(|line| line.replace('\'', "''"))
                .collect();
            return format!("'{}'", lines.join(&pad));
        }
        let written = if is_plain(text) {
            text.to_owned()
        } else {
            single_quoted(text)
        };
        self.folded(&written, indent)
    }

    /// Breaks a long text at blanks.
    fn folded(&self, text: &str, indent: usize) -> String {
        if text.len() + indent <= self.layout.width {
            return text.to_owned();
        }
        let mut out = String::new();
        let mut column = indent;
        for (index, word) in text.split(' ').enumerate() {
            if index > 0 {
                if column > self.layout.width && !word.is_empty() {
                    out.push('\n');
                    out.push_str(&" ".repeat(indent));
                    column = indent;
                } else {
                    out.push(' ');
                    column += 1;
                }
            }
            out.push_str(word);
            column += word.chars().count();
        }
        out
    }
}

/// Whether a text means itself when it stands without quotes.
fn is_plain(text: &str) -> bool {
    let first = text.chars().next();
    let indicator = first.is_none_or(|first| "-?:,[]{}#&*!|>'\"%@`=".contains(first));
    let dashed = first == Some('-') || first == Some('?') || first == Some(':');
    let allowed =
        dashed && text.len() > 1 && !text[1..].starts_with(' ') && !text.starts_with("---");
    if (indicator && !allowed)
        || text.trim() != text
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
    {
        return false;
    }
    let read = yaml::parse(&Source::new("", text));
    matches!(read, Ok(node) if matches!(&node.kind, Kind::Str(same) if same == text))
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            other if other.is_ascii() && !other.is_control() => out.push(other),
            other => {
                let _ = match u32::from(other) {
                    code @ 0..=0xff => write!(out, "\\x{code:02X}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    code => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As ansible-core 2.19.14 writes them.
    #[test]
    fn yaml_is_written_as_pyyaml_does() {
        let value = json!({
            "b": 1, "a": [1, {"x": "y"}], "e": [], "m": {}, "s": "yes", "t": "a: b", "n": "3",
            "ml": "a\nb\n", "q": "it's", "z": null, "tt": true, "f": 1.5, "emp": "",
        });
        let nice = Layout {
            indent: 4,
            sort_keys: true,
            block: true,
            width: 80,
        };
        assert_eq!(
            dump(&value, nice),
            "a:\n- 1\n-   x: y\nb: 1\ne: []\nemp: ''\nf: 1.5\nm: {}\nml: 'a\n\n    b\n\n    '\nn: '3'\nq: it's\ns: 'yes'\nt: 'a: b'\ntt: true\nz: null\n"
        );
        let value =
            json!({"b": 1, "a": [1, {"x": "y"}], "e": [], "m": {}, "s": "yes", "l": [[1, 2], [3]]});
        let short = Layout {
            indent: 2,
            sort_keys: true,
            block: false,
            width: 80,
        };
        assert_eq!(
            dump(&value, short),
            "a:\n- 1\n- {x: y}\nb: 1\ne: []\nl:\n- [1, 2]\n- [3]\nm: {}\ns: 'yes'\n"
        );
    }
}
