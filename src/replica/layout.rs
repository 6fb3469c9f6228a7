//! The metadata on disk, format v08, byte by byte: where it lies and what the superblock says.
//!
//! ```text
//! internal:  | usable data … | bitmap | activity log | superblock 4096 | 0..7 sectors |
//! external:  | superblock 4096 | activity log | bitmap … |            (a device of its own)
//! indexed:   external in the n-th slot of 128 MiB
//! ```
//!
//! What is written here is what drbdmeta and the kernel module read, and the other way
//! round: both demand that every offset is exactly the one calculated from the device.

use super::fields::{Put, Reader, SECTOR, SECTORS_PER_BLOCK, TooShort, narrow, wide};
use super::generation::{Generation, Generations};

/// Everything is placed on, and written in, blocks of this many bytes.
pub const PAGE: usize = 4096;
const PAGE_SECTORS: u64 = 8;
/// One bitmap page covers 128 MiB of data: 32,768 bits of 4 KiB.
const SECTORS_PER_BITMAP_PAGE: u64 = 32_768 * SECTORS_PER_BLOCK;
/// An indexed slot: 128 MiB.
const SLOT_SECTORS: u64 = 262_144;
/// The smallest device DRBD accepts: 1 MiB.
pub const DEVICE_SECTORS_MIN: u64 = 2048;
/// The largest device of 8.4: 1 PiB.
pub const DEVICE_SECTORS_MAX: u64 = 1 << 41;

const MAGIC_07: u32 = 0x8374_026a;
const MAGIC_CLEAN: u32 = 0x8374_026b;
const MAGIC_UNCLEAN: u32 = 0x8374_026c;

/// The ring of the activity log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    pub stripes: u32,
    pub stripe_blocks: u32,
}

impl Default for Ring {
    /// What create-md writes: 32 KiB in one stripe.
    fn default() -> Self {
        Self {
            stripes: 1,
            stripe_blocks: 8,
        }
    }
}

impl Ring {
    /// Between 8 blocks and 16 GiB, as the field demands.
    const BLOCKS: std::ops::RangeInclusive<u64> = 8..=4_194_304;

    pub fn blocks(self) -> u64 {
        u64::from(self.stripes) * u64::from(self.stripe_blocks)
    }

    fn sectors(self) -> u64 {
        self.blocks() * PAGE_SECTORS
    }

    /// Returns where in the ring a transaction lies: neighbours in time are on different stripes.
    pub fn block_of(self, transaction: u32) -> u64 {
        let turn = u64::from(transaction) % self.blocks();
        let stripes = u64::from(self.stripes);
        turn % stripes * u64::from(self.stripe_blocks) + turn / stripes
    }
}

/// Where the metadata of a device is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the end of the device itself.
    Internal,
    /// On another device, which it has for itself.
    External { metadata_sectors: u64 },
    /// In a slot of another device.
    Indexed { index: u32, metadata_sectors: u64 },
}

/// All positions of one device's metadata, in sectors of the device that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub superblock_sector: u64,
    /// Relative to the superblock, as it is written in it.
    pub activity_offset: i32,
    pub bitmap_offset: i32,
    pub metadata_sectors: u32,
    /// The most that can be offered to the peer.
    pub usable_sectors: u64,
    pub ring: Ring,
}

/// Why there is no usable metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("the device is too small: {found_sectors} sectors, and {needed_sectors} are the least")]
    TooSmall {
        found_sectors: u64,
        needed_sectors: u64,
    },
    #[error(
        "the device is too large: {found_sectors} sectors, and {DEVICE_SECTORS_MAX} are the most"
    )]
    TooLarge { found_sectors: u64 },
    #[error("an activity log of {blocks} blocks of 4 KiB; it must have 8 to 4194304")]
    Ring { blocks: u64 },
    #[error("no valid metadata: found {found:#010x} where 0x8374026b should be")]
    NoMetadata { found: u32 },
    #[error("the metadata is of version 07; convert it with drbdmeta first")]
    OldVersion,
    #[error("the metadata says {field} {found}, and for this device it must be {expected}")]
    Misplaced {
        field: &'static str,
        expected: i64,
        found: i64,
    },
    #[error("the metadata says {field} {found}, which cannot be")]
    Nonsense { field: &'static str, found: u64 },
    #[error("the metadata was in use when it was last written; apply its activity log first")]
    Unclean,
}

