//! The connection: finding the peer, proving who one is, watching it, losing it.
//!
//! ```text
//! Establishing → Features → (Challenge → Response) → Parameters … as long as it lasts
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::core::Engine;
use super::requests::Epoch;
use super::types::Action;
use crate::replica::digest::{self, Algorithm};
use crate::replica::establish::{Established, Establishing, LinkAction, LinkId};
use crate::replica::generation::Generation;
use crate::replica::message::{
    AuthKind, BareKind, BlockId, Dialect, Features, Packet, Protocol, Sizes, Socket, Uuids,
};
use crate::replica::settings::NetSettings;
use crate::replica::state::{Connection, State};
use crate::replica::transfer::BitmapReceiver;

/// Bytes of a challenge.
const CHALLENGE_BYTES: usize = 64;
/// How long a node waits before it looks for a peer again that it could not agree with.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Both sockets to the peer, and what was agreed on them.
#[derive(Debug)]
pub(super) struct Session {
    /// Tells answers of this connection from those of an earlier one.
    pub serial: u64,
    pub data: LinkId,
    pub meta: LinkId,
    pub resolves_conflicts: bool,
    pub dialect: Dialect,
    pub phase: Phase,
    phase_until: Option<Duration>,
    challenge: Vec<u8>,
    pub integrity: Option<Algorithm>,
    pub peer_protocol: Option<Protocol>,
    pub peer_uuids: Option<Uuids>,
    pub peer_sizes: Option<Sizes>,
    pub bits_announced: u64,
    /// Last number given to a write or an acknowledgement.
    pub sequence: u32,
    last_heard: Duration,
    ping_sent: Option<Duration>,
    /// Pings that are not answered.
    pings: u32,
    pub after_ping: Vec<AfterPing>,
    late_check_at: Duration,
    /// Epochs of own writes that the peer did not confirm, the open one last.
    pub epochs: VecDeque<Epoch>,
    pub next_barrier: u32,
    /// The peer's writes since its last barrier, and how many of them are unfinished.
    pub epoch_count: u32,
    pub epoch_active: u32,
    /// Those that were acknowledged and may be lost with the power still.
    pub epoch_written: Vec<(u64, BlockId, u32)>,
    /// A barrier that waits for writes, or for the flush.
    pub closing_epoch: Option<u32>,
    pub flushing: bool,
    /// A resync ended with writes of the peer in an open epoch: the kernel's source counts their
    /// blocks as different until it is acknowledged, and does not believe in the end before.
    pub remind: bool,
    /// Packets of the data connection that came while an epoch was being closed.
    pub backlog: VecDeque<Packet>,
    pub bitmap_receiver: Option<BitmapReceiver>,
    /// The source began before this node was ready to be its target.
    pub early_start: Option<Generation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Features,
    Challenge,
    Response,
    Parameters,
}

/// What waits for the peer to have seen everything sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterPing {
    /// The resync or verify is complete.
    Finish,
    /// The source heard of the end before it could believe it.
    Remind,
    /// The Primary that stands in the way of this command lives.
    Promote { id: u64, force: bool },
}

