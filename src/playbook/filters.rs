//! The filters Ansible's playbooks use and minijinja lacks, or has otherwise.
//!
//! Those on structures are here; texts, numbers and files are in [`text_filters`](super::text_filters).
//! What each gives was compared with ansible-core 2.19.14.

#![expect(
    clippy::needless_pass_by_value,
    reason = "minijinja's functions take owned arguments"
)]

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::{Map, Value as Json, json};

use super::context::{Context, SELF};
use super::random::Random;
use super::template::{CHAIN, PERCENT};
use super::value::{from_json, plain_json};
use super::{python_json, python_yaml, text_filters, words};
use crate::base::diagnostic::Source;
use crate::base::yaml;

/// Every filter there is, minijinja's own included: for suggestions.
pub(super) const NAMES: &[&str] = &[
    "abs",
    "attr",
    "b64decode",
    "b64encode",
    "basename",
    "batch",
    "bool",
    "capitalize",
    "center",
    "checksum",
    "combine",
    "comment",
    "count",
    "d",
    "default",
    "dict2items",
    "dictsort",
    "difference",
    "dirname",
    "e",
    "escape",
    "expanduser",
    "extract",
    "first",
    "flatten",
    "float",
    "format",
    "from_json",
    "from_yaml",
    "from_yaml_all",
    "groupby",
    "hash",
    "human_readable",
    "human_to_bytes",
    "indent",
    "int",
    "intersect",
    "ipaddr",
    "ipsubnet",
    "ipv4",
    "ipv6",
    "ipwrap",
    "items",
    "items2dict",
    "join",
    "last",
    "length",
    "list",
    "log",
    "lower",
    "mandatory",
    "map",
    "max",
    "md5",
    "min",
    "path_join",
    "pow",
    "pprint",
    "product",
    "quote",
    "random",
    "realpath",
    "regex_escape",
    "regex_findall",
    "regex_replace",
    "regex_search",
    "reject",
    "rejectattr",
    "relpath",
    "replace",
    "reverse",
    "root",
    "round",
    "safe",
    "select",
    "selectattr",
    "sha1",
    "shuffle",
    "slice",
    "sort",
    "split",
    "splitext",
    "string",
    "subelements",
    "sum",
    "symmetric_difference",
    "ternary",
    "title",
    "to_json",
    "to_nice_json",
    "to_nice_yaml",
    "to_uuid",
    "to_yaml",
    "tojson",
    "trim",
    "truncate",
    "type_debug",
    "union",
    "unique",
    "upper",
    "urlencode",
    "urlsplit",
    "wordcount",
    "wordwrap",
    "zip",
    "zip_longest",
];

pub(super) fn add_to(environment: &mut Environment<'_>) {
    minijinja_contrib::add_to_environment(environment);
    text_filters::add_to(environment);
    environment.add_function(CHAIN, chain);
    environment.add_function(PERCENT, percent);
    environment.add_filter("bool", bool_filter);
    environment.add_filter("combine", combine);
    environment.add_filter("dict2items", dict2items);
    environment.add_filter("items2dict", items2dict);
    environment.add_filter("difference", |left: Value, right: Value| {
        sets(&left, &right, Sets::Difference)
    });
    environment.add_filter("intersect", |left: Value, right: Value| {
        sets(&left, &right, Sets::Intersect)
    });
    environment.add_filter("union", |left: Value, right: Value| {
        sets(&left, &right, Sets::Union)
    });
    environment.add_filter("symmetric_difference", |left: Value, right: Value| {
        sets(&left, &right, Sets::Symmetric)
    });
    environment.add_filter("extract", extract);
    environment.add_filter("flatten", flatten);
    environment.add_filter("from_json", from_json_filter);
    environment.add_filter("from_yaml", from_yaml);
    environment.add_filter("from_yaml_all", from_yaml_all);
    environment.add_filter("mandatory", mandatory);
    environment.add_filter("product", product);
    environment.add_filter("random", random);
    environment.add_filter("shuffle", shuffle);
    environment.add_filter("subelements", subelements);
    environment.add_filter("ternary", ternary);
    environment.add_filter("to_json", to_json_filter);
    environment.add_filter("to_nice_json", to_nice_json);
    environment.add_filter("tojson", to_json_filter);
    environment.add_filter("to_yaml", to_yaml);
    environment.add_filter("to_nice_yaml", to_nice_yaml);
    environment.add_filter("type_debug", type_debug);
    environment.add_filter("zip", zip);
    environment.add_filter("zip_longest", zip_longest);
}

