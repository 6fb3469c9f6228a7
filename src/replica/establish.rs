//! Two TCP connections between two nodes that both listen and both call.
//!
//! Either node may make either connection; the first packet on each, from whoever called,
//! says whether it is for data or for acknowledgements. Who accepted the meta connection
//! breaks ties later, so both must see that the same way.
//!
//! ```text
//!   Calling ──connected──> role given, first packet sent ──both there──> done
//!      ↑ └──refused──> Listening ──first packet of a caller──> role given ──┘ │
//!      └───────────────── nobody called for connect-int ──────────────────────┘
//! ```
//!
//! When two calls cross, each node may close the connection the other goes on with. Then
//! both wait a moment before they believe in what they have, and try again after a time of
//! their own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::BareKind;

/// One TCP connection, or the attempt to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What is to be done about connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Calls the peer; ends in `connected` or `closed`.
    Call(LinkId),
    /// Sends the packet that says what the connection is for.
    Introduce(LinkId, BareKind),
    Close(LinkId),
    Established(Established),
}

/// Both connections are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    pub data: LinkId,
    pub meta: LinkId,
    /// This node accepted the meta connection.
    pub resolves_conflicts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Calling(LinkId),
    Listening {
        until: Duration,
    },
    /// Both are there, and calls crossed: are they still there in a moment?
    Checking {
        until: Duration,
    },
}

/// How long connections made of crossing calls must last to be believed in.
const CHECK_FOR: Duration = Duration::from_millis(200);
/// At most so long after crossing calls the peer is called again.
const AGAIN_WITHIN_MS: u64 = 1000;

/// Finds the peer, until both connections are there.
#[derive(Clone, Debug)]
pub struct Establishing {
    phase: Phase,
    connect_int: Duration,
    first_packet_within: Duration,
    data: Option<LinkId>,
    meta: Option<LinkId>,
    resolves_conflicts: bool,
    crossed: bool,
    /// Callers that did not say yet what they are for, with their deadlines.
    strangers: BTreeMap<LinkId, Duration>,
    next_link: u64,
    random: u64,
}

impl Establishing {
    /// Begins with a call. Own calls get odd-numbered links from `first_link` on; accepted
    /// ones are numbered by whoever accepts them, from other numbers.
    pub fn new(
        now: Duration,
        connect_int: Duration,
        first_packet_within: Duration,
        first_link: u64,
        random: u64,
    ) -> (Self, Vec<LinkAction>) {
        let mut establishing = Self {
            phase: Phase::Listening { until: now },
            connect_int,
            first_packet_within,
            data: None,
            meta: None,
            resolves_conflicts: false,
            crossed: false,
            strangers: BTreeMap::new(),
            next_link: first_link,
            random,
        };
        let mut actions = Vec::new();
        establishing.call(&mut actions);
        (establishing, actions)
    }

    fn call(&mut self, actions: &mut Vec<LinkAction>) {
        let link = LinkId(self.next_link);
        self.next_link += 2;
        self.phase = Phase::Calling(link);
        actions.push(LinkAction::Call(link));
    }

    fn listen(&mut self, now: Duration) {
        if self.crossed {
            self.coin();
            let soon = Duration::from_millis((self.random >> 32) % AGAIN_WITHIN_MS);
            self.phase = Phase::Listening { until: now + soon };
            return;
        }
        // A seventh more or less, so that two nodes do not stay in step.
        let seventh = self.connect_int / 7;
        let until = if self.coin() {
            now + self.connect_int + seventh
        } else {
            now + self.connect_int.saturating_sub(seventh)
        };
        self.phase = Phase::Listening { until };
    }

    fn coin(&mut self) -> bool {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random >> 63 == 1
    }

    /// The number the next own call would have; for whoever goes on from here.
    pub fn next_link(&self) -> u64 {
        self.next_link
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        let listening = match self.phase {
            Phase::Listening { until } | Phase::Checking { until } => Some(until),
            Phase::Calling(_) => None,
        };
        self.strangers.values().copied().chain(listening).min()
    }

    /// Every connection there is.
    pub fn links(&self) -> Vec<LinkId> {
        let calling = match self.phase {
            Phase::Calling(link) => Some(link),
            Phase::Listening { .. } | Phase::Checking { .. } => None,
        };
        self.strangers
            .keys()
            .copied()
            .chain(self.data)
            .chain(self.meta)
            .chain(calling)
            .collect()
    }

    pub fn accepted(&mut self, link: LinkId, now: Duration) {
        self.strangers.insert(link, now + self.first_packet_within);
    }

    pub fn connected(&mut self, link: LinkId, now: Duration) -> Vec<LinkAction> {
        let mut actions = Vec::new();
        if self.phase != Phase::Calling(link) {
            actions.push(LinkAction::Close(link));
            return actions;
        }
        if self.data.is_none() {
            self.data = Some(link);
            actions.push(LinkAction::Introduce(link, BareKind::InitialData));
        } else if self.meta.is_none() {
            self.meta = Some(link);
            self.resolves_conflicts = false;
            actions.push(LinkAction::Introduce(link, BareKind::InitialMeta));
        } else {
            actions.push(LinkAction::Close(link));
        }
        self.listen(now);
        self.finish(now, &mut actions);
        actions
    }

