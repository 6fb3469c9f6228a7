//! Which of a TCP direction's bytes were seen before: what is sent again tells of a loss.

/// Separate stretches that are remembered; a hole for each lost packet of one flight, and more than a lab's
/// connection ever has.
const STRETCHES_MAX: usize = 64;

/// What a segment is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Nothing that has to arrive: a bare acknowledgment.
    Empty,
    New,
    /// Asks whether the other end is still there, with a byte it has long had.
    KeepAlive,
    /// Some of it was seen before.
    Again,
}

/// The stretches of one direction's sequence numbers that were seen.
///
/// Numbers wrap around after four gigabytes; each is taken for the one nearest to the last.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    last: Option<(u32, i64)>,
    /// Beginnings and ends, in order, none touching another.
    seen: Vec<(i64, i64)>,
}

impl Segments {
    /// Takes a segment: its sequence number, its bytes with SYN and FIN counted as one each, and
    /// whether it holds either of them.
    pub fn take(&mut self, sequence: u32, length: u32, opens_or_ends: bool) -> Novelty {
        let begin = match self.last {
            None => 0,
            Some((last, offset)) => {
                offset.saturating_add(i64::from(sequence.wrapping_sub(last).cast_signed()))
            }
        };
        self.last = Some((sequence, begin));
        if length == 0 {
            return Novelty::Empty;
        }
        let end = begin.saturating_add(i64::from(length));
        let is_probe = length == 1
            && !opens_or_ends
            && self.seen.last().is_some_and(|(_, highest)| *highest == end);
        if is_probe {
            return Novelty::KeepAlive;
        }
        let was_seen = self
            .seen
            .iter()
            .any(|(from, to)| begin < *to && *from < end);
        self.cover(begin, end);
        if was_seen {
            Novelty::Again
        } else {
            Novelty::New
        }
    }

    fn cover(&mut self, mut begin: i64, mut end: i64) {
        self.seen.retain(|(from, to)| {
            let apart = *to < begin || end < *from;
            if !apart {
                begin = begin.min(*from);
                end = end.max(*to);
            }
            apart
        });
        let place = self.seen.partition_point(|(from, _)| *from < begin);
        self.seen.insert(place, (begin, end));
        if self.seen.len() > STRETCHES_MAX {
            // The oldest hole is forgotten: what fills it now would be taken for a repetition.
            let (from, _) = self.seen.remove(0);
            self.seen[0].0 = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_was_seen_is_seen_again() {
        let mut segments = Segments::default();
        assert_eq!(segments.take(u32::MAX, 1, true), Novelty::New);
        assert_eq!(segments.take(0, 100, false), Novelty::New);
        assert_eq!(segments.take(100, 0, false), Novelty::Empty);
        // A hole, and what fills it later, is no repetition.
        assert_eq!(segments.take(200, 100, false), Novelty::New);
        assert_eq!(segments.take(100, 100, false), Novelty::New);
        assert_eq!(segments.take(200, 100, false), Novelty::Again);
        assert_eq!(segments.take(299, 1, false), Novelty::KeepAlive);
        assert_eq!(segments.take(300, 1, true), Novelty::New);
        assert_eq!(segments.take(300, 1, true), Novelty::Again);
    }

    proptest! {
        #[test]
        fn any_numbers_are_taken_and_little_is_kept(
            takes in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..300)
        ) {
            let mut segments = Segments::default();
            for (sequence, length, flag) in takes {
                segments.take(sequence, length, flag);
                prop_assert!(segments.seen.len() <= STRETCHES_MAX);
                prop_assert!(segments.seen.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }

        #[test]
        fn a_stream_sent_once_has_no_repetition(
            start: u32, lengths in proptest::collection::vec(2..70_000_u32, 1..200)
        ) {
            let mut segments = Segments::default();
            let mut at = start;
            for length in lengths {
                prop_assert_eq!(segments.take(at, length, false), Novelty::New);
                at = at.wrapping_add(length);
            }
        }
    }
}