/// A wrong argument, in the words of whoever wrote the template.
pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The context a filter or function was called in.
pub(super) fn context_of(state: &State<'_, '_>) -> Result<std::sync::Arc<Context>, Error> {
    state
        .lookup(SELF)
        .and_then(|value| value.downcast_object::<Context>())
        .ok_or_else(|| wrong("this works in playbooks and templates only"))
}

/// `a.b.c` where any link may be missing.
fn chain(root: Value, links: Rest<Value>) -> Result<Value, Error> {
    let mut value = root;
    for link in links.iter() {
        if value.is_undefined() {
            break;
        }
        value = value.get_item(link).unwrap_or(Value::UNDEFINED);
        if value.kind() == ValueKind::Invalid {
            return Err(super::value::error_in(&value));
        }
    }
    Ok(value)
}

/// `'%s …' % value` and `'%s %s' % (a, b)`.
fn percent(state: &mut State<'_, '_>, format: Value, value: Value) -> Result<Value, Error> {
    let mut arguments = vec![format];
    if value.is_tuple() {
        arguments.extend(value.try_iter()?);
    } else {
        arguments.push(value);
    }
    state.apply_filter("format", &arguments)
}

fn bool_filter(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Ok(value);
    }
    Ok(Value::from(
        words::boolean(&plain_json(&value)?).unwrap_or(false),
    ))
}

/// How `combine` joins two lists under the same name.
#[derive(Clone, Copy, Debug)]
enum ListMerge {
    Replace,
    Keep,
    Append,
    Prepend,
    AppendUnique,
    PrependUnique,
}

fn combine(value: Value, others: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let recursive = options.get::<Option<bool>>("recursive")?.unwrap_or(false);
    let lists = match options
        .get::<Option<&str>>("list_merge")?
        .unwrap_or("replace")
    {
        "replace" => ListMerge::Replace,
        "keep" => ListMerge::Keep,
        "append" => ListMerge::Append,
        "prepend" => ListMerge::Prepend,
        "append_rp" => ListMerge::AppendUnique,
        "prepend_rp" => ListMerge::PrependUnique,
        other => {
            return Err(wrong(format!(
                "list_merge is replace, keep, append, prepend, append_rp or prepend_rp, not `{other}`"
            )));
        }
    };
    options.assert_all_used()?;
    let mut merged = Map::new();
    for part in std::iter::once(&value).chain(others.iter()) {
        match plain_json(part)? {
            Json::Object(entries) => merge(&mut merged, entries, recursive, lists),
            // A list of mappings is combined in order.
            Json::Array(items) => {
                for item in items {
                    let Json::Object(entries) = item else {
                        return Err(wrong(format!("combine takes mappings, not {item}")));
                    };
                    merge(&mut merged, entries, recursive, lists);
                }
            }
            other => return Err(wrong(format!("combine takes mappings, not {other}"))),
        }
    }
    Ok(from_json(&Json::Object(merged)))
}

fn merge(into: &mut Map<String, Json>, from: Map<String, Json>, recursive: bool, lists: ListMerge) {
    for (name, new) in from {
        match (into.get_mut(&name), new) {
            (Some(Json::Object(old)), Json::Object(new)) if recursive => {
                merge(old, new, recursive, lists);
            }
            (Some(Json::Array(old)), Json::Array(new)) => merge_lists(old, new, lists),
            (_, new) => {
                into.insert(name, new);
            }
        }
    }
}

fn merge_lists(old: &mut Vec<Json>, new: Vec<Json>, lists: ListMerge) {
    match lists {
        ListMerge::Replace => *old = new,
        ListMerge::Keep => {}
        ListMerge::Append => old.extend(new),
        ListMerge::Prepend => {
            old.splice(0..0, new);
        }
        ListMerge::AppendUnique => {
            old.retain(|item| !new.contains(item));
            old.extend(new);
        }
        ListMerge::PrependUnique => {
            old.retain(|item| !new.contains(item));
            old.splice(0..0, new);
        }
    }
}

