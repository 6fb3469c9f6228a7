//! YAML text to a tree in which every value knows where it was written.
//!
//! Playbooks, inventories and topologies are lowered from this tree, because a task's
//! shape (one key of many names the module) is not one that a derived deserializer can
//! describe with good messages. Scalars follow YAML 1.1 booleans (`yes`, `on`) as
//! Ansible does. Anchors, aliases and merge keys work; a key written twice is an error.

use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::diagnostic::{Diagnostic, Origin, Source};

/// Deepest nesting read; playbooks stay below 20, and the reader recurses.
const DEPTH_MAX: usize = 64;

/// Most values a file may have once its aliases are unfolded, so that ten lines of
/// aliases of aliases cannot fill the memory.
const NODES_MAX: usize = 200_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub origin: Origin,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// A scalar with a tag of its own, such as `!unsafe` (without the exclamation mark).
    Tagged(String, String),
}

impl Node {
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_seq(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&[(Self, Self)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// Returns the value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?
            .iter()
            .find(|(name, _)| name.as_str() == Some(key))
            .map(|(_, value)| value)
    }

    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// Names the kind of value in words for messages: "a list", "text", …
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Str(_) | Kind::Tagged(..) => "text",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// Forgets the places. Keys that are not text are written as YAML would.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::from(*value),
            Kind::Float(value) => Value::from(*value),
            Kind::Str(text) | Kind::Tagged(_, text) => Value::String(text.clone()),
            Kind::Seq(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.key_text(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// Returns a mapping's key as text: Ansible's variables are named so.
    pub fn key_text(&self) -> String {
        match &self.kind {
            Kind::Str(text) | Kind::Tagged(_, text) => text.clone(),
            _ => self.origin.text().trim().to_owned(),
        }
    }
}

/// Reads the documents of a text; an empty text has none.
pub fn parse_all(source: &Arc<Source>) -> Result<Vec<Node>, Diagnostic> {
    let offsets: Vec<usize> = source
        .text
        .char_indices()
        .map(|(offset, _)| offset)
        .chain([source.text.len()])
        .collect();
    let mut loader = Loader {
        source,
        offsets,
        parser: Parser::new_from_str(&source.text),
        anchors: Vec::new(),
        nodes: 0,
    };
    let mut documents = Vec::new();
    while let Some((event, span)) = loader.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            event => documents.push(loader.node(event, span, 0)?),
        }
    }
    Ok(documents)
}

/// Reads a text of exactly one document; an empty one is `null`.
pub fn parse(source: &Arc<Source>) -> Result<Node, Diagnostic> {
    let mut documents = parse_all(source)?;
    if let Some(second) = documents.get(1) {
        return Err(Diagnostic::error("a second YAML document in one file")
            .at(&second.origin)
            .help("put it into a file of its own"));
    }
    Ok(documents.pop().unwrap_or_else(|| Node {
        origin: Origin::new(source, 0, 0),
        kind: Kind::Null,
    }))
}

struct Loader<'input> {
    source: &'input Arc<Source>,
    /// Byte offset of each character, as the parser counts in characters.
    offsets: Vec<usize>,
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
}

