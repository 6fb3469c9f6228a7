//! The core of a capture: frames with their times in, events and remarks out, a summary at the end.
//!
//! It reads no clock: what is over is found by the frames' own times, and by [`Tracker::tick`] where no
//! frame comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::arp::{ArpEvent, ArpTable};
use super::conversation::{Conversation, Direction, News, Protocol, Sighting};
use super::frame::{Arp, Content, Frame, Icmp, Mac, Packet, TCP, Transport};
use super::names::Names;
use super::path::{self, Explained, Interface};
use super::summary::{Counts, Other, Owner, Owners, Summary};

/// After so long without a frame nothing more of an ended connection comes.
const OVER_AFTER: Duration = Duration::from_millis(200);
/// A connection that is open and quiet is told after this time.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// The client tries again after one second, then after two: a third try in silence says enough.
const UNANSWERED_AFTER: Duration = Duration::from_millis(3200);
/// How often what is due is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Connections followed at the same time: what a load of a lab's bounds makes, with a minute of leftovers.
const CONVERSATIONS_MAX: usize = 65_536;
/// Different kinds of other traffic that are told apart.
const OTHERS_MAX: usize = 512;

const SSH: u16 = 22;
const HEARTBEAT: u16 = 694;
/// DRBD's usual ports, one a resource.
const DRBD: std::ops::RangeInclusive<u16> = 7788..=7799;

/// Something that can be said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    Request(Box<Explained>),
    Arp(ArpExplained),
    Seen(Seen),
}

/// Who has an address, with names.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ArpExplained {
    pub at_seconds: f64,
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    pub answers: Vec<Answer>,
    /// Nobody asked: gratuitous ARP.
    pub announced: bool,
    /// Who had it before, where that was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    pub frame: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    pub station: String,
    pub mac: Mac,
    pub frame: u64,
}

/// The first of something worth a line: a cluster's heartbeat, a replication, a redirect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    pub at_seconds: f64,
    pub what: String,
    pub from: String,
    pub to: String,
    pub detail: String,
    pub frame: u64,
}

type Key = (Protocol, SocketAddr);

#[derive(Debug)]
struct Followed {
    conversation: Conversation,
    told: bool,
    /// Told as unanswered; an answer is news.
    told_unanswered: bool,
}

#[derive(Debug, Default)]
pub struct Tracker {
    names: Names,
    interfaces: Vec<Interface>,
    origin: Option<Duration>,
    now: Duration,
    looked: Duration,
    frames: u64,
    bytes: u64,
    conversations: HashMap<Key, Followed>,
    conversations_begun: u64,
    arp: ArpTable,
    events: Vec<Event>,
    counts: Counts,
    others: BTreeMap<(String, String, String), (u64, u64)>,
    said: BTreeSet<(String, String, String)>,
}

