//! `lookup()`, `query()`, and the loops `with_…` that are made of them.

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, State};
use serde_json::{Map, Value as Json, json};

use super::context::Context;
use super::files;
use super::filters::{cartesian, context_of, flatten_into, rows, sub_rows, wrong};
use super::model::{Loop, WithKind};
use super::pattern::glob_regex;
use super::random::Random;
use super::render::{Renderer, TemplateOptions};
use super::value::{display, from_json, plain_json};
use super::vars::Scope;
use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::yaml::Node;

/// Every lookup there is.
pub(super) const NAMES: &[&str] = &[
    "dict",
    "env",
    "file",
    "fileglob",
    "first_found",
    "flattened",
    "indexed_items",
    "items",
    "lines",
    "list",
    "nested",
    "random_choice",
    "sequence",
    "subelements",
    "template",
    "together",
    "vars",
];

/// A loop of more items is a slip of the finger.
const ITEMS_MAX: i64 = 100_000;

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_function(
        "lookup",
        |state: &State<'_, '_>, name: String, terms: Rest<Value>, options: Kwargs| {
            let found = asked(state, &name, &terms, &options)?;
            let wants_list = options.get::<Option<bool>>("wantlist")?.unwrap_or(false);
            options.assert_all_used()?;
            Ok::<_, Error>(from_json(&if wants_list {
                Json::Array(found)
            } else {
                joined(found)
            }))
        },
    );
    for name in ["query", "q"] {
        environment.add_function(
            name,
            |state: &State<'_, '_>, name: String, terms: Rest<Value>, options: Kwargs| {
                let found = asked(state, &name, &terms, &options)?;
                options.get::<Option<bool>>("wantlist")?;
                options.assert_all_used()?;
                Ok::<_, Error>(from_json(&Json::Array(found)))
            },
        );
    }
    environment.add_function("undef", |hint: Option<String>| {
        Err::<Value, _>(Error::new(
            minijinja::ErrorKind::UndefinedError,
            hint.unwrap_or_else(|| "the value is undefined on purpose".to_owned()),
        ))
    });
}

/// What `lookup` makes of a list: texts joined by commas, else one item alone.
fn joined(mut found: Vec<Json>) -> Json {
    if found.iter().all(Json::is_string) {
        let texts: Vec<&str> = found.iter().filter_map(Json::as_str).collect();
        return Json::String(texts.join(","));
    }
    if found.len() == 1 {
        found.remove(0)
    } else {
        Json::Array(found)
    }
}

