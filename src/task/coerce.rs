//! Arguments as written or rendered → arguments as a module takes them.
//!
//! Ansible's coercions: "yes" is true, "80" is 80, "a,b" is a list, an alias becomes the
//! name, a default fills a gap, null is the same as absent. All problems of a task come
//! at once, each with the argument it is about, so that the caller can point at its place.

use serde_json::{Map, Value};

use super::kind::{ArgKind, ArgSpec, ModuleSpec, Rule};
use super::mode::Mode;
use crate::base::diagnostic::nearest;

/// What is wrong with the arguments of one task.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ArgProblem {
    #[error("`{module}` has no argument `{argument}`")]
    Unknown {
        module: &'static str,
        argument: String,
        nearest: Option<&'static str>,
        known: Vec<&'static str>,
    },
    #[error("`{module}` needs `{argument}`")]
    Missing {
        module: &'static str,
        argument: &'static str,
    },
    #[error("`{argument}` must be {expected}, found {found}")]
    WrongType {
        argument: &'static str,
        expected: String,
        found: String,
    },
    #[error("`{argument}` must be one of {}, found `{found}`", .choices.join(", "))]
    NotAChoice {
        argument: &'static str,
        choices: &'static [&'static str],
        found: String,
    },
    #[error("`{argument}` is given twice, also as `{other}`")]
    Twice { argument: String, other: String },
    #[error("`{module}` takes only one of {}", quoted(.given))]
    Exclusive {
        module: &'static str,
        given: Vec<&'static str>,
    },
    #[error("`{module}` needs one of {}", quoted(.names))]
    NoneOf {
        module: &'static str,
        names: &'static [&'static str],
    },
    #[error("`{module}` with `{argument}` needs `{missing}` too")]
    Partner {
        module: &'static str,
        argument: &'static str,
        missing: &'static str,
    },
    #[error("`{module}` with `{argument}: {value}` needs `{missing}`")]
    Needed {
        module: &'static str,
        argument: &'static str,
        value: &'static str,
        missing: &'static str,
    },
}

impl ArgProblem {
    /// Returns the argument whose place shows the problem best; `None`: the task's own.
    pub fn argument(&self) -> Option<&str> {
        match self {
            Self::Unknown { argument, .. } | Self::Twice { argument, .. } => Some(argument),
            Self::WrongType { argument, .. }
            | Self::NotAChoice { argument, .. }
            | Self::Partner { argument, .. }
            | Self::Needed { argument, .. } => Some(argument),
            Self::Exclusive { given, .. } => given.last().copied(),
            Self::Missing { .. } | Self::NoneOf { .. } => None,
        }
    }

    /// Returns how to mend it, one way an entry.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Unknown {
                module,
                nearest,
                known,
                ..
            } => match nearest {
                Some(name) => vec![format!("did you mean `{name}`?")],
                None if known.is_empty() => vec![format!("`{module}` takes no arguments")],
                None => vec![format!("`{module}` takes {}", known.join(", "))],
            },
            Self::NotAChoice { choices, found, .. } => nearest(found, choices.iter().copied())
                .map(|choice| vec![format!("did you mean `{choice}`?")])
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}

/// Checks what can be checked before anything is rendered: names, presence, and the
/// types of values that hold no template.
pub fn check_literal_args(
    module: &'static ModuleSpec,
    args: &Map<String, Value>,
) -> Vec<ArgProblem> {
    checked(module, args.clone(), |value| !is_templated(value)).1
}

/// Brings rendered arguments into the module's types, under their canonical names, with
/// defaults filled in.
pub fn coerce(
    module: &'static ModuleSpec,
    args: &Map<String, Value>,
) -> Result<Map<String, Value>, Vec<ArgProblem>> {
    coerce_owned(module, args.clone())
}

