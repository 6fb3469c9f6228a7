//! `packet_check`: what was on the wire, held against what was expected there.
//!
//! ```yaml
//! - packet_check:
//!     interface: br0               # of the host that runs it; the client sees what the switch passes
//!     request: {url: "http://10.0.0.1/", count: 4}   # made while it watches; http_check's arguments but `expect`
//!     arp: 10.0.0.1                # asks who has it, while it watches
//!     seconds: 5                   # without either: how long it watches
//!     expect:
//!       method: tun                # of every connection: nat, tun, dr, direct
//!       encapsulation: ipip        # none, ipip, gre, gue
//!       replies: past              # the director; or: through, direct
//!       director: saisp-vm-1
//!       servers: [saisp-vm-2, saisp-vm-3]     # these answered, all of them and nobody else
//!       connections: 4             # that were answered; without it: at least one, where a way is expected
//!       refused: 0                 # what is not named must not happen
//!       unanswered: 0
//!       retransmissions: 0         # at most; without it: any number
//!       problem: a regular expression that one of the problems found must match
//!       arp: {10.0.0.1: [saisp-vm-1]}         # who answered, all of them and nobody else
//!   delegate_to: client
//!   register: wire                 # wire.explanation: lines to show; wire.requests, wire.arp, wire.summary: data
//! ```
//!
//! With `request` only connections to its URL's service count, else every one that was seen but SSH.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::args::Args;
use super::outcome::{Outcome, Refusal};
use super::pattern::Pattern;
use crate::base::diagnostic::nearest;
use crate::capture::path::{Ending, Explained, Method, Replies};
use crate::capture::summary::Summary;

/// Connections that the result holds whole.
const REQUESTS_MAX: usize = 50;

/// What has to be seen.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    method: Option<String>,
    encapsulation: Option<String>,
    replies: Option<String>,
    director: Option<String>,
    servers: Option<BTreeSet<String>>,
    connections: Option<u64>,
    refused: u64,
    unanswered: u64,
    retransmissions: Option<u64>,
    problem: Option<Pattern>,
    arp: BTreeMap<String, BTreeSet<String>>,
}

/// A word of `expect` and the values it may have; none: any.
const KNOWN: &[(&str, &[&str])] = &[
    ("method", &["nat", "tun", "dr", "direct"]),
    ("encapsulation", &["none", "ipip", "gre", "gue"]),
    ("replies", &["past", "through", "direct"]),
    ("director", &[]),
    ("servers", &[]),
    ("connections", &[]),
    ("refused", &[]),
    ("unanswered", &[]),
    ("retransmissions", &[]),
    ("problem", &[]),
    ("arp", &[]),
];

impl Expectation {
    pub fn from_args(args: Args<'_>) -> Result<Self, Refusal> {
        let empty = Map::new();
        let expect = args.dict("expect").unwrap_or(&empty);
        let names = || KNOWN.iter().map(|(name, _)| *name);
        if let Some(unknown) = expect.keys().find(|key| !names().any(|name| name == *key)) {
            let hint = nearest(unknown, names()).map(|name| format!("; did you mean `{name}`?"));
            return Err(Refusal::new(format!(
                "`expect` has no `{unknown}`, only {}{}",
                names().collect::<Vec<_>>().join(", "),
                hint.unwrap_or_default()
            )));
        }
        let count = |name: &str| match expect.get(name) {
            None => Ok(None),
            Some(value) => whole(value)
                .map(Some)
                .ok_or_else(|| Refusal::new(format!("`expect.{name}` must be a whole number"))),
        };
        let mut arp = BTreeMap::new();
        if let Some(value) = expect.get("arp") {
            let map = value.as_object().ok_or_else(|| {
                Refusal::new("`expect.arp` must give the names that answer for each address")
            })?;
            for (address, stations) in map {
                arp.insert(address.clone(), names_of(stations, "expect.arp")?);
            }
        }
        Ok(Self {
            method: word(expect, "method")?,
            encapsulation: word(expect, "encapsulation")?,
            replies: word(expect, "replies")?,
            director: word(expect, "director")?,
            servers: expect
                .get("servers")
                .map(|value| names_of(value, "expect.servers"))
                .transpose()?,
            connections: count("connections")?,
            refused: count("refused")?.unwrap_or(0),
            unanswered: count("unanswered")?.unwrap_or(0),
            retransmissions: count("retransmissions")?,
            problem: expect
                .get("problem")
                .and_then(Value::as_str)
                .map(Pattern::new)
                .transpose()?,
            arp,
        })
    }

