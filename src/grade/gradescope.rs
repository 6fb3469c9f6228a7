//! The report as Gradescope's `results.json`: one test a check.

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
    json!({
        "score": report.points(),
        "execution_time": report.seconds.round(),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    })
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

    /// What Gradescope's documentation of `results.json` asks for.
    #[test]
    fn scores_and_states_are_what_gradescope_reads() {
        let results = render(&sample());
        assert_eq!(results["score"], 2.5);
        let tests = results["tests"].as_array().expect("a list");
        let mut sum = 0.0;
        for test in tests {
            let (score, max) = (test["score"].as_f64(), test["max_score"].as_f64());
            assert!(score <= max, "{test}");
            sum += score.expect("a number");
            assert!(["passed", "failed"].contains(&test["status"].as_str().expect("a word")));
            assert_eq!(test["output_format"], "text");
            assert!(
                test["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.iter().all(Value::is_string))
            );
        }
        assert!((sum - 2.5).abs() < f64::EPSILON);
    }
}
