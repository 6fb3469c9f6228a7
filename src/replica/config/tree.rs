//! One file as statements and blocks, whatever they mean.
//!
//! ```text
//! file      := statement…
//! statement := word… ( ";" | "{" statement… "}" )
//! ```
//!
//! Reading goes on after a mistake: a missing `;` is noticed where a line begins with a
//! word that can only begin a statement, so that one mistake is reported once. What is drawn of
//! a file has `*` in place of a secret.

use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, Origin, Source, nearest};

/// Blocks within blocks; drbd.conf has four.
const DEPTH_MAX: usize = 16;

/// As drbd-utils: a plain word has at most 128 characters, a quoted one 255.
const WORD_CHARS_MAX: usize = 128;
const QUOTED_CHARS_MAX: usize = 255;

/// A word, or one of the marks that stand between words: `:`, `[`, `]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    pub text: String,
    pub quoted: bool,
    pub origin: Origin,
}

impl Word {
    pub fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// `name value… ;` or `name value… { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub name: Word,
    pub values: Vec<Word>,
    pub block: Option<Vec<Self>>,
}

impl Statement {
    /// From the first word to the last.
    pub fn origin(&self) -> Origin {
        let end = self
            .values
            .last()
            .map_or(self.name.origin.end, |word| word.origin.end);
        Origin::new(&self.name.origin.source, self.name.origin.start, end)
    }
}

/// Words that begin a statement wherever they begin a line.
const OPENERS: &[&str] = &[
    "address",
    "common",
    "device",
    "disk",
    "flexible-meta-disk",
    "floating",
    "global",
    "handlers",
    "include",
    "meta-disk",
    "net",
    "on",
    "protocol",
    "resource",
    "startup",
    "syncer",
    "volume",
];

/// Reads a text; what could be read is returned with every problem.
pub fn parse(source: &Arc<Source>) -> (Vec<Statement>, Vec<Diagnostic>) {
    let mut problems = Vec::new();
    let mut tokens = tokens(source, &mut problems);
    hide_secrets(source, &mut tokens, &mut problems);
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        problems,
    };
    let mut statements = Vec::new();
    loop {
        statements.extend(parser.statements(0));
        let Some(Token::Close(origin)) = parser.next() else {
            break;
        };
        let problem = Diagnostic::error("`}` without a `{`")
            .at(&origin)
            .label("closes nothing");
        parser.problems.push(problem);
    }
    (statements, parser.problems)
}

#[derive(Clone, Debug)]
enum Token {
    Word(Word),
    Open(Origin),
    Close(Origin),
    End(Origin),
}

impl Token {
    fn origin(&mut self) -> &mut Origin {
        match self {
            Self::Word(word) => &mut word.origin,
            Self::Open(origin) | Self::Close(origin) | Self::End(origin) => origin,
        }
    }
}

