//! From a daemon that died to the one after it: what it was told, and in which order the next
//! one is told the same.
//!
//! ```text
//! attach ──▶ connect ──▶ meet the peer ──▶ promote ──▶ the device's users go on
//!                             │    └ nobody there for a while: promoted alone
//!                             └ the peer is Primary: the device's users get errors
//! ```
//!
//! The peer comes before the role: whoever took over meanwhile has the newer data. A node that
//! was Primary and died marks what it may have written last, as after any crash.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::Command;
use super::settings::{DiskSettings, NetSettings};
use super::state::{Connection, Role, State};

/// What a daemon was told, kept where it does not outlive the machine's run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub disk: Option<DiskSettings>,
    pub net: Option<NetSettings>,
    pub primary: bool,
}

/// A peer that runs notices the death at once and is found in a moment; one that does not
/// answer in this time is most likely gone, and the device's users wait.
const MEET_WITHIN: Duration = Duration::from_secs(5);
/// A disk is free when the last of the dead daemon is.
const ATTACH_WITHIN: Duration = Duration::from_secs(20);
/// A Primary whose disk is no good needs its peer; longer than a peer takes to start.
const PROMOTE_WITHIN: Duration = Duration::from_secs(300);
/// How long a refusal is taken for one that passes.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Tell(Box<Command>),
    /// The device cannot be served again.
    Abandon(&'static str),
    /// Nothing before this time, or before something happens.
    Wait(Duration),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Attach,
    Connect,
    Promote,
    Over,
}

/// One recovery, from the first command to the last.
#[derive(Clone, Debug)]
pub struct Recovery {
    record: Record,
    step: Step,
    /// A command was given and is not answered yet.
    asked: bool,
    began: Duration,
    not_before: Duration,
}

impl Recovery {
    pub fn new(record: Record, now: Duration) -> Self {
        Self {
            record,
            step: Step::Attach,
            asked: false,
            began: now,
            not_before: now,
        }
    }

    /// What this node was told, as long as it is not told all of it again.
    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    /// Says what to do in this state.
    pub fn next(&mut self, now: Duration, state: State) -> Next {
        loop {
            if self.step == Step::Over {
                return Next::Over;
            }
            if self.asked {
                return Next::Wait(Duration::MAX);
            }
            if now < self.not_before {
                return Next::Wait(self.not_before);
            }
            let command = match self.step {
                Step::Attach => self.record.disk.clone().map(Command::Attach),
                Step::Connect => self.record.net.clone().map(|net| Command::Connect {
                    net,
                    discard_my_data: false,
                    tentative: false,
                }),
                Step::Promote if !self.record.primary => None,
                Step::Promote => return self.promote(now, state),
                Step::Over => None,
            };
            match command {
                Some(command) => {
                    self.asked = true;
                    return Next::Tell(Box::new(command));
                }
                None => self.advance(now),
            }
        }
    }

    fn promote(&mut self, now: Duration, state: State) -> Next {
        if state.peer == Role::Primary {
            self.step = Step::Over;
            return Next::Abandon("the peer became Primary meanwhile");
        }
        let meets = state.connection >= Connection::Connected;
        let alone_at = self.began + MEET_WITHIN;
        let given_up = state.connection == Connection::StandAlone;
        if !meets && !given_up && now < alone_at {
            return Next::Wait(alone_at);
        }
        self.asked = true;
        Next::Tell(Box::new(Command::Primary { force: false }))
    }

    /// The last command was answered.
    pub fn answered(&mut self, now: Duration, accepted: bool) -> Option<Next> {
        self.asked = false;
        let within = match self.step {
            Step::Attach => ATTACH_WITHIN,
            Step::Connect => Duration::ZERO,
            Step::Promote => PROMOTE_WITHIN,
            Step::Over => return None,
        };
        if !accepted && now < self.began + within {
            self.not_before = now + AGAIN_AFTER;
            return None;
        }
        let in_vain = self.step == Step::Promote && !accepted;
        self.advance(now);
        in_vain.then_some(Next::Abandon("this node cannot become Primary again"))
    }

