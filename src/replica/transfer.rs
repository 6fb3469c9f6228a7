//! The bitmap on the wire: plain words, or the lengths of its runs in a variable code.
//!
//! Sender and receiver keep the same position without ever saying it. A plain packet
//! starts at a whole word; a compressed one at any bit, with the polarity of its first run.
//! A transfer ends at the last bit, and after a plain packet with an empty one.

use super::bitmap::Bitmap;
use super::fields::{narrow, wide};

/// Bytes of payload in a bitmap packet: what fits in a page beside the 16-byte header.
pub const PLAIN_BYTES_MAX: u64 = 4080;
const CODE_BYTES_MAX: usize = 4079;
const WORD_BITS: u64 = 64;
/// The only code of compressed bitmaps.
const RLE_VLI_BITS: u8 = 2;

/// One packet of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BitmapPacket {
    Plain(Vec<u8>),
    Compressed { encoding: u8, code: Vec<u8> },
}

/// Why a bitmap packet of the peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("a bitmap packet of {found} bytes where {expected} are due")]
    Length { expected: u64, found: u64 },
    #[error("a bitmap in the unknown code {0}")]
    UnknownCode(u8),
    #[error("a compressed bitmap that runs past the end of the device")]
    PastEnd,
    #[error("a compressed bitmap whose code is damaged")]
    Damaged,
}

/// One length class of the code: prefix, then the distance from the first value of the class.
struct Class {
    prefix_bits: u32,
    prefix: u64,
    data_bits: u32,
    first: u64,
}

const fn class(prefix_bits: u32, prefix: u64, data_bits: u32, first: u64) -> Class {
    Class {
        prefix_bits,
        prefix,
        data_bits,
        first,
    }
}

const CLASSES: [Class; 10] = [
    class(1, 0x00, 1, 1),
    class(2, 0x01, 1, 3),
    class(3, 0x03, 2, 5),
    class(4, 0x07, 3, 9),
    class(5, 0x0f, 5, 17),
    class(6, 0x1f, 8, 49),
    class(8, 0x3f, 13, 305),
    class(8, 0x7f, 21, 8497),
    class(8, 0xbf, 34, 2_105_649),
    class(8, 0xff, 56, 17_181_974_833),
];

/// Returns the code of a run's length and the number of its bits.
fn encode_length(length: u64) -> (u64, u32) {
    let class = CLASSES
        .iter()
        .rev()
        .find(|class| length >= class.first)
        .expect("a run has at least one bit");
    let code = (length - class.first) << class.prefix_bits | class.prefix;
    (code, class.prefix_bits + class.data_bits)
}

/// Reads the length at the low end of `bits`; `None` when it is not complete.
fn decode_length(bits: u64, available: u32) -> Option<(u64, u32)> {
    let class = CLASSES
        .iter()
        .find(|class| bits & ((1 << class.prefix_bits) - 1) == class.prefix)?;
    let total = class.prefix_bits + class.data_bits;
    if total > available {
        return None;
    }
    let data = bits >> class.prefix_bits & (u64::MAX >> (64 - class.data_bits));
    Some((class.first + data, total))
}

/// Appends codes, least significant bit first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used_bits: usize,
}

impl BitWriter {
    fn fits(&self, bits: u32) -> bool {
        self.used_bits + bits as usize <= CODE_BYTES_MAX * 8
    }

    fn push(&mut self, code: u64, bits: u32) {
        for index in 0..bits {
            if self.used_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = u8::from(code >> index & 1 == 1);
            *self.bytes.last_mut().expect("one was just pushed") |= bit << (self.used_bits % 8);
            self.used_bits += 1;
        }
    }

    fn pad_bits(&self) -> u8 {
        u8::try_from((8 - self.used_bits % 8) % 8).expect("less than eight")
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
}

impl BitReader<'_> {
    fn left(&self) -> u32 {
        u32::try_from(self.end - self.position).expect("a packet is at most 4 KiB")
    }

    /// The next 64 bits, or as many as there are, without taking them.
    fn peek(&self) -> u64 {
        let mut window = [0u8; 16];
        let start = self.position / 8;
        let available = self.bytes.len().min(start + 9) - start;
        window[..available].copy_from_slice(&self.bytes[start..start + available]);
        let wide = u128::from_le_bytes(window) >> (self.position % 8);
        u64::try_from(wide & u128::from(u64::MAX)).expect("masked to 64 bits")
    }
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// The last packet was plain: an empty one follows.
    Terminator,
    Done,
}

/// Sends one bitmap, packet by packet.
#[derive(Clone, Debug)]
pub struct BitmapSender {
    bit: u64,
    stage: Stage,
    compress: bool,
}

impl BitmapSender {
    pub fn new(compress: bool) -> Self {
        Self {
            bit: 0,
            stage: Stage::Running,
            compress,
        }
    }

