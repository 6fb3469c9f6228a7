//! Filters on texts, numbers and paths.

#![expect(
    clippy::needless_pass_by_value,
    reason = "minijinja's functions take owned arguments"
)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fancy_regex::{Captures, Regex, RegexBuilder};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, State};
use serde_json::Value as Json;
use sha1::{Digest, Sha1};

use super::address;
use super::files::folder_of;
use super::filters::{context_of, list, wrong};
use super::value::{display, from_json, plain_json};

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("b64decode", b64decode);
    environment.add_filter("b64encode", b64encode);
    environment.add_filter("basename", |path: Value| {
        Ok::<_, Error>(basename(&text(&path)?).to_owned())
    });
    environment.add_filter("dirname", |path: Value| {
        Ok::<_, Error>(folder_of(&text(&path)?).to_owned())
    });
    environment.add_filter("center", center);
    environment.add_filter("checksum", |value: Value| digest("sha1", &text(&value)?));
    environment.add_filter("sha1", |value: Value| digest("sha1", &text(&value)?));
    environment.add_filter("md5", |value: Value| digest("md5", &text(&value)?));
    environment.add_filter("hash", |value: Value, kind: Option<String>| {
        digest(kind.as_deref().unwrap_or("sha1"), &text(&value)?)
    });
    environment.add_filter("comment", comment);
    environment.add_filter("expanduser", expanduser);
    environment.add_filter("float", float);
    environment.add_filter("human_readable", human_readable);
    environment.add_filter("human_to_bytes", human_to_bytes);
    environment.add_filter("int", int);
    environment.add_filter("log", |value: f64, base: Option<f64>| {
        base.map_or_else(|| value.ln(), |base| value.ln() / base.ln())
    });
    environment.add_filter("pow", |value: f64, power: f64| value.powf(power));
    environment.add_filter("root", |value: f64, base: Option<f64>| match base {
        None => value.sqrt(),
        Some(base) if (base - 3.0).abs() < f64::EPSILON => value.cbrt(),
        Some(base) => value.powf(1.0 / base),
    });
    environment.add_filter("path_join", path_join);
    environment.add_filter("quote", |value: Value| {
        Ok::<_, Error>(quote(&text(&value)?))
    });
    environment.add_filter("realpath", |state: &State<'_, '_>, path: Value| {
        Ok::<_, Error>(context_of(state)?.core.loader.absolute(&text(&path)?))
    });
    environment.add_filter("relpath", relpath);
    environment.add_filter("regex_escape", |value: Value| {
        Ok::<_, Error>(regex_escape(&text(&value)?))
    });
    environment.add_filter("regex_findall", regex_findall);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("regex_search", regex_search);
    environment.add_filter("round", round);
    environment.add_filter("split", split);
    environment.add_filter("splitext", splitext);
    environment.add_filter("to_uuid", |value: Value| {
        Ok::<_, Error>(uuid(&text(&value)?))
    });
    environment.add_filter("urlsplit", urlsplit);
    environment.add_filter("ipaddr", |value: Value, query: Option<Value>| {
        addresses(&value, query, None)
    });
    environment.add_filter("ipv4", |value: Value, query: Option<Value>| {
        addresses(&value, query, Some(4))
    });
    environment.add_filter("ipv6", |value: Value, query: Option<Value>| {
        addresses(&value, query, Some(6))
    });
    environment.add_filter("ipwrap", |value: Value| {
        let text = text(&value)?;
        Ok::<_, Error>(if text.contains(':') && !text.starts_with('[') {
            format!("[{text}]")
        } else {
            text
        })
    });
    environment.add_filter(
        "ipsubnet",
        |value: Value, prefix: Option<u8>, index: Option<i64>| {
            let found = address::subnet(&text(&value)?, prefix, index);
            Ok::<_, Error>(found.map_or_else(|| Value::from(false), Value::from))
        },
    );
}

/// A value as text, as Python's `str()` writes it; undefined is an error.
fn text(value: &Value) -> Result<String, Error> {
    Ok(display(&plain_json(value)?))
}

fn b64encode(value: Value) -> Result<String, Error> {
    Ok(STANDARD.encode(text(&value)?))
}