impl Layout {
    pub fn of(placement: Placement, device_sectors: u64, ring: Ring) -> Result<Self, LayoutError> {
        if !Ring::BLOCKS.contains(&ring.blocks()) {
            return Err(LayoutError::Ring {
                blocks: ring.blocks(),
            });
        }
        if device_sectors < DEVICE_SECTORS_MIN {
            return Err(LayoutError::TooSmall {
                found_sectors: device_sectors,
                needed_sectors: DEVICE_SECTORS_MIN,
            });
        }
        if device_sectors > DEVICE_SECTORS_MAX {
            return Err(LayoutError::TooLarge {
                found_sectors: device_sectors,
            });
        }
        match placement {
            Placement::Internal => Self::internal(device_sectors, ring),
            Placement::External { metadata_sectors } => {
                Self::external(0, metadata_sectors, device_sectors, ring)
            }
            Placement::Indexed {
                index,
                metadata_sectors,
            } => Self::indexed(index, metadata_sectors, device_sectors, ring),
        }
    }

    fn internal(device_sectors: u64, ring: Ring) -> Result<Self, LayoutError> {
        let superblock_sector = device_sectors / PAGE_SECTORS * PAGE_SECTORS - PAGE_SECTORS;
        // From the whole device, although the bitmap covers only what is left of it.
        let bitmap = device_sectors.div_ceil(SECTORS_PER_BITMAP_PAGE) * PAGE_SECTORS;
        let needed = bitmap + ring.sectors();
        let usable_sectors =
            superblock_sector
                .checked_sub(needed)
                .ok_or(LayoutError::TooSmall {
                    found_sectors: device_sectors,
                    needed_sectors: needed + 2 * PAGE_SECTORS,
                })?;
        Ok(Self {
            superblock_sector,
            activity_offset: -offset(ring.sectors()),
            bitmap_offset: -offset(needed),
            metadata_sectors: field(needed + PAGE_SECTORS),
            usable_sectors,
            ring,
        })
    }

    fn external(
        superblock_sector: u64,
        metadata_sectors: u64,
        device_sectors: u64,
        ring: Ring,
    ) -> Result<Self, LayoutError> {
        let before_bitmap = PAGE_SECTORS + ring.sectors();
        let pages = metadata_sectors.saturating_sub(before_bitmap) / PAGE_SECTORS;
        if pages == 0 {
            return Err(LayoutError::TooSmall {
                found_sectors: metadata_sectors,
                needed_sectors: before_bitmap + PAGE_SECTORS,
            });
        }
        Ok(Self {
            superblock_sector,
            activity_offset: offset(PAGE_SECTORS),
            bitmap_offset: offset(before_bitmap),
            metadata_sectors: field(metadata_sectors),
            usable_sectors: device_sectors.min(pages * SECTORS_PER_BITMAP_PAGE),
            ring,
        })
    }

    fn indexed(
        index: u32,
        metadata_sectors: u64,
        device_sectors: u64,
        ring: Ring,
    ) -> Result<Self, LayoutError> {
        let start = u64::from(index) * SLOT_SECTORS;
        if metadata_sectors < start + SLOT_SECTORS {
            return Err(LayoutError::TooSmall {
                found_sectors: metadata_sectors,
                needed_sectors: start + SLOT_SECTORS,
            });
        }
        Self::external(start, SLOT_SECTORS, device_sectors, ring)
    }

    pub fn superblock_byte(&self) -> u64 {
        self.superblock_sector * SECTOR
    }

    pub fn activity_byte(&self) -> u64 {
        self.at(self.activity_offset)
    }

    pub fn bitmap_byte(&self) -> u64 {
        self.at(self.bitmap_offset)
    }

    fn at(&self, offset: i32) -> u64 {
        self.superblock_sector
            .checked_add_signed(i64::from(offset))
            .expect("the offsets were calculated inside the device")
            * SECTOR
    }
}

/// Sectors as a relative offset; the largest bitmap has 2^26 sectors.
fn offset(sectors: u64) -> i32 {
    i32::try_from(sectors).expect("metadata is at most 32 GiB")
}

fn field(sectors: u64) -> u32 {
    u32::try_from(sectors.min(u64::from(u32::MAX))).expect("it was clamped")
}

