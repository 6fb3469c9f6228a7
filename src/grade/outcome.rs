//! What became of one check.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    Passed,
    Failed,
    /// Not looked at, because a check it needs did not pass.
    Skipped,
}

/// A check with all its texts, in the report's language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    pub id: String,
    pub name: String,
    pub points: f64,
    pub max: f64,
    pub verdict: CheckVerdict,
    /// The hosts on which it failed.
    pub hosts: Vec<String>,
    pub expected: String,
    pub found: String,
    /// A command with which the reader sees it for himself.
    pub see: Option<String>,
    /// Proven causes, the most useful first.
    pub causes: Vec<String>,
    /// From the idea to the place.
    pub hints: Vec<String>,
    /// Names of the checks that a skipped one needs and that did not pass.
    pub because: Vec<String>,
    /// Since the grading began.
    pub started_seconds: f64,
    pub seconds: f64,
}

impl CheckResult {
    pub fn passed(&self) -> bool {
        self.verdict == CheckVerdict::Passed
    }
}

/// Takes out what a terminal would take as a command: a graded machine may say anything.
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|each| match each {
            '\n' | '\t' => each,
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            each if each.is_control() => '\u{fffd}',
            each => each,
        })
        .collect()
}

/// Cuts a text that is longer than anybody reads.
pub fn shortened(text: &str, chars_max: usize) -> String {
    let text = text.trim();
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max).collect();
    format!("{kept} […]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_machines_words_reaches_the_terminal_as_a_command() {
        assert_eq!(
            harmless("a\u{1b}[2Jb\n\u{202e}c"),
            "a\u{fffd}[2Jb\n\u{fffd}c"
        );
        assert_eq!(shortened("abcdef", 3), "abc […]");
    }
}
