//! Ping nodes: hosts outside the cluster that answer or do not, and what ipfail makes of that.
//!
//! ```text
//!  a ping node's state changes ──▶ num_ping_nodes (how many answer me) ──▶ the other node
//!  the other has fewer ──▶ you_are_dead ──▶ it stands by after a while
//!  the other has as many ──▶ abort_giveup ──▶ it does not
//!  the other has more ──▶ this one stands by after a while
//! ```
//!
//! The while is there because two nodes never notice at the same moment that a host is gone.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::config::ha_cf::PingTarget;

/// Echo requests that both nodes have time for before one stands by.
const GIVE_UP_ROUNDS: u32 = 4;

/// One pseudo member: up while one of its hosts answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingNode {
    pub name: String,
    pub hosts: Vec<Ipv4Addr>,
    heard: Duration,
    pub is_up: bool,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct PingNodes {
    nodes: Vec<PingNode>,
    /// `deadping`.
    limit: Duration,
    interval: Duration,
    next: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PingChange {
    Up(String),
    Dead(String),
}

impl PingNodes {
    pub fn new(targets: &[PingTarget], limit: Duration, interval: Duration, now: Duration) -> Self {
        let nodes = targets.iter().map(|target| PingNode {
            name: target.name.clone(),
            hosts: target.hosts.clone(),
            heard: now,
            is_up: false,
        });
        Self {
            nodes: nodes.collect(),
            limit,
            interval,
            next: now,
        }
    }

    pub fn nodes(&self) -> &[PingNode] {
        &self.nodes
    }

    /// How many are up.
    pub fn reachable(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_up).count()
    }

    /// Returns whom to ask now; nobody before it is time again.
    pub fn take_questions(&mut self, now: Duration) -> Vec<Ipv4Addr> {
        if self.nodes.is_empty() || self.next > now {
            return Vec::new();
        }
        // After a sleep the rounds begin anew instead of catching up.
        self.next = now + self.interval;
        let hosts = self
            .nodes
            .iter()
            .flat_map(|node| node.hosts.iter().copied());
        hosts.collect()
    }

    /// Notes an answer.
    pub fn answer(&mut self, from: Ipv4Addr, now: Duration) -> Vec<PingChange> {
        let mut changes = Vec::new();
        for node in &mut self.nodes {
            if node.hosts.contains(&from) {
                node.heard = now;
                if !std::mem::replace(&mut node.is_up, true) {
                    changes.push(PingChange::Up(node.name.clone()));
                }
            }
        }
        changes
    }

    /// Marks those dead that were silent for too long.
    pub fn check(&mut self, now: Duration) -> Vec<PingChange> {
        let mut changes = Vec::new();
        for node in &mut self.nodes {
            if node.is_up && node.heard + self.limit <= now {
                node.is_up = false;
                changes.push(PingChange::Dead(node.name.clone()));
            }
        }
        changes
    }

    pub fn deadline(&self) -> Option<Duration> {
        let silent = self.nodes.iter().filter(|node| node.is_up);
        let dead_at = silent.map(|node| node.heard + self.limit).min();
        let asks = (!self.nodes.is_empty()).then_some(self.next);
        asks.into_iter().chain(dead_at).min()
    }
}

/// What one node answers to the other's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountAnswer {
    YouAreDead,
    AbortGiveUp,
}

impl CountAnswer {
    /// The message's type.
    pub fn kind(self) -> &'static str {
        match self {
            Self::YouAreDead => "you_are_dead",
            Self::AbortGiveUp => "abort_giveup",
        }
    }
}

/// Stands by when the other node reaches more.
#[derive(Clone, Debug)]
pub struct IpFail {
    delay: Duration,
    give_up_at: Option<Duration>,
}

impl IpFail {
    /// `interval` is that of the echo requests.
    pub fn new(interval: Duration) -> Self {
        Self {
            delay: interval * GIVE_UP_ROUNDS,
            give_up_at: None,
        }
    }

    /// Compares own and other's number of reachable ping nodes.
    pub fn compare(&mut self, own: usize, theirs: usize, now: Duration) -> Option<CountAnswer> {
        match own.cmp(&theirs) {
            std::cmp::Ordering::Less => {
                self.told_dead(now);
                None
            }
            std::cmp::Ordering::Equal => {
                self.give_up_at = None;
                Some(CountAnswer::AbortGiveUp)
            }
            std::cmp::Ordering::Greater => {
                self.give_up_at = None;
                Some(CountAnswer::YouAreDead)
            }
        }
    }

    /// The other reaches more.
    pub fn told_dead(&mut self, now: Duration) {
        self.give_up_at.get_or_insert(now + self.delay);
    }

    pub fn abort(&mut self) {
        self.give_up_at = None;
    }

    /// Whether it is time to stand by.
    pub fn take_give_up(&mut self, now: Duration) -> bool {
        self.give_up_at.take_if(|at| *at <= now).is_some()
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.give_up_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 253);

    fn pings() -> PingNodes {
        let targets = [
            PingTarget {
                name: "10.0.0.254".into(),
                hosts: vec![ROUTER],
            },
            PingTarget {
                name: "routers".into(),
                hosts: vec![ROUTER, OTHER],
            },
        ];
        PingNodes::new(&targets, 3 * SECOND, SECOND, SECOND)
    }

    #[test]
    fn a_group_is_up_while_one_of_its_hosts_answers() {
        let mut pings = pings();
        assert_eq!(pings.take_questions(SECOND), [ROUTER, ROUTER, OTHER]);
        assert!(pings.take_questions(SECOND).is_empty());
        assert_eq!(
            pings.answer(ROUTER, SECOND),
            [
                PingChange::Up("10.0.0.254".into()),
                PingChange::Up("routers".into())
            ]
        );
        assert!(pings.answer(OTHER, 3 * SECOND).is_empty());
        assert_eq!(pings.deadline(), Some(2 * SECOND));
        assert_eq!(
            pings.check(4 * SECOND),
            [PingChange::Dead("10.0.0.254".into())]
        );
        assert_eq!(pings.reachable(), 1);
        assert_eq!(
            pings.check(6 * SECOND),
            [PingChange::Dead("routers".into())]
        );
    }

    #[test]
    fn who_reaches_less_gives_up_after_a_while_unless_the_other_fails_too() {
        let mut worse = IpFail::new(SECOND);
        let mut better = IpFail::new(SECOND);
        assert_eq!(better.compare(2, 1, SECOND), Some(CountAnswer::YouAreDead));
        worse.told_dead(SECOND);
        assert!(!worse.take_give_up(4 * SECOND));
        // The other's host went a moment later.
        assert_eq!(
            worse.compare(1, 1, 4 * SECOND),
            Some(CountAnswer::AbortGiveUp)
        );
        assert_eq!(worse.deadline(), None);
        assert_eq!(worse.compare(1, 2, 5 * SECOND), None);
        worse.told_dead(8 * SECOND);
        assert!(worse.take_give_up(9 * SECOND));
        assert!(!worse.take_give_up(10 * SECOND));
    }
}
