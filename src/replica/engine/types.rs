//! What goes into the engine, and what comes out.

use bytes::Bytes;

use crate::replica::bitmap::Bitmap;
use crate::replica::control::{Answer, Command, Rejection};
use crate::replica::device::{DeviceReply, DeviceRequest, Errno, Presence};
use crate::replica::establish::LinkId;
use crate::replica::message::{Dialect, Packet};
use crate::replica::settings::DiskSettings;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A deadline may have passed.
    Tick,
    /// A tool asks for something; `id` comes back with the answer.
    Command {
        id: u64,
        command: Box<Command>,
        /// Whether somebody holds the device open.
        device_open: bool,
    },
    /// The tool went away before it was answered.
    Withdrawn(u64),
    /// The answer to [`Action::OpenDisk`].
    DiskOpened(Result<Box<OpenedDisk>, Rejection>),
    /// An [`Action::Disk`] is done; a read brings its data.
    Io {
        id: u64,
        result: Result<Bytes, Errno>,
    },
    /// An [`Action::Save`] failed; those that succeed are not told of.
    SaveFailed,
    Device(DeviceRequest),
    /// Somebody called.
    Accepted(LinkId),
    /// An own call was answered.
    Connected(LinkId),
    /// A connection ended, or could not be made.
    Closed(LinkId, String),
    Packet(LinkId, Packet),
    /// What arrived is no packet.
    Garbled(LinkId, String),
}

/// What the disk held when it was opened.
#[derive(Clone, Debug)]
pub struct OpenedDisk {
    pub settings: DiskSettings,
    /// Of the data's device.
    pub device_sectors: u64,
    /// Of the metadata's device; the same where it is internal.
    pub metadata_sectors: u64,
    pub superblock: Bytes,
    /// The activity log's blocks, in the order of transactions.
    pub activity: Bytes,
    /// Of all the sectors that there is room for.
    pub bitmap: Bitmap,
    pub discards: bool,
}

/// Something to do. The order of actions is the order of their effects.
#[derive(Clone, Debug)]
pub enum Action {
    OpenDisk(Box<DiskSettings>),
    CloseDisk,
    /// Metadata; a barrier for everything after it.
    Save(Save),
    /// The data; any order among themselves, unless one waits for another's event.
    Disk(DiskIo),
    Listen,
    StopListening,
    Call(LinkId),
    Close(LinkId),
    Send {
        link: LinkId,
        packet: Packet,
        dialect: Dialect,
    },
    Reply(DeviceReply),
    Present(Presence),
    Answer {
        id: u64,
        answer: Box<Answer>,
    },
    /// Runs a handler of the configuration, such as `split-brain`.
    Handler(&'static str),
    /// A line for the log.
    Log(String),
    /// The daemon's work is over.
    Exit,
}

/// Metadata to be made stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// The data written so far must be stable before this is written: bits that were
    /// cleared in memory are about to be cleared on disk.
    pub flush_data: bool,
    /// (byte of the metadata's device, content): whole blocks of 4 KiB.
    pub writes: Vec<(u64, Bytes)>,
}

/// One operation on the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIo {
    pub id: u64,
    pub op: DiskOp,
}

/// Bytes, in whole sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    Read {
        byte: u64,
        len: u32,
    },
    /// `stable`: on the medium when it is done.
    Write {
        byte: u64,
        data: Bytes,
        stable: bool,
    },
    /// Reads as zeroes afterwards; `unmap`: the space may be given back.
    Zero {
        byte: u64,
        len: u64,
        unmap: bool,
    },
    Flush,
}
