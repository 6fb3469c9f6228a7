//! Why something was not rendered: minijinja's errors in terms of what was written.
//!
//! minijinja knows roughly where an undefined value was used. The name to blame is found
//! by asking for each chain of the text in turn (`a`, `a.b`, `a.b.c`), so that the caret
//! stands under the first link that is missing, wherever the error came out.

use std::fmt;
use std::ops::Range;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::context::Context;
use super::template::{self, Analysis, Chain, Form, OffsetMap};
use super::vars::{Scope, Variable};
use super::{filters, place, predicates};
use crate::base::diagnostic::{Diagnostic, Origin, nearest};

/// At most so many names are listed; more do not help.
const LISTED_MAX: usize = 12;

/// Why something was not rendered.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The cause is an undefined name, which `default` and `is defined` may still save.
    pub undefined: bool,
    pub diagnostic: Box<Diagnostic>,
}

impl Problem {
    fn new(diagnostic: Diagnostic) -> Self {
        Self {
            undefined: false,
            diagnostic: Box::new(diagnostic),
        }
    }

    fn undefined(diagnostic: Diagnostic) -> Self {
        Self {
            undefined: true,
            diagnostic: Box::new(diagnostic),
        }
    }

    /// Wraps it so that it passes through minijinja unharmed.
    pub(super) fn into_error(self) -> Error {
        let kind = if self.undefined {
            ErrorKind::UndefinedError
        } else {
            ErrorKind::InvalidOperation
        };
        Error::new(kind, self.diagnostic.message.clone()).with_source(self)
    }

    /// The problem that travelled through minijinja inside an error.
    fn carried_by(error: &Error) -> Option<&Self> {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(problem) = cause.downcast_ref::<Self>() {
                return Some(problem);
            }
            source = cause.source();
        }
        None
    }
}

impl From<Diagnostic> for Problem {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::new(diagnostic)
    }
}

impl From<Problem> for Diagnostic {
    fn from(problem: Problem) -> Self {
        *problem.diagnostic
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Problem {}

/// Reads a text; a syntax error has its place.
pub(super) fn analysed(text: &str, form: Form, origin: &Origin) -> Result<Analysis, Problem> {
    template::analyse(text, form).map_err(|problem| {
        let place = place::within(origin, text, problem.range);
        Problem::new(
            Diagnostic::error(format!("template syntax: {}", problem.message))
                .at(&place)
                .label("not expected here"),
        )
    })
}

/// A text being rendered, for the way back from an error to its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'text> {
    pub text: &'text str,
    pub form: Form,
    pub origin: &'text Origin,
    pub map: &'text OffsetMap,
}

impl Written<'_> {
    fn place(&self, range: Range<usize>) -> Origin {
        place::within(self.origin, self.text, range)
    }

    /// Turns minijinja's error into a problem with its place.
    pub(super) fn explain(&self, error: &Error, context: &Context) -> Problem {
        let range = error.range().map(|range| self.map.back(range));
        let here = self.place(range.clone().unwrap_or(0..self.text.len()));
        if let Some(cause) = Problem::carried_by(error) {
            let mut problem = cause.clone();
            if problem.diagnostic.origin.as_ref() != Some(&here) {
                problem.diagnostic = Box::new(problem.diagnostic.related(&here, "needed here"));
            }
            return problem;
        }
        if error.kind() == ErrorKind::UndefinedError {
            return self.undefined(error, range, &here, context);
        }
        let message = match error.detail() {
            Some(detail) => detail.to_owned(),
            None => error.kind().to_string(),
        };
        let diagnostic = Diagnostic::error(message).at(&here);
        Problem::new(match error.kind() {
            ErrorKind::UnknownFilter => self.unknown(diagnostic, here.text(), filters::NAMES),
            ErrorKind::UnknownTest => self.unknown(diagnostic, here.text(), predicates::NAMES),
            ErrorKind::OutOfFuel => diagnostic.help("does it loop over itself?"),
            _ => diagnostic,
        })
    }

    /// Points at the filter or test that does not exist.
    fn unknown(&self, diagnostic: Diagnostic, near: &str, known: &[&str]) -> Diagnostic {
        let analysis = template::analyse(self.text, self.form).unwrap_or_default();
        let named = analysis.filters.iter().chain(&analysis.tests);
        let unknown = named
            .filter(|named| near.contains(&named.name))
            .find(|named| !known.contains(&named.name.as_str()));
        match unknown {
            Some(named) => diagnostic
                .at(&self.place(named.range.clone()))
                .nearest(&named.name, known.iter().copied()),
            None => diagnostic,
        }
    }