/// Makes every place one of a text without secrets, misspelt ones included: whatever is found
/// on such a line later is drawn with the line.
fn hide_secrets(source: &Arc<Source>, tokens: &mut [Token], problems: &mut [Diagnostic]) {
    let mut shown = source.text.clone().into_bytes();
    for (index, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else {
            continue;
        };
        if word.quoted || nearest(&word.text, ["shared-secret"]).is_none() {
            continue;
        }
        let start = word.origin.end;
        let next = tokens[index + 1..]
            .iter()
            .find(|token| !matches!(token, Token::Word(_)));
        let limit = next.map_or(shown.len(), |token| token.clone().origin().start);
        let line = source.text[start..]
            .find('\n')
            .map_or(limit, |length| start + length);
        for byte in &mut shown[start..limit.min(line)] {
            if !matches!(byte, b' ' | b'\t' | b'"') {
                *byte = b'*';
            }
        }
    }
    let shown = String::from_utf8(shown).unwrap_or_default();
    if shown == source.text {
        return;
    }
    let shown = Source::new(source.name.as_str(), shown);
    let of_tokens = tokens.iter_mut().map(Token::origin);
    let of_problems = problems
        .iter_mut()
        .filter_map(|problem| problem.origin.as_mut());
    for origin in of_tokens.chain(of_problems) {
        origin.source = Arc::clone(&shown);
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    problems: Vec<Diagnostic>,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    /// Reads statements up to the block's end, which is left to be read.
    fn statements(&mut self, depth: usize) -> Vec<Statement> {
        let mut statements = Vec::new();
        loop {
            match self.tokens.get(self.at) {
                None | Some(Token::Close(_)) => return statements,
                // An empty statement harms nobody.
                Some(Token::End(_)) => self.at += 1,
                Some(Token::Open(origin)) => {
                    let problem = Diagnostic::error("a block without a name").at(origin);
                    self.problems
                        .push(problem.label("expected the name of a section before it"));
                    let origin = origin.clone();
                    self.at += 1;
                    self.block(&origin, depth);
                }
                Some(Token::Word(_)) => statements.extend(self.statement(depth)),
            }
        }
    }

    fn statement(&mut self, depth: usize) -> Option<Statement> {
        let Some(Token::Word(name)) = self.next() else {
            return None;
        };
        let mut statement = Statement {
            name,
            values: Vec::new(),
            block: None,
        };
        loop {
            match self.tokens.get(self.at) {
                Some(Token::End(_)) => {
                    self.at += 1;
                    return Some(statement);
                }
                Some(Token::Open(origin)) => {
                    let origin = origin.clone();
                    self.at += 1;
                    statement.block = Some(self.block(&origin, depth));
                    return Some(statement);
                }
                Some(Token::Word(word)) if !begins_another(&statement, word) => {
                    statement.values.push(word.clone());
                    self.at += 1;
                }
                Some(Token::Word(_) | Token::Close(_)) | None => {
                    self.no_end(&statement);
                    return Some(statement);
                }
            }
        }
    }

    fn no_end(&mut self, statement: &Statement) {
        let whole = statement.origin();
        let after = Origin::new(&whole.source, whole.end, whole.end + 1);
        self.problems.push(
            Diagnostic::error(format!("no `;` after `{}`", whole.text()))
                .at(&after)
                .label("expected `;`"),
        );
    }

    fn block(&mut self, open: &Origin, depth: usize) -> Vec<Statement> {
        if depth == DEPTH_MAX {
            let problem =
                Diagnostic::error(format!("more than {DEPTH_MAX} blocks within each other"));
            self.problems.push(problem.at(open));
            self.at = self.tokens.len();
            return Vec::new();
        }
        let statements = self.statements(depth + 1);
        if self.next().is_none() {
            self.problems.push(
                Diagnostic::error("`{` without a `}`")
                    .at(open)
                    .label("never closed")
                    .help("is a `}` missing at the end of one of the blocks in it?"),
            );
        }
        statements
    }
}

/// Whether a word that follows a statement's words must begin the next one: it stands on
/// another line, and is one of those that begin statements.
fn begins_another(statement: &Statement, word: &Word) -> bool {
    let last = statement.values.last().unwrap_or(&statement.name);
    let between = word
        .origin
        .source
        .text
        .get(last.origin.end..word.origin.start);
    let first_takes_name = statement.values.is_empty() && statement.name.is("resource");
    !first_takes_name
        && OPENERS.iter().any(|opener| word.is(opener))
        && between.is_some_and(|between| between.contains('\n'))
}

fn tokens(source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Vec<Token> {
    let text = source.text.as_str();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let origin = |end: usize| Origin::new(source, at, end);
        let next = at + first.len_utf8();
        at = match first {
            '#' => text[at..]
                .find('\n')
                .map_or(text.len(), |newline| at + newline),
            ';' => {
                tokens.push(Token::End(origin(next)));
                next
            }
            '{' => {
                tokens.push(Token::Open(origin(next)));
                next
            }
            '}' => {
                tokens.push(Token::Close(origin(next)));
                next
            }
            ':' | '[' | ']' => {
                tokens.push(Token::Word(word(
                    text[at..next].to_owned(),
                    false,
                    origin(next),
                )));
                next
            }
            '"' => {
                let (quoted, end, ended) = quoted(text, at);
                if !ended {
                    problems.push(
                        Diagnostic::error("a quoted text that does not end on its line")
                            .at(&origin(end))
                            .label("expected `\"` before the end of the line"),
                    );
                } else if quoted.chars().count() > QUOTED_CHARS_MAX {
                    problems.push(too_long(&origin(end), QUOTED_CHARS_MAX));
                }
                tokens.push(Token::Word(word(quoted, true, origin(end))));
                end
            }
            first if first.is_whitespace() => next,
            first if is_plain(first) => {
                let end = text[at..]
                    .find(|char| !is_plain(char))
                    .map_or(text.len(), |len| at + len);
                if end - at > WORD_CHARS_MAX {
                    problems.push(too_long(&origin(end), WORD_CHARS_MAX));
                }
                tokens.push(Token::Word(word(
                    text[at..end].to_owned(),
                    false,
                    origin(end),
                )));
                end
            }
            other => {
                problems.push(
                    Diagnostic::error(format!("`{other}` has no meaning here"))
                        .at(&origin(next))
                        .label("expected a word, `;`, `{` or `}`")
                        .help("put a text with such characters into double quotes"),
                );
                next
            }
        };
    }
    tokens
}

fn word(text: String, quoted: bool, origin: Origin) -> Word {
    Word {
        text,
        quoted,
        origin,
    }
}

fn too_long(origin: &Origin, chars_max: usize) -> Diagnostic {
    Diagnostic::error(format!("a text of more than {chars_max} characters")).at(origin)
}

fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '/' | '.' | '_' | '-')
}

