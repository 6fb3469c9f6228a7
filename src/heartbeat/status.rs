//! A node's state as people and tools read it: `cl_status`, `heartbeat status`, `--json`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::detector::NodeStatus;
use super::jobs::GroupState;

/// Everything there is to see.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub node: String,
    /// `starting joining active releasing leaving gone`.
    pub phase: String,
    /// `none local foreign all transition`; always `none` with `auto_failback legacy`.
    pub resources: String,
    /// In the order of ha.cf.
    pub nodes: Vec<NodeView>,
    pub groups: Vec<GroupView>,
    /// Hosts outside the cluster.
    #[serde(default)]
    pub pings: Vec<PingView>,
    pub counters: Counters,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub status: NodeStatus,
    /// Since its last status message; `None` for this node.
    pub last_heard_ms: Option<u64>,
    /// The silence after which it is dead.
    pub dead_after_ms: Option<u64>,
    pub generation: Option<u64>,
    pub links: Vec<LinkView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkView {
    pub name: String,
    pub is_up: bool,
}

impl LinkView {
    pub fn status(&self) -> &'static str {
        if self.is_up { "up" } else { "dead" }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PingView {
    pub name: String,
    pub is_up: bool,
}

impl PingView {
    pub fn status(&self) -> &'static str {
        if self.is_up { "ping" } else { "dead" }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupView {
    pub owner: String,
    pub resources: Vec<String>,
    /// On this node.
    pub state: GroupState,
}

/// Counted since the start of this generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub sent: u64,
    pub received: u64,
    pub resent: u64,
    pub lost: u64,
    pub duplicates: u64,
    /// Not signed right, malformed, incomplete.
    pub refused: u64,
    /// Of an older generation.
    pub replayed: u64,
    /// Signed right, of a node that ha.cf does not name.
    pub strangers: u64,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} is {}, holds {}",
            self.node, self.phase, self.resources
        )?;
        for node in &self.nodes {
            write!(
                formatter,
                "  node {:<16} {:<7}",
                node.name,
                node.status.name()
            )?;
            if let (Some(heard), Some(limit)) = (node.last_heard_ms, node.dead_after_ms) {
                write!(formatter, " heard {heard} ms ago, dead after {limit} ms")?;
            }
            for link in &node.links {
                if node.last_heard_ms.is_some() {
                    write!(formatter, ", {} {}", link.name, link.status())?;
                }
            }
            writeln!(formatter)?;
        }
        for ping in &self.pings {
            writeln!(formatter, "  ping {:<16} {}", ping.name, ping.status())?;
        }
        for group in &self.groups {
            let state = format!("{:?}", group.state).to_lowercase();
            writeln!(
                formatter,
                "  group of {}: {} — {state} here",
                group.owner,
                group.resources.join(" ")
            )?;
        }
        let counters = &self.counters;
        write!(
            formatter,
            "  messages: {} sent, {} received, {} lost, {} resent; {} refused, {} replayed, {} of strangers",
            counters.sent,
            counters.received,
            counters.lost,
            counters.resent,
            counters.refused,
            counters.replayed,
            counters.strangers
        )
    }
}
