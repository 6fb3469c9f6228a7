//! Lets a scenario happen, one event at a time, and checks the invariants after each.
//!
//! | invariant | holds |
//! |---|---|
//! | a node that runs is declared dead only when nothing of it came for its dead time | always |
//! | no resource runs on two nodes | unless a running node is thought dead, or a killed daemon's leftovers run, or that was so until just now |
//! | every node sees every other active | after the calm |
//! | each group runs on exactly one node, its owner where failback is automatic | after the calm |

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use halab::base::diagnostic::{Colour, Source, render_all};
use halab::heartbeat::config::{Config, Files, check};
use halab::heartbeat::detector::NodeStatus;
use halab::heartbeat::effect::Share;
use halab::heartbeat::jobs::{Outcome, ResourceCommand, Verb};
use halab::heartbeat::node::{Action, Exit, Identity, Node, Now};
use halab::heartbeat::random::Random;

use super::scenario::{
    CALM, Fault, FaultKind, NODES_MAX, Sabotage, Scenario, TROUBLE_ENDS, index, millis,
};

/// Resources of each group: the first, an address, may run on one node only.
const RESOURCES: [&str; 2] = ["10.0.0.50 service-a", "10.0.0.51 service-b"];
const GROUPS: usize = RESOURCES.len();

/// A command takes so long unless scripts are slow.
const SCRIPT: Duration = Duration::from_millis(40);

/// Packets a paused machine's socket keeps.
const SOCKET_QUEUE_MAX: usize = 200;

/// Recorded packets an eavesdropper plays back from.
const RECORDING_MAX: usize = 400;

/// Between two looks whether the world is as it should be.
const CALM_LOOK: Duration = Duration::from_secs(2);

/// A world that was right for so long has nothing more to come.
const SETTLED: Duration = Duration::from_secs(8);

/// Unless a start failed: it is tried again after thirty seconds.
const SETTLED_AFTER_FAILURE: Duration = Duration::from_secs(34);

const EPOCH: u64 = 1_700_000_000;

/// Events in one moment; more means that a node spins.
const EVENTS_PER_MOMENT_MAX: u32 = 10_000;

/// What one node thinks of each; without an allocation, for it is looked at before every step.
type Views = [Option<NodeStatus>; NODES_MAX];

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    now: Duration,
    random: Random,
    machines: Vec<Machine>,
    names: Vec<String>,
    /// (arrival, number) → (to, from, bytes); the number keeps equal times in order.
    in_flight: BTreeMap<(Duration, u64), (usize, usize, Packet)>,
    packet_number: u64,
    recording: VecDeque<(usize, Vec<u8>)>,
    cuts: Vec<(usize, usize, Duration)>,
    next_fault: usize,
    /// Two owners are borne until then.
    excused_until: Duration,
    trace: Option<Vec<String>>,
    busy_moment: (Duration, u32),
    violation: Option<String>,
}

/// Bytes on their way, and whether they are as they were sent.
#[derive(Clone)]
struct Packet {
    bytes: Vec<u8>,
    is_whole: bool,
}

struct Machine {
    config: Config,
    node: Option<Node>,
    /// When the daemon starts again; `None` while it runs.
    starts_at: Option<Duration>,
    paused_until: Duration,
    waiting: VecDeque<(usize, Packet)>,
    generation: u64,
    /// By group and resource: what runs in the kernel, whoever knows of it.
    running: [[bool; 2]; GROUPS],
    /// Resources whose stop was reported and happens later (sabotage only).
    stops_later: Vec<(Duration, usize, usize)>,
    command: Option<(Duration, ResourceCommand)>,
    slow: (Duration, Duration),
    failing: Vec<(usize, Duration)>,
    /// When a status of each other node was last taken in, its generation and number.
    heard: Vec<(Duration, u64, u64)>,
    drift_ppm: i64,
    /// A killed daemon's resources run on.
    has_leftovers: bool,
}

impl<'a> World<'a> {
    /// Runs to the end.
    pub(crate) fn run(scenario: &Scenario) -> Result<(), String> {
        let mut world = World::new(scenario);
        world.run_to_end()
    }

    pub(crate) fn run_traced(scenario: &Scenario) -> (Result<(), String>, Vec<String>) {
        let mut world = World::bare(scenario);
        world.trace = Some(Vec::new());
        world.start_all();
        let result = world.run_to_end();
        (result, world.trace.unwrap_or_default())
    }

