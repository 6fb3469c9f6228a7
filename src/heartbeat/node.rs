//! The cluster daemon's state machine: packets, time and outcomes in; packets and commands out.
//!
//! ```text
//!  Starting ──every node heard or declared dead──▶ Joining ──`repnodes`──▶ Active
//!     │                      (no node alive: straight to Active)             │
//!     └──────────────stop────────────────┬───────────────────stop────────────┘
//!                                        ▼
//!   Releasing (wait for stand-by, stop groups) ──`shutdone`──▶ Leaving ──2 s──▶ Gone
//! ```
//!
//! A node that returns in the same generation after it was declared dead shows that the
//! link was cut: both sides give everything up and start again with a new generation,
//! as heartbeat does. A node that finds that it did not speak for its own dead time (it
//! was paused) must assume that it was declared dead: it gives everything up without a
//! word and starts again.
//!
//! The driver reads all sockets before it calls [`Node::timeout`], so that packets that
//! waited while this process slept count before the silence does.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::agreement;
use super::codec::{self, DecodeError};
use super::config::{AutoFailback, Config};
use super::detector::{NodeStatus, Peer, Uuid};
use super::effect::{Effect, Level, Reason, Share};
use super::jobs::{
    Direction, Finished, GroupState, JobEvent, Jobs, Outcome, ResourceCommand, Verb, Work,
};
use super::legacy::Legacy;
use super::message::{Message, Value};
use super::ping::{IpFail, PingChange, PingNodes};
use super::random::Random;
use super::resources::{Failback, Resources};
use super::sequence::{Arrival, Outbox, Resend};
use super::status::{Counters, GroupView, LinkView, NodeView, PingView, Snapshot};

/// Between two requests for the list of nodes.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Added to the advertised dead time just after the start, when scripts keep a node busy.
const EARLY_ALLOWANCE: Duration = Duration::from_secs(2);

/// How long that is.
const EARLY: Duration = Duration::from_secs(5);

/// Added before a restart, which is silent for about the dead time.
const RESTART_ALLOWANCE: Duration = Duration::from_secs(30);

/// From `shutdone` to the end, so that a lost last message can be asked for.
const LEAVING: Duration = Duration::from_secs(2);

/// A shutdown waits no longer than this for a stand-by to end; heartbeat's own limit.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(60 * 60);

/// A clock that is later than planned by more than this means that the process slept.
const LATE: Duration = Duration::from_millis(200);

/// Dead times taken from a peer: a misconfigured one must not keep this node from ever
/// taking over, nor make it take over between two beats.
const LIMIT_MIN: Duration = Duration::from_millis(100);
const LIMIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who this node is in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uuid: Uuid,
    /// Higher than in any run before, and saved before the first packet.
    pub generation: u64,
    /// Spreads requests in time.
    pub seed: u64,
}

/// What the clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never goes back; any origin.
    pub at: Duration,
    /// Seconds since 1970, for the `ts` field only.
    pub unix_seconds: u64,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// On every medium.
    Send(Vec<u8>),
    /// Echo requests; answers come to [`Node::ping_answer`].
    Ping(Vec<Ipv4Addr>),
    /// To be answered by [`Node::outcome`].
    Run(ResourceCommand),
    Log(Level, String),
    /// A resource cannot be stopped: only a restart of the machine keeps two nodes from
    /// having it.
    Reboot(String),
    Exit(Exit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Stopped,
    /// To begin anew after a pause, with a new generation.
    Restart { after: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Joining { ask_at: Duration },
    Active,
    Releasing { exit: Exit, stage: ReleaseStage },
    Leaving { exit: Exit, until: Duration },
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReleaseStage {
    /// A stand-by or running scripts are waited for.
    Waiting { until: Duration },
    /// The groups are being stopped.
    Stopping { voice: Voice },
}

/// Whether a node that gives everything up says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Speaking,
    /// It was declared dead; a word of its old generation would upset the others.
    Silent,
}

/// One of the two resource protocols.
#[derive(Debug)]
enum Protocol {
    Shared(Box<Resources>),
    Legacy(Legacy),
}

/// One node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    identity: Identity,
    random: Random,
    started: Duration,
    phase: Phase,
    status: NodeStatus,
    next_status: Duration,
    last_status: Duration,
    outbox: Outbox,
    peers: Vec<Peer>,
    protocol: Protocol,
    pings: PingNodes,
    ipfail: Option<IpFail>,
    jobs: Jobs<Reason>,
    load: String,
    /// Silence does not count before this: this process slept and may not have read yet.
    grace_until: Duration,
    counters: Counters,
    actions: Vec<Action>,
}

impl Node {
    /// Begins, with what messages say of the machine's load: the first status messages go out, and what a crashed run left is stopped.
    pub fn new(config: Config, identity: Identity, load: &str, now: Now) -> (Self, Vec<Action>) {
        let mut random = Random::new(identity.seed);
        let links: Vec<String> = config
            .ha_cf
            .media
            .iter()
            .map(|medium| medium.interface.text.clone())
            .collect();
        let peers = config
            .ha_cf
            .nodes
            .iter()
            .filter(|node| node.text != config.own_name)
            .map(|node| Peer::new(&node.text, &links, now.at, &mut random))
            .collect();
        let mut node = Self {
            protocol: protocol(&config),
            pings: PingNodes::new(
                &config.ha_cf.ping,
                config.ha_cf.deadping,
                config.ha_cf.keepalive,
                now.at,
            ),
            ipfail: config
                .ha_cf
                .ipfail
                .then(|| IpFail::new(config.ha_cf.keepalive)),
            jobs: Jobs::new(&config.resources.groups),
            random,
            started: now.at,
            phase: Phase::Starting,
            status: NodeStatus::Init,
            next_status: now.at + config.ha_cf.keepalive,
            last_status: now.at,
            outbox: Outbox::default(),
            peers,
            load: load.to_owned(),
            grace_until: now.at,
            counters: Counters::default(),
            actions: Vec::new(),
            config,
            identity,
        };
        node.begin(now);
        let actions = node.finish(now);
        (node, actions)
    }

