//! The groups' protocol against the other node as heartbeat 3.0.6 plays it: a small model of what
//! its resource code does with each message, with the slow scripts that it runs one after the other.
//!
//! The node under test prefers the only group. It leaves and comes back while the other one is
//! still taking over; times and the order of packets are made up from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use halab::heartbeat::effect::{Effect, Reason, Share};
use halab::heartbeat::jobs::{Direction, Finished};
use halab::heartbeat::message::Message;
use halab::heartbeat::random::Random;
use halab::heartbeat::resources::{Failback, Resources};

use super::{first_seed, runs};

const OURS: &str = "n0";
const REAL: &str = "n1";

/// Nothing happens later: failback takes a second or two once it has begun.
const END: Duration = Duration::from_secs(60);

/// Worlds per run of the others: these are small.
const PER_RUN: u64 = 40;

/// heartbeat's view of a stand-by. The node under test never wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standby {
    Not,
    Me,
    Done,
}

/// A script that heartbeat runs in a child; what is queued waits until no child runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    /// Starts or stops the groups of a stand-by.
    GoStandby { starts: bool, share: Share },
    /// Asks for the node's own groups.
    OwnGroups,
    /// Takes what a node that left held.
    MachDown,
}

/// heartbeat 3.0.6, a node that is up and stable, with `auto_failback on`.
#[derive(Debug)]
struct Real {
    holds: Share,
    other_holds: Share,
    other_is_stable: bool,
    needs_failback: bool,
    standby: Standby,
    children: Vec<Child>,
    queued: Vec<Child>,
    /// Whether the address of the group is on this machine.
    runs: bool,
}

/// What [`Real`] asks its world for.
enum Deed {
    Send(Message),
    /// A child's message, through the daemon's own queue.
    Loop(Message),
    Run(Child),
    StandbyTimer,
}

impl Real {
    fn new() -> Self {
        Self {
            holds: Share::LOCAL,
            other_holds: Share::LOCAL,
            other_is_stable: true,
            needs_failback: false,
            standby: Standby::Not,
            children: Vec::new(),
            queued: Vec::new(),
            runs: false,
        }
    }

    fn message(&mut self, message: &Message, out: &mut Vec<Deed>) {
        match message.kind() {
            "starting" => {
                self.other_is_stable = false;
                self.send_held("1", None, out);
            }
            "resource" => self.resource(message, out),
            "ask_resources" => self.ask(message, false, out),
            "shutdone" => self.shutdone(out),
            _ => {}
        }
    }

    fn resource(&mut self, message: &Message, out: &mut Vec<Deed>) {
        let share = message.get("rsc_hold").and_then(Share::parse);
        self.other_holds = share.expect("a report says what is held");
        match message.get("isstable") {
            Some("1") if !self.other_is_stable => {
                self.other_is_stable = true;
                self.send_held("1", None, out);
                self.failback(out);
            }
            Some("0") => self.other_is_stable = false,
            _ => {}
        }
    }

    fn shutdone(&mut self, out: &mut Vec<Deed>) {
        self.other_is_stable = true;
        self.other_holds = Share::NONE;
        if self.holds != Share::ALL {
            self.standby = Standby::Done;
            let starts = true;
            let share = Share::LOCAL;
            self.run(Child::GoStandby { starts, share }, out);
        }
        self.queued.push(Child::MachDown);
        self.holds = Share::ALL;
        self.run(Child::OwnGroups, out);
    }

    fn failback(&mut self, out: &mut Vec<Deed>) {
        let wanted = self.holds.foreign && self.needs_failback;
        self.needs_failback = false;
        if wanted && self.standby == Standby::Not {
            let message = Message::of_type("ask_resources")
                .with("rsc_hold", "foreign")
                .with("info", "me");
            out.push(Deed::Send(message.clone()));
            // The daemon takes its own messages at once; only its children's go through the queue.
            self.ask(&message, true, out);
        }
    }

    fn own_message(&mut self, message: &Message, out: &mut Vec<Deed>) {
        if message.kind() == "ask_resources" {
            return self.ask(message, true, out);
        }
        if message.get("info") == Some("mach_down") {
            self.holds.foreign = true;
            self.needs_failback = true;
            self.other_is_stable = true;
        }
    }