fn dict2items(value: Value, options: Kwargs) -> Result<Value, Error> {
    let key = options.get::<Option<&str>>("key_name")?.unwrap_or("key");
    let name = options
        .get::<Option<&str>>("value_name")?
        .unwrap_or("value");
    options.assert_all_used()?;
    if value.kind() != ValueKind::Map {
        plain_json(&value)?;
        return Err(wrong(format!(
            "dict2items takes a mapping, not {}",
            value.kind()
        )));
    }
    let mut items = Vec::new();
    for entry in value.try_iter()?.checked() {
        let entry = entry?;
        let found = value.get_item(&entry)?;
        items.push(Value::from_pairs([
            (Value::from(key), entry),
            (Value::from(name), found),
        ]));
    }
    Ok(Value::from(items))
}

fn items2dict(value: Value, options: Kwargs) -> Result<Value, Error> {
    let key = options.get::<Option<&str>>("key_name")?.unwrap_or("key");
    let name = options
        .get::<Option<&str>>("value_name")?
        .unwrap_or("value");
    options.assert_all_used()?;
    let mut pairs = Vec::new();
    for item in value.try_iter()?.checked() {
        let item = item?;
        let (found, under) = (item.get_attr(name)?, item.get_attr(key)?);
        if under.is_undefined() || found.is_undefined() {
            return Err(wrong(format!(
                "items2dict takes items with `{key}` and `{name}`"
            )));
        }
        pairs.push((under, found));
    }
    Ok(Value::from_pairs(pairs))
}

#[derive(Clone, Copy, Debug)]
enum Sets {
    Difference,
    Intersect,
    Union,
    Symmetric,
}

/// Lists as sets, in the order of their first appearance.
fn sets(left: &Value, right: &Value, kind: Sets) -> Result<Value, Error> {
    let (left, right) = (list(left)?, list(right)?);
    let mut all: Vec<Json> = Vec::new();
    for item in left.iter().chain(&right) {
        let wanted = match kind {
            Sets::Difference => !right.contains(item),
            Sets::Intersect => left.contains(item) && right.contains(item),
            Sets::Union => true,
            Sets::Symmetric => left.contains(item) != right.contains(item),
        };
        if wanted && !all.contains(item) {
            all.push(item.clone());
        }
    }
    Ok(from_json(&Json::Array(all)))
}

pub(super) fn list(value: &Value) -> Result<Vec<Json>, Error> {
    match plain_json(value)? {
        Json::Array(items) => Ok(items),
        Json::Object(entries) => Ok(entries
            .into_iter()
            .map(|(name, _)| Json::String(name))
            .collect()),
        other => Err(wrong(format!("expected a list, found {other}"))),
    }
}

fn extract(item: Value, container: Value, more: Option<Value>) -> Result<Value, Error> {
    let mut value = container.get_item(&item)?;
    let more = more.unwrap_or_default();
    if more.kind() == ValueKind::Seq {
        for key in more.try_iter()? {
            value = value.get_item(&key)?;
        }
    } else if !more.is_undefined() && !more.is_none() {
        value = value.get_item(&more)?;
    }
    Ok(value)
}

fn flatten(value: Value, levels: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let levels = match levels {
        Some(levels) => Some(levels),
        None => options.get::<Option<usize>>("levels")?,
    };
    let skip_nulls = options.get::<Option<bool>>("skip_nulls")?.unwrap_or(true);
    options.assert_all_used()?;
    let mut flat = Vec::new();
    flatten_into(
        &mut flat,
        list(&value)?,
        levels.unwrap_or(usize::MAX),
        skip_nulls,
    );
    Ok(from_json(&Json::Array(flat)))
}

pub(super) fn flatten_into(
    flat: &mut Vec<Json>,
    items: Vec<Json>,
    levels: usize,
    skip_nulls: bool,
) {
    for item in items {
        match item {
            Json::Array(inner) if levels > 0 => flatten_into(flat, inner, levels - 1, skip_nulls),
            Json::Null if skip_nulls => {}
            other => flat.push(other),
        }
    }
}

fn text_of(value: &Value) -> Result<String, Error> {
    Ok(super::value::display(&plain_json(value)?))
}