/// What the superblock remembers of the last state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// The disk was better than Inconsistent.
    pub const CONSISTENT: Self = Self(0x001);
    /// This node, or a diskless peer writing through it, was Primary.
    pub const PRIMARY: Self = Self(0x002);
    pub const CONNECTED: Self = Self(0x004);
    /// All bits are being set; if it stays, they all count as set.
    pub const FULL_SYNC: Self = Self(0x008);
    /// The disk was better than Outdated.
    pub const WAS_UP_TO_DATE: Self = Self(0x010);
    pub const PEER_OUTDATED: Self = Self(0x020);
    pub const CRASHED_PRIMARY: Self = Self(0x040);
    /// The activity log holds nothing that is not in the bitmap.
    pub const ACTIVITY_CLEAN: Self = Self(0x080);
    pub const ACTIVITY_DISABLED: Self = Self(0x100);

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

/// The superblock.
///
/// | off | field | | off | field |
/// |---|---|---|---|---|
/// | 0 | last agreed size u64 | | 64 | md_size_sect u32 |
/// | 8 | current, bitmap, history 1, 2: u64 each | | 68 | al_offset i32 |
/// | 40 | device uuid u64 | | 72 | al_nr_extents u32 |
/// | 48 | reserved u64 | | 76 | bm_offset i32 |
/// | 56 | flags u32 | | 80 | bm_bytes_per_bit u32 |
/// | 60 | magic u32 | | 84 | peer's max_bio_size, al_stripes, al_stripe_size_4k: u32 each |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub agreed_sectors: u64,
    pub generations: Generations,
    pub device_uuid: u64,
    pub flags: Flags,
    pub activity_extents: u32,
    pub peer_bio_bytes_max: u32,
}

impl Superblock {
    /// What create-md writes.
    pub fn created(device_uuid: u64) -> Self {
        Self {
            agreed_sectors: 0,
            generations: Generations::JUST_CREATED,
            device_uuid,
            flags: Flags::ACTIVITY_CLEAN,
            activity_extents: 257,
            peer_bio_bytes_max: 0,
        }
    }

    /// Whether the log must be applied before the bitmap can be believed.
    pub fn clean(&self) -> bool {
        self.flags.has(Flags::ACTIVITY_CLEAN)
    }

    pub fn encode(&self, layout: &Layout) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.put_u64(self.agreed_sectors);
        for generation in [
            self.generations.current,
            self.generations.bitmap,
            self.generations.history[0],
            self.generations.history[1],
        ] {
            bytes.put_u64(generation.0);
        }
        bytes.put_u64(self.device_uuid);
        bytes.put_u64(0);
        bytes.put_u32(self.flags.0);
        bytes.put_u32(if self.clean() {
            MAGIC_CLEAN
        } else {
            MAGIC_UNCLEAN
        });
        bytes.put_u32(layout.metadata_sectors);
        bytes.put_i32(layout.activity_offset);
        bytes.put_u32(self.activity_extents);
        bytes.put_i32(layout.bitmap_offset);
        bytes.put_u32(4096);
        bytes.put_u32(self.peer_bio_bytes_max);
        bytes.put_u32(layout.ring.stripes);
        bytes.put_u32(layout.ring.stripe_blocks);
        bytes.resize(PAGE, 0);
        bytes
    }

    /// Reads the ring's shape, which decides where everything else must lie.
    pub fn ring(bytes: &[u8]) -> Result<Ring, LayoutError> {
        let mut fields = Reader::new(bytes.get(88..).unwrap_or(&[]));
        let (stripes, stripe_blocks) = (|| Ok((fields.u32()?, fields.u32()?)))()
            .map_err(|TooShort| LayoutError::NoMetadata { found: 0 })?;
        if stripes == 0 && stripe_blocks == 0 {
            return Ok(Ring::default());
        }
        let ring = Ring {
            stripes,
            stripe_blocks,
        };
        if Ring::BLOCKS.contains(&ring.blocks()) {
            Ok(ring)
        } else {
            Err(LayoutError::Ring {
                blocks: ring.blocks(),
            })
        }
    }

    /// Reads a superblock, and checks that it lies and points where it must.
    pub fn decode(bytes: &[u8], layout: &Layout) -> Result<Self, LayoutError> {
        let raw = Raw::read(bytes).map_err(|TooShort| LayoutError::NoMetadata { found: 0 })?;
        match raw.magic {
            MAGIC_CLEAN | MAGIC_UNCLEAN => {}
            MAGIC_07 => return Err(LayoutError::OldVersion),
            found => return Err(LayoutError::NoMetadata { found }),
        }
        raw.check(layout)?;
        let mut superblock = raw.superblock;
        let clean = raw.magic == MAGIC_CLEAN && superblock.clean();
        superblock.flags = superblock.flags.with(Flags::ACTIVITY_CLEAN, clean);
        Ok(superblock)
    }
}

