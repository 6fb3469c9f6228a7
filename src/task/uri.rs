//! `uri`: the request's body and which statuses are well.

use std::fmt::Write;

use serde_json::Value;

use super::args::Args;
use super::outcome::Refusal;

/// Returns the body's bytes in the format the task names.
pub fn body(args: Args<'_>) -> Result<Vec<u8>, Refusal> {
    let Some(body) = args.get("body") else {
        return Ok(Vec::new());
    };
    let text = match (args.word("body_format"), body) {
        // A text is taken for JSON already.
        (_, Value::String(text)) => text.clone(),
        ("form-urlencoded", Value::Object(map)) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(name, value)| format!("{}={}", encoded(name), encoded(&plain(value))))
                .collect();
            pairs.join("&")
        }
        ("form-urlencoded", _) => return Err(Refusal::new("a form's `body` must be a mapping")),
        (_, other) => other.to_string(),
    };
    Ok(text.into_bytes())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn encoded(text: &str) -> String {
    let mut result = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => result.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                result.push(char::from(byte));
            }
            byte => write!(result, "%{byte:02X}").expect("writing to a text cannot fail"),
        }
    }
    result
}

/// Returns the headers that the body's format brings along.
pub fn form_headers(args: Args<'_>) -> Vec<(String, String)> {
    let is_given = args.dict("headers").is_some_and(|headers| {
        headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
    });
    let kind = match args.word("body_format") {
        _ if is_given || !args.has("body") => return Vec::new(),
        "json" => "application/json",
        "form-urlencoded" => "application/x-www-form-urlencoded",
        _ => return Vec::new(),
    };
    vec![("Content-Type".to_owned(), kind.to_owned())]
}

/// Returns whether a status is among the expected.
pub fn status_is_expected(expected: &[&str], status: u16) -> Result<bool, Refusal> {
    let mut found = false;
    for text in expected {
        let wanted: u16 = text
            .trim()
            .parse()
            .map_err(|_| Refusal::new(format!("`status_code`: `{text}` is not a status")))?;
        found |= wanted == status;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_written_in_their_format() {
        let form = json!({"body_format": "form-urlencoded", "body": {"a b": "c&d", "n": 1}});
        let args = Args(form.as_object().expect("a mapping"));
        assert_eq!(body(args), Ok(b"a+b=c%26d&n=1".to_vec()));
        assert_eq!(form_headers(args)[0].1, "application/x-www-form-urlencoded");
        let json = json!({"body_format": "json", "body": {"a": [1]}});
        assert_eq!(
            body(Args(json.as_object().expect("a mapping"))),
            Ok(b"{\"a\":[1]}".to_vec())
        );
    }

    #[test]
    fn statuses_are_numbers() {
        assert_eq!(status_is_expected(&["200", "404"], 404), Ok(true));
        assert_eq!(status_is_expected(&["200"], 500), Ok(false));
        assert!(status_is_expected(&["ok"], 200).is_err_and(|error| error.msg.contains("ok")));
    }
}
