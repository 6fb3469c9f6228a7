//! What a module answers: an object of Ansible's result shape, built field by field.

use serde_json::{Map, Value, json};

/// A module's result when it came to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub changed: bool,
    /// The module's end is a failure although it has a whole result (a command's rc).
    pub failed: bool,
    pub msg: Option<String>,
    /// The module's own return values.
    pub values: Map<String, Value>,
    pub diff: Vec<Diff>,
}

/// What was and what is, or would be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    pub before: Value,
    pub after: Value,
    pub before_header: String,
    pub after_header: String,
}

/// Why a module refuses: decided from arguments and facts, nothing was done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{msg}")]
pub struct Refusal {
    pub msg: String,
    pub values: Map<String, Value>,
}

impl Refusal {
    pub fn new(msg: impl Into<String>) -> Self {
        Self {
            msg: msg.into(),
            values: Map::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }
}

impl Outcome {
    pub fn changed(changed: bool) -> Self {
        Self {
            changed,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn with_if<V: Into<Value>>(self, name: &str, value: Option<V>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    #[must_use]
    pub fn msg(mut self, msg: impl Into<String>) -> Self {
        self.msg = Some(msg.into());
        self
    }

    #[must_use]
    pub fn failed_if(mut self, failed: bool) -> Self {
        self.failed |= failed;
        self
    }

    /// Adds a difference; one that shows nothing is left out.
    #[must_use]
    pub fn diff(mut self, diff: Diff) -> Self {
        if diff.before != diff.after {
            self.diff.push(diff);
        }
        self
    }

    /// Returns the result as `register` keeps it.
    pub fn into_result(self, show_diff: bool) -> Map<String, Value> {
        let mut result = Map::new();
        result.insert("changed".to_owned(), self.changed.into());
        if self.failed {
            result.insert("failed".to_owned(), true.into());
        }
        if let Some(msg) = self.msg {
            result.insert("msg".to_owned(), msg.into());
        }
        result.extend(self.values);
        if show_diff && !self.diff.is_empty() {
            let diffs = self.diff.into_iter().map(Diff::into_value).collect();
            result.insert("diff".to_owned(), Value::Array(diffs));
        }
        result
    }
}

impl Diff {
    /// The difference between two texts under one name.
    pub fn of_text(name: &str, before: impl Into<String>, after: impl Into<String>) -> Self {
        Self::of_values(name, before.into().into(), after.into().into())
    }

    /// The difference a file's first content makes: there is nothing to name before.
    pub fn of_new_text(name: &str, after: impl Into<String>) -> Self {
        Self {
            before_header: String::new(),
            ..Self::of_text(name, "", after)
        }
    }

    /// The difference between two values, under one name when it is not empty.
    pub fn of_values(name: &str, before: Value, after: Value) -> Self {
        Self {
            before,
            after,
            before_header: name.to_owned(),
            after_header: name.to_owned(),
        }
    }

    fn into_value(self) -> Value {
        let mut value = json!({"before": self.before, "after": self.after});
        let headers = [
            ("before_header", self.before_header),
            ("after_header", self.after_header),
        ];
        for (name, header) in headers {
            if !header.is_empty() {
                value[name] = header.into();
            }
        }
        value
    }
}

/// Returns the result of a task that failed.
pub fn failure(msg: &str, values: Map<String, Value>) -> Map<String, Value> {
    let mut result = Map::new();
    result.insert("changed".to_owned(), false.into());
    result.insert("failed".to_owned(), true.into());
    result.insert("msg".to_owned(), msg.into());
    result.extend(values);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_ansibles_shape() {
        let outcome = Outcome::changed(true)
            .msg("line added")
            .with("backup", "")
            .diff(Diff::of_text("/x", "a\n", "a\nb\n"))
            .diff(Diff::of_text("/x", "", ""));
        assert_eq!(
            Value::Object(outcome.clone().into_result(true)),
            json!({
                "changed": true, "msg": "line added", "backup": "",
                "diff": [{"before": "a\n", "after": "a\nb\n", "before_header": "/x", "after_header": "/x"}],
            })
        );
        assert!(!outcome.into_result(false).contains_key("diff"));
    }
}
