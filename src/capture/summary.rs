//! A capture summed up: who served how many, which way, how fast; who had which address; what else passed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::frame::{Mac, Tunnel};
use super::path::{Ending, Explained, Method, Replies};
use crate::base::latency::{Latency, latency};

/// Latencies kept for the summary.
const LATENCIES_MAX: usize = 100_000;
/// Different ways and problems that are told apart.
const KINDS_MAX: usize = 512;

/// Everything that was seen, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub frames: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Frames the kernel had no room for: the capture is not whole.
    pub dropped: u64,
    pub connections: u64,
    pub ways: Vec<WayCount>,
    pub refused: u64,
    pub unanswered: u64,
    pub reset: u64,
    pub retransmissions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    pub arp: Vec<Owners>,
    pub others: Vec<Other>,
    pub problems: Vec<(String, u64)>,
}

/// How many connections took one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WayCount {
    pub service: String,
    pub client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub director: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    pub method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Tunnel>,
    pub replies: Replies,
    pub connections: u64,
    pub proof: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Owners {
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub stations: Vec<Owner>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Owner {
    pub station: String,
    pub mac: Mac,
    pub answers: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Other {
    pub what: String,
    pub from: String,
    pub to: String,
    pub frames: u64,
    pub bytes: u64,
}

/// What the summary counts, connection by connection.
#[derive(Debug, Default)]
pub struct Counts {
    pub connections: u64,
    pub ways: Vec<WayCount>,
    pub refused: u64,
    pub unanswered: u64,
    pub reset: u64,
    pub retransmissions: u64,
    latencies: Vec<f64>,
    pub problems: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts a connection that is over.
    pub fn take(&mut self, explained: &Explained) {
        self.connections += 1;
        self.retransmissions += explained.retransmissions;
        match &explained.ending {
            Ending::Refused { .. } => self.refused += 1,
            Ending::Unanswered { .. } => self.unanswered += 1,
            Ending::Reset { .. } => self.reset += 1,
            Ending::Open | Ending::Closed => {}
        }
        if let Some(seconds) = explained.answered_after_seconds
            && self.latencies.len() < LATENCIES_MAX
        {
            self.latencies.push(seconds);
        }
        for problem in &explained.problems {
            if self.problems.len() < KINDS_MAX || self.problems.contains_key(problem) {
                *self.problems.entry(problem.clone()).or_default() += 1;
            }
        }
        if explained.replies == Replies::None {
            return;
        }
        let has_room = self.ways.len() < KINDS_MAX;
        let same = self.ways.iter_mut().find(|way| {
            way.service == explained.service
                && way.client == explained.client
                && way.director == explained.director
                && way.server == explained.server
                && way.method == explained.method
                && way.encapsulation == explained.encapsulation
                && way.replies == explained.replies
        });
        match same {
            Some(way) => way.connections += 1,
            None if has_room => self.ways.push(WayCount {
                service: explained.service.clone(),
                client: explained.client.clone(),
                director: explained.director.clone(),
                server: explained.server.clone(),
                method: explained.method,
                encapsulation: explained.encapsulation,
                replies: explained.replies,
                connections: 1,
                proof: explained.proof.clone(),
            }),
            None => {}
        }
    }

    pub fn latency(&self) -> Option<Latency> {
        latency(&self.latencies)
    }
}
