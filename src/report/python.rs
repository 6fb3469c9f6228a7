//! JSON values written as Python writes them, since that is what Ansible's output shows.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// `json.dumps(value, sort_keys=True, ensure_ascii=False)`, with `indent` when given.
pub fn dumps(value: &Value, indent: Option<usize>) -> String {
    let mut text = String::new();
    write_json(value, indent, 0, &mut text);
    text
}

/// Like [`dumps`] for an object.
pub fn dumps_object(object: &Map<String, Value>, indent: Option<usize>) -> String {
    let mut text = String::new();
    write_object(object, indent, 0, &mut text);
    text
}

/// `str(value)`: a text stands for itself, containers as their `repr`.
pub fn str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(value)`.
pub fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => repr_text(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", repr_text(key), repr(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Python prefers single quotes and takes double ones when only single ones are inside.
fn repr_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut written = String::from(quote);
    for each in text.chars() {
        match each {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            each if each == quote => {
                written.push('\\');
                written.push(each);
            }
            each if u32::from(each) < 0x20 || each == '\u{7f}' => {
                let _ = write!(written, "\\x{:02x}", u32::from(each));
            }
            each => written.push(each),
        }
    }
    written.push(quote);
    written
}

fn write_json(value: &Value, indent: Option<usize>, depth: usize, text: &mut String) {
    match value {
        Value::Array(items) if items.is_empty() => text.push_str("[]"),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(index, indent, depth + 1, text);
                write_json(item, indent, depth + 1, text);
            }
            break_line(indent, depth, text);
            text.push(']');
        }
        Value::Object(entries) => write_object(entries, indent, depth, text),
        Value::String(each) => write_text(each, text),
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn write_object(
    entries: &Map<String, Value>,
    indent: Option<usize>,
    depth: usize,
    text: &mut String,
) {
    if entries.is_empty() {
        return text.push_str("{}");
    }
    let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    text.push('{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        separate(index, indent, depth + 1, text);
        write_text(key, text);
        text.push_str(": ");
        write_json(value, indent, depth + 1, text);
    }
    break_line(indent, depth, text);
    text.push('}');
}

fn separate(index: usize, indent: Option<usize>, depth: usize, text: &mut String) {
    if index > 0 {
        text.push_str(if indent.is_some() { "," } else { ", " });
    }
    break_line(indent, depth, text);
}

fn break_line(indent: Option<usize>, depth: usize, text: &mut String) {
    if let Some(width) = indent {
        text.push('\n');
        text.push_str(&" ".repeat(width * depth));
    }
}

fn write_text(each: &str, text: &mut String) {
    // Escapes are those of JSON; Python adds DEL to none of them.
    text.push_str(&Value::from(each).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_sorted_and_spaced_like_python() {
        let value = json!({"rc": 1, "changed": true, "cmd": ["a", "b"], "none": null, "e": []});
        assert_eq!(
            dumps(&value, None),
            r#"{"changed": true, "cmd": ["a", "b"], "e": [], "none": null, "rc": 1}"#
        );
        assert_eq!(
            dumps(&json!({"msg": ["x"], "o": {}}), Some(4)),
            "{\n    \"msg\": [\n        \"x\"\n    ],\n    \"o\": {}\n}"
        );
    }

    #[test]
    fn items_are_shown_as_python_shows_them() {
        let item = json!({"name": "it's", "on": true, "n": null, "l": [1, 2.5]});
        assert_eq!(
            str(&item),
            r#"{'name': "it's", 'on': True, 'n': None, 'l': [1, 2.5]}"#
        );
        assert_eq!(str(&json!("plain")), "plain");
        assert_eq!(repr(&json!("a\n'\"")), r#"'a\n\'"'"#);
    }
}