/// The fields as they stand, before any of them is believed.
struct Raw {
    superblock: Superblock,
    magic: u32,
    metadata_sectors: u32,
    activity_offset: i32,
    bitmap_offset: i32,
    bytes_per_bit: u32,
}

impl Raw {
    fn read(bytes: &[u8]) -> Result<Self, TooShort> {
        let mut fields = Reader::new(bytes);
        let agreed_sectors = fields.u64()?;
        let generations = Generations {
            current: Generation(fields.u64()?),
            bitmap: Generation(fields.u64()?),
            history: [Generation(fields.u64()?), Generation(fields.u64()?)],
        };
        let device_uuid = fields.u64()?;
        let _reserved = fields.u64()?;
        let flags = Flags(fields.u32()?);
        let magic = fields.u32()?;
        let metadata_sectors = fields.u32()?;
        let activity_offset = fields.i32()?;
        let activity_extents = fields.u32()?;
        let bitmap_offset = fields.i32()?;
        let bytes_per_bit = fields.u32()?;
        let peer_bio_bytes_max = fields.u32()?;
        Ok(Self {
            superblock: Superblock {
                agreed_sectors,
                generations,
                device_uuid,
                flags,
                activity_extents,
                peer_bio_bytes_max,
            },
            magic,
            metadata_sectors,
            activity_offset,
            bitmap_offset,
            bytes_per_bit,
        })
    }

    fn check(&self, layout: &Layout) -> Result<(), LayoutError> {
        let fields = [
            (
                "md_size_sect",
                layout.metadata_sectors.into(),
                self.metadata_sectors.into(),
            ),
            (
                "al_offset",
                layout.activity_offset.into(),
                self.activity_offset.into(),
            ),
            (
                "bm_offset",
                layout.bitmap_offset.into(),
                self.bitmap_offset.into(),
            ),
            ("bm-byte-per-bit", 4096, i64::from(self.bytes_per_bit)),
        ];
        for (field, expected, found) in fields {
            if expected != found {
                return Err(LayoutError::Misplaced {
                    field,
                    expected,
                    found,
                });
            }
        }
        if self.superblock.agreed_sectors > DEVICE_SECTORS_MAX {
            return Err(LayoutError::Nonsense {
                field: "la-size-sect",
                found: self.superblock.agreed_sectors,
            });
        }
        Ok(())
    }
}

/// Where the superblock of a device may be found, before anything of it is known.
pub fn superblock_byte(placement: Placement, device_sectors: u64) -> u64 {
    let sector = match placement {
        Placement::Internal => {
            (device_sectors / PAGE_SECTORS * PAGE_SECTORS).saturating_sub(PAGE_SECTORS)
        }
        Placement::External { .. } => 0,
        Placement::Indexed { index, .. } => u64::from(index) * SLOT_SECTORS,
    };
    sector * SECTOR
}

