//! `http_check`: what many requests came to, counted and held against what was expected.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::args::Args;
use super::outcome::{Outcome, Refusal};
use super::pattern::Pattern;
use crate::base::diagnostic::nearest;
use crate::base::latency::latency;

/// Results with more requests than this leave the bodies out: they would be most of the result.
const BODIES_MAX: usize = 100;

/// What one request came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    pub number: usize,
    pub ending: Ending,
    pub seconds: f64,
    /// The connection's own port, to find it again in listings and captures.
    pub source_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    Answered {
        status: u16,
        body: String,
    },
    /// Nobody listens, or the director turned it away.
    Refused,
    TimedOut,
    /// Anything else, in words.
    Failed(String),
}

/// What has to be seen.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    status: Option<u16>,
    body: Option<Pattern>,
    distribution: Option<BTreeMap<String, u64>>,
    servers: Option<u64>,
    refused: u64,
    timeouts: u64,
}

impl Expectation {
    /// Reads `expect`. What it does not name must not happen: no request is refused,
    /// times out or fails, and every answer is a 200.
    pub fn from_args(args: Args<'_>) -> Result<Self, Refusal> {
        const KNOWN: [&str; 6] = [
            "status",
            "body",
            "distribution",
            "servers",
            "refused",
            "timeouts",
        ];
        let empty = Map::new();
        let expect = args.dict("expect").unwrap_or(&empty);
        if let Some(unknown) = expect.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            let hint = nearest(unknown, KNOWN).map(|name| format!("; did you mean `{name}`?"));
            return Err(Refusal::new(format!(
                "`expect` has no `{unknown}`, only {}{}",
                KNOWN.join(", "),
                hint.unwrap_or_default()
            )));
        }
        let count = |name: &str| match expect.get(name) {
            None => Ok(None),
            Some(value) => whole(value)
                .map(Some)
                .ok_or_else(|| Refusal::new(format!("`expect.{name}` must be a whole number"))),
        };
        let status = count("status")?.map(u16::try_from).transpose();
        let body = expect.get("body").and_then(Value::as_str).map(Pattern::new);
        Ok(Self {
            status: status.map_err(|_| Refusal::new("`expect.status` is not a status"))?,
            body: body.transpose()?,
            distribution: expect.get("distribution").map(distribution).transpose()?,
            servers: count("servers")?,
            refused: count("refused")?.unwrap_or(0),
            timeouts: count("timeouts")?.unwrap_or(0),
        })
    }
}

