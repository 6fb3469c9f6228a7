//! The activity log: which parts of the device are being written to, kept on disk.
//!
//! Bits of the bitmap are set in memory when a write is not mirrored, and reach the disk
//! late. So that a crash forgets none, every 4 MiB extent is entered in this log before
//! the first write to it begins; after a crash all extents in the log count as changed.
//!
//! The log is a ring of 4 KiB transactions. Each says which slots got which extents, and
//! repeats a part of the slot table, so that the last few transactions tell all of it.
//!
//! Order, at the place where it matters: bitmap of the evicted extents → transaction,
//! flushed → the write. The engine emits it as one save before the write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fields::{Put, Reader, TooShort};
use super::layout::PAGE;

/// What one entry stands for: 4 MiB of data.
pub const EXTENT_SECTORS: u64 = 8192;
/// Bits of the bitmap in an extent.
pub const EXTENT_BITS: u64 = 1024;

const MAGIC: u32 = 0x69cb_65a2;
const UPDATES_MAX: usize = 64;
const CONTEXT_MAX: usize = 919;
const NO_SLOT: u16 = 0xffff;
const NO_EXTENT: u32 = 0xffff_ffff;
const TYPE_UPDATE: u16 = 0;
const TYPE_INITIALIZED: u16 = 0xffff;
const CRC_AT: usize = 8;

/// CRC-32C as the kernel computes it here: from 0, and not inverted at the end.
fn crc(bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(u32::MAX, bytes)
}

/// One update of the slot table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub number: u32,
    /// (slot, extent) that changed; at most 64.
    pub updates: Vec<(u16, u32)>,
    /// Number of slots of the whole table.
    pub slots: u16,
    /// The first slot of `context`, the table's part before the updates.
    pub context_start: u16,
    pub context: Vec<Option<u32>>,
}

/// What a block of the ring holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    Initialized,
    Update(Transaction),
}

/// A block that is not a transaction: torn, or never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("no transaction in this block of the activity log")]
    NoTransaction,
    #[error("the checksum of this block of the activity log is wrong")]
    WrongChecksum,
    #[error("this block of the activity log holds numbers that cannot be")]
    Nonsense,
}

impl From<TooShort> for BlockError {
    fn from(TooShort: TooShort) -> Self {
        Self::NoTransaction
    }
}

/// Returns a block of an empty log.
pub fn initialized_block() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE);
    bytes.put_u32(MAGIC);
    bytes.put_u32(0);
    bytes.put_u32(0);
    bytes.put_u16(TYPE_INITIALIZED);
    sealed(bytes)
}

/// Fills the block up and enters its checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(PAGE, 0);
    let checksum = crc(&bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

impl Transaction {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.put_u32(MAGIC);
        bytes.put_u32(self.number);
        bytes.put_u32(0);
        bytes.put_u16(TYPE_UPDATE);
        bytes.put_u16(count(self.updates.len()));
        bytes.put_u16(self.slots);
        bytes.put_u16(self.context_start);
        bytes.put_zeroes(16);
        for index in 0..UPDATES_MAX {
            bytes.put_u16(self.updates.get(index).map_or(NO_SLOT, |update| update.0));
        }
        for index in 0..UPDATES_MAX {
            bytes.put_u32(self.updates.get(index).map_or(NO_EXTENT, |update| update.1));
        }
        for index in 0..CONTEXT_MAX {
            let extent = self.context.get(index).copied().flatten();
            bytes.put_u32(extent.unwrap_or(NO_EXTENT));
        }
        sealed(bytes)
    }
}

fn count(length: usize) -> u16 {
    u16::try_from(length).expect("a transaction has at most 64 updates")
}

