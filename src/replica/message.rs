//! The wire: every packet of protocols 86 to 101, between bytes and values.
//!
//! A packet is a header and a body. There are three headers, told apart by their magic;
//! which one to write is decided by the agreed version. A header states the body's length,
//! and the length is checked against what the command may have before memory is taken.
//!
//! | header | bytes | used |
//! |---|---|---|
//! | h80 | magic 83740267, command u16, length u16 | below 95; always until features are exchanged |
//! | h95 | magic 835a, command u16, length u32 | 95 to 99, for bodies over 32 KiB |
//! | h100 | magic 8620ec20, volume u16, command u16, length u32, pad u32 = 0 | from 100 on |
//!
//! Handles of the peer ([`BlockId`], barrier numbers) are echoed byte for byte.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fields::{Put, Reader, SECTOR, TooShort, field32, wide};
use super::generation::{AfterSplitBrain, Generation};
use super::state::Change;

/// The versions spoken here.
pub const PROTOCOL_MIN: u32 = 86;
pub const PROTOCOL_MAX: u32 = 101;

/// The most data one packet carries: 1 MiB.
pub const DATA_BYTES_MAX: u64 = 1 << 20;
/// The most one trim covers, with `FF_WSAME` agreed: 128 MiB.
pub const TRIM_BYTES_MAX: u64 = 128 << 20;
/// The longest digest: SHA-512's.
const DIGEST_BYTES_MAX: u64 = 64;
/// A name of an algorithm, with its NUL.
const NAME_BYTES: usize = 64;
/// The largest body of all.
const BODY_BYTES_MAX: u64 = 28 + DIGEST_BYTES_MAX + DATA_BYTES_MAX;

const MAGIC_80: u32 = 0x8374_0267;
const MAGIC_95: u16 = 0x835a;
const MAGIC_100: u32 = 0x8620_ec20;

/// The two TCP connections of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Socket {
    /// Data, barriers, states, parameters, bitmaps.
    Data,
    /// Pings and acknowledgements.
    Meta,
}

/// What two peers agreed on; decides the headers and the shape of some bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialect {
    pub version: u32,
    pub features: FeatureFlags,
}

impl Dialect {
    /// Before the exchange of features everything is as it was in version 80.
    pub const UNAGREED: Self = Self {
        version: 80,
        features: FeatureFlags(0),
    };
}

/// Features beyond the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeatureFlags(pub u32);

impl FeatureFlags {
    pub const TRIM: Self = Self(1);
    pub const THIN_RESYNC: Self = Self(2);
    /// Longer `P_SIZES` and trims; the packet it is named after is no longer handled.
    pub const WSAME: Self = Self(4);
    pub const WZEROES: Self = Self(8);
    pub const ALL: Self = Self(15);

    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

/// A packet's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    pub volume: u16,
    pub command: u16,
    pub length: u32,
}

impl Header {
    /// Bytes to read before a header can be decoded: the short ones' whole length.
    pub const BYTES_MIN: usize = 8;

    /// Reads a header at the front; `None` when more bytes are needed.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(first) = bytes.first_chunk::<{ Self::BYTES_MIN }>() else {
            return Ok(None);
        };
        let mut fields = Reader::new(bytes);
        let magic = u32::from_be_bytes([first[0], first[1], first[2], first[3]]);
        let (header, size) = if magic == MAGIC_80 {
            fields.bytes(4)?;
            let (command, length) = (fields.u16()?, fields.u16()?);
            (Self::short(command, length.into()), 8)
        } else if magic >> 16 == u32::from(MAGIC_95) {
            fields.bytes(2)?;
            let (command, length) = (fields.u16()?, fields.u32()?);
            (Self::short(command, length), 8)
        } else if magic == MAGIC_100 {
            let Some(whole) = bytes.get(..16) else {
                return Ok(None);
            };
            (Self::long(whole)?, 16)
        } else {
            return Err(WireError::Magic(magic));
        };
        header.check_length()?;
        Ok(Some((header, size)))
    }

    fn short(command: u16, length: u32) -> Self {
        Self {
            volume: 0,
            command,
            length,
        }
    }

    fn long(bytes: &[u8]) -> Result<Self, WireError> {
        let mut fields = Reader::new(&bytes[4..]);
        let header = Self {
            volume: fields.u16()?,
            command: fields.u16()?,
            length: fields.u32()?,
        };
        match fields.u32()? {
            0 => Ok(header),
            pad => Err(WireError::Pad(pad)),
        }
    }

    /// For packets of data: how many bytes of the body come before the data.
    pub fn data_offset(self) -> Option<usize> {
        DataKind::from_code(self.command).map(|_| 24)
    }

    fn check_length(self) -> Result<(), WireError> {
        let most = code::body_bytes_max(self.command);
        if u64::from(self.length) > most {
            return Err(WireError::TooLong {
                command: self.command,
                length: self.length,
                most,
            });
        }
        Ok(())
    }

    fn encode(self, dialect: Dialect, bytes: &mut Vec<u8>) {
        if dialect.version >= 100 {
            bytes.put_u32(MAGIC_100);
            bytes.put_u16(self.volume);
            bytes.put_u16(self.command);
            bytes.put_u32(self.length);
            bytes.put_u32(0);
        } else if let (true, Ok(length)) = (self.length <= 32_768, u16::try_from(self.length)) {
            bytes.put_u32(MAGIC_80);
            bytes.put_u16(self.command);
            bytes.put_u16(length);
        } else {
            bytes.put_u16(MAGIC_95);
            bytes.put_u16(self.command);
            bytes.put_u32(self.length);
        }
    }
}