    /// Returns the next packet, and `None` when the transfer is complete.
    pub fn next_packet(&mut self, bitmap: &Bitmap) -> Option<BitmapPacket> {
        match self.stage {
            Stage::Done => None,
            Stage::Terminator => {
                self.stage = Stage::Done;
                Some(BitmapPacket::Plain(Vec::new()))
            }
            Stage::Running => Some(
                self.compressed(bitmap)
                    .unwrap_or_else(|| self.plain(bitmap)),
            ),
        }
    }

    fn compressed(&mut self, bitmap: &Bitmap) -> Option<BitmapPacket> {
        if !self.compress || bitmap.bits() == 0 {
            return None;
        }
        let first_set = bitmap.is_set(self.bit);
        let mut set = first_set;
        let mut bit = self.bit;
        let mut writer = BitWriter::default();
        while bit < bitmap.bits() {
            let end = if set {
                bitmap.next_clear(bit)
            } else {
                bitmap.next_set(bit).unwrap_or_else(|| bitmap.bits())
            };
            let (code, bits) = encode_length(end - bit);
            if !writer.fits(bits) {
                break;
            }
            writer.push(code, bits);
            bit = end;
            set = !set;
        }
        if bit - self.bit < wide(writer.bytes.len()) * 8 {
            // A checkered stretch takes more room in code than as it is.
            return None;
        }
        self.bit = bit;
        if bit == bitmap.bits() {
            self.stage = Stage::Done;
        }
        Some(BitmapPacket::Compressed {
            encoding: RLE_VLI_BITS | writer.pad_bits() << 4 | u8::from(first_set) << 7,
            code: writer.bytes,
        })
    }

    fn plain(&mut self, bitmap: &Bitmap) -> BitmapPacket {
        let words = bitmap.words();
        let start = narrow(self.bit / WORD_BITS);
        let end = (start + narrow(PLAIN_BYTES_MAX / 8)).min(words.len());
        self.bit = (wide(end) * WORD_BITS).min(bitmap.bits());
        if end == words.len() {
            self.stage = if start == end {
                Stage::Done
            } else {
                Stage::Terminator
            };
        }
        let bytes = words[start..end].iter().flat_map(|word| word.to_le_bytes());
        BitmapPacket::Plain(bytes.collect())
    }
}

/// Takes the peer's bitmap, marking here what is marked there.
#[derive(Clone, Debug, Default)]
pub struct BitmapReceiver {
    bit: u64,
}

/// Whether more packets are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    More,
    All,
}

impl BitmapReceiver {
    pub fn plain(&mut self, bitmap: &mut Bitmap, bytes: &[u8]) -> Result<Received, TransferError> {
        let words = wide(bitmap.words().len());
        let start = self.bit / WORD_BITS;
        let left = if self.bit == bitmap.bits() {
            0
        } else {
            words - start
        };
        let expected = (left * 8).min(PLAIN_BYTES_MAX);
        if wide(bytes.len()) != expected {
            return Err(TransferError::Length {
                expected,
                found: wide(bytes.len()),
            });
        }
        if expected == 0 {
            return Ok(Received::All);
        }
        for (index, word) in (start..).zip(bytes.as_chunks::<8>().0) {
            bitmap.merge_word(index, u64::from_le_bytes(*word));
        }
        self.bit = ((start + expected / 8) * WORD_BITS).min(bitmap.bits());
        Ok(Received::More)
    }

