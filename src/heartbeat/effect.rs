//! What the resource protocols ask the node to do, and the words they share.

use std::fmt;

use super::jobs::Work;
use super::message::Message;

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To be completed with sender and sequence, signed, and sent on all media.
    Send(Message),
    Work(Work<Reason>),
    Log(Level, String),
    /// The other node lives and holds what this node holds: it must have thought this
    /// one dead.
    Usurped,
}

/// Why groups are started or stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// After a crash of this daemon.
    CleanUp,
    /// The groups that prefer this node.
    TakeLocal,
    /// The groups of a node that died or left.
    TakeForeign,
    StandbyRelease,
    StandbyAcquire,
    /// A group that did not start is tried again, as no other node is there to have it.
    Retry,
    /// Legacy: a group is given up because its owner asks for it.
    Give {
        to: String,
        key: String,
    },
    /// Everything, before leaving.
    ReleaseAll,
}

/// Importance of a line, as heartbeat's log spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "CRIT",
        }
    }
}

/// Which groups, seen from one node: those that prefer it, the others, both, none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub local: bool,
    pub foreign: bool,
}

impl Share {
    pub const NONE: Self = Self {
        local: false,
        foreign: false,
    };
    pub const LOCAL: Self = Self {
        local: true,
        foreign: false,
    };
    pub const FOREIGN: Self = Self {
        local: false,
        foreign: true,
    };
    pub const ALL: Self = Self {
        local: true,
        foreign: true,
    };

    /// Reads `none`, `local`, `foreign`, `all`; `failback` is what a returned owner gets.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::NONE),
            "local" => Some(Self::LOCAL),
            "foreign" | "failback" => Some(Self::FOREIGN),
            "all" => Some(Self::ALL),
            _ => None,
        }
    }

    /// Returns the same groups as the other node sees them.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self {
            local: self.foreign,
            foreign: self.local,
        }
    }

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            local: self.local || other.local,
            foreign: self.foreign || other.foreign,
        }
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            local: self.local && !other.local,
            foreign: self.foreign && !other.foreign,
        }
    }

    /// Returns what is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            local: self.local && other.local,
            foreign: self.foreign && other.foreign,
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match (self.local, self.foreign) {
            (false, false) => "none",
            (true, false) => "local",
            (false, true) => "foreign",
            (true, true) => "all",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_shown() {
        for text in ["none", "local", "foreign", "all"] {
            assert_eq!(Share::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Share::parse("failback"), Some(Share::FOREIGN));
        assert_eq!(Share::parse("ALL"), None);
    }

    #[test]
    fn my_foreign_groups_are_the_others_local_ones() {
        assert_eq!(Share::FOREIGN.mirrored(), Share::LOCAL);
        assert_eq!(Share::ALL.without(Share::LOCAL), Share::FOREIGN);
        assert_eq!(Share::ALL.and(Share::FOREIGN), Share::FOREIGN);
    }
}