/// Why bytes are no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("no DRBD packet: it starts with {0:#010x}")]
    Magic(u32),
    #[error("a header whose last field is {0:#x} and not 0")]
    Pad(u32),
    #[error("a packet {command:#06x} of {length} bytes, and {most} are the most it may have")]
    TooLong {
        command: u16,
        length: u32,
        most: u64,
    },
    #[error("an unknown packet {0:#06x}")]
    UnknownCommand(u16),
    #[error("a packet {command:#06x} of {length} bytes, which is not the length it must have")]
    Length { command: u16, length: usize },
    #[error("a packet that ends too early")]
    TooShort,
    #[error("{what} {value:#x}, which stands for nothing")]
    Value { what: &'static str, value: u64 },
}

impl From<TooShort> for WireError {
    fn from(TooShort: TooShort) -> Self {
        Self::TooShort
    }
}

/// The requester's handle, echoed in the answer and never looked into.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u64);

impl BlockId {
    /// All ones: a resync's or verify's packet, no application's.
    pub const SYNCER: Self = Self(u64::MAX);
    /// Results of a verify.
    pub const IN_SYNC: Self = Self(4711);
    pub const OUT_OF_SYNC: Self = Self(4712);
}

impl fmt::Debug for BlockId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}", self.0)
    }
}

/// Flags of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct WriteFlags(pub u32);

impl WriteFlags {
    pub const SYNC: Self = Self(2);
    /// The sender is in a resync: whole blocks count as the same once written.
    pub const MAY_SET_IN_SYNC: Self = Self(4);
    pub const FUA: Self = Self(16);
    pub const FLUSH: Self = Self(32);
    pub const DISCARD: Self = Self(64);
    /// Protocol B: acknowledge when received.
    pub const ACK_RECEIVED: Self = Self(128);
    /// Protocol C: acknowledge when written.
    pub const ACK_WRITTEN: Self = Self(256);
    pub const ZEROES: Self = Self(1024);

    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[must_use]
    pub fn with(self, flag: Self, on: bool) -> Self {
        Self(if on {
            self.0 | flag.0
        } else {
            self.0 & !flag.0
        })
    }
}

/// The sub-header of data: where, whose, which in the order, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataHead {
    pub sector: u64,
    pub block_id: BlockId,
    pub sequence: u32,
    pub flags: WriteFlags,
}

/// A request for a block, or the address of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRequest {
    pub sector: u64,
    pub block_id: BlockId,
    pub bytes: u32,
}

/// An answer about a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockAck {
    pub sector: u64,
    pub block_id: BlockId,
    pub bytes: u32,
    pub sequence: u32,
}

/// `P_PROTOCOL`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Protocol {
    pub protocol: ReplicationProtocol,
    pub after_split_brain: [AfterSplitBrain; 3],
    pub discard_my_data: bool,
    pub dry_run: bool,
    pub two_primaries: bool,
    pub integrity_algorithm: String,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplicationProtocol {
    /// Written here, handed to the network.
    A,
    /// Written here, received there.
    B,
    /// Written here and there.
    C,
}

impl fmt::Display for ReplicationProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        })
    }
}

/// `P_SYNC_PARAM89`: the receiver adopts the sender's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyncParameters {
    pub resync_rate_kib: u32,
    pub verify_algorithm: String,
    pub checksum_algorithm: String,
    pub plan_ahead: u32,
    pub delay_target: u32,
    pub fill_target: u32,
    pub max_rate_kib: u32,
}

/// `P_SIZES`; sizes in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// What the backing device could offer at most, 0 without one.
    pub available: u64,
    /// What the user asked for, 0 for as much as there is.
    pub wanted: u64,
    /// The device as it is.
    pub current: u64,
    pub bio_bytes_max: u32,
    pub queue_order: u16,
    pub flags: u16,
    /// Block sizes and the like, sent when `FF_WSAME` is agreed; looked at by nobody.
    pub limits: Option<QueueLimits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueLimits {
    pub physical_block: u32,
    pub logical_block: u32,
    pub discards: bool,
}

/// `P_UUIDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uuids {
    /// Current, bitmap, history 1, history 2.
    pub generations: [Generation; 4],
    pub bits_set: u64,
    pub flags: UuidFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct UuidFlags(pub u64);

impl UuidFlags {
    pub const DISCARD_MY_DATA: Self = Self(1);
    pub const CRASHED_PRIMARY: Self = Self(2);
    pub const DISK_INCONSISTENT: Self = Self(4);
    pub const SKIP_INITIAL_SYNC: Self = Self(8);

    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[must_use]
    pub fn with(self, flag: Self, on: bool) -> Self {
        Self(if on {
            self.0 | flag.0
        } else {
            self.0 & !flag.0
        })
    }
}

/// `P_CONNECTION_FEATURES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Features {
    pub version_min: u32,
    pub version_max: u32,
    pub flags: FeatureFlags,
}

impl Features {
    pub const OWN: Self = Self {
        version_min: PROTOCOL_MIN,
        version_max: PROTOCOL_MAX,
        flags: FeatureFlags::ALL,
    };

    /// Returns what both speak, if there is such a version.
    pub fn agreed(self, peer: Self) -> Option<Dialect> {
        let peer_max = match peer.version_max {
            0 => peer.version_min,
            version => version,
        };
        let version = self.version_max.min(peer_max);
        (version >= self.version_min && version >= peer.version_min).then_some(Dialect {
            version,
            features: FeatureFlags(self.flags.0 & peer.flags.0),
        })
    }
}

/// Declares the kinds of packets that share a body.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            fn code(self) -> u16 {
                match self { $(Self::$variant => $code),+ }
            }
        }
    };
}

