//! Regular expressions as playbooks write them: Python's syntax and replacement texts.

use super::expression::{Expression, Flags, Found};
use super::outcome::Refusal;

/// One compiled expression.
#[derive(Clone, Debug)]
pub struct Pattern(Expression);

/// Where a pattern fits a text.
#[derive(Clone, Debug)]
pub struct Captures<'t> {
    text: &'t str,
    found: Found,
    expression: &'t Expression,
}

/// One group of a match.
#[derive(Clone, Copy, Debug)]
pub struct Part<'t> {
    text: &'t str,
    start: usize,
    end: usize,
}

impl<'t> Part<'t> {
    pub fn start(self) -> usize {
        self.start
    }

    pub fn end(self) -> usize {
        self.end
    }

    /// Its bytes' places.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start..self.end
    }

    pub fn as_str(self) -> &'t str {
        &self.text[self.range()]
    }
}

impl<'t> Captures<'t> {
    /// A group, if it took part; the whole is 0.
    pub fn get(&self, group: usize) -> Option<Part<'t>> {
        let (start, end) = self.found.get(group)?;
        let text = self.text;
        Some(Part { text, start, end })
    }

    /// A group by its name.
    pub fn name(&self, name: &str) -> Option<Part<'t>> {
        self.get(self.expression.group(name)?)
    }
}

impl Pattern {
    pub fn new(expression: &str) -> Result<Self, Refusal> {
        Self::compile(expression, Flags::default())
    }

    /// `^` and `$` match at every line.
    pub fn multi_line(expression: &str) -> Result<Self, Refusal> {
        let flags = Flags {
            multi_line: true,
            ..Flags::default()
        };
        Self::compile(expression, flags)
    }

    /// `.` matches newlines too.
    pub fn across_lines(expression: &str) -> Result<Self, Refusal> {
        let flags = Flags {
            dot_is_all: true,
            ..Flags::default()
        };
        Self::compile(expression, flags)
    }

    fn compile(written: &str, flags: Flags) -> Result<Self, Refusal> {
        let compiled = Expression::new(written, flags);
        compiled.map(Self).map_err(|problem| {
            Refusal::new(format!(
                "`{written}` is not a regular expression: {problem}"
            ))
        })
    }

    /// Finds the first match. An expression that backtracks without end finds nothing.
    pub fn search<'t>(&'t self, text: &'t str) -> Option<Captures<'t>> {
        let found = self.0.search(text, 0).ok().flatten()?;
        Some(self.captures(text, found))
    }

    fn captures<'t>(&'t self, text: &'t str, found: Found) -> Captures<'t> {
        Captures {
            text,
            found,
            expression: &self.0,
        }
    }

    pub fn is_in(&self, text: &str) -> bool {
        self.search(text).is_some()
    }

    /// Returns the first group of the first match, or all of it when there is no group.
    pub fn extract<'t>(&'t self, text: &'t str) -> Option<&'t str> {
        let found = self.search(text)?;
        let part = found.get(1).or_else(|| found.get(0))?;
        Some(part.as_str())
    }

    /// Replaces every match; returns the text and how many there were.
    pub fn replace_all(&self, text: &str, replacement: &str) -> Result<(String, usize), Refusal> {
        let mut result = String::with_capacity(text.len());
        let mut end = 0;
        let mut count = 0;
        let mut next = self.0.search(text, 0);
        while let Ok(Some(found)) = next {
            next = self.0.search_after(text, &found);
            let found = self.captures(text, found);
            let whole = found.get(0).expect("a match has its whole");
            result.push_str(&text[end..whole.start()]);
            result.push_str(&expand(replacement, &found)?);
            end = whole.end();
            count += 1;
        }
        result.push_str(&text[end..]);
        Ok((result, count))
    }
}

/// Fills `\1`, `\g<name>` and the escapes of a replacement text.
pub fn expand(replacement: &str, found: &Captures<'_>) -> Result<String, Refusal> {
    let mut result = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(char) = rest.next() {
        if char != '\\' {
            result.push(char);
            continue;
        }
        match rest.next() {
            Some('n') => result.push('\n'),
            Some('t') => result.push('\t'),
            Some('r') => result.push('\r'),
            Some('\\') | None => result.push('\\'),
            Some('g') => {
                let name: String = rest
                    .by_ref()
                    .skip(1)
                    .take_while(|&char| char != '>')
                    .collect();
                result.push_str(group(found, &name)?);
            }
            Some(digit) if digit.is_ascii_digit() => {
                let mut number = String::from(digit);
                if let Some(next) = rest.next_if(char::is_ascii_digit) {
                    number.push(next);
                }
                result.push_str(group(found, &number)?);
            }
            Some(other) => result.extend(['\\', other]),
        }
    }
    Ok(result)
}

/// Returns a group's text; one that took no part in the match is empty.
fn group<'t>(found: &Captures<'t>, name: &str) -> Result<&'t str, Refusal> {
    let group = match name.parse::<usize>() {
        Ok(number) if number < found.found.len() => Some(number),
        Ok(_) => return Err(Refusal::new(format!("the expression has no group {name}"))),
        Err(_) => found.expression.group(name),
    };
    let group = group.and_then(|number| found.get(number));
    Ok(group.map_or("", |group| group.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_replacements_are_understood() {
        let pattern = Pattern::multi_line(r"^(?P<key>\w+)=(.*)$").expect("valid");
        let replaced = pattern
            .replace_all("a=1\nb=2\n", r"\g<key>: \2;\t\\")
            .expect("valid");
        assert_eq!(replaced, ("a: 1;\t\\\nb: 2;\t\\\n".to_owned(), 2));
        pattern.replace_all("a=1", r"\7").unwrap_err();
    }

    #[test]
    fn look_around_works() {
        let pattern = Pattern::new(r"^(?!#)Listen (\d+)").expect("valid");
        assert_eq!(pattern.extract("Listen 80"), Some("80"));
        assert_eq!(pattern.extract("#Listen 80"), None);
    }

    #[test]
    fn a_broken_expression_is_named() {
        let error = Pattern::new("(").expect_err("broken");
        assert!(
            error.msg.starts_with("`(` is not a regular expression"),
            "{error}"
        );
    }
}
