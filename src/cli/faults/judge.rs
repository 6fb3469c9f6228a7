//! Is all well again? From what both nodes say of themselves to an answer.

use std::fmt;
use std::time::Duration;

use super::plan::{Fault, Kind};

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub has_address: bool,
    pub is_mounted: bool,
    /// As `/proc/drbd` has them: `Connected`, `Primary/Secondary`, `UpToDate/UpToDate`.
    pub connection: String,
    pub roles: String,
    pub disks: String,
    /// What systemd says of heartbeat.
    pub heartbeat: String,
    /// What heartbeat says of the other node.
    pub peer: String,
}

/// How the cluster stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// One node has everything, the other is ready, both disks hold the same.
    Whole { owner: usize },
    /// The nodes have parted, for each has data that the other has not.
    Parted,
    /// Something is still on its way; what, in words.
    NotYet(String),
}

/// Asks a node, in its own shell.
pub(crate) fn question(address: &str, mount_point: &str, peer: &str) -> String {
    format!(
        "ip -4 -o addr show dev eth0 | grep -q ' {address}/' && echo address yes
findmnt --noheadings {mount_point} >/dev/null && echo mounted yes
sed -n 's/.*cs:\\([^ ]*\\) ro:\\([^ ]*\\) ds:\\([^ ]*\\).*/drbd \\1 \\2 \\3/p' /proc/drbd
echo heartbeat $(systemctl is-active heartbeat)
echo peer $(cl_status nodestatus {peer})"
    )
}

impl NodeView {
    pub(crate) fn parse(answer: &str) -> Self {
        let mut view = Self::default();
        for line in answer.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["address", "yes"] => view.has_address = true,
                ["mounted", "yes"] => view.is_mounted = true,
                ["drbd", connection, roles, disks] => {
                    (*connection).clone_into(&mut view.connection);
                    (*roles).clone_into(&mut view.roles);
                    (*disks).clone_into(&mut view.disks);
                }
                ["heartbeat", state] => (*state).clone_into(&mut view.heartbeat),
                ["peer", state] => (*state).clone_into(&mut view.peer),
                _ => {}
            }
        }
        view
    }

    /// Everything of the service, and nothing of it.
    fn has_all(&self) -> bool {
        self.has_address && self.is_mounted && self.roles == "Primary/Secondary"
    }

    fn has_nothing(&self) -> bool {
        !self.has_address && !self.is_mounted && self.roles == "Secondary/Primary"
    }

    pub(crate) fn is_in_sync(&self) -> bool {
        self.connection == "Connected" && self.disks == "UpToDate/UpToDate"
    }
}

impl fmt::Display for NodeView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |text: &str| if text.is_empty() { "?" } else { text }.to_owned();
        let has = |is: bool, what: &'static str| if is { what } else { "" };
        write!(
            formatter,
            "cs:{} ro:{} ds:{}{}{}, heartbeat {}, other node {}",
            word(&self.connection),
            word(&self.roles),
            word(&self.disks),
            has(self.has_address, ", address"),
            has(self.is_mounted, ", mounted"),
            word(&self.heartbeat),
            word(&self.peer),
        )
    }
}

/// Judges two views of about the same moment.
pub(crate) fn health(views: &[NodeView; 2]) -> Health {
    if views.iter().any(|view| view.connection == "StandAlone") {
        return Health::Parted;
    }
    let is_run = |view: &NodeView| view.heartbeat == "active" && view.peer == "active";
    let one_owner = |owner: usize| views[owner].has_all() && views[1 - owner].has_nothing();
    let owner = [0, 1].into_iter().find(|&owner| one_owner(owner));
    match owner {
        Some(owner) if views.iter().all(|view| view.is_in_sync() && is_run(view)) => {
            Health::Whole { owner }
        }
        _ => Health::NotYet(format!("{}; {}", views[0], views[1])),
    }
}

/// For how long a machine that stood still may answer for an address that another has taken meanwhile: it has
/// to hear of it first.
const AWAKENING: Duration = Duration::from_secs(2);

/// Whether it is a fault of the cluster's that two machines answered for the address for so long.
pub(crate) fn is_two_owners(fault: Fault, shared: Duration) -> bool {
    let allowed = match fault.kind {
        Kind::Pause => AWAKENING,
        _ => Duration::ZERO,
    };
    shared > allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> NodeView {
        NodeView::parse(
            "# address yes\naddress yes\nmounted yes\ndrbd Connected Primary/Secondary UpToDate/UpToDate\nheartbeat active\npeer active\n",
        )
    }

    fn other() -> NodeView {
        NodeView::parse(
            "drbd Connected Secondary/Primary UpToDate/UpToDate\nheartbeat active\npeer active\n",
        )
    }

    #[test]
    fn one_owner_and_one_that_is_ready_are_whole() {
        assert_eq!(health(&[owner(), other()]), Health::Whole { owner: 0 });
        assert_eq!(health(&[other(), owner()]), Health::Whole { owner: 1 });
    }

    #[test]
    fn whatever_is_missing_is_not_yet_whole() {
        let breaks: [fn(&mut NodeView); 7] = [
            |view| view.has_address = !view.has_address,
            |view| view.is_mounted = !view.is_mounted,
            |view| view.connection = "SyncTarget".into(),
            |view| view.disks = "UpToDate/Inconsistent".into(),
            |view| view.roles = "Secondary/Secondary".into(),
            |view| view.heartbeat = "inactive".into(),
            |view| view.peer = "dead".into(),
        ];
        for (number, make_wrong) in breaks.into_iter().enumerate() {
            for place in [0, 1] {
                let mut views = [owner(), other()];
                make_wrong(&mut views[place]);
                assert!(
                    matches!(health(&views), Health::NotYet(_)),
                    "{number} at {place}: {views:?}"
                );
            }
        }
        let silent = health(&[owner(), NodeView::default()]);
        let Health::NotYet(words) = silent else {
            panic!("{silent:?}");
        };
        assert!(
            words.ends_with("cs:? ro:? ds:?, heartbeat ?, other node ?"),
            "{words}"
        );
    }

    #[test]
    fn a_node_that_wants_no_more_of_the_other_has_parted() {
        let mut views = [owner(), other()];
        views[1].connection = "StandAlone".into();
        assert_eq!(health(&views), Health::Parted);
    }

    #[test]
    fn a_node_is_asked_for_what_is_parsed() {
        let text = question("10.0.0.50", "/var/www", "b");
        assert!(text.contains("nodestatus b"), "{text}");
        assert!(text.contains("' 10.0.0.50/'"), "{text}");
    }

    #[test]
    fn only_a_machine_that_stood_still_may_answer_beside_another() {
        let fault = |kind| Fault {
            kind,
            node: 0,
            lasts: Duration::ZERO,
            rest: Duration::ZERO,
        };
        let millis = Duration::from_millis;
        assert!(!is_two_owners(fault(Kind::Pause), millis(1900)));
        assert!(is_two_owners(fault(Kind::Pause), millis(2100)));
        assert!(is_two_owners(fault(Kind::CutEth0), millis(1)));
        assert!(!is_two_owners(fault(Kind::CutEth0), millis(0)));
    }
}