fn b64decode(value: Value) -> Result<String, Error> {
    let clean: String = text(&value)?.split_whitespace().collect();
    let bytes = STANDARD
        .decode(clean)
        .map_err(|error| wrong(format!("this is not base64: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn center(value: Value, width: Option<usize>) -> Result<String, Error> {
    let text = text(&value)?;
    let width = width.unwrap_or(80);
    let room = width.saturating_sub(text.chars().count());
    // Python puts the odd blank left when the width is odd.
    let left = room / 2 + (room & width & 1);
    Ok(format!(
        "{}{text}{}",
        " ".repeat(left),
        " ".repeat(room - left)
    ))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn digest(kind: &str, text: &str) -> Result<String, Error> {
    Ok(match kind {
        "md5" => hex(&md5::Md5::digest(text)),
        "sha1" => hex(&Sha1::digest(text)),
        "sha224" => hex(&sha2::Sha224::digest(text)),
        "sha256" => hex(&sha2::Sha256::digest(text)),
        "sha384" => hex(&sha2::Sha384::digest(text)),
        "sha512" => hex(&sha2::Sha512::digest(text)),
        other => {
            return Err(wrong(format!(
                "no hash is called `{other}`; there are md5, sha1, sha224, sha256, sha384, sha512"
            )));
        }
    })
}

/// A version-5 UUID in Ansible's name space.
fn uuid(name: &str) -> String {
    const ANSIBLE: [u8; 16] = [
        0x36, 0x1e, 0x6d, 0x51, 0xfa, 0xec, 0x44, 0x4a, 0x90, 0x79, 0x34, 0x13, 0x86, 0xda, 0x8e,
        0x2e,
    ];
    let mut hash = Sha1::new();
    hash.update(ANSIBLE);
    hash.update(name);
    let mut bytes: [u8; 20] = hash.finalize().into();
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes[..16]);
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..32],
    ]
    .join("-")
}

fn comment(value: Value, style: Option<String>, options: Kwargs) -> Result<String, Error> {
    let style = match style {
        Some(style) => style,
        None => options
            .get::<Option<String>>("style")?
            .unwrap_or_else(|| "plain".to_owned()),
    };
    let (decoration, beginning, end) = match style.as_str() {
        "plain" => ("# ", "", ""),
        "erlang" => ("% ", "", ""),
        "c" => ("// ", "", ""),
        "cblock" => (" * ", "/*", " */"),
        "xml" => (" - ", "<!--", "-->"),
        other => {
            return Err(wrong(format!(
                "no comment style is called `{other}`; there are plain, erlang, c, cblock, xml"
            )));
        }
    };
    let get = |name: &str, default: &str| -> Result<String, Error> {
        Ok(options
            .get::<Option<String>>(name)?
            .unwrap_or_else(|| default.to_owned()))
    };
    let decoration = get("decoration", decoration)?;
    let (beginning, end) = (get("beginning", beginning)?, get("end", end)?);
    let newline = get("newline", "\n")?;
    let (prefix, postfix) = (get("prefix", &decoration)?, get("postfix", &decoration)?);
    let prefix_count = options.get::<Option<usize>>("prefix_count")?.unwrap_or(1);
    let postfix_count = options.get::<Option<usize>>("postfix_count")?.unwrap_or(1);
    options.assert_all_used()?;

    let mut lines: Vec<String> = Vec::new();
    if !beginning.is_empty() {
        lines.push(beginning);
    }
    lines.extend(std::iter::repeat_n(
        prefix.trim_end().to_owned(),
        prefix_count,
    ));
    let body = text(&value)?;
    lines.extend(
        body.split(&newline)
            .map(|line| format!("{decoration}{line}").trim_end().to_owned()),
    );
    lines.extend(std::iter::repeat_n(
        postfix.trim_end().to_owned(),
        postfix_count,
    ));
    if !end.is_empty() {
        lines.push(end);
    }
    Ok(lines.join(&newline))
}

fn expanduser(state: &State<'_, '_>, path: Value) -> Result<String, Error> {
    let path = text(&path)?;
    let home = context_of(state)?
        .core
        .loader
        .environment("HOME")
        .unwrap_or_default();
    Ok(match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => path,
    })
}

fn float(value: Value, default: Option<f64>) -> Result<f64, Error> {
    let default = default.unwrap_or(0.0);
    Ok(match plain_json(&value)? {
        Json::String(text) => text.trim().parse().unwrap_or(default),
        Json::Bool(value) => f64::from(u8::from(value)),
        Json::Number(number) => number.as_f64().unwrap_or(default),
        _ => default,
    })
}