impl Tracker {
    pub fn new(names: Names, interfaces: Vec<Interface>) -> Self {
        Self {
            names,
            interfaces,
            ..Self::default()
        }
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Adds what a capture file says in its middle.
    pub fn add_names(&mut self, names: Names) {
        self.names.complete_with(names);
    }

    pub fn add_interface(&mut self, interface: Interface) {
        self.interfaces.push(interface);
    }

    /// Takes a frame that was seen at a time on an interface; returns what is to be said of it.
    pub fn take(
        &mut self,
        at: Duration,
        interface: usize,
        bytes: &[u8],
        length: u32,
    ) -> Option<String> {
        self.origin.get_or_insert(at);
        self.frames += 1;
        self.bytes += u64::from(length);
        self.tick(at);
        let number = self.frames;
        let Some(frame) = Frame::parse(bytes) else {
            self.other("no Ethernet frame", String::new(), String::new(), length);
            return None;
        };
        match &frame.content {
            Content::Arp(arp) => self.take_arp(number, at, arp),
            Content::Ip(packet) => {
                let sighting = Sighting {
                    number,
                    at,
                    interface,
                    from: frame.source,
                    to: frame.destination,
                    packet,
                };
                self.take_packet(&sighting, length)
            }
            Content::Other(kind) => {
                let (from, to) = (
                    self.names.station(frame.source),
                    self.names.station(frame.destination),
                );
                self.other(&ethernet_protocol(*kind), from, to, length);
                None
            }
        }
    }

    /// Says that it is now so late, where no frame comes to say so.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.now.saturating_sub(self.looked) >= LOOK_EVERY {
            self.looked = self.now;
            self.look();
        }
    }

    /// Returns what happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Tells everything that is still open, and sums up.
    pub fn finish(&mut self, dropped: u64) -> Summary {
        for event in self.arp.finish() {
            let event = self.explain_arp(event);
            self.events.push(Event::Arp(event));
        }
        let mut keys: Vec<(u64, Key)> = self
            .conversations
            .iter()
            .map(|(key, followed)| (followed.conversation.number, *key))
            .collect();
        keys.sort_unstable_by_key(|(number, _)| *number);
        for (_, key) in keys {
            self.close(key);
        }
        self.summary(dropped)
    }

    fn take_arp(&mut self, number: u64, at: Duration, arp: &Arp) -> Option<String> {
        self.names.learn(arp);
        let event = self.arp.take(number, at, arp);
        let name = self.names.station(arp.sender);
        if let Some(event) = event {
            let event = self.explain_arp(event);
            self.events.push(Event::Arp(event));
        }
        match (arp.is_gratuitous(), arp.asks) {
            (true, _) => Some(format!(
                "gratuitous ARP: {name} says that {} is its own",
                arp.sender_address
            )),
            (false, true) => None,
            (false, false) => Some(format!(
                "{name} answers: {} is at {}",
                arp.sender_address, arp.sender
            )),
        }
    }

    fn take_packet(&mut self, sighting: &Sighting<'_>, length: u32) -> Option<String> {
        let packet = sighting.packet;
        match &packet.transport {
            Transport::Icmp(icmp) => self.take_icmp(sighting, icmp, length),
            Transport::Udp(udp) if udp.destination == HEARTBEAT || udp.source == HEARTBEAT => {
                self.take_heartbeat(sighting, udp.payload, length)
            }
            Transport::Tcp(_) | Transport::Udp(_) => self.take_conversation(sighting, length),
            Transport::Fragment => {
                self.other_packet("IP fragments", packet, length);
                None
            }
            Transport::Other(protocol) => {
                self.other_packet(&ip_protocol(*protocol), packet, length);
                None
            }
        }
    }

    fn take_conversation(&mut self, sighting: &Sighting<'_>, length: u32) -> Option<String> {
        let (source, destination) = sighting.packet.ends()?;
        let server_port = source.port().min(destination.port());
        if server_port == SSH {
            self.other_packet("SSH", sighting.packet, length);
            return None;
        }
        let is_drbd = DRBD.contains(&source.port()) || DRBD.contains(&destination.port());
        if is_drbd {
            self.other_packet("DRBD (TCP 7788)", sighting.packet, length);
            let name = |address: IpAddr| self.host(address);
            let (from, to) = (name(source.ip()), name(destination.ip()));
            return self.first_of(
                "DRBD",
                from,
                to,
                "its replication link".to_owned(),
                sighting,
            );
        }
        let key = self.key_of(sighting.packet, source, destination)?;
        if let Transport::Tcp(tcp) = &sighting.packet.transport
            && source == key.1
            && self
                .conversations
                .get(&key)
                .is_some_and(|followed| followed.conversation.is_reopened_by(tcp))
        {
            self.close(key);
        }
        if !self.conversations.contains_key(&key) {
            self.make_room();
            self.conversations_begun += 1;
            let number = self.conversations_begun;
            let conversation = Conversation::new(number, key.0, key.1, sighting.at);
            let followed = Followed {
                conversation,
                told: false,
                told_unanswered: false,
            };
            self.conversations.insert(key, followed);
        }
        let followed = self.conversations.get_mut(&key)?;
        let taken = followed.conversation.take(sighting)?;
        let conversation = &self.conversations[&key].conversation;
        remark(conversation, taken.leg, taken.news, &self.names)
    }

    /// Finds the conversation a packet belongs to, or the one it begins; `None` for what
    /// is left of one that was over.
    fn key_of(
        &self,
        packet: &Packet<'_>,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Key> {
        let (protocol, begins_at_source) = match &packet.transport {
            Transport::Tcp(tcp) if tcp.flags.syn => (Protocol::Tcp, Some(!tcp.flags.ack)),
            Transport::Tcp(tcp) if tcp.payload_bytes > 1 => {
                (Protocol::Tcp, Some(source.port() > destination.port()))
            }
            Transport::Tcp(_) => (Protocol::Tcp, None),
            Transport::Udp(_) => (Protocol::Udp, Some(source.port() >= destination.port())),
            _ => return None,
        };
        let opens = matches!(&packet.transport, Transport::Tcp(tcp) if tcp.flags.syn);
        let known = [source, destination]
            .into_iter()
            .map(|end| (protocol, end))
            .find(|key| self.conversations.contains_key(key));
        match (opens, known, begins_at_source) {
            (false, Some(key), _) => Some(key),
            (_, _, Some(true)) => Some((protocol, source)),
            (_, _, Some(false)) => Some((protocol, destination)),
            (_, known, None) => known,
        }
    }

    fn take_icmp(&mut self, sighting: &Sighting<'_>, icmp: &Icmp, length: u32) -> Option<String> {
        const REDIRECT: u8 = 5;
        self.other_packet(&icmp_message(icmp), sighting.packet, length);
        if let Some(about) = icmp.about {
            let protocol = if about.protocol == TCP {
                Protocol::Tcp
            } else {
                Protocol::Udp
            };
            let key = [(protocol, about.source), (protocol, about.destination)]
                .into_iter()
                .find(|key| self.conversations.contains_key(key));
            if let Some(followed) = key.and_then(|key| self.conversations.get_mut(&key)) {
                let number = followed.conversation.number;
                followed
                    .conversation
                    .take_icmp(sighting.number, sighting.at, sighting.from, icmp);
                let name = self.names.station(sighting.from);
                let remark = format!("#{number}: {name} says: {}", icmp_message(icmp));
                if icmp.kind != REDIRECT {
                    return Some(remark);
                }
            }
        }
        if icmp.kind == REDIRECT {
            let from = self.host(sighting.packet.source);
            let to = self.host(sighting.packet.destination);
            let detail = "there is a shorter way than through me".to_owned();
            return self.first_of("ICMP redirect", from, to, detail, sighting);
        }
        None
    }

    fn take_heartbeat(
        &mut self,
        sighting: &Sighting<'_>,
        payload: &[u8],
        length: u32,
    ) -> Option<String> {
        self.other_packet("heartbeat (UDP 694)", sighting.packet, length);
        let from = self.host(sighting.packet.source);
        let to = self.host(sighting.packet.destination);
        self.first_of("heartbeat", from, to, heartbeat_message(payload), sighting)
    }

    /// Makes an event of the first frame of its kind, and a remark of it.
    fn first_of(
        &mut self,
        what: &str,
        from: String,
        to: String,
        detail: String,
        sighting: &Sighting<'_>,
    ) -> Option<String> {
        let key = (format!("{what} {detail}"), from.clone(), to.clone());
        if self.said.len() >= OTHERS_MAX || !self.said.insert(key) {
            return None;
        }
        let remark = format!("{what}: {from} → {to}: {detail}");
        self.events.push(Event::Seen(Seen {
            at_seconds: self.since_origin(sighting.at),
            what: what.to_owned(),
            from,
            to,
            detail,
            frame: sighting.number,
        }));
        Some(remark)
    }

    fn host(&self, address: IpAddr) -> String {
        self.names
            .host(address)
            .map_or_else(|| address.to_string(), str::to_owned)
    }

    fn other_packet(&mut self, what: &str, packet: &Packet<'_>, length: u32) {
        let (from, to) = (self.host(packet.source), self.host(packet.destination));
        self.other(what, from, to, length);
    }

    fn other(&mut self, what: &str, from: String, to: String, length: u32) {
        let mut key = (what.to_owned(), from, to);
        if self.others.len() >= OTHERS_MAX && !self.others.contains_key(&key) {
            key = ("other traffic".to_owned(), String::new(), String::new());
        }
        let (frames, bytes) = self.others.entry(key).or_default();
        *frames += 1;
        *bytes += u64::from(length);
    }

    fn since_origin(&self, at: Duration) -> f64 {
        at.saturating_sub(self.origin.unwrap_or(at)).as_secs_f64()
    }

    /// Tells what is due by now.
    fn look(&mut self) {
        for event in self.arp.due(self.now) {
            let event = self.explain_arp(event);
            self.events.push(Event::Arp(event));
        }
        let now = self.now;
        let mut due: Vec<(u64, Key, bool)> = Vec::new();
        for (key, followed) in &self.conversations {
            let conversation = &followed.conversation;
            let quiet = now.saturating_sub(conversation.last);
            let over = conversation.is_over() && quiet >= OVER_AFTER;
            let waits = !conversation.is_answered() || conversation.awaits_response();
            let open = !followed.told && !waits && quiet >= QUIET_AFTER;
            let unanswered = !followed.told_unanswered && waits && quiet >= UNANSWERED_AFTER;
            if over || open || unanswered {
                due.push((conversation.number, *key, over));
            }
        }
        due.sort_unstable_by_key(|(number, _, _)| *number);
        for (_, key, over) in due {
            if over {
                self.close(key);
            } else {
                self.tell(key);
            }
        }
    }

    fn explain(&self, conversation: &Conversation) -> Option<Explained> {
        let origin = self.origin.unwrap_or(conversation.began);
        path::explain(conversation, &self.names, &self.interfaces, origin)
    }

    fn tell(&mut self, key: Key) {
        let Some(followed) = self.conversations.get_mut(&key) else {
            return;
        };
        if followed.conversation.is_answered() {
            // A response to come is still news.
            followed.told = !followed.conversation.awaits_response();
        }
        followed.told_unanswered = true;
        let explained = self.explain(&self.conversations[&key].conversation);
        if let Some(explained) = explained {
            self.events.push(Event::Request(Box::new(explained)));
        }
    }

    /// Ends a conversation: told if it was not, and counted.
    fn close(&mut self, key: Key) {
        let Some(followed) = self.conversations.remove(&key) else {
            return;
        };
        let Some(explained) = self.explain(&followed.conversation) else {
            return;
        };
        self.counts.take(&explained);
        let still_waits =
            !followed.conversation.is_answered() || followed.conversation.awaits_response();
        let unanswered_again = followed.told_unanswered && still_waits;
        if !followed.told && !unanswered_again {
            self.events.push(Event::Request(Box::new(explained)));
        }
    }

    /// Ends the older half of too many conversations.
    fn make_room(&mut self) {
        if self.conversations.len() < CONVERSATIONS_MAX {
            return;
        }
        let mut by_age: Vec<(Duration, Key)> = self
            .conversations
            .iter()
            .map(|(key, followed)| (followed.conversation.last, *key))
            .collect();
        by_age.sort_unstable_by_key(|(last, _)| *last);
        by_age.truncate(CONVERSATIONS_MAX / 2);
        for (_, key) in by_age {
            self.close(key);
        }
    }

    fn explain_arp(&self, event: ArpEvent) -> ArpExplained {
        let station = |mac: Mac| self.names.station(mac);
        let answer = |(mac, frame): (Mac, u64)| Answer {
            station: station(mac),
            mac,
            frame,
        };
        let mut explained = ArpExplained::default();
        let (at, address) = match event {
            ArpEvent::Answered {
                at,
                address,
                asked_by,
                answers,
            } => {
                explained.frame = answers.first().map_or(0, |(_, frame)| *frame);
                explained.answers = answers.into_iter().map(answer).collect();
                explained.asked_by = asked_by.map(station);
                (at, address)
            }
            ArpEvent::Unanswered {
                at,
                address,
                asked_by,
                frame,
            } => {
                explained.frame = frame;
                explained.asked_by = Some(station(asked_by));
                (at, address)
            }
            ArpEvent::Announced {
                at,
                address,
                station: mac,
                before,
                frame,
            } => {
                explained.frame = frame;
                explained.answers = vec![answer((mac, frame))];
                explained.announced = true;
                explained.before = before.map(station);
                (at, address)
            }
        };
        ArpExplained {
            at_seconds: self.since_origin(at),
            host: self.names.host(address.into()).map(str::to_owned),
            address: address.to_string(),
            ..explained
        }
    }

    fn summary(&self, dropped: u64) -> Summary {
        let counts = &self.counts;
        let owners = self.arp.owners().iter().map(|(address, stations)| Owners {
            address: address.to_string(),
            host: self.names.host((*address).into()).map(str::to_owned),
            stations: stations
                .iter()
                .map(|(mac, answers)| Owner {
                    station: self.names.station(*mac),
                    mac: *mac,
                    answers: *answers,
                })
                .collect(),
        });
        let others = self
            .others
            .iter()
            .map(|((what, from, to), (frames, bytes))| Other {
                what: what.clone(),
                from: from.clone(),
                to: to.clone(),
                frames: *frames,
                bytes: *bytes,
            });
        Summary {
            frames: self.frames,
            bytes: self.bytes,
            seconds: self.since_origin(self.now),
            dropped,
            connections: counts.connections,
            ways: counts.ways.clone(),
            refused: counts.refused,
            unanswered: counts.unanswered,
            reset: counts.reset,
            retransmissions: counts.retransmissions,
            latency: counts.latency(),
            arp: owners.collect(),
            others: others.collect(),
            problems: counts
                .problems
                .iter()
                .map(|(text, count)| (text.clone(), *count))
                .collect(),
        }
    }
}