/// The same without a copy of the arguments: one may be a table of ten thousand servers.
pub fn coerce_owned(
    module: &'static ModuleSpec,
    args: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<ArgProblem>> {
    let (mut coerced, problems) = checked(module, args, |_| true);
    if !problems.is_empty() {
        return Err(problems);
    }
    for arg in module.args {
        if let (Some(default), false) = (arg.default, coerced.contains_key(arg.name)) {
            let value = value(arg, &default.into()).expect("the table's test checks defaults");
            coerced.insert(arg.name.to_owned(), value);
        }
    }
    Ok(coerced)
}

fn checked(
    module: &'static ModuleSpec,
    args: Map<String, Value>,
    is_final: impl Fn(&Value) -> bool,
) -> (Map<String, Value>, Vec<ArgProblem>) {
    let mut coerced = Map::new();
    let mut problems = Vec::new();
    let mut written: Vec<(&'static str, String)> = Vec::new();
    for (name, given) in args {
        let Some(arg) = module.arg(&name) else {
            if module.open {
                coerced.insert(name, given);
            } else {
                problems.push(unknown(module, &name));
            }
            continue;
        };
        if let Some((_, other)) = written.iter().find(|(canonical, _)| *canonical == arg.name) {
            problems.push(ArgProblem::Twice {
                argument: name,
                other: other.clone(),
            });
            continue;
        }
        written.push((arg.name, name));
        if given.is_null() {
            continue;
        }
        let value = if is_as_it_is(arg, &given) || !is_final(&given) {
            given
        } else {
            value(arg, &given).unwrap_or_else(|problem| {
                problems.push(problem);
                given
            })
        };
        coerced.insert(arg.name.to_owned(), value);
    }
    problems.extend(relation_problems(module, &coerced));
    (coerced, problems)
}

fn unknown(module: &'static ModuleSpec, name: &str) -> ArgProblem {
    // Names that begin so are the engine's own, nothing to offer to somebody who types.
    let offered = || module.args.iter().filter(|arg| !arg.name.starts_with('_'));
    let names =
        offered().flat_map(|arg| std::iter::once(arg.name).chain(arg.aliases.iter().copied()));
    ArgProblem::Unknown {
        module: module.name,
        argument: name.to_owned(),
        nearest: nearest(name, names),
        known: offered().map(|arg| arg.name).collect(),
    }
}

fn relation_problems(module: &'static ModuleSpec, args: &Map<String, Value>) -> Vec<ArgProblem> {
    let required = module.args.iter().filter(|arg| arg.required);
    let missing = required.filter(|arg| !args.contains_key(arg.name));
    let mut problems: Vec<ArgProblem> = missing
        .map(|arg| ArgProblem::Missing {
            module: module.name,
            argument: arg.name,
        })
        .collect();
    problems.extend(
        module
            .rules
            .iter()
            .filter_map(|rule| broken_rule(module, rule, args)),
    );
    problems
}

fn broken_rule(
    module: &'static ModuleSpec,
    rule: &'static Rule,
    args: &Map<String, Value>,
) -> Option<ArgProblem> {
    let given = |names: &'static [&'static str]| -> Vec<&'static str> {
        let present = names.iter().filter(|name| args.contains_key(**name));
        present.copied().collect()
    };
    let module_name = module.name;
    match *rule {
        Rule::Exclusive(names) => (given(names).len() > 1).then(|| ArgProblem::Exclusive {
            module: module_name,
            given: given(names),
        }),
        Rule::OneOf(names) => given(names).is_empty().then_some(ArgProblem::NoneOf {
            module: module_name,
            names,
        }),
        Rule::Requires(argument, missing) => (args.contains_key(argument)
            && !args.contains_key(missing))
        .then_some(ArgProblem::Partner {
            module: module_name,
            argument,
            missing,
        }),
        Rule::Needs(argument, value, missing) => {
            let default = module.arg(argument).and_then(|arg| arg.default);
            let found = match args.get(argument) {
                Some(found) => found.as_str(),
                None => default,
            };
            (found == Some(value) && !args.contains_key(missing)).then_some(ArgProblem::Needed {
                module: module_name,
                argument,
                value,
                missing,
            })
        }
    }
}

/// Whether [`value`] would return a copy.
fn is_as_it_is(arg: &'static ArgSpec, given: &Value) -> bool {
    let is_of_kind = match arg.kind {
        ArgKind::Raw => true,
        ArgKind::RawList => given.is_array(),
        ArgKind::Dict => given.is_object(),
        _ => false,
    };
    is_of_kind && arg.choices.is_empty()
}