fn from_json_filter(value: Value) -> Result<Value, Error> {
    let text = text_of(&value)?;
    let json: Json =
        serde_json::from_str(&text).map_err(|error| wrong(format!("this is not JSON: {error}")))?;
    Ok(from_json(&json))
}

fn from_yaml(value: Value) -> Result<Value, Error> {
    let source = Source::new("<from_yaml>", text_of(&value)?);
    let node = yaml::parse(&source).map_err(|problem| wrong(problem.message))?;
    Ok(from_json(&node.to_json()))
}

fn from_yaml_all(value: Value) -> Result<Value, Error> {
    let source = Source::new("<from_yaml_all>", text_of(&value)?);
    let nodes = yaml::parse_all(&source).map_err(|problem| wrong(problem.message))?;
    Ok(nodes
        .iter()
        .map(|node| from_json(&node.to_json()))
        .collect())
}

fn mandatory(value: Value, message: Option<String>) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(wrong(message.unwrap_or_else(|| {
            "a mandatory variable is not defined".to_owned()
        })));
    }
    Ok(value)
}

fn lists(first: &Value, others: &[Value]) -> Result<Vec<Vec<Json>>, Error> {
    std::iter::once(first).chain(others).map(list).collect()
}

fn product(value: Value, others: Rest<Value>) -> Result<Value, Error> {
    Ok(from_json(&Json::Array(cartesian(&lists(&value, &others)?))))
}

/// Every choice of one item of each list, the last list turning fastest.
pub(super) fn cartesian(lists: &[Vec<Json>]) -> Vec<Json> {
    let mut rows: Vec<Vec<Json>> = vec![Vec::new()];
    for items in lists {
        rows = rows
            .iter()
            .flat_map(|row| {
                items
                    .iter()
                    .map(|item| [row.as_slice(), std::slice::from_ref(item)].concat())
            })
            .collect();
    }
    rows.into_iter().map(Json::Array).collect()
}

/// Rows across lists; missing items are `fill`, or end the rows when there is none.
pub(super) fn rows(lists: &[Vec<Json>], fill: Option<&Json>) -> Vec<Json> {
    let lengths = lists.iter().map(Vec::len);
    let count = if fill.is_some() {
        lengths.max()
    } else {
        lengths.min()
    };
    (0..count.unwrap_or(0))
        .map(|row| {
            let cells = lists
                .iter()
                .map(|items| items.get(row).or(fill).cloned().unwrap_or(Json::Null));
            Json::Array(cells.collect())
        })
        .collect()
}

fn zip(value: Value, others: Rest<Value>) -> Result<Value, Error> {
    Ok(from_json(&Json::Array(rows(
        &lists(&value, &others)?,
        None,
    ))))
}

fn zip_longest(value: Value, others: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let fill = match options.get::<Option<Value>>("fillvalue")? {
        Some(fill) => plain_json(&fill)?,
        None => Json::Null,
    };
    options.assert_all_used()?;
    Ok(from_json(&Json::Array(rows(
        &lists(&value, &others)?,
        Some(&fill),
    ))))
}

/// A generator for a seed given, or the next of the run.
fn generator(state: &State<'_, '_>, options: &Kwargs) -> Result<Random, Error> {
    match options.get::<Option<Value>>("seed")? {
        Some(seed) if !seed.is_none() => match seed.as_i64() {
            Some(number) => Ok(Random::from_number(number.unsigned_abs())),
            None => Ok(Random::from_text(&text_of(&seed)?)),
        },
        _ => Ok(Random::from_number(context_of(state)?.core.draw())),
    }
}

fn random(
    state: &State<'_, '_>,
    value: Value,
    start: Option<i64>,
    step: Option<i64>,
    options: Kwargs,
) -> Result<Value, Error> {
    let mut random = generator(state, &options)?;
    let start = start.or(options.get("start")?).unwrap_or(0);
    let step = step.or(options.get("step")?).unwrap_or(1);
    options.assert_all_used()?;
    if let Some(end) = value.as_i64().filter(|_| value.kind() == ValueKind::Number) {
        if step <= 0 || end <= start {
            return Err(wrong(format!(
                "there is no number from {start} to below {end} in steps of {step}"
            )));
        }
        let choices = (end - start - 1) / step + 1;
        let index = random.below(choices.unsigned_abs());
        return Ok(Value::from(
            start + step * i64::try_from(index).unwrap_or(0),
        ));
    }
    let items = list(&value)?;
    if items.is_empty() {
        return Err(wrong("there is nothing to choose from"));
    }
    let index = random.below(items.len() as u64);
    Ok(from_json(&items[usize::try_from(index).unwrap_or(0)]))
}

