//! Which faults happen to which node, for how long: all from one number, so that a campaign can be played again.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::heartbeat::random::Random;

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Its power is cut; later it boots.
    Kill,
    /// It shuts down in order, and boots.
    Restart,
    /// It stands still, and goes on as if nothing had been.
    Pause,
    /// The cable to the client and of the heartbeats.
    CutEth0,
    /// The cable of the replication.
    CutEth1,
    /// Both cables: it lives, and nobody knows.
    CutBoth,
}

/// One fault of the campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: Kind,
    /// Which of the two nodes, by its place in the topology.
    pub node: usize,
    /// Until it is mended: the power comes back, the machine goes on, the cable is plugged in.
    pub lasts: Duration,
    /// Of a whole cluster, before it.
    pub rest: Duration,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::CutEth0 => "cut eth0",
            Self::CutEth1 => "cut eth1",
            Self::CutBoth => "cut both",
        }
    }

    /// The cables that are pulled, in this order: the client's first, so that nothing is acknowledged
    /// that only the node without cables has.
    pub(crate) fn cables(self) -> &'static [&'static str] {
        match self {
            Self::CutEth0 => &["eth0"],
            Self::CutEth1 => &["eth1"],
            Self::CutBoth => &["eth0", "eth1"],
            Self::Kill | Self::Restart | Self::Pause => &[],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl Fault {
    /// Whether two nodes may write apart from each other, whatever a cluster without fencing does: each
    /// lives, and can know nothing of the other. A machine that stands still does so when it goes on.
    pub(crate) fn may_split(self) -> bool {
        matches!(self.kind, Kind::CutBoth | Kind::Pause)
    }
}

/// Returns the campaign of a seed with faults of these kinds, all where none is named. The first faults of a longer
/// one are those of a shorter.
pub(crate) fn plan(seed: u64, count: usize, kinds: &[Kind]) -> Vec<Fault> {
    let kinds = if kinds.is_empty() {
        Kind::value_variants()
    } else {
        kinds
    };
    let mut random = Random::new(seed);
    (0..count).map(|_| fault(&mut random, kinds)).collect()
}

fn fault(random: &mut Random, kinds: &[Kind]) -> Fault {
    let kind = kinds[pick(random, kinds.len())];
    let node = pick(random, 2);
    // A hiccup that nobody may take for a death, or long enough for everybody to act on it.
    let is_short = random.below(4) == 0;
    let (least, most) = match kind {
        Kind::Kill | Kind::Restart => (0, 4000),
        _ if is_short => (100, 600),
        _ => (2000, 12_000),
    };
    let millis = Duration::from_millis;
    Fault {
        kind,
        node,
        lasts: random.between(millis(least), millis(most)),
        rest: random.between(millis(500), millis(3000)),
    }
}

fn pick(random: &mut Random, count: usize) -> usize {
    let bound = u64::try_from(count).expect("a handful");
    usize::try_from(random.below(bound)).expect("below a handful")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_campaign() {
        assert_eq!(plan(7, 40, &[]), plan(7, 40, &[]));
        assert_eq!(plan(7, 40, &[])[..10], plan(7, 10, &[]));
        assert_ne!(plan(7, 40, &[]), plan(8, 40, &[]));
    }

    #[test]
    fn only_the_kinds_that_are_named_are_played() {
        let kinds = [Kind::Pause, Kind::CutEth1];
        let played: BTreeSet<Kind> = plan(7, 40, &kinds).iter().map(|fault| fault.kind).collect();
        assert_eq!(played, BTreeSet::from(kinds));
    }

    #[test]
    fn a_hundred_faults_have_every_kind_on_each_node() {
        for seed in 0..20 {
            let faults = plan(seed, 100, &[]);
            for &kind in Kind::value_variants() {
                for node in [0, 1] {
                    assert!(
                        faults
                            .iter()
                            .any(|fault| fault.kind == kind && fault.node == node),
                        "seed {seed}: no {kind} of node {node}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_fault_ends() {
        for fault in (0..20).flat_map(|seed| plan(seed, 100, &[])) {
            assert!(fault.lasts <= Duration::from_secs(12), "{fault:?}");
            assert!(fault.rest <= Duration::from_secs(3), "{fault:?}");
        }
    }

    #[test]
    fn the_clients_cable_is_pulled_first() {
        assert_eq!(Kind::CutBoth.cables(), ["eth0", "eth1"]);
    }
}
