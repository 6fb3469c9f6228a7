//! Messages about text that somebody wrote: where, what was expected, how to mend it.
//!
//! Every reader of a file (playbooks, inventories, topologies, templates, the engines'
//! configuration files) reports [`Diagnostic`]s, all problems of a file at once, and one
//! renderer draws them with the source line and a caret.

use std::fmt;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A text and the name under which its reader knows it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// As the user would type it: a path, `<command line>`, …
    pub name: String,
    pub text: String,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            text: text.into(),
        })
    }

    /// Returns line and column (both from 1, the column in characters) of a byte offset.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// A range of bytes in a source.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub source: Arc<Source>,
    pub start: usize,
    pub end: usize,
}

impl Origin {
    pub fn new(source: &Arc<Source>, start: usize, end: usize) -> Self {
        Self {
            source: Arc::clone(source),
            start,
            end: end.max(start),
        }
    }

    pub fn line(&self) -> usize {
        self.source.line_column(self.start).0
    }

    pub fn column(&self) -> usize {
        self.source.line_column(self.start).1
    }

    /// Returns the text the range covers.
    pub fn text(&self) -> &str {
        self.source.text.get(self.start..self.end).unwrap_or("")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.source.line_column(self.start);
        write!(formatter, "{}:{line}:{column}", self.source.name)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One problem, with the place it was found in and the ways out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Lower-case fragment, no full stop: "unknown module `coppy`".
    pub message: String,
    pub origin: Option<Origin>,
    /// Stands under the caret; often what was expected.
    pub label: String,
    /// Further places: (where, what about it).
    pub related: Vec<(Origin, String)>,
    /// How to mend it, one way a line.
    pub help: Vec<String>,
}

impl Diagnostic {
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            origin: None,
            label: String::new(),
            related: Vec::new(),
            help: Vec::new(),
        }
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    #[must_use]
    pub fn at(mut self, origin: &Origin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn related(mut self, origin: &Origin, label: impl Into<String>) -> Self {
        self.related.push((origin.clone(), label.into()));
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds "did you mean …" when one of `known` is near to `typed`.
    #[must_use]
    pub fn nearest<'a>(self, typed: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(typed, known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// Draws the problem: message, place, source lines with carets, help.
    pub fn render(&self, colour: Colour) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = match &self.origin {
            None => Group::with_title(level.primary_title(self.message.as_str())),
            Some(origin) => level.primary_title(self.message.as_str()).element(
                Snippet::source(origin.source.text.as_str())
                    .path(origin.source.name.as_str())
                    .annotation(
                        AnnotationKind::Primary
                            .span(shown_range(origin))
                            .label((!self.label.is_empty()).then_some(self.label.as_str())),
                    ),
            ),
        };
        for (origin, label) in &self.related {
            group = group.element(
                Snippet::source(origin.source.text.as_str())
                    .path(origin.source.name.as_str())
                    .annotation(
                        AnnotationKind::Context
                            .span(shown_range(origin))
                            .label(label.as_str()),
                    ),
            );
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = match colour {
            Colour::Always => Renderer::styled(),
            Colour::Never => Renderer::plain(),
        };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Always,
    Never,
}

/// Draws problems one below the other, an empty line between.
pub fn render_all(diagnostics: &[Diagnostic], colour: Colour) -> String {
    let drawn: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render(colour))
        .collect();
    drawn.join("\n\n")
}

/// Returns the known name that is most like what was typed, when one is like it at all.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, suggestions are noise: `copy` and `when` score 0.5.
    const LIKENESS_MIN: f64 = 0.75;
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(typed, name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

/// Narrows a range to its first line and to whole characters, so that a caret stands
/// under what is meant and not under half a page.
fn shown_range(origin: &Origin) -> std::ops::Range<usize> {
    let text = &origin.source.text;
    let mut start = origin.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = origin.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let end = text[start..end]
        .find('\n')
        .map_or(end, |newline| start + newline);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_drawn_with_place_caret_and_help() {
        let source = Source::new("site.yml", "- hosts: all\n  tasks:\n  - coppy: {}\n");
        let origin = Origin::new(&source, 26, 31);
        let drawn = Diagnostic::error("unknown module `coppy`")
            .at(&origin)
            .label("no such module")
            .nearest("coppy", ["copy", "command"])
            .render(Colour::Never);
        assert!(drawn.contains("site.yml:3:5"), "{drawn}");
        assert!(drawn.contains("^^^^^ no such module"), "{drawn}");
        assert!(drawn.contains("did you mean `copy`?"), "{drawn}");
    }

    #[test]
    fn a_range_past_the_end_is_drawn_all_the_same() {
        let source = Source::new("x", "a: é");
        let drawn = Diagnostic::error("cut")
            .at(&Origin::new(&source, 4, 99))
            .render(Colour::Never);
        assert!(drawn.contains("x:1:4"), "{drawn}");
    }

    #[test]
    fn nothing_is_suggested_when_nothing_is_near() {
        assert_eq!(nearest("zzz", ["copy", "template"]), None);
    }
}
