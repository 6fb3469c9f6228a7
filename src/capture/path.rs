//! What a conversation's legs prove: the way of a request, hop by hop, and the forwarding method.
//!
//! ```text
//!           client ──1──► director ──2──► real server
//!              ▲             │ ▲               │
//!              │             │ └──── NAT 3 ────┤
//!              ├──── NAT 4 ──┘                 │
//!              └──────────── DR, TUN 3 ────────┘
//! ```
//!
//! | from 1 to 2 the director changed | method |
//! |---|---|
//! | the stations, and the TTL | DR |
//! | the stations; the packet is inside another | TUN |
//! | the destination's address or port | NAT |

use std::time::Duration;

use serde::Serialize;

use super::conversation::{Conversation, Direction, Leg, Protocol, Refusal};
use super::frame::{Mac, Tunnel, Wrapping};
use super::names::Names;

/// An interface that is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub description: String,
    /// The station at the cable's end, where the interface is one station's cable.
    pub station: Option<Mac>,
}

/// How a director hands requests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Nat,
    Tun,
    Dr,
    /// No director: the station that was asked answered.
    Direct,
    /// Too little was seen.
    Unknown,
}

impl Method {
    pub fn word(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::Tun => "TUN",
            Self::Dr => "DR",
            Self::Direct => "direct",
            Self::Unknown => "unknown",
        }
    }
}

/// Which way the answers took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Replies {
    /// From the real server to the client, past the director.
    Past,
    /// Back through the director.
    Through,
    /// There is no director.
    Direct,
    None,
}

impl Replies {
    pub fn word(self) -> &'static str {
        match self {
            Self::Past => "past the director",
            Self::Through => "through the director",
            Self::Direct => "direct",
            Self::None => "none",
        }
    }
}

/// How a connection went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "how")]
pub enum Ending {
    Open,
    Closed,
    Reset {
        by: String,
        frame: u64,
    },
    Refused {
        by: String,
        frame: u64,
        reason: String,
    },
    Unanswered {
        tries: u64,
        last_seen_at: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hop {
    pub reply: bool,
    pub from: String,
    pub to: String,
    pub from_mac: Mac,
    pub to_mac: Mac,
    pub source: String,
    pub destination: String,
    pub ttl: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Wrapping>,
    /// What became of the packet at the hop before.
    pub changes: Vec<String>,
    /// The first frame, as Wireshark numbers it.
    pub frame: u64,
    pub frames: u64,
    pub retransmissions: u64,
    /// The interfaces it was seen on.
    pub seen_on: Vec<String>,
}

/// One request, or one connection, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    pub number: u64,
    pub protocol: &'static str,
    pub client: String,
    pub client_address: String,
    /// What the client asked: the virtual service, where there is a director.
    pub service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub director: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    pub method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Tunnel>,
    pub replies: Replies,
    /// What the way proves, in words.
    pub proof: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// Requests over this connection.
    pub requests: u64,
    /// When it began, from the capture's beginning.
    pub at_seconds: f64,
    /// From the first packet to the answer's first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_after_seconds: Option<f64>,
    pub ending: Ending,
    pub retransmissions: u64,
    pub hops: Vec<Hop>,
    /// What is not as it should be.
    pub problems: Vec<String>,
}

/// Explains a conversation; `origin` is when the capture began.
pub fn explain(
    conversation: &Conversation,
    names: &Names,
    interfaces: &[Interface],
    origin: Duration,
) -> Option<Explained> {
    let first = conversation.legs.first()?;
    let way = Way::new(conversation);
    let hops = hops(conversation, names, interfaces);
    let exchange = conversation.exchanges.first();
    let service = way
        .requests
        .first()
        .map_or(first.source, |leg| leg.destination);
    let answered_at = exchange.map_or_else(
        || way.replies.first().map(|leg| leg.first_at),
        |exchange| exchange.answered_at,
    );
    Some(Explained {
        number: conversation.number,
        protocol: match conversation.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        },
        client: names
            .host(conversation.client.ip())
            .map_or_else(|| conversation.client.ip().to_string(), str::to_owned),
        client_address: conversation.client.to_string(),
        service: service.to_string(),
        director: way.director.map(|mac| names.station(mac)),
        server: way.server.map(|mac| names.station(mac)),
        method: way.method,
        encapsulation: way.wrapping().map(|wrapping| wrapping.kind),
        replies: way.answers,
        proof: way.proof(names),
        request: exchange.map(|exchange| exchange.request.clone()),
        response: exchange.and_then(|exchange| exchange.response.clone()),
        requests: conversation.exchanges.len() as u64 + conversation.more_exchanges,
        at_seconds: conversation.began.saturating_sub(origin).as_secs_f64(),
        answered_after_seconds: answered_at
            .map(|at| at.saturating_sub(conversation.began).as_secs_f64()),
        ending: ending(conversation, &way, names),
        retransmissions: retransmissions(&conversation.legs),
        problems: problems(conversation, &way, names, interfaces),
        hops,
    })
}