    fn advance(&mut self, now: Duration) {
        self.step = match self.step {
            Step::Attach => Step::Connect,
            Step::Connect => Step::Promote,
            Step::Promote | Step::Over => Step::Over,
        };
        self.began = now;
        self.not_before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::settings::MetaDisk;
    use crate::replica::state::Disk;

    const START: Duration = Duration::from_secs(100);

    fn record(primary: bool) -> Record {
        let address = |last| std::net::SocketAddr::from(([10, 0, 23, last], 7788));
        Record {
            disk: Some(DiskSettings::new("/dev/sdb1".into(), MetaDisk::Internal)),
            net: Some(NetSettings::new(address(2), address(3))),
            primary,
        }
    }

    fn state(connection: Connection, peer: Role) -> State {
        State {
            connection,
            peer,
            disk: Disk::UpToDate,
            ..State::UNCONFIGURED
        }
    }

    fn told(next: &Next) -> &'static str {
        match next {
            Next::Tell(command) => match **command {
                Command::Attach(_) => "attach",
                Command::Connect { .. } => "connect",
                Command::Primary { force: false } => "primary",
                _ => "something else",
            },
            Next::Abandon(_) => "abandon",
            Next::Wait(_) => "wait",
            Next::Over => "over",
        }
    }

    /// Up to the point where the role is to be taken.
    fn connected(primary: bool) -> Recovery {
        let alone = state(Connection::StandAlone, Role::Unknown);
        let mut recovery = Recovery::new(record(primary), START);
        assert_eq!(told(&recovery.next(START, alone)), "attach");
        assert_eq!(told(&recovery.next(START, alone)), "wait");
        assert_eq!(recovery.answered(START, true), None);
        assert_eq!(told(&recovery.next(START, alone)), "connect");
        assert_eq!(recovery.answered(START, true), None);
        recovery
    }

    #[test]
    fn a_secondary_is_attached_and_connected() {
        let mut recovery = connected(false);
        let next = recovery.next(START, state(Connection::WFConnection, Role::Unknown));
        assert_eq!(next, Next::Over);
        assert!(recovery.is_over());
    }

    #[test]
    fn a_primary_meets_its_peer_before_it_takes_the_role_again() {
        let mut recovery = connected(true);
        let looking = state(Connection::WFConnection, Role::Unknown);
        assert_eq!(
            recovery.next(START, looking),
            Next::Wait(START + MEET_WITHIN)
        );
        let met = state(Connection::WFBitMapS, Role::Secondary);
        assert_eq!(told(&recovery.next(START, met)), "primary");
        // A state that passes.
        assert_eq!(recovery.answered(START, false), None);
        assert_eq!(recovery.next(START, met), Next::Wait(START + AGAIN_AFTER));
        assert_eq!(told(&recovery.next(START + AGAIN_AFTER, met)), "primary");
        assert_eq!(recovery.answered(START + AGAIN_AFTER, true), None);
        assert_eq!(recovery.next(START, met), Next::Over);
    }

    #[test]
    fn without_a_peer_it_goes_on_alone() {
        let looking = state(Connection::WFConnection, Role::Unknown);
        let mut recovery = connected(true);
        assert_eq!(
            told(&recovery.next(START + MEET_WITHIN, looking)),
            "primary"
        );
        // Split brain: nobody will come.
        let mut recovery = connected(true);
        let alone = state(Connection::StandAlone, Role::Unknown);
        assert_eq!(told(&recovery.next(START, alone)), "primary");
    }

    #[test]
    fn a_peer_that_took_over_keeps_the_role() {
        let mut recovery = connected(true);
        let next = recovery.next(START, state(Connection::WFBitMapT, Role::Primary));
        assert_eq!(told(&next), "abandon");
        assert!(recovery.is_over());
    }

    #[test]
    fn what_cannot_be_had_in_time_is_given_up() {
        let met = state(Connection::Connected, Role::Secondary);
        let mut recovery = connected(true);
        assert_eq!(told(&recovery.next(START, met)), "primary");
        let late = recovery.answered(START + PROMOTE_WITHIN, false);
        assert_eq!(late.as_ref().map(told), Some("abandon"));
        assert!(recovery.is_over());
        // A disk that stays away: the node connects without it.
        let alone = state(Connection::StandAlone, Role::Unknown);
        let mut recovery = Recovery::new(record(false), START);
        recovery.next(START, alone);
        assert_eq!(recovery.answered(START, false), None);
        let later = START + ATTACH_WITHIN;
        assert_eq!(told(&recovery.next(later, alone)), "attach");
        assert_eq!(recovery.answered(later, false), None);
        assert_eq!(told(&recovery.next(later, alone)), "connect");
    }
}
