//! Which blocks may differ from the peer's: one bit for 4 KiB, set = out of sync.
//!
//! Marking rounds outwards, clearing inwards: a block counts as the same only when all of
//! it is known to be. Words are little endian on disk and on the wire. Pages that changed
//! since they were last written are remembered, so that saving costs what changed.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::fields::{SECTORS_PER_BLOCK, narrow, wide};
use super::layout::PAGE;

const WORD_BITS: u64 = 64;
const PAGE_WORDS: usize = PAGE / 8;

/// Bits of one 4 KiB page on disk.
pub const PAGE_BITS: u64 = 32_768;

/// The bitmap of one device, in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    sectors: u64,
    words: Vec<u64>,
    set: u64,
    /// Pages that differ from what is on disk.
    unsaved: BTreeSet<u64>,
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Bitmap({} of {} set)", self.set, self.bits())
    }
}

impl Bitmap {
    /// A bitmap with no bit set for a device of so many sectors.
    pub fn new(sectors: u64) -> Self {
        let bits = sectors.div_ceil(SECTORS_PER_BLOCK);
        Self {
            sectors,
            words: vec![0; narrow(bits.div_ceil(WORD_BITS))],
            set: 0,
            unsaved: BTreeSet::new(),
        }
    }

    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    pub fn bits(&self) -> u64 {
        self.sectors.div_ceil(SECTORS_PER_BLOCK)
    }

    pub fn bits_set(&self) -> u64 {
        self.set
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Changes the device's size; what is new counts as the same, unless marked after.
    pub fn resize(&mut self, sectors: u64) {
        self.sectors = sectors;
        let bits = self.bits();
        self.words.resize(narrow(bits.div_ceil(WORD_BITS)), 0);
        if let Some(last) = self.words.last_mut() {
            *last &= tail_mask(bits);
        }
        self.set = self
            .words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum();
        let pages = self.pages();
        self.unsaved.retain(|page| *page < pages);
    }

    pub fn is_set(&self, bit: u64) -> bool {
        self.words[narrow(bit / WORD_BITS)] >> (bit % WORD_BITS) & 1 == 1
    }

    /// Marks every block the sectors touch; returns how many were not marked before.
    pub fn mark_sectors(&mut self, sectors: Range<u64>) -> u64 {
        let end = sectors.end.min(self.sectors);
        if sectors.start >= end {
            return 0;
        }
        let bits = sectors.start / SECTORS_PER_BLOCK..end.div_ceil(SECTORS_PER_BLOCK);
        self.change(bits, true)
    }

    /// Clears every block that lies wholly in the sectors; returns how many were marked.
    pub fn clear_sectors(&mut self, sectors: Range<u64>) -> u64 {
        let end = if sectors.end >= self.sectors {
            // The last block may be short, and is whole when the range reaches the end.
            self.bits()
        } else {
            sectors.end / SECTORS_PER_BLOCK
        };
        let start = sectors.start.div_ceil(SECTORS_PER_BLOCK);
        if start >= end {
            return 0;
        }
        self.change(start..end, false)
    }

    pub fn mark_all(&mut self) {
        self.change(0..self.bits(), true);
    }

    pub fn clear_all(&mut self) {
        self.change(0..self.bits(), false);
    }

    fn change(&mut self, bits: Range<u64>, set: bool) -> u64 {
        let mut changed = 0;
        let mut noted = None;
        let mut bit = bits.start;
        while bit < bits.end {
            let index = bit / WORD_BITS;
            let until = ((index + 1) * WORD_BITS).min(bits.end);
            let mask = mask(bit % WORD_BITS, until - index * WORD_BITS);
            let word = &mut self.words[narrow(index)];
            let before = *word;
            *word = if set { before | mask } else { before & !mask };
            let difference = u64::from((before ^ *word).count_ones());
            if difference > 0 {
                changed += difference;
                let page = bit / PAGE_BITS;
                if noted != Some(page) {
                    self.unsaved.insert(page);
                    noted = Some(page);
                }
            }
            bit = until;
        }
        if set {
            self.set += changed;
        } else {
            self.set -= changed;
        }
        changed
    }

    /// Marks what another bitmap marks, one word of it.
    pub fn merge_word(&mut self, index: u64, word: u64) {
        let start = index * WORD_BITS;
        let bits = self.bits();
        if start >= bits {
            return;
        }
        let word = word & mask(0, (bits - start).min(WORD_BITS));
        let own = &mut self.words[narrow(index)];
        let added = u64::from((word & !*own).count_ones());
        if added > 0 {
            *own |= word;
            self.set += added;
            self.unsaved.insert(start / PAGE_BITS);
        }
    }

    pub fn merge_run(&mut self, bits: Range<u64>) {
        self.change(bits.start..bits.end.min(self.bits()), true);
    }

    pub fn any_set(&self, sectors: Range<u64>) -> bool {
        let bits = sectors.start / SECTORS_PER_BLOCK
            ..sectors.end.div_ceil(SECTORS_PER_BLOCK).min(self.bits());
        // No further than asked: a large device's bitmap has millions of words after it.
        let words = narrow(bits.start / WORD_BITS)..narrow(bits.end.div_ceil(WORD_BITS));
        let Some(words) = self.words.get(words) else {
            return false;
        };
        (bits.start / WORD_BITS..).zip(words).any(|(index, word)| {
            let from = bits.start.saturating_sub(index * WORD_BITS);
            word & mask(from, (bits.end - index * WORD_BITS).min(WORD_BITS)) != 0
        })
    }

    /// Returns the first bit set at or after `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        self.next(from, |word| word)
    }