impl Session {
    fn new(serial: u64, found: Established, now: Duration, net: &NetSettings) -> Self {
        Self {
            serial,
            data: found.data,
            meta: found.meta,
            resolves_conflicts: found.resolves_conflicts,
            dialect: Dialect::UNAGREED,
            phase: Phase::Features,
            phase_until: Some(now + handshake_step(net)),
            challenge: Vec::new(),
            integrity: Algorithm::by_name(&net.integrity_algorithm),
            peer_protocol: None,
            peer_uuids: None,
            peer_sizes: None,
            bits_announced: 0,
            sequence: 0,
            last_heard: now,
            ping_sent: None,
            pings: 0,
            after_ping: Vec::new(),
            late_check_at: now + tenths(net.timeout),
            epochs: VecDeque::new(),
            next_barrier: 1,
            epoch_count: 0,
            epoch_active: 0,
            epoch_written: Vec::new(),
            closing_epoch: None,
            flushing: false,
            remind: false,
            backlog: VecDeque::new(),
            bitmap_receiver: None,
            early_start: None,
        }
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

fn tenths(count: u32) -> Duration {
    Duration::from_millis(u64::from(count) * 100)
}

/// How long each step of the handshake may take.
fn handshake_step(net: &NetSettings) -> Duration {
    tenths(net.ping_timeout) * 4
}

impl Engine {
    /// Begins to look for the peer.
    pub(super) fn look_for_peer(&mut self) {
        self.retry_at = None;
        let Some(net) = &self.net else {
            return;
        };
        let (connect_int, step) = (
            Duration::from_secs(u64::from(net.connect_int.max(1))),
            handshake_step(net),
        );
        self.early_features = None;
        let random = self.random.next();
        let (establishing, actions) =
            Establishing::new(self.now, connect_int, step, self.next_link, random);
        self.establishing = Some(establishing);
        self.act(Action::Listen);
        self.change(State {
            connection: Connection::WFConnection,
            ..self.state
        });
        self.link_actions(actions);
    }

    fn link_actions(&mut self, actions: Vec<LinkAction>) {
        for action in actions {
            match action {
                LinkAction::Call(link) => self.act(Action::Call(link)),
                LinkAction::Close(link) => self.act(Action::Close(link)),
                LinkAction::Introduce(link, kind) => self.act(Action::Send {
                    link,
                    packet: Packet::Bare(kind),
                    dialect: Dialect::UNAGREED,
                }),
                LinkAction::Established(found) => self.begin_session(found),
            }
        }
        if let Some(establishing) = &self.establishing {
            self.next_link = self.next_link.max(establishing.next_link());
        }
    }

    fn begin_session(&mut self, found: Established) {
        if let Some(establishing) = self.establishing.take() {
            self.next_link = establishing.next_link();
        }
        let Some(net) = &self.net else {
            return;
        };
        let serial = self.next_id;
        self.session = Some(Session::new(serial, found, self.now, net));
        self.fresh_id();
        self.act(Action::StopListening);
        self.send(Packet::Features(Features::OWN));
        if let Some((_, early)) = self
            .early_features
            .take()
            .filter(|(link, _)| *link == found.data)
        {
            self.handshake(early);
        }
    }

    pub(super) fn accepted(&mut self, link: LinkId) {
        match &mut self.establishing {
            Some(establishing) => establishing.accepted(link, self.now),
            None => self.act(Action::Close(link)),
        }
    }

    pub(super) fn connected(&mut self, link: LinkId) {
        let now = self.now;
        let actions = match &mut self.establishing {
            Some(establishing) => establishing.connected(link, now),
            None => vec![LinkAction::Close(link)],
        };
        self.link_actions(actions);
    }

    pub(super) fn closed(&mut self, link: LinkId, why: &str) {
        let now = self.now;
        if let Some(establishing) = &mut self.establishing {
            let actions = establishing.closed(link, now);
            self.link_actions(actions);
        }
        let Some(session) = &self.session else {
            return;
        };
        if self.state.connection == Connection::TearDown {
            self.lose(Connection::TearDown, "the peer disconnected");
        } else if link == session.data {
            self.lose(Connection::BrokenPipe, why);
        } else if link == session.meta {
            self.lose(Connection::NetworkFailure, why);
        }
    }

    pub(super) fn garbled(&mut self, link: LinkId, why: &str) {
        let now = self.now;
        self.act(Action::Close(link));
        if let Some(establishing) = &mut self.establishing {
            let actions = establishing.closed(link, now);
            self.link_actions(actions);
        }
        if self
            .session
            .as_ref()
            .is_some_and(|session| [session.data, session.meta].contains(&link))
        {
            self.lose(Connection::ProtocolError, why);
        }
    }

    pub(super) fn packet(&mut self, link: LinkId, packet: Packet) {
        let now = self.now;
        if let Some(establishing) = &mut self.establishing {
            let actions = match packet {
                Packet::Bare(kind @ (BareKind::InitialData | BareKind::InitialMeta)) => {
                    establishing.introduced(link, kind, now)
                }
                // The peer is a step ahead: its features wait for our other connection. What
                // came on a connection before this one is of no more use.
                Packet::Features(_)
                    if self
                        .early_features
                        .as_ref()
                        .is_none_or(|(on, _)| *on != link) =>
                {
                    self.early_features = Some((link, packet));
                    establishing.believe(link)
                }
                _ => vec![LinkAction::Close(link)],
            };
            self.link_actions(actions);
            return;
        }
        let Some(session) = &mut self.session else {
            return;
        };
        let socket = if link == session.data {
            Socket::Data
        } else if link == session.meta {
            Socket::Meta
        } else {
            return;
        };
        session.last_heard = now;
        match (&packet, session.phase, socket) {
            (Packet::Bare(BareKind::Ping), _, Socket::Meta) => {
                self.send(Packet::Bare(BareKind::PingAck));
            }
            (_, Phase::Parameters, Socket::Data) => {
                if session.closing_epoch.is_some() || !session.backlog.is_empty() {
                    session.backlog.push_back(packet);
                } else {
                    self.data_packet(packet);
                }
            }
            (_, Phase::Parameters, Socket::Meta) => self.meta_packet(packet),
            (_, _, Socket::Data) => self.handshake(packet),
            (_, _, Socket::Meta) => {}
        }
    }

    /// Goes on with packets that waited for an epoch to be closed.
    pub(super) fn advance_backlog(&mut self) {
        while let Some(session) = &mut self.session {
            if session.closing_epoch.is_some() {
                return;
            }
            match session.backlog.pop_front() {
                Some(packet) => self.data_packet(packet),
                None => return,
            }
        }
    }

    fn handshake(&mut self, packet: Packet) {
        let (Some(session), Some(net)) = (&mut self.session, &self.net) else {
            return;
        };
        session.phase_until = Some(self.now + handshake_step(net));
        match (session.phase, packet) {
            (Phase::Features, Packet::Features(features)) => self.agree_on_features(features),
            (Phase::Challenge, Packet::Auth(AuthKind::Challenge, challenge)) => {
                self.answer_challenge(&challenge);
            }
            (Phase::Response, Packet::Auth(AuthKind::Response, response)) => {
                self.check_response(&response);
            }
            (Phase::Features, Packet::Bare(_)) => {
                // A second call that crossed ours; the peer goes on with one of them.
                self.lose(Connection::NetworkFailure, "two calls crossed");
            }
            (Phase::Challenge, Packet::Protocol(_)) => self.give_up(
                "the peer does not prove that it knows the shared secret: \
                 cram-hmac-alg and shared-secret are set here and not there",
            ),
            (Phase::Features, other) => self.give_up(&format!(
                "the peer began with {} and not with its features",
                kind_of(&other)
            )),
            (_, other) => {
                let why = format!("{} came in the middle of the handshake", kind_of(&other));
                self.lose(Connection::ProtocolError, &why);
            }
        }
    }

    fn agree_on_features(&mut self, theirs: Features) {
        let Some(dialect) = Features::OWN.agreed(theirs) else {
            self.give_up(&format!(
                "the peer speaks versions {} to {}, and here it is {} to {}",
                theirs.version_min,
                theirs.version_max,
                Features::OWN.version_min,
                Features::OWN.version_max
            ));
            return;
        };
        let words: Vec<u64> = (0..CHALLENGE_BYTES / 8)
            .map(|_| self.random.next())
            .collect();
        let (Some(session), Some(net)) = (&mut self.session, &self.net) else {
            return;
        };
        session.dialect = dialect;
        let version = dialect.version;
        if net.authentication.is_some() {
            session.phase = Phase::Challenge;
            session.challenge = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let challenge = Bytes::copy_from_slice(&session.challenge);
            self.send(Packet::Auth(AuthKind::Challenge, challenge));
        } else {
            self.send_parameters();
        }
        self.log(format!("agreed on protocol version {version}"));
    }

    fn keyed(&self, message: &[u8]) -> Option<Vec<u8>> {
        let authentication = self.net.as_ref()?.authentication.as_ref()?;
        Algorithm::by_name(&authentication.algorithm)?
            .keyed(authentication.secret.0.as_bytes(), message)
    }

    fn answer_challenge(&mut self, challenge: &Bytes) {
        let Some(session) = &mut self.session else {
            return;
        };
        if challenge.len() < CHALLENGE_BYTES || challenge.len() > 2 * CHALLENGE_BYTES {
            self.lose(Connection::ProtocolError, "a challenge of the wrong length");
            return;
        }
        if digest::same(&challenge[..CHALLENGE_BYTES], &session.challenge) {
            self.give_up("the peer sent back our own challenge");
            return;
        }
        session.phase = Phase::Response;
        match self.keyed(challenge) {
            Some(response) => self.send(Packet::Auth(AuthKind::Response, response.into())),
            None => self.give_up("the algorithm of cram-hmac-alg has no keyed form"),
        }
    }

    fn check_response(&mut self, response: &Bytes) {
        let Some(session) = &self.session else {
            return;
        };
        let challenge = session.challenge.clone();
        match self.keyed(&challenge) {
            Some(expected) if digest::same(&expected, response) => {
                self.log("the peer proved that it knows the shared secret");
                self.send_parameters();
            }
            Some(expected) if expected.len() != response.len() => {
                self.lose(Connection::ProtocolError, "a response of the wrong length");
            }
            _ => self.give_up("the peer has another shared secret"),
        }
    }

    fn send_parameters(&mut self) {
        if let Some(session) = &mut self.session {
            session.phase = Phase::Parameters;
            session.phase_until = None;
        }
        self.announce_parameters();
        self.change(State {
            connection: Connection::WFReportParams,
            ..self.state
        });
    }

    /// The connection is lost, and is looked for again.
    pub(super) fn lose(&mut self, how: Connection, why: &str) {
        if self.session.is_none() && self.establishing.is_none() {
            return;
        }
        self.log(format!("connection lost ({how}): {why}"));
        self.last_trouble = Some(why.to_owned());
        let established = self.established();
        self.end_session(how);
        if self.net.is_none() {
            self.stand_alone();
            return;
        }
        self.change(State {
            connection: Connection::Unconnected,
            ..self.state
        });
        if established || how == Connection::TearDown {
            self.look_for_peer();
        } else {
            // Not to call a peer in a fast circle that one cannot agree with.
            self.retry_at = Some(self.now + RETRY_AFTER);
        }
    }

    /// The two do not fit; only a command begins again.
    pub(super) fn give_up(&mut self, why: &str) {
        self.log(format!("the connection is given up: {why}"));
        self.last_trouble = Some(why.to_owned());
        self.end_session(Connection::Disconnecting);
        self.stand_alone();
    }

    /// Closes the connection for good.
    pub(super) fn stand_alone(&mut self) {
        if self.session.is_some() || self.establishing.is_some() {
            self.end_session(Connection::Disconnecting);
        }
        self.net = None;
        self.retry_at = None;
        self.discard_my_data = false;
        self.tentative = false;
        self.change(State {
            connection: Connection::StandAlone,
            ..self.state
        });
    }

    fn end_session(&mut self, how: Connection) {
        let mut links = Vec::new();
        if let Some(establishing) = self.establishing.take() {
            links.extend(establishing.links());
        }
        self.act(Action::StopListening);
        let session = self.session.take();
        if let Some(session) = &session {
            links.extend([session.data, session.meta]);
        }
        for link in links {
            self.act(Action::Close(link));
        }
        // A new generation is on disk before anybody is told of a write that is only here.
        self.change(State {
            connection: how,
            ..self.state
        });
        if let Some(ended) = &session {
            self.promote_after_loss(&ended.after_ping);
        }
        if session.is_some() {
            self.counters.unacknowledged = 0;
            self.requests_lost_peer(session);
            self.asked_in_vain();
        }
        self.save_bitmap_after_loss();
    }

    /// Bits marked while connected reach the disk when the peer is gone.
    fn save_bitmap_after_loss(&mut self) {
        if self
            .disk
            .as_ref()
            .is_some_and(|disk| !disk.bitmap.all_saved())
        {
            self.save_bitmap();
        }
    }

    pub(super) fn session_deadline(&self, session: &Session) -> Duration {
        let Some(net) = &self.net else {
            return self.now;
        };
        let ping = match session.ping_sent {
            Some(sent) => sent + tenths(net.ping_timeout),
            None => session.last_heard + Duration::from_secs(u64::from(net.ping_int.max(1))),
        };
        let ping = if session.phase == Phase::Parameters {
            ping
        } else {
            session.phase_until.unwrap_or(ping)
        };
        ping.min(session.late_check_at)
    }

    pub(super) fn session_tick(&mut self) {
        if self.retry_at.is_some_and(|at| at <= self.now) {
            self.look_for_peer();
        }
        let now = self.now;
        if let Some(establishing) = &mut self.establishing {
            let actions = establishing.tick(now);
            self.link_actions(actions);
        }
        self.watch_peer();
    }

    fn watch_peer(&mut self) {
        let (Some(session), Some(net)) = (&mut self.session, &self.net) else {
            return;
        };
        if session.phase_until.is_some_and(|until| until <= self.now) {
            self.lose(
                Connection::NetworkFailure,
                "the peer did not go on with the handshake in time",
            );
            return;
        }
        if session.phase != Phase::Parameters {
            return;
        }
        let limit = tenths(net.timeout) * net.ko_count;
        if session.late_check_at <= self.now {
            session.late_check_at = self.now + tenths(net.timeout);
            let oldest = self.oldest_unanswered();
            if net_gives_up(limit, oldest, self.now) {
                self.lose(
                    Connection::Timeout,
                    "the peer did not answer a request in ko-count times timeout",
                );
                return;
            }
        }
        let (Some(session), Some(net)) = (&mut self.session, &self.net) else {
            return;
        };
        match session.ping_sent {
            Some(sent) if sent + tenths(net.ping_timeout) <= self.now => {
                self.lose(Connection::NetworkFailure, "PingAck did not arrive in time");
            }
            None if session.last_heard + Duration::from_secs(net.ping_int.max(1).into())
                <= self.now =>
            {
                self.ping();
            }
            _ => {}
        }
    }

    /// Asks the peer for a sign of life.
    pub(super) fn ping(&mut self) {
        let now = self.now;
        if let Some(session) = &mut self.session
            && session.ping_sent.is_none()
        {
            session.ping_sent = Some(now);
            session.pings += 1;
            self.send(Packet::Bare(BareKind::Ping));
        }
    }

    /// Does something once the peer has dealt with everything sent before on the meta
    /// connection.
    pub(super) fn after_ping(&mut self, what: AfterPing) {
        let now = self.now;
        let Some(session) = &mut self.session else {
            return;
        };
        if session.after_ping.contains(&what) {
            return;
        }
        session.after_ping.push(what);
        // Not one that is under way: it may have overtaken what is waited for.
        session.ping_sent = Some(now);
        session.pings += 1;
        self.send(Packet::Bare(BareKind::Ping));
    }

    pub(super) fn ping_answered(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.pings = session.pings.saturating_sub(1);
        if session.pings > 0 {
            return;
        }
        session.ping_sent = None;
        for what in std::mem::take(&mut session.after_ping) {
            match what {
                AfterPing::Finish => self.finish_exchange(),
                AfterPing::Remind if self.state.connection == Connection::Connected => {
                    self.send_state();
                }
                AfterPing::Remind => {}
                AfterPing::Promote { id, force } => self.promote_or_refuse(id, force),
            }
        }
    }
}

fn net_gives_up(limit: Duration, oldest: Option<Duration>, now: Duration) -> bool {
    !limit.is_zero() && oldest.is_some_and(|since| since + limit <= now)
}

/// A packet's name for messages: what it is, not what it holds.
pub(super) fn kind_of(packet: &Packet) -> String {
    let text = format!("{packet:?}");
    let end = text
        .find(|letter: char| !letter.is_alphanumeric())
        .unwrap_or(text.len());
    format!("a packet `{}`", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::control::Command;
    use crate::replica::engine::Event;
    use crate::replica::settings::Names;

    fn looking() -> Engine {
        let names = Names {
            resource: "r0".to_owned(),
            minor: 0,
            volume: 0,
        };
        let mut engine = Engine::new(names, 7);
        let address = |last| std::net::SocketAddr::from(([10, 0, 23, last], 7788));
        let connect = Command::Connect {
            net: NetSettings::new(address(2), address(3)),
            discard_my_data: false,
            tentative: false,
        };
        let event = Event::Command {
            id: 1,
            command: Box::new(connect),
            device_open: false,
        };
        engine.handle(Duration::ZERO, event);
        engine
    }

    /// Seed 21031: two nodes that never met again.
    #[test]
    fn features_from_a_connection_that_is_gone_do_not_close_the_next() {
        let mut engine = looking();
        let mut tell = |event| engine.handle(Duration::from_secs(1), event);
        let introduce = |link, kind| Event::Packet(LinkId(link), Packet::Bare(kind));
        let features = |link| Event::Packet(LinkId(link), Packet::Features(Features::OWN));
        // The calls cross, and the peer goes on with its own.
        tell(Event::Connected(LinkId(1)));
        tell(Event::Accepted(LinkId(2)));
        tell(introduce(2, BareKind::InitialData));
        tell(features(2));
        // It loses its other connection meanwhile, and begins again.
        tell(Event::Closed(LinkId(2), "cut".to_owned()));
        tell(Event::Accepted(LinkId(4)));
        tell(introduce(4, BareKind::InitialData));
        tell(Event::Accepted(LinkId(6)));
        tell(introduce(6, BareKind::InitialMeta));
        tell(features(4));
        assert!(engine.is_data_link(LinkId(4)));
        let closed = engine
            .take_actions()
            .any(|action| matches!(action, Action::Close(LinkId(4))));
        assert!(!closed);
    }
}
