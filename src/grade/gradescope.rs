//! The report as Gradescope's `results.json`: one test a check.

use std::time::Duration;

use serde_json::{Value, json};

use super::outcome::{CheckResult, CheckVerdict, harmless};
use super::report::Report;
use super::words::words;

/// Returns the document.
pub fn render(report: &Report) -> Value {
    let tests: Vec<Value> = report
        .exercises
        .iter()
        .flat_map(|exercise| {
            exercise
                .checks
                .iter()
                .enumerate()
                .map(move |(index, check)| {
                    json!({
                        "name": harmless(&format!("{}: {}", exercise.exercise, check.name)),
                        "number": format!("{}.{}", exercise.exercise, index + 1),
                        "score": check.points,
                        "max_score": check.max,
                        "status": if check.passed() { "passed" } else { "failed" },
                        "output": output(check, &report.language),
                        "output_format": "text",
                        "tags": [exercise.exercise, check.id],
                        "visibility": "visible",
                    })
                })
        })
        .collect();
    let stopped: Vec<String> = report
        .exercises
        .iter()
        .filter_map(|exercise| {
            let text = exercise.stopped_text(words(&report.language))?;
            Some(format!("{}: {text}", exercise.exercise))
        })
        .collect();
    json!({
        "score": report.points(),
        "output": stopped.join("\n"),
        "execution_time": whole(report.seconds),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    })
}

/// Seconds without a fraction: those who check the format want an integer.
fn whole(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds.round()).map_or(0, |time| time.as_secs())
}

fn output(check: &CheckResult, language: &str) -> String {
    let words = words(language);
    let text = match check.verdict {
        CheckVerdict::Passed => String::new(),
        CheckVerdict::Skipped => format!("{}: {}", words.skipped, check.because.join("; ")),
        CheckVerdict::Failed => {
            let mut lines = vec![
                format!("{}: {}", words.expected, check.expected),
                format!("{}: {}", words.found, check.found),
            ];
            lines.extend(
                check
                    .causes
                    .iter()
                    .map(|cause| format!("{}: {cause}", words.because)),
            );
            lines.extend(check.see.iter().map(|see| format!("{}: {see}", words.look)));
            lines.extend(
                check
                    .hints
                    .first()
                    .map(|hint| format!("{}: {hint}", words.hint)),
            );
            lines.join("\n")
        }
    };
    harmless(&text)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    /// Every key, type and word that Gradescope's documentation of `results.json` knows.
    fn known(key: &str, value: &Value) -> bool {
        let one_of = |words: &[&str]| value.as_str().is_some_and(|word| words.contains(&word));
        match key {
            "score" | "max_score" => value.as_f64().is_some_and(|points| points >= 0.0),
            "execution_time" => value.is_u64(),
            "name" | "number" => value.as_str().is_some_and(|text| !text.is_empty()),
            "output" => value.as_str().is_some_and(|text| !text.contains('\r')),
            "status" => one_of(&["passed", "failed"]),
            "output_format" | "test_output_format" | "name_format" | "test_name_format" => {
                one_of(&["text", "html", "simple_format", "md", "ansi"])
            }
            "visibility" | "stdout_visibility" => {
                one_of(&["hidden", "after_due_date", "after_published", "visible"])
            }
            "tags" => value
                .as_array()
                .is_some_and(|tags| tags.iter().all(Value::is_string)),
            _ => false,
        }
    }

    #[test]
    fn scores_and_states_are_what_gradescope_reads() {
        let results = render(&sample());
        assert_eq!(results["score"], 2.5);
        assert_eq!(results["execution_time"].to_string(), "5");
        for (key, value) in results.as_object().expect("an object") {
            assert!(key == "tests" || known(key, value), "{key}: {value}");
        }
        let tests = results["tests"].as_array().expect("a list");
        assert_eq!(tests.len(), 3);
        let mut sum = 0.0;
        for test in tests {
            for (key, value) in test.as_object().expect("an object") {
                assert!(known(key, value), "{key}: {value}");
            }
            let (score, max) = (test["score"].as_f64(), test["max_score"].as_f64());
            assert!(score <= max, "{test}");
            assert_eq!(test["status"] == "passed", score == max, "{test}");
            // A machine's words are not to be taken for HTML or colours.
            assert_eq!(test["output_format"], "text");
            sum += score.expect("a number");
        }
        assert!((sum - 2.5).abs() < f64::EPSILON);
    }
}