    /// Sets what messages say of the machine's load: the first line of `/proc/loadavg`.
    pub fn set_load(&mut self, load: &str) {
        load.clone_into(&mut self.load);
    }

    /// Takes a datagram that came on a medium.
    pub fn packet(&mut self, medium: usize, packet: &[u8], now: Now) -> Vec<Action> {
        self.wake(now);
        match codec::decode(packet, &self.config.keys) {
            Ok(message) => self.message(medium, &message, now),
            Err(error) => self.bad_packet(&error),
        }
        self.finish(now)
    }

    /// Takes what came of a command.
    pub fn outcome(&mut self, token: u64, outcome: Outcome, now: Now) -> Vec<Action> {
        self.wake(now);
        let mut events = Vec::new();
        self.jobs.outcome(token, outcome, now.at, &mut events);
        self.job_events(events, now);
        self.finish(now)
    }

    /// A ping node's host answered.
    pub fn ping_answer(&mut self, from: Ipv4Addr, now: Now) -> Vec<Action> {
        self.wake(now);
        let changes = self.pings.answer(from, now.at);
        self.ping_changes(changes, now);
        self.finish(now)
    }

    /// Does what is due; to be called at [`Self::deadline`], after all packets are read.
    pub fn timeout(&mut self, now: Now) -> Vec<Action> {
        self.wake(now);
        self.check_own_silence(now);
        if !self.is_silent() {
            self.check_peers(now);
            self.check_pings(now);
            self.request_missing(now);
            self.protocol_timeout(now);
            if self.next_status <= now.at {
                self.send_status(now);
            }
        }
        self.advance(now);
        self.finish(now)
    }

    /// The user wants this node to give groups to the other.
    pub fn stand_by(&mut self, share: Share, now: Now) -> (Result<(), String>, Vec<Action>) {
        self.wake(now);
        let mut out = Vec::new();
        let result = match (&mut self.protocol, self.phase) {
            (Protocol::Legacy(_), _) => Err(
                "Standby mode only implemented when auto_failback is on or off (see ha.cf)".into(),
            ),
            (Protocol::Shared(resources), Phase::Active) => {
                resources.stand_by(share, now.at, &mut out)
            }
            _ => Err("this node is starting or leaving".into()),
        };
        self.perform(out, now);
        (result, self.finish(now))
    }

    /// The user wants the other node to give groups to this one.
    pub fn take_over(&mut self, share: &str, now: Now) -> (Result<(), String>, Vec<Action>) {
        self.wake(now);
        let result = match (&self.protocol, self.phase) {
            (Protocol::Legacy(_), _) => Err(
                "Standby mode only implemented when auto_failback is on or off (see ha.cf)".into(),
            ),
            (Protocol::Shared(_), Phase::Active) if self.peers.iter().any(Peer::is_alive) => {
                let message = Message::of_type("hb_takeover").with("rsc_hold", share);
                self.send(message, now);
                Ok(())
            }
            (Protocol::Shared(_), Phase::Active) => Err("the other node is not there".into()),
            _ => Err("this node is starting or leaving".into()),
        };
        (result, self.finish(now))
    }

    /// The user wants the daemon to end; twice is as once.
    pub fn stop(&mut self, now: Now) -> Vec<Action> {
        self.wake(now);
        match self.phase {
            Phase::Releasing { stage, .. } => {
                self.phase = Phase::Releasing {
                    exit: Exit::Stopped,
                    stage,
                };
            }
            Phase::Leaving { until, .. } => {
                self.phase = Phase::Leaving {
                    exit: Exit::Stopped,
                    until,
                };
            }
            Phase::Gone => {}
            _ => {
                self.log(Level::Info, "Heartbeat shutdown in progress.");
                self.leave(Exit::Stopped, now);
            }
        }
        self.advance(now);
        self.finish(now)
    }

    /// When [`Self::timeout`] is to be called next; `None` when the node is gone.
    pub fn deadline(&self) -> Option<Duration> {
        let (phase, quiet) = match self.phase {
            Phase::Gone => return None,
            Phase::Starting | Phase::Active => (None, false),
            Phase::Joining { ask_at } => (Some(ask_at), false),
            Phase::Releasing {
                stage: ReleaseStage::Waiting { until },
                ..
            }
            | Phase::Leaving { until, .. } => (Some(until), false),
            Phase::Releasing {
                stage: ReleaseStage::Stopping { voice },
                ..
            } => (None, voice == Voice::Silent),
        };
        let jobs = self.jobs.deadline();
        if quiet {
            // Only a script's end matters now, which comes by itself.
            return Some(jobs.unwrap_or(self.last_status + SHUTDOWN_WAIT));
        }
        let peers = self.peers.iter().flat_map(|peer| {
            let limit = self.limit_of(peer);
            let dead_at = peer.dead_at(limit).map(|at| at.max(self.grace_until));
            let requests = peer.inbox.deadline().filter(|_| peer.is_alive());
            [dead_at, peer.link_dead_at(limit), requests]
        });
        [
            Some(self.next_status),
            phase,
            jobs,
            self.protocol_deadline(),
            self.pings.deadline(),
            self.ipfail.as_ref().and_then(IpFail::deadline),
        ]
        .into_iter()
        .chain(peers)
        .flatten()
        .min()
    }

