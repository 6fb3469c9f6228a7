//! One client's connection as it was seen on the wire: every way its packets took, and how it went.
//!
//! A packet that a director passes on is seen again: with other stations, inside a tunnel, or with another
//! address. Each such form, in each direction, is a [`Leg`]; what the legs prove together is [`path`](super::path)'s.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::frame::{Flags, Icmp, Mac, Packet, Tcp, Transport, Wrapping};
use super::segments::{Novelty, Segments};

/// Forms in which one connection's packets are seen; a way there and back over a director has four.
const LEGS_MAX: usize = 24;
/// Frames of a leg that are remembered, to know one again on another interface.
const RECENT_MAX: usize = 64;
/// The same frame on another interface comes within this time.
const SAME_FRAME_WITHIN: Duration = Duration::from_millis(100);
/// Requests over one connection that are kept; more are counted.
const EXCHANGES_MAX: usize = 32;
/// Longest first line of a request or response that is kept.
const LINE_CHARS_MAX: usize = 160;

/// Watched interfaces are bits of a word.
pub const INTERFACES_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Request,
    Reply,
}

/// A frame as it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// From 1, as Wireshark counts.
    pub number: u64,
    pub at: Duration,
    pub interface: usize,
    pub from: Mac,
    pub to: Mac,
    pub packet: &'a Packet<'a>,
}

/// One form in which packets of one direction were seen.
#[derive(Clone, Debug)]
pub struct Leg {
    pub direction: Direction,
    pub from: Mac,
    pub to: Mac,
    pub wrapping: Option<Wrapping>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Of its first packet.
    pub ttl: u8,
    pub first_frame: u64,
    pub first_at: Duration,
    /// Frames, each counted once however many interfaces it was seen on.
    pub frames: u64,
    /// Frames by interface.
    pub seen_on: Vec<(usize, u64)>,
    /// Segments that carry what an earlier one had carried.
    pub retransmissions: u64,
    /// Frames that came twice on one interface, to the last bit that is looked at.
    pub doubles: u64,
    segments: Segments,
    recent: VecDeque<(Fingerprint, Duration, u32)>,
}

/// What tells a packet from the next one of its leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    id: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: Flags,
    bytes: u32,
}

/// A request and what came back, by their first lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    pub request: String,
    pub asked_at: Duration,
    pub response: Option<String>,
    pub answered_at: Option<Duration>,
}

/// Why a connection did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The port is closed, or the director's own kernel says so.
    Reset,
    /// Destination unreachable, with its code.
    Icmp(u8),
}

/// What a frame was to its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Place among the legs.
    pub leg: usize,
    pub news: News,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The first frame of a new leg.
    Leg,
    Retransmission,
    /// A frame seen before on another interface.
    SeenElsewhere,
    Nothing,
}

#[derive(Clone, Debug)]
pub struct Conversation {
    /// From 1, in the order of their first frames.
    pub number: u64,
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub began: Duration,
    pub last: Duration,
    pub legs: Vec<Leg>,
    /// The client's first sequence number, where its SYN was seen.
    pub opening: Option<u32>,
    pub accepted: bool,
    pub exchanges: Vec<Exchange>,
    /// Requests beyond those kept.
    pub more_exchanges: u64,
    /// Who refused, how, in which frame.
    pub refused: Option<(Mac, Refusal, u64)>,
    /// Who cut the established connection, in which frame.
    pub reset: Option<(Mac, Direction, u64)>,
    client_done: bool,
    server_done: bool,
}

impl Conversation {
    pub fn new(number: u64, protocol: Protocol, client: SocketAddr, at: Duration) -> Self {
        Self {
            number,
            protocol,
            client,
            began: at,
            last: at,
            legs: Vec::new(),
            opening: None,
            accepted: false,
            exchanges: Vec::new(),
            more_exchanges: 0,
            refused: None,
            reset: None,
            client_done: false,
            server_done: false,
        }
    }

    /// Nothing more is to be expected, but for late copies.
    pub fn is_over(&self) -> bool {
        self.refused.is_some() || self.reset.is_some() || (self.client_done && self.server_done)
    }

