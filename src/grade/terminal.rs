//! The report as a student reads it in a terminal.
//!
//! One line a check with its points; below those that lost some: what was expected, what was
//! found, the likely cause, a command to see it, a hint. Symbols stand beside the colours, so
//! that nothing is lost without them.

use std::fmt::Write as _;

use super::outcome::{CheckResult, CheckVerdict, harmless};
use super::report::{ExerciseReport, Report, number};
use super::words::{Words, words};

/// Narrower than this, lines are as long as they are.
const COLUMNS_MIN: usize = 40;
const COLUMNS_MAX: usize = 110;
/// Before a check's details.
const INDENT: usize = 12;

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub colour: bool,
    pub columns: usize,
    /// How many rungs of the hints' ladder are shown.
    pub hints: usize,
}

/// Returns the whole report.
pub fn render(report: &Report, style: Style) -> String {
    let words = words(&report.language);
    let mut text = String::new();
    if let Some(student) = &report.student {
        let _ = writeln!(text, "{} ({})\n", student.name, student.id);
    }
    for exercise in &report.exercises {
        text.push_str(&exercise_text(exercise, words, style));
        text.push('\n');
    }
    if report.exercises.len() > 1 {
        let _ = writeln!(text, "{}", paint(style, "1", words.total));
        for exercise in &report.exercises {
            let _ = writeln!(
                text,
                "  {:<20} {:>5} {} {}",
                exercise.exercise,
                number(exercise.points()),
                words.of,
                number(exercise.max)
            );
        }
        let _ = writeln!(
            text,
            "  {:<20} {:>5} {} {} {}",
            "",
            number(report.points()),
            words.of,
            number(report.max()),
            words.points_behind(report.max())
        );
    }
    harmless_but_colours(&text, style)
}

/// Colours are ours; everything else was made harmless where it came in.
fn harmless_but_colours(text: &str, style: Style) -> String {
    if style.colour {
        text.to_owned()
    } else {
        harmless(text)
    }
}

fn exercise_text(exercise: &ExerciseReport, words: &Words, style: Style) -> String {
    let mut text = String::new();
    let score = format!(
        "{} {} {} {}",
        number(exercise.points()),
        words.of,
        number(exercise.max),
        words.points_behind(exercise.max)
    );
    let name = format!("{}  {}", exercise.exercise, exercise.title);
    let width = style.columns.clamp(COLUMNS_MIN, COLUMNS_MAX);
    let gap = width
        .saturating_sub(name.chars().count() + score.chars().count())
        .max(2);
    let _ = writeln!(
        text,
        "{}{}{}",
        paint(style, "1", &name),
        " ".repeat(gap),
        paint(style, "1", &score)
    );
    if let Some(state) = &exercise.state {
        let _ = writeln!(text, "{} `{state}`", words.graded_in);
    }
    text.push('\n');
    for check in &exercise.checks {
        check_text(&mut text, check, words, style);
    }
    if let Some(stopped) = exercise.stopped_text(words) {
        let _ = writeln!(text, "\n  {stopped}");
    } else if exercise.checks.iter().all(CheckResult::passed) {
        let _ = writeln!(text, "\n  {}", words.nothing_lost);
    }
    text
}

fn check_text(text: &mut String, check: &CheckResult, words: &Words, style: Style) {
    let (symbol, colour) = match check.verdict {
        CheckVerdict::Passed => ("✓", "32"),
        // Worth nothing: a remark.
        CheckVerdict::Failed if check.max == 0.0 => ("!", "33"),
        CheckVerdict::Failed => ("✗", "31"),
        CheckVerdict::Skipped => ("–", "33"),
    };
    let score = format!("{}/{}", number(check.points), number(check.max));
    let _ = writeln!(
        text,
        "  {}  {score:>6}  {}",
        paint(style, colour, symbol),
        harmless(&check.name)
    );
    let mut detail = |label: &str, value: &str| {
        if !value.trim().is_empty() {
            wrapped(text, label, &harmless(value), style);
        }
    };
    match check.verdict {
        CheckVerdict::Passed => {}
        CheckVerdict::Skipped => {
            detail(
                "",
                &format!("{}: {}", words.skipped, check.because.join("; ")),
            );
        }
        CheckVerdict::Failed => {
            detail(words.expected, &check.expected);
            detail(words.found, &check.found);
            for cause in &check.causes {
                detail(words.because, cause);
            }
            if let Some(see) = &check.see {
                detail(words.look, see);
            }
            for hint in check.hints.iter().take(style.hints) {
                detail(words.hint, hint);
            }
        }
    }
}

fn wrapped(text: &mut String, label: &str, value: &str, style: Style) {
    let label_width = if label.is_empty() { 0 } else { 10 };
    let width = style
        .columns
        .clamp(COLUMNS_MIN, COLUMNS_MAX)
        .saturating_sub(INDENT + label_width)
        .max(20);
    let mut label = label;
    for paragraph in value.trim().lines() {
        for line in lines(paragraph, width) {
            let head = format!("{label:<label_width$}");
            let _ = writeln!(
                text,
                "{}{}{line}",
                " ".repeat(INDENT),
                paint(style, "2", &head)
            );
            label = "";
        }
    }
}

/// Breaks a paragraph between words; a word that is too long stays whole, to be copied.
fn lines(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in paragraph.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

fn paint(style: Style, code: &str, text: &str) -> String {
    if style.colour && !text.is_empty() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    const PLAIN: Style = Style {
        colour: false,
        columns: 72,
        hints: 1,
    };

    #[test]
    fn a_lost_point_says_what_why_and_where_to_look() {
        let text = render(&sample(), PLAIN);
        let expected = "\
Ana O'Neill, <grupa> 1 (=cmd|'/C calc'!A0)

01-lvs-dr  LVS-DR                                      2.5 of 7.5 points

  ✓  2.5/2.5  The check <a>
  ✗   0/2.5  The check <b>
            expected  three & three
            found     =six \"of one\"
                      <b>none</b> of the other
            because   no rule on saisp-vm-2
            look      halab ssh saisp-vm-2 -- ip address
            hint      the idea
  –   0/2.5  The check <c>
            not looked at, because this failed: The check <b>

";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_machines_escape_sequences_stay_words() {
        let mut report = sample();
        report.exercises[0].checks[1].found = "\u{1b}]0;owned\u{7}".into();
        for colour in [true, false] {
            let text = render(&report, Style { colour, ..PLAIN });
            assert!(!text.contains("\u{1b}]0"), "{text:?}");
        }
    }
}
