//! Connection × role × disk: one node's view of the pair, as one word on the wire.
//!
//! Holds the states, the word they travel as, what a change implies (`settled`), which
//! changes are refused and why, and how the peer's request looks from here. What to do
//! about a change is the engine's business.
//!
//! ```text
//! StandAlone → Unconnected → WFConnection → WFReportParams → Connected ─┬→ WFBitMapS → SyncSource ─┐
//!      ↑            ↑              │               │             ↑      ├→ WFBitMapT → WFSyncUUID  │
//!      │            └── lost ──────┴───────────────┴─────────────┤      │       └→ SyncTarget ─────┤
//!      └── Disconnecting ← command, or the peers do not fit      │      └→ VerifyS / VerifyT ──────┤
//!                                                                └─────────────────────────────────┘
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares a field of the state word: its values, their numbers and their names.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($variant = $number),+ }

        impl $name {
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            pub fn number(self) -> u32 {
                match self { $(Self::$variant => $number),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(match self { $(Self::$variant => stringify!($variant)),+ })
            }
        }
    };
}

states! {
    /// What a node may do with the device.
    Role { Unknown = 0, Primary = 1, Secondary = 2 }
}

states! {
    /// How good a node's disk is; the order is the field's: later is better.
    Disk {
        Diskless = 0, Attaching = 1, Failed = 2, Negotiating = 3, Inconsistent = 4,
        Outdated = 5, DUnknown = 6, Consistent = 7, UpToDate = 8,
    }
}

states! {
    /// Where the connection stands; from `Connected` on it is established.
    Connection {
        StandAlone = 0, Disconnecting = 1, Unconnected = 2, Timeout = 3, BrokenPipe = 4,
        NetworkFailure = 5, ProtocolError = 6, TearDown = 7, WFConnection = 8,
        WFReportParams = 9, Connected = 10, StartingSyncS = 11, StartingSyncT = 12,
        WFBitMapS = 13, WFBitMapT = 14, WFSyncUUID = 15, SyncSource = 16, SyncTarget = 17,
        VerifyS = 18, VerifyT = 19, PausedSyncS = 20, PausedSyncT = 21, Ahead = 22, Behind = 23,
    }
}

impl Connection {
    pub fn established(self) -> bool {
        self >= Self::Connected
    }

    /// Whether the packets of a resync may be on their way.
    pub fn syncing(self) -> bool {
        matches!(
            self,
            Self::SyncSource | Self::SyncTarget | Self::PausedSyncS | Self::PausedSyncT
        )
    }

    pub fn verifying(self) -> bool {
        matches!(self, Self::VerifyS | Self::VerifyT)
    }
}

/// Why application input and output waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Suspended {
    pub by_user: bool,
    pub no_data: bool,
    pub fencing: bool,
}

/// Why a resync waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Paused {
    pub by_dependency: bool,
    pub by_peer: bool,
    pub by_user: bool,
}

impl Paused {
    pub fn any(self) -> bool {
        self.by_dependency || self.by_peer || self.by_user
    }

    /// What the peer is told: anything but its own wish.
    pub fn here(self) -> bool {
        self.by_dependency || self.by_user
    }
}

/// One node's view of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub role: Role,
    pub peer: Role,
    pub connection: Connection,
    pub disk: Disk,
    pub peer_disk: Disk,
    pub suspended: Suspended,
    pub paused: Paused,
}

impl State {
    /// A configured device with neither disk nor connection.
    pub const UNCONFIGURED: Self = Self {
        role: Role::Secondary,
        peer: Role::Unknown,
        connection: Connection::StandAlone,
        disk: Disk::Diskless,
        peer_disk: Disk::DUnknown,
        suspended: Suspended {
            by_user: false,
            no_data: false,
            fencing: false,
        },
        paused: Paused {
            by_dependency: false,
            by_peer: false,
            by_user: false,
        },
    };

