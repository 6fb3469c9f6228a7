//! The result of a grading, and its JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::header::Hop;
use super::outcome::{CheckResult, harmless};
use super::words::Words;

/// Whose work it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Student {
    pub name: String,
    pub id: String,
}

/// One exercise's checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExerciseReport {
    pub exercise: String,
    pub title: String,
    pub max: f64,
    pub checks: Vec<CheckResult>,
    pub path: Vec<Hop>,
    pub seconds: f64,
    /// The snapshot it was graded in; none: the lab as it was.
    pub state: Option<String>,
    /// Why the grading ended before all checks were come to.
    pub stopped: Option<String>,
}

impl ExerciseReport {
    pub fn points(&self) -> f64 {
        self.checks.iter().map(|check| check.points).sum()
    }

    /// Says that the grading ended early, and why: no report may leave that out.
    pub fn stopped_text(&self, words: &Words) -> Option<String> {
        let why = self.stopped.as_deref()?;
        Some(format!("{}: {}", words.stopped, harmless(why)))
    }

    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                json!({
                    "id": check.id,
                    "name": check.name,
                    "points": check.points,
                    "max": check.max,
                    "passed": check.passed(),
                    "verdict": check.verdict,
                    "hosts": check.hosts,
                    "expected": check.expected,
                    "found": check.found,
                    "causes": check.causes,
                    "see": check.see,
                    "hint": check.hints.first(),
                    "hints": check.hints,
                    "because": check.because,
                    "seconds": rounded(check.seconds),
                })
            })
            .collect();
        json!({
            "exercise": self.exercise,
            "title": self.title,
            "points": self.points(),
            "max": self.max,
            "state": self.state,
            "stopped": self.stopped,
            "seconds": rounded(self.seconds),
            "checks": checks,
        })
    }
}

/// Everything that was graded at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub student: Option<Student>,
    pub lab: String,
    pub language: String,
    pub exercises: Vec<ExerciseReport>,
    pub graded_unix: u64,
    pub seconds: f64,
    /// How long the lab stood still to be copied; none when it was graded itself.
    pub paused_seconds: Option<f64>,
}

impl Report {
    pub fn points(&self) -> f64 {
        self.exercises.iter().map(ExerciseReport::points).sum()
    }

    pub fn max(&self) -> f64 {
        self.exercises.iter().map(|exercise| exercise.max).sum()
    }

    pub fn is_full(&self) -> bool {
        self.exercises.iter().all(|exercise| {
            let lost = |check: &CheckResult| check.points < check.max;
            exercise.stopped.is_none() && !exercise.checks.iter().any(lost)
        })
    }

    /// One exercise is one object; several stand in a list below their sum.
    pub fn to_json(&self) -> Value {
        if let ([exercise], None) = (self.exercises.as_slice(), &self.student) {
            let mut json = exercise.to_json();
            json["paused_seconds"] = self.paused_seconds.map(rounded).into();
            return json;
        }
        let exercises: Vec<Value> = self.exercises.iter().map(ExerciseReport::to_json).collect();
        json!({
            "student": self.student,
            "points": self.points(),
            "max": self.max(),
            "seconds": rounded(self.seconds),
            "paused_seconds": self.paused_seconds.map(rounded),
            "exercises": exercises,
        })
    }
}

/// To the millisecond: more is noise.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Points as people write them: 4, 2.5.
pub fn number(points: f64) -> String {
    let text = format!("{points:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::outcome::CheckVerdict;
    use super::*;

    fn check(id: &str, verdict: CheckVerdict) -> CheckResult {
        let failed = verdict == CheckVerdict::Failed;
        CheckResult {
            id: id.into(),
            name: format!("The check <{id}>"),
            points: if verdict == CheckVerdict::Passed {
                2.5
            } else {
                0.0
            },
            max: 2.5,
            verdict,
            hosts: if failed {
                vec!["saisp-vm-2".into()]
            } else {
                vec![]
            },
            expected: "three & three".into(),
            found: "=six \"of one\"\n<b>none</b> of the other".into(),
            see: Some("halab ssh saisp-vm-2 -- ip address".into()),
            causes: if failed {
                vec!["no rule on saisp-vm-2".into()]
            } else {
                vec![]
            },
            hints: vec!["the idea".into(), "the place".into()],
            because: if verdict == CheckVerdict::Skipped {
                vec!["The check <b>".into()]
            } else {
                vec![]
            },
            started_seconds: 1.0,
            seconds: 0.5,
        }
    }

    /// A report with everything that can be in one.
    pub(in crate::grade) fn sample() -> Report {
        let hop = |from: &str, to: &str, checks: &[&str]| Hop {
            from: from.into(),
            to: to.into(),
            label: format!("{from} → {to}"),
            checks: checks.iter().map(|id| (*id).into()).collect(),
        };
        Report {
            student: Some(Student {
                name: "Ana O'Neill, <grupa> 1".into(),
                id: "=cmd|'/C calc'!A0".into(),
            }),
            lab: "default".into(),
            language: "en".into(),
            exercises: vec![ExerciseReport {
                exercise: "01-lvs-dr".into(),
                title: "LVS-DR".into(),
                max: 7.5,
                checks: vec![
                    check("a", CheckVerdict::Passed),
                    check("b", CheckVerdict::Failed),
                    check("c", CheckVerdict::Skipped),
                ],
                path: vec![
                    hop("client", "saisp-vm-1", &["a"]),
                    hop("saisp-vm-1", "saisp-vm-2", &["b"]),
                    hop("saisp-vm-2", "client", &["c"]),
                ],
                seconds: 4.0,
                state: None,
                stopped: None,
            }],
            graded_unix: 1_800_000_000,
            seconds: 5.0,
            paused_seconds: Some(0.4),
        }
    }

    #[test]
    fn the_json_of_one_exercise_has_the_promised_shape() {
        let mut report = sample();
        report.student = None;
        let json = report.to_json();
        assert_eq!(json["exercise"], "01-lvs-dr");
        assert_eq!(
            (json["points"].as_f64(), json["max"].as_f64()),
            (Some(2.5), Some(7.5))
        );
        for key in [
            "id", "name", "points", "max", "passed", "expected", "found", "hint", "seconds",
        ] {
            assert!(json["checks"][1].get(key).is_some(), "{key}");
        }
        assert_eq!(json["checks"][1]["hint"], "the idea");
    }

    #[test]
    fn no_form_leaves_out_that_a_grading_ended_early() {
        let mut report = sample();
        report.exercises[0].stopped = Some("the copy's <machine> went away".into());
        let said = "The grading ended early: the copy's ";
        let csv = crate::grade::csv::render(&[&report]).expect("a table");
        assert!(csv.contains(said), "{csv}");
        let junit = crate::grade::junit::render(&report).expect("a document");
        assert!(
            junit.contains("<system-err>The grading ended early"),
            "{junit}"
        );
        let gradescope = crate::grade::gradescope::render(&report);
        let output = gradescope["output"].as_str().expect("a text");
        assert!(
            output.starts_with("01-lvs-dr: ") && output.contains(said),
            "{output}"
        );
        assert!(!report.is_full());
    }

    #[test]
    fn points_are_written_as_people_do() {
        assert_eq!(number(4.0), "4");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(0.0), "0");
    }
}