/// Reads from a quotation mark; returns the text, where it ends, and whether it does.
fn quoted(text: &str, start: usize) -> (String, usize, bool) {
    let mut content = String::new();
    let mut chars = text[start + 1..].char_indices();
    while let Some((offset, char)) = chars.next() {
        let here = start + 1 + offset;
        match char {
            '"' => return (content, here + 1, true),
            '\n' => return (content, here, false),
            '\\' => match chars.next() {
                Some((_, '\n')) => return (content, here + 1, false),
                Some((_, escaped)) => content.push(escaped),
                None => {}
            },
            char => content.push(char),
        }
    }
    (content, text.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn outline(statements: &[Statement]) -> String {
        let mut text = String::new();
        for statement in statements {
            let words: Vec<&str> = std::iter::once(&statement.name)
                .chain(&statement.values)
                .map(|word| word.text.as_str())
                .collect();
            let _ = match &statement.block {
                Some(block) => write!(text, "{} {{{}}} ", words.join(" "), outline(block)),
                None => write!(text, "{}; ", words.join(" ")),
            };
        }
        text.trim_end().to_owned()
    }

    fn read(text: &str) -> (String, Vec<String>) {
        let (statements, problems) = parse(&Source::new("r0.res", text));
        let problems = problems
            .into_iter()
            .map(|problem| {
                let origin = problem.origin.expect("every problem has a place");
                format!("{}:{}: {}", origin.line(), origin.column(), problem.message)
            })
            .collect();
        (outline(&statements), problems)
    }

    #[test]
    fn words_blocks_comments_and_quotes() {
        let text =
            "# c\nresource \"r 0\" { net { shared-secret \"a\\\"b\"; } address [::1]:7788; }";
        let (outline, problems) = read(text);
        assert_eq!(
            outline,
            "resource r 0 {net {shared-secret a\"b;} address [ : : 1 ] : 7788;}"
        );
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn a_forgotten_semicolon_is_one_problem_at_the_end_of_its_line() {
        let (outline, problems) = read("device /dev/drbd0\ndisk /dev/sdb1;\nminor 1\n");
        assert_eq!(outline, "device /dev/drbd0; disk /dev/sdb1; minor 1;");
        assert_eq!(
            problems,
            [
                "1:18: no `;` after `device /dev/drbd0`",
                "3:8: no `;` after `minor 1`"
            ]
        );
    }

    #[test]
    fn braces_that_do_not_pair_are_shown_where_they_stand() {
        assert_eq!(read("net { a b;").1, ["1:5: `{` without a `}`"]);
        assert_eq!(read("net { } }\nx;").1, ["1:9: `}` without a `{`"]);
        assert_eq!(read("{ a; }").1, ["1:1: a block without a name"]);
    }

    #[test]
    fn a_quote_ends_on_its_line_and_signs_without_meaning_are_named() {
        assert_eq!(
            read("a \"b;\nc d;").1,
            ["1:3: a quoted text that does not end on its line",]
        );
        assert_eq!(read("a %;").1, ["1:3: `%` has no meaning here"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "(shared-secret |[a-z{};:\"#\\\\\\[\\] \n%é]){0,80}") {
            let _ = parse(&Source::new("x", text));
        }
    }
}