fn asked(
    state: &State<'_, '_>,
    name: &str,
    terms: &[Value],
    options: &Kwargs,
) -> Result<Vec<Json>, Error> {
    let context = context_of(state)?;
    let name = name.rsplit('.').next().unwrap_or(name);
    if name == "vars" {
        return variables(&context, terms, options);
    }
    let terms: Vec<Json> = terms.iter().map(plain_json).collect::<Result<_, _>>()?;
    match name {
        "env" => environment(&context, &terms, options),
        "file" => file(&context, &terms, options),
        "template" => template(&context, &terms),
        "subelements" => {
            let skip = options
                .get::<Option<bool>>("skip_missing")?
                .unwrap_or(false);
            subelements(&terms, skip).map_err(wrong)
        }
        _ => match kind_of(name) {
            Some(WithKind::Lines) => Err(wrong(
                "commands do not run while a template is rendered; use `command` with `register`",
            )),
            Some(kind) => with(kind, terms, &context).map_err(wrong),
            None => {
                let near = nearest(name, NAMES.iter().copied());
                let help = near.map_or_else(
                    || format!("there are {}", NAMES.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                Err(wrong(format!("no lookup is called `{name}`; {help}")))
            }
        },
    }
}

/// The lookup behind `with_NAME`.
pub(super) fn kind_of(name: &str) -> Option<WithKind> {
    Some(match name {
        "items" => WithKind::Items,
        "list" => WithKind::List,
        "dict" => WithKind::Dict,
        "nested" | "cartesian" => WithKind::Nested,
        "together" => WithKind::Together,
        "sequence" => WithKind::Sequence,
        "subelements" => WithKind::Subelements,
        "fileglob" => WithKind::Fileglob,
        "first_found" => WithKind::FirstFound,
        "indexed_items" => WithKind::IndexedItems,
        "flattened" => WithKind::Flattened,
        "random_choice" => WithKind::RandomChoice,
        "lines" => WithKind::Lines,
        _ => return None,
    })
}

fn variables(context: &Context, names: &[Value], options: &Kwargs) -> Result<Vec<Json>, Error> {
    let default = options.get::<Option<Value>>("default")?;
    let mut found = Vec::new();
    for name in names {
        let name = display(&plain_json(name)?);
        let Some(value) = context.lookup(&name).or_else(|| default.clone()) else {
            let problem = super::problem::undefined_name(&name, &context.scope);
            return Err(wrong([problem.message, problem.help.join("; ")].join(": ")));
        };
        found.push(plain_json(&value)?);
    }
    Ok(found)
}

fn environment(context: &Context, names: &[Json], options: &Kwargs) -> Result<Vec<Json>, Error> {
    let default = match options.get::<Option<Value>>("default")? {
        Some(default) => plain_json(&default)?,
        None => json!(""),
    };
    let get = |name: &Json| context.core.loader.environment(&display(name));
    Ok(names
        .iter()
        .map(|name| get(name).map_or_else(|| default.clone(), Json::String))
        .collect())
}

fn found_file(context: &Context, kind: &str, name: &str) -> Result<String, Error> {
    let folders: Vec<&str> = context.folders.iter().map(String::as_str).collect();
    files::find(context.core.loader.as_ref(), kind, name, &folders).map_err(|tried| {
        wrong(format!(
            "there is no file `{name}`; looked for {}",
            tried.join(", ")
        ))
    })
}

fn file(context: &Context, names: &[Json], options: &Kwargs) -> Result<Vec<Json>, Error> {
    let strip = options.get::<Option<bool>>("rstrip")?.unwrap_or(true);
    let mut found = Vec::new();
    for name in names {
        let path = found_file(context, "files", &display(name))?;
        let text = context.core.loader.read(&path);
        let text = text.map_err(|reason| wrong(format!("failed to read {path}: {reason}")))?;
        found.push(Json::String(if strip {
            text.trim_end().to_owned()
        } else {
            text
        }));
    }
    Ok(found)
}

fn template(context: &Context, names: &[Json]) -> Result<Vec<Json>, Error> {
    let mut found = Vec::new();
    for name in names {
        let path = found_file(context, "templates", &display(name))?;
        let text = context.core.loader.read(&path);
        let text = text.map_err(|reason| wrong(format!("failed to read {path}: {reason}")))?;
        let rendered = context
            .core
            .template(&path, &text, TemplateOptions::default(), context);
        found.push(Json::String(
            rendered.map_err(super::problem::Problem::into_error)?,
        ));
    }
    Ok(found)
}

impl Renderer {
    /// The items of a loop, in order. Relative files are looked for in `folders` first.
    pub fn loop_items(
        &self,
        repeat: &Loop,
        scope: &Scope,
        folders: &[&str],
    ) -> Result<Vec<Json>, Diagnostic> {
        let (Loop::Items(node) | Loop::With(_, node)) = repeat;
        let rendered = self
            .in_folders(folders)
            .optional(node, scope)?
            .unwrap_or(Json::Null);
        let Loop::With(kind, _) = repeat else {
            return match rendered {
                Json::Array(items) => Ok(items),
                other => Err(not_a_list(node, &other)),
            };
        };
        let terms = match (rendered, kind) {
            (Json::Array(items), _) => items,
            (Json::Null, _) => Vec::new(),
            (other, _) => vec![other],
        };
        if *kind == WithKind::Subelements {
            let skip = terms.get(2).and_then(|flags| flags.get("skip_missing"));
            let skip = skip.is_some_and(|skip| super::words::boolean(skip) == Some(true));
            return subelements(&terms, skip)
                .map_err(|message| Diagnostic::error(message).at(&node.origin));
        }
        let context = self.context(scope, folders);
        with(*kind, terms, &context).map_err(|message| Diagnostic::error(message).at(&node.origin))
    }
}

fn not_a_list(node: &Node, found: &Json) -> Diagnostic {
    let problem = Diagnostic::error(format!(
        "a loop goes over a list, found {}",
        super::python_json::dumps(
            found,
            super::python_json::Layout {
                indent: None,
                sort_keys: false,
                ascii: false
            },
        )
    ))
    .at(&node.origin)
    .label("expected a list");
    match found {
        Json::Object(_) => {
            problem.help("a mapping becomes a list of key and value by `| dict2items`")
        }
        _ => problem.help("`query(…)` gives a list where `lookup(…)` gives one value"),
    }
}

fn flat_one(terms: Vec<Json>) -> Vec<Json> {
    let mut flat = Vec::new();
    flatten_into(&mut flat, terms, 1, false);
    flat
}

fn as_lists(terms: Vec<Json>) -> Vec<Vec<Json>> {
    let lists = terms.into_iter().map(|term| match term {
        Json::Array(items) => items,
        other => vec![other],
    });
    lists.collect()
}

fn with(kind: WithKind, terms: Vec<Json>, context: &Context) -> Result<Vec<Json>, String> {
    Ok(match kind {
        WithKind::Items => flat_one(terms),
        WithKind::List => terms,
        WithKind::Flattened => {
            let mut flat = Vec::new();
            flatten_into(&mut flat, terms, usize::MAX, true);
            flat
        }
        WithKind::IndexedItems => {
            let items = flat_one(terms).into_iter().enumerate();
            items.map(|(index, item)| json!([index, item])).collect()
        }
        WithKind::Dict => return dict(terms),
        WithKind::Nested => cartesian(&as_lists(terms)),
        WithKind::Together => rows(&as_lists(terms), Some(&Json::Null)),
        WithKind::Sequence => {
            let mut all = Vec::new();
            for term in terms {
                all.extend(sequence(&term)?);
            }
            all
        }
        WithKind::Subelements => return subelements(&terms, false),
        WithKind::Fileglob => globbed(&terms, context),
        WithKind::FirstFound => return first_found(&terms, context),
        WithKind::RandomChoice => {
            if terms.is_empty() {
                return Ok(terms);
            }
            let index = Random::from_number(context.core.draw()).below(terms.len() as u64);
            vec![terms[usize::try_from(index).unwrap_or(0)].clone()]
        }
        WithKind::Lines => {
            return Err(
                "with_lines runs commands here; use `command`, `register` and `stdout_lines`"
                    .to_owned(),
            );
        }
    })
}

fn dict(terms: Vec<Json>) -> Result<Vec<Json>, String> {
    let mut items = Vec::new();
    for term in terms {
        let Json::Object(entries) = term else {
            return Err(format!("expected a mapping, found {}", display(&term)));
        };
        items.extend(
            entries
                .into_iter()
                .map(|(key, value)| json!({"key": key, "value": value})),
        );
    }
    Ok(items)
}

fn subelements(terms: &[Json], skip: bool) -> Result<Vec<Json>, String> {
    let [items, path, ..] = terms else {
        return Err(
            "subelements takes a list of mappings and the name of a list in each".to_owned(),
        );
    };
    let items: Vec<Json> = match items {
        Json::Array(items) => items.clone(),
        Json::Object(entries) => entries.values().cloned().collect(),
        other => {
            return Err(format!(
                "expected a list of mappings, found {}",
                display(other)
            ));
        }
    };
    let path: Vec<String> = display(path).split('.').map(str::to_owned).collect();
    sub_rows(&items, &path, skip)
}

/// `5`, `1-5`, `2-10/2`, `4:host%02d`, or a mapping / `start=… end=… stride=… count=… format=…`.
fn sequence(term: &Json) -> Result<Vec<Json>, String> {
    let given = match term {
        Json::Object(entries) => entries.clone(),
        other => sequence_words(&display(other)),
    };
    let number = |name: &str| -> Result<Option<i64>, String> {
        let Some(value) = given.get(name) else {
            return Ok(None);
        };
        let text = display(value);
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed
            .map(Some)
            .map_err(|_| format!("a sequence's {name} is a whole number, found `{text}`"))
    };
    let start = number("start")?.unwrap_or(1);
    let stride = number("stride")?.unwrap_or(1);
    let end = match (number("end")?, number("count")?) {
        (Some(end), None) => end,
        (None, Some(0)) => return Ok(Vec::new()),
        (None, Some(count)) => start.saturating_add(count.saturating_sub(1).saturating_mul(stride)),
        _ => return Err("a sequence has either an end or a count".to_owned()),
    };
    if stride == 0 || (end - start).signum() * stride.signum() < 0 {
        return Err(format!(
            "a sequence from {start} never reaches {end} in steps of {stride}"
        ));
    }
    if (end - start).abs() / stride.abs() > ITEMS_MAX {
        return Err(format!("a sequence of more than {ITEMS_MAX} numbers"));
    }
    let format = given.get("format").map_or_else(|| "%d".to_owned(), display);
    let count = (end - start) / stride;
    (0..=count)
        .map(|step| formatted(&format, start + step * stride).map(Json::String))
        .collect()
}

fn sequence_words(text: &str) -> Map<String, Json> {
    if text.contains('=') {
        let pairs = text
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        return pairs
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
    }
    let (rest, format) = text.split_once(':').unwrap_or((text, "%d"));
    let (rest, stride) = rest.split_once('/').unwrap_or((rest, "1"));
    let (start, end) = rest.split_once('-').unwrap_or(("1", rest));
    [
        ("start", start),
        ("end", end),
        ("stride", stride),
        ("format", format),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), json!(value.trim())))
    .collect()
}

