//! ublk's commands and structures as bytes, as `linux/ublk_cmd.h` lays them out (all
//! fields in the machine's own order).

/// One request as the driver describes it; 24 bytes a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub operation: u8,
    pub flags: u32,
    pub sectors: u32,
    pub start_sector: u64,
}

pub(super) const DESCRIPTOR_BYTES: usize = 24;

pub(super) const READ: u8 = 0;
pub(super) const WRITE: u8 = 1;
pub(super) const FLUSH: u8 = 2;
pub(super) const DISCARD: u8 = 3;
pub(super) const WRITE_ZEROES: u8 = 5;

/// The request is stable when it is answered.
pub(super) const FLAG_FUA: u32 = 1 << 13;

impl Descriptor {
    pub(super) fn decode(bytes: [u8; DESCRIPTOR_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let word = u32_at(0);
        Self {
            operation: word.to_le_bytes()[0],
            flags: word & !0xff,
            sectors: u32_at(4),
            start_sector: u64::from_ne_bytes(bytes[8..16].try_into().expect("8 bytes")),
        }
    }
}

/// Commands of the control device, and of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    GetInfo = 0x02,
    Add = 0x04,
    Delete = 0x05,
    Start = 0x06,
    Stop = 0x07,
    SetParameters = 0x08,
    StartRecovery = 0x10,
    EndRecovery = 0x11,
    /// As `Delete`, without waiting for the last who has it open; since Linux 6.9.
    DeleteSoon = 0x14,
    UpdateSize = 0x15,
    Fetch = 0x20,
    CommitAndFetch = 0x21,
}

impl Command {
    /// The number as `_IOR` or `_IOWR` makes it.
    pub(super) fn code(self) -> u32 {
        const READ: u32 = 2;
        const READ_WRITE: u32 = 3;
        let direction = if matches!(self, Self::GetInfo | Self::DeleteSoon) {
            READ
        } else {
            READ_WRITE
        };
        let bytes: u32 = match self {
            Self::Fetch | Self::CommitAndFetch => 16,
            _ => 32,
        };
        direction << 30 | bytes << 16 | u32::from(b'u') << 8 | self as u32
    }
}

/// What a command of the control device carries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Control {
    pub device: u32,
    /// Of a buffer, with its length.
    pub address: u64,
    pub bytes: u16,
    pub data: u64,
}

impl Control {
    /// In the 80 bytes of a long submission entry.
    pub(super) fn encode(self) -> [u8; 80] {
        /// Of no queue.
        const NO_QUEUE: u16 = u16::MAX;
        let mut bytes = [0; 80];
        bytes[0..4].copy_from_slice(&self.device.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NO_QUEUE.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.bytes.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.address.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.data.to_ne_bytes());
        bytes
    }
}

/// Returns what a command of the only queue carries.
pub(super) fn queue_command(tag: u16, result: i32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[2..4].copy_from_slice(&tag.to_ne_bytes());
    bytes[4..8].copy_from_slice(&result.to_ne_bytes());
    bytes
}

/// Where in the character device a tag's data is read and written.
pub(super) fn data_offset(tag: u16) -> u64 {
    const BUFFERS: u64 = 0x8000_0000;
    const TAG_SHIFT: u32 = 25;
    BUFFERS + (u64::from(tag) << TAG_SHIFT)
}

pub(super) const INFO_BYTES: usize = 64;

/// A device's shape and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub queue_depth: u16,
    pub state: u16,
    pub request_bytes_max: u32,
    pub device: u32,
    pub pid: i32,
    pub flags: u64,
    /// For the server's own use.
    pub mark: u64,
}

/// It is served, as far as the driver knows.
pub(super) const STATE_LIVE: u16 = 1;

/// Its server died, and its requests wait for another one.
pub(super) const STATE_QUIESCED: u16 = 2;

/// It survives its server, and what was not answered is asked again.
const RECOVERY: u64 = 1 << 3 | 1 << 4;
/// Commands have their long numbers.
const LONG_NUMBERS: u64 = 1 << 6;
/// Data is read from and written to the character device, not to a buffer a tag.
const USER_COPY: u64 = 1 << 7;

impl Info {
    pub(super) const FLAGS: u64 = RECOVERY | LONG_NUMBERS | USER_COPY;