kinds! {
    /// Packets of data.
    DataKind { Write = 0x00, ReadReply = 0x01, ResyncReply = 0x02 }
}
kinds! {
    /// Packets about an area without its data.
    AreaKind { Trim = 0x31, Zeroes = 0x36 }
}
kinds! {
    /// Requests for a block.
    RequestKind { Read = 0x08, Resync = 0x09, Verify = 0x1e, ThinResync = 0x32 }
}
kinds! {
    /// Requests for a block that carry a digest of it.
    DigestKind { VerifyReply = 0x1f, ChecksumResync = 0x21 }
}
kinds! {
    /// Answers on the meta socket.
    AckKind {
        Received = 0x15, Written = 0x16, ResyncWritten = 0x17, Superseded = 0x18, WriteFailed = 0x19,
        ReadFailed = 0x1a, ResyncReadFailed = 0x1b, VerifyResult = 0x20, IsInSync = 0x22,
        ResyncCancelled = 0x29, RetryWrite = 0x2c,
    }
}
kinds! {
    /// Areas that are named and not asked for.
    NoticeKind { OutOfSync = 0x28, Deallocated = 0x33 }
}
kinds! {
    /// Requests for a change of state, of the volume or of the whole connection.
    ChangeKind { Volume = 0x12, Connection = 0x2a }
}
kinds! {
    /// Packets without a body.
    BareKind {
        UnplugRemote = 0x07, Ping = 0x13, PingAck = 0x14, InitialMeta = 0xfff1, InitialData = 0xfff2,
    }
}
kinds! {
    /// Packets that hold bytes for the authentication.
    AuthKind { Challenge = 0x10, Response = 0x11 }
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The data follows the digest, where one is configured.
    Data(DataKind, DataHead, Bytes),
    Area(AreaKind, DataHead, u32),
    Request(RequestKind, BlockRequest),
    Digest(DigestKind, BlockRequest, Bytes),
    Ack(AckKind, BlockAck),
    Notice(NoticeKind, u64, u32),
    Barrier(u32),
    BarrierAck {
        barrier: u32,
        count: u32,
    },
    Bitmap(Bytes),
    CompressedBitmap {
        encoding: u8,
        code: Bytes,
    },
    SyncParameters(SyncParameters),
    Protocol(Protocol),
    ProtocolUpdate(Protocol),
    Uuids(Uuids),
    Sizes(Sizes),
    State(u32),
    SyncUuid(Generation),
    Auth(AuthKind, Bytes),
    Change(ChangeKind, Change),
    ChangeReply(ChangeKind, i32),
    DelayProbe,
    Features(Features),
    Bare(BareKind),
}

/// Codes of the packets whose body nobody shares.
mod code {
    pub(super) const BARRIER: u16 = 0x03;
    pub(super) const BITMAP: u16 = 0x04;
    pub(super) const SYNC_PARAM: u16 = 0x0a;
    pub(super) const PROTOCOL: u16 = 0x0b;
    pub(super) const UUIDS: u16 = 0x0c;
    pub(super) const SIZES: u16 = 0x0d;
    pub(super) const STATE: u16 = 0x0e;
    pub(super) const SYNC_UUID: u16 = 0x0f;
    pub(super) const BARRIER_ACK: u16 = 0x1c;
    pub(super) const CHANGE_REPLY: u16 = 0x1d;
    pub(super) const SYNC_PARAM_89: u16 = 0x23;
    pub(super) const COMPRESSED_BITMAP: u16 = 0x24;
    pub(super) const DELAY_PROBE: u16 = 0x27;
    pub(super) const CONNECTION_CHANGE_REPLY: u16 = 0x2b;
    pub(super) const PROTOCOL_UPDATE: u16 = 0x2d;
    pub(super) const FEATURES: u16 = 0xfffe;

    /// The longest body a command may announce.
    pub(super) fn body_bytes_max(command: u16) -> u64 {
        match command {
            0x00..=0x02 => super::BODY_BYTES_MAX,
            BITMAP | COMPRESSED_BITMAP => 4096,
            // 24 bytes and a digest, a challenge of 128 bytes, 148 bytes of parameters.
            _ => 256,
        }
    }
}

impl Packet {
    pub fn socket(&self) -> Socket {
        match self {
            Self::Ack(..)
            | Self::BarrierAck { .. }
            | Self::ChangeReply(..)
            | Self::Bare(BareKind::Ping | BareKind::PingAck | BareKind::InitialMeta) => {
                Socket::Meta
            }
            _ => Socket::Data,
        }
    }

    /// Reads the body that belongs to a header.
    pub fn decode(header: Header, body: Bytes) -> Result<Self, WireError> {
        let length = body.len();
        let mut fields = Fields { bytes: body };
        let packet = Self::decode_fields(header.command, &mut fields)?;
        if fields.bytes.is_empty() {
            Ok(packet)
        } else {
            Err(WireError::Length {
                command: header.command,
                length,
            })
        }
    }

    /// Reads a packet of data whose data lies by itself; see [`Header::data_offset`].
    pub fn decode_parts(header: Header, head: Bytes, data: Bytes) -> Result<Self, WireError> {
        let kind =
            DataKind::from_code(header.command).ok_or(WireError::UnknownCommand(header.command))?;
        let mut fields = Fields { bytes: head };
        Ok(Self::Data(kind, fields.data_head()?, data))
    }

