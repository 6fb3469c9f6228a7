//! Values between JSON and minijinja, and as Python writes them.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::{Map, Number, Value as Json};

use super::context::Lazy;

/// Deepest value turned into JSON; a value that contains itself cannot be built.
const DEPTH_MAX: usize = 128;

/// What `omit` is: an argument with this value is left out.
#[derive(Debug)]
pub(super) struct Omit;

impl minijinja::value::Object for Omit {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Plain
    }

    fn render(self: &std::sync::Arc<Self>, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("<omit>")
    }
}

pub(super) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => from_number(number),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(entries) => Value::from_pairs(
            entries
                .iter()
                .map(|(name, value)| (Value::from(name.as_str()), from_json(value))),
        ),
    }
}

fn from_number(number: &Number) -> Value {
    if let Some(value) = number.as_i64() {
        Value::from(value)
    } else if let Some(value) = number.as_u64() {
        Value::from(value)
    } else {
        Value::from(number.as_f64().unwrap_or(f64::NAN))
    }
}

/// Turns a value into JSON, rendering whatever in it was not asked for yet. `None`: it is `omit`.
pub(super) fn to_json(value: &Value) -> Result<Option<Json>, Error> {
    convert(value, 0)
}

/// The same where `omit` has no meaning.
pub(super) fn plain_json(value: &Value) -> Result<Json, Error> {
    Ok(to_json(value)?.unwrap_or(Json::Null))
}

fn convert(value: &Value, depth: usize) -> Result<Option<Json>, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, "nested too deep"));
    }
    if value.downcast_object_ref::<Omit>().is_some() {
        return Ok(None);
    }
    if let Some(lazy) = value.downcast_object_ref::<Lazy>() {
        return lazy.to_json();
    }
    let json = match value.kind() {
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => number(value),
        ValueKind::Bytes => {
            Json::String(String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                items.extend(convert(&item?, depth + 1)?);
            }
            Json::Array(items)
        }
        ValueKind::Map => {
            let mut entries = Map::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                if let Some(found) = convert(&value.get_item(&key)?, depth + 1)? {
                    entries.insert(key.to_string(), found);
                }
            }
            Json::Object(entries)
        }
        ValueKind::Invalid => return Err(error_in(value)),
        _ => Json::String(value.to_string()),
    };
    Ok(Some(json))
}

/// Takes the error out of a value that carries one.
pub(super) fn error_in(value: &Value) -> Error {
    let carried = value.clone();
    let once = Value::make_iterable(move || std::iter::once(carried.clone()));
    let first = once
        .try_iter()
        .and_then(|items| items.checked().next().transpose());
    first
        .err()
        .unwrap_or_else(|| Error::new(ErrorKind::InvalidOperation, "invalid value"))
}

fn number(value: &Value) -> Json {
    if value.is_integer() {
        if let Some(integer) = value.as_i64() {
            return Json::from(integer);
        }
        if let Ok(integer) = u64::try_from(value.clone()) {
            return Json::from(integer);
        }
        // Wider than JSON's numbers here: as text, rather than a rounded number.
        return Json::String(value.to_string());
    }
    f64::try_from(value.clone())
        .ok()
        .and_then(Number::from_f64)
        .map_or_else(|| Json::String(value.to_string()), Json::Number)
}

/// Writes a float as Python does: `2.0`, `1e+20`, `0.1`.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits_of) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{digits_of:0>2}");
    }
    let text = value.to_string();
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

/// Python's `str()`: what `{{ value }}` writes inside a text.
pub(super) fn display(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        other => repr(other),
    }
}

/// Python's `repr()`.
fn repr(json: &Json) -> String {
    match json {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Number(number) if number.is_f64() => float_text(number.as_f64().unwrap_or(0.0)),
        Json::Number(number) => number.to_string(),
        Json::String(text) => quoted(text),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(repr).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(name, value)| format!("{}: {}", quoted(name), repr(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            same if same == quote => out.extend(['\\', same]),
            control if control.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_python_does() {
        assert_eq!(
            display(&json!([1, 2.0, true, null, "x"])),
            "[1, 2.0, True, None, 'x']"
        );
        assert_eq!(display(&json!({"a": ["it's"]})), "{'a': [\"it's\"]}");
        assert_eq!(float_text(1e20), "1e+20");
        assert_eq!(float_text(0.1 + 0.2), "0.30000000000000004");
        assert_eq!(float_text(1e-5), "1e-05");
    }

    #[test]
    fn json_goes_there_and_back() {
        let json = json!({"a": [1, -2, 2.5, "x", null, true], "b": {}});
        assert_eq!(plain_json(&from_json(&json)).expect("plain"), json);
    }
}