fn int(
    value: Value,
    default: Option<i64>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<i64, Error> {
    let default = default.or(options.get("default")?).unwrap_or(0);
    let base = base.or(options.get("base")?).unwrap_or(10);
    options.assert_all_used()?;
    Ok(match plain_json(&value)? {
        Json::Bool(value) => i64::from(value),
        Json::Number(number) => number
            .as_i64()
            .unwrap_or_else(|| truncated(number.as_f64().unwrap_or(0.0))),
        Json::String(text) => {
            let clean = text.trim().replace('_', "").to_ascii_lowercase();
            let prefix = match base {
                16 => "0x",
                8 => "0o",
                2 => "0b",
                _ => "",
            };
            let (sign, digits) = match clean.strip_prefix('-') {
                Some(digits) => (-1, digits),
                None => (1, clean.strip_prefix('+').unwrap_or(&clean)),
            };
            let digits = digits.strip_prefix(prefix).unwrap_or(digits);
            let whole = i64::from_str_radix(digits, base.clamp(2, 36))
                .ok()
                .map(|whole| sign * whole);
            let float = || {
                clean
                    .parse::<f64>()
                    .ok()
                    .filter(|float| float.is_finite())
                    .map(truncated)
            };
            whole.or_else(float).unwrap_or(default)
        }
        _ => default,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "Python's int() cuts the fraction off too"
)]
fn truncated(value: f64) -> i64 {
    value as i64
}

const SIZES: [(&str, f64); 8] = [
    ("Y", 1_208_925_819_614_629_174_706_176.0),
    ("Z", 1_180_591_620_717_411_303_424.0),
    ("E", 1_152_921_504_606_846_976.0),
    ("P", 1_125_899_906_842_624.0),
    ("T", 1_099_511_627_776.0),
    ("G", 1_073_741_824.0),
    ("M", 1_048_576.0),
    ("K", 1024.0),
];

fn human_readable(value: Value, options: Kwargs) -> Result<String, Error> {
    let bits = options.get::<Option<bool>>("isbits")?.unwrap_or(false);
    let unit = options.get::<Option<String>>("unit")?;
    options.assert_all_used()?;
    let size = float(value, None)?;
    let (base, small) = if bits { ("b", "bits") } else { ("B", "Bytes") };
    let found = SIZES.iter().find(|(letter, limit)| match &unit {
        Some(unit) => unit.to_uppercase().starts_with(letter),
        None => size >= *limit,
    });
    Ok(match found {
        Some((letter, limit)) => format!("{:.2} {letter}{base}", size / limit),
        None => format!("{size:.2} {small}"),
    })
}

fn human_to_bytes(value: Value, default_unit: Option<String>) -> Result<i64, Error> {
    let text = text(&value)?;
    let text = text.trim();
    let end = text
        .find(|end: char| !(end.is_ascii_digit() || end == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..end]
        .parse()
        .map_err(|_| wrong(format!("`{text}` is no size, such as 10M")))?;
    let unit = text[end..].trim().to_uppercase();
    let unit = if unit.is_empty() {
        default_unit.unwrap_or_default().to_uppercase()
    } else {
        unit
    };
    let factor = match unit.as_str() {
        "" | "B" | "BYTES" => 1.0,
        unit => SIZES
            .iter()
            .find(|(letter, _)| unit.starts_with(letter))
            .map(|(_, factor)| *factor)
            .ok_or_else(|| {
                wrong(format!(
                    "`{unit}` is no unit of size; there are B, K, M, G, T, P, E, Z, Y"
                ))
            })?,
    };
    Ok(truncated((number * factor).round()))
}

fn path_join(value: Value) -> Result<String, Error> {
    let parts = match plain_json(&value)? {
        Json::String(text) => vec![text],
        _ => list(&value)?.iter().map(display).collect(),
    };
    Ok(parts.iter().fold(String::new(), |path, part| {
        if part.starts_with('/') || path.is_empty() {
            part.clone()
        } else {
            format!("{}/{part}", path.trim_end_matches('/'))
        }
    }))
}

/// Quotes a word for a shell as Python's `shlex.quote` does.
pub(super) fn quote(text: &str) -> String {
    let safe =
        |character: char| character.is_ascii_alphanumeric() || "@%+=:,./-_".contains(character);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

fn relpath(state: &State<'_, '_>, path: Value, start: Option<String>) -> Result<String, Error> {
    let context = context_of(state)?;
    let path = context.core.loader.absolute(&text(&path)?);
    let start = context
        .core
        .loader
        .absolute(start.as_deref().unwrap_or("."));
    let split = |path: &str| -> Vec<String> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (path, start) = (split(&path), split(&start));
    let same = path
        .iter()
        .zip(&start)
        .take_while(|(left, right)| left == right)
        .count();
    let up = std::iter::repeat_n("..".to_owned(), start.len() - same);
    let parts: Vec<String> = up.chain(path[same..].iter().cloned()).collect();
    Ok(if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    })
}

fn regex_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if r"()[]{}?*+-|^$\.&~# ".contains(character) || "\t\n\r".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// Compiles a regular expression of Python's dialect.
pub(super) fn regex(pattern: &str, ignore_case: bool, multi_line: bool) -> Result<Regex, Error> {
    // `\Z` is the very end in Python, which Rust writes `\z`.
    RegexBuilder::new(&pattern.replace(r"\Z", r"\z"))
        .case_insensitive(ignore_case)
        .multi_line(multi_line)
        .build()
        .map_err(|error| wrong(format!("`{pattern}` is no regular expression: {error}")))
}

fn flags(options: &Kwargs) -> Result<(bool, bool), Error> {
    Ok((
        options.get::<Option<bool>>("ignorecase")?.unwrap_or(false),
        options.get::<Option<bool>>("multiline")?.unwrap_or(false),
    ))
}

fn regex_replace(
    value: Value,
    pattern: Option<String>,
    replacement: Option<String>,
    options: Kwargs,
) -> Result<String, Error> {
    let (ignore_case, multi_line) = flags(&options)?;
    let count = options.get::<Option<usize>>("count")?.unwrap_or(0);
    let pattern = pattern.or(options.get("pattern")?).unwrap_or_default();
    let replacement = replacement
        .or(options.get("replacement")?)
        .unwrap_or_default();
    options.assert_all_used()?;
    let regex = regex(&pattern, ignore_case, multi_line)?;
    let text = text(&value)?;
    let replaced = regex.try_replacen(&text, count, |found: &Captures<'_, str>| {
        expanded(&replacement, found)
    });
    Ok(replaced
        .map_err(|error| wrong(error.to_string()))?
        .into_owned())
}

/// Puts the groups found into `\1`, `\g<1>` and `\g<name>`.
fn expanded(replacement: &str, found: &Captures<'_, str>) -> String {
    let mut out = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some((name, after)) = rest
            .strip_prefix("g<")
            .and_then(|named| named.split_once('>'))
        {
            let group = match name.parse::<usize>() {
                Ok(index) => found.get(index),
                Err(_) => found.name(name),
            };
            out.push_str(group.map_or("", |group| group.as_str()));
            rest = after;
            continue;
        }
        let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
        if let Ok(index) = rest[..digits].parse::<usize>() {
            out.push_str(found.get(index).map_or("", |group| group.as_str()));
            rest = &rest[digits..];
            continue;
        }
        let Some(escaped) = rest.chars().next() else {
            break;
        };
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\\' => out.push('\\'),
            other => out.extend(['\\', other]),
        }
        rest = &rest[escaped.len_utf8()..];
    }
    out.push_str(rest);
    out
}