    /// The first packet of somebody who called.
    pub fn introduced(&mut self, link: LinkId, kind: BareKind, now: Duration) -> Vec<LinkAction> {
        let mut actions = Vec::new();
        if self.strangers.remove(&link).is_none() {
            return actions;
        }
        let place = match kind {
            BareKind::InitialData => &mut self.data,
            BareKind::InitialMeta => {
                self.resolves_conflicts = true;
                &mut self.meta
            }
            _ => {
                actions.push(LinkAction::Close(link));
                return actions;
            }
        };
        let crossed = place.replace(link);
        if let Some(old) = crossed {
            actions.push(LinkAction::Close(old));
            self.crossed = true;
        }
        if self.finish(now, &mut actions) {
            return actions;
        }
        let listening = matches!(self.phase, Phase::Listening { .. });
        // Two calls crossed: one node waits, the other calls, by chance.
        if listening && (crossed.is_none() || self.coin()) {
            self.call(&mut actions);
        } else if listening {
            self.listen(now);
        }
        actions
    }

    /// The peer goes on with this connection: no need to wait any longer.
    pub fn believe(&mut self, link: LinkId) -> Vec<LinkAction> {
        let mut actions = Vec::new();
        if matches!(self.phase, Phase::Checking { .. }) && self.data == Some(link) {
            self.establish(&mut actions);
        }
        actions
    }

    pub fn closed(&mut self, link: LinkId, now: Duration) -> Vec<LinkAction> {
        self.strangers.remove(&link);
        if self.data == Some(link) {
            self.data = None;
        }
        if self.meta == Some(link) {
            self.meta = None;
        }
        if self.phase == Phase::Calling(link)
            || self.crossed && !matches!(self.phase, Phase::Calling(_))
        {
            self.listen(now);
        }
        Vec::new()
    }

    pub fn tick(&mut self, now: Duration) -> Vec<LinkAction> {
        let mut actions = Vec::new();
        let silent: Vec<LinkId> = self
            .strangers
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(link, _)| *link)
            .collect();
        for link in silent {
            self.strangers.remove(&link);
            actions.push(LinkAction::Close(link));
        }
        match self.phase {
            Phase::Listening { until } if until <= now => self.call(&mut actions),
            Phase::Checking { until } if until <= now => {
                self.establish(&mut actions);
            }
            _ => {}
        }
        actions
    }

    /// Whether both are there; then nothing more is to be done but to check them.
    fn finish(&mut self, now: Duration, actions: &mut Vec<LinkAction>) -> bool {
        if self.data.is_none() || self.meta.is_none() {
            return false;
        }
        if self.crossed {
            let calling = match self.phase {
                Phase::Calling(link) => Some(link),
                _ => None,
            };
            actions.extend(calling.map(LinkAction::Close));
            self.phase = Phase::Checking {
                until: now + CHECK_FOR,
            };
            return true;
        }
        self.establish(actions)
    }

    fn establish(&mut self, actions: &mut Vec<LinkAction>) -> bool {
        let (Some(data), Some(meta)) = (self.data, self.meta) else {
            return false;
        };
        if let Phase::Calling(link) = self.phase {
            actions.push(LinkAction::Close(link));
        }
        for link in std::mem::take(&mut self.strangers).into_keys() {
            actions.push(LinkAction::Close(link));
        }
        actions.push(LinkAction::Established(Established {
            data,
            meta,
            resolves_conflicts: self.resolves_conflicts,
        }));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn new() -> (Establishing, Vec<LinkAction>) {
        Establishing::new(Duration::ZERO, 10 * SECOND, 2 * SECOND, 1, 7)
    }

    #[test]
    fn who_comes_second_makes_the_data_connection_and_accepts_the_other() {
        let (mut node, actions) = new();
        assert_eq!(actions, [LinkAction::Call(LinkId(1))]);
        assert_eq!(
            node.connected(LinkId(1), SECOND),
            [LinkAction::Introduce(LinkId(1), BareKind::InitialData)]
        );
        node.accepted(LinkId(100), SECOND);
        let done = Established {
            data: LinkId(1),
            meta: LinkId(100),
            resolves_conflicts: true,
        };
        assert_eq!(
            node.introduced(LinkId(100), BareKind::InitialMeta, SECOND),
            [LinkAction::Established(done)]
        );
    }

    #[test]
    fn who_was_there_first_calls_back_for_the_meta_connection() {
        let (mut node, _) = new();
        assert_eq!(node.closed(LinkId(1), SECOND), []);
        node.accepted(LinkId(100), 2 * SECOND);
        assert_eq!(
            node.introduced(LinkId(100), BareKind::InitialData, 2 * SECOND),
            [LinkAction::Call(LinkId(3))]
        );
        let done = Established {
            data: LinkId(100),
            meta: LinkId(3),
            resolves_conflicts: false,
        };
        assert_eq!(
            node.connected(LinkId(3), 2 * SECOND),
            [
                LinkAction::Introduce(LinkId(3), BareKind::InitialMeta),
                LinkAction::Established(done)
            ]
        );
    }

    #[test]
    fn a_caller_that_says_nothing_is_dropped_and_the_peer_called_again() {
        let (mut node, _) = new();
        node.closed(LinkId(1), SECOND);
        node.accepted(LinkId(100), SECOND);
        assert_eq!(node.next_deadline(), Some(3 * SECOND));
        assert_eq!(node.tick(3 * SECOND), [LinkAction::Close(LinkId(100))]);
        let again = node.next_deadline().unwrap();
        assert_eq!(node.tick(again), [LinkAction::Call(LinkId(3))]);
    }
}