    /// Whether anything is expected of connections that came about.
    fn is_about_ways(&self) -> bool {
        self.method.is_some()
            || self.encapsulation.is_some()
            || self.replies.is_some()
            || self.director.is_some()
            || self.servers.is_some()
    }
}

fn whole(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

fn word(expect: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    let Some(value) = expect.get(name) else {
        return Ok(None);
    };
    let choices = KNOWN
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(&[][..], |(_, choices)| choices);
    let text = value.as_str().unwrap_or_default().to_lowercase();
    if choices.is_empty() && !text.is_empty() {
        return Ok(value.as_str().map(str::to_owned));
    }
    if choices.contains(&text.as_str()) {
        return Ok(Some(text));
    }
    let expected = if choices.is_empty() {
        "a name".to_owned()
    } else {
        choices.join(", ")
    };
    Err(Refusal::new(format!(
        "`expect.{name}` must be {expected}; found {value}"
    )))
}

fn names_of(value: &Value, what: &str) -> Result<BTreeSet<String>, Refusal> {
    let wrong = || Refusal::new(format!("`{what}` must be a list of names"));
    match value {
        Value::String(one) => Ok(one.split(',').map(|name| name.trim().to_owned()).collect()),
        Value::Array(several) => several
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The connections that count.
    pub requests: Vec<Explained>,
    pub summary: Summary,
    /// The same in lines.
    pub explanation: Vec<String>,
}

/// Returns the result: what was seen, and what is not as expected.
pub fn outcome(seen: &Seen, expectation: &Expectation) -> Outcome {
    let problems = expectation.problems(seen);
    let msg = if problems.is_empty() {
        said(seen)
    } else {
        problems.join("; ")
    };
    let requests: Vec<Value> = seen
        .requests
        .iter()
        .take(REQUESTS_MAX)
        .map(|request| json!(request))
        .collect();
    Outcome::changed(false)
        .failed_if(!problems.is_empty())
        .msg(msg)
        .with("requests", requests)
        .with("arp", json!(answered(&seen.summary)))
        .with("explanation", seen.explanation.clone())
        .with("summary", json!(seen.summary))
}

/// Who answered for which address.
fn answered(summary: &Summary) -> BTreeMap<String, Vec<String>> {
    summary
        .arp
        .iter()
        .map(|owners| {
            let stations = owners.stations.iter();
            let names = stations.map(|owner| owner.station.clone()).collect();
            (owners.address.clone(), names)
        })
        .collect()
}

/// One sentence about what was seen.
fn said(seen: &Seen) -> String {
    let mut parts: Vec<String> = seen
        .requests
        .iter()
        .filter(|request| request.replies != Replies::None)
        .map(|request| format!("{}: {}", request.service, request.proof))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if parts.is_empty() {
        parts = answered(&seen.summary)
            .into_iter()
            .map(|(address, names)| format!("{address} is answered for by {}", names.join(", ")))
            .collect();
    }
    if parts.is_empty() {
        parts.push(format!("{} frames", seen.summary.frames));
    }
    parts.join("; ")
}

impl Expectation {
    fn problems(&self, seen: &Seen) -> Vec<String> {
        let mut problems = Vec::new();
        let answered: Vec<&Explained> = seen
            .requests
            .iter()
            .filter(|request| request.replies != Replies::None || request.method == Method::Direct)
            .filter(|request| !matches!(request.ending, Ending::Refused { .. }))
            .collect();
        let found = answered.len() as u64;
        match self.connections {
            Some(expected) if expected != found => problems.push(format!(
                "expected {expected} answered connections, found {found}"
            )),
            None if self.is_about_ways() && answered.is_empty() => {
                problems.push("expected at least one answered connection, found none".to_owned());
            }
            _ => {}
        }
        self.way_problems(&answered, &mut problems);
        self.count_problems(seen, &mut problems);
        for (address, expected) in &self.arp {
            let owners = seen.summary.arp.iter().find(|own| own.address == *address);
            let found: BTreeSet<String> = owners
                .into_iter()
                .flat_map(|own| own.stations.iter().map(|owner| owner.station.clone()))
                .collect();
            if found != *expected {
                problems.push(format!(
                    "expected {} to answer ARP for {address}, found {}",
                    listed(expected),
                    listed(&found)
                ));
            }
        }
        if let Some(pattern) = &self.problem {
            let found: BTreeSet<String> = seen
                .requests
                .iter()
                .flat_map(|request| request.problems.iter().cloned())
                .collect();
            if !found.iter().any(|problem| pattern.is_in(problem)) {
                problems.push(format!(
                    "expected a problem of the given kind, found {}",
                    listed(&found)
                ));
            }
        } else if !problems.is_empty() {
            // Why it is not as expected, where the packets say so.
            let found: BTreeSet<&String> = seen
                .requests
                .iter()
                .flat_map(|request| &request.problems)
                .collect();
            problems.extend(found.into_iter().cloned());
        }
        problems
    }

    /// Compares each way; the same difference is said once, with how often and by what it was found.
    fn way_problems(&self, answered: &[&Explained], problems: &mut Vec<String>) {
        let mut differences: BTreeMap<String, (u64, &Explained)> = BTreeMap::new();
        for request in answered {
            let method = request.method.word().to_lowercase();
            let encapsulation = request
                .encapsulation
                .map_or_else(|| "none".to_owned(), |kind| kind.word().to_lowercase());
            let replies = match request.replies {
                Replies::Past => "past",
                Replies::Through => "through",
                Replies::Direct => "direct",
                Replies::None => "none",
            };
            let director = request.director.as_deref().unwrap_or("nobody");
            let checks = [
                ("method", &self.method, method.as_str()),
                ("encapsulation", &self.encapsulation, encapsulation.as_str()),
                ("replies", &self.replies, replies),
                ("director", &self.director, director),
            ];
            for (what, expected, found) in checks {
                if let Some(expected) = expected
                    && expected != found
                {
                    let text = format!("expected {what} {expected}, found {found}");
                    differences.entry(text).or_insert((0, *request)).0 += 1;
                }
            }
        }
        let total = answered.len();
        for (text, (times, example)) in differences {
            problems.push(format!(
                "{text} in {times} of {total} connections: {}",
                example.proof
            ));
        }
        if let Some(expected) = &self.servers {
            let found: BTreeSet<String> = answered
                .iter()
                .filter_map(|request| request.server.clone())
                .collect();
            if found != *expected {
                problems.push(format!(
                    "expected answers from {}, found them from {}",
                    listed(expected),
                    listed(&found)
                ));
            }
        }
    }

    fn count_problems(&self, seen: &Seen, problems: &mut Vec<String>) {
        let count = |is: fn(&Ending) -> bool| {
            let those = seen.requests.iter().filter(|request| is(&request.ending));
            those.count() as u64
        };
        let refused = count(|ending| matches!(ending, Ending::Refused { .. }));
        let unanswered = count(|ending| matches!(ending, Ending::Unanswered { .. }));
        for (expected, found, what) in [
            (self.refused, refused, "refused connections"),
            (self.unanswered, unanswered, "connections without an answer"),
        ] {
            if expected != found {
                problems.push(format!("expected {expected} {what}, found {found}"));
            }
        }
        let again: u64 = seen
            .requests
            .iter()
            .map(|request| request.retransmissions)
            .sum();
        if let Some(most) = self.retransmissions.filter(|most| again > *most) {
            problems.push(format!(
                "expected at most {most} segments sent again, found {again}"
            ));
        }
        if seen.summary.dropped > 0 && !problems.is_empty() {
            problems.push(format!(
                "the kernel had no room for {} frames: more may have passed than was seen",
                seen.summary.dropped
            ));
        }
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "nobody".to_owned();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::scene;

    fn judged(expect: &Value, frames: &[Vec<u8>]) -> Outcome {
        let (requests, _, summary) = scene::explained(frames);
        let seen = Seen {
            requests,
            summary,
            explanation: Vec::new(),
        };
        let map = json!({"expect": expect});
        let args = Args(map.as_object().expect("a mapping"));
        outcome(&seen, &Expectation::from_args(args).expect("valid"))
    }

    #[test]
    fn a_way_as_expected_is_told() {
        let expect = json!({
            "method": "TUN", "encapsulation": "ipip", "replies": "past", "director": "director",
            "servers": ["server"], "connections": 1, "retransmissions": 0,
        });
        let found = judged(&expect, &scene::tunnelled());
        assert!(!found.failed, "{:?}", found.msg);
        assert_eq!(
            found.msg.as_deref(),
            Some(
                "10.0.0.1:80: director put the request into IPIP 10.0.0.10 → 10.0.0.20; server answered the client itself, past the director"
            )
        );
        assert_eq!(found.values["requests"][0]["hops"][1]["frame"], 2);
    }

    #[test]
    fn another_way_is_told_with_what_proves_it() {
        let expect = json!({"method": "nat", "replies": "through", "servers": "server,other"});
        let found = judged(&expect, &scene::tunnelled());
        let msg = found.msg.expect("a message");
        assert!(found.failed);
        assert!(
            msg.starts_with(
                "expected method nat, found tun in 1 of 1 connections: director put the request into IPIP 10.0.0.10 → 10.0.0.20"
            ),
            "{msg}"
        );
        assert!(
            msg.contains("expected replies through, found past"),
            "{msg}"
        );
        assert!(msg.ends_with("expected answers from other and server, found them from server"));
    }

    #[test]
    fn nothing_on_the_wire_proves_nothing() {
        let found = judged(&json!({"method": "dr"}), &[]);
        assert_eq!(
            found.msg.as_deref(),
            Some("expected at least one answered connection, found none")
        );
    }

    #[test]
    fn who_answers_arp_is_compared_as_a_whole() {
        let frames = [
            scene::arp_question(scene::CLIENT, scene::VIP),
            scene::arp_answer(scene::DIRECTOR, scene::CLIENT, scene::VIP),
            scene::arp_answer(scene::SERVER, scene::CLIENT, scene::VIP),
        ];
        let found = judged(&json!({"arp": {"10.0.0.1": ["director"]}}), &frames);
        assert_eq!(
            found.msg.as_deref(),
            Some("expected director to answer ARP for 10.0.0.1, found director and server")
        );
        let both = json!({"arp": {"10.0.0.1": ["server", "director"]}});
        assert!(!judged(&both, &frames).failed);
    }

    #[test]
    fn a_wrong_word_is_refused_with_the_right_ones() {
        let refused = |expect: Value| {
            let map = json!({"expect": expect});
            let args = Args(map.as_object().expect("a mapping"));
            Expectation::from_args(args).expect_err("refused").msg
        };
        assert!(refused(json!({"metod": "dr"})).ends_with("did you mean `method`?"));
        assert_eq!(
            refused(json!({"method": "drr"})),
            "`expect.method` must be nat, tun, dr, direct; found \"drr\""
        );
    }
}
