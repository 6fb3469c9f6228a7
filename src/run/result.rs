//! A task's result as an object of Ansible's shape: its flags, its items, its censoring.

use serde_json::{Map, Value, json};

use super::event::Outcome;

pub type Object = Map<String, Value>;

/// What `register` keeps of a task that a condition kept from running.
pub fn skipped(condition: &Value) -> Object {
    object(json!({
        "changed": false,
        "skipped": true,
        "skip_reason": "Conditional result was False",
        "false_condition": condition,
    }))
}

pub fn failed(msg: impl Into<String>) -> Object {
    object(json!({"changed": false, "failed": true, "msg": msg.into()}))
}

pub fn unreachable(msg: impl Into<String>) -> Object {
    object(json!({"changed": false, "unreachable": true, "msg": msg.into()}))
}

/// Unwraps a `json!({…})`.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => unreachable!("an object literal was written, not {other}"),
    }
}

pub fn flag(result: &Object, name: &str) -> bool {
    result.get(name).is_some_and(truthy)
}

/// Truth as Python sees it.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

pub fn outcome(result: &Object) -> Outcome {
    if flag(result, "unreachable") {
        Outcome::Unreachable
    } else if flag(result, "failed") {
        Outcome::Failed
    } else if flag(result, "skipped") {
        Outcome::Skipped
    } else if flag(result, "changed") {
        Outcome::Changed
    } else {
        Outcome::Ok
    }
}

/// Fills in what every result has: `changed`, `failed` (a return code other than 0 is a
/// failure), and texts by lines.
pub fn normalise(result: &mut Object) {
    if !result.contains_key("failed") {
        let failed = match result.get("rc") {
            None | Some(Value::Null) => false,
            Some(rc) => *rc != json!(0) && *rc != json!("0"),
        };
        result.insert("failed".to_owned(), Value::Bool(failed));
    }
    result.entry("changed").or_insert(Value::Bool(false));
    for name in ["stdout", "stderr"] {
        let lines = format!("{name}_lines");
        if let Some(Value::String(text)) = result.get(name)
            && !result.contains_key(&lines)
        {
            let split: Value = text.lines().collect();
            result.insert(lines, split);
        }
    }
}

/// The result of a loop from its items' results.
pub fn looped(items: Vec<Object>) -> Object {
    let any = |name: &str| items.iter().any(|item| flag(item, name));
    let mut result = Object::new();
    if any("changed") {
        result.insert("changed".to_owned(), Value::Bool(true));
    }
    let all_skipped = items.iter().all(|item| flag(item, "skipped"));
    let msg = if any("failed") {
        result.insert("failed".to_owned(), Value::Bool(true));
        "One or more items failed"
    } else if all_skipped {
        "All items skipped"
    } else {
        "All items completed"
    };
    if any("unreachable") {
        result.insert("unreachable".to_owned(), Value::Bool(true));
    }
    result.insert("skipped".to_owned(), Value::Bool(all_skipped));
    result.insert("msg".to_owned(), msg.into());
    result.insert(
        "results".to_owned(),
        items.into_iter().map(Value::Object).collect(),
    );
    result.entry("changed").or_insert(Value::Bool(false));
    result
}

/// The result of a loop without items.
pub fn no_items() -> Object {
    object(json!({
        "changed": false,
        "skipped": true,
        "skipped_reason": "No items in the list",
        "results": [],
    }))
}

/// What may be shown of a result under `no_log`.
pub fn censored(result: &Object) -> Object {
    const SHOWN: &[&str] = &["attempts", "changed", "retries"];
    let mut shown = object(json!({
        "censored": "the output has been hidden due to the fact that 'no_log: true' was specified for this result",
    }));
    for name in SHOWN {
        if let Some(value) = result.get(*name) {
            shown.insert((*name).to_owned(), value.clone());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_code_is_a_failure_unless_said_otherwise() {
        let mut result = object(json!({"rc": 3, "stdout": "a\nb"}));
        normalise(&mut result);
        assert_eq!(outcome(&result), Outcome::Failed);
        assert_eq!(result["stdout_lines"], json!(["a", "b"]));
        let mut result = object(json!({"rc": 3, "failed": false}));
        normalise(&mut result);
        assert_eq!(outcome(&result), Outcome::Ok);
    }

    #[test]
    fn a_loop_fails_with_any_item_and_is_skipped_with_all() {
        let ok = object(json!({"changed": true}));
        let skip = skipped(&json!("x"));
        let result = looped(vec![ok.clone(), skip.clone()]);
        assert_eq!(outcome(&result), Outcome::Changed);
        assert_eq!(outcome(&looped(vec![skip.clone(), skip])), Outcome::Skipped);
        let result = looped(vec![failed("no"), ok]);
        assert_eq!(outcome(&result), Outcome::Failed);
        assert_eq!(result["msg"], "One or more items failed");
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let result = object(json!({"stdout": "secret", "changed": true, "msg": "secret"}));
        let shown = censored(&result);
        assert_eq!(shown["changed"], true);
        assert!(!Value::Object(shown).to_string().contains("secret\""));
    }
}