    /// The word of `P_STATE`: role 0-1, peer 2-3, connection 4-8, disk 9-12, peer's disk
    /// 13-16, then one bit each for `susp`, `aftr_isp`, `peer_isp`, `user_isp`, `susp_nod`, `susp_fen`.
    pub fn word(self) -> u32 {
        self.role.number()
            | self.peer.number() << 2
            | self.connection.number() << 4
            | self.disk.number() << 9
            | self.peer_disk.number() << 13
            | u32::from(self.suspended.by_user) << 17
            | u32::from(self.paused.by_dependency) << 18
            | u32::from(self.paused.by_peer) << 19
            | u32::from(self.paused.by_user) << 20
            | u32::from(self.suspended.no_data) << 21
            | u32::from(self.suspended.fencing) << 22
    }

    /// Reads a word; `None` when a field holds a number that stands for nothing.
    pub fn from_word(word: u32) -> Option<Self> {
        let bit = |index: u32| word >> index & 1 == 1;
        Some(Self {
            role: Role::from_number(word & 3)?,
            peer: Role::from_number(word >> 2 & 3)?,
            connection: Connection::from_number(word >> 4 & 31)?,
            disk: Disk::from_number(word >> 9 & 15)?,
            peer_disk: Disk::from_number(word >> 13 & 15)?,
            suspended: Suspended {
                by_user: bit(17),
                no_data: bit(21),
                fencing: bit(22),
            },
            paused: Paused {
                by_dependency: bit(18),
                by_peer: bit(19),
                by_user: bit(20),
            },
        })
    }