    pub fn compressed(
        &mut self,
        bitmap: &mut Bitmap,
        encoding: u8,
        code: &[u8],
    ) -> Result<Received, TransferError> {
        if encoding & 0x0f != RLE_VLI_BITS {
            return Err(TransferError::UnknownCode(encoding & 0x0f));
        }
        let end = (code.len() * 8)
            .checked_sub(usize::from(encoding >> 4 & 7))
            .filter(|end| *end > 0)
            .ok_or(TransferError::Damaged)?;
        let mut reader = BitReader {
            bytes: code,
            position: 0,
            end,
        };
        let mut set = encoding & 0x80 != 0;
        while reader.left() > 0 {
            let (length, bits) =
                decode_length(reader.peek(), reader.left()).ok_or(TransferError::Damaged)?;
            reader.position += bits as usize;
            let run_end = self
                .bit
                .checked_add(length)
                .filter(|end| *end <= bitmap.bits())
                .ok_or(TransferError::PastEnd)?;
            if set {
                bitmap.merge_run(self.bit..run_end);
            }
            self.bit = run_end;
            set = !set;
        }
        Ok(if self.bit == bitmap.bits() {
            Received::All
        } else {
            Received::More
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BITS: u64 = 25_590;

    type Runs = &'static [(u64, u64)];

    fn with_runs(set: &[(u64, u64)]) -> Bitmap {
        let mut bitmap = Bitmap::new(BITS * 8);
        for (start, end) in set {
            bitmap.merge_run(*start..*end);
        }
        bitmap
    }

    #[test]
    fn lengths_have_the_codes_of_the_field() {
        let table = [
            (1, 0x0, 2),
            (2, 0x2, 2),
            (3, 0x1, 3),
            (4, 0x5, 3),
            (5, 0x3, 5),
            (8, 0x1b, 5),
            (9, 0x7, 7),
            (16, 0x77, 7),
            (17, 0xf, 10),
            (48, 0x3ef, 10),
            (49, 0x1f, 14),
            (304, 0x3fdf, 14),
            (305, 0x3f, 21),
            (8496, 0x1f_ff3f, 21),
            (8497, 0x7f, 29),
            (25_590, 0x42_c57f, 29),
            (2_105_648, 0x1fff_ff7f, 29),
            (2_105_649, 0xbf, 42),
        ];
        for (length, code, bits) in table {
            assert_eq!(encode_length(length), (code, bits), "{length}");
            assert_eq!(decode_length(code, bits), Some((length, bits)));
            assert_eq!(decode_length(code, bits - 1), None);
        }
    }

    #[test]
    fn whole_packets_have_the_bytes_of_the_field() {
        let table: [(Runs, &[u8]); 4] = [
            (&[(0, BITS)], &[0xb2, 0x7f, 0xc5, 0x42, 0x00]),
            (&[], &[0x32, 0x7f, 0xc5, 0x42, 0x00]),
            (&[(5, 8)], &[0x32, 0x23, 0x7f, 0xbd, 0x42, 0x00]),
            (
                &[(0, 1), (5, 6), (100, 101)],
                &[0xc2, 0x94, 0xaf, 0x85, 0x3f, 0x30, 0x21, 0x00],
            ),
        ];
        for (runs, bytes) in table {
            let mut sender = BitmapSender::new(true);
            let packet = sender.next_packet(&with_runs(runs));
            let expected = BitmapPacket::Compressed {
                encoding: bytes[0],
                code: bytes[1..].to_vec(),
            };
            assert_eq!(packet, Some(expected));
            assert_eq!(sender.next_packet(&with_runs(runs)), None);
        }
    }

    #[test]
    fn a_plain_transfer_ends_with_an_empty_packet() {
        let bitmap = with_runs(&[(3, 70)]);
        let mut sender = BitmapSender::new(false);
        let packets: Vec<usize> = std::iter::from_fn(|| sender.next_packet(&bitmap))
            .map(|packet| match packet {
                BitmapPacket::Plain(bytes) => bytes.len(),
                other @ BitmapPacket::Compressed { .. } => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(packets, [3200, 0]);
    }

    fn transferred(bitmap: &Bitmap, compress: bool) -> Bitmap {
        let mut arrived = Bitmap::new(bitmap.sectors());
        let mut sender = BitmapSender::new(compress);
        let mut receiver = BitmapReceiver::default();
        let mut last = Received::More;
        while let Some(packet) = sender.next_packet(bitmap) {
            assert_eq!(last, Received::More, "a packet after the end");
            last = match packet {
                BitmapPacket::Plain(bytes) => receiver.plain(&mut arrived, &bytes),
                BitmapPacket::Compressed { encoding, code } => {
                    receiver.compressed(&mut arrived, encoding, &code)
                }
            }
            .unwrap();
        }
        assert_eq!(last, Received::All);
        arrived
    }

    proptest::proptest! {
        #[test]
        fn what_is_sent_arrives(
            sectors in 1u64..2_000_000,
            runs in proptest::collection::vec((0u64..250_000, 1u64..5_000), 0..50),
            checkered in proptest::option::of(0u64..100_000),
            compress: bool,
        ) {
            let mut bitmap = Bitmap::new(sectors);
            for (start, length) in runs {
                bitmap.mark_sectors(start * 8..(start + length) * 8);
            }
            for bit in checkered.into_iter().flat_map(|start| (start..start + 40_000).step_by(2)) {
                bitmap.mark_sectors(bit * 8..bit * 8 + 1);
            }
            let arrived = transferred(&bitmap, compress);
            proptest::prop_assert_eq!(arrived.words(), bitmap.words());
        }

        #[test]
        fn arbitrary_bytes_mark_or_are_refused(packets in proptest::collection::vec((proptest::prelude::any::<u8>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)), 0..20)) {
            let mut bitmap = Bitmap::new(BITS * 8 - 3);
            let mut receiver = BitmapReceiver::default();
            for (encoding, code) in packets {
                let _ = receiver.compressed(&mut bitmap, encoding & 0xf0 | 2, &code);
                let _ = receiver.plain(&mut bitmap, &code);
            }
        }
    }
}