impl<'input> Loader<'input> {
    fn next(&mut self) -> Result<Option<(Event<'input>, Span)>, Diagnostic> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(error)) => {
                let at = self.offset(error.marker().index());
                Err(Diagnostic::error(format!("this is not YAML: {}", error.info()))
                    .at(&Origin::new(self.source, at, at + 1))
                    .help(
                        "often the cause is the line above: a missing colon, a quote left open, or a wrong indent",
                    ))
            }
        }
    }

    fn offset(&self, index: usize) -> usize {
        self.offsets
            .get(index)
            .copied()
            .unwrap_or(self.source.text.len())
    }

    fn origin(&self, span: Span) -> Origin {
        Origin::new(
            self.source,
            self.offset(span.start.index()),
            self.offset(span.end.index()),
        )
    }

    fn count(&mut self, nodes: usize, origin: &Origin) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(
                Diagnostic::error(format!("more than {NODES_MAX} values in one file"))
                    .at(origin)
                    .help("aliases of aliases unfold; write the values out or split the file"),
            );
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, Diagnostic> {
        let mut origin = self.origin(span);
        self.count(1, &origin)?;
        if depth > DEPTH_MAX {
            return Err(
                Diagnostic::error(format!("nested more than {DEPTH_MAX} deep")).at(&origin),
            );
        }
        let (anchor, kind) = match event {
            Event::Alias(id) => {
                let Some((_, node)) = self.anchors.iter().find(|(anchor, _)| *anchor == id) else {
                    return Err(Diagnostic::error("an alias inside its own anchor").at(&origin));
                };
                let node = node.clone();
                self.count(node_count(&node), &origin)?;
                return Ok(Node {
                    origin,
                    kind: node.kind,
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let core = tag.as_ref().is_none_or(|tag| tag.is_yaml_core_schema());
                let kind = match tag {
                    Some(tag) if !core => Kind::Tagged(tag.suffix.clone(), text.into_owned()),
                    Some(tag) if tag.suffix == "str" => Kind::Str(text.into_owned()),
                    _ if style == ScalarStyle::Plain => plain(&text),
                    _ => Kind::Str(text.into_owned()),
                };
                (anchor, kind)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.expect_next(&origin)?;
                    if event == Event::SequenceEnd {
                        origin.end = self.origin(span).end.max(origin.end);
                        break;
                    }
                    items.push(self.node(event, span, depth + 1)?);
                }
                (anchor, Kind::Seq(items))
            }
            Event::MappingStart(anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    let (event, span) = self.expect_next(&origin)?;
                    if event == Event::MappingEnd {
                        origin.end = self.origin(span).end.max(origin.end);
                        break;
                    }
                    let key = self.node(event, span, depth + 1)?;
                    let (event, span) = self.expect_next(&origin)?;
                    let value = self.node(event, span, depth + 1)?;
                    entries.push((key, value));
                }
                (anchor, Kind::Map(merge(entries)?))
            }
            _ => return Err(Diagnostic::error("this is not YAML").at(&origin)),
        };
        let node = Node { origin, kind };
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn expect_next(&mut self, within: &Origin) -> Result<(Event<'input>, Span), Diagnostic> {
        self.next()?
            .ok_or_else(|| Diagnostic::error("the file ends in the middle").at(within))
    }
}

fn node_count(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Seq(items) => items.iter().map(node_count).sum(),
        Kind::Map(entries) => entries
            .iter()
            .map(|(key, value)| node_count(key) + node_count(value))
            .sum(),
        _ => 0,
    }
}

/// Resolves `<<` and refuses a key that stands twice.
fn merge(entries: Vec<(Node, Node)>) -> Result<Vec<(Node, Node)>, Diagnostic> {
    let mut own: Vec<(Node, Node)> = Vec::new();
    let mut merged: Vec<(Node, Node)> = Vec::new();
    for (key, value) in entries {
        if key.as_str() == Some("<<") && key.origin.text().starts_with('<') {
            let maps = match value.kind {
                Kind::Map(entries) => vec![entries],
                Kind::Seq(items) => items
                    .iter()
                    .filter_map(|item| item.as_map().map(<[_]>::to_vec))
                    .collect(),
                _ => {
                    return Err(
                        Diagnostic::error("`<<` takes a mapping or a list of mappings")
                            .at(&value.origin),
                    );
                }
            };
            merged.extend(maps.into_iter().flatten());
            continue;
        }
        if let Some((first, _)) = own.iter().find(|(name, _)| name.kind == key.kind) {
            return Err(
                Diagnostic::error(format!("the key `{}` stands twice", key.key_text()))
                    .at(&key.origin)
                    .label("again here")
                    .related(&first.origin, "first here")
                    .help("keep one of the two"),
            );
        }
        own.push((key, value));
    }
    for (key, value) in merged {
        if !own.iter().any(|(name, _)| name.kind == key.kind) {
            own.push((key, value));
        }
    }
    Ok(own)
}