/// Brings one value into its argument's kind.
pub(super) fn value(arg: &'static ArgSpec, given: &Value) -> Result<Value, ArgProblem> {
    let wrong = |expected: String| ArgProblem::WrongType {
        argument: arg.name,
        expected,
        found: described(given),
    };
    let coerced = match arg.kind {
        ArgKind::Raw => Some(given.clone()),
        ArgKind::Str | ArgKind::Path => scalar_text(given).map(Value::from),
        ArgKind::Bool => boolean(given).map(Value::from),
        ArgKind::Int => whole_number(given).map(Value::from),
        ArgKind::Float => number(given).map(Value::from),
        ArgKind::Mode => mode(given).map_err(wrong)?,
        ArgKind::List => list(given, |entry| scalar_text(entry).map(Value::from)),
        ArgKind::RawList => list(given, |entry| Some(entry.clone())),
        ArgKind::Dict => dict(given).map(Value::from),
    };
    let coerced = coerced.ok_or_else(|| wrong(arg.kind.expectation().to_owned()))?;
    check_choices(arg, &coerced)?;
    Ok(coerced)
}

fn check_choices(arg: &'static ArgSpec, value: &Value) -> Result<(), ArgProblem> {
    let entries = match value {
        Value::Array(entries) => entries.as_slice(),
        single => std::slice::from_ref(single),
    };
    let foreign = entries
        .iter()
        .filter_map(scalar_text)
        .find(|text| !arg.choices.is_empty() && !arg.choices.contains(&text.as_str()));
    match foreign {
        None => Ok(()),
        Some(found) => Err(ArgProblem::NotAChoice {
            argument: arg.name,
            choices: arg.choices,
            found,
        }),
    }
}

/// Returns the text of a value that is one word: as Python prints it, for templates do.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads Ansible's words for true and false.
pub(crate) fn boolean(value: &Value) -> Option<bool> {
    let text = match value {
        Value::Bool(found) => return Some(*found),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        _ => return None,
    };
    match text.as_str() {
        "y" | "yes" | "on" | "1" | "true" | "t" | "1.0" => Some(true),
        "n" | "no" | "off" | "0" | "false" | "f" | "0.0" => Some(false),
        _ => None,
    }
}

fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| whole(text.parse().ok()?))
        }
        Value::Bool(flag) => Some(i64::from(*flag)),
        _ => None,
    }
}

fn whole(number: f64) -> Option<i64> {
    // Beyond this a float cannot tell neighbouring whole numbers apart.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range and the missing fraction are checked in the same line"
    )]
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|found: &f64| found.is_finite()),
        _ => None,
    }
}

fn mode(value: &Value) -> Result<Option<Value>, String> {
    let text = match value {
        Value::Number(number) => match number.as_u64() {
            Some(bits) if bits <= 0o7777 => format!("0{bits:o}"),
            _ => return Ok(None),
        },
        Value::String(text) => text.clone(),
        _ => return Ok(None),
    };
    if text != "preserve" {
        Mode::parse(&text)
            .map_err(|problem| format!("{} ({problem})", ArgKind::Mode.expectation()))?;
    }
    Ok(Some(text.into()))
}

fn list(value: &Value, entry: impl Fn(&Value) -> Option<Value>) -> Option<Value> {
    match value {
        Value::Array(entries) => entries.iter().map(entry).collect(),
        Value::String(text) if text.is_empty() => Some(Value::Array(Vec::new())),
        Value::String(text) => text
            .split(',')
            .map(|part| entry(&part.trim().into()))
            .collect(),
        Value::Number(_) | Value::Bool(_) => Some(Value::Array(vec![entry(value)?])),
        Value::Null | Value::Object(_) => None,
    }
}

/// Reads a mapping, JSON text or `key=value` pairs parted by commas or blanks.
fn dict(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map.clone()),
        Value::String(text) if text.trim_start().starts_with('{') => {
            serde_json::from_slice(text.as_bytes()).ok()
        }
        Value::String(text) => text
            .split([',', ' '])
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=')?;
                Some((key.trim().to_owned(), Value::from(value.trim())))
            })
            .collect(),
        _ => None,
    }
}