    pub(super) fn has_user_copy(&self) -> bool {
        self.flags & USER_COPY != 0
    }

    pub(super) fn encode(&self) -> [u8; INFO_BYTES] {
        let mut bytes = [0; INFO_BYTES];
        bytes[0..2].copy_from_slice(&1u16.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.queue_depth.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.state.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.request_bytes_max.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.device.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.mark.to_ne_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; INFO_BYTES]) -> Self {
        let u16_at = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("2 bytes"));
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            queue_depth: u16_at(2),
            state: u16_at(4),
            request_bytes_max: u32_at(8),
            device: u32_at(12),
            pid: u32_at(16).cast_signed(),
            flags: u64_at(24),
            mark: u64_at(32),
        }
    }
}

pub(super) const PARAMETERS_BYTES: usize = 60;

/// How the block device looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub sectors: u64,
    pub request_sectors_max: u32,
    pub read_only: bool,
}

impl Parameters {
    /// | off | field | | off | field |
    /// |---|---|---|---|---|
    /// | 0 | length, types u32 | | 40 | discard: alignment, granularity u32 |
    /// | 8 | attributes u32 | | 48 | max discard, max write-zeroes sectors u32 |
    /// | 12 | shifts: logical, physical, optimal, least u8 | | 56 | segments u16 |
    /// | 16 | max, chunk sectors u32; 24: sectors, virt boundary u64 | | | |
    pub(super) fn encode(&self) -> [u8; PARAMETERS_BYTES] {
        const BASIC_AND_DISCARD: u32 = 1 | 2;
        const READ_ONLY: u32 = 1;
        const VOLATILE_CACHE: u32 = 1 << 2;
        const FUA: u32 = 1 << 3;
        /// 512 bytes, the smallest request; 4 KiB, what is best and what a bit stands for.
        const SHIFTS: [u8; 4] = [9, 12, 12, 12];
        const BLOCK_BYTES: u32 = 4096;
        /// What one packet of the protocol may discard or zero.
        const DISCARD_SECTORS_MAX: u32 = 8192;
        let read_only = if self.read_only { READ_ONLY } else { 0 };
        let mut bytes = [0; PARAMETERS_BYTES];
        let length = u32::try_from(PARAMETERS_BYTES).expect("it is 60");
        for (at, value) in [
            (0, length),
            (4, BASIC_AND_DISCARD),
            (8, VOLATILE_CACHE | FUA | read_only),
            (16, self.request_sectors_max),
            (44, BLOCK_BYTES),
            (48, DISCARD_SECTORS_MAX),
            (52, DISCARD_SECTORS_MAX),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes[12..16].copy_from_slice(&SHIFTS);
        bytes[24..32].copy_from_slice(&self.sectors.to_ne_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernels_header() {
        assert_eq!(Command::Add.code(), 0xc020_7504);
        assert_eq!(Command::GetInfo.code(), 0x8020_7502);
        assert_eq!(Command::Fetch.code(), 0xc010_7520);
        assert_eq!(Command::CommitAndFetch.code(), 0xc010_7521);
    }

    #[test]
    fn an_info_reads_what_it_wrote() {
        let info = Info {
            queue_depth: 128,
            state: STATE_QUIESCED,
            request_bytes_max: 1 << 20,
            device: 7,
            pid: 4711,
            flags: Info::FLAGS,
            mark: 0x1122_3344_5566_7788,
        };
        assert_eq!(Info::decode(&info.encode()), info);
        assert!(info.has_user_copy());
    }

    #[test]
    fn a_descriptor_names_its_operation_and_place() {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[0..4].copy_from_slice(&(u32::from(WRITE) | FLAG_FUA).to_ne_bytes());
        bytes[4..8].copy_from_slice(&8u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&2048u64.to_ne_bytes());
        let expected = Descriptor {
            operation: WRITE,
            flags: FLAG_FUA,
            sectors: 8,
            start_sector: 2048,
        };
        assert_eq!(Descriptor::decode(bytes), expected);
    }

    #[test]
    fn tags_have_32_mib_each() {
        assert_eq!(data_offset(0), 0x8000_0000);
        assert_eq!(data_offset(3), 0x8000_0000 + (3 << 25));
    }
}