    /// Returns the state with everything it implies: what is not known of a peer that is
    /// not connected, disks within what the connection state allows, pauses.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.connection < Connection::Connected {
            self.peer = Role::Unknown;
            self.paused.by_peer = false;
            if self.peer_disk > Disk::DUnknown || self.peer_disk < Disk::Inconsistent {
                self.peer_disk = Disk::DUnknown;
            }
        }
        if self.connection > Connection::Connected
            && (self.disk <= Disk::Failed || self.peer_disk <= Disk::Failed)
        {
            self.connection = Connection::Connected;
        }
        // 8.4 makes the disk UpToDate instead, whose data it knows to be bad. A verify ends, or
        // does not begin: the disk failed between the question to the peer and its answer.
        if self.connection.verifying()
            && (self.disk == Disk::Inconsistent || self.peer_disk == Disk::Inconsistent)
        {
            self.connection = Connection::Connected;
        }
        if self.connection >= Connection::Connected && self.connection < Connection::Ahead {
            self.disk = current_when_connected(self.disk);
            self.peer_disk = current_when_connected(self.peer_disk);
        }
        self.connection = paused_or_running(self.connection, self.paused.any());
        let (own, peers) = disk_limits(self.connection);
        self.disk = self.disk.clamp(own.0, own.1);
        self.peer_disk = self.peer_disk.clamp(peers.0, peers.1);
        self
    }

    /// Whether applications' requests may begin. While the two find out who has which data, a write would be in
    /// nobody's marks: not on the disk that is being attached, nor missing there for the peer, which takes it to be.
    pub fn admits_requests(self) -> bool {
        !matches!(
            self.connection,
            Connection::WFBitMapT | Connection::WFSyncUUID
        ) && !matches!(self.disk, Disk::Attaching | Disk::Negotiating)
    }

    /// Settles a state that somebody asks for, or says why it may not be entered.
    pub fn admitted(self, from: Self, rules: Rules) -> Result<Self, Refusal> {
        // Once settled, a verify that may not begin is an end of what is under way instead.
        if let Some(refusal) = self.verify_refusal(from, rules) {
            return Err(refusal);
        }
        let settled = self.settled();
        settled.refusal(from, rules).map_or(Ok(settled), Err)
    }

    /// Says why no verify may begin, if one is asked for.
    fn verify_refusal(self, from: Self, rules: Rules) -> Option<Refusal> {
        if !self.connection.verifying() || self.connection == from.connection {
            None
        } else if !rules.can_verify {
            Some(Refusal::NoVerifyAlgorithm)
        } else if from.connection < Connection::Connected {
            Some(Refusal::NeedsConnection)
        } else if from.connection > Connection::Connected {
            Some(Refusal::ResyncRunning)
        } else if from.disk != Disk::UpToDate || from.peer_disk != Disk::UpToDate {
            // Applications would be shown a bad disk's data as good for as long as it lasts.
            Some(Refusal::NoUpToDateDisk)
        } else {
            None
        }
    }

    /// Says why a state may not be entered, if it may not.
    ///
    /// `from` is the state before: what it already broke does not stop the change.
    pub fn refusal(self, from: Self, rules: Rules) -> Option<Refusal> {
        let found = self.broken_rule(rules);
        if found.is_some() && found == from.broken_rule(rules) {
            return self.transition_refusal(from);
        }
        found.or_else(|| self.transition_refusal(from))
    }

    fn broken_rule(self, rules: Rules) -> Option<Refusal> {
        use Connection as C;
        let primary = self.role == Role::Primary;
        let no_good_disk = self.disk < Disk::UpToDate && self.peer_disk < Disk::UpToDate;
        if primary && self.peer == Role::Primary {
            Some(Refusal::TwoPrimaries)
        } else if self.role == Role::Secondary && rules.device_open {
            Some(Refusal::DeviceInUse)
        } else if primary && self.connection < C::Connected && self.disk < Disk::UpToDate {
            Some(Refusal::NoUpToDateDisk)
        } else if primary
            && rules.fencing
            && self.connection < C::Connected
            && self.peer_disk >= Disk::DUnknown
        {
            Some(Refusal::PrimaryNotFenced)
        } else if primary && self.disk <= Disk::Inconsistent && self.peer_disk <= Disk::Inconsistent
        {
            Some(Refusal::NoUpToDateDisk)
        } else if self.connection > C::Connected && self.disk < Disk::Inconsistent {
            Some(Refusal::NoLocalDisk)
        } else if self.connection > C::Connected && self.peer_disk < Disk::Inconsistent {
            Some(Refusal::NoRemoteDisk)
        } else if self.connection > C::Connected && no_good_disk {
            Some(Refusal::NoUpToDateDisk)
        } else if matches!(
            self.connection,
            C::Connected | C::WFBitMapS | C::SyncSource | C::PausedSyncS
        ) && self.disk == Disk::Outdated
        {
            Some(Refusal::ConnectedOutdates)
        } else if self.connection.verifying() && !rules.can_verify {
            Some(Refusal::NoVerifyAlgorithm)
        } else if primary && no_good_disk {
            Some(Refusal::NoUpToDateDisk)
        } else if matches!(self.connection, C::StartingSyncS | C::StartingSyncT)
            && self.peer_disk == Disk::DUnknown
        {
            Some(Refusal::NeedsConnection)
        } else if self.connection >= C::Connected && self.peer_disk == Disk::DUnknown {
            Some(Refusal::ConnectedOutdates)
        } else {
            None
        }
    }

    fn transition_refusal(self, from: Self) -> Option<Refusal> {
        use Connection as C;
        let starts =
            |states: &[C]| self.connection != from.connection && states.contains(&self.connection);
        if starts(&[C::VerifyS, C::VerifyT, C::StartingSyncS, C::StartingSyncT]) {
            if from.connection < C::Connected {
                return Some(Refusal::NeedsConnection);
            }
            if from.connection > C::Connected {
                return Some(Refusal::ResyncRunning);
            }
        }
        if starts(&[C::SyncSource, C::SyncTarget]) && from.connection < C::WFReportParams {
            return Some(Refusal::NeedsConnection);
        }
        if from.role != Role::Primary
            && self.role == Role::Primary
            && self.peer_disk == Disk::UpToDate
            && !matches!(self.disk, Disk::UpToDate | Disk::Diskless)
            && (self.connection <= C::WFSyncUUID || self.connection != from.connection)
        {
            return Some(Refusal::InTransientState);
        }
        if self.connection == C::Disconnecting && from.connection == C::StandAlone {
            return Some(Refusal::AlreadyStandAlone);
        }
        if self.disk == Disk::Outdated && from.disk < Disk::Outdated && from.disk != Disk::Attaching
        {
            return Some(Refusal::LowerThanOutdated);
        }
        if from.disk == Disk::Diskless && self.disk > Disk::Attaching {
            return Some(Refusal::IsDiskless);
        }
        None
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "cs:{} ro:{}/{} ds:{}/{}",
            self.connection, self.role, self.peer, self.disk, self.peer_disk
        )
    }
}