    pub(crate) fn traced(scenario: &Scenario) -> Vec<String> {
        World::run_traced(scenario).1
    }

    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self::bare(scenario);
        world.start_all();
        world
    }

    fn bare(scenario: &'a Scenario) -> Self {
        let mut random = Random::new(scenario.seed.wrapping_mul(31));
        let machines = (0..scenario.nodes)
            .map(|node| Machine {
                config: config(scenario, node),
                node: None,
                starts_at: Some(Duration::from_millis(random.below(3000))),
                paused_until: Duration::ZERO,
                waiting: VecDeque::new(),
                generation: 100,
                running: [[false; 2]; GROUPS],
                stops_later: Vec::new(),
                command: None,
                slow: (Duration::ZERO, SCRIPT),
                failing: Vec::new(),
                heard: vec![(Duration::ZERO, 0, 0); scenario.nodes],
                drift_ppm: scenario.drift_ppm[node],
                has_leftovers: false,
            })
            .collect();
        Self {
            scenario,
            now: Duration::ZERO,
            random,
            machines,
            names: (0..scenario.nodes).map(name).collect(),
            in_flight: BTreeMap::new(),
            packet_number: 0,
            recording: VecDeque::new(),
            cuts: Vec::new(),
            next_fault: 0,
            excused_until: Duration::ZERO,
            trace: None,
            busy_moment: (Duration::ZERO, 0),
            violation: None,
        }
    }

    fn start_all(&mut self) {
        let count = self.machines.len();
        self.say(|| format!("{count} machines"));
    }

    /// Returns the nodes on which a group's first resource runs.
    pub(crate) fn owners(&self, group: usize) -> Vec<usize> {
        (0..self.machines.len())
            .filter(|node| self.machines[*node].running[group][0])
            .collect()
    }

    /// The calm is over when all is as it should be and stays so; at the latest after [`CALM`].
    fn run_to_end(&mut self) -> Result<(), String> {
        let end = TROUBLE_ENDS + CALM;
        let fails = |fault: &Fault| matches!(fault.kind, FaultKind::FailingStart { .. });
        let settled = if self.scenario.faults.iter().any(fails) {
            SETTLED_AFTER_FAILURE
        } else {
            SETTLED
        };
        let mut right_since = None;
        let mut at = TROUBLE_ENDS;
        while at < end {
            self.run_until(at)?;
            right_since = match self.check_calm() {
                Ok(()) => right_since.or(Some(at)),
                Err(_) => None,
            };
            if right_since.is_some_and(|since| at >= since + settled) {
                return Ok(());
            }
            at += CALM_LOOK;
        }
        self.run_until(end)?;
        self.check_calm()
    }

    /// Lets everything happen up to a moment.
    pub(crate) fn run_until(&mut self, end: Duration) -> Result<(), String> {
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
            self.violation.take().map_or(Ok(()), Err)?;
            self.check_owners()?;
            self.check_not_spinning()?;
        }
        self.now = end;
        Ok(())
    }

    fn check_not_spinning(&mut self) -> Result<(), String> {
        if self.busy_moment.0 != self.now {
            self.busy_moment = (self.now, 0);
        }
        self.busy_moment.1 += 1;
        if self.busy_moment.1 > EVENTS_PER_MOMENT_MAX {
            return Err(format!("at {:?}: a node spins", self.now));
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Duration> {
        let fault = self
            .scenario
            .faults
            .get(self.next_fault)
            .map(|fault| fault.at);
        let packet = self.in_flight.keys().next().map(|(at, _)| *at);
        let machines = self
            .machines
            .iter()
            .filter_map(|machine| machine.next_event(self.now));
        [fault, packet].into_iter().flatten().chain(machines).min()
    }

    /// Does the one thing that is due first: faults, then packets, then outcomes, then time.
    fn step(&mut self) {
        if let Some(fault) = self.scenario.faults.get(self.next_fault)
            && fault.at <= self.now
        {
            self.next_fault += 1;
            let kind = fault.kind.clone();
            self.say(|| format!("FAULT {kind:?}"));
            return self.fault(&kind);
        }
        if let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, from, packet) = entry.remove();
            return self.arrive(to, from, packet);
        }
        for node in 0..self.machines.len() {
            if self.machines[node]
                .next_event(self.now)
                .is_some_and(|at| at <= self.now)
            {
                return self.machine_event(node);
            }
        }
    }

    fn machine_event(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if let Some(at) = machine.stops_later.iter().position(|(due, ..)| *due <= now) {
            let (_, group, resource) = machine.stops_later.remove(at);
            machine.running[group][resource] = false;
        } else if machine.starts_at.is_some_and(|at| at <= now) {
            self.start_daemon(node);
        } else if let Some((from, packet)) = machine.waiting.pop_front() {
            self.take_packet(node, from, &packet);
        } else if let Some((_, command)) = machine.command.take_if(|(due, _)| *due <= now) {
            self.complete(node, command);
        } else {
            self.call(node, Node::timeout);
        }
    }

    fn start_daemon(&mut self, node: usize) {
        let seed = self.random.number();
        let machine = &mut self.machines[node];
        machine.starts_at = None;
        machine.waiting.clear();
        if self.scenario.sabotage != Some(Sabotage::GenerationForgotten) {
            machine.generation += 1;
        }
        let identity = Identity {
            uuid: [u8::try_from(node).expect("few nodes"); 16],
            generation: machine.generation,
            seed,
        };
        machine.heard.fill((self.now, 0, 0));
        let now = machine.clock(self.now);
        let (daemon, actions) = Node::new(machine.config.clone(), identity, "n/a", now);
        machine.node = Some(daemon);
        self.say(|| format!("n{node} starts, generation {}", identity.generation));
        self.act(node, actions);
    }

    /// Calls the daemon, and does what it asks for.
    fn call(&mut self, node: usize, call: impl FnOnce(&mut Node, Now) -> Vec<Action>) {
        let now = self.machines[node].clock(self.now);
        let before = self.views(node);
        let Some(daemon) = &mut self.machines[node].node else {
            return;
        };
        let actions = call(daemon, now);
        self.note_deaths(node, before);
        self.act(node, actions);
    }

    fn act(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(packet) => self.broadcast(node, &packet),
                Action::Run(command) => self.run_command(node, command),
                Action::Ping(hosts) => assert!(hosts.is_empty(), "no world has ping nodes"),
                Action::Log(level, text) => {
                    self.say(|| format!("n{node} {}: {text}", level.name()));
                }
                Action::Reboot(why) => {
                    self.say(|| format!("n{node} reboots: {why}"));
                    self.power_off(node, Duration::from_secs(20));
                }
                Action::Exit(exit) => self.exit(node, exit),
            }
        }
    }

    fn exit(&mut self, node: usize, exit: Exit) {
        let machine = &mut self.machines[node];
        machine.node = None;
        machine.command = None;
        if let Exit::Restart { after } = exit {
            machine.starts_at = Some(self.now + after);
        }
        self.say(|| format!("n{node} exits: {exit:?}"));
    }

    // Scripts.

    fn run_command(&mut self, node: usize, command: ResourceCommand) {
        let machine = &mut self.machines[node];
        let takes = if machine.slow.0 > self.now {
            machine.slow.1
        } else {
            SCRIPT
        };
        let sabotaged = self.scenario.sabotage == Some(Sabotage::StopReportedEarly)
            && command.verb == Verb::Stop;
        if sabotaged {
            let due = self.now + Duration::from_secs(3);
            machine
                .stops_later
                .push((due, command.group, command.resource));
            machine.command = Some((self.now, command));
        } else {
            machine.command = Some((self.now + takes, command));
        }
    }

    fn complete(&mut self, node: usize, command: ResourceCommand) {
        let sabotaged = self.scenario.sabotage == Some(Sabotage::StopReportedEarly);
        let now = self.now;
        let machine = &mut self.machines[node];
        let fails = machine
            .failing
            .iter()
            .any(|(group, until)| *group == command.group && *until > now);
        let running = &mut machine.running[command.group][command.resource];
        let outcome = match command.verb {
            Verb::Status if *running => Outcome::Good,
            Verb::Status => Outcome::Bad,
            Verb::Start if fails && command.resource == 1 => Outcome::Bad,
            Verb::Start => {
                *running = true;
                Outcome::Good
            }
            Verb::Stop => {
                *running &= sabotaged;
                Outcome::Good
            }
        };
        let verb = command.verb.name();
        self.say(|| {
            format!(
                "n{node} {verb} {}.{}: {outcome:?}",
                command.group, command.resource
            )
        });
        self.call(node, |daemon, now| {
            daemon.outcome(command.token, outcome, now)
        });
    }

    // Network.

    fn broadcast(&mut self, from: usize, packet: &[u8]) {
        if self.recording.len() == RECORDING_MAX {
            self.recording.pop_front();
        }
        self.recording.push_back((from, packet.to_vec()));
        for to in (0..self.machines.len()).filter(|to| *to != from) {
            let bytes = packet.to_vec();
            self.transmit(
                from,
                to,
                Packet {
                    bytes,
                    is_whole: true,
                },
            );
        }
    }

    fn transmit(&mut self, from: usize, to: usize, mut packet: Packet) {
        let is_cut = self
            .cuts
            .iter()
            .any(|cut| (cut.0, cut.1) == (from, to) && cut.2 > self.now);
        let noise = if self.now < TROUBLE_ENDS {
            self.scenario.noise
        } else {
            super::scenario::Noise {
                delay_max: Duration::from_millis(1),
                ..Default::default()
            }
        };
        if is_cut || self.random.below(1000) < noise.loss {
            return;
        }
        if self.random.below(1000) < noise.corruption {
            let at = index(&mut self.random, packet.bytes.len());
            packet.bytes[at] ^= 1 << self.random.below(8);
            packet.is_whole = false;
        }
        if self.random.below(1000) < noise.duplication {
            self.put(from, to, packet.clone(), noise.delay_max);
        }
        self.put(from, to, packet, noise.delay_max);
        if self.random.below(1000) < noise.replay {
            let at = index(&mut self.random, self.recording.len());
            let (from, bytes) = self.recording[at].clone();
            if from != to {
                let old = Packet {
                    bytes,
                    is_whole: true,
                };
                self.put(from, to, old, noise.delay_max);
            }
        }
    }

    fn put(&mut self, from: usize, to: usize, packet: Packet, delay_max: Duration) {
        let delay = Duration::from_micros(100) + self.random.between(Duration::ZERO, delay_max);
        self.packet_number += 1;
        self.in_flight
            .insert((self.now + delay, self.packet_number), (to, from, packet));
    }

    fn arrive(&mut self, to: usize, from: usize, packet: Packet) {
        let machine = &mut self.machines[to];
        if machine.node.is_none() {
            return;
        }
        if machine.paused_until > self.now {
            if machine.waiting.len() < SOCKET_QUEUE_MAX {
                machine.waiting.push_back((from, packet));
            }
            return;
        }
        self.take_packet(to, from, &packet);
    }

    fn take_packet(&mut self, to: usize, from: usize, packet: &Packet) {
        let is_whole = packet.is_whole;
        let packet = packet.bytes.as_slice();
        if is_status(packet) {
            let number = (hex_field(packet, "hg="), hex_field(packet, "seq="));
            let heard = &mut self.machines[to].heard[from];
            if is_whole && number > (heard.1, heard.2) {
                *heard = (self.now, number.0, number.1);
            }
        } else if self.trace.is_some() && !is_acknowledgement(packet) {
            let shown = String::from_utf8_lossy(packet).into_owned();
            self.say(|| format!("n{from}→n{to} {}", summary(&shown)));
        }
        self.call(to, |daemon, now| daemon.packet(0, packet, now));
    }

    // Faults.

    fn fault(&mut self, kind: &FaultKind) {
        match *kind {
            FaultKind::Cut {
                from,
                to,
                both,
                length,
            } => {
                self.cuts.push((from, to, self.now + length));
                if both {
                    self.cuts.push((to, from, self.now + length));
                }
            }
            FaultKind::Pause { node, length } => {
                let machine = &mut self.machines[node];
                machine.paused_until = machine.paused_until.max(self.now + length);
            }
            FaultKind::PowerOff { node, length } => self.power_off(node, length),
            FaultKind::Kill { node, length } => {
                let machine = &mut self.machines[node];
                if machine.node.take().is_some() {
                    machine.command = None;
                    machine.starts_at = Some(self.now + length);
                    machine.has_leftovers = true;
                }
            }
            FaultKind::Stop { node, length } => {
                // Started again later, however long the stop takes.
                let machine = &mut self.machines[node];
                if machine.node.is_some() {
                    self.call(node, Node::stop);
                    self.machines[node].starts_at =
                        Some(self.now + length + Duration::from_secs(5));
                }
            }
            FaultKind::StandBy { node, share } => {
                let share = Share::parse(share).expect("the scenarios use right words");
                self.call(node, |daemon, now| daemon.stand_by(share, now).1);
            }
            FaultKind::TakeOver { node, share } => {
                self.call(node, |daemon, now| daemon.take_over(share, now).1);
            }
            FaultKind::SlowScripts { node, each, length } => {
                self.machines[node].slow = (self.now + length, each);
            }
            FaultKind::FailingStart {
                node,
                group,
                length,
            } => {
                self.machines[node].failing.push((group, self.now + length));
            }
        }
    }

    fn power_off(&mut self, node: usize, length: Duration) {
        let machine = &mut self.machines[node];
        machine.node = None;
        machine.command = None;
        machine.running = [[false; 2]; GROUPS];
        machine.stops_later.clear();
        machine.has_leftovers = false;
        machine.paused_until = Duration::ZERO;
        machine.waiting.clear();
        machine.starts_at = Some(self.now + length);
    }

    // Invariants.

    fn views(&self, node: usize) -> Views {
        let mut views = [None; NODES_MAX];
        for (other, view) in views.iter_mut().enumerate().take(self.machines.len()) {
            *view = self.view(node, other);
        }
        views
    }

    fn view(&self, node: usize, other: usize) -> Option<NodeStatus> {
        self.machines[node]
            .node
            .as_ref()?
            .status_of(&self.names[other])
    }

    /// A running node may be declared dead only after its dead time without a word.
    fn note_deaths(&mut self, node: usize, before: Views) {
        for (other, before) in before.iter().enumerate().take(self.machines.len()) {
            let died = *before != Some(NodeStatus::Dead)
                && self.view(node, other) == Some(NodeStatus::Dead);
            if died {
                let silence = self.now.saturating_sub(self.machines[node].heard[other].0);
                // A clock that is fast by 0.1 % comes to the end of the dead time sooner.
                let limit = self.scenario.deadtime.mul_f64(0.997);
                let runs = self.machines[other].node.is_some();
                if runs && silence < limit {
                    self.violation = Some(format!(
                        "at {:?}: n{node} declared n{other} dead after {silence:?}",
                        self.now
                    ));
                }
            }
        }
    }

    fn is_excused(&self) -> bool {
        let count = self.machines.len();
        let thought_dead = (0..count).any(|node| {
            (0..count).any(|other| {
                let runs = self.machines[other].node.is_some();
                runs && self.view(node, other) == Some(NodeStatus::Dead)
            })
        });
        let leftovers = self.machines.iter().any(|machine| machine.has_leftovers);
        let paused = self
            .machines
            .iter()
            .any(|machine| machine.paused_until > self.now);
        thought_dead || leftovers || paused
    }

    fn check_owners(&mut self) -> Result<(), String> {
        if !self.scenario.has_resources {
            return Ok(());
        }
        for machine in &mut self.machines {
            let nothing_left = machine.running == [[false; 2]; GROUPS];
            let is_back = machine
                .node
                .as_ref()
                .is_some_and(|_| machine.command.is_none());
            machine.has_leftovers &= !(nothing_left || is_back);
        }
        if self.is_excused() {
            self.excused_until = self.now + self.recovery();
        }
        for group in 0..GROUPS {
            let owners = self.owners(group);
            if owners.len() > 1 && self.now > self.excused_until {
                return Err(format!(
                    "at {:?}: group {group} runs on {owners:?}",
                    self.now
                ));
            }
        }
        Ok(())
    }

    /// How long two owners may last once nodes hear each other again: until each has
    /// heard the other (losses allowed for) and has run its scripts.
    fn recovery(&self) -> Duration {
        let scripts = self
            .machines
            .iter()
            .map(|machine| {
                if machine.slow.0 > self.now {
                    machine.slow.1
                } else {
                    SCRIPT
                }
            })
            .max()
            .unwrap_or(SCRIPT);
        4 * self.scenario.keepalive + 12 * scripts + Duration::from_secs(1)
    }

    fn check_calm(&self) -> Result<(), String> {
        let mut wrong = String::new();
        for node in 0..self.machines.len() {
            for other in 0..self.machines.len() {
                let view = self.view(node, other);
                if view != Some(NodeStatus::Active) {
                    let _ = writeln!(wrong, "n{node} sees n{other} {view:?}");
                }
            }
        }
        for group in (0..GROUPS).filter(|_| self.scenario.has_resources) {
            let owners = self.owners(group);
            let right = match self.scenario.failback {
                "off" => owners.len() == 1,
                "on" if self.was_moved_by_hand() => owners.len() == 1,
                _ => owners == [group],
            };
            if !right {
                let _ = writeln!(wrong, "group {group} runs on {owners:?}");
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("after the calm:\n{wrong}"))
        }
    }

    /// Groups that a user or a failed start moved stay where they are.
    fn was_moved_by_hand(&self) -> bool {
        self.scenario.faults.iter().any(|fault| {
            matches!(
                fault.kind,
                FaultKind::StandBy { .. }
                    | FaultKind::TakeOver { .. }
                    | FaultKind::FailingStart { .. }
            )
        })
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", self.now.as_secs_f64(), line()));
        }
    }
}

