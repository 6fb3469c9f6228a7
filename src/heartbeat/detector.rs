//! Is a node alive: what was last heard of it, on which link, and how long silence may last.
//!
//! A node is dead when no status message of it came for the time it asked for itself
//! (`dt`), or for `initdead` while this node starts. A link is dead when nothing came
//! over it for as long. The deadlines are exact: nothing polls.

use std::time::Duration;

use super::random::Random;
use super::sequence::Inbox;

/// What a node says of itself, or what is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Not heard yet, or just started.
    Init,
    /// Runs, and waits for the others.
    Up,
    /// Takes part.
    Active,
    Dead,
}

impl NodeStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Up => "up",
            Self::Active => "active",
            Self::Dead => "dead",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Init, Self::Up, Self::Active, Self::Dead]
            .into_iter()
            .find(|status| status.name() == text)
    }
}

pub type Uuid = [u8; 16];

/// Everything known of another node.
#[derive(Debug)]
pub struct Peer {
    pub name: String,
    pub uuid: Option<Uuid>,
    pub status: NodeStatus,
    /// Of its newest start that was heard of.
    pub generation: Option<u64>,
    pub inbox: Inbox,
    /// Number of this node's newest message that it has acknowledged.
    pub acknowledged: u64,
    /// Sequence number of its newest status message.
    pub newest_status: u64,
    /// When that came, or when this node started.
    pub heard: Duration,
    /// The silence it asks to be given; `None` until it has said so.
    pub asked_limit: Option<Duration>,
    pub links: Vec<Link>,
}

/// The other node's end of a medium of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// This node's interface.
    pub name: String,
    pub heard: Option<Duration>,
    pub is_up: bool,
}

impl Peer {
    pub fn new(name: &str, links: &[String], now: Duration, random: &mut Random) -> Self {
        Self {
            name: name.into(),
            uuid: None,
            status: NodeStatus::Init,
            generation: None,
            inbox: Inbox::new(random),
            acknowledged: 0,
            newest_status: 0,
            heard: now,
            asked_limit: None,
            links: links
                .iter()
                .map(|name| Link {
                    name: name.clone(),
                    heard: None,
                    is_up: false,
                })
                .collect(),
        }
    }

    pub fn is_alive(&self) -> bool {
        matches!(self.status, NodeStatus::Up | NodeStatus::Active)
    }

    /// Forgets what was tied to an earlier generation.
    pub fn restart(&mut self, generation: u64, random: &mut Random) {
        self.generation = Some(generation);
        self.inbox = Inbox::new(random);
        self.acknowledged = 0;
        self.newest_status = 0;
        self.status = NodeStatus::Init;
    }

    /// When silence becomes death; `None` for a node that is dead already.
    pub fn dead_at(&self, limit: Duration) -> Option<Duration> {
        (self.status != NodeStatus::Dead).then(|| self.heard + limit)
    }

    /// Notes a sign of life of a link. Returns whether the link came up by it.
    pub fn link_heard(&mut self, link: usize, now: Duration) -> bool {
        let Some(link) = self.links.get_mut(link) else {
            return false;
        };
        link.heard = Some(now);
        !std::mem::replace(&mut link.is_up, true)
    }

    /// Returns the links whose silence has lasted too long, and marks them dead.
    pub fn take_dead_links(&mut self, now: Duration, limit: Duration) -> Vec<String> {
        self.links
            .iter_mut()
            .filter(|link| link.is_up && link.heard.is_none_or(|heard| heard + limit <= now))
            .map(|link| {
                link.is_up = false;
                link.name.clone()
            })
            .collect()
    }

    /// When the next link becomes dead.
    pub fn link_dead_at(&self, limit: Duration) -> Option<Duration> {
        self.links
            .iter()
            .filter(|link| link.is_up)
            .filter_map(|link| link.heard)
            .min()
            .map(|heard| heard + limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer() -> Peer {
        Peer::new(
            "b",
            &["eth0".into(), "eth1".into()],
            SECOND,
            &mut Random::new(1),
        )
    }

    #[test]
    fn silence_counts_from_the_start_until_something_is_heard() {
        let mut peer = peer();
        assert_eq!(peer.dead_at(SECOND), Some(2 * SECOND));
        peer.status = NodeStatus::Dead;
        assert_eq!(peer.dead_at(SECOND), None);
    }

    #[test]
    fn each_link_lives_and_dies_for_itself() {
        let mut peer = peer();
        assert!(peer.link_heard(0, SECOND));
        assert!(!peer.link_heard(0, 2 * SECOND));
        assert!(peer.link_heard(1, 3 * SECOND));
        assert_eq!(peer.link_dead_at(SECOND), Some(3 * SECOND));
        assert_eq!(peer.take_dead_links(3 * SECOND, SECOND), ["eth0"]);
        assert_eq!(peer.take_dead_links(3 * SECOND, SECOND), [""; 0]);
        assert!(peer.link_heard(0, 4 * SECOND));
    }

    #[test]
    fn a_link_that_no_medium_has_is_ignored() {
        assert!(!peer().link_heard(7, SECOND));
    }
}
