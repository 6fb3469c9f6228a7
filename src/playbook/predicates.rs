//! Jinja's tests (`x is …`) that playbooks use and minijinja lacks.
//!
//! Results are asked by `changed`, `failed`, `succeeded`, `skipped`, `unreachable`; texts by `match`,
//! `search`, `regex`, `version`; lists by `subset`, `superset`, `contains`, `any`, `all`; files on the
//! controller by `exists`, `file`, `directory`. An undefined value passes only to `defined` and `undefined`.

#![expect(
    clippy::needless_pass_by_value,
    reason = "minijinja's functions take owned arguments"
)]

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::filters::{context_of, list, wrong};
use super::text_filters::regex;
use super::value::{display, plain_json};
use super::words;

/// Every test there is, minijinja's own included: for suggestions.
pub(super) const NAMES: &[&str] = &[
    "abs",
    "all",
    "any",
    "boolean",
    "change",
    "changed",
    "contains",
    "defined",
    "directory",
    "divisibleby",
    "eq",
    "equalto",
    "even",
    "exists",
    "failed",
    "failure",
    "false",
    "falsy",
    "file",
    "filter",
    "finished",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "issubset",
    "issuperset",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "match",
    "nan",
    "ne",
    "none",
    "number",
    "odd",
    "reachable",
    "regex",
    "sameas",
    "search",
    "sequence",
    "skip",
    "skipped",
    "started",
    "string",
    "subset",
    "succeeded",
    "success",
    "successful",
    "superset",
    "test",
    "true",
    "truthy",
    "undefined",
    "unreachable",
    "upper",
    "version",
    "version_compare",
];

pub(super) fn add_to(environment: &mut Environment<'_>) {
    for name in ["changed", "change"] {
        environment.add_test(name, |result: Value| flag(&result, "changed"));
    }
    for name in ["failed", "failure"] {
        environment.add_test(name, |result: Value| flag(&result, "failed"));
    }
    for name in ["succeeded", "success", "successful"] {
        environment.add_test(name, |result: Value| {
            flag(&result, "failed").map(|failed| !failed)
        });
    }
    for name in ["skipped", "skip"] {
        environment.add_test(name, |result: Value| flag(&result, "skipped"));
    }
    environment.add_test("unreachable", |result: Value| flag(&result, "unreachable"));
    environment.add_test("reachable", |result: Value| {
        flag(&result, "unreachable").map(|lost| !lost)
    });
    environment.add_test("finished", |result: Value| flag(&result, "finished"));
    environment.add_test("started", |result: Value| flag(&result, "started"));
    environment.add_test("truthy", |value: Value, options: Kwargs| {
        truthy(&value, &options)
    });
    environment.add_test("falsy", |value: Value, options: Kwargs| {
        truthy(&value, &options).map(|truthy| !truthy)
    });
    environment.add_test("match", |value: Value, pattern: String, options: Kwargs| {
        found(&value, &format!(r"\A(?:{pattern})"), &options)
    });
    environment.add_test(
        "search",
        |value: Value, pattern: String, options: Kwargs| found(&value, &pattern, &options),
    );
    environment.add_test("regex", matched);
    environment.add_test("version", version);
    environment.add_test("version_compare", version);
    for name in ["subset", "issubset"] {
        environment.add_test(name, |left: Value, right: Value| inside(&left, &right));
    }
    for name in ["superset", "issuperset"] {
        environment.add_test(name, |left: Value, right: Value| inside(&right, &left));
    }
    environment.add_test(
        "contains",
        |state: &mut State<'_, '_>, container: Value, item: Value| {
            state.perform_test("in", &[item, container])
        },
    );
    environment.add_test("any", |value: Value| {
        Ok::<_, Error>(defined(&value)?.try_iter()?.any(|item| item.is_true()))
    });
    environment.add_test("all", |value: Value| {
        Ok::<_, Error>(defined(&value)?.try_iter()?.all(|item| item.is_true()))
    });
    environment.add_test("nan", |value: f64| value.is_nan());
    for name in ["exists", "file", "directory"] {
        environment.add_test(name, move |state: &mut State<'_, '_>, path: Value| {
            exists(state, &path, name)
        });
    }
    of_types(environment);
}