/// Gives a plain scalar its type, as `PyYAML` does for Ansible.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Kind::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Kind::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Kind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Kind::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        _ => {}
    }
    integer(text)
        .map(Kind::Int)
        .or_else(|| float(text).map(Kind::Float))
        .unwrap_or_else(|| Kind::Str(text.to_owned()))
}

/// YAML 1.1 integers: decimal, `0x`, `0b`, and octal by a leading zero (file modes).
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let clean: String = digits.chars().filter(|&digit| digit != '_').collect();
    let (radix, digits) = if let Some(hex) = clean.strip_prefix("0x") {
        (16, hex)
    } else if let Some(binary) = clean.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = clean.strip_prefix("0o") {
        (8, octal)
    } else if clean.len() > 1 && clean.starts_with('0') {
        (8, &clean[1..])
    } else {
        (10, clean.as_str())
    };
    if digits.starts_with(['-', '+']) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok()?.checked_mul(sign)
}

/// YAML 1.1 floats need a point: `1e3` is text to `PyYAML`.
fn float(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['-', '+']);
    let first = digits.as_bytes().first()?;
    if !(first.is_ascii_digit() || *first == b'.') || !text.contains('.') {
        return None;
    }
    if !digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-_".contains(&byte))
    {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        parse(&Source::new("t.yml", text)).expect("the text is YAML")
    }

    #[test]
    fn scalars_have_the_types_ansible_gives_them() {
        let node = read("[yes, off, 0644, 0x10, 1.5, '1', ~, 10.0.0.1, 1e3, 12:30:00, -3]");
        let kinds: Vec<Kind> = node
            .as_seq()
            .expect("a list")
            .iter()
            .map(|item| item.kind.clone())
            .collect();
        assert_eq!(
            kinds,
            vec![
                Kind::Bool(true),
                Kind::Bool(false),
                Kind::Int(420),
                Kind::Int(16),
                Kind::Float(1.5),
                Kind::Str("1".into()),
                Kind::Null,
                Kind::Str("10.0.0.1".into()),
                Kind::Str("1e3".into()),
                Kind::Str("12:30:00".into()),
                Kind::Int(-3),
            ]
        );
    }

    #[test]
    fn values_know_their_line_and_column_after_wide_characters() {
        let node = read("é: ă\nb:\n  - c: d\n");
        let value = node
            .get("b")
            .and_then(|b| b.as_seq())
            .and_then(|b| b[0].get("c"))
            .expect("b[0].c");
        assert_eq!((value.origin.line(), value.origin.column()), (3, 8));
        assert_eq!(value.origin.text(), "d");
    }

    #[test]
    fn a_key_written_twice_is_refused_with_both_places() {
        let error = parse(&Source::new("t.yml", "a: 1\na: 2\n")).expect_err("twice");
        assert_eq!(error.origin.map(|at| at.line()), Some(2));
        assert_eq!(error.related[0].0.line(), 1);
    }

    #[test]
    fn merge_keys_give_way_to_own_keys() {
        let node = read("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\n");
        assert_eq!(node.to_json()["y"], serde_json::json!({"b": 3, "a": 1}));
    }

    #[test]
    fn aliases_of_aliases_do_not_fill_the_memory() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let previous = level - 1;
            let list = vec![format!("*a{previous}"); 10].join(",");
            text = format!("{text}a{level}: &a{level} [{list}]\n");
        }
        let error = parse(&Source::new("bomb.yml", text)).expect_err("too many");
        assert!(error.message.contains("more than"), "{}", error.message);
    }

    #[test]
    fn broken_yaml_names_the_place() {
        let error = parse(&Source::new("t.yml", "a: [1, 2\nb: 3\n")).expect_err("broken");
        assert!(error.origin.is_some());
    }
}
