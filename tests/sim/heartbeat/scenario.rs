//! What happens in a world, made up from a seed: data that can be printed and shortened.

use std::time::Duration;

use halab::heartbeat::random::Random;

/// A world and its misfortunes.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Whether the nodes share resources, or watch each other only.
    pub(crate) has_resources: bool,
    pub(crate) failback: &'static str,
    pub(crate) keepalive: Duration,
    pub(crate) deadtime: Duration,
    pub(crate) noise: Noise,
    /// Parts per million by which each node's clock is fast.
    pub(crate) drift_ppm: Vec<i64>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// What the network does to every packet until the calm at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noise {
    /// Per thousand.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// An old packet, recorded earlier, is sent again.
    pub(crate) replay: u64,
    pub(crate) corruption: u64,
    pub(crate) delay_max: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) kind: FaultKind,
}

#[derive(Clone, Debug)]
pub(crate) enum FaultKind {
    /// Nothing passes between two nodes, in one direction or in both.
    Cut {
        from: usize,
        to: usize,
        both: bool,
        length: Duration,
    },
    /// The machine stands still, as a guest does under `stop`.
    Pause {
        node: usize,
        length: Duration,
    },
    /// The machine loses everything.
    PowerOff {
        node: usize,
        length: Duration,
    },
    /// The daemon is killed; what it started runs on.
    Kill {
        node: usize,
        length: Duration,
    },
    /// The user stops the daemon, and starts it again later.
    Stop {
        node: usize,
        length: Duration,
    },
    StandBy {
        node: usize,
        share: &'static str,
    },
    TakeOver {
        node: usize,
        share: &'static str,
    },
    /// Every script of a node takes so long.
    SlowScripts {
        node: usize,
        each: Duration,
        length: Duration,
    },
    /// Starting a group's last resource fails on a node.
    FailingStart {
        node: usize,
        group: usize,
        length: Duration,
    },
}

/// A rule that is broken on purpose, to see that the invariants notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    StopReportedEarly,
    GenerationForgotten,
}

/// Misfortunes begin in this time, after the cluster's own start.
const TROUBLE: Duration = Duration::from_secs(45);

/// How long one of them lasts at most.
const FAULT_MAX: Duration = Duration::from_secs(20);

/// They end here; then the world has [`CALM`] to become what it should be.
pub(crate) const TROUBLE_ENDS: Duration = Duration::from_secs(66);

/// Longest way back: a restart after a partition, a failed start's 30 s twice, a cold start.
pub(crate) const CALM: Duration = Duration::from_secs(150);

const FAULTS_MAX: u64 = 8;

/// Nodes of the largest world.
pub(crate) const NODES_MAX: usize = 5;

impl Scenario {
    /// Nothing happens.
    pub(crate) fn calm(failback: &'static str) -> Self {
        Self {
            seed: 1,
            nodes: 2,
            has_resources: true,
            failback,
            keepalive: Duration::from_millis(200),
            deadtime: Duration::from_secs(1),
            noise: Noise {
                delay_max: Duration::from_millis(1),
                ..Noise::default()
            },
            drift_ppm: vec![0; 2],
            faults: Vec::new(),
            sabotage: None,
        }
    }

    pub(crate) fn two_nodes(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let failback = ["on", "off", "legacy"][index(&mut random, 3)];
        let mut scenario = Self::calm(failback);
        scenario.seed = seed;
        scenario.make_up(&mut random);
        scenario
    }

    pub(crate) fn many_nodes(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5EED);
        let mut scenario = Self::calm("off");
        scenario.seed = seed;
        scenario.nodes = 3 + index(&mut random, NODES_MAX - 2);
        scenario.has_resources = false;
        scenario.make_up(&mut random);
        scenario
    }

    fn make_up(&mut self, random: &mut Random) {
        (self.keepalive, self.deadtime) = [
            (Duration::from_millis(200), Duration::from_secs(1)),
            (Duration::from_secs(1), Duration::from_secs(6)),
        ][index(random, 2)];
        if random.below(2) == 0 {
            self.noise = Noise {
                loss: random.below(80),
                duplication: random.below(100),
                replay: random.below(30),
                corruption: random.below(20),
                delay_max: Duration::from_millis(1 + random.below(60)),
            };
        }
        self.drift_ppm = (0..self.nodes)
            .map(|_| i64::try_from(random.below(2000)).expect("a small number") - 1000)
            .collect();
        self.faults = (0..random.below(FAULTS_MAX + 1))
            .map(|_| self.fault(random))
            .collect();
        self.faults.sort_by_key(|fault| fault.at);
    }

    fn fault(&self, random: &mut Random) -> Fault {
        let at = Duration::from_millis(random.below(millis(TROUBLE)));
        let node = index(random, self.nodes);
        let to = (node + 1 + index(random, self.nodes - 1)) % self.nodes;
        let length = random.between(Duration::from_millis(50), FAULT_MAX);
        let share = ["all", "local", "foreign", "failback"][index(random, 4)];
        let kinds = if self.has_resources { 9 } else { 5 };
        let kind = match random.below(kinds) {
            0 => FaultKind::Cut {
                from: node,
                to,
                both: random.below(3) > 0,
                length,
            },
            1 => FaultKind::Pause {
                node,
                length: length.mul_f64([1.0, 0.3, 0.1, 0.05][index(random, 4)]),
            },
            2 => FaultKind::PowerOff { node, length },
            3 => FaultKind::Kill { node, length },
            4 => FaultKind::Stop { node, length },
            5 => FaultKind::StandBy { node, share },
            6 => FaultKind::TakeOver { node, share },
            7 => FaultKind::SlowScripts {
                node,
                each: random.between(Duration::from_millis(500), Duration::from_secs(3)),
                length,
            },
            _ => FaultKind::FailingStart {
                node,
                group: index(random, 2),
                length,
            },
        };
        Fault { at, kind }
    }
}

pub(crate) fn index(random: &mut Random, bound: usize) -> usize {
    let number = random.below(u64::try_from(bound).expect("a small number"));
    usize::try_from(number).expect("below a small number")
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("simulated times are short")
}
