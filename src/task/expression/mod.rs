//! Python's regular expressions, as playbooks write them.
//!
//! A program of the agent's, and so a small one: it backtracks over a tree's program and knows
//! Python's syntax alone. Engines of others cost the agent a fifth of its size, and take another
//! language's word for what `\Z`, an empty match or a flag is.
//!
//! | file | what |
//! |---|---|
//! | `parse` | text → tree, with Python's errors |
//! | `program` | tree → program |
//! | `run` | program + text → where it fits |

mod parse;
mod program;
mod run;

pub use parse::Problem;
pub use run::{Found, TooHard};

use program::Program;

/// What holds for a whole expression unless it says otherwise itself.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a letter that is there or not"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `i`
    pub folds_case: bool,
    /// `m`: `^` and `$` fit at every line.
    pub multi_line: bool,
    /// `s`: `.` fits a newline, too.
    pub dot_is_all: bool,
    /// `x`: blanks and comments mean nothing.
    pub verbose: bool,
    /// `a`: `\w`, `\d`, `\s`, `\b` and the case of letters know ASCII only.
    pub ascii: bool,
}

/// One compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    program: Program,
    names: Vec<(String, usize)>,
}

impl Expression {
    pub fn new(text: &str, flags: Flags) -> Result<Self, Problem> {
        let parsed = parse::parse(text, flags)?;
        let program = Program::new(&parsed)?;
        Ok(Self {
            program,
            names: parsed.names,
        })
    }

    /// The number of a group by its name.
    pub fn group(&self, name: &str) -> Option<usize> {
        let found = self.names.iter().find(|(known, _)| known == name);
        found.map(|(_, number)| *number)
    }

    /// Finds the first place at or after a byte.
    pub fn search(&self, text: &str, from: usize) -> Result<Option<Found>, TooHard> {
        run::search(&self.program, text, from, false)
    }

    /// Finds the place after another one, as Python goes from one to the next: an empty one may
    /// follow at once where the last was not empty.
    pub fn search_after(&self, text: &str, last: &Found) -> Result<Option<Found>, TooHard> {
        run::search(&self.program, text, last.end(), last.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every group of every match, as Python's `finditer` goes through a text.
    fn all(expression: &str, text: &str) -> Result<String, String> {
        let compiled =
            Expression::new(expression, Flags::default()).map_err(|problem| problem.to_string())?;
        let mut shown = Vec::new();
        let mut next = compiled.search(text, 0);
        while let Ok(Some(found)) = next {
            let groups: Vec<String> = (0..found.len())
                .map(|group| match found.get(group) {
                    Some((start, end)) => {
                        let chars = |byte: usize| text[..byte].chars().count();
                        format!("{},{}", chars(start), chars(end))
                    }
                    None => "-".to_owned(),
                })
                .collect();
            shown.push(groups.join(" "));
            next = compiled.search_after(text, &found);
        }
        next.map_err(|error| error.to_string())?;
        Ok(shown.join("|"))
    }

    /// What Python's own module said to the same; `testdata/record` asks it.
    #[test]
    fn every_expression_fits_where_python_says() {
        let recorded: Vec<[String; 3]> =
            serde_json::from_str(include_str!("testdata/python.json")).expect("JSON");
        assert!(recorded.len() > 300, "{} are recorded", recorded.len());
        let differing: Vec<String> = recorded
            .iter()
            .filter_map(|[expression, text, said]| {
                let ours = match all(expression, text) {
                    Ok(found) => found,
                    Err(_) if said == "error" => said.clone(),
                    Err(problem) => format!("refused: {problem}"),
                };
                (ours != *said)
                    .then(|| format!("{expression:?} in {text:?}: {ours}, Python {said}"))
            })
            .collect();
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    }

    #[test]
    fn what_backtracks_without_end_is_given_up() {
        let text = "a".repeat(60);
        all(r"(a+)+b", &text).expect_err("it would take longer than anybody lives");
        // Long texts are no reason to.
        let text = "a b\n".repeat(300_000);
        let expression = Expression::new(r"(?s)x?.*zz|\bq", Flags::default()).expect("valid");
        let short = &text[..1000];
        assert_eq!(expression.search(short, 0), Ok(None));
        let expression = Expression::new(r"(?ms)^a.*b$", Flags::default()).expect("valid");
        let found = expression.search(&text, 0).expect("easy").expect("there");
        assert_eq!(found.get(0), Some((0, text.len() - 1)));
    }
}