    /// Returns the first bit not set at or after `from`, or the number of bits.
    pub fn next_clear(&self, from: u64) -> u64 {
        self.next(from, |word| !word).unwrap_or_else(|| self.bits())
    }

    fn next(&self, from: u64, view: impl Fn(u64) -> u64) -> Option<u64> {
        if from >= self.bits() {
            return None;
        }
        let first = from / WORD_BITS;
        let mut keep = mask(from % WORD_BITS, WORD_BITS);
        for (index, word) in (first..).zip(&self.words[narrow(first)..]) {
            let seen = view(*word) & keep;
            if seen != 0 {
                let bit = index * WORD_BITS + u64::from(seen.trailing_zeros());
                return (bit < self.bits()).then_some(bit);
            }
            keep = u64::MAX;
        }
        None
    }

    fn pages(&self) -> u64 {
        self.bits().div_ceil(PAGE_BITS)
    }

    /// Returns pages that must be written, with their numbers, and counts them as written.
    pub fn take_unsaved(&mut self) -> Vec<(u64, Bytes)> {
        let pages = std::mem::take(&mut self.unsaved);
        self.pages_of(pages)
    }

    /// The same for those pages only that hold these bits.
    pub fn take_unsaved_of(&mut self, bits: Range<u64>) -> Vec<(u64, Bytes)> {
        let pages = bits.start / PAGE_BITS..bits.end.div_ceil(PAGE_BITS);
        let found: Vec<u64> = self.unsaved.range(pages).copied().collect();
        for page in &found {
            self.unsaved.remove(page);
        }
        self.pages_of(found)
    }

    /// Those that are all zeroes or all ones share their bytes: after everything was marked or
    /// cleared, that is nearly all there are.
    fn pages_of(&self, pages: impl IntoIterator<Item = u64>) -> Vec<(u64, Bytes)> {
        let mut uniform: [Option<Bytes>; 2] = [None, None];
        let pages = pages.into_iter().map(|page| {
            let shared = match self.page_words(page) {
                words if words.len() < PAGE_WORDS => None,
                words if words.iter().all(|word| *word == 0) => Some(&mut uniform[0]),
                words if words.iter().all(|word| *word == u64::MAX) => Some(&mut uniform[1]),
                _ => None,
            };
            let bytes = || Bytes::from(self.page(page));
            (
                page,
                shared.map_or_else(bytes, |kept| kept.get_or_insert_with(bytes).clone()),
            )
        });
        pages.collect()
    }

    pub fn all_saved(&self) -> bool {
        self.unsaved.is_empty()
    }

    fn page_words(&self, page: u64) -> &[u64] {
        let start = narrow(page) * PAGE_WORDS;
        let end = (start + PAGE_WORDS).min(self.words.len());
        &self.words[start..end]
    }

    fn page(&self, page: u64) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .page_words(page)
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        bytes.resize(PAGE, 0);
        bytes
    }

    /// Takes the bitmap from the disk; bits past the end of the device are ignored.
    pub fn load(sectors: u64, bytes: &[u8]) -> Self {
        let mut bitmap = Self::new(sectors);
        bitmap.load_page(0, bytes);
        bitmap
    }

    /// Takes a part of it from the disk, from this page on.
    pub fn load_page(&mut self, page: u64, bytes: &[u8]) {
        let first = page * wide(PAGE_WORDS);
        for (index, word) in (first..).zip(bytes.as_chunks::<8>().0) {
            self.merge_word(index, u64::from_le_bytes(*word));
        }
        self.unsaved.clear();
    }

    /// Bytes the bitmap of a device takes on disk, in whole pages.
    pub fn bytes_on_disk(sectors: u64) -> u64 {
        sectors.div_ceil(SECTORS_PER_BLOCK).div_ceil(PAGE_BITS) * wide(PAGE)
    }
}