    fn ask(&mut self, message: &Message, is_own: bool, out: &mut Vec<Deed>) {
        let info = message.get("info").expect("a stand-by says what");
        let share = message.get("rsc_hold").and_then(Share::parse);
        let share = share.expect("a stand-by says of what");
        match (self.standby, info, is_own) {
            (Standby::Not, "me", true) if self.other_is_stable => {
                self.other_is_stable = false;
                self.standby = Standby::Me;
                out.push(Deed::StandbyTimer);
            }
            (Standby::Me, "other", false) => {
                self.other_is_stable = false;
                self.holds = self.holds.without(share);
                self.send_held("0", Some("standby"), out);
                let starts = false;
                self.run(Child::GoStandby { starts, share }, out);
            }
            (Standby::Me, "done", true) => self.standby = Standby::Done,
            (Standby::Done, "done", _) => {
                self.standby = Standby::Not;
                if is_own {
                    self.holds = self.holds.with(share.mirrored());
                }
                self.send_held("1", None, out);
            }
            _ => {}
        }
    }

    fn standby_timeout(&mut self) {
        let is_waiting = !self
            .children
            .iter()
            .any(|child| matches!(child, Child::GoStandby { starts: false, .. }));
        if self.standby == Standby::Me && is_waiting {
            self.standby = Standby::Not;
        }
    }

    fn run(&mut self, child: Child, out: &mut Vec<Deed>) {
        self.children.push(child);
        out.push(Deed::Run(child));
    }

    fn child_ended(&mut self, child: Child, out: &mut Vec<Deed>) {
        let at = self.children.iter().position(|running| *running == child);
        self.children.swap_remove(at.expect("it was running"));
        let message = match child {
            Child::GoStandby { starts, share } => {
                self.runs = starts;
                let share = if starts { Share::ALL } else { share };
                Message::of_type("ask_resources")
                    .with("rsc_hold", share.to_string())
                    .with("info", "done")
            }
            Child::MachDown => {
                self.runs = true;
                Message::of_type("resource")
                    .with("rsc_hold", "foreign")
                    .with("info", "mach_down")
            }
            Child::OwnGroups => Message::of_type("resource")
                .with("rsc_hold", "all")
                .with("rtype", "full")
                .with("isstable", "1")
                .with("info", "req_our_resources()"),
        };
        out.push(Deed::Send(message.clone()));
        out.push(Deed::Loop(message));
        if self.children.is_empty() && !self.queued.is_empty() {
            let next = self.queued.remove(0);
            self.run(next, out);
        }
    }

    fn send_held(&self, is_stable: &str, info: Option<&str>, out: &mut Vec<Deed>) {
        let mut message = Message::of_type("resource")
            .with("rsc_hold", self.holds.to_string())
            .with("rtype", "full")
            .with("isstable", is_stable);
        if let Some(info) = info {
            message = message.with("info", info);
        }
        out.push(Deed::Send(message));
    }
}

enum Event {
    ToReal(Message),
    ToOurs(u64, Message),
    Loop(Message),
    ChildEnds(Child),
    StandbyTimer,
    OursReturns,
    OursDone(Reason, Direction),
    OursTimer,
}

struct World {
    now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    number: u64,
    random: Random,
    real: Real,
    ours: Resources,
    ours_runs: bool,
    jitter: Duration,
    trace: Vec<String>,
}

impl World {
    /// Leaves, comes back within seconds, and returns who has the group at the end.
    fn leave_and_return(seed: u64) -> Result<(), String> {
        let mut random = Random::new(seed);
        let jitter = Duration::from_millis([1, 60][usize::from(random.below(2) == 1)]);
        let mut world = Self {
            now: Duration::ZERO,
            events: BTreeMap::new(),
            number: 0,
            random,
            real: Real::new(),
            ours: fresh(),
            ours_runs: false,
            jitter,
            trace: Vec::new(),
        };
        world.real.message(
            &Message::of_type("resource")
                .with("rsc_hold", "none")
                .with("rtype", "full")
                .with("isstable", "0")
                .with("info", "shutdown"),
            &mut Vec::new(),
        );
        world.put(Duration::ZERO, Event::ToReal(shutdone()));
        let pause = world
            .random
            .between(Duration::from_millis(1), Duration::from_secs(9));
        world.put(pause, Event::OursReturns);
        world.run()?;
        if world.ours_runs && !world.real.runs {
            return Ok(());
        }
        Err(format!(
            "seed {seed}: at the end ours runs the group: {}, the real one: {}\n{}",
            world.ours_runs,
            world.real.runs,
            world.trace.join("\n")
        ))
    }