    pub fn is_answered(&self) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.direction == Direction::Reply)
    }

    /// A request is under way that was not answered yet.
    pub fn awaits_response(&self) -> bool {
        let last = self.exchanges.last();
        last.is_some_and(|exchange| exchange.response.is_none())
    }

    /// A new connection from the same port, rather than more of this one.
    pub fn is_reopened_by(&self, tcp: &Tcp<'_>) -> bool {
        let opens = tcp.flags.syn && !tcp.flags.ack;
        opens && self.opening != Some(tcp.sequence) && !self.legs.is_empty()
    }

    /// Takes a frame; `None` when the conversation has too many legs to keep another.
    pub fn take(&mut self, sighting: &Sighting<'_>) -> Option<Taken> {
        let (source, destination) = sighting.packet.ends()?;
        let direction = if source == self.client {
            Direction::Request
        } else {
            Direction::Reply
        };
        self.last = self.last.max(sighting.at);
        let found = self.legs.iter().position(|leg| {
            leg.direction == direction
                && (leg.from, leg.to) == (sighting.from, sighting.to)
                && (leg.source, leg.destination) == (source, destination)
                && leg.wrapping == sighting.packet.wrapping
        });
        let leg = match found {
            Some(leg) => leg,
            None if self.legs.len() == LEGS_MAX => return None,
            None => {
                self.legs.push(Leg {
                    direction,
                    from: sighting.from,
                    to: sighting.to,
                    wrapping: sighting.packet.wrapping,
                    source,
                    destination,
                    ttl: sighting.packet.ttl,
                    first_frame: sighting.number,
                    first_at: sighting.at,
                    frames: 0,
                    seen_on: Vec::new(),
                    retransmissions: 0,
                    doubles: 0,
                    segments: Segments::default(),
                    recent: VecDeque::new(),
                });
                self.legs.len() - 1
            }
        };
        let mut news = self.legs[leg].take(sighting);
        if news != News::SeenElsewhere {
            self.progress(direction, sighting);
            if found.is_none() {
                news = News::Leg;
            }
        }
        Some(Taken { leg, news })
    }

    /// Takes an ICMP error about this conversation.
    pub fn take_icmp(&mut self, number: u64, at: Duration, from: Mac, icmp: &Icmp) {
        const UNREACHABLE: u8 = 3;
        self.last = self.last.max(at);
        if icmp.kind == UNREACHABLE && !self.accepted && self.refused.is_none() {
            self.refused = Some((from, Refusal::Icmp(icmp.code), number));
        }
    }

    fn progress(&mut self, direction: Direction, sighting: &Sighting<'_>) {
        match &sighting.packet.transport {
            Transport::Tcp(tcp) => self.progress_tcp(direction, sighting, tcp),
            Transport::Udp(_) => self.accepted |= direction == Direction::Reply,
            _ => {}
        }
    }

    fn progress_tcp(&mut self, direction: Direction, sighting: &Sighting<'_>, tcp: &Tcp<'_>) {
        let flags = tcp.flags;
        match direction {
            Direction::Request => {
                if flags.syn {
                    self.opening.get_or_insert(tcp.sequence);
                }
                self.client_done |= flags.fin;
            }
            Direction::Reply => {
                self.accepted |= flags.syn && flags.ack || tcp.payload_bytes > 0;
                self.server_done |= flags.fin;
            }
        }
        if flags.rst {
            let first_time = self.reset.is_none() && self.refused.is_none();
            if first_time && direction == Direction::Reply && !self.accepted {
                self.refused = Some((sighting.from, Refusal::Reset, sighting.number));
            } else if first_time && !(self.client_done && self.server_done) {
                self.reset = Some((sighting.from, direction, sighting.number));
            }
        }
        if let Some(line) = first_line(tcp.payload) {
            self.exchange(direction, sighting.at, line);
        }
    }

    /// Takes a first line; the same line passes by once for each leg.
    fn exchange(&mut self, direction: Direction, at: Duration, line: String) {
        let is_response = line.starts_with("HTTP/");
        match (direction, self.exchanges.last_mut()) {
            (Direction::Reply, Some(open)) if is_response && open.response.is_none() => {
                open.response = Some(line);
                open.answered_at = Some(at);
            }
            (Direction::Request, Some(open)) if open.response.is_none() => {
                // A later leg of the same request.
            }
            (Direction::Request, _) if !is_response => {
                if self.exchanges.len() == EXCHANGES_MAX {
                    self.more_exchanges += 1;
                } else {
                    self.exchanges.push(Exchange {
                        request: line,
                        asked_at: at,
                        ..Exchange::default()
                    });
                }
            }
            _ => {}
        }
    }
}