/// C's `%d`, `%03d`, `%x` around one number.
fn formatted(format: &str, number: i64) -> Result<String, String> {
    let wrong = || format!("`{format}` formats no number; expected something such as host%02d");
    let at = format.find('%').ok_or_else(wrong)?;
    let rest = &format[at + 1..];
    let end = rest
        .find(|end: char| end.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (width, kind) = (&rest[..end], &rest[end..=end]);
    let zeros = width.starts_with('0');
    let width: usize = if width.is_empty() {
        0
    } else {
        width.parse().map_err(|_| wrong())?
    };
    let width = width.min(64);
    let digits = match kind {
        "d" | "i" | "u" => number.to_string(),
        "x" => format!("{number:x}"),
        "X" => format!("{number:X}"),
        "o" => format!("{number:o}"),
        _ => return Err(wrong()),
    };
    let padded = if zeros {
        format!("{digits:0>width$}")
    } else {
        format!("{digits:>width$}")
    };
    Ok(format!("{}{padded}{}", &format[..at], &rest[end + 1..]))
}

/// Files matching a glob in its last part, in the folders files are looked for.
fn globbed(terms: &[Json], context: &Context) -> Vec<Json> {
    let loader = &context.core.loader;
    let folders: Vec<&str> = context.folders.iter().map(String::as_str).collect();
    let mut all = Vec::new();
    for term in terms {
        let term = display(term);
        let (folder, glob) = (
            files::folder_of(&term),
            term.rsplit('/').next().unwrap_or(&term),
        );
        let Ok(regex) = fancy_regex::Regex::new(&format!("^(?s:{})$", glob_regex(glob))) else {
            continue;
        };
        let searched = if folder.is_empty() {
            folders
                .iter()
                .flat_map(|base| [files::join(base, "files"), (*base).to_owned()])
                .collect()
        } else {
            files::candidates("files", folder, &folders)
        };
        let found = searched
            .into_iter()
            .find(|folder| loader.is_directory(if folder.is_empty() { "." } else { folder }));
        let Some(folder) = found else { continue };
        for name in loader.list(if folder.is_empty() { "." } else { &folder }) {
            let path = files::join(&folder, &name);
            if regex.is_match(&name).unwrap_or(false) && loader.is_file(&path) {
                all.push(Json::String(loader.absolute(&path)));
            }
        }
    }
    all
}

fn first_found(terms: &[Json], context: &Context) -> Result<Vec<Json>, String> {
    let texts = |value: Option<&Json>| -> Vec<String> {
        match value {
            Some(Json::Array(items)) => items.iter().map(display).collect(),
            Some(Json::Null) | None => Vec::new(),
            Some(other) => display(other)
                .split([',', ';'])
                .map(|part| part.trim().to_owned())
                .collect(),
        }
    };
    let mut names: Vec<String> = Vec::new();
    let mut skip = false;
    for term in terms {
        match term {
            Json::Object(options) => {
                let files = texts(options.get("files"));
                let paths = texts(options.get("paths"));
                skip |= options
                    .get("skip")
                    .is_some_and(|skip| super::words::boolean(skip) == Some(true));
                if paths.is_empty() {
                    names.extend(files);
                } else {
                    names.extend(
                        paths
                            .iter()
                            .flat_map(|path| files.iter().map(|file| files::join(path, file))),
                    );
                }
            }
            Json::Array(items) => names.extend(items.iter().map(display)),
            other => names.push(display(other)),
        }
    }
    let folders: Vec<&str> = context.folders.iter().map(String::as_str).collect();
    for name in &names {
        for kind in ["files", "templates", "vars", "tasks"] {
            if let Ok(path) = files::find(context.core.loader.as_ref(), kind, name, &folders) {
                return Ok(vec![Json::String(context.core.loader.absolute(&path))]);
            }
        }
    }
    if skip {
        return Ok(Vec::new());
    }
    Err(format!(
        "none of these files is there: {}",
        names.join(", ")
    ))
}
