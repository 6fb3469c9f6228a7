//! What the tools say to a resource's daemon, and what it answers.
//!
//! One daemon a resource listens on [`socket_path`]. A connection carries one [`Command`]
//! as a line of JSON, and one [`Answer`] as a line of JSON back: at once, or when what was
//! asked for has happened. The daemon's end is the end of the connection.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::ReplicationProtocol;
use super::settings::{DiskSettings, Names, NetSettings};
use super::state::{Connection, Disk, Paused, Refusal, Role, State, Suspended};

/// Where the daemons' sockets are.
pub const SOCKET_DIR: &str = "/run/halab-replica";

/// Returns where the daemon of a resource listens.
pub fn socket_path(resource: &str) -> String {
    format!("{SOCKET_DIR}/{resource}.sock")
}

/// The longest line either side sends: settings and status are a few KiB.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// What a tool asks for; the words are drbdsetup's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens the disk; the activity log is applied first where it has to be.
    Attach(DiskSettings),
    Detach {
        force: bool,
    },
    Connect {
        net: NetSettings,
        discard_my_data: bool,
        /// Only finds out what would be decided.
        tentative: bool,
    },
    Disconnect {
        force: bool,
    },
    Primary {
        /// Also `-- --overwrite-data-of-peer`.
        force: bool,
    },
    Secondary,
    /// Takes everything from the peer.
    Invalidate,
    /// Gives the peer everything.
    InvalidateRemote,
    /// Compares both disks; from and up to these sectors.
    Verify {
        start: Option<u64>,
        stop: Option<u64>,
    },
    Resize {
        /// In sectors; 0 for as much as there is.
        size_sectors: u64,
        assume_peer_has_space: bool,
        assume_clean: bool,
    },
    /// Brings what is attached or connected to these settings; what is not stays so.
    Adjust {
        disk: Option<DiskSettings>,
        net: Option<NetSettings>,
    },
    PauseSync,
    ResumeSync,
    SuspendIo,
    ResumeIo,
    Outdate,
    NewCurrentUuid {
        clear_bitmap: bool,
    },
    /// Answers when the state is reached, or `Refused` with 5 (time ran out).
    Wait {
        until: WaitUntil,
        deadline: Option<Duration>,
    },
    Status,
    /// Secondary, disconnect, detach, end.
    Down,
}

/// What `wait-connect` and `wait-sync` wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitUntil {
    Connected,
    /// Connected, and no resync is left to do.
    InSync,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// Refused with drbdsetup's number and words.
    Refused(Rejection),
    Status(Box<Status>),
}

/// A refusal in the field's numbers: below 0 a state change's, from 101 on a command's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub code: i32,
    pub text: String,
    /// What was found and how to mend it, where more is known.
    pub detail: Option<String>,
}

impl Rejection {
    pub fn new(code: i32, text: &str) -> Self {
        Self {
            code,
            text: text.to_owned(),
            detail: None,
        }
    }

    #[must_use]
    pub fn because(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({}) {}", self.code, self.text)?;
        match &self.detail {
            Some(detail) => write!(formatter, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), &refusal.to_string())
    }
}

/// The numbers of refused commands that are no state changes, with the module's words.
pub mod failure {
    use super::Rejection;

    macro_rules! failures {
        ($($name:ident = $code:literal $text:literal),+ $(,)?) => {
            $(pub fn $name() -> Rejection { Rejection::new($code, $text) })+
        };
    }