/// The legs put in their places.
struct Way<'a> {
    requests: Vec<&'a Leg>,
    replies: Vec<&'a Leg>,
    director: Option<Mac>,
    /// The station that answered, or was meant to.
    server: Option<Mac>,
    method: Method,
    answers: Replies,
}

impl<'a> Way<'a> {
    fn new(conversation: &'a Conversation) -> Self {
        let of = |direction| -> Vec<&Leg> {
            conversation
                .legs
                .iter()
                .filter(|leg| leg.direction == direction)
                .collect()
        };
        let (requests, replies) = (of(Direction::Request), of(Direction::Reply));
        let mut way = Self {
            requests,
            replies,
            director: None,
            server: None,
            method: Method::Unknown,
            answers: Replies::None,
        };
        way.find();
        way
    }

    fn find(&mut self) {
        let Some(first) = self.requests.first().copied() else {
            self.server = self.replies.first().map(|leg| leg.from);
            return;
        };
        // Passed on: sent by the station that got it.
        let passed: Vec<&Leg> = self
            .requests
            .iter()
            .copied()
            .filter(|leg| leg.from == first.to)
            .collect();
        let answered_by = |station: Mac| self.replies.iter().any(|leg| leg.from == station);
        let chosen = passed
            .iter()
            .copied()
            .find(|leg| answered_by(leg.to))
            .or_else(|| passed.last().copied());
        match chosen {
            Some(second) => {
                self.director = Some(first.to);
                self.server = Some(second.to);
                self.method = if second.wrapping.is_some() {
                    Method::Tun
                } else if second.destination == first.destination {
                    Method::Dr
                } else {
                    Method::Nat
                };
            }
            None if first.wrapping.is_some() => {
                // Seen behind the director only.
                self.director = Some(first.from);
                self.server = Some(first.to);
                self.method = Method::Tun;
            }
            None => {
                let answers_itself = answered_by(first.to);
                self.server = self.replies.first().map(|leg| leg.from);
                if answers_itself {
                    self.method = Method::Direct;
                }
            }
        }
        self.answers = match (self.director, self.server) {
            _ if self.replies.is_empty() => Replies::None,
            (None, _) if self.method == Method::Direct => Replies::Direct,
            (None, _) => Replies::None,
            (Some(director), server) => {
                let of_server = |leg: &&&Leg| Some(leg.from) == server;
                match self.replies.iter().find(of_server) {
                    Some(leg) if leg.to == director => Replies::Through,
                    Some(_) => Replies::Past,
                    None => Replies::None,
                }
            }
        };
    }

