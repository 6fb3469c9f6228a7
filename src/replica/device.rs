//! The seam between the engine and whatever shows the device to the kernel: requests,
//! replies, and what an export (ublk, NBD) must offer the daemon's loop.
//!
//! One thread owns the engine and its export: it waits for the export's descriptor with
//! everything else, takes what is there, and hands replies back in batches. No request
//! changes threads on its way.

use std::io;
use std::os::fd::BorrowedFd;

use bytes::Bytes;

/// One request of an application; `tag` is the export's and is echoed in the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRequest {
    pub tag: u64,
    pub op: DeviceOp,
}

/// What is asked; offsets and lengths in bytes, in whole sectors of 512.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceOp {
    Read {
        offset: u64,
        len: u32,
    },
    /// `fua`: stable before it is answered.
    Write {
        offset: u64,
        data: Bytes,
        fua: bool,
    },
    /// Everything answered before is stable once this is.
    Flush,
    /// The content may be forgotten: it reads as anything afterwards.
    Discard {
        offset: u64,
        len: u64,
    },
    /// The content reads as zeroes afterwards.
    WriteZeroes {
        offset: u64,
        len: u64,
    },
}

/// The answer to the request with that tag; every request gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReply {
    pub tag: u64,
    pub result: Result<DeviceData, Errno>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceData {
    /// A write, flush, discard was done.
    Done,
    /// A read's data, as long as was asked for.
    Read(Bytes),
}

/// Why a request failed, in the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    pub const IO: Self = Self(5);
    pub const BUSY: Self = Self(16);
    pub const INVALID: Self = Self(22);
    pub const NO_SPACE: Self = Self(28);
    pub const READ_ONLY: Self = Self(30);
    pub const NOT_SUPPORTED: Self = Self(95);
}

/// How the device looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No device, or one that cannot be opened.
    Absent,
    /// A device of so many bytes that nobody may write to: the node is Secondary.
    ReadOnly { bytes: u64 },
    /// The node is Primary.
    Writable { bytes: u64 },
}

/// A block device that the kernel shows to applications, seen from the daemon's loop.
pub trait Export {
    /// Makes the device look so; called at each change of role or size. Requests that
    /// were taken are answered before the device may go.
    fn present(&mut self, presence: Presence) -> io::Result<()>;

    /// Whether somebody holds the device open (mounted, or by a program).
    fn in_use(&self) -> bool;

    /// Whether a device that an earlier daemon left waits, its users with it: it is served
    /// again once it shall be [`Presence::Writable`].
    fn interrupted(&self) -> bool {
        false
    }

    /// Takes away a device that waits: what its users asked for fails.
    fn abandon(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Becomes readable when [`Self::take`] has something to do; may differ after each
    /// [`Self::present`]. None while there is no device.
    fn wake(&self) -> Option<BorrowedFd<'_>>;

    /// Appends the requests that are there; never waits.
    fn take(&mut self, requests: &mut Vec<DeviceRequest>) -> io::Result<()>;

    /// Answers a request; may be held back until [`Self::flush`].
    fn reply(&mut self, reply: DeviceReply);

    /// Hands the kernel all replies; called once for each turn of the loop.
    fn flush(&mut self) -> io::Result<()>;
}
