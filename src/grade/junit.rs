//! The report as `JUnit` XML: a suite an exercise, a case a check.

use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Report as Junit, SerializeError, TestCase, TestCaseStatus, TestSuite,
};

use super::outcome::{CheckResult, CheckVerdict, harmless};
use super::report::Report;
use super::words::words;

/// Returns the document.
pub fn render(report: &Report) -> Result<String, SerializeError> {
    let mut junit = Junit::new("halab grade");
    junit.set_time(Duration::from_secs_f64(report.seconds.max(0.0)));
    for exercise in &report.exercises {
        let mut suite = TestSuite::new(exercise.exercise.clone());
        suite.set_time(Duration::from_secs_f64(exercise.seconds.max(0.0)));
        for check in &exercise.checks {
            suite.add_test_case(case(&exercise.exercise, check));
        }
        if let Some(stopped) = exercise.stopped_text(words(&report.language)) {
            suite.set_system_err(stopped);
        }
        junit.add_test_suite(suite);
    }
    junit
        .to_string()
        .map(|text| without_skipped_at_the_root(&text))
}

/// Takes an attribute away that the schema of Jenkins' reader knows of suites, and not of their
/// root: the suites have it too.
fn without_skipped_at_the_root(text: &str) -> String {
    let root = text.find("<testsuites").and_then(|begin| {
        let end = begin + text[begin..].find('>')?;
        let from = begin + text[begin..end].find(" skipped=\"")?;
        let value = from + " skipped=\"".len();
        Some((from, value + text[value..end].find('"')? + 1))
    });
    match root {
        Some((from, to)) => [&text[..from], &text[to..]].concat(),
        None => text.to_owned(),
    }
}

fn case(exercise: &str, check: &CheckResult) -> TestCase {
    let status = match check.verdict {
        CheckVerdict::Passed => TestCaseStatus::success(),
        CheckVerdict::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let why = check.causes.first().unwrap_or(&check.found);
            status
                .set_message(harmless(why))
                .set_type(format!("{} points lost", check.max - check.points))
                .set_description(harmless(&format!(
                    "expected: {}\nfound: {}\n{}",
                    check.expected,
                    check.found,
                    check.causes.join("\n")
                )));
            status
        }
        CheckVerdict::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(harmless(&check.because.join("; ")));
            status
        }
    };
    let mut case = TestCase::new(harmless(&check.name), status);
    case.set_classname(format!("{exercise}.{}", check.id))
        .set_time(Duration::from_secs_f64(check.seconds.max(0.0)));
    case
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn its_own_reader_finds_every_case_again() {
        let text = render(&sample()).expect("a document");
        let read = Junit::deserialize_from_str(&text).expect("it is JUnit");
        let suite = &read.test_suites[0];
        assert_eq!((suite.tests, suite.failures), (3, 1));
        let heads: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("<testsuite"))
            .collect();
        assert!(
            heads[0].contains("<testsuites ") && !heads[0].contains("skipped"),
            "{text}"
        );
        assert!(heads[1].contains(" skipped=\""), "{text}");
        assert_eq!(suite.test_cases[1].name.as_str(), "The check <b>");
    }
}
