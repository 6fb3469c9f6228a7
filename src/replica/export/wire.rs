//! NBD's two packets: the kernel's requests, and the answers.

/// Bytes of a request's header; a write's data follows.
pub(super) const REQUEST_BYTES: usize = 28;
/// Bytes of an answer's header; a read's data follows.
pub(super) const REPLY_BYTES: usize = 16;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// What the kernel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    WriteZeroes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub kind: Kind,
    pub fua: bool,
    pub handle: u64,
    pub offset: u64,
    pub bytes: u32,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("the kernel sent {found:#010x} where a request should begin")]
    Magic { found: u32 },
    #[error("the kernel sent a request of unknown kind {found}")]
    Kind { found: u32 },
}

impl Request {
    pub(super) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, WireError> {
        const FUA: u32 = 1 << 16;
        let u32_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let magic = u32_at(0);
        if magic != REQUEST_MAGIC {
            return Err(WireError::Magic { found: magic });
        }
        let word = u32_at(4);
        Ok(Self {
            kind: match word & 0xffff {
                0 => Kind::Read,
                1 => Kind::Write,
                2 => Kind::Disconnect,
                3 => Kind::Flush,
                4 => Kind::Trim,
                6 => Kind::WriteZeroes,
                found => return Err(WireError::Kind { found }),
            },
            fua: word & FUA != 0,
            handle: u64_at(8),
            offset: u64_at(16),
            bytes: u32_at(24),
        })
    }
}

pub(super) fn reply(handle: u64, error: u32) -> [u8; REPLY_BYTES] {
    let mut bytes = [0; REPLY_BYTES];
    bytes[0..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.to_be_bytes());
    bytes[8..16].copy_from_slice(&handle.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_field_by_field() {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0..4].copy_from_slice(&[0x25, 0x60, 0x95, 0x13]);
        bytes[4..8].copy_from_slice(&[0, 1, 0, 1]);
        bytes[15] = 9;
        bytes[22] = 0x10;
        bytes[26] = 0x10;
        let expected = Request {
            kind: Kind::Write,
            fua: true,
            handle: 9,
            offset: 4096,
            bytes: 4096,
        };
        assert_eq!(Request::decode(&bytes), Ok(expected));
        bytes[7] = 9;
        assert_eq!(Request::decode(&bytes), Err(WireError::Kind { found: 9 }));
        bytes[0] = 0;
        assert!(matches!(
            Request::decode(&bytes),
            Err(WireError::Magic { .. })
        ));
    }

    #[test]
    fn a_reply_carries_the_handle_as_it_came() {
        assert_eq!(
            reply(0x0102_0304_0506_0708, 5),
            [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8]
        );
    }
}