/// Tests of types; minijinja's let undefined values pass as "no".
fn of_types(environment: &mut Environment<'_>) {
    environment.add_test("string", |value: Value| {
        is_kind(&value, &[ValueKind::String])
    });
    environment.add_test("mapping", |value: Value| is_kind(&value, &[ValueKind::Map]));
    environment.add_test("boolean", |value: Value| {
        is_kind(&value, &[ValueKind::Bool])
    });
    environment.add_test("none", |value: Value| is_kind(&value, &[ValueKind::None]));
    environment.add_test("iterable", |value: Value| {
        is_kind(
            &value,
            &[
                ValueKind::Seq,
                ValueKind::Map,
                ValueKind::Iterable,
                ValueKind::String,
            ],
        )
    });
    environment.add_test("sequence", |value: Value| {
        is_kind(&value, &[ValueKind::Seq, ValueKind::Map, ValueKind::String])
    });
    environment.add_test("number", |value: Value| {
        is_kind(&value, &[ValueKind::Number, ValueKind::Bool])
    });
    environment.add_test("integer", |value: Value| {
        Ok::<_, Error>(defined(&value)?.is_integer())
    });
    environment.add_test("float", |value: Value| {
        Ok::<_, Error>(defined(&value)?.kind() == ValueKind::Number && !value.is_integer())
    });
    environment.add_test("true", |value: Value| {
        Ok::<_, Error>(defined(&value)?.kind() == ValueKind::Bool && value.is_true())
    });
    environment.add_test("false", |value: Value| {
        Ok::<_, Error>(defined(&value)?.kind() == ValueKind::Bool && !value.is_true())
    });
}

fn defined(value: &Value) -> Result<&Value, Error> {
    if value.is_undefined() {
        Err(ErrorKind::UndefinedError.into())
    } else {
        Ok(value)
    }
}

fn is_kind(value: &Value, kinds: &[ValueKind]) -> Result<bool, Error> {
    Ok(kinds.contains(&defined(value)?.kind()))
}

/// A flag of a task's result; a result of a loop is changed when an item is.
fn flag(result: &Value, name: &str) -> Result<bool, Error> {
    if defined(result)?.kind() != ValueKind::Map {
        return Err(wrong(format!(
            "`is {name}` asks a registered result, this is {}",
            result.kind()
        )));
    }
    let own = result.get_attr(name)?;
    if own.is_undefined() && name == "changed" {
        let items = result.get_attr("results")?;
        if items.kind() == ValueKind::Seq {
            return Ok(items
                .try_iter()?
                .any(|item| item.get_attr(name).is_ok_and(|flag| flag.is_true())));
        }
    }
    Ok(own.is_true())
}

fn truthy(value: &Value, options: &Kwargs) -> Result<bool, Error> {
    let convert = options
        .get::<Option<bool>>("convert_bool")?
        .unwrap_or(false);
    options.assert_all_used()?;
    let converted = if convert {
        words::boolean(&plain_json(defined(value)?)?)
    } else {
        None
    };
    Ok(converted.unwrap_or_else(|| value.is_true()) && !value.is_undefined())
}

fn search(
    value: &Value,
    pattern: &str,
    ignore_case: bool,
    multi_line: bool,
) -> Result<bool, Error> {
    let text = display(&plain_json(value)?);
    regex(pattern, ignore_case, multi_line)?
        .is_match(&text)
        .map_err(|error| wrong(error.to_string()))
}

fn found(value: &Value, pattern: &str, options: &Kwargs) -> Result<bool, Error> {
    let ignore_case = options.get::<Option<bool>>("ignorecase")?.unwrap_or(false);
    let multi_line = options.get::<Option<bool>>("multiline")?.unwrap_or(false);
    options.assert_all_used()?;
    search(value, pattern, ignore_case, multi_line)
}