impl Block {
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut fields = Reader::new(bytes);
        if bytes.len() != PAGE || fields.u32()? != MAGIC {
            return Err(BlockError::NoTransaction);
        }
        let number = fields.u32()?;
        let stored = fields.u32()?;
        let mut unsealed = bytes.to_vec();
        unsealed[CRC_AT..CRC_AT + 4].fill(0);
        if crc(&unsealed) != stored {
            return Err(BlockError::WrongChecksum);
        }
        match fields.u16()? {
            TYPE_INITIALIZED => Ok(Self::Initialized),
            TYPE_UPDATE => Self::update(number, fields),
            _ => Err(BlockError::Nonsense),
        }
    }

    fn update(number: u32, mut fields: Reader<'_>) -> Result<Self, BlockError> {
        let updates = usize::from(fields.u16()?);
        let slots = fields.u16()?;
        let context_start = fields.u16()?;
        fields.bytes(16)?;
        if updates > UPDATES_MAX || context_start >= slots.max(1) {
            return Err(BlockError::Nonsense);
        }
        let mut slot_numbers = Vec::with_capacity(UPDATES_MAX);
        for _ in 0..UPDATES_MAX {
            slot_numbers.push(fields.u16()?);
        }
        let mut extents = Vec::with_capacity(UPDATES_MAX);
        for _ in 0..UPDATES_MAX {
            extents.push(fields.u32()?);
        }
        let length = CONTEXT_MAX.min(usize::from(slots - context_start));
        let mut context = Vec::with_capacity(length);
        for _ in 0..length {
            context.push(Some(fields.u32()?).filter(|extent| *extent != NO_EXTENT));
        }
        Ok(Self::Update(Transaction {
            number,
            updates: slot_numbers
                .into_iter()
                .zip(extents)
                .take(updates)
                .collect(),
            slots,
            context_start,
            context,
        }))
    }
}

/// Why a log cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("the activity log holds no valid transaction ({torn} damaged blocks)")]
    NothingValid { torn: usize },
}

/// Returns the extents that were in use when the log was last written.
///
/// `blocks` is the ring in the order of transactions. One torn block is what a crash in the
/// middle of a transaction leaves: that write had not begun.
pub fn replay<'a>(
    blocks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<BTreeSet<u32>, ReplayError> {
    let mut transactions = Vec::new();
    let (mut initialized, mut torn) = (0usize, 0usize);
    for block in blocks {
        match Block::decode(block) {
            Ok(Block::Update(transaction)) => transactions.push(transaction),
            Ok(Block::Initialized) => initialized += 1,
            Err(_) => torn += 1,
        }
    }
    if transactions.is_empty() {
        return if initialized > 0 {
            Ok(BTreeSet::new())
        } else {
            Err(ReplayError::NothingValid { torn })
        };
    }
    let newest = newest(&transactions);
    transactions
        .sort_by_key(|transaction| std::cmp::Reverse(newest.wrapping_sub(transaction.number)));
    let mut table: BTreeMap<u16, Option<u32>> = BTreeMap::new();
    for transaction in transactions {
        table.extend((transaction.context_start..).zip(transaction.context));
        table.extend(
            transaction
                .updates
                .into_iter()
                .map(|(slot, extent)| (slot, Some(extent).filter(|extent| *extent != NO_EXTENT))),
        );
    }
    Ok(table.into_values().flatten().collect())
}

/// Returns the youngest number; numbers wrap, and the ring is short.
fn newest(transactions: &[Transaction]) -> u32 {
    let mut newest = transactions[0].number;
    for transaction in transactions {
        // In the near half of the circle ahead: younger.
        if transaction.number.wrapping_sub(newest) < 1 << 31 {
            newest = transaction.number;
        }
    }
    newest
}

/// The slot table in memory: which extents are entered, which of them are in use.
#[derive(Clone, Debug)]
pub struct ActivityLog {
    slots: Vec<Option<u32>>,
    by_extent: HashMap<u32, Entry>,
    /// Extents by the time of their last use, for finding the longest unused.
    by_age: BTreeMap<u64, u32>,
    free: Vec<u16>,
    clock: u64,
    next_number: u32,
    context_start: u16,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u16,
    users: u32,
    age: u64,
}