fn remark(conversation: &Conversation, leg: usize, news: News, names: &Names) -> Option<String> {
    let number = conversation.number;
    let this = &conversation.legs[leg];
    let (from, to) = (names.station(this.from), names.station(this.to));
    match news {
        News::Leg => {
            let before: Vec<_> = conversation.legs[..leg]
                .iter()
                .filter(|other| other.direction == this.direction)
                .collect();
            let what = match this.direction {
                Direction::Request => "request",
                Direction::Reply => "answer",
            };
            let hop = before.len() + 1;
            let changes = before
                .last()
                .filter(|before| before.to == this.from)
                .map_or_else(String::new, |before| {
                    format!(": {}", path::changes(before, this).join(", "))
                });
            Some(format!(
                "#{number} {what}, hop {hop}: {from} → {to}{changes}"
            ))
        }
        News::Retransmission => Some(format!("#{number} sent again: {from} → {to}")),
        News::SeenElsewhere | News::Nothing => None,
    }
}

/// Names a heartbeat message by its type, as it says itself.
fn heartbeat_message(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .filter(|value| value.len() <= 32 && value.chars().all(|c| c.is_ascii_graphic()))
    };
    match (field("t="), field("st=")) {
        (Some(kind), Some(status)) => format!("{kind}, {status}"),
        (Some(kind), None) => kind.to_owned(),
        _ => "a message".to_owned(),
    }
}

