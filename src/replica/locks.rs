//! Ranges of the device that are being read or written: overlapping ones take turns.
//!
//! Two writes to the same block must reach both disks in the same order, and a resync must
//! not read what is half written. So every access to the disk takes its range here first;
//! who comes later and overlaps waits, also behind others that wait.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Exclusive ranges of sectors, first come, first served.
#[derive(Clone, Debug, Default)]
pub struct RangeLocks {
    /// Start → (end, holder); these never overlap.
    held: BTreeMap<u64, (u64, u64)>,
    waiting: VecDeque<(Range<u64>, u64)>,
}

impl RangeLocks {
    /// Takes the range for `holder`, or lines it up; true when it may go on now.
    pub fn take(&mut self, range: Range<u64>, holder: u64) -> bool {
        let blocked = self.overlaps_held(&range)
            || self.waiting.iter().any(|(other, _)| overlap(other, &range));
        if blocked {
            self.waiting.push_back((range, holder));
            return false;
        }
        self.held.insert(range.start, (range.end, holder));
        true
    }

    /// Gives a range back; returns who may go on now, in the order they came.
    pub fn release(&mut self, range: &Range<u64>) -> Vec<u64> {
        self.held.remove(&range.start);
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut admitted = Vec::new();
        let mut still = VecDeque::with_capacity(self.waiting.len());
        while let Some((wanted, holder)) = self.waiting.pop_front() {
            let blocked = self.overlaps_held(&wanted)
                || still
                    .iter()
                    .any(|(other, _): &(Range<u64>, u64)| overlap(other, &wanted));
            if blocked {
                still.push_back((wanted, holder));
            } else {
                self.held.insert(wanted.start, (wanted.end, holder));
                admitted.push(holder);
            }
        }
        self.waiting = still;
        admitted
    }

    /// Whether somebody holds a part of the range.
    fn overlaps_held(&self, range: &Range<u64>) -> bool {
        self.held
            .range(..range.end)
            .next_back()
            .is_some_and(|(_, (end, _))| *end > range.start)
    }

    /// Whether somebody holds a part of the range, or waits for one.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        self.overlaps_held(range) || self.waiting.iter().any(|(other, _)| overlap(other, range))
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    /// Takes out those who wait and are not coming any more; what is held stays held.
    pub fn forget_waiting(&mut self, gone: impl Fn(u64) -> bool) {
        self.waiting.retain(|(_, holder)| !gone(*holder));
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_take_turns_in_the_order_they_came() {
        let mut locks = RangeLocks::default();
        assert!(locks.take(0..8, 1));
        assert!(locks.take(8..16, 2));
        assert!(!locks.take(4..12, 3));
        // Free by itself, but it must not overtake the one before it.
        assert!(!locks.take(10..11, 4));
        assert!(locks.take(16..24, 5));
        assert!(locks.overlaps(&(11..12)) && !locks.overlaps(&(24..32)));
        assert!(locks.release(&(0..8)).is_empty());
        assert_eq!(locks.release(&(8..16)), [3]);
        assert_eq!(locks.release(&(4..12)), [4]);
        assert!(locks.release(&(10..11)).is_empty());
        assert!(locks.release(&(16..24)).is_empty());
        assert!(locks.is_empty());
    }

    #[test]
    fn who_waits_behind_one_that_is_gone_still_gets_its_turn() {
        let mut locks = RangeLocks::default();
        assert!(locks.take(0..8, 1));
        assert!(!locks.take(4..12, 2));
        assert!(!locks.take(6..7, 3));
        locks.forget_waiting(|holder| holder == 2);
        assert_eq!(locks.release(&(0..8)), [3]);
    }
}