    fn decode_fields(command: u16, fields: &mut Fields) -> Result<Self, WireError> {
        if let Some(kind) = DataKind::from_code(command) {
            return Ok(Self::Data(kind, fields.data_head()?, fields.rest()));
        }
        if let Some(kind) = AreaKind::from_code(command) {
            return Ok(Self::Area(kind, fields.data_head()?, fields.u32()?));
        }
        if let Some(kind) = RequestKind::from_code(command) {
            return Ok(Self::Request(kind, fields.block_request()?));
        }
        if let Some(kind) = DigestKind::from_code(command) {
            return Ok(Self::Digest(kind, fields.block_request()?, fields.rest()));
        }
        if let Some(kind) = AckKind::from_code(command) {
            return Ok(Self::Ack(kind, fields.block_ack()?));
        }
        if let Some(kind) = NoticeKind::from_code(command) {
            let (sector, bytes, _pad) = (fields.u64()?, fields.u32()?, fields.u32()?);
            return Ok(Self::Notice(kind, sector, bytes));
        }
        if let Some(kind) = ChangeKind::from_code(command) {
            let (mask, value) = (fields.u32()?, fields.u32()?);
            return Ok(Self::Change(kind, Change { mask, value }));
        }
        if let Some(kind) = BareKind::from_code(command) {
            return Ok(Self::Bare(kind));
        }
        if let Some(kind) = AuthKind::from_code(command) {
            return Ok(Self::Auth(kind, fields.rest()));
        }
        Self::decode_single(command, fields)
    }

    fn decode_single(command: u16, fields: &mut Fields) -> Result<Self, WireError> {
        Ok(match command {
            code::BARRIER => {
                let (barrier, _pad) = (fields.u32()?, fields.u32()?);
                Self::Barrier(barrier)
            }
            code::BARRIER_ACK => Self::BarrierAck {
                barrier: fields.u32()?,
                count: fields.u32()?,
            },
            code::BITMAP => Self::Bitmap(fields.rest()),
            code::COMPRESSED_BITMAP => Self::CompressedBitmap {
                encoding: fields.take(1)?[0],
                code: fields.rest(),
            },
            code::SYNC_PARAM | code::SYNC_PARAM_89 => {
                Self::SyncParameters(fields.sync_parameters(command)?)
            }
            code::PROTOCOL => Self::Protocol(fields.protocol()?),
            code::PROTOCOL_UPDATE => Self::ProtocolUpdate(fields.protocol()?),
            code::UUIDS => Self::Uuids(fields.uuids()?),
            code::SIZES => Self::Sizes(fields.sizes()?),
            code::STATE => Self::State(fields.u32()?),
            code::SYNC_UUID => Self::SyncUuid(Generation(fields.u64()?)),
            code::CHANGE_REPLY => Self::ChangeReply(ChangeKind::Volume, fields.i32()?),
            code::CONNECTION_CHANGE_REPLY => {
                Self::ChangeReply(ChangeKind::Connection, fields.i32()?)
            }
            code::DELAY_PROBE => {
                fields.u64()?;
                Self::DelayProbe
            }
            code::FEATURES => Self::Features(fields.features()?),
            unknown => return Err(WireError::UnknownCommand(unknown)),
        })
    }