fn shuffle(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<Value, Error> {
    let mut random = generator(state, &options)?;
    options.assert_all_used()?;
    let mut items = list(&value)?;
    random.shuffle(&mut items);
    Ok(from_json(&Json::Array(items)))
}

fn subelements(value: Value, path: Value, options: Kwargs) -> Result<Value, Error> {
    let skip = options
        .get::<Option<bool>>("skip_missing")?
        .unwrap_or(false);
    options.assert_all_used()?;
    let items = match plain_json(&value)? {
        Json::Object(entries) => entries.into_iter().map(|(_, value)| value).collect(),
        Json::Array(items) => items,
        other => {
            return Err(wrong(format!(
                "subelements takes a list or a mapping, not {other}"
            )));
        }
    };
    let path = match plain_json(&path)? {
        Json::Array(parts) => parts.iter().map(super::value::display).collect(),
        other => super::value::display(&other)
            .split('.')
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    };
    sub_rows(&items, &path, skip)
        .map(|rows| from_json(&Json::Array(rows)))
        .map_err(wrong)
}

/// Pairs of an item and each element of the list inside it.
pub(super) fn sub_rows(items: &[Json], path: &[String], skip: bool) -> Result<Vec<Json>, String> {
    let mut rows = Vec::new();
    for item in items {
        let inner = path.iter().try_fold(item, |value, part| value.get(part));
        match inner {
            Some(Json::Array(elements)) => {
                rows.extend(elements.iter().map(|element| json!([item, element])));
            }
            Some(other) => return Err(format!("`{}` is {other}, not a list", path.join("."))),
            None if skip => {}
            None => return Err(format!("an item has no `{}`", path.join("."))),
        }
    }
    Ok(rows)
}

fn ternary(value: Value, yes: Value, no: Value, null: Option<Value>) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    Ok(match null {
        Some(null) if value.is_none() => null,
        _ if value.is_true() => yes,
        _ => no,
    })
}

fn json_layout(options: &Kwargs, indent: Option<usize>) -> Result<python_json::Layout, Error> {
    Ok(python_json::Layout {
        indent: options.get::<Option<usize>>("indent")?.or(indent),
        sort_keys: options
            .get::<Option<bool>>("sort_keys")?
            .unwrap_or_else(|| indent.is_some()),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(true),
    })
}

fn to_json_filter(value: Value, options: Kwargs) -> Result<String, Error> {
    let layout = json_layout(&options, None)?;
    options.get::<Option<Value>>("preprocess_unsafe")?;
    options.assert_all_used()?;
    Ok(python_json::dumps(&plain_json(&value)?, layout))
}

fn to_nice_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let layout = json_layout(&options, Some(4))?;
    options.assert_all_used()?;
    Ok(python_json::dumps(&plain_json(&value)?, layout))
}

fn yaml_layout(options: &Kwargs, nice: bool) -> Result<python_yaml::Layout, Error> {
    let layout = python_yaml::Layout {
        indent: options
            .get::<Option<usize>>("indent")?
            .unwrap_or(if nice { 4 } else { 2 }),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(true),
        block: options
            .get::<Option<bool>>("default_flow_style")?
            .map_or(nice, |flow| !flow),
        width: options.get::<Option<usize>>("width")?.unwrap_or(80),
    };
    options.assert_all_used()?;
    Ok(layout)
}

fn to_yaml(value: Value, options: Kwargs) -> Result<String, Error> {
    Ok(python_yaml::dump(
        &plain_json(&value)?,
        yaml_layout(&options, false)?,
    ))
}

fn to_nice_yaml(value: Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let mut layout = yaml_layout(&options, true)?;
    layout.indent = indent.unwrap_or(layout.indent);
    Ok(python_yaml::dump(&plain_json(&value)?, layout))
}

fn type_debug(value: Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "UndefinedMarker",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Map => "dict",
        _ if value.is_tuple() => "tuple",
        _ => "list",
    }
}
