//! Typed reading of arguments that [`coerce`](super::coerce::coerce) brought into shape.

use serde_json::{Map, Value};

/// A task's arguments. Names and types were checked; what is absent has no default.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(pub &'a Map<String, Value>);

impl<'a> Args<'a> {
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name)
    }

    pub fn has(self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }

    /// Returns the text of an argument that is required or has a default.
    pub fn word(self, name: &str) -> &'a str {
        self.text(name).unwrap_or_default()
    }

    /// Returns a switch; absent is off.
    pub fn flag(self, name: &str) -> bool {
        self.flag_if_given(name).unwrap_or(false)
    }

    pub fn flag_if_given(self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    pub fn number(self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }

    /// Returns a count or a time, where less than none makes no sense.
    pub fn amount(self, name: &str) -> u64 {
        self.number(name)
            .map_or(0, |number| u64::try_from(number).unwrap_or(0))
    }

    /// Returns a duration that was given in seconds; never negative.
    pub fn seconds(self, name: &str) -> Option<f64> {
        self.get(name)?.as_f64().map(|seconds| seconds.max(0.0))
    }

    pub fn list(self, name: &str) -> Vec<&'a str> {
        let entries = self.get(name).and_then(Value::as_array);
        entries
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    pub fn dict(self, name: &str) -> Option<&'a Map<String, Value>> {
        self.get(name)?.as_object()
    }
}
