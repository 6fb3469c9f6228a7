//! One event a line as JSON, for programs that read along.

use std::fmt;
use std::io::Write;

use serde_json::{Map, Value, json};

use super::reporter::Reporter;
use crate::base::diagnostic::{Diagnostic, Origin, Severity};
use crate::run::event::{Event, HostLabel, HostResult, Outcome, Part, TaskKind};
use crate::run::recap::{ExerciseEnd, Summary};

/// Writes each event as one line.
pub struct JsonLines<Out> {
    out: Out,
}

impl<Out: Write> JsonLines<Out> {
    pub fn new(out: Out) -> Self {
        Self { out }
    }
}

impl<Out> fmt::Debug for JsonLines<Out> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JsonLines").finish_non_exhaustive()
    }
}

impl<Out: Write + Send> Reporter for JsonLines<Out> {
    fn report(&mut self, event: &Event) {
        let line = format!("{}\n", to_json(event));
        // A reader that went away does not end the run half way.
        let _ = self
            .out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.flush());
    }
}

/// Returns the object that stands for an event; `event` names its kind.
pub fn to_json(event: &Event) -> Value {
    match event {
        Event::ExerciseStarted(exercise) => json!({
            "event": "exercise",
            "name": exercise.name,
            "title": exercise.title,
            "choices": exercise.choices,
            "part": match exercise.part {
                Part::Asked => "asked",
                Part::SetUp => "setup",
                Part::Undo => "teardown",
            },
        }),
        Event::Summary(summary) => summary_json(summary),
        Event::PlayStarted { name } => json!({"event": "play", "name": name}),
        Event::CheckDone(check) => json!({"event": "check", "check": check}),
        Event::TaskStarted(task) => json!({
            "event": "task",
            "task": task.id.0,
            "kind": match task.kind {
                TaskKind::Task => "task",
                TaskKind::Handler => "handler",
            },
            "name": task.name,
            "place": task.place,
            "hosts": task.hosts,
            "tags": task.tags,
        }),
        Event::ItemDone {
            task,
            result,
            label,
        } => {
            let mut line = host_result("item", task.0, result);
            line.insert("item".to_owned(), label.clone());
            Value::Object(line)
        }
        Event::HostDone { task, result } => Value::Object(host_result("host", task.0, result)),
        Event::Retrying {
            id,
            host,
            task,
            retries_left,
            said,
        } => {
            let HostLabel { host, delegate } = host;
            json!({"event": "retry", "task": id.0, "host": host, "delegate": delegate, "name": task, "retries_left": retries_left, "said": said})
        }
        Event::Included { file, hosts, label } => {
            json!({"event": "include", "file": file, "hosts": hosts, "item": label})
        }
        Event::NoHostsLeft => json!({"event": "no_hosts_left"}),
        Event::Problem(problem) => problem_json(problem),
        Event::Warning(text) => json!({"event": "problem", "severity": "warning", "message": text}),
        Event::Interrupted => json!({"event": "interrupted"}),
        Event::Finished(recap) => {
            json!({"event": "recap", "hosts": recap.0, "failed": recap.has_failures()})
        }
    }
}

fn summary_json(summary: &Summary) -> Value {
    let lines: Vec<Value> = summary
        .lines
        .iter()
        .map(|line| {
            let (word, why) = match &line.end {
                ExerciseEnd::Done => ("done", None),
                ExerciseEnd::Failed => ("failed", None),
                ExerciseEnd::NotRun(why) => ("not_run", Some(why)),
            };
            json!({
                "exercise": line.exercise,
                "choices": line.choices,
                "end": word,
                "why": why,
                "counts": line.counts,
                "prepared_seconds": line.prepared.as_secs_f64(),
                "seconds": line.took.as_secs_f64(),
            })
        })
        .collect();
    json!({
        "event": "summary",
        "exercises": lines,
        "seconds": summary.took.as_secs_f64(),
        "failed": summary.has_failures(),
    })
}

fn host_result(event: &str, task: u64, result: &HostResult) -> Map<String, Value> {
    let outcome = match result.outcome {
        Outcome::Ok => "ok",
        Outcome::Changed => "changed",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
        Outcome::Unreachable => "unreachable",
    };
    let line = json!({
        "event": event,
        "task": task,
        "host": result.host.host,
        "delegate": result.host.delegate,
        "outcome": outcome,
        "ignored": result.ignored,
        "result": *result.result,
    });
    match line {
        Value::Object(line) => line,
        _ => unreachable!("an object was written above"),
    }
}

/// A problem with its place in numbers, for editors.
pub fn problem_json(problem: &Diagnostic) -> Value {
    json!({
        "event": "problem",
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": problem.message,
        "file": problem.origin.as_ref().map(|origin| origin.source.name.as_str()),
        "line": problem.origin.as_ref().map(Origin::line),
        "column": problem.origin.as_ref().map(Origin::column),
        "help": problem.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;

    #[test]
    fn an_event_is_one_line() {
        let mut out = Vec::new();
        let mut reporter = JsonLines::new(&mut out);
        let name = "two\nlines".to_owned();
        reporter.report(&Event::PlayStarted { name });
        assert_eq!(out, b"{\"event\":\"play\",\"name\":\"two\\nlines\"}\n");
    }

    #[test]
    fn a_problem_says_where_in_numbers() {
        let source = Source::new("a.yml", "x:\n  y");
        let problem = Diagnostic::error("no").at(&Origin::new(&source, 5, 6));
        let line = to_json(&Event::Problem(problem));
        assert_eq!((&line["line"], &line["column"]), (&json!(2), &json!(3)));
    }
}
