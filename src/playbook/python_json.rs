//! JSON as Python's `json.dumps` writes it: `", "` and `": "`, ASCII only unless told otherwise.

use std::fmt::Write;

use serde_json::Value as Json;

use super::value::float_text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub indent: Option<usize>,
    pub sort_keys: bool,
    pub ascii: bool,
}

pub(super) fn dumps(json: &Json, layout: Layout) -> String {
    let mut out = String::new();
    node(&mut out, json, layout, 0);
    out
}

fn node(out: &mut String, json: &Json, layout: Layout, depth: usize) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(number) if number.is_f64() => {
            out.push_str(&float_text(number.as_f64().unwrap_or(0.0)));
        }
        Json::Number(number) => out.push_str(&number.to_string()),
        Json::String(text) => quoted(out, text, layout.ascii),
        Json::Array(items) if items.is_empty() => out.push_str("[]"),
        Json::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(out, index, layout, depth + 1);
                node(out, item, layout, depth + 1);
            }
            line(out, layout, depth);
            out.push(']');
        }
        Json::Object(entries) => {
            out.push('{');
            let mut entries: Vec<_> = entries.iter().collect();
            if layout.sort_keys {
                entries.sort_by_key(|(name, _)| *name);
            }
            for (index, (name, value)) in entries.into_iter().enumerate() {
                separate(out, index, layout, depth + 1);
                quoted(out, name, layout.ascii);
                out.push_str(": ");
                node(out, value, layout, depth + 1);
            }
            line(out, layout, depth);
            out.push('}');
        }
    }
}

fn separate(out: &mut String, index: usize, layout: Layout, depth: usize) {
    if index > 0 {
        out.push_str(if layout.indent.is_some() { "," } else { ", " });
    }
    line(out, layout, depth);
}

fn line(out: &mut String, layout: Layout, depth: usize) {
    if let Some(indent) = layout.indent {
        out.push('\n');
        out.push_str(&" ".repeat(indent * depth));
    }
}

fn quoted(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            other if other < ' ' || (ascii && !other.is_ascii()) => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As `to_json` and `to_nice_json` of ansible-core 2.19.14 write them.
    #[test]
    fn json_is_written_as_python_does() {
        let plain = Layout {
            indent: None,
            sort_keys: false,
            ascii: true,
        };
        assert_eq!(
            dumps(&json!([1, 2.0, true, null, "x"]), plain),
            r#"[1, 2.0, true, null, "x"]"#
        );
        assert_eq!(dumps(&json!("é😀"), plain), "\"\\u00e9\\ud83d\\ude00\"");
        let nice = Layout {
            indent: Some(4),
            sort_keys: true,
            ascii: true,
        };
        assert_eq!(
            dumps(
                &json!({"b": 1, "a": [1, {"x": "y"}], "e": [], "m": {}}),
                nice
            ),
            "{\n    \"a\": [\n        1,\n        {\n            \"x\": \"y\"\n        }\n    ],\n    \"b\": 1,\n    \"e\": [],\n    \"m\": {}\n}"
        );
    }
}