    /// The way to the server, as passed on.
    fn second(&self) -> Option<&'a Leg> {
        self.requests
            .iter()
            .copied()
            .find(|leg| Some(leg.from) == self.director && Some(leg.to) == self.server)
    }

    fn wrapping(&self) -> Option<Wrapping> {
        self.second()?.wrapping
    }

    fn proof(&self, names: &Names) -> String {
        let name = |mac: Option<Mac>| mac.map_or_else(String::new, |mac| names.station(mac));
        let (director, server) = (name(self.director), name(self.server));
        let answer = match self.answers {
            Replies::Past => format!("{server} answered the client itself, past the director"),
            Replies::Through => format!("the answer went back through {director}"),
            Replies::Direct => String::new(),
            Replies::None => "no answer was seen".to_owned(),
        };
        match self.method {
            Method::Dr => format!("only the MAC addresses changed at {director}; {answer}"),
            Method::Tun => {
                let wrapping = self.wrapping().map_or_else(String::new, |wrapping| {
                    format!("{} {}", wrapping.kind.word(), tunnel_ends(&wrapping))
                });
                format!("{director} put the request into {wrapping}; {answer}")
            }
            Method::Nat => {
                let ends = self.requests.first().zip(self.second());
                let rewritten = ends.map_or_else(String::new, |(first, second)| {
                    format!("{} to {}", first.destination, second.destination)
                });
                format!("{director} rewrote the destination {rewritten}; {answer}")
            }
            Method::Direct => format!("{server} was asked and answered, no director between"),
            Method::Unknown if self.requests.is_empty() => "only answers were seen here".to_owned(),
            Method::Unknown if self.server.is_some() => {
                format!("too little of the way was seen here; the answer came from {server}")
            }
            Method::Unknown => answer,
        }
    }
}

fn tunnel_ends(wrapping: &Wrapping) -> String {
    let port = wrapping
        .port
        .map_or_else(String::new, |port| format!(" port {port}"));
    format!("{} → {}{port}", wrapping.source, wrapping.destination)
}

/// Repetitions of either direction: what the sender repeated passes every leg behind it, so
/// that the leg with the most of them tells.
fn retransmissions(legs: &[Leg]) -> u64 {
    let most = |direction| {
        legs.iter()
            .filter(|leg| leg.direction == direction)
            .map(|leg| leg.retransmissions)
            .max()
            .unwrap_or(0)
    };
    most(Direction::Request) + most(Direction::Reply)
}

fn hops(conversation: &Conversation, names: &Names, interfaces: &[Interface]) -> Vec<Hop> {
    let mut hops = Vec::new();
    for direction in [Direction::Request, Direction::Reply] {
        let mut before: Option<&Leg> = None;
        for leg in conversation
            .legs
            .iter()
            .filter(|leg| leg.direction == direction)
        {
            hops.push(Hop {
                reply: direction == Direction::Reply,
                from: names.station(leg.from),
                to: names.station(leg.to),
                from_mac: leg.from,
                to_mac: leg.to,
                source: leg.source.to_string(),
                destination: leg.destination.to_string(),
                ttl: leg.ttl,
                inside: leg.wrapping,
                changes: before
                    .filter(|before| before.to == leg.from)
                    .map_or_else(Vec::new, |before| changes(before, leg)),
                frame: leg.first_frame,
                frames: leg.frames,
                retransmissions: leg.retransmissions,
                seen_on: leg
                    .seen_on
                    .iter()
                    .filter_map(|(index, _)| interfaces.get(*index))
                    .map(|interface| interface.name.clone())
                    .collect(),
            });
            before = Some(leg);
        }
    }
    hops
}

