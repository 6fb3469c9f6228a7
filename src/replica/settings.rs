//! What the engine is told: a disk's and a connection's settings, checked before.
//!
//! The configuration's model is lowered to these; the tools send them to the daemon with
//! `attach`, `connect` and `adjust`. One resource has one volume here.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::generation::{AfterSplitBrain, Policies, RoleConflict};
use super::message::ReplicationProtocol;

/// The names a daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Of the resource; also names the daemon's socket.
    pub resource: String,
    pub minor: u32,
    pub volume: u16,
}

/// Where the metadata lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaDisk {
    Internal,
    /// A device that holds nothing else.
    External(PathBuf),
    /// A slot of 128 MiB on a device.
    Indexed(PathBuf, u32),
}

/// What becomes of an error of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnIoError {
    /// Up to the application; a failed write marks the disk Inconsistent.
    PassOn,
    /// As detach, after the handler `local-io-error`.
    CallLocalIoError,
    /// The disk is given up, and the peer's is used.
    #[default]
    Detach,
}

/// The lower side: the disk, and how a resync behaves. Defaults are the kernel module's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSettings {
    pub disk: PathBuf,
    pub meta: MetaDisk,
    /// What the user wants the device to be, in sectors; 0 for as much as there is.
    pub size_sectors: u64,
    pub on_io_error: OnIoError,
    /// Any fencing policy but dont-care.
    pub fencing: bool,
    pub al_extents: u16,
    pub disk_flushes: bool,
    pub md_flushes: bool,
    pub resync: ResyncSettings,
}

/// How fast a resync may go; the numbers travel to the peer, which adopts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncSettings {
    pub rate_kib: u32,
    /// In tenths of a second; 0 for a fixed rate.
    pub plan_ahead: u32,
    /// In tenths of a second.
    pub delay_target: u32,
    /// In sectors.
    pub fill_target: u32,
    pub max_rate_kib: u32,
    pub min_rate_kib: u32,
}

impl Default for ResyncSettings {
    fn default() -> Self {
        Self {
            rate_kib: 250,
            plan_ahead: 20,
            delay_target: 10,
            fill_target: 100,
            max_rate_kib: 102_400,
            min_rate_kib: 250,
        }
    }
}

impl DiskSettings {
    /// A disk with everything else as the kernel module has it.
    pub fn new(disk: PathBuf, meta: MetaDisk) -> Self {
        Self {
            disk,
            meta,
            size_sectors: 0,
            on_io_error: OnIoError::default(),
            fencing: false,
            al_extents: 1237,
            disk_flushes: true,
            md_flushes: true,
            resync: ResyncSettings::default(),
        }
    }
}

/// A shared secret; shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// What both nodes must prove to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// The kernel's name of the digest (`sha1`, `sha256`, `md5`, …).
    pub algorithm: String,
    pub secret: Secret,
}

/// The upper side of the network. Defaults are the kernel module's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSettings {
    pub own: SocketAddr,
    pub peer: SocketAddr,
    pub protocol: ReplicationProtocol,
    pub authentication: Option<Authentication>,
    /// In tenths of a second, as in the configuration.
    pub timeout: u32,
    /// In seconds.
    pub ping_int: u32,
    /// In tenths of a second.
    pub ping_timeout: u32,
    /// In seconds.
    pub connect_int: u32,
    pub ko_count: u32,
    pub max_epoch_size: u32,
    /// In pages of 4 KiB.
    pub max_buffers: u32,
    /// In bytes, 0 for the kernel's choice.
    pub sndbuf_size: u32,
    pub rcvbuf_size: u32,
    pub two_primaries: bool,
    pub policies: Policies,
    pub verify_algorithm: String,
    pub checksum_algorithm: String,
    pub checksum_after_crash_only: bool,
    pub integrity_algorithm: String,
    pub use_rle: bool,
}

impl NetSettings {
    /// A connection with everything else as the kernel module has it.
    pub fn new(own: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            own,
            peer,
            protocol: ReplicationProtocol::C,
            authentication: None,
            timeout: 60,
            ping_int: 10,
            ping_timeout: 5,
            connect_int: 10,
            ko_count: 7,
            max_epoch_size: 2048,
            max_buffers: 2048,
            sndbuf_size: 0,
            rcvbuf_size: 0,
            two_primaries: false,
            policies: Policies {
                no_primary: AfterSplitBrain::Disconnect,
                one_primary: AfterSplitBrain::Disconnect,
                two_primaries: AfterSplitBrain::Disconnect,
                always: false,
                role_conflict: RoleConflict::Disconnect,
            },
            verify_algorithm: String::new(),
            checksum_algorithm: String::new(),
            checksum_after_crash_only: false,
            integrity_algorithm: String::new(),
            use_rle: true,
        }
    }
}