/// A disk that was only not known to be current is current once connected without a resync.
fn current_when_connected(disk: Disk) -> Disk {
    match disk {
        Disk::Consistent | Disk::Outdated => Disk::UpToDate,
        other => other,
    }
}

/// Returns the range of the own disk and of the peer's in a connection state.
fn disk_limits(connection: Connection) -> ((Disk, Disk), (Disk, Disk)) {
    use Connection as C;
    let exactly = |disk| (disk, disk);
    match connection {
        C::StartingSyncT | C::WFBitMapT | C::WFSyncUUID | C::PausedSyncT | C::Behind => (
            (Disk::Inconsistent, Disk::Outdated),
            exactly(Disk::UpToDate),
        ),
        C::StartingSyncS | C::WFBitMapS | C::PausedSyncS | C::Ahead => (
            exactly(Disk::UpToDate),
            (Disk::Inconsistent, Disk::Consistent),
        ),
        C::SyncTarget => (exactly(Disk::Inconsistent), exactly(Disk::UpToDate)),
        C::SyncSource => (exactly(Disk::UpToDate), exactly(Disk::Inconsistent)),
        C::VerifyS | C::VerifyT => (exactly(Disk::UpToDate), exactly(Disk::UpToDate)),
        C::Connected => (
            (Disk::Diskless, Disk::UpToDate),
            (Disk::Diskless, Disk::UpToDate),
        ),
        _ => (
            (Disk::Diskless, Disk::UpToDate),
            (Disk::Inconsistent, Disk::DUnknown),
        ),
    }
}

fn paused_or_running(connection: Connection, paused: bool) -> Connection {
    match (connection, paused) {
        (Connection::SyncSource, true) => Connection::PausedSyncS,
        (Connection::SyncTarget, true) => Connection::PausedSyncT,
        (Connection::PausedSyncS, false) => Connection::SyncSource,
        (Connection::PausedSyncT, false) => Connection::SyncTarget,
        (other, _) => other,
    }
}

/// What besides the state itself decides whether a state is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Somebody holds the device open.
    pub device_open: bool,
    /// A Primary may not go on while the peer is not known to be outdated.
    pub fencing: bool,
    /// A verify algorithm is configured.
    pub can_verify: bool,
}

/// Why a state change is not made; numbers and texts are the field's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("Multiple primaries not allowed by config")]
    TwoPrimaries,
    #[error("Need access to UpToDate data")]
    NoUpToDateDisk,
    #[error("Can not resync without local disk")]
    NoLocalDisk,
    #[error("Can not resync without remote disk")]
    NoRemoteDisk,
    #[error("Refusing to be Outdated while Connected")]
    ConnectedOutdates,
    #[error("Refusing to be Primary while peer is not outdated")]
    PrimaryNotFenced,
    #[error("Can not start OV/resync since it is already active")]
    ResyncRunning,
    #[error("Can not disconnect a StandAlone device")]
    AlreadyStandAlone,
    #[error("State change was refused by peer node")]
    RefusedByPeer,
    #[error("Device is diskless, the requested operation requires a disk")]
    IsDiskless,
    #[error("Device is held open by someone")]
    DeviceInUse,
    #[error("Have no net/connection configuration")]
    NoNetConfig,
    #[error("Need a verify algorithm to start online verify")]
    NoVerifyAlgorithm,
    #[error("Need a connection to start verify or resync")]
    NeedsConnection,
    #[error("Disk state is lower than outdated")]
    LowerThanOutdated,
    #[error("In transient state, retry after next state change")]
    InTransientState,
    #[error("Concurrent state changes detected and aborted")]
    ConcurrentChange,
}