/// `regex` begins at the start like `match`, unless `match_type='search'`… which is its default.
fn matched(value: Value, pattern: String, options: Kwargs) -> Result<bool, Error> {
    let kind = options.get::<Option<String>>("match_type")?;
    let pattern = match kind.as_deref() {
        None | Some("search") => pattern,
        Some("match") => format!(r"\A(?:{pattern})"),
        Some("fullmatch") => format!(r"\A(?:{pattern})\z"),
        Some(other) => {
            return Err(wrong(format!(
                "match_type is search, match or fullmatch, not `{other}`"
            )));
        }
    };
    found(&value, &pattern, &options)
}

fn inside(part: &Value, whole: &Value) -> Result<bool, Error> {
    let whole = list(whole)?;
    Ok(list(part)?.iter().all(|item| whole.contains(item)))
}

fn exists(state: &State<'_, '_>, path: &Value, kind: &str) -> Result<bool, Error> {
    let path = display(&plain_json(path)?);
    let loader = &context_of(state)?.core.loader;
    Ok(match kind {
        "file" => loader.is_file(&path),
        "directory" => loader.is_directory(&path),
        _ => loader.is_file(&path) || loader.is_directory(&path),
    })
}

fn version(
    value: Value,
    other: Value,
    operator: Option<String>,
    options: Kwargs,
) -> Result<bool, Error> {
    let operator = operator
        .or(options.get("operator")?)
        .unwrap_or_else(|| "eq".to_owned());
    let strict = options.get::<Option<bool>>("strict")?;
    let kind = options.get::<Option<String>>("version_type")?;
    options.assert_all_used()?;
    let (left, right) = (display(&plain_json(&value)?), display(&plain_json(&other)?));
    let semantic =
        matches!(kind.as_deref(), Some("semver" | "semantic" | "strict")) || strict == Some(true);
    let order = if semantic {
        semantic_order(&left, &right)
    } else {
        loose_order(&left, &right)
    };
    Ok(match operator.as_str() {
        "==" | "=" | "eq" => order == Ordering::Equal,
        "!=" | "<>" | "ne" => order != Ordering::Equal,
        "<" | "lt" => order == Ordering::Less,
        "<=" | "le" => order != Ordering::Greater,
        ">" | "gt" => order == Ordering::Greater,
        ">=" | "ge" => order != Ordering::Less,
        other => return Err(wrong(format!("no comparison is called `{other}`"))),
    })
}

/// Python's `LooseVersion`: runs of digits as numbers, runs of letters as texts.
fn loose_order(left: &str, right: &str) -> Ordering {
    let (left, right) = (loose_parts(left), loose_parts(right));
    left.cmp(&right)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Word(String),
    Number(u128),
}

fn loose_parts(version: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = version;
    while let Some(first) = rest.chars().next() {
        let same = |character: char| {
            if first.is_ascii_digit() {
                character.is_ascii_digit()
            } else {
                character.is_ascii_lowercase()
            }
        };
        let end = rest
            .find(|character| !same(character))
            .unwrap_or(rest.len())
            .max(first.len_utf8());
        let part = &rest[..end];
        rest = &rest[end..];
        match part.parse() {
            Ok(number) => parts.push(Part::Number(number)),
            Err(_) if part == "." => {}
            Err(_) => parts.push(Part::Word(part.to_owned())),
        }
    }
    parts
}

/// Semantic versions: a pre-release comes before its release.
fn semantic_order(left: &str, right: &str) -> Ordering {
    let split = |version: &str| -> (String, Option<String>) {
        let version = version.split('+').next().unwrap_or(version);
        match version.split_once('-') {
            Some((core, before)) => (core.to_owned(), Some(before.to_owned())),
            None => (version.to_owned(), None),
        }
    };
    let ((left, left_before), (right, right_before)) = (split(left), split(right));
    loose_order(&left, &right).then_with(|| match (left_before, right_before) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => loose_order(&left, &right),
    })
}