fn regex_search(
    value: Value,
    pattern: String,
    groups: Rest<String>,
    options: Kwargs,
) -> Result<Value, Error> {
    let (ignore_case, multi_line) = flags(&options)?;
    options.assert_all_used()?;
    let text = text(&value)?;
    let found = regex(&pattern, ignore_case, multi_line)?
        .captures(&text)
        .map_err(|error| wrong(error.to_string()))?;
    let Some(found) = found else {
        return Ok(Value::from(()));
    };
    if groups.is_empty() {
        return Ok(Value::from(found.get(0).map_or("", |all| all.as_str())));
    }
    let texts = groups.iter().map(|group| {
        let name = group.trim_start_matches('\\');
        let name = name
            .strip_prefix("g<")
            .and_then(|name| name.strip_suffix('>'))
            .unwrap_or(name);
        let capture = match name.parse::<usize>() {
            Ok(index) if index < found.len() => found.get(index),
            Ok(_) => return Err(wrong(format!("the expression has no group {group}"))),
            Err(_) => found.name(name),
        };
        Ok(capture.map_or_else(|| Value::from(()), |capture| Value::from(capture.as_str())))
    });
    Ok(Value::from(texts.collect::<Result<Vec<_>, Error>>()?))
}

fn regex_findall(value: Value, pattern: String, options: Kwargs) -> Result<Value, Error> {
    let (ignore_case, multi_line) = flags(&options)?;
    options.assert_all_used()?;
    let text = text(&value)?;
    let regex = regex(&pattern, ignore_case, multi_line)?;
    let mut all = Vec::new();
    for found in regex.captures_iter(&text) {
        let found = found.map_err(|error| wrong(error.to_string()))?;
        let group = |index: usize| Value::from(found.get(index).map_or("", |group| group.as_str()));
        all.push(match found.len() {
            1 => group(0),
            2 => group(1),
            count => Value::from((1..count).map(group).collect::<Vec<_>>()),
        });
    }
    Ok(Value::from(all))
}