    /// Returns the state for people and tools.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut nodes: Vec<NodeView> = Vec::new();
        for node in &self.config.ha_cf.nodes {
            let peer = self.peers.iter().find(|peer| peer.name == node.text);
            nodes.push(NodeView {
                name: node.text.clone(),
                status: peer.map_or(self.status, |peer| peer.status),
                last_heard_ms: peer.map(|peer| millis(now.at.saturating_sub(peer.heard))),
                dead_after_ms: peer.map(|peer| millis(self.limit_of(peer))),
                generation: match peer {
                    Some(peer) => peer.generation,
                    None => Some(self.identity.generation),
                },
                links: self.link_views(peer),
            });
        }
        let groups = self.config.resources.groups.iter().zip(self.jobs.states());
        Snapshot {
            node: self.config.own_name.clone(),
            phase: match self.phase {
                Phase::Starting => "starting",
                Phase::Joining { .. } => "joining",
                Phase::Active => "active",
                Phase::Releasing { .. } => "releasing",
                Phase::Leaving { .. } => "leaving",
                Phase::Gone => "gone",
            }
            .into(),
            resources: match &self.protocol {
                Protocol::Shared(resources) => resources.status(),
                Protocol::Legacy(_) => "none".into(),
            },
            nodes,
            groups: groups
                .map(|(group, state)| GroupView {
                    owner: group.owner.text.clone(),
                    resources: group
                        .resources
                        .iter()
                        .map(|resource| resource.word.text.clone())
                        .collect(),
                    state: *state,
                })
                .collect(),
            pings: self
                .pings
                .nodes()
                .iter()
                .map(|node| PingView {
                    name: node.name.clone(),
                    is_up: node.is_up,
                })
                .collect(),
            counters: self.counters,
        }
    }

    /// Returns what is known of each group here.
    pub fn group_states(&self) -> &[GroupState] {
        self.jobs.states()
    }

    /// Returns what this node thinks of another.
    pub fn status_of(&self, name: &str) -> Option<NodeStatus> {
        if name == self.config.own_name {
            return Some(self.status);
        }
        let peer = self.peers.iter().find(|peer| peer.name == name)?;
        Some(peer.status)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn link_views(&self, peer: Option<&Peer>) -> Vec<LinkView> {
        match peer {
            Some(peer) => peer
                .links
                .iter()
                .map(|link| LinkView {
                    name: link.name.clone(),
                    is_up: link.is_up,
                })
                .collect(),
            // heartbeat shows its own end of each link as dead: it hears nobody there.
            None => self
                .config
                .ha_cf
                .media
                .iter()
                .map(|medium| LinkView {
                    name: medium.interface.text.clone(),
                    is_up: false,
                })
                .collect(),
        }
    }

    fn begin(&mut self, now: Now) {
        self.set_status(NodeStatus::Init, now);
        self.set_status(NodeStatus::Up, now);
        self.send_status(now);
        let groups: Vec<usize> = (0..self.config.resources.groups.len()).collect();
        if !groups.is_empty() {
            self.jobs.push(Work {
                reason: Reason::CleanUp,
                direction: Direction::CleanUp,
                groups,
            });
        }
        self.advance(now);
    }

    /// Notices that this process slept past what it had planned.
    fn wake(&mut self, now: Now) {
        if let Some(planned) = self.deadline()
            && !planned.is_zero()
            && now.at > planned + LATE
        {
            self.grace_until = now.at + self.config.ha_cf.keepalive.min(LATE);
        }
    }

    /// Runs what is due now and hands the actions out.
    fn finish(&mut self, now: Now) -> Vec<Action> {
        let mut events = Vec::new();
        while let Some(command) = self.jobs.next(now.at, &mut events) {
            if command.verb != Verb::Status {
                let resource =
                    &self.config.resources.groups[command.group].resources[command.resource];
                let text = format!("Running {} {}", resource.call(), command.verb.name());
                self.log(Level::Info, text);
            }
            self.actions.push(Action::Run(command));
        }
        if !events.is_empty() {
            self.job_events(events, now);
            self.advance(now);
            return self.finish(now);
        }
        std::mem::take(&mut self.actions)
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.actions.push(Action::Log(level, text.into()));
    }

    // Sending.

    fn send_status(&mut self, now: Now) {
        let keepalive = self.config.ha_cf.keepalive;
        while self.next_status <= now.at {
            self.next_status += keepalive;
        }
        if now.at > self.next_status + keepalive {
            self.next_status = now.at + keepalive;
        }
        self.last_status = now.at;
        let message = Message::of_type("status")
            .with("st", self.status.name())
            .with_hex("dt", millis(self.advertised_limit(now)))
            .with("protocol", "1");
        self.send(message, now);
    }

    fn set_status(&mut self, status: NodeStatus, now: Now) {
        self.status = status;
        self.log(
            Level::Info,
            format!("Local status now set to: '{}'", status.name()),
        );
        self.send_status(now);
    }

    /// Returns the silence that others shall give this node.
    fn advertised_limit(&self, now: Now) -> Duration {
        let deadtime = self.config.ha_cf.deadtime;
        let restarts = matches!(
            self.phase,
            Phase::Releasing {
                exit: Exit::Restart { .. },
                ..
            } | Phase::Leaving {
                exit: Exit::Restart { .. },
                ..
            }
        );
        if restarts {
            deadtime + RESTART_ALLOWANCE
        } else if now.at < self.started + EARLY {
            deadtime + EARLY_ALLOWANCE
        } else {
            deadtime
        }
    }

    /// Completes, signs and sends a message.
    fn send(&mut self, message: Message, now: Now) {
        if self.is_silent() {
            return;
        }
        let is_sequenced = !message.is_unsequenced();
        let mut message = self.with_destination(message);
        message = message
            .with("src", self.config.own_name.as_str())
            .with_binary("srcuuid", &self.identity.uuid);
        let sequence = is_sequenced.then(|| self.outbox.take_number());
        if let Some(sequence) = sequence {
            message = message.with_hex("seq", sequence);
        }
        message = message
            .with_hex("hg", self.identity.generation)
            .with_hex("ts", now.unix_seconds);
        if is_sequenced {
            message = message.with("ld", self.load.as_str());
        }
        let hops = self.config.ha_cf.hop_fudge as usize + self.config.ha_cf.nodes.len();
        message = message.with("ttl", hops.to_string());
        let key = &self.config.keys.signing;
        let packet = codec::encode(&message, key, self.config.ha_cf.message_format);
        if let Some(sequence) = sequence {
            self.outbox.keep(sequence, packet.clone());
        }
        self.counters.sent += 1;
        self.actions.push(Action::Send(packet));
    }

    fn with_destination(&self, message: Message) -> Message {
        let uuid = message.get("dest").and_then(|name| {
            if name == self.config.own_name {
                return Some(self.identity.uuid);
            }
            self.peers.iter().find(|peer| peer.name == name)?.uuid
        });
        match uuid {
            Some(uuid) => message.with_binary("destuuid", &uuid),
            None => message,
        }
    }

    // Receiving.

    fn bad_packet(&mut self, error: &DecodeError) {
        self.counters.refused += 1;
        if is_worth_a_line(self.counters.refused) {
            let count = self.counters.refused;
            self.log(
                Level::Warning,
                format!("a packet was refused: {error} ({count} so far)"),
            );
        }
    }

    fn message(&mut self, medium: usize, message: &Message, now: Now) {
        if self.is_silent() || self.phase == Phase::Gone {
            return;
        }
        let (Some(src), Some(1..), false) = (
            message.get("src"),
            message.hex("ts"),
            message.kind().is_empty(),
        ) else {
            self.counters.refused += 1;
            return self.log(Level::Warning, "process_clustermsg: missing from/ts/type");
        };
        if src == self.config.own_name {
            return self.own_message(message);
        }
        let Some(index) = self.peers.iter().position(|peer| peer.name == src) else {
            self.counters.strangers += 1;
            if is_worth_a_line(self.counters.strangers) {
                self.log(
                    Level::Warning,
                    format!("process_status_message: bad node [{src}] in message"),
                );
            }
            return;
        };
        if !self.check_generation(index, message, now) {
            return;
        }
        // First, for an acknowledgement is addressed by it.
        self.note_uuid(index, message);
        let arrival = if message.is_unsequenced() {
            Arrival::Late
        } else {
            let Some(sequence) = message.hex("seq").filter(|sequence| *sequence > 0) else {
                self.counters.refused += 1;
                return self.log(Level::Warning, "process_clustermsg: missing seqno");
            };
            self.note_arrival(index, sequence, now)
        };
        self.take_message(medium, index, arrival, message, now);
    }

    /// A packet of one's own came back (broadcast), unless another host uses the name.
    fn own_message(&mut self, message: &Message) {
        let is_own = message.binary("srcuuid") == Some(&self.identity.uuid[..]);
        if !is_own {
            self.counters.strangers += 1;
            if is_worth_a_line(self.counters.strangers) {
                self.log(Level::Error, "another host sends under this node's name");
            }
        }
    }

    /// Returns whether the message is of the generation that counts.
    fn check_generation(&mut self, index: usize, message: &Message, now: Now) -> bool {
        let Some(generation) = message.hex("hg") else {
            self.counters.refused += 1;
            return false;
        };
        let peer = &mut self.peers[index];
        let is_status = message.kind() == "status";
        match peer.generation {
            Some(known) if generation < known => {
                self.counters.replayed += 1;
                if is_worth_a_line(self.counters.replayed) {
                    let name = peer.name.clone();
                    self.log(
                        Level::Error,
                        format!("should_drop_message: attempted replay attack [{name}]? [gen = {generation}, curgen = {known}]"),
                    );
                }
                false
            }
            Some(known) if generation == known => true,
            _ if !is_status => false,
            before => {
                // A node that is active before this one ever answered it has come up
                // alone and taken everything, as this one has: they meet after a partition.
                let came_up_alone =
                    peer.status == NodeStatus::Dead && message.get("st") == Some("active");
                peer.restart(generation, &mut self.random);
                peer.heard = now.at;
                if came_up_alone {
                    peer.status = NodeStatus::Dead;
                }
                if before.is_some() {
                    let name = peer.name.clone();
                    self.log(Level::Info, format!("Heartbeat restart on node {name}"));
                    match &mut self.protocol {
                        Protocol::Shared(resources) => resources.other_restarted(),
                        Protocol::Legacy(legacy) => legacy.other_restarted(now.at),
                    }
                }
                true
            }
        }
    }

    fn note_arrival(&mut self, index: usize, sequence: u64, now: Now) -> Arrival {
        let delay = self.config.ha_cf.retransmit_delay_max;
        let peer = &mut self.peers[index];
        let last = peer.inbox.last();
        let had_missing = peer.inbox.missing() > 0;
        let arrival = peer.inbox.arrive(sequence, now.at, delay, &mut self.random);
        let name = peer.name.clone();
        match arrival {
            Arrival::New { missing } if missing > 0 => {
                self.counters.lost += missing;
                self.log(
                    Level::Warning,
                    format!("{missing} lost packet(s) for [{name}] [{last}:{sequence}]"),
                );
            }
            Arrival::AfterManyLost => {
                self.log(Level::Error, format!("{name}: lost a lot of packets!"));
            }
            Arrival::Late if had_missing && self.peers[index].inbox.missing() == 0 => {
                self.log(Level::Info, format!("No pkts missing from {name}!"));
            }
            Arrival::Duplicate { .. } => self.counters.duplicates += 1,
            _ => {}
        }
        let wants_ack = !matches!(arrival, Arrival::Duplicate { .. })
            && self.peers[index].inbox.wants_ack(sequence);
        if wants_ack {
            self.send(
                Message::of_type("NS_ackmsg")
                    .with("dest", name)
                    .with_hex("ackseq", sequence),
                now,
            );
        }
        arrival
    }

    fn take_message(
        &mut self,
        medium: usize,
        index: usize,
        arrival: Arrival,
        message: &Message,
        now: Now,
    ) {
        if let Arrival::Duplicate { recent } = arrival {
            if recent {
                self.link_heard(medium, index, now);
            }
            return;
        }
        self.counters.received += 1;
        if message.kind() == "status" {
            self.link_heard(medium, index, now);
            return self.status_message(index, message, now);
        }
        if self.peers[index].status == NodeStatus::Dead {
            // Declared dead, and no status message yet that would show how it returns.
            return;
        }
        // One without a number may be an old one played back.
        if !message.is_unsequenced() {
            self.link_heard(medium, index, now);
        }
        if self.is_for_me(message) {
            self.deliver(index, message, now);
        }
    }

    fn link_heard(&mut self, medium: usize, index: usize, now: Now) {
        let peer = &mut self.peers[index];
        if peer.link_heard(medium, now.at) {
            let text = format!("Link {}:{} up.", peer.name, peer.links[medium].name);
            self.log(Level::Info, text);
        }
    }

    fn note_uuid(&mut self, index: usize, message: &Message) {
        let Some(uuid) = message
            .binary("srcuuid")
            .and_then(|uuid| Uuid::try_from(uuid).ok())
        else {
            return;
        };
        let peer = &mut self.peers[index];
        let before = peer.uuid.replace(uuid);
        if before.is_some_and(|before| before != uuid) {
            let text = format!("node {} changed its uuid", peer.name);
            self.log(Level::Warning, text);
        }
    }

    fn is_for_me(&self, message: &Message) -> bool {
        match (message.binary("destuuid"), message.get("dest")) {
            (Some(uuid), _) => uuid == self.identity.uuid,
            (None, Some(name)) => name == self.config.own_name,
            (None, None) => true,
        }
    }

    fn status_message(&mut self, index: usize, message: &Message, now: Now) {
        // One that comes late says how things are still, unless a newer one has come before it.
        let sequence = message.hex("seq").unwrap_or(0);
        if sequence <= self.peers[index].newest_status {
            return;
        }
        self.peers[index].newest_status = sequence;
        let Some(status) = message.get("st").and_then(NodeStatus::parse) else {
            self.counters.refused += 1;
            return;
        };
        let peer = &self.peers[index];
        let name = peer.name.clone();
        if peer.status == NodeStatus::Dead && status != NodeStatus::Dead {
            return self.return_after_partition(index, now);
        }
        let interval = now.at.saturating_sub(peer.heard);
        let slept = now.at < self.grace_until;
        if peer.is_alive() && interval > self.config.ha_cf.warntime && !slept {
            self.log(
                Level::Warning,
                format!(
                    "Late heartbeat: Node {name}: interval {} ms",
                    interval.as_millis()
                ),
            );
        }
        let peer = &mut self.peers[index];
        peer.heard = now.at;
        if let Some(limit) = message.hex("dt") {
            let limit = Duration::from_millis(limit).clamp(LIMIT_MIN, LIMIT_MAX);
            peer.asked_limit = Some(limit);
        }
        let before = std::mem::replace(&mut peer.status, status);
        if before != status {
            self.log(
                Level::Info,
                format!("Status update for node {name}: status {}", status.name()),
            );
            if status == NodeStatus::Dead {
                self.peer_died(index, now);
            } else if let (Protocol::Shared(resources), true) =
                (&mut self.protocol, self.peers[index].is_alive())
            {
                resources.other_alive();
            } else if let Protocol::Legacy(legacy) = &mut self.protocol {
                legacy.other_alive();
            }
        }
        self.advance(now);
    }

    fn return_after_partition(&mut self, index: usize, now: Now) {
        let peer = &mut self.peers[index];
        peer.status = NodeStatus::Active;
        peer.heard = now.at;
        // What was lost meanwhile tells of a state that both give up now.
        peer.inbox.forget_missing();
        let name = peer.name.clone();
        self.log(
            Level::Critical,
            format!("Cluster node {name} returning after partition."),
        );
        self.log(Level::Warning, "Deadtime value may be too small.");
        if self.config.resources.groups.is_empty() {
            return;
        }
        if matches!(self.phase, Phase::Releasing { .. } | Phase::Leaving { .. }) {
            return;
        }
        let pause = Duration::from_secs(millis(self.config.ha_cf.deadtime).div_ceil(1000) + 1);
        self.leave(Exit::Restart { after: pause }, now);
        self.advance(now);
    }

    fn deliver(&mut self, index: usize, message: &Message, now: Now) {
        let from = self.peers[index].name.clone();
        match message.kind() {
            "NS_ackmsg" => self.acknowledged(index, message),
            "NS_rexmit" => self.resend(index, message, now),
            "NS_nak_rexmit" => self.refused_resend(index, message),
            "reqnodes" => self.answer_node_list(&from, now),
            "repnodes" => self.node_list(&from, message, now),
            agreement::KIND => self.compare_resources(&from, message, now),
            "num_ping_nodes" | "you_are_dead" | "abort_giveup" => {
                self.ipfail_message(&from, message, now);
            }
            _ => {
                let mut out = Vec::new();
                match &mut self.protocol {
                    Protocol::Shared(resources) => {
                        let sequence = message.hex("seq").unwrap_or(0);
                        resources.message(&from, sequence, message, now.at, &mut out);
                    }
                    Protocol::Legacy(legacy) => {
                        legacy.message(&from, message, self.jobs.states(), &mut out);
                    }
                }
                self.perform(out, now);
                self.advance(now);
            }
        }
    }

    fn acknowledged(&mut self, index: usize, message: &Message) {
        let newest = self.outbox.last();
        let peer = &mut self.peers[index];
        if let Some(sequence) = message.hex("ackseq")
            && sequence > peer.acknowledged
            && sequence <= newest
        {
            peer.acknowledged = sequence;
        }
    }

    fn resend(&mut self, index: usize, message: &Message, now: Now) {
        let (Some(first), Some(last)) = (message.decimal("firstseq"), message.decimal("lastseq"))
        else {
            self.counters.refused += 1;
            return;
        };
        let pause = self
            .config
            .ha_cf
            .retransmit_delay_max
            .saturating_sub(Duration::from_millis(10));
        let peer = &self.peers[index];
        let name = peer.name.clone();
        let answers = self
            .outbox
            .resend(first, last, peer.acknowledged, now.at, pause);
        for answer in answers {
            match answer {
                Resend::Packet(packet) => {
                    self.counters.resent += 1;
                    self.actions.push(Action::Send(packet));
                }
                Resend::TooLow(sequence) => self.send(
                    Message::of_type("NS_nak_rexmit")
                        .with_hex("firstseq", sequence)
                        .with("dest", name.as_str())
                        .with("info", "seqno too low"),
                    now,
                ),
            }
        }
    }

    fn refused_resend(&mut self, index: usize, message: &Message) {
        let Some(sequence) = message.hex("firstseq") else {
            return;
        };
        let peer = &mut self.peers[index];
        if peer.inbox.give_up(sequence) {
            let text = format!(
                "Irretrievably lost packet: node {} seq {sequence}",
                peer.name
            );
            self.log(Level::Error, text);
        }
    }

    fn request_missing(&mut self, now: Now) {
        let repeat = self.config.ha_cf.retransmit_delay_max;
        for index in 0..self.peers.len() {
            if !self.peers[index].is_alive() {
                continue;
            }
            let name = self.peers[index].name.clone();
            for range in self.peers[index].inbox.take_requests(now.at, repeat) {
                let message = Message::of_type("NS_rexmit")
                    .with("dest", name.as_str())
                    .with("firstseq", range.start().to_string())
                    .with("lastseq", range.end().to_string());
                self.send(message, now);
            }
        }
    }

    // Ping nodes.

    fn check_pings(&mut self, now: Now) {
        let hosts = self.pings.take_questions(now.at);
        if !hosts.is_empty() {
            self.actions.push(Action::Ping(hosts));
        }
        let changes = if now.at < self.grace_until {
            // Answers that came while this process slept are not read yet.
            Vec::new()
        } else {
            self.pings.check(now.at)
        };
        self.ping_changes(changes, now);
        let gives_up = self
            .ipfail
            .as_mut()
            .is_some_and(|ipfail| ipfail.take_give_up(now.at));
        if gives_up && self.phase == Phase::Active {
            self.log(
                Level::Info,
                "ipfail: giving up because the other node reaches more ping nodes",
            );
            let mut out = Vec::new();
            if let Protocol::Shared(resources) = &mut self.protocol
                && let Err(reason) = resources.stand_by(Share::ALL, now.at, &mut out)
            {
                self.log(Level::Info, format!("ipfail: {reason}"));
            }
            self.perform(out, now);
        }
    }

    fn ping_changes(&mut self, changes: Vec<PingChange>, now: Now) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            match change {
                PingChange::Up(name) => self.log(
                    Level::Info,
                    format!("Status update for node {name}: status ping"),
                ),
                PingChange::Dead(name) => {
                    self.log(Level::Warning, format!("node {name}: is dead"));
                }
            }
        }
        self.tell_ping_count(now);
    }

    /// Tells the other node how many ping nodes answer this one.
    fn tell_ping_count(&mut self, now: Now) {
        if self.ipfail.is_none() || self.phase != Phase::Active {
            return;
        }
        let count = self.pings.reachable().to_string();
        let alive = self.peers.iter().filter(|peer| peer.is_alive());
        let names: Vec<String> = alive.map(|peer| peer.name.clone()).collect();
        for name in names {
            let message = ipfail_message("num_ping_nodes", &name).with("num_ping", count.as_str());
            self.send(message, now);
        }
    }

    fn ipfail_message(&mut self, from: &str, message: &Message, now: Now) {
        let own = self.pings.reachable();
        let Some(ipfail) = &mut self.ipfail else {
            return;
        };
        match message.kind() {
            "you_are_dead" => ipfail.told_dead(now.at),
            "abort_giveup" => ipfail.abort(),
            _ => {
                let theirs = message.decimal("num_ping");
                let Some(theirs) = theirs.and_then(|count| usize::try_from(count).ok()) else {
                    self.counters.refused += 1;
                    return;
                };
                if let Some(answer) = ipfail.compare(own, theirs, now.at) {
                    self.send(ipfail_message(answer.kind(), from), now);
                }
            }
        }
    }

    // The same haresources?

    fn tell_resources(&mut self, to: Option<&str>, now: Now) {
        let lines = agreement::digests(&self.config.resources.groups);
        let mut message = Message::of_type(agreement::KIND).with("lines", lines);
        if let Some(name) = to {
            message = message.with("dest", name);
        }
        self.send(message, now);
    }

    /// Complains when the other node's file is another; answers one who just came.
    fn compare_resources(&mut self, from: &str, message: &Message, now: Now) {
        let theirs = message.get("lines").unwrap_or_default();
        if let Some(text) = agreement::difference(&self.config.resources.groups, from, theirs) {
            self.log(Level::Error, text);
        }
        if message.get("dest").is_none() && !self.is_leaving() {
            self.tell_resources(Some(from), now);
        }
    }

    // Joining.

    fn answer_node_list(&mut self, from: &str, now: Now) {
        let mut names = String::new();
        for node in &self.config.ha_cf.nodes {
            names.push_str(&node.text);
            names.push(' ');
        }
        let mut message = Message::default().with("dest", from);
        message.set("t", Value::Text("repnodes".into()));
        self.send(
            message.with("nodelist", names).with("delnodelist", " "),
            now,
        );
    }

    fn node_list(&mut self, from: &str, message: &Message, now: Now) {
        let mut theirs: Vec<&str> = message
            .get("nodelist")
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let mut ours: Vec<&str> = self
            .config
            .ha_cf
            .nodes
            .iter()
            .map(|node| node.text.as_str())
            .collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        if theirs != ours {
            let text = format!(
                "the ha.cf of {from} names other nodes ({}) than this one ({})",
                theirs.join(" "),
                ours.join(" ")
            );
            self.log(Level::Error, text);
        }
        if matches!(self.phase, Phase::Joining { .. }) {
            self.communication_is_up(now);
        }
    }

    fn communication_is_up(&mut self, now: Now) {
        self.phase = Phase::Active;
        self.log(Level::Info, "Comm_now_up(): updating status to active");
        self.set_status(NodeStatus::Active, now);
        let other_alive = self.peers.iter().any(Peer::is_alive);
        self.tell_ping_count(now);
        if other_alive {
            self.tell_resources(None, now);
        }
        if self.config.resources.groups.is_empty() {
            return;
        }
        let mut out = Vec::new();
        match &mut self.protocol {
            Protocol::Shared(resources) => resources.communication_up(other_alive, &mut out),
            Protocol::Legacy(legacy) => legacy.communication_up(other_alive, now.at, &mut out),
        }
        self.perform(out, now);
    }

    /// Moves from phase to phase as far as conditions allow.
    fn advance(&mut self, now: Now) {
        match self.phase {
            Phase::Starting => self.advance_starting(now),
            Phase::Joining { ask_at } if ask_at <= now.at => {
                let Some(peer) = self.peers.iter().find(|peer| peer.is_alive()) else {
                    return self.communication_is_up(now);
                };
                let message = Message::of_type("reqnodes").with("dest", peer.name.as_str());
                self.phase = Phase::Joining {
                    ask_at: now.at + JOIN_INTERVAL,
                };
                self.send(message, now);
            }
            Phase::Releasing { exit, stage } => self.advance_releasing(exit, stage, now),
            Phase::Leaving { exit, until } if until <= now.at => {
                self.phase = Phase::Gone;
                self.log(
                    Level::Info,
                    format!("{} Heartbeat shutdown complete.", self.config.own_name),
                );
                self.actions.push(Action::Exit(exit));
            }
            _ => {}
        }
    }

    fn advance_starting(&mut self, now: Now) {
        let all_known = self
            .peers
            .iter()
            .all(|peer| peer.status != NodeStatus::Init);
        // What a crashed run left is stopped before this node says that it holds nothing.
        let is_clean = !self.jobs.reasons().any(|reason| *reason == Reason::CleanUp);
        if all_known && is_clean {
            self.phase = Phase::Joining { ask_at: now.at };
            self.advance(now);
        }
    }

    // Silence.

    fn limit_of(&self, peer: &Peer) -> Duration {
        if self.phase == Phase::Starting {
            return self.config.ha_cf.initdead;
        }
        peer.asked_limit.unwrap_or(self.config.ha_cf.deadtime)
    }

    fn check_peers(&mut self, now: Now) {
        for index in 0..self.peers.len() {
            let limit = self.limit_of(&self.peers[index]);
            let dead_at = self.peers[index].dead_at(limit);
            if dead_at.is_some_and(|at| at.max(self.grace_until) <= now.at) {
                let peer = &mut self.peers[index];
                peer.status = NodeStatus::Dead;
                let text = format!("node {}: is dead", peer.name);
                self.log(Level::Warning, text);
                self.peer_died(index, now);
            }
            let name = self.peers[index].name.clone();
            for link in self.peers[index].take_dead_links(now.at, limit) {
                self.log(Level::Info, format!("Link {name}:{link} dead."));
            }
        }
        self.advance(now);
    }

    fn peer_died(&mut self, index: usize, now: Now) {
        if self.config.resources.groups.is_empty() || self.is_leaving() {
            return;
        }
        let name = self.peers[index].name.clone();
        let held_nothing = match &self.protocol {
            Protocol::Shared(resources) => resources.other_holds_nothing(),
            Protocol::Legacy(legacy) => legacy.other_holds_nothing(),
        };
        let result = if held_nothing {
            self.log(Level::Info, format!("Dead node {name} gave up resources."));
            "unneeded"
        } else {
            self.log(Level::Warning, "No STONITH device configured.");
            self.log(Level::Warning, "Shared disks are not protected.");
            self.log(
                Level::Info,
                format!("Resources being acquired from {name}."),
            );
            "n_stnth"
        };
        if self.phase == Phase::Active {
            let message = Message::of_type("stonith")
                .with("node", name)
                .with("result", result);
            self.send(message, now);
        }
        let mut out = Vec::new();
        match &mut self.protocol {
            Protocol::Shared(resources) => resources.other_dead(&mut out),
            Protocol::Legacy(legacy) => legacy.other_dead(&mut out),
        }
        self.perform(out, now);
    }

    /// A node that was silent for as long as it asks others to wait has been declared dead.
    fn check_own_silence(&mut self, now: Now) {
        let silence = now.at.saturating_sub(self.last_status);
        let limit = self.advertised_limit(Now {
            at: self.last_status,
            ..now
        });
        let speaks = matches!(self.phase, Phase::Joining { .. } | Phase::Active);
        if speaks && silence >= limit && !self.config.resources.groups.is_empty() {
            self.log(
                Level::Error,
                format!(
                    "No local heartbeat. Forcing restart. ({} ms without one)",
                    silence.as_millis()
                ),
            );
            self.give_way(now);
        }
    }

    /// Gives everything up without a word, and starts again.
    fn give_way(&mut self, now: Now) {
        let exit = Exit::Restart {
            after: Duration::ZERO,
        };
        self.release(exit, Voice::Silent, now);
    }

    // Leaving.

    fn is_leaving(&self) -> bool {
        matches!(
            self.phase,
            Phase::Releasing { .. } | Phase::Leaving { .. } | Phase::Gone
        )
    }

    fn is_silent(&self) -> bool {
        matches!(
            self.phase,
            Phase::Releasing {
                stage: ReleaseStage::Stopping {
                    voice: Voice::Silent
                },
                ..
            }
        )
    }

    fn leave(&mut self, exit: Exit, now: Now) {
        let until = now.at + SHUTDOWN_WAIT;
        self.phase = Phase::Releasing {
            exit,
            stage: ReleaseStage::Waiting { until },
        };
        if matches!(exit, Exit::Restart { .. }) {
            // Two nodes may hold the same: nothing is worth waiting for.
            self.release(exit, Voice::Speaking, now);
        }
    }

    fn release(&mut self, exit: Exit, voice: Voice, now: Now) {
        self.log(Level::Info, "Giving up all HA resources.");
        self.jobs.forget_waiting();
        let mut out = Vec::new();
        match &mut self.protocol {
            Protocol::Shared(resources) => resources.shut_down(&mut out),
            Protocol::Legacy(legacy) => legacy.shut_down(),
        }
        if voice == Voice::Silent || self.status != NodeStatus::Active {
            out.clear();
        }
        self.phase = Phase::Releasing {
            exit,
            stage: ReleaseStage::Stopping { voice },
        };
        self.perform(out, now);
        // In the reverse order of the lines; what was never started is not stopped.
        let busy = !self.jobs.is_idle();
        let groups: Vec<usize> = (0..self.config.resources.groups.len())
            .rev()
            .filter(|group| busy || self.jobs.states()[*group] != GroupState::Stopped)
            .collect();
        let stop = |direction| Work {
            reason: Reason::ReleaseAll,
            direction,
            groups: groups.clone(),
        };
        if matches!(exit, Exit::Restart { .. }) {
            self.jobs.push(stop(Direction::Withdraw));
        }
        self.jobs.push(stop(Direction::Stop));
    }

    fn advance_releasing(&mut self, exit: Exit, stage: ReleaseStage, now: Now) {
        match stage {
            ReleaseStage::Waiting { until } => {
                let is_settled = match &self.protocol {
                    Protocol::Shared(resources) => resources.is_settled(),
                    Protocol::Legacy(_) => true,
                };
                if (is_settled && self.jobs.is_idle()) || until <= now.at {
                    self.release(exit, Voice::Speaking, now);
                }
            }
            ReleaseStage::Stopping { voice } => {
                if self.jobs.is_idle() {
                    self.released(exit, voice, now);
                }
            }
        }
    }

    fn released(&mut self, exit: Exit, voice: Voice, now: Now) {
        self.log(Level::Info, "All HA resources relinquished.");
        let was_active = self.status == NodeStatus::Active;
        match voice {
            Voice::Silent => {
                self.phase = Phase::Gone;
                self.actions.push(Action::Exit(exit));
            }
            Voice::Speaking => {
                self.phase = Phase::Leaving {
                    exit,
                    until: now.at + LEAVING,
                };
                if was_active {
                    let mut out = Vec::new();
                    match &self.protocol {
                        Protocol::Shared(resources) => resources.released(&mut out),
                        Protocol::Legacy(legacy) => legacy.released(&mut out),
                    }
                    self.perform(out, now);
                }
                self.send_status(now);
            }
        }
    }

    // Resources.

    fn perform(&mut self, effects: Vec<Effect>, now: Now) {
        for effect in effects {
            match effect {
                Effect::Send(message) => self.send(message, now),
                Effect::Work(work) => {
                    if work.reason == Reason::TakeLocal {
                        self.answer_own_requests(&work.groups, now);
                    }
                    self.jobs.push(work);
                }
                Effect::Log(level, text) => self.log(level, text),
                Effect::Usurped => {
                    if self.phase == Phase::Active {
                        self.log(
                            Level::Critical,
                            "the other node took over from this one while it lived: giving way",
                        );
                        self.give_way(now);
                    }
                }
            }
        }
    }

    /// heartbeat's scripts ask for each group of one's own and answer it on the wire; nobody
    /// needs it, but who reads along finds the same messages.
    fn answer_own_requests(&mut self, groups: &[usize], now: Now) {
        for group in groups {
            let key = self.config.resources.groups[*group].key().to_owned();
            let message = Message::of_type("ip-request-resp")
                .with("dest", self.config.own_name.as_str())
                .with("ipaddr", key)
                .with("weown", "yes")
                .with("ok", "OK");
            self.send(message, now);
        }
    }

    fn protocol_timeout(&mut self, now: Now) {
        if self.is_leaving() || self.phase == Phase::Starting {
            return;
        }
        let mut out = Vec::new();
        match &mut self.protocol {
            Protocol::Shared(resources) => resources.timeout(now.at, &mut out),
            Protocol::Legacy(legacy) => legacy.timeout(now.at, &mut out),
        }
        self.perform(out, now);
    }

    fn protocol_deadline(&self) -> Option<Duration> {
        if self.is_leaving() || self.phase == Phase::Starting {
            return None;
        }
        match &self.protocol {
            Protocol::Shared(resources) => resources.deadline(),
            Protocol::Legacy(legacy) => legacy.deadline(),
        }
    }

    fn job_events(&mut self, events: Vec<JobEvent<Reason>>, now: Now) {
        for event in events {
            match event {
                JobEvent::Finished(finished) => self.work_finished(&finished, now),
                JobEvent::GroupStarts(group) => {
                    let line = self.config.resources.groups[group].line();
                    self.log(Level::Info, format!("Acquiring resource group: {line}"));
                }
                JobEvent::GroupStops(group) => {
                    let line = self.config.resources.groups[group].line();
                    self.log(Level::Info, format!("Releasing resource group: {line}"));
                }
                JobEvent::StartFailed(group, resource) => {
                    let name = self.resource_name(group, resource);
                    self.log(
                        Level::Critical,
                        format!("Giving up resources due to failure of {name}"),
                    );
                }
                JobEvent::StopFailed(group, resource) => {
                    let name = self.resource_name(group, resource);
                    self.log(Level::Error, format!("stopping {name} failed"));
                }
                JobEvent::Stuck(group, resource) => {
                    let name = self.resource_name(group, resource);
                    let text = format!("Resource STOP failure. Reboot required! ({name})");
                    self.log(Level::Critical, text.clone());
                    self.actions.push(Action::Reboot(text));
                }
            }
        }
        self.advance(now);
    }

    fn resource_name(&self, group: usize, resource: usize) -> String {
        self.config.resources.groups[group].resources[resource]
            .word
            .text
            .clone()
    }

    fn work_finished(&mut self, finished: &Finished<Reason>, now: Now) {
        if self.is_leaving() {
            return;
        }
        let mut out = Vec::new();
        match &mut self.protocol {
            Protocol::Shared(resources) => resources.finished(finished, now.at, &mut out),
            Protocol::Legacy(legacy) => legacy.finished(finished, now.at, &mut out),
        }
        self.perform(out, now);
    }
}

/// The first, the tenth, the hundredth …: a flood must not fill the disk.
fn is_worth_a_line(count: u64) -> bool {
    let mut power = 1;
    while power < count {
        power *= 10;
    }
    power == count
}

/// A message from ipfail to ipfail.
fn ipfail_message(kind: &str, to: &str) -> Message {
    Message::of_type(kind)
        .with("dest", to)
        .with("from_id", "ipfail")
        .with("to_id", "ipfail")
}

fn protocol(config: &Config) -> Protocol {
    let groups = &config.resources.groups;
    let failback = match config.ha_cf.auto_failback {
        AutoFailback::Legacy => return Protocol::Legacy(Legacy::new(&config.own_name, groups)),
        AutoFailback::On => Failback::On,
        AutoFailback::Off => Failback::Off,
    };
    let (own, other) =
        (0..groups.len()).partition(|index| groups[*index].owner.text == config.own_name);
    Protocol::Shared(Box::new(Resources::new(
        &config.own_name,
        own,
        other,
        failback,
    )))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