/// Returns everything create-md writes: (byte, content), the superblock last, so that a
/// device whose creation was cut short has no metadata rather than half of it.
pub fn created(layout: &Layout, superblock: &Superblock) -> Vec<(u64, Vec<u8>)> {
    let bits = layout.usable_sectors.div_ceil(SECTORS_PER_BLOCK);
    let bitmap_pages = bits.div_ceil(wide(PAGE) * 8);
    let mut writes = vec![(layout.bitmap_byte(), vec![0; narrow(bitmap_pages) * PAGE])];
    let empty = super::activity::initialized_block();
    writes.push((
        layout.activity_byte(),
        empty.repeat(narrow(layout.ring.blocks())),
    ));
    writes.push((layout.superblock_byte(), superblock.encode(layout)));
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_metadata_lies_where_drbdmeta_puts_it() {
        // cap, superblock, md_size, al_offset, bm_offset, usable
        let table = [
            (2048, 2040, 80, -64, -72, 1968),
            (204_800, 204_792, 80, -64, -72, 204_720),
            (264_192, 264_184, 88, -64, -80, 264_104),
            (2_097_157, 2_097_144, 144, -64, -136, 2_097_008),
            (6_291_456, 6_291_448, 264, -64, -256, 6_291_192),
        ];
        for (sectors, superblock, size, activity, bitmap, usable) in table {
            let layout = Layout::of(Placement::Internal, sectors, Ring::default()).unwrap();
            let expected = Layout {
                superblock_sector: superblock,
                activity_offset: activity,
                bitmap_offset: bitmap,
                metadata_sectors: size,
                usable_sectors: usable,
                ring: Ring::default(),
            };
            assert_eq!(layout, expected);
        }
    }

    #[test]
    fn external_metadata_lies_in_front() {
        let placement = Placement::External {
            metadata_sectors: 80,
        };
        let layout = Layout::of(placement, 1 << 30, Ring::default()).unwrap();
        assert_eq!((layout.activity_offset, layout.bitmap_offset), (8, 72));
        assert_eq!(layout.usable_sectors, SECTORS_PER_BITMAP_PAGE);
        let placement = Placement::Indexed {
            index: 1,
            metadata_sectors: 2 * SLOT_SECTORS,
        };
        let layout = Layout::of(placement, 1 << 30, Ring::default()).unwrap();
        assert_eq!(layout.superblock_sector, SLOT_SECTORS);
        assert_eq!(layout.bitmap_byte(), (SLOT_SECTORS + 72) * SECTOR);
    }

    #[test]
    fn a_created_superblock_has_the_bytes_of_drbdmeta() {
        let layout = Layout::of(Placement::Internal, 204_800, Ring::default()).unwrap();
        let bytes = Superblock::created(0).encode(&layout);
        let from_48: [u8; 48] = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x83, 0x74, 0x02, 0x6b, //
            0, 0, 0, 0x50, 0xff, 0xff, 0xff, 0xc0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xb8, //
            0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8,
        ];
        assert_eq!(bytes[48..96], from_48);
        assert_eq!(bytes[8..16], [0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(
            Superblock::decode(&bytes, &layout),
            Ok(Superblock::created(0))
        );
    }

    #[test]
    fn what_cannot_be_metadata_is_refused_with_the_reason() {
        let layout = Layout::of(Placement::Internal, 204_800, Ring::default()).unwrap();
        let good = Superblock::created(7).encode(&layout);
        let with = |at: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            Superblock::decode(&bytes, &layout)
        };
        assert_eq!(with(60, 0), Err(LayoutError::NoMetadata { found: 0 }));
        assert_eq!(with(60, MAGIC_07), Err(LayoutError::OldVersion));
        let misplaced = |field, expected, found| {
            Err(LayoutError::Misplaced {
                field,
                expected,
                found,
            })
        };
        assert_eq!(with(64, 88), misplaced("md_size_sect", 80, 88));
        assert_eq!(with(76, 8), misplaced("bm_offset", -72, 8));
        assert_eq!(with(80, 512), misplaced("bm-byte-per-bit", 4096, 512));
        assert!(matches!(
            with(0, u32::MAX),
            Err(LayoutError::Nonsense { .. })
        ));
        let unclean = with(60, MAGIC_UNCLEAN).unwrap();
        assert!(!unclean.clean());
        let tiny = Layout::of(Placement::Internal, 2047, Ring::default());
        assert!(matches!(
            tiny,
            Err(LayoutError::TooSmall {
                needed_sectors: 2048,
                ..
            })
        ));
    }

    #[test]
    fn transactions_alternate_between_stripes() {
        let ring = Ring {
            stripes: 2,
            stripe_blocks: 8,
        };
        let blocks: Vec<u64> = (0..5)
            .map(|transaction| ring.block_of(transaction))
            .collect();
        assert_eq!(blocks, [0, 8, 1, 9, 2]);
        assert_eq!(ring.block_of(16), 0);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let layout = Layout::of(Placement::Internal, 204_800, Ring::default()).unwrap();
            let _ = Superblock::ring(&bytes);
            let _ = Superblock::decode(&bytes, &layout);
        }

        #[test]
        fn metadata_never_overlaps_the_data(sectors in DEVICE_SECTORS_MIN..1 << 34) {
            let layout = Layout::of(Placement::Internal, sectors, Ring::default()).unwrap();
            let bits = layout.usable_sectors.div_ceil(SECTORS_PER_BLOCK);
            proptest::prop_assert_eq!(layout.bitmap_byte(), layout.usable_sectors * SECTOR);
            proptest::prop_assert!(layout.bitmap_byte() + bits.div_ceil(8) <= layout.activity_byte());
            proptest::prop_assert!(layout.superblock_byte() + 4096 <= sectors * SECTOR);
        }
    }
}