impl Leg {
    /// Whether a frame of it was seen on that interface.
    pub fn frames_on(&self, interface: usize) -> u64 {
        self.seen_on
            .iter()
            .find(|(seen, _)| *seen == interface)
            .map_or(0, |(_, frames)| *frames)
    }

    fn take(&mut self, sighting: &Sighting<'_>) -> News {
        match self
            .seen_on
            .iter_mut()
            .find(|(interface, _)| *interface == sighting.interface)
        {
            Some((_, frames)) => *frames += 1,
            None => self.seen_on.push((sighting.interface, 1)),
        }
        let print = fingerprint(sighting.packet);
        let bit = 1_u32 << (sighting.interface % INTERFACES_MAX);
        let known = self.recent.iter_mut().rev().find(|(other, at, _)| {
            *other == print && sighting.at.saturating_sub(*at) <= SAME_FRAME_WITHIN
        });
        match known {
            Some((_, _, interfaces)) if *interfaces & bit == 0 => {
                *interfaces |= bit;
                return News::SeenElsewhere;
            }
            // A frame without IPv4's number may well be a true repetition.
            Some(_) if print.id != 0 => self.doubles += 1,
            _ => {}
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((print, sighting.at, bit));
        self.frames += 1;
        let Transport::Tcp(tcp) = &sighting.packet.transport else {
            return News::Nothing;
        };
        let opens_or_ends = tcp.flags.syn || tcp.flags.fin;
        let length = tcp.payload_bytes + u32::from(tcp.flags.syn) + u32::from(tcp.flags.fin);
        match self.segments.take(tcp.sequence, length, opens_or_ends) {
            Novelty::Again => {
                self.retransmissions += 1;
                News::Retransmission
            }
            _ => News::Nothing,
        }
    }
}

fn fingerprint(packet: &Packet<'_>) -> Fingerprint {
    let (sequence, acknowledgment, flags, bytes) = match &packet.transport {
        Transport::Tcp(tcp) => (
            tcp.sequence,
            tcp.acknowledgment,
            tcp.flags,
            tcp.payload_bytes,
        ),
        Transport::Udp(udp) => (
            0,
            0,
            Flags::default(),
            u32::try_from(udp.payload.len()).unwrap_or(u32::MAX),
        ),
        _ => (0, 0, Flags::default(), 0),
    };
    Fingerprint {
        id: packet.id,
        sequence,
        acknowledgment,
        flags,
        bytes,
    }
}

/// Returns the first line of an HTTP request or response.
fn first_line(payload: &[u8]) -> Option<String> {
    let line = payload
        .split(|byte| *byte == b'\r' || *byte == b'\n')
        .next()?;
    let line = std::str::from_utf8(line).ok()?;
    let is_request = line.split_once(' ').is_some_and(|(method, rest)| {
        (3..=7).contains(&method.len())
            && method.bytes().all(|byte| byte.is_ascii_uppercase())
            && rest.contains(" HTTP/1.")
    });
    let is_plain = line.chars().all(|each| !each.is_control());
    ((is_request || line.starts_with("HTTP/1.")) && is_plain)
        .then(|| line.chars().take(LINE_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_has_a_first_line() {
        assert_eq!(
            first_line(b"GET /a HTTP/1.1\r\nHost: x\r\n").as_deref(),
            Some("GET /a HTTP/1.1")
        );
        assert_eq!(
            first_line(b"HTTP/1.1 200 OK\r\n").as_deref(),
            Some("HTTP/1.1 200 OK")
        );
        assert_eq!(first_line(b"SSH-2.0-OpenSSH_9.2\r\n"), None);
        assert_eq!(first_line(b"GET \x1b[31m HTTP/1.1\r\n"), None);
        assert_eq!(first_line(b""), None);
    }
}