fn round(value: Value, digits: Option<i32>, method: Option<String>) -> Result<f64, Error> {
    let value = float(value, None)?;
    let digits = digits.unwrap_or(0);
    let scale = 10_f64.powi(digits);
    Ok(match method.as_deref().unwrap_or("common") {
        "ceil" => (value * scale).ceil() / scale,
        "floor" => (value * scale).floor() / scale,
        _ if digits == 0 => value.round_ties_even(),
        // Formatting rounds the number itself, as Python does, not a product of it.
        _ if digits > 0 => format!("{value:.*}", digits.unsigned_abs() as usize)
            .parse()
            .unwrap_or(value),
        _ => (value * scale).round_ties_even() / scale,
    })
}

fn split(value: Value, separator: Option<String>, max: Option<usize>) -> Result<Value, Error> {
    let text = text(&value)?;
    let parts: Vec<Value> = match (separator, max) {
        (None, _) => text.split_whitespace().map(Value::from).collect(),
        (Some(separator), _) if separator.is_empty() => {
            return Err(wrong("the separator is empty"));
        }
        (Some(separator), None) => text.split(&separator).map(Value::from).collect(),
        (Some(separator), Some(max)) => text.splitn(max + 1, &separator).map(Value::from).collect(),
    };
    Ok(Value::from(parts))
}

fn splitext(value: Value) -> Result<Value, Error> {
    let path = text(&value)?;
    let name = path.len() - basename(&path).len();
    let start = path[name..].len() - path[name..].trim_start_matches('.').len() + name;
    let dot = path[start..]
        .rfind('.')
        .map_or(path.len(), |dot| start + dot);
    Ok(Value::from(vec![
        Value::from(&path[..dot]),
        Value::from(&path[dot..]),
    ]))
}

fn urlsplit(value: Value, part: Option<String>) -> Result<Value, Error> {
    let url = text(&value)?;
    let (rest, fragment) = url.split_once('#').unwrap_or((&url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let (network, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (user, host) = network.rsplit_once('@').unwrap_or(("", network));
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, port.parse::<u16>().ok())
        }
        _ => (host, None),
    };
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let optional = |text: &str| {
        if text.is_empty() {
            Value::from(())
        } else {
            Value::from(text)
        }
    };
    let parts = [
        ("fragment", Value::from(fragment)),
        ("hostname", optional(name.trim_matches(['[', ']']))),
        ("netloc", Value::from(network)),
        ("password", optional(password)),
        ("path", Value::from(path)),
        ("port", port.map_or_else(|| Value::from(()), Value::from)),
        ("query", Value::from(query)),
        ("scheme", Value::from(scheme)),
        ("username", optional(username)),
    ];
    match part {
        None => Ok(Value::from_pairs(parts)),
        Some(wanted) => parts
            .into_iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
            .ok_or_else(|| wrong(format!("a URL has no part `{wanted}`"))),
    }
}

/// `ipaddr` on one value, or on each of a list, where what does not fit is left out.
fn addresses(value: &Value, query: Option<Value>, version: Option<u8>) -> Result<Value, Error> {
    let query = match query {
        Some(query) if !query.is_none() => text(&query)?,
        _ => String::new(),
    };
    let one = |json: &Json| address::query(&display(json), &query, version);
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let found: Vec<Json> = list(value)?
            .iter()
            .filter_map(|item| one(item).filter(|found| *found != Json::Bool(false)))
            .collect();
        return Ok(from_json(&Json::Array(found)));
    }
    let found = one(&plain_json(value)?)
        .ok_or_else(|| wrong(format!("ipaddr knows no question `{query}`")))?;
    Ok(from_json(&found))
}