    fn undefined(
        &self,
        error: &Error,
        range: Option<Range<usize>>,
        here: &Origin,
        context: &Context,
    ) -> Problem {
        let analysis = template::analyse(self.text, self.form).unwrap_or_default();
        let mut missing: Vec<Missing<'_>> = analysis
            .chains
            .iter()
            .filter_map(|chain| self.missing(chain, context))
            .collect();
        // Of several, the one at the place minijinja names, else the last before it.
        if let Some(range) = range {
            missing.sort_by_key(|missing| {
                let overlaps = missing.range.start < range.end && range.start < missing.range.end;
                let before = missing.range.start <= range.start;
                (
                    !overlaps,
                    !before,
                    range.start.abs_diff(missing.range.start),
                )
            });
        }
        let Some(missing) = missing.into_iter().next() else {
            let message = error.detail().unwrap_or("the value is undefined");
            let name = here.text().trim();
            let is_name =
                !name.is_empty() && name.chars().all(|one| one.is_alphanumeric() || one == '_');
            let diagnostic =
                if is_name && error.detail().is_none() && !filters::NAMES.contains(&name) {
                    undefined_name(name, &context.scope)
                } else {
                    Diagnostic::error(message)
                };
            return Problem::undefined(diagnostic.at(here));
        };
        let place = self.place(missing.range.clone());
        match noted(context, missing.last) {
            Some(cause) => Problem::undefined(cause.related(&place, "needed here")),
            None => Problem::undefined(missing.describe(&context.scope).at(&place)),
        }
    }

    /// The first link of a chain that is missing.
    fn missing(&self, chain: &Chain, context: &Context) -> Option<Missing<'_>> {
        let mut known: Option<(usize, Value)> = None;
        for &end in &chain.ends {
            let text = self.text.get(chain.start..end)?;
            let value = context.core.quietly(text, context)?;
            if value.is_undefined() {
                let from = known.as_ref().map_or(chain.start, |(end, _)| *end);
                let last = self.text.get(from..end)?;
                return Some(Missing {
                    range: chain.start..end,
                    parent: known.map(|(end, value)| (&self.text[chain.start..end], value)),
                    last: last.trim_matches(['.', '[', ']', '\'', '"', ' ']),
                });
            }
            known = Some((end, value));
        }
        None
    }
}

/// A link that is not there.
struct Missing<'text> {
    range: Range<usize>,
    /// What was asked for it, unless it is a variable itself.
    parent: Option<(&'text str, Value)>,
    last: &'text str,
}

impl Missing<'_> {
    fn describe(&self, scope: &Scope) -> Diagnostic {
        let Some((parent, value)) = &self.parent else {
            return undefined_name(self.last, scope);
        };
        let message = Diagnostic::error(format!("`{parent}` has no `{}`", self.last));
        match value.kind() {
            ValueKind::Map => {
                let keys: Vec<String> = value
                    .try_iter()
                    .map(|keys| keys.map(|key| key.to_string()).collect())
                    .unwrap_or_default();
                let message = message.nearest(self.last, keys.iter().map(String::as_str));
                message.help(listed("it has", &keys))
            }
            ValueKind::Seq => message.help(format!(
                "it is a list of {} items",
                value.len().unwrap_or(0)
            )),
            ValueKind::String => message.help("it is text"),
            other => message.help(format!("it is a {other}")),
        }
    }
}

/// "`wieght` is undefined", with the nearest name and where that is defined.
pub(super) fn undefined_name(name: &str, scope: &Scope) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("`{name}` is undefined"));
    let Some(near) = nearest(name, scope.names()) else {
        return diagnostic.label("no variable of this name");
    };
    let place = match scope.explain(near).next() {
        Some((_, Variable::Written(node))) => format!(" ({})", node.origin),
        Some((level, Variable::Found(_))) => format!(" ({})", level.describe()),
        None => String::new(),
    };
    diagnostic
        .label("no variable of this name")
        .help(format!("did you mean `{near}`?{place}"))
}

fn noted(context: &Context, name: &str) -> Option<Diagnostic> {
    let notes = context.notes.lock().ok()?;
    let found = notes.iter().rev().find(|(noted, _)| noted == name);
    found.map(|(_, diagnostic)| diagnostic.clone())
}

fn listed(what: &str, names: &[String]) -> String {
    match names.len() {
        0 => format!("{what} nothing"),
        count if count > LISTED_MAX => {
            let some = names[..LISTED_MAX].join(", ");
            format!("{what}: {some}, … ({count} in all)")
        }
        _ => format!("{what}: {}", names.join(", ")),
    }
}