fn whole(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

fn distribution(value: &Value) -> Result<BTreeMap<String, u64>, Refusal> {
    let wrong = || {
        Refusal::new("`expect.distribution` must give a number of answers for each server's name")
    };
    let map = value.as_object().ok_or_else(wrong)?;
    let counts = map
        .iter()
        .map(|(name, count)| Some((name.clone(), whole(count)?)));
    counts.collect::<Option<_>>().ok_or_else(wrong)
}

/// Returns who answered: what `identify` finds in the body, else the body's first line.
pub fn identity(body: &str, identify: Option<&Pattern>) -> String {
    let found = match identify {
        Some(pattern) => pattern.extract(body),
        None => body.lines().map(str::trim).find(|line| !line.is_empty()),
    };
    found.unwrap_or("unidentified").to_owned()
}

/// Returns the result: every request, the counts, and what is not as expected.
pub fn outcome(tries: &[Try], identify: Option<&Pattern>, expectation: &Expectation) -> Outcome {
    let mut counts = Counts::default();
    let mut responses: Vec<Value> = tries
        .iter()
        .map(|attempt| counts.take(attempt, identify))
        .collect();
    if responses.len() > BODIES_MAX {
        let fields = responses.iter_mut().filter_map(Value::as_object_mut);
        fields.for_each(|fields| drop(fields.shift_remove("body")));
    }
    let problems = expectation.problems(tries, &counts);
    let msg = if problems.is_empty() {
        counts.summary()
    } else {
        problems.join("; ")
    };
    Outcome::changed(false)
        .failed_if(!problems.is_empty())
        .msg(msg)
        .with("responses", responses)
        .with("distribution", json!(counts.by_server))
        .with("answered", counts.by_server.values().sum::<u64>())
        .with("refused", counts.refused)
        .with("timeouts", counts.timeouts)
        .with("errors", counts.errors)
        .with("latency", json!(latency(&counts.seconds)))
}

#[derive(Debug, Default)]
struct Counts {
    by_server: BTreeMap<String, u64>,
    refused: u64,
    timeouts: u64,
    errors: Vec<String>,
    /// Of the answered ones.
    seconds: Vec<f64>,
}

impl Counts {
    /// Counts one request; returns how the result shows it.
    fn take(&mut self, attempt: &Try, identify: Option<&Pattern>) -> Value {
        let mut shown = json!({
            "number": attempt.number,
            "seconds": attempt.seconds,
            "source_port": attempt.source_port,
        });
        let id = match &attempt.ending {
            Ending::Answered { status, body } => {
                let id = identity(body, identify);
                *self.by_server.entry(id.clone()).or_default() += 1;
                self.seconds.push(attempt.seconds);
                shown["status"] = (*status).into();
                shown["body"] = body.as_str().into();
                shown["first_line"] = body.lines().next().unwrap_or_default().into();
                id
            }
            Ending::Refused => {
                self.refused += 1;
                "refused".to_owned()
            }
            Ending::TimedOut => {
                self.timeouts += 1;
                "timeout".to_owned()
            }
            Ending::Failed(why) => {
                self.errors.push(why.clone());
                shown["error"] = why.as_str().into();
                "error".to_owned()
            }
        };
        shown["id"] = id.into();
        shown
    }

    fn summary(&self) -> String {
        let mut parts: Vec<String> = self
            .by_server
            .iter()
            .map(|(server, count)| format!("{count} from {server}"))
            .collect();
        let others = [(self.refused, "refused"), (self.timeouts, "timed out")];
        let others = others.into_iter().filter(|(count, _)| *count > 0);
        parts.extend(others.map(|(count, what)| format!("{count} {what}")));
        let milliseconds = |seconds: f64| format!("{:.1} ms", seconds * 1000.0);
        let times = latency(&self.seconds).filter(|_| self.seconds.len() > 1);
        let times = times.map_or_else(String::new, |times| {
            format!(
                "; answered after {} (median), {} to {}, 99 % within {}",
                milliseconds(times.median),
                milliseconds(times.min),
                milliseconds(times.max),
                milliseconds(times.p99)
            )
        });
        parts.join(", ") + &times
    }
}

impl Expectation {
    fn problems(&self, tries: &[Try], counts: &Counts) -> Vec<String> {
        let mut problems = Vec::new();
        let mut compare = |what: &str, expected: u64, found: u64| {
            if expected != found {
                problems.push(format!("expected {expected} {what}, found {found}"));
            }
        };
        compare("refused", self.refused, counts.refused);
        compare("timeouts", self.timeouts, counts.timeouts);
        if let Some(expected) = self.servers {
            compare("different servers", expected, counts.by_server.len() as u64);
        }
        if let Some(expected) = &self.distribution {
            for (server, count) in expected {
                let found = counts.by_server.get(server).copied().unwrap_or(0);
                compare(&format!("from {server}"), *count, found);
            }
            let strangers = counts
                .by_server
                .iter()
                .filter(|(name, _)| !expected.contains_key(*name));
            for (server, count) in strangers {
                compare(&format!("from {server}"), 0, *count);
            }
        }
        let mut errors = counts.errors.clone();
        errors.dedup();
        problems.extend(errors);
        for attempt in tries {
            problems.extend(self.answer_problem(attempt));
        }
        problems
    }

    fn answer_problem(&self, attempt: &Try) -> Option<String> {
        let Ending::Answered { status, body } = &attempt.ending else {
            return None;
        };
        let number = attempt.number;
        let expected = self.status.unwrap_or(200);
        if *status != expected {
            return Some(format!(
                "answer {number}: expected status {expected}, found {status}"
            ));
        }
        let pattern = self.body.as_ref()?;
        (!pattern.is_in(body)).then(|| format!("answer {number}: the body is not as expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(number: usize, body: &str) -> Try {
        let ending = Ending::Answered {
            status: 200,
            body: body.to_owned(),
        };
        Try {
            number,
            ending,
            seconds: 0.1,
            source_port: Some(4000),
        }
    }

    fn refused(number: usize) -> Try {
        Try {
            ending: Ending::Refused,
            ..answered(number, "")
        }
    }

    fn checked(expect: &Value, tries: &[Try]) -> Outcome {
        let map = json!({"expect": expect});
        let args = Args(map.as_object().expect("a mapping"));
        let expectation = Expectation::from_args(args).expect("valid");
        let identify = Pattern::new(r"vm-\d").expect("valid");
        outcome(tries, Some(&identify), &expectation)
    }

    #[test]
    fn answers_are_counted_by_server() {
        let tries = [answered(1, "<p>vm-2"), answered(2, "<p>vm-3"), refused(3)];
        let found = checked(
            &json!({"distribution": {"vm-2": 1, "vm-3": 1}, "refused": 1}),
            &tries,
        );
        assert!(!found.failed, "{:?}", found.msg);
        assert_eq!(
            found.msg.as_deref(),
            Some(
                "1 from vm-2, 1 from vm-3, 1 refused; answered after 100.0 ms (median), 100.0 ms to 100.0 ms, 99 % within 100.0 ms"
            )
        );
        assert_eq!(found.values["responses"][2]["id"], "refused");
    }

    #[test]
    fn what_is_not_as_expected_is_said_with_numbers() {
        let tries = [answered(1, "vm-2"), answered(2, "vm-2"), refused(3)];
        let found = checked(&json!({"distribution": {"vm-3": 2}}), &tries);
        assert!(found.failed);
        assert_eq!(
            found.msg.as_deref(),
            Some(
                "expected 0 refused, found 1; expected 2 from vm-3, found 0; expected 0 from vm-2, found 2"
            )
        );
    }

    #[test]
    fn many_answers_are_counted_without_their_bodies() {
        let tries: Vec<Try> = (1..=101).map(|number| answered(number, "vm-2")).collect();
        let found = checked(
            &json!({"servers": 1, "distribution": {"vm-2": 101}}),
            &tries,
        );
        assert!(!found.failed, "{:?}", found.msg);
        assert!(found.values["responses"][0].get("body").is_none());
        assert_eq!(found.values["responses"][0]["id"], "vm-2");
        assert_eq!(found.values["latency"]["median"], 0.1);
        let found = checked(&json!({"servers": 2}), &tries);
        assert_eq!(
            found.msg.as_deref(),
            Some("expected 2 different servers, found 1")
        );
    }

    #[test]
    fn an_unknown_expectation_is_refused() {
        let map = json!({"expect": {"refusd": 1}});
        let error = Expectation::from_args(Args(map.as_object().expect("a mapping")));
        assert!(
            error
                .expect_err("refused")
                .msg
                .ends_with("did you mean `refused`?")
        );
    }

    #[test]
    fn without_a_pattern_the_first_line_tells_servers_apart() {
        assert_eq!(identity("\n one \ntwo", None), "one");
        assert_eq!(identity("", None), "unidentified");
    }
}