impl Machine {
    /// What this machine's clock shows.
    fn clock(&self, now: Duration) -> Now {
        Now {
            at: self.local(now),
            unix_seconds: EPOCH + now.as_secs(),
        }
    }

    fn local(&self, now: Duration) -> Duration {
        now.mul_f64(1.0 + self.drift())
    }

    fn drift(&self) -> f64 {
        f64::from(i32::try_from(self.drift_ppm).expect("a small drift")) / 1e6
    }

    fn next_event(&self, now: Duration) -> Option<Duration> {
        let stops = self.stops_later.iter().map(|(due, ..)| *due).min();
        if self.node.is_none() {
            return [self.starts_at, stops].into_iter().flatten().min();
        }
        let deadline = self
            .node
            .as_ref()
            .and_then(Node::deadline)
            .map(|at| self.global(at));
        let waiting = (!self.waiting.is_empty()).then_some(now);
        let command = self.command.as_ref().map(|(due, _)| *due);
        let own = [deadline, waiting, command].into_iter().flatten().min();
        let own = own.map(|at| at.max(self.paused_until));
        [own, stops].into_iter().flatten().min()
    }

    /// The moment at which this machine's clock shows a time, rounded up.
    fn global(&self, local: Duration) -> Duration {
        local.div_f64(1.0 + self.drift()) + Duration::from_micros(1)
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn config(scenario: &Scenario, node: usize) -> Config {
    let names: Vec<String> = (0..scenario.nodes).map(name).collect();
    let ha_cf = format!(
        "keepalive {}ms\ndeadtime {}ms\ninitdead 15\nauto_failback {}\nbcast eth0\nnode {}\n",
        millis(scenario.keepalive),
        millis(scenario.deadtime),
        scenario.failback,
        names.join(" ")
    );
    let haresources = if scenario.has_resources {
        format!("n0 {}\nn1 {}\n", RESOURCES[0], RESOURCES[1])
    } else {
        String::new()
    };
    let checked = check(&Files {
        ha_cf: Source::new("ha.cf", ha_cf),
        authkeys: Source::new("authkeys", "auth 1\n1 crc\n"),
        authkeys_mode: 0o600,
        authkeys_owner: 0,
        haresources: Source::new("haresources", haresources),
        host_name: name(node),
    });
    checked
        .config
        .unwrap_or_else(|| panic!("{}", render_all(&checked.diagnostics, Colour::Never)))
}

/// Whether a packet is a status message; its signature is not looked at.
fn is_status(packet: &[u8]) -> bool {
    packet.starts_with(b"###\n11:(0)t=status,")
}

/// Returns a hexadecimal field of a packet; 0 when there is none.
fn hex_field(packet: &[u8], name: &str) -> u64 {
    let name = name.as_bytes();
    let start = packet
        .windows(name.len() + 3)
        .position(|part| part.starts_with(b"(0)") && &part[3..] == name);
    let Some(start) = start else { return 0 };
    let digits = packet[start + 3 + name.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit());
    digits.fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16).unwrap_or(0);
        (number << 4) | u64::from(digit)
    })
}

fn is_acknowledgement(packet: &[u8]) -> bool {
    packet.starts_with(b"###\n14:(0)t=NS_ackmsg,")
}

/// Shortens a packet to what tells messages apart.
fn summary(packet: &str) -> String {
    let mut words = Vec::new();
    for field in packet.split(',') {
        let Some((_, text)) = field.split_once("(0)") else {
            continue;
        };
        let name = text.split('=').next().unwrap_or_default();
        let dull = ["src", "hg", "ts", "ld", "ttl", "auth", "rtype"];
        if !dull.contains(&name) {
            words.push(text.to_owned());
        }
    }
    words.join(" ")
}