/// What has to be saved before a write may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saving {
    pub transaction: Transaction,
    /// Extents whose bitmap must be on disk before the transaction is.
    pub evicted: Vec<u32>,
}

/// Whether a write may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// All its extents are in the log.
    Hot,
    /// They are in the log once this is saved.
    Save(Saving),
    /// All slots are in use by writes that are not finished.
    Full,
}

impl ActivityLog {
    /// An empty log with so many slots (`al-extents`).
    pub fn new(slots: u16) -> Self {
        Self {
            slots: vec![None; usize::from(slots)],
            by_extent: HashMap::new(),
            by_age: BTreeMap::new(),
            free: (0..slots).rev().collect(),
            clock: 0,
            next_number: 0,
            context_start: 0,
        }
    }

    /// Enters the extents of one write and counts it as their user, until [`Self::leave`].
    pub fn enter(&mut self, extents: std::ops::RangeInclusive<u32>) -> Entered {
        let missing: Vec<u32> = extents
            .clone()
            .filter(|extent| !self.by_extent.contains_key(extent))
            .take(UPDATES_MAX + 1)
            .collect();
        if missing.len() > UPDATES_MAX.min(self.available(&extents)) {
            return Entered::Full;
        }
        let saving = (!missing.is_empty()).then(|| self.bring_in(&missing, &extents));
        for extent in extents {
            self.use_once_more(extent);
        }
        saving.map_or(Entered::Hot, Entered::Save)
    }

    /// A write is finished; its extents stay in the log until others need the room.
    pub fn leave(&mut self, extents: std::ops::RangeInclusive<u32>) {
        for extent in extents {
            let entry = self
                .by_extent
                .get_mut(&extent)
                .expect("an extent in use is never evicted");
            entry.users -= 1;
            if entry.users == 0 {
                self.by_age.insert(entry.age, extent);
            }
        }
    }

    /// Extents that are in the log, in use or not.
    pub fn extents(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().copied().flatten()
    }

    fn available(&self, wanted: &std::ops::RangeInclusive<u32>) -> usize {
        let unused_but_wanted = self
            .by_age
            .values()
            .filter(|extent| wanted.contains(extent))
            .count();
        self.free.len() + self.by_age.len() - unused_but_wanted
    }