fn is_templated(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{") || text.contains("{%"),
        Value::Array(entries) => entries.iter().any(is_templated),
        Value::Object(map) => map.values().any(is_templated),
        _ => false,
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::kind::lookup;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn module(name: &str) -> &'static ModuleSpec {
        lookup(name).expect("the module exists")
    }

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not a mapping: {other}"),
        }
    }

    fn messages(name: &str, args: Value) -> Vec<String> {
        let problems = coerce(module(name), &map(args)).expect_err("problems are expected");
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_become_the_types_the_module_takes() {
        let args =
            map(json!({"path": "/x", "recurse": "yes", "mode": 0o644, "state": "directory"}));
        let coerced = coerce(module("file"), &args).expect("valid");
        assert_eq!(coerced["recurse"], json!(true));
        assert_eq!(coerced["mode"], json!("0644"));
        assert_eq!(coerced["follow"], json!(true), "a default is filled in");
        let args = map(json!({"port": "80", "timeout": 5.0}));
        let coerced = coerce(module("wait_for"), &args).expect("valid");
        assert_eq!(
            (&coerced["port"], &coerced["timeout"]),
            (&json!(80), &json!(5))
        );
        let coerced = coerce(module("apt"), &map(json!({"pkg": "a, b"}))).expect("valid");
        assert_eq!(coerced["name"], json!(["a", "b"]));
    }

    #[test]
    fn all_problems_of_a_task_come_at_once() {
        assert_eq!(
            messages(
                "copy",
                json!({"dst": "/x", "backup": "maybe", "content": "a", "src": "b"})
            ),
            [
                "`copy` has no argument `dst`",
                "`backup` must be a boolean (true or false), found the text `maybe`",
                "`copy` needs `dest`",
                "`copy` takes only one of `src`, `content`",
            ]
        );
    }

    #[test]
    fn an_unknown_argument_brings_the_nearest_name() {
        let problems = coerce(module("copy"), &map(json!({"dest": "/x", "contnet": ""})))
            .expect_err("an unknown name");
        assert_eq!(problems[0].help(), ["did you mean `content`?"]);
        assert_eq!(problems[0].argument(), Some("contnet"));
    }

    #[test]
    fn choices_are_named() {
        assert_eq!(
            messages("service", json!({"name": "x", "state": "start"})),
            ["`state` must be one of started, stopped, restarted, reloaded, found `start`"]
        );
    }

    #[test]
    fn an_alias_beside_its_name_is_refused() {
        assert_eq!(
            messages("file", json!({"path": "/x", "dest": "/y"})),
            ["`dest` is given twice, also as `path`"]
        );
    }

    #[test]
    fn a_needed_partner_is_named_also_when_a_default_asks_for_it() {
        assert_eq!(
            messages("lineinfile", json!({"path": "/x"})),
            ["`lineinfile` with `state: present` needs `line`"]
        );
        assert_eq!(
            messages("file", json!({"path": "/x", "state": "link"})),
            ["`file` with `state: link` needs `src`"]
        );
    }

    #[test]
    fn a_bad_mode_says_why() {
        let found = messages("file", json!({"path": "/x", "mode": "u=rwz"}));
        assert!(found[0].contains("`z`"), "{found:?}");
    }

    #[test]
    fn templates_are_left_for_later() {
        let args = map(json!({"dest": "{{ d }}", "backup": "{{ b }}", "force": "perhaps"}));
        let problems = check_literal_args(module("copy"), &args);
        assert_eq!(
            problems.len(),
            2,
            "force, and neither src nor content: {problems:?}"
        );
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let coerced = coerce(
            module("command"),
            &map(json!({"cmd": "ls", "creates": null})),
        );
        assert!(!coerced.expect("valid").contains_key("creates"));
    }

    proptest! {
        #[test]
        fn coercing_twice_is_the_same_as_once(text in "[a-z0-9 ,=]{0,12}", flag in any::<bool>(), bits in 0u64..0o7777) {
            let args = map(json!({"path": text, "recurse": flag, "mode": bits, "state": "directory"}));
            let once = coerce(module("file"), &args).expect("valid");
            prop_assert_eq!(&coerce(module("file"), &once).expect("valid"), &once);
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            for module in ["copy", "wait_for", "user", "uri", "iptables"] {
                let args = lookup(module).expect("known").args;
                for arg in args {
                    let _ = value(arg, &Value::from(text.as_str()));
                }
            }
        }
    }
}