    /// Returns header and body without the data that a packet carries behind them.
    pub fn encode_head(&self, dialect: Dialect, volume: u16) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        let command = self.encode_body(dialect, &mut body);
        let length = wide(body.len()) + self.payload().map_or(0, |payload| wide(payload.len()));
        let header = Header {
            volume: if self.of_connection() { 0 } else { volume },
            command,
            length: field32(length),
        };
        let mut bytes = Vec::with_capacity(16 + body.len());
        header.encode(dialect, &mut bytes);
        bytes.append(&mut body);
        bytes
    }

    /// The bytes that follow the head as they are.
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            Self::Data(_, _, bytes)
            | Self::Digest(_, _, bytes)
            | Self::Bitmap(bytes)
            | Self::CompressedBitmap { code: bytes, .. }
            | Self::Auth(_, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The whole packet in one buffer.
    pub fn encode(&self, dialect: Dialect, volume: u16) -> Vec<u8> {
        let mut bytes = self.encode_head(dialect, volume);
        if let Some(payload) = self.payload() {
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    fn of_connection(&self) -> bool {
        matches!(
            self,
            Self::Features(_)
                | Self::Auth(..)
                | Self::Protocol(_)
                | Self::ProtocolUpdate(_)
                | Self::Barrier(_)
                | Self::BarrierAck { .. }
                | Self::Bare(_)
                | Self::Change(ChangeKind::Connection, _)
                | Self::ChangeReply(ChangeKind::Connection, _)
        )
    }

    fn encode_body(&self, dialect: Dialect, body: &mut Vec<u8>) -> u16 {
        match self {
            Self::Data(kind, head, _) => {
                put_data_head(body, head);
                kind.code()
            }
            Self::Area(kind, head, bytes) => {
                put_data_head(body, head);
                body.put_u32(*bytes);
                kind.code()
            }
            Self::Request(kind, request) => {
                put_request(body, request);
                kind.code()
            }
            Self::Digest(kind, request, _) => {
                put_request(body, request);
                kind.code()
            }
            Self::Ack(kind, ack) => {
                put_ack(body, ack);
                kind.code()
            }
            Self::Notice(kind, sector, bytes) => {
                body.put_u64(*sector);
                body.put_u32(*bytes);
                body.put_u32(0);
                kind.code()
            }
            Self::Change(kind, change) => {
                body.put_u32(change.mask);
                body.put_u32(change.value);
                kind.code()
            }
            Self::Bare(kind) => kind.code(),
            Self::Auth(kind, _) => kind.code(),
            _ => self.encode_single(dialect, body),
        }
    }

    fn encode_single(&self, dialect: Dialect, body: &mut Vec<u8>) -> u16 {
        match self {
            Self::Barrier(barrier) => {
                body.put_u32(*barrier);
                body.put_u32(0);
                code::BARRIER
            }
            Self::BarrierAck { barrier, count } => {
                body.put_u32(*barrier);
                body.put_u32(*count);
                code::BARRIER_ACK
            }
            Self::Bitmap(_) => code::BITMAP,
            Self::CompressedBitmap { encoding, .. } => {
                body.push(*encoding);
                code::COMPRESSED_BITMAP
            }
            Self::SyncParameters(parameters) => put_sync_parameters(body, parameters, dialect),
            Self::Protocol(protocol) => {
                put_protocol(body, protocol, dialect);
                code::PROTOCOL
            }
            Self::ProtocolUpdate(protocol) => {
                put_protocol(body, protocol, dialect);
                code::PROTOCOL_UPDATE
            }
            Self::Uuids(uuids) => {
                for generation in uuids.generations {
                    body.put_u64(generation.0);
                }
                body.put_u64(uuids.bits_set);
                body.put_u64(uuids.flags.0);
                code::UUIDS
            }
            Self::Sizes(sizes) => {
                put_sizes(body, sizes);
                code::SIZES
            }
            Self::State(word) => {
                body.put_u32(*word);
                code::STATE
            }
            Self::SyncUuid(generation) => {
                body.put_u64(generation.0);
                code::SYNC_UUID
            }
            Self::ChangeReply(kind, code) => {
                body.put_i32(*code);
                match kind {
                    ChangeKind::Volume => code::CHANGE_REPLY,
                    ChangeKind::Connection => code::CONNECTION_CHANGE_REPLY,
                }
            }
            Self::Features(features) => {
                body.put_u32(features.version_min);
                body.put_u32(features.flags.0);
                body.put_u32(features.version_max);
                body.put_zeroes(60);
                code::FEATURES
            }
            _ => {
                body.put_u64(0);
                code::DELAY_PROBE
            }
        }
    }
}

fn put_data_head(body: &mut Vec<u8>, head: &DataHead) {
    body.put_u64(head.sector);
    body.put_u64(head.block_id.0);
    body.put_u32(head.sequence);
    body.put_u32(head.flags.0);
}

fn put_request(body: &mut Vec<u8>, request: &BlockRequest) {
    body.put_u64(request.sector);
    body.put_u64(request.block_id.0);
    body.put_u32(request.bytes);
    body.put_u32(0);
}

fn put_ack(body: &mut Vec<u8>, ack: &BlockAck) {
    body.put_u64(ack.sector);
    body.put_u64(ack.block_id.0);
    body.put_u32(ack.bytes);
    body.put_u32(ack.sequence);
}

fn put_protocol(body: &mut Vec<u8>, protocol: &Protocol, dialect: Dialect) {
    body.put_u32(match protocol.protocol {
        ReplicationProtocol::A => 1,
        ReplicationProtocol::B => 2,
        ReplicationProtocol::C => 3,
    });
    for policy in protocol.after_split_brain {
        body.put_u32(policy.number());
    }
    body.put_u32(u32::from(protocol.discard_my_data) | u32::from(protocol.dry_run) << 1);
    body.put_u32(protocol.two_primaries.into());
    if dialect.version >= 87 {
        body.extend_from_slice(protocol.integrity_algorithm.as_bytes());
        body.push(0);
    }
}

/// Writes the parameters in the shape the agreed version has.
fn put_sync_parameters(body: &mut Vec<u8>, parameters: &SyncParameters, dialect: Dialect) -> u16 {
    body.put_u32(parameters.resync_rate_kib);
    match dialect.version {
        ..=87 => code::SYNC_PARAM,
        88 => {
            body.extend_from_slice(parameters.verify_algorithm.as_bytes());
            body.push(0);
            code::SYNC_PARAM
        }
        version => {
            put_name(body, &parameters.verify_algorithm);
            put_name(body, &parameters.checksum_algorithm);
            if version >= 95 {
                body.put_u32(parameters.plan_ahead);
                body.put_u32(parameters.delay_target);
                body.put_u32(parameters.fill_target);
                body.put_u32(parameters.max_rate_kib);
            }
            code::SYNC_PARAM_89
        }
    }
}

fn put_name(body: &mut Vec<u8>, name: &str) {
    let length = name.len().min(NAME_BYTES - 1);
    body.extend_from_slice(&name.as_bytes()[..length]);
    body.put_zeroes(NAME_BYTES - length);
}

fn put_sizes(body: &mut Vec<u8>, sizes: &Sizes) {
    body.put_u64(sizes.available);
    body.put_u64(sizes.wanted);
    body.put_u64(sizes.current);
    body.put_u32(sizes.bio_bytes_max);
    body.put_u16(sizes.queue_order);
    body.put_u16(sizes.flags);
    if let Some(limits) = &sizes.limits {
        body.put_u32(limits.physical_block);
        body.put_u32(limits.logical_block);
        // Alignment offset, least and best size of input and output.
        body.put_zeroes(12);
        body.extend_from_slice(&[limits.discards.into(), 0, 0, 0]);
    }
}

/// A body being read; data is sliced out of it, not copied.
struct Fields {
    bytes: Bytes,
}

impl Fields {
    fn take(&mut self, count: usize) -> Result<Bytes, WireError> {
        if self.bytes.len() < count {
            return Err(WireError::TooShort);
        }
        Ok(self.bytes.split_to(count))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(Reader::new(&self.take(2)?).u16()?)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(Reader::new(&self.take(4)?).u32()?)
    }

    fn i32(&mut self) -> Result<i32, WireError> {
        Ok(Reader::new(&self.take(4)?).i32()?)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(Reader::new(&self.take(8)?).u64()?)
    }

    fn data_head(&mut self) -> Result<DataHead, WireError> {
        Ok(DataHead {
            sector: self.u64()?,
            block_id: BlockId(self.u64()?),
            sequence: self.u32()?,
            flags: WriteFlags(self.u32()?),
        })
    }

    fn block_request(&mut self) -> Result<BlockRequest, WireError> {
        let request = BlockRequest {
            sector: self.u64()?,
            block_id: BlockId(self.u64()?),
            bytes: self.u32()?,
        };
        // Not cleared by every sender.
        self.u32()?;
        Ok(request)
    }

    fn block_ack(&mut self) -> Result<BlockAck, WireError> {
        Ok(BlockAck {
            sector: self.u64()?,
            block_id: BlockId(self.u64()?),
            bytes: self.u32()?,
            sequence: self.u32()?,
        })
    }

    /// A text up to its NUL, or to the end.
    fn text(bytes: &[u8]) -> Result<String, WireError> {
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        let printable = |byte: &u8| byte.is_ascii_graphic();
        match bytes[..end].iter().find(|byte| !printable(byte)) {
            None => Ok(String::from_utf8_lossy(&bytes[..end]).into_owned()),
            Some(byte) => Err(WireError::Value {
                what: "a character in the name of an algorithm",
                value: (*byte).into(),
            }),
        }
    }

    fn sync_parameters(&mut self, command: u16) -> Result<SyncParameters, WireError> {
        let mut parameters = SyncParameters {
            resync_rate_kib: self.u32()?,
            verify_algorithm: String::new(),
            checksum_algorithm: String::new(),
            // Version 94 and older: a fixed rate.
            plan_ahead: 0,
            delay_target: 10,
            fill_target: 0,
            max_rate_kib: 102_400,
        };
        if command == code::SYNC_PARAM {
            parameters.verify_algorithm = Self::text(&self.rest())?;
            return Ok(parameters);
        }
        parameters.verify_algorithm = Self::text(&self.take(NAME_BYTES)?)?;
        parameters.checksum_algorithm = Self::text(&self.take(NAME_BYTES)?)?;
        if !self.bytes.is_empty() {
            parameters.plan_ahead = self.u32()?;
            parameters.delay_target = self.u32()?;
            parameters.fill_target = self.u32()?;
            parameters.max_rate_kib = self.u32()?;
        }
        Ok(parameters)
    }

    fn protocol(&mut self) -> Result<Protocol, WireError> {
        let protocol = match self.u32()? {
            1 => ReplicationProtocol::A,
            2 => ReplicationProtocol::B,
            3 => ReplicationProtocol::C,
            value => return Err(unknown("the protocol", value)),
        };
        let after_split_brain = [self.policy()?, self.policy()?, self.policy()?];
        let flags = self.u32()?;
        Ok(Protocol {
            protocol,
            after_split_brain,
            discard_my_data: flags & 1 != 0,
            dry_run: flags & 2 != 0,
            two_primaries: self.u32()? != 0,
            integrity_algorithm: Self::text(&self.rest())?,
        })
    }

    fn policy(&mut self) -> Result<AfterSplitBrain, WireError> {
        let number = self.u32()?;
        AfterSplitBrain::from_number(number)
            .ok_or_else(|| unknown("the policy after a split brain", number))
    }

    fn uuids(&mut self) -> Result<Uuids, WireError> {
        Ok(Uuids {
            generations: [
                Generation(self.u64()?),
                Generation(self.u64()?),
                Generation(self.u64()?),
                Generation(self.u64()?),
            ],
            bits_set: self.u64()?,
            flags: UuidFlags(self.u64()?),
        })
    }

    fn sizes(&mut self) -> Result<Sizes, WireError> {
        let mut sizes = Sizes {
            available: self.u64()?,
            wanted: self.u64()?,
            current: self.u64()?,
            bio_bytes_max: self.u32()?,
            queue_order: self.u16()?,
            flags: self.u16()?,
            limits: None,
        };
        if !self.bytes.is_empty() {
            let (physical_block, logical_block) = (self.u32()?, self.u32()?);
            self.take(12)?;
            let switches = self.take(4)?;
            sizes.limits = Some(QueueLimits {
                physical_block,
                logical_block,
                discards: switches[0] != 0,
            });
        }
        Ok(sizes)
    }

    fn features(&mut self) -> Result<Features, WireError> {
        let (version_min, flags, version_max) = (self.u32()?, self.u32()?, self.u32()?);
        self.take(60)?;
        Ok(Features {
            version_min,
            version_max,
            flags: FeatureFlags(flags),
        })
    }
}

fn unknown(what: &'static str, value: u32) -> WireError {
    WireError::Value {
        what,
        value: value.into(),
    }
}

/// Cuts a stream into packets.
#[derive(Debug, Default)]
pub struct PacketReader {
    buffered: bytes::BytesMut,
}

impl PacketReader {
    /// Appends what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// Returns the next whole packet with its volume; `None` when more bytes are needed.
    pub fn next_packet(&mut self) -> Result<Option<(u16, Packet)>, WireError> {
        let Some((header, size)) = Header::decode(&self.buffered)? else {
            return Ok(None);
        };
        let total = size + header.length as usize;
        if self.buffered.len() < total {
            self.buffered.reserve(total - self.buffered.len());
            return Ok(None);
        }
        let mut whole = self.buffered.split_to(total).freeze();
        let body = whole.split_off(size);
        Packet::decode(header, body).map(|packet| Some((header.volume, packet)))
    }
}

/// A range of bytes as sectors; everything on the wire is in whole ones.
pub fn sectors(bytes: u32) -> u64 {
    u64::from(bytes) / SECTOR
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEW: Dialect = Dialect {
        version: 101,
        features: FeatureFlags::ALL,
    };

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn plain_protocol() -> Protocol {
        Protocol {
            protocol: ReplicationProtocol::C,
            after_split_brain: [AfterSplitBrain::Disconnect; 3],
            discard_my_data: false,
            dry_run: false,
            two_primaries: false,
            integrity_algorithm: String::new(),
        }
    }

    #[test]
    fn packets_have_the_bytes_of_the_kernel() {
        let head = DataHead {
            sector: 8,
            block_id: BlockId(0x1122_3344_5566_7788),
            sequence: 1,
            flags: WriteFlags::ACK_WRITTEN,
        };
        let ack = BlockAck {
            sector: 8,
            block_id: head.block_id,
            bytes: 4096,
            sequence: 1,
        };
        let mut features = hex("83740267 fffe0048 00000056 0000000f 00000065 00000000");
        features.resize(80, 0);
        let table = [
            (
                Dialect::UNAGREED,
                Packet::Bare(BareKind::InitialData),
                hex("83740267 fff20000"),
            ),
            (
                Dialect::UNAGREED,
                Packet::Bare(BareKind::InitialMeta),
                hex("83740267 fff10000"),
            ),
            (Dialect::UNAGREED, Packet::Features(Features::OWN), features),
            (
                NEW,
                Packet::Protocol(plain_protocol()),
                hex(
                    "8620ec20 0000000b 00000019 00000000 00000003 00000000 00000000 00000000 00000000 00000000 00",
                ),
            ),
            (
                NEW,
                Packet::State(0x88aa),
                hex("8620ec20 0000000e 00000004 00000000 000088aa"),
            ),
            (
                NEW,
                Packet::Ack(AckKind::Written, ack),
                hex(
                    "8620ec20 00000016 00000018 00000000 0000000000000008 1122334455667788 00001000 00000001",
                ),
            ),
            (
                NEW,
                Packet::Barrier(0x0500_0000),
                hex("8620ec20 00000003 00000008 00000000 05000000 00000000"),
            ),
            (
                NEW,
                Packet::BarrierAck {
                    barrier: 0x0500_0000,
                    count: 1,
                },
                hex("8620ec20 0000001c 00000008 00000000 05000000 00000001"),
            ),
            (
                NEW,
                Packet::Bare(BareKind::Ping),
                hex("8620ec20 00000013 00000000 00000000"),
            ),
            (
                NEW,
                Packet::Bitmap(Bytes::new()),
                hex("8620ec20 00000004 00000000 00000000"),
            ),
        ];
        for (dialect, packet, bytes) in table {
            assert_eq!(packet.encode(dialect, 0), bytes, "{packet:?}");
        }
        let data = Packet::Data(DataKind::Write, head, Bytes::from(vec![7; 4096]));
        let bytes = data.encode(NEW, 0);
        assert_eq!(
            bytes[..40],
            hex(
                "8620ec20 00000000 00001018 00000000 0000000000000008 1122334455667788 00000001 00000100"
            )
        );
        assert_eq!(bytes.len(), 40 + 4096);
    }

    #[test]
    fn fixed_bodies_have_their_length() {
        let parameters = SyncParameters {
            resync_rate_kib: 250,
            verify_algorithm: "sha1".into(),
            checksum_algorithm: String::new(),
            plan_ahead: 20,
            delay_target: 10,
            fill_target: 100,
            max_rate_kib: 102_400,
        };
        let length = |version: u32| {
            let dialect = Dialect { version, ..NEW };
            let bytes = Packet::SyncParameters(parameters.clone()).encode(dialect, 0);
            Header::decode(&bytes).unwrap().unwrap().0
        };
        assert_eq!((length(101).command, length(101).length), (0x23, 148));
        assert_eq!((length(94).command, length(94).length), (0x23, 132));
        assert_eq!((length(88).command, length(88).length), (0x0a, 9));
        assert_eq!((length(86).command, length(86).length), (0x0a, 4));
        let sizes = Sizes {
            available: 1,
            wanted: 2,
            current: 3,
            bio_bytes_max: 4,
            queue_order: 0,
            flags: 0,
            limits: Some(QueueLimits {
                physical_block: 4096,
                logical_block: 512,
                discards: true,
            }),
        };
        assert_eq!(Packet::Sizes(sizes).encode(NEW, 0).len(), 16 + 56);
        let short = Packet::Sizes(Sizes {
            limits: None,
            ..sizes
        });
        assert_eq!(short.encode(NEW, 0).len(), 16 + 32);
    }

    #[test]
    fn the_best_common_version_is_agreed() {
        let peer = |version_min, version_max| Features {
            version_min,
            version_max,
            flags: FeatureFlags(3),
        };
        let version = |peer| Features::OWN.agreed(peer).map(|dialect| dialect.version);
        assert_eq!(version(peer(86, 101)), Some(101));
        assert_eq!(version(peer(86, 96)), Some(96));
        assert_eq!(version(peer(90, 0)), Some(90));
        assert_eq!(version(peer(102, 120)), None);
        assert_eq!(version(peer(80, 85)), None);
        assert_eq!(
            Features::OWN.agreed(peer(86, 101)).unwrap().features,
            FeatureFlags(3)
        );
    }

    #[test]
    fn a_length_is_refused_before_memory_is_taken() {
        let mut reader = PacketReader::default();
        reader.push(&hex("8620ec20 00000000 ffffffff 00000000"));
        assert!(matches!(
            reader.next_packet(),
            Err(WireError::TooLong { .. })
        ));
        let mut reader = PacketReader::default();
        reader.push(&hex("8620ec20 0000000e 00000101 00000000"));
        assert!(matches!(
            reader.next_packet(),
            Err(WireError::TooLong { .. })
        ));
        let mut reader = PacketReader::default();
        reader.push(&hex("8620ec20 0000000e 00000005 00000000 0000000000"));
        assert_eq!(
            reader.next_packet(),
            Err(WireError::Length {
                command: 0x0e,
                length: 5
            })
        );
    }

    #[test]
    fn large_bodies_of_old_versions_have_their_own_header() {
        let dialect = Dialect { version: 97, ..NEW };
        let head = DataHead {
            sector: 0,
            block_id: BlockId(1),
            sequence: 1,
            flags: WriteFlags(0),
        };
        let large = Packet::Data(DataKind::Write, head, Bytes::from(vec![1; 65_536]));
        let bytes = large.encode(dialect, 0);
        assert_eq!(bytes[..2], [0x83, 0x5a]);
        let mut reader = PacketReader::default();
        reader.push(&bytes);
        assert_eq!(reader.next_packet(), Ok(Some((0, large))));
    }

    fn data(bytes_max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..bytes_max).prop_map(Bytes::from)
    }

    fn any_packet() -> impl Strategy<Value = Packet> {
        let head = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
            |(sector, block_id, sequence, flags)| DataHead {
                sector,
                block_id: BlockId(block_id),
                sequence,
                flags: WriteFlags(flags),
            },
        );
        let request =
            (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(sector, block_id, bytes)| {
                BlockRequest {
                    sector,
                    block_id: BlockId(block_id),
                    bytes,
                }
            });
        let name = || "[a-z0-9-]{0,20}";
        let uuids = (any::<[u64; 4]>(), any::<u64>(), any::<u64>()).prop_map(
            |(numbers, bits_set, flags)| {
                Packet::Uuids(Uuids {
                    generations: numbers.map(Generation),
                    bits_set,
                    flags: UuidFlags(flags),
                })
            },
        );
        prop_oneof![
            (head.clone(), data(3000)).prop_map(|(head, data)| Packet::Data(
                DataKind::Write,
                head,
                data
            )),
            (head, any::<u32>()).prop_map(|(head, bytes)| Packet::Area(
                AreaKind::Trim,
                head,
                bytes
            )),
            request
                .clone()
                .prop_map(|request| Packet::Request(RequestKind::Resync, request)),
            (request.clone(), data(64)).prop_map(|(request, digest)| Packet::Digest(
                DigestKind::VerifyReply,
                request,
                digest
            )),
            (request, any::<u32>()).prop_map(|(request, sequence)| Packet::Ack(
                AckKind::IsInSync,
                BlockAck {
                    sector: request.sector,
                    block_id: request.block_id,
                    bytes: request.bytes,
                    sequence,
                }
            )),
            (any::<u64>(), any::<u32>()).prop_map(|(sector, bytes)| Packet::Notice(
                NoticeKind::OutOfSync,
                sector,
                bytes
            )),
            data(4080).prop_map(Packet::Bitmap),
            (any::<u8>(), data(4000))
                .prop_map(|(encoding, code)| Packet::CompressedBitmap { encoding, code }),
            (any::<[u32; 5]>(), name(), name()).prop_map(
                |(numbers, verify_algorithm, checksum_algorithm)| Packet::SyncParameters(
                    SyncParameters {
                        resync_rate_kib: numbers[0],
                        verify_algorithm,
                        checksum_algorithm,
                        plan_ahead: numbers[1],
                        delay_target: numbers[2],
                        fill_target: numbers[3],
                        max_rate_kib: numbers[4],
                    }
                )
            ),
            (name(), any::<[bool; 3]>()).prop_map(
                |(integrity_algorithm, [discard_my_data, dry_run, two_primaries])| Packet::Protocol(
                    Protocol {
                        discard_my_data,
                        dry_run,
                        two_primaries,
                        integrity_algorithm,
                        ..plain_protocol()
                    }
                )
            ),
            uuids,
            any::<u32>().prop_map(Packet::State),
            any::<u64>().prop_map(|number| Packet::SyncUuid(Generation(number))),
            (any::<u32>(), any::<u32>()).prop_map(|(mask, value)| Packet::Change(
                ChangeKind::Connection,
                Change { mask, value }
            )),
            any::<i32>().prop_map(|code| Packet::ChangeReply(ChangeKind::Volume, code)),
            Just(Packet::Features(Features::OWN)),
            Just(Packet::DelayProbe),
        ]
    }

    proptest! {
        #[test]
        fn packets_survive_the_round_trip(packets in proptest::collection::vec(any_packet(), 0..8), cut in 1usize..500) {
            let mut stream = Vec::new();
            for packet in &packets {
                stream.extend(packet.encode(NEW, 0));
            }
            let mut reader = PacketReader::default();
            let mut arrived = Vec::new();
            for piece in stream.chunks(cut) {
                reader.push(piece);
                while let Some((_, packet)) = reader.next_packet().unwrap() {
                    arrived.push(packet);
                }
            }
            prop_assert_eq!(arrived, packets);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(command in 0u16..0x40, bytes in proptest::collection::vec(any::<u8>(), 0..300), framed: bool) {
            let mut reader = PacketReader::default();
            if framed {
                let header = Header { volume: 0, command, length: u32::try_from(bytes.len()).unwrap() };
                let mut stream = Vec::new();
                header.encode(NEW, &mut stream);
                reader.push(&stream);
            }
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_packet() {}
        }
    }
}
