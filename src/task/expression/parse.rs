//! The text of an expression → a tree that cannot be wrong.

use std::fmt;

use super::Flags;

/// What is wrong with an expression, and where, in Python's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    text: String,
    /// In characters.
    position: Option<usize>,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>, position: Option<usize>) -> Self {
        Self {
            text: text.into(),
            position,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)?;
        match self.position {
            Some(position) => write!(formatter, " at position {position}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// An expression, its groups counted from 1.
#[derive(Debug)]
pub(super) struct Parsed {
    pub root: Node,
    pub groups: usize,
    pub names: Vec<(String, usize)>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    One(Class),
    At(Place),
    Sequence(Vec<Self>),
    Choice(Vec<Self>),
    Repeat {
        what: Box<Self>,
        least: u32,
        most: Option<u32>,
        greed: Greed,
    },
    Group(usize, Box<Self>),
    /// The same text again.
    Again {
        group: usize,
        case: Case,
    },
    Look {
        what: Box<Self>,
        /// How many characters back it begins.
        behind: usize,
        wanted: bool,
    },
    /// What it found first is final.
    Atomic(Box<Self>),
    If {
        group: usize,
        then: Box<Self>,
        otherwise: Box<Self>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greed {
    Greedy,
    Lazy,
    /// Gives nothing back.
    Possessive,
}

/// Whether upper and lower letters are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Exact,
    Folded,
    FoldedAscii,
}

/// What one character may be.
#[derive(Clone, Debug)]
pub(super) enum Class {
    Char(char, Case),
    Any,
    AnyButNewline,
    Set(Set),
}

#[derive(Clone, Debug)]
pub(super) struct Set {
    pub negated: bool,
    pub case: Case,
    pub items: Vec<Item>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    Range(char, char),
    Kind {
        kind: Kind,
        ascii: bool,
        negated: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Digit,
    Space,
    Word,
}

/// What a place between characters may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    TextStart,
    LineStart,
    TextEnd,
    /// The end, or before a newline that ends the text.
    LastLineEnd,
    LineEnd,
    Boundary {
        ascii: bool,
        wanted: bool,
    },
}

/// Deeper nesting is no expression that a person writes, and would use up the stack.
const DEPTH_MAX: usize = 100;
/// Python's own limit of a repetition's numbers.
const TIMES_MAX: u64 = 4_294_967_294;

pub(super) fn parse(text: &str, flags: Flags) -> Result<Parsed, Problem> {
    let mut parser = Parser {
        chars: text.chars().collect(),
        at: 0,
        flags,
        groups: Vec::new(),
        names: Vec::new(),
        depth: 0,
    };
    parser.global_flags()?;
    let root = parser.choice()?;
    if parser.at < parser.chars.len() {
        return Err(parser.problem("unbalanced parenthesis", parser.at));
    }
    Ok(Parsed {
        root,
        groups: parser.groups.len(),
        names: parser.names,
    })
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    flags: Flags,
    /// The width of each group that is closed, none while it is open.
    groups: Vec<Option<Width>>,
    names: Vec<(String, usize)>,
    depth: usize,
}

/// The fewest and the most characters that something fits.
type Width = (u64, Option<u64>);

type Result<T, E = Problem> = std::result::Result<T, E>;

impl Parser {
    #[expect(clippy::unused_self, reason = "reads as what it is at each place")]
    fn problem(&self, text: &str, position: usize) -> Problem {
        Problem::new(text, Some(position))
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn takes(&mut self, text: &str) -> bool {
        let fits = text
            .chars()
            .zip(self.at..)
            .all(|(char, at)| self.chars.get(at) == Some(&char));
        if fits {
            self.at += text.chars().count();
        }
        fits
    }

    fn case(&self) -> Case {
        match (self.flags.folds_case, self.flags.ascii) {
            (false, _) => Case::Exact,
            (true, false) => Case::Folded,
            (true, true) => Case::FoldedAscii,
        }
    }

    /// Flags for the whole expression stand at its start.
    fn global_flags(&mut self) -> Result<()> {
        while self.chars[self.at..].starts_with(&['(', '?']) {
            let start = self.at;
            self.at += 2;
            let before = self.flags;
            if self.peek().is_some_and(|char| "aiLmsux".contains(char))
                && self.letters(true)?
                && self.takes(")")
            {
                continue;
            }
            self.flags = before;
            self.at = start;
            break;
        }
        Ok(())
    }

    /// Switches flags on or off; false when the letters end in something else than `)`, `:`, `-`.
    fn letters(&mut self, on: bool) -> Result<bool> {
        let start = self.at;
        while let Some(char) = self.peek() {
            match char {
                'i' => self.flags.folds_case = on,
                'm' => self.flags.multi_line = on,
                's' => self.flags.dot_is_all = on,
                'x' => self.flags.verbose = on,
                'a' if on => self.flags.ascii = true,
                'u' if on => self.flags.ascii = false,
                'L' => {
                    return Err(self.problem(
                        "bad inline flags: cannot use 'L' flag with a str pattern",
                        self.at + 1,
                    ));
                }
                ')' | ':' | '-' => break,
                _ if char.is_alphabetic() => {
                    return Err(self.problem("unknown flag", self.at));
                }
                _ => return Ok(false),
            }
            self.at += 1;
        }
        Ok(self.at > start)
    }

    fn choice(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.problem("too many nested groups", self.at));
        }
        let mut ways = vec![self.sequence()?];
        while self.takes("|") {
            ways.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(match ways.len() {
            1 => ways.remove(0),
            _ => Node::Choice(ways),
        })
    }

    fn sequence(&mut self) -> Result<Node> {
        let mut nodes = Vec::new();
        while let Some(char) = self.peek() {
            if matches!(char, '|' | ')') {
                break;
            }
            let start = self.at;
            self.at += 1;
            if self.flags.verbose && self.skips_blank(char) {
                continue;
            }
            if let Some((least, most)) = self.times(char)? {
                let greed = self.greed();
                let what = match nodes.pop() {
                    None | Some(Node::At(_)) => {
                        return Err(self.problem("nothing to repeat", start));
                    }
                    Some(Node::Repeat { .. }) => {
                        return Err(self.problem("multiple repeat", start));
                    }
                    Some(what) => Box::new(what),
                };
                nodes.push(Node::Repeat {
                    what,
                    least,
                    most,
                    greed,
                });
                continue;
            }
            let node = match char {
                '.' if self.flags.dot_is_all => Node::One(Class::Any),
                '.' => Node::One(Class::AnyButNewline),
                '^' if self.flags.multi_line => Node::At(Place::LineStart),
                '^' => Node::At(Place::TextStart),
                '$' if self.flags.multi_line => Node::At(Place::LineEnd),
                '$' => Node::At(Place::LastLineEnd),
                '[' => self.set(start)?,
                '\\' => self.escape(start)?,
                '(' => match self.group(start)? {
                    Some(node) => node,
                    None => continue,
                },
                other => Node::One(Class::Char(other, self.case())),
            };
            nodes.push(node);
        }
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::Sequence(nodes),
        })
    }

    fn skips_blank(&mut self, char: char) -> bool {
        if char == '#' {
            while self.next().is_some_and(|char| char != '\n') {}
            return true;
        }
        matches!(char, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
    }

    /// The numbers of a repetition that begins with this character.
    fn times(&mut self, char: char) -> Result<Option<(u32, Option<u32>)>> {
        let start = self.at - 1;
        Ok(match char {
            '*' => Some((0, None)),
            '+' => Some((1, None)),
            '?' => Some((0, Some(1))),
            '{' if self.peek() != Some('}') => {
                let least = self.digits();
                let most = if self.takes(",") {
                    self.digits()
                } else {
                    least.clone()
                };
                if !self.takes("}")
                    || least.is_empty() && self.chars[self.at - 2] != ',' && most.is_empty()
                {
                    // A brace that is only a brace.
                    self.at = start + 1;
                    return Ok(None);
                }
                let read = |digits: &str| -> Result<Option<u32>> {
                    if digits.is_empty() {
                        return Ok(None);
                    }
                    match digits.parse::<u64>() {
                        Ok(times) if times <= TIMES_MAX => {
                            Ok(Some(u32::try_from(times).unwrap_or(u32::MAX)))
                        }
                        _ => Err(Problem::new("the repetition number is too large", None)),
                    }
                };
                let (least, most) = (read(&least)?.unwrap_or(0), read(&most)?);
                if most.is_some_and(|most| most < least) {
                    return Err(self.problem("min repeat greater than max repeat", start));
                }
                Some((least, most))
            }
            _ => None,
        })
    }

    fn digits(&mut self) -> String {
        let mut digits = String::new();
        while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
            digits.push(digit);
            self.at += 1;
        }
        digits
    }

    fn greed(&mut self) -> Greed {
        if self.takes("?") {
            Greed::Lazy
        } else if self.takes("+") {
            Greed::Possessive
        } else {
            Greed::Greedy
        }
    }

    /// What stands in parentheses; none for a comment.
    fn group(&mut self, start: usize) -> Result<Option<Node>> {
        let flags = self.flags;
        let node = if !self.takes("?") {
            Some(self.capture(None, start)?)
        } else if self.takes("P<") {
            let at = self.at;
            let name = self.name('>', "missing >, unterminated name", at)?;
            if self.names.iter().any(|(known, _)| *known == name) {
                let number = self.names.iter().find(|(known, _)| *known == name);
                let number = number.map_or(0, |(_, number)| *number);
                let text = format!(
                    "redefinition of group name '{name}' as group {}; was group {number}",
                    self.groups.len() + 1
                );
                return Err(self.problem(&text, at));
            }
            Some(self.capture(Some(name), start)?)
        } else if self.takes("P=") {
            let at = self.at;
            let name = self.name(')', "missing ), unterminated name", at)?;
            let found = self.names.iter().find(|(known, _)| *known == name);
            let Some(group) = found.map(|(_, group)| *group) else {
                return Err(self.problem(&format!("unknown group name '{name}'"), at));
            };
            return self.again(group, at).map(Some);
        } else if self.takes("#") {
            while let Some(char) = self.next() {
                if char == ')' {
                    return Ok(None);
                }
            }
            return Err(self.problem("missing ), unterminated comment", start));
        } else if self.takes("(") {
            Some(self.condition()?)
        } else if self.takes(":") {
            Some(Node::Sequence(vec![self.choice()?]))
        } else if self.takes(">") {
            Some(Node::Atomic(Box::new(self.choice()?)))
        } else if self.takes("=") {
            Some(self.look(start, false, true)?)
        } else if self.takes("!") {
            Some(self.look(start, false, false)?)
        } else if self.takes("<=") {
            Some(self.look(start, true, true)?)
        } else if self.takes("<!") {
            Some(self.look(start, true, false)?)
        } else {
            Some(self.flagged(start)?)
        };
        self.flags = flags;
        if !self.takes(")") {
            return Err(self.problem("missing ), unterminated subpattern", start));
        }
        Ok(node)
    }

    fn capture(&mut self, name: Option<String>, _start: usize) -> Result<Node> {
        self.groups.push(None);
        let number = self.groups.len();
        if let Some(name) = name {
            self.names.push((name, number));
        }
        let what = self.choice()?;
        self.groups[number - 1] = Some(self.width(&what));
        Ok(Node::Group(number, Box::new(what)))
    }

    /// `(?i:…)`, `(?-i:…)`.
    fn flagged(&mut self, start: usize) -> Result<Node> {
        let begins = self.at;
        match self.peek() {
            None => return Err(self.problem("unexpected end of pattern", self.at)),
            Some(char) if "aiLmsux-".contains(char) => {}
            Some(char) => {
                let (text, at) = match char {
                    '<' | 'P' => {
                        let next = self.chars.get(self.at + 1);
                        (
                            format!(
                                "unknown extension ?{char}{}",
                                next.map_or(String::new(), char::to_string)
                            ),
                            start + 1,
                        )
                    }
                    char => (format!("unknown extension ?{char}"), start + 1),
                };
                return Err(self.problem(&text, at));
            }
        }
        self.letters(true)?;
        if self.takes("-") {
            self.letters(false)?;
        } else if self.peek() == Some(')') && self.at > begins {
            return Err(self.problem("global flags not at the start of the expression", start));
        }
        if !self.takes(":") {
            return Err(self.problem("missing :", self.at));
        }
        Ok(Node::Sequence(vec![self.choice()?]))
    }

    fn look(&mut self, _start: usize, behind: bool, wanted: bool) -> Result<Node> {
        let what = self.choice()?;
        let mut back = 0;
        if behind {
            let (least, most) = self.width(&what);
            if most != Some(least) {
                return Err(Problem::new(
                    "look-behind requires fixed-width pattern",
                    None,
                ));
            }
            back = usize::try_from(least).unwrap_or(usize::MAX);
        }
        Ok(Node::Look {
            what: Box::new(what),
            behind: back,
            wanted,
        })
    }

    /// `(?(1)…|…)`, after the second parenthesis.
    fn condition(&mut self) -> Result<Node> {
        let at = self.at;
        let name = self.name_or_number(at)?;
        let group = match name.parse::<usize>() {
            Ok(number) if number >= 1 && number <= self.groups.len() => number,
            Ok(0) => return Err(self.problem("bad group number", at)),
            Ok(number) => {
                return Err(self.problem(&format!("invalid group reference {number}"), at));
            }
            Err(_) => {
                let found = self.names.iter().find(|(known, _)| *known == name);
                let Some((_, number)) = found else {
                    return Err(self.problem(&format!("unknown group name '{name}'"), at));
                };
                *number
            }
        };
        let then = self.sequence()?;
        let otherwise = if self.takes("|") {
            let otherwise = self.sequence()?;
            if self.peek() == Some('|') {
                return Err(
                    self.problem("conditional backref with more than two branches", self.at)
                );
            }
            otherwise
        } else {
            Node::Sequence(Vec::new())
        };
        Ok(Node::If {
            group,
            then: Box::new(then),
            otherwise: Box::new(otherwise),
        })
    }

    fn until(&mut self, end: char, missing: &str, at: usize) -> Result<String> {
        let mut name = String::new();
        loop {
            match self.next() {
                Some(char) if char == end => break,
                Some(char) => name.push(char),
                None if name.is_empty() => {
                    return Err(self.problem("missing group name", at));
                }
                None => return Err(self.problem(missing, at)),
            }
        }
        if name.is_empty() {
            return Err(self.problem("missing group name", at));
        }
        Ok(name)
    }

    fn name(&mut self, end: char, missing: &str, at: usize) -> Result<String> {
        let name = self.until(end, missing, at)?;
        let mut chars = name.chars();
        let first = chars
            .next()
            .is_some_and(|char| char.is_alphabetic() || char == '_');
        if !first || !chars.all(|char| char.is_alphanumeric() || char == '_') {
            return Err(self.problem(&format!("bad character in group name '{name}'"), at));
        }
        Ok(name)
    }

    fn name_or_number(&mut self, at: usize) -> Result<String> {
        let start = self.at;
        let word = self.until(')', "missing ), unterminated name", at)?;
        if word.chars().all(|char| char.is_ascii_digit()) {
            return Ok(word);
        }
        self.at = start;
        self.name(')', "missing ), unterminated name", at)
    }

    fn again(&self, group: usize, at: usize) -> Result<Node> {
        match self.groups.get(group.wrapping_sub(1)) {
            Some(Some(_)) => Ok(Node::Again {
                group,
                case: self.case(),
            }),
            Some(None) => Err(self.problem("cannot refer to an open group", at)),
            None => Err(self.problem(&format!("invalid group reference {group}"), at)),
        }
    }

    /// What follows a backslash outside of a set.
    fn escape(&mut self, start: usize) -> Result<Node> {
        let Some(char) = self.next() else {
            return Err(self.problem("bad escape (end of pattern)", start));
        };
        let ascii = self.flags.ascii;
        let place = match char {
            'A' => Some(Place::TextStart),
            'Z' => Some(Place::TextEnd),
            'b' | 'B' => Some(Place::Boundary {
                ascii,
                wanted: char == 'b',
            }),
            _ => None,
        };
        if let Some(place) = place {
            return Ok(Node::At(place));
        }
        if let Some(item) = self.kind(char) {
            return Ok(Node::One(Class::Set(Set {
                negated: false,
                case: Case::Exact,
                items: vec![item],
            })));
        }
        if let Some(first) = char.to_digit(10).filter(|digit| *digit > 0) {
            return self.number(first, start);
        }
        let char = self.escaped_char(char, start)?;
        Ok(Node::One(Class::Char(char, self.case())))
    }

    /// A group's number, or three octal digits.
    fn number(&mut self, first: u32, start: usize) -> Result<Node> {
        let mut group = first;
        if let Some(second) = self.peek().and_then(|char| char.to_digit(10)) {
            self.at += 1;
            let third = self.peek().and_then(|char| char.to_digit(8));
            if let (true, true, Some(third)) = (first < 8, second < 8, third) {
                self.at += 1;
                let code = first * 64 + second * 8 + third;
                if code > 0o377 {
                    let text: String = self.chars[start..self.at].iter().collect();
                    let text = format!("octal escape value {text} outside of range 0-0o377");
                    return Err(self.problem(&text, start));
                }
                let char = char::from_u32(code).expect("below 256");
                return Ok(Node::One(Class::Char(char, self.case())));
            }
            group = first * 10 + second;
        }
        let group = usize::try_from(group).expect("two digits");
        let at = match self.groups.get(group - 1) {
            Some(Some(_)) | None => start + 1,
            Some(None) => start,
        };
        self.again(group, at)
    }

    fn kind(&self, char: char) -> Option<Item> {
        let kind = match char.to_ascii_lowercase() {
            'd' => Kind::Digit,
            's' => Kind::Space,
            'w' => Kind::Word,
            _ => return None,
        };
        Some(Item::Kind {
            kind,
            ascii: self.flags.ascii,
            negated: char.is_ascii_uppercase(),
        })
    }

    /// The character an escape stands for, inside and outside of sets.
    fn escaped_char(&mut self, char: char, start: usize) -> Result<char> {
        Ok(match char {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            '0' => {
                let mut code = 0;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|char| char.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                char::from_u32(code).expect("below 64")
            }
            'x' => self.coded(2, start)?,
            'u' => self.coded(4, start)?,
            'U' => self.coded(8, start)?,
            other if other.is_ascii_alphanumeric() => {
                return Err(self.problem(&format!("bad escape \\{other}"), start));
            }
            other => other,
        })
    }

    fn coded(&mut self, length: usize, start: usize) -> Result<char> {
        let digits: String = self.chars[self.at..]
            .iter()
            .take(length)
            .take_while(|char| char.is_ascii_hexdigit())
            .collect();
        self.at += digits.len();
        let code = u32::from_str_radix(&digits, 16).ok();
        match code.and_then(char::from_u32) {
            Some(char) if digits.len() == length => Ok(char),
            _ => {
                let text: String = self.chars[start..self.at].iter().collect();
                let what = if digits.len() == length {
                    "bad"
                } else {
                    "incomplete"
                };
                Err(self.problem(&format!("{what} escape {text}"), start))
            }
        }
    }

    /// `[…]`, after the bracket.
    fn set(&mut self, start: usize) -> Result<Node> {
        let negated = self.takes("^");
        let mut items = Vec::new();
        let mut first = true;
        loop {
            let at = self.at;
            let Some(char) = self.next() else {
                return Err(self.problem("unterminated character set", start));
            };
            if char == ']' && !first {
                break;
            }
            first = false;
            let low = self.member(char, at)?;
            if self.peek() != Some('-') {
                items.push(low);
                continue;
            }
            self.at += 1;
            let high_at = self.at;
            let Some(char) = self.next() else {
                return Err(self.problem("unterminated character set", start));
            };
            if char == ']' {
                items.extend([low, Item::Range('-', '-')]);
                break;
            }
            let high = self.member(char, high_at)?;
            match (low, high) {
                (Item::Range(low, _), Item::Range(high, _)) if low <= high => {
                    items.push(Item::Range(low, high));
                }
                _ => {
                    let text: String = self.chars[at..self.at].iter().collect();
                    return Err(self.problem(&format!("bad character range {text}"), at));
                }
            }
        }
        Ok(Node::One(Class::Set(Set {
            negated,
            case: self.case(),
            items,
        })))
    }

    fn member(&mut self, char: char, at: usize) -> Result<Item> {
        if char != '\\' {
            return Ok(Item::Range(char, char));
        }
        let Some(escaped) = self.next() else {
            return Err(self.problem("bad escape (end of pattern)", at));
        };
        if let Some(item) = self.kind(escaped) {
            return Ok(item);
        }
        let char = match escaped {
            'b' => '\u{8}',
            '0'..='7' => {
                let mut code = escaped.to_digit(8).expect("it is one");
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|char| char.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                if code > 0o377 {
                    let text: String = self.chars[at..self.at].iter().collect();
                    let text = format!("octal escape value {text} outside of range 0-0o377");
                    return Err(self.problem(&text, at));
                }
                char::from_u32(code).expect("below 256")
            }
            other => self.escaped_char(other, at)?,
        };
        Ok(Item::Range(char, char))
    }

    /// How many characters something fits.
    fn width(&self, node: &Node) -> Width {
        let add = |one: Width, other: Width| {
            let most = one
                .1
                .zip(other.1)
                .map(|(one, other)| one.saturating_add(other));
            (one.0.saturating_add(other.0), most)
        };
        let either = |one: Width, other: Width| {
            let most = one.1.zip(other.1).map(|(one, other)| one.max(other));
            (one.0.min(other.0), most)
        };
        match node {
            Node::One(_) => (1, Some(1)),
            Node::At(_) | Node::Look { .. } => (0, Some(0)),
            Node::Sequence(nodes) => nodes
                .iter()
                .map(|node| self.width(node))
                .fold((0, Some(0)), add),
            Node::Choice(ways) => ways
                .iter()
                .map(|node| self.width(node))
                .reduce(either)
                .unwrap_or((0, Some(0))),
            Node::Repeat {
                what, least, most, ..
            } => {
                let (few, many) = self.width(what);
                let most = many
                    .zip(*most)
                    .map(|(many, most)| many.saturating_mul(u64::from(most)));
                (few.saturating_mul(u64::from(*least)), most)
            }
            Node::Group(_, what) | Node::Atomic(what) => self.width(what),
            Node::Again { group, .. } => self.groups[group - 1].unwrap_or((0, None)),
            Node::If {
                then, otherwise, ..
            } => either(self.width(then), self.width(otherwise)),
        }
    }
}