pub(super) fn changes(before: &Leg, after: &Leg) -> Vec<String> {
    let mut changes = Vec::new();
    match (before.wrapping, after.wrapping) {
        (None, Some(wrapping)) => changes.push(format!(
            "put into {} {}",
            wrapping.kind.word(),
            tunnel_ends(&wrapping)
        )),
        (Some(wrapping), None) => changes.push(format!("taken out of {}", wrapping.kind.word())),
        _ => {}
    }
    if before.destination != after.destination {
        changes.push(format!(
            "destination {} became {}",
            before.destination, after.destination
        ));
    }
    if before.source != after.source {
        changes.push(format!("source {} became {}", before.source, after.source));
    }
    if changes.is_empty() {
        changes.push("only the MAC addresses".to_owned());
    }
    if before.ttl != after.ttl {
        changes.push(format!("TTL {} became {}", before.ttl, after.ttl));
    }
    changes
}

fn ending(conversation: &Conversation, way: &Way<'_>, names: &Names) -> Ending {
    if let Some((by, refusal, frame)) = conversation.refused {
        let reason = match refusal {
            Refusal::Reset => "TCP reset: nothing listens on that port".to_owned(),
            Refusal::Icmp(3) => "ICMP port unreachable".to_owned(),
            Refusal::Icmp(1) => "ICMP host unreachable".to_owned(),
            Refusal::Icmp(10 | 13) => "ICMP administratively prohibited".to_owned(),
            Refusal::Icmp(code) => format!("ICMP destination unreachable, code {code}"),
        };
        return Ending::Refused {
            by: names.station(by),
            frame,
            reason,
        };
    }
    if let Some((by, _, frame)) = conversation.reset {
        return Ending::Reset {
            by: names.station(by),
            frame,
        };
    }
    if conversation.is_over() {
        return Ending::Closed;
    }
    match (way.replies.is_empty(), way.requests.last()) {
        (true, Some(last)) => Ending::Unanswered {
            tries: way.requests[0].frames,
            last_seen_at: names.station(last.to),
        },
        _ => Ending::Open,
    }
}

fn problems(
    conversation: &Conversation,
    way: &Way<'_>,
    names: &Names,
    interfaces: &[Interface],
) -> Vec<String> {
    let mut problems = Vec::new();
    let asked = way.requests.first().map(|leg| leg.destination);
    let stray = way.replies.iter().find(|leg| {
        Some(leg.source) != asked && Some(leg.to) == way.requests.first().map(|leg| leg.from)
    });
    if let (Some(stray), Some(asked)) = (stray, asked) {
        problems.push(format!(
            "{} answered the client as {}, but the client had asked {asked}: it takes no such answer{}",
            names.station(stray.from),
            stray.source,
            if way.method == Method::Nat {
                "; with NAT the way back has to lead through the director"
            } else {
                ""
            }
        ));
    }
    let servers: Vec<String> = way
        .requests
        .iter()
        .filter(|leg| Some(leg.from) == way.director)
        .map(|leg| names.station(leg.to))
        .collect();
    if servers.len() > 1 && servers.iter().any(|server| *server != servers[0]) {
        problems.push(format!(
            "its packets went to more than one server: {}",
            servers.join(", ")
        ));
    }
    for leg in &conversation.legs {
        problems.extend(lost_on_the_cable(leg, names, interfaces));
        if leg.doubles > 0 {
            problems.push(format!(
                "{} of {}'s frames to {} came twice",
                leg.doubles,
                names.station(leg.from),
                names.station(leg.to)
            ));
        }
    }
    problems
}

/// What was on a bridge and did not come out of the cable to its station.
fn lost_on_the_cable(leg: &Leg, names: &Names, interfaces: &[Interface]) -> Option<String> {
    let cable = interfaces
        .iter()
        .position(|interface| interface.station == Some(leg.to))?;
    let reached = leg.frames_on(cable);
    // The last frame may still be on its way between the two.
    let lost = leg.frames.saturating_sub(reached);
    let elsewhere = leg.seen_on.iter().any(|(index, _)| *index != cable);
    (lost > 0 && elsewhere).then(|| {
        format!(
            "{lost} of {} frames to {} were lost on its cable ({})",
            leg.frames,
            names.station(leg.to),
            interfaces[cable].name
        )
    })
}