    fn bring_in(&mut self, missing: &[u32], keep: &std::ops::RangeInclusive<u32>) -> Saving {
        let slots = u16::try_from(self.slots.len()).expect("made from a u16");
        let context_end = usize::from(self.context_start) + CONTEXT_MAX;
        let context =
            self.slots[usize::from(self.context_start)..context_end.min(self.slots.len())].to_vec();
        let context_start = self.context_start;
        self.context_start = u16::try_from(context_end)
            .ok()
            .filter(|start| *start < slots)
            .unwrap_or(0);
        let mut evicted = Vec::new();
        let mut updates = Vec::with_capacity(missing.len());
        for &extent in missing {
            let slot = self
                .free
                .pop()
                .unwrap_or_else(|| self.evict(keep, &mut evicted));
            self.slots[usize::from(slot)] = Some(extent);
            self.by_extent.insert(
                extent,
                Entry {
                    slot,
                    users: 0,
                    age: 0,
                },
            );
            updates.push((slot, extent));
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        Saving {
            transaction: Transaction {
                number,
                updates,
                slots,
                context_start,
                context,
            },
            evicted,
        }
    }

    fn evict(&mut self, keep: &std::ops::RangeInclusive<u32>, evicted: &mut Vec<u32>) -> u16 {
        let (&age, &extent) = self
            .by_age
            .iter()
            .find(|(_, extent)| !keep.contains(extent))
            .expect("room was counted before");
        self.by_age.remove(&age);
        evicted.push(extent);
        self.by_extent
            .remove(&extent)
            .expect("it has an age, so it is entered")
            .slot
    }

    fn use_once_more(&mut self, extent: u32) {
        self.clock += 1;
        let entry = self
            .by_extent
            .get_mut(&extent)
            .expect("it was brought in just now");
        if entry.users == 0 {
            self.by_age.remove(&entry.age);
        }
        entry.users += 1;
        entry.age = self.clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(entered: Entered) -> Saving {
        match entered {
            Entered::Save(saving) => saving,
            other => panic!("expected a transaction, found {other:?}"),
        }
    }

    #[test]
    fn an_empty_block_has_the_bytes_of_drbdmeta() {
        let block = initialized_block();
        let expected = [
            0x69, 0xcb, 0x65, 0xa2, 0, 0, 0, 0, 0x70, 0x9c, 0xc6, 0x51, 0xff, 0xff, 0, 0,
        ];
        assert_eq!(block[..16], expected);
        assert_eq!(Block::decode(&block), Ok(Block::Initialized));
    }

    #[test]
    fn a_torn_block_is_noticed() {
        let mut log = ActivityLog::new(67);
        let mut bytes = saved(log.enter(3..=4)).transaction.encode();
        assert!(matches!(Block::decode(&bytes), Ok(Block::Update(_))));
        bytes[2048..].fill(0xaa);
        assert_eq!(Block::decode(&bytes), Err(BlockError::WrongChecksum));
    }

    #[test]
    fn an_extent_is_saved_once() {
        let mut log = ActivityLog::new(67);
        let saving = saved(log.enter(7..=7));
        assert_eq!(saving.transaction.updates, [(0, 7)]);
        assert_eq!(log.enter(7..=7), Entered::Hot);
    }

    #[test]
    fn the_longest_unused_makes_room_and_the_used_stay() {
        let mut log = ActivityLog::new(2);
        saved(log.enter(1..=1));
        saved(log.enter(2..=2));
        assert_eq!(log.enter(3..=3), Entered::Full);
        log.leave(1..=1);
        log.leave(2..=2);
        assert_eq!(log.enter(1..=1), Entered::Hot);
        log.leave(1..=1);
        assert_eq!(saved(log.enter(3..=3)).evicted, [2]);
    }

    #[test]
    fn numbers_that_wrapped_are_still_in_order() {
        let block = |number: u32, extent| {
            Transaction {
                number,
                updates: vec![(0, extent)],
                slots: 67,
                context_start: 0,
                context: vec![None; 67],
            }
            .encode()
        };
        let ring = [block(1, 30), block(u32::MAX, 10), block(0, 20)];
        let found = replay(ring.iter().map(Vec::as_slice));
        assert_eq!(found, Ok(BTreeSet::from([30])));
    }

    proptest::proptest! {
        /// However often the ring went round: what is in the log is what replay finds.
        #[test]
        fn replay_finds_what_was_entered(touched in proptest::collection::vec((0u32..300, 0u32..3), 1..400), slots in 67u16..2000) {
            let mut log = ActivityLog::new(slots);
            let mut ring = vec![initialized_block(); 8];
            for (first, more) in touched {
                let extents = first..=first + more;
                if let Entered::Save(saving) = log.enter(extents.clone()) {
                    let at = usize::try_from(saving.transaction.number).unwrap() % 8;
                    ring[at] = saving.transaction.encode();
                }
                log.leave(extents);
            }
            let found = replay(ring.iter().map(Vec::as_slice)).unwrap();
            let entered: BTreeSet<u32> = log.extents().collect();
            proptest::prop_assert!(entered.is_subset(&found), "{:?}", entered.difference(&found));
        }

        #[test]
        fn arbitrary_blocks_are_read_or_refused(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), PAGE..=PAGE), seal: bool) {
            if seal {
                bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
                bytes[CRC_AT..CRC_AT + 4].fill(0);
                bytes = sealed(bytes);
            }
            let _ = Block::decode(&bytes);
            let _ = replay([bytes.as_slice()]);
        }
    }
}
