//! The main file and what it includes.
//!
//! Patterns are a shell's, relative to the file that includes; a pattern may match
//! nothing, a plain name must be there. Includes stand between sections only.

use std::io;

use super::check::{Checked, check};
use super::model::Node;
use super::tree::{Statement, parse};
use crate::base::diagnostic::{Diagnostic, Source};
use crate::task::wildcard;

/// Files that include each other end here.
const INCLUDES_MAX: usize = 1000;

/// Where files come from.
pub trait Files {
    fn read(&self, path: &str) -> io::Result<String>;

    /// The names in a folder; none when it is not there.
    fn names(&self, folder: &str) -> Vec<String>;
}

/// Reads a configuration, everything it includes, and checks it all.
pub fn load(path: &str, files: &dyn Files, node: &Node) -> Checked {
    let text = files.read(path).map_err(|error| {
        vec![
            Diagnostic::error(format!("cannot read {path}: {error}")).help(
                "drbd-utils brings one; it includes drbd.d/global_common.conf and drbd.d/*.res",
            ),
        ]
    })?;
    let mut loader = Loader {
        files,
        count: 0,
        statements: Vec::new(),
        problems: Vec::new(),
    };
    loader.file(path, text);
    check(path, &loader.statements, node, loader.problems)
}

struct Loader<'a> {
    files: &'a dyn Files,
    count: usize,
    statements: Vec<Statement>,
    problems: Vec<Diagnostic>,
}

impl Loader<'_> {
    fn file(&mut self, path: &str, text: String) {
        let (statements, problems) = parse(&Source::new(path, text));
        self.problems.extend(problems);
        for statement in statements {
            if statement.name.is("include") {
                self.include(path, &statement);
            } else {
                self.statements.push(statement);
            }
        }
    }

    fn include(&mut self, from: &str, statement: &Statement) {
        let [pattern] = statement.values.as_slice() else {
            let problem = Diagnostic::error("`include` takes one file or pattern");
            self.problems.push(problem.at(&statement.origin()));
            return;
        };
        let folder = from.rsplit_once('/').map_or(".", |(folder, _)| folder);
        let full = if pattern.text.starts_with('/') {
            pattern.text.clone()
        } else {
            format!("{folder}/{}", pattern.text)
        };
        for path in self.matching(&full) {
            self.count += 1;
            if self.count > INCLUDES_MAX {
                if self.count == INCLUDES_MAX + 1 {
                    let problem =
                        Diagnostic::error(format!("more than {INCLUDES_MAX} included files"))
                            .at(&pattern.origin)
                            .label("does a file include itself?");
                    self.problems.push(problem);
                }
                return;
            }
            match self.files.read(&path) {
                Ok(text) => self.file(&path, text),
                Err(error) => {
                    let problem = Diagnostic::error(format!("cannot read {path}: {error}"));
                    self.problems
                        .push(problem.at(&pattern.origin).label("included here"));
                }
            }
        }
    }

    /// Returns the files of a pattern in their order; a plain path is itself.
    fn matching(&self, pattern: &str) -> Vec<String> {
        if !wildcard::is_pattern(pattern) {
            return vec![pattern.to_owned()];
        }
        let mut found = vec![String::new()];
        for part in pattern
            .split('/')
            .skip(usize::from(pattern.starts_with('/')))
        {
            found = found
                .iter()
                .flat_map(|folder| {
                    if !wildcard::is_pattern(part) {
                        return vec![join(folder, part, pattern)];
                    }
                    let shown = if folder.is_empty() { "/" } else { folder };
                    let mut names = self.files.names(shown);
                    names.retain(|name| wildcard::matches(part, name));
                    names.sort();
                    names
                        .iter()
                        .map(|name| join(folder, name, pattern))
                        .collect()
                })
                .collect();
        }
        found
    }
}

fn join(folder: &str, name: &str, pattern: &str) -> String {
    if folder.is_empty() && !pattern.starts_with('/') {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}