    failures! {
    disk_open = 104 "Can not open backing device.",
    meta_disk_open = 105 "Can not open meta device.",
    disk_no_block_device = 107 "Lower device is not a block device.",
    meta_disk_no_block_device = 108 "Meta device is not a block device.",
    disk_too_small = 111 "Low.dev. smaller than requested DRBD-dev. size.",
    meta_disk_too_small = 112 "Meta device too small.",
    disk_in_use = 114 "Lower device is already claimed. This usually means it is mounted.",
    meta_disk_in_use = 115 "Meta device is already claimed. This usually means it is mounted.",
    io_of_metadata = 118 "IO error(s) occurred during initial access to meta-data.",
    no_metadata = 119 "No valid meta-data signature found.",
    unknown_secret_algorithm = 120 "The 'cram-hmac-alg' you specified is not known in the kernel.",
    already_attached = 124 "Device is attached to a disk (use detach first)",
    already_connected = 125 "Device has a net-config (use disconnect first)",
    resize_while_syncing = 130 "Resize not allowed during resync.",
    resize_needs_primary = 131 "Need one primary node to resize.",
    pause_is_set = 134 "Sync-pause flag is already set",
    pause_is_clear = 135 "Sync-pause flag is already cleared",
    no_disk = 138 "Device has no disk.",
    unknown_integrity_algorithm = 141 "The data-integrity-alg you specified is not known in the kernel.",
    unknown_checksum_algorithm = 144 "The csums-alg you specified is not known in the kernel.",
    unknown_verify_algorithm = 146 "The verify-alg you specified is not known in the kernel.",
    different_data = 150 "Can only attach to the data we lost last.",
    connected = 151 "Connection established; this needs none.",
    unclean_metadata = 165 "Unclean meta-data found; its activity log must be applied first.",
    disk_would_shrink = 170 "The disk is smaller than the device was when it was last used.",
    wait_timed_out = 5 "Timeout.",
    }
}

/// Everything `/proc/drbd` and `drbd-overview` show of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub names: Names,
    pub connection: Connection,
    pub role: Role,
    pub peer: Role,
    pub disk: Disk,
    pub peer_disk: Disk,
    pub suspended: Suspended,
    pub paused: Paused,
    /// None without settings of a connection.
    pub protocol: Option<ReplicationProtocol>,
    pub counters: Counters,
    pub progress: Option<Progress>,
    pub device_sectors: u64,
    /// Current, bitmap, history 1, 2; all 0 without a disk.
    pub generations: [u64; 4],
    /// Flags of the superblock, as `get-gi` counts them.
    pub flags: u32,
    pub backing_disk: Option<String>,
    pub disk_settings: Option<DiskSettings>,
    /// Without its secret.
    pub net_settings: Option<NetSettings>,
    /// Why the last connection ended or was given up, in a sentence.
    pub last_trouble: Option<String>,
}

impl Status {
    pub fn state(&self) -> State {
        State {
            role: self.role,
            peer: self.peer,
            connection: self.connection,
            disk: self.disk,
            peer_disk: self.peer_disk,
            suspended: self.suspended,
            paused: self.paused,
        }
    }
}

/// The second line of a device in `/proc/drbd`; sizes in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// `ns` and `nr`.
    pub sent_kib: u64,
    pub received_kib: u64,
    /// `dw` and `dr`.
    pub written_kib: u64,
    pub read_kib: u64,
    /// `al` and `bm`.
    pub activity_writes: u64,
    pub bitmap_writes: u64,
    /// `lo`, `pe`, `ua`, `ap`, `ep`.
    pub local_pending: u64,
    pub peer_pending: u64,
    pub unacknowledged: u64,
    pub application_pending: u64,
    pub epochs: u64,
    /// `wo`.
    pub write_ordering: WriteOrdering,
    /// `oos`.
    pub out_of_sync_kib: u64,
}

/// How the order of writes is kept on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOrdering {
    #[default]
    Flush,
    Drain,
    None,
}

impl WriteOrdering {
    pub fn letter(self) -> char {
        match self {
            Self::Flush => 'f',
            Self::Drain => 'd',
            Self::None => 'n',
        }
    }
}

/// How far a resync or a verify is; blocks of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub verifying: bool,
    pub total_blocks: u64,
    pub left_blocks: u64,
    /// Since it began, without pauses.
    pub elapsed_ms: u64,
    /// KiB/s over the last 18 seconds or so, and since it began.
    pub speed_kib: u64,
    pub average_kib: u64,
    /// What the pacing aims at, where this side asks.
    pub want_kib: Option<u64>,
    /// At the present speed; none while nothing moves.
    pub seconds_left: Option<u64>,
    pub stalled: bool,
    /// What this run found different so far (verify), or could not copy (resync).
    pub found_blocks: u64,
}