impl Refusal {
    /// The code in a reply to the peer and in a command's error.
    pub fn code(self) -> i32 {
        match self {
            Self::TwoPrimaries => -1,
            Self::NoUpToDateDisk => -2,
            Self::NoLocalDisk => -4,
            Self::NoRemoteDisk => -5,
            Self::ConnectedOutdates => -6,
            Self::PrimaryNotFenced => -7,
            Self::ResyncRunning => -8,
            Self::AlreadyStandAlone => -9,
            Self::RefusedByPeer => -10,
            Self::IsDiskless => -11,
            Self::DeviceInUse => -12,
            Self::NoNetConfig => -13,
            Self::NoVerifyAlgorithm => -14,
            Self::NeedsConnection => -15,
            Self::LowerThanOutdated => -16,
            Self::InTransientState => -18,
            Self::ConcurrentChange => -19,
        }
    }
}

/// The reply that grants a request.
pub const GRANTED: i32 = 1;

/// A change somebody asks for: the bits of the state word it touches, and their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    pub mask: u32,
    pub value: u32,
}

const ROLE_MASK: u32 = 3;
const CONNECTION_MASK: u32 = 31 << 4;
const DISK_MASK: u32 = 15 << 9;

impl Change {
    pub fn role(role: Role) -> Self {
        Self {
            mask: ROLE_MASK,
            value: role.number(),
        }
    }

    pub fn connection(connection: Connection) -> Self {
        Self {
            mask: CONNECTION_MASK,
            value: connection.number() << 4,
        }
    }

    pub fn disk(disk: Disk) -> Self {
        Self {
            mask: DISK_MASK,
            value: disk.number() << 9,
        }
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            mask: self.mask | other.mask,
            value: self.value | other.value,
        }
    }

    /// Returns the peer's request in this node's view: own and peer's fields trade places.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self {
            mask: mirrored_word(self.mask),
            value: mirrored_word(self.value),
        }
    }

    /// Applies the change; `None` when the result is no state.
    pub fn applied_to(self, state: State) -> Option<State> {
        State::from_word(state.word() & !self.mask | self.value & self.mask)
    }
}