    fn put(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > END {
                break;
            }
            self.now = at;
            self.step(event);
            if self.ours_runs && self.real.runs {
                return Err(format!("two owners\n{}", self.trace.join("\n")));
            }
        }
        Ok(())
    }

    fn step(&mut self, event: Event) {
        let mut deeds = Vec::new();
        let mut effects = Vec::new();
        match event {
            Event::ToReal(message) => {
                self.say(OURS, &message);
                self.real.message(&message, &mut deeds);
            }
            Event::Loop(message) => self.real.own_message(&message, &mut deeds),
            Event::ChildEnds(child) => self.real.child_ended(child, &mut deeds),
            Event::StandbyTimer => self.real.standby_timeout(),
            Event::ToOurs(sequence, message) => {
                self.say(REAL, &message);
                self.ours
                    .message(REAL, sequence, &message, self.now, &mut effects);
            }
            Event::OursReturns => {
                self.ours = fresh();
                self.ours.communication_up(true, &mut effects);
            }
            Event::OursDone(reason, direction) => {
                self.ours_runs = direction == Direction::Start;
                let (groups, failed) = (vec![0], Vec::new());
                let work = Finished {
                    reason,
                    groups,
                    failed,
                };
                self.ours.finished(&work, self.now, &mut effects);
            }
            Event::OursTimer => self.ours.timeout(self.now, &mut effects),
        }
        self.act_real(deeds);
        self.act_ours(effects);
    }

    fn act_real(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Send(message) => {
                    let delay = self.random.between(Duration::ZERO, self.jitter);
                    self.put(delay, Event::ToOurs(self.number, message));
                }
                Deed::Loop(message) => self.put(Duration::ZERO, Event::Loop(message)),
                Deed::Run(child) => {
                    let longest = Duration::from_secs(4);
                    let takes = self.random.between(Duration::from_millis(100), longest);
                    self.put(takes, Event::ChildEnds(child));
                }
                Deed::StandbyTimer => self.put(Duration::from_secs(10), Event::StandbyTimer),
            }
        }
    }

    fn act_ours(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    let delay = self.random.between(Duration::ZERO, self.jitter);
                    self.put(delay, Event::ToReal(message));
                }
                Effect::Work(work) => {
                    let takes = Duration::from_millis(100);
                    self.put(takes, Event::OursDone(work.reason, work.direction));
                }
                Effect::Usurped => self.trace.push(format!("{:?} usurped", self.now)),
                Effect::Log(..) => {}
            }
        }
        if let Some(at) = self.ours.deadline() {
            let after = at.saturating_sub(self.now);
            self.put(after.max(Duration::from_millis(1)), Event::OursTimer);
        }
    }

    fn say(&mut self, from: &str, message: &Message) {
        let line = format!("{:>7.3} from {from}: {message}", self.now.as_secs_f64());
        self.trace.push(line);
    }
}

fn fresh() -> Resources {
    Resources::new(OURS, vec![0], Vec::new(), Failback::On)
}

fn shutdone() -> Message {
    Message::of_type("shutdone").with("st", "dead")
}

/// heartbeat notes that a group is to go home when its script has taken it, and looks at that note
/// when the other node becomes stable. A node that was stable before never got its group back.
#[test]
fn a_return_during_the_real_ones_takeover_ends_at_home() {
    let first = first_seed();
    for seed in first..first + runs() * PER_RUN {
        World::leave_and_return(seed).unwrap_or_else(|why| panic!("{why}"));
    }
}