fn icmp_message(icmp: &Icmp) -> String {
    match (icmp.kind, icmp.code) {
        (0, _) => "ICMP echo reply".to_owned(),
        (3, 1) => "ICMP host unreachable".to_owned(),
        (3, 3) => "ICMP port unreachable".to_owned(),
        (3, 4) => "ICMP fragmentation needed".to_owned(),
        (3, code) => format!("ICMP destination unreachable, code {code}"),
        (5, _) => "ICMP redirect".to_owned(),
        (8, _) => "ICMP echo request".to_owned(),
        (11, _) => "ICMP time exceeded".to_owned(),
        (kind, code) => format!("ICMP type {kind}, code {code}"),
    }
}

fn ethernet_protocol(kind: u16) -> String {
    match kind {
        0x0806 => "ARP".to_owned(),
        0x86dd => "IPv6".to_owned(),
        0x88cc => "LLDP".to_owned(),
        // Up to 1500 it is a length, as in spanning tree's frames.
        0..=1500 => "IEEE 802.3".to_owned(),
        _ => format!("Ethernet protocol 0x{kind:04x}"),
    }
}

fn ip_protocol(protocol: u8) -> String {
    match protocol {
        2 => "IGMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        _ => format!("IP protocol {protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Tunnel;
    use super::super::path::{Ending, Method, Replies};
    use super::super::scene::*;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tunnel_is_proven_by_the_packet_inside_the_packet() {
        let (requests, _, summary) = explained(&tunnelled());
        let [way] = &requests[..] else {
            panic!("{requests:#?}")
        };
        assert_eq!(
            (way.method, way.encapsulation),
            (Method::Tun, Some(Tunnel::Ipip))
        );
        assert_eq!(way.replies, Replies::Past);
        assert_eq!(way.director.as_deref(), Some("director"));
        assert_eq!(way.server.as_deref(), Some("server"));
        assert_eq!(way.ending, Ending::Closed);
        assert_eq!(way.request.as_deref(), Some("GET / HTTP/1.1"));
        assert_eq!(way.response.as_deref(), Some("HTTP/1.1 200 OK"));
        assert_eq!(
            way.proof,
            "director put the request into IPIP 10.0.0.10 → 10.0.0.20; server answered the client itself, past the director"
        );
        let frames: Vec<(u64, u64)> = way.hops.iter().map(|hop| (hop.frame, hop.frames)).collect();
        assert_eq!(frames, [(1, 3), (2, 3), (3, 3)]);
        assert_eq!(
            way.hops[1].changes,
            ["put into IPIP 10.0.0.10 → 10.0.0.20", "TTL 64 became 63"]
        );
        assert_eq!((way.retransmissions, &way.problems[..]), (0, &[][..]));
        assert_eq!((summary.connections, summary.ways[0].connections), (1, 1));
    }

    #[test]
    fn direct_routing_changes_stations_alone() {
        let there = request(VIP, "S", b"");
        let (requests, ..) = explained(&[
            there.frame(CLIENT, DIRECTOR),
            there.passed_on().frame(DIRECTOR, SERVER),
            reply(VIP, "SA", b"").frame(SERVER, CLIENT),
        ]);
        assert_eq!(
            (requests[0].method, requests[0].replies),
            (Method::Dr, Replies::Past)
        );
        assert_eq!(
            requests[0].hops[1].changes,
            ["only the MAC addresses", "TTL 64 became 63"]
        );
        assert_eq!(requests[0].ending, Ending::Open);
    }

    #[test]
    fn translation_is_seen_both_ways() {
        let (requests, ..) = explained(&[
            request(VIP, "S", b"").frame(CLIENT, DIRECTOR),
            request(SERVER.1, "S", b"")
                .passed_on()
                .frame(DIRECTOR, SERVER),
            reply(SERVER.1, "SA", b"").frame(SERVER, DIRECTOR),
            reply(VIP, "SA", b"").passed_on().frame(DIRECTOR, CLIENT),
        ]);
        let [way] = &requests[..] else {
            panic!("{requests:#?}")
        };
        assert_eq!((way.method, way.replies), (Method::Nat, Replies::Through));
        assert_eq!(way.service, "10.0.0.1:80");
        assert_eq!(way.server.as_deref(), Some("server"));
        assert_eq!(
            way.hops[3].changes[0],
            "source 10.0.0.20:80 became 10.0.0.1:80"
        );
        assert!(way.problems.is_empty(), "{:?}", way.problems);
    }

    #[test]
    fn an_answer_past_a_translating_director_is_a_problem() {
        let reset = Segment {
            flags: "R",
            ..request(SERVER.1, "", b"")
        };
        let (requests, ..) = explained(&[
            request(VIP, "S", b"").frame(CLIENT, DIRECTOR),
            request(SERVER.1, "S", b"")
                .passed_on()
                .frame(DIRECTOR, SERVER),
            reply(SERVER.1, "SA", b"").frame(SERVER, CLIENT),
            reset.frame(CLIENT, SERVER),
        ]);
        let way = &requests[0];
        assert_eq!((way.method, way.replies), (Method::Nat, Replies::Past));
        assert!(
            way.problems[0].contains(
                "server answered the client as 10.0.0.20:80, but the client had asked 10.0.0.1:80"
            ),
            "{:?}",
            way.problems
        );
        assert!(matches!(&way.ending, Ending::Reset { by, .. } if by == "client"));
    }

    #[test]
    fn who_refuses_is_named() {
        let there = request(VIP, "S", b"");
        let (requests, _, summary) = explained(&[
            there.frame(CLIENT, DIRECTOR),
            unreachable(DIRECTOR, CLIENT, &there),
        ]);
        let refused = Ending::Refused {
            by: "director".to_owned(),
            frame: 2,
            reason: "ICMP port unreachable".to_owned(),
        };
        assert_eq!(requests[0].ending, refused);
        assert_eq!((summary.refused, summary.unanswered), (1, 0));
        let (requests, ..) = explained(&[
            there.frame(CLIENT, DIRECTOR),
            reply(VIP, "RA", b"").frame(DIRECTOR, CLIENT),
        ]);
        assert!(matches!(&requests[0].ending, Ending::Refused { by, .. } if by == "director"));
    }

    #[test]
    fn tries_without_an_answer_are_counted_where_they_ended() {
        let there = request(VIP, "S", b"");
        let (requests, ..) = explained(&[
            there.frame(CLIENT, DIRECTOR),
            there.clone().passed_on().frame(DIRECTOR, SERVER),
            there.clone().with_id(101).frame(CLIENT, DIRECTOR),
            there.with_id(101).passed_on().frame(DIRECTOR, SERVER),
        ]);
        let unanswered = Ending::Unanswered {
            tries: 2,
            last_seen_at: "server".to_owned(),
        };
        assert_eq!(requests[0].ending, unanswered);
        // Passed on twice, sent again once.
        assert_eq!(requests[0].retransmissions, 1);
    }

    #[test]
    fn a_slow_answer_is_told_once_it_is_there() {
        let mut frames = tunnelled();
        let late = frames.split_off(5);
        let mut tracker = Tracker::new(names(), vec![Interface::default()]);
        let take = |tracker: &mut Tracker, at: u64, frame: &[u8]| {
            tracker.take(Duration::from_millis(at), 0, frame, 60);
        };
        for frame in &frames {
            take(&mut tracker, 0, frame);
        }
        tracker.tick(Duration::from_secs(2));
        assert_eq!(tracker.events(), []);
        for frame in &late {
            take(&mut tracker, 2100, frame);
        }
        tracker.tick(Duration::from_millis(2400));
        assert!(matches!(
            &tracker.events()[..],
            [Event::Request(way)] if way.response.as_deref() == Some("HTTP/1.1 200 OK")
        ));
        assert_eq!(tracker.finish(0).connections, 1);
        assert_eq!(tracker.events(), []);
    }

    #[test]
    fn a_frame_on_two_interfaces_is_one_frame() {
        let there = request(VIP, "S", b"").frame(DIRECTOR, SERVER);
        let back = reply(VIP, "SA", b"").frame(SERVER, CLIENT);
        let seen: [(usize, &[u8]); 4] = [(0, &there), (1, &there), (1, &back), (0, &back)];
        let (requests, _, summary) = explained_on(&["br0", "server:eth0"], &seen);
        assert_eq!(requests[0].hops[0].frames, 1);
        assert_eq!(requests[0].hops[0].seen_on, ["br0", "server:eth0"]);
        assert_eq!(requests[0].retransmissions, 0);
        assert!(
            requests[0].problems.is_empty(),
            "{:?}",
            requests[0].problems
        );
        assert_eq!(summary.frames, 4);
    }

    #[test]
    fn what_never_left_the_cable_was_lost_on_it() {
        let first = request(VIP, "S", b"").frame(DIRECTOR, SERVER);
        let again = request(VIP, "S", b"").with_id(101).frame(DIRECTOR, SERVER);
        let seen: [(usize, &[u8]); 3] = [(0, &first), (0, &again), (1, &again)];
        let (requests, ..) = explained_on(&["br0", "server:eth0"], &seen);
        assert_eq!(
            requests[0].problems,
            ["1 of 2 frames to server were lost on its cable (server:eth0)"]
        );
        assert_eq!(requests[0].retransmissions, 1);
    }

    #[test]
    fn a_new_connection_from_the_same_port_is_another() {
        let mut frames = tunnelled();
        let mut again = request(VIP, "S", b"");
        again.sequence = 900_000;
        frames.push(again.frame(CLIENT, DIRECTOR));
        let (requests, ..) = explained(&frames);
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].number, 2);
    }

    #[test]
    fn two_answers_to_one_question_are_told() {
        let (_, events, summary) = explained(&[
            arp_question(CLIENT, VIP),
            arp_answer(DIRECTOR, CLIENT, VIP),
            arp_answer(SERVER, CLIENT, VIP),
        ]);
        let [Event::Arp(arp)] = &events[..] else {
            panic!("{events:#?}")
        };
        let stations: Vec<&str> = arp
            .answers
            .iter()
            .map(|answer| &answer.station[..])
            .collect();
        assert_eq!(stations, ["director", "server"]);
        assert_eq!(summary.arp[0].stations.len(), 2);
    }

    #[test]
    fn a_cluster_s_own_traffic_has_its_name() {
        let message = b"\n>>>\nt=status\nst=active\nsrc=server\n<<<\n";
        let (_, events, summary) = explained(&[
            udp(SERVER, DIRECTOR, 694, message),
            udp(SERVER, DIRECTOR, 694, message),
        ]);
        let [Event::Seen(seen)] = &events[..] else {
            panic!("{events:#?}")
        };
        assert_eq!(
            (&seen.what[..], &seen.detail[..]),
            ("heartbeat", "status, active")
        );
        assert_eq!((summary.others[0].frames, summary.connections), (2, 0));
    }

    proptest! {
        #[test]
        fn any_frames_in_any_order_come_to_an_end(
            order in proptest::collection::vec((0..12_usize, 0..40_usize, any::<u8>(), 0..3_usize), 0..80)
        ) {
            let mut known = tunnelled();
            known.push(arp_question(CLIENT, VIP));
            known.push(arp_answer(SERVER, CLIENT, VIP));
            known.push(unreachable(DIRECTOR, CLIENT, &request(VIP, "S", b"")));
            let frames: Vec<(usize, Vec<u8>)> = order
                .into_iter()
                .map(|(which, at, byte, interface)| {
                    let mut frame = known[which].clone();
                    // Three of four frames are changed somewhere.
                    if byte % 4 != 0 {
                        let at = at % frame.len();
                        frame[at] ^= byte;
                    }
                    (interface, frame)
                })
                .collect();
            let seen: Vec<(usize, &[u8])> =
                frames.iter().map(|(interface, frame)| (*interface, &frame[..])).collect();
            let (requests, _, summary) = explained_on(&["br0", "server:eth0", "x"], &seen);
            prop_assert_eq!(summary.frames, seen.len() as u64);
            for request in &requests {
                let frames: u64 = request.hops.iter().map(|hop| hop.frames).sum();
                prop_assert!(frames <= seen.len() as u64);
            }
        }

        #[test]
        fn any_bytes_are_taken(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..30)
        ) {
            let seen: Vec<(usize, &[u8])> = frames.iter().map(|frame| (0, &frame[..])).collect();
            let (.., summary) = explained_on(&["br0"], &seen);
            prop_assert_eq!(summary.frames, seen.len() as u64);
        }
    }
}