fn mirrored_word(word: u32) -> u32 {
    let field = |shift: u32, width: u32| word >> shift & ((1 << width) - 1);
    let connection = match Connection::from_number(field(4, 5)) {
        // All ones is a mask, and no state.
        None if field(4, 5) == 31 => 31,
        Some(Connection::StartingSyncS) => Connection::StartingSyncT.number(),
        Some(Connection::StartingSyncT) => Connection::StartingSyncS.number(),
        Some(Connection::Disconnecting) => Connection::TearDown.number(),
        Some(Connection::VerifyS) => Connection::VerifyT.number(),
        Some(same @ (Connection::WFReportParams | Connection::Connected)) => same.number(),
        _ => 0,
    };
    let paused_there = field(18, 1) | field(20, 1);
    field(2, 2)
        | field(0, 2) << 2
        | connection << 4
        | field(13, 4) << 9
        | field(9, 4) << 13
        | paused_there << 19
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: Role, peer: Role, connection: Connection, disk: Disk, peer_disk: Disk) -> State {
        State {
            role,
            peer,
            connection,
            disk,
            peer_disk,
            ..State::UNCONFIGURED
        }
    }

    const RULES: Rules = Rules {
        device_open: false,
        fencing: false,
        can_verify: true,
    };

    #[test]
    fn words_are_the_ones_seen_on_the_wire() {
        use {Connection as C, Disk as D, Role as R};
        let words = [
            (
                0x0000_88aa,
                of(
                    R::Secondary,
                    R::Secondary,
                    C::Connected,
                    D::Inconsistent,
                    D::Inconsistent,
                ),
            ),
            (
                0x0000_c882,
                of(
                    R::Secondary,
                    R::Unknown,
                    C::WFConnection,
                    D::Inconsistent,
                    D::DUnknown,
                ),
            ),
            (
                0x0000_f0d9,
                of(
                    R::Primary,
                    R::Secondary,
                    C::WFBitMapS,
                    D::UpToDate,
                    D::Consistent,
                ),
            ),
            (
                0x0001_0ae6,
                of(
                    R::Secondary,
                    R::Primary,
                    C::WFBitMapT,
                    D::Outdated,
                    D::UpToDate,
                ),
            ),
            (
                0x0000_9109,
                of(
                    R::Primary,
                    R::Secondary,
                    C::SyncSource,
                    D::UpToDate,
                    D::Inconsistent,
                ),
            ),
            (
                0x0001_0916,
                of(
                    R::Secondary,
                    R::Primary,
                    C::SyncTarget,
                    D::Inconsistent,
                    D::UpToDate,
                ),
            ),
            (
                0x0001_112a,
                of(
                    R::Secondary,
                    R::Secondary,
                    C::VerifyS,
                    D::UpToDate,
                    D::UpToDate,
                ),
            ),
            (
                0x0001_10a9,
                of(
                    R::Primary,
                    R::Secondary,
                    C::Connected,
                    D::UpToDate,
                    D::UpToDate,
                ),
            ),
        ];
        for (word, state) in words {
            assert_eq!(state.word(), word, "{state}");
            assert_eq!(State::from_word(word), Some(state));
        }
    }

    #[test]
    fn requests_have_the_masks_of_the_field() {
        let promote = Change::role(Role::Primary);
        assert_eq!((promote.mask, promote.value), (3, 1));
        let forced = promote.and(Change::disk(Disk::UpToDate));
        assert_eq!((forced.mask, forced.value), (0x1e03, 0x1001));
        let detach = Change::disk(Disk::Failed);
        assert_eq!((detach.mask, detach.value), (0x1e00, 0x0400));
        let verify = Change::connection(Connection::VerifyS);
        assert_eq!((verify.mask, verify.value), (0x1f0, 0x120));
        let leave = Change::connection(Connection::Disconnecting);
        assert_eq!((leave.mask, leave.value), (0x1f0, 0x010));
    }

    #[test]
    fn a_verify_that_may_not_begin_ends_nothing() {
        use {Connection as C, Disk as D, Role as R};
        let rules = Rules {
            device_open: false,
            fencing: false,
            can_verify: true,
        };
        let verify = Change::connection(C::VerifyS);
        let asked_in = |connection, peer_disk| {
            let from = of(R::Primary, R::Secondary, connection, D::UpToDate, peer_disk);
            let wanted = verify.applied_to(from).expect("a state");
            wanted
                .admitted(from, rules)
                .map(|admitted| admitted.connection)
        };
        assert_eq!(asked_in(C::Connected, D::UpToDate), Ok(C::VerifyS));
        assert_eq!(
            asked_in(C::SyncSource, D::Inconsistent),
            Err(Refusal::ResyncRunning)
        );
        assert_eq!(
            asked_in(C::PausedSyncS, D::Inconsistent),
            Err(Refusal::ResyncRunning)
        );
        assert_eq!(
            asked_in(C::Connected, D::Inconsistent),
            Err(Refusal::NoUpToDateDisk)
        );
    }

    #[test]
    fn a_request_of_the_peer_is_seen_mirrored() {
        let forced = Change::role(Role::Primary).and(Change::disk(Disk::UpToDate));
        assert_eq!(
            forced.mirrored(),
            Change {
                mask: 0xc | 0x1e000,
                value: 0x4 | 0x10000
            }
        );
        let leave = Change::connection(Connection::Disconnecting).mirrored();
        assert_eq!(leave, Change::connection(Connection::TearDown));
        let verify = Change::connection(Connection::VerifyS).mirrored();
        assert_eq!(verify, Change::connection(Connection::VerifyT));
    }

    #[test]
    fn losing_the_peer_forgets_its_role_but_not_that_it_was_outdated() {
        use {Connection as C, Disk as D, Role as R};
        let lost = of(
            R::Primary,
            R::Secondary,
            C::Unconnected,
            D::UpToDate,
            D::UpToDate,
        )
        .settled();
        assert_eq!((lost.peer, lost.peer_disk), (R::Unknown, D::DUnknown));
        let lost = of(
            R::Primary,
            R::Secondary,
            C::Unconnected,
            D::UpToDate,
            D::Inconsistent,
        )
        .settled();
        assert_eq!(lost.peer_disk, D::Inconsistent);
    }

    #[test]
    fn disks_follow_the_connection() {
        use {Connection as C, Disk as D, Role as R};
        let target = of(
            R::Secondary,
            R::Primary,
            C::WFBitMapT,
            D::UpToDate,
            D::UpToDate,
        )
        .settled();
        assert_eq!(target.disk, D::Outdated);
        let source = of(
            R::Primary,
            R::Secondary,
            C::WFBitMapS,
            D::UpToDate,
            D::UpToDate,
        )
        .settled();
        assert_eq!(source.peer_disk, D::Consistent);
        let plain = of(
            R::Primary,
            R::Secondary,
            C::Connected,
            D::Consistent,
            D::Outdated,
        )
        .settled();
        assert_eq!((plain.disk, plain.peer_disk), (D::UpToDate, D::UpToDate));
        let mut paused = of(
            R::Primary,
            R::Secondary,
            C::SyncSource,
            D::UpToDate,
            D::Inconsistent,
        );
        paused.paused.by_peer = true;
        assert_eq!(paused.settled().connection, C::PausedSyncS);
    }

    #[test]
    fn refused_changes_name_the_reason() {
        use {Connection as C, Disk as D, Role as R};
        let alone = of(
            R::Secondary,
            R::Unknown,
            C::WFConnection,
            D::Inconsistent,
            D::DUnknown,
        );
        let promoted = State {
            role: R::Primary,
            ..alone
        };
        assert_eq!(
            promoted.refusal(alone, RULES),
            Some(Refusal::NoUpToDateDisk)
        );
        let pair = of(
            R::Secondary,
            R::Primary,
            C::Connected,
            D::UpToDate,
            D::UpToDate,
        );
        let both = State {
            role: R::Primary,
            ..pair
        };
        assert_eq!(both.refusal(pair, RULES), Some(Refusal::TwoPrimaries));
        let verify = State {
            connection: C::VerifyS,
            ..pair
        };
        assert_eq!(verify.refusal(pair, RULES), None);
        let rules = Rules {
            can_verify: false,
            ..RULES
        };
        assert_eq!(
            verify.refusal(pair, rules),
            Some(Refusal::NoVerifyAlgorithm)
        );
        let open = Rules {
            device_open: true,
            ..RULES
        };
        let primary = State {
            role: R::Primary,
            peer: R::Secondary,
            ..pair
        };
        let demoted = State {
            role: R::Secondary,
            ..primary
        };
        assert_eq!(demoted.refusal(primary, open), Some(Refusal::DeviceInUse));
    }

    proptest::proptest! {
        #[test]
        fn every_word_survives_the_round_trip_or_is_refused(word: u32) {
            if let Some(state) = State::from_word(word) {
                proptest::prop_assert_eq!(state.word(), word & 0x007f_ffff);
                proptest::prop_assert_eq!(state.settled().settled(), state.settled());
            }
        }
    }
}