/// Ones from bit `start` up to, not including, bit `end` (at most 64).
fn mask(start: u64, end: u64) -> u64 {
    let below = |count: u64| {
        if count >= WORD_BITS {
            u64::MAX
        } else {
            (1 << count) - 1
        }
    };
    below(end) & !below(start)
}

/// The bits of the last word that exist.
fn tail_mask(bits: u64) -> u64 {
    match bits % WORD_BITS {
        0 => u64::MAX,
        rest => mask(0, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marking_rounds_outwards_and_clearing_inwards() {
        let mut bitmap = Bitmap::new(80);
        assert_eq!(bitmap.mark_sectors(7..9), 2);
        assert_eq!(bitmap.clear_sectors(7..16), 1);
        assert!(bitmap.is_set(0) && !bitmap.is_set(1));
    }

    #[test]
    fn the_short_last_block_is_whole_at_the_end() {
        let mut bitmap = Bitmap::new(20);
        assert_eq!(bitmap.bits(), 3);
        bitmap.mark_all();
        assert_eq!(bitmap.clear_sectors(16..19), 0);
        assert_eq!(bitmap.clear_sectors(16..20), 1);
    }

    #[test]
    fn only_pages_that_changed_are_saved() {
        let mut bitmap = Bitmap::new(3 * PAGE_BITS * SECTORS_PER_BLOCK);
        bitmap.mark_sectors(PAGE_BITS * 8..PAGE_BITS * 8 + 1);
        let saved = bitmap.take_unsaved();
        assert_eq!(saved.len(), 1);
        assert_eq!((saved[0].0, saved[0].1[0]), (1, 1));
        assert!(bitmap.all_saved());
        bitmap.mark_sectors(PAGE_BITS * 8..PAGE_BITS * 8 + 1);
        assert!(bitmap.all_saved());
    }

    #[test]
    fn pages_all_alike_share_their_bytes() {
        let mut bitmap = Bitmap::new(3 * PAGE_BITS * SECTORS_PER_BLOCK);
        bitmap.mark_all();
        bitmap.clear_sectors(0..8);
        let saved = bitmap.take_unsaved();
        assert_eq!(saved[1].1.as_ptr(), saved[2].1.as_ptr());
        assert_eq!((saved[0].1[0], saved[1].1[0]), (0xfe, 0xff));
    }

    proptest::proptest! {
        #[test]
        fn the_bitmap_does_what_a_set_of_blocks_does(changes in proptest::collection::vec((proptest::prelude::any::<bool>(), 0u64..1100, 0u64..300), 0..40)) {
            let sectors = 1003;
            let mut bitmap = Bitmap::new(sectors);
            let mut model = BTreeSet::new();
            for (set, start, length) in changes {
                let end = start + length;
                if set {
                    bitmap.mark_sectors(start..end);
                    let touched = (start..end.min(sectors)).map(|sector| sector / 8);
                    model.extend(touched);
                } else {
                    bitmap.clear_sectors(start..end);
                    model.retain(|block: &u64| {
                        block * 8 < start || end < ((block + 1) * 8).min(sectors)
                    });
                }
                proptest::prop_assert_eq!(bitmap.bits_set(), wide(model.len()));
                let bits: BTreeSet<u64> = (0..bitmap.bits()).filter(|bit| bitmap.is_set(*bit)).collect();
                proptest::prop_assert_eq!(&bits, &model);
                proptest::prop_assert_eq!(
                    bitmap.any_set(start..end),
                    model.range(start / 8..end.div_ceil(8).max(start / 8)).next().is_some()
                );
                proptest::prop_assert_eq!(bitmap.next_set(60), model.range(60..).next().copied());
            }
            let bytes: Vec<u8> = bitmap.take_unsaved().into_iter().flat_map(|(_, bytes)| bytes).collect();
            proptest::prop_assert_eq!(Bitmap::load(sectors, &bytes).bits_set(), bitmap.bits_set());
        }
    }
}
