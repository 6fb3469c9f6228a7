//! Sequence numbers: what was sent and may be asked for again, what came and what is missing.
//!
//! A node numbers its messages from 1 in each generation, across all destinations. A
//! receiver that sees a gap takes the later message at once, asks for each missing one
//! after a short random delay (packets often only change places), and repeats the
//! request until the message or a refusal comes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::random::Random;

/// Messages kept for resending; heartbeat's own number, so that both nodes remember
/// equally far.
pub const HISTORY_MAX: usize = 500;

/// Largest gap that is filled; a larger one means that the connection was lost.
pub const GAP_MAX: u64 = 250;

/// Messages sent again for one request; keeps a request from becoming a flood.
pub const RESENT_MAX: usize = 50;

/// An acknowledgement is sent for one in so many messages.
pub const ACK_DIVISOR: u64 = 10;

/// How far behind the newest a repeated message may be and still count as a sign of life
/// of its link. Two media deliver the same message within a few others; a recording that
/// is played back is older.
const RECENT: u64 = 8;

/// A request for a lost message is not sent sooner than this: packets change places.
const REQUEST_DELAY_MIN: Duration = Duration::from_millis(50);

/// What was sent in this generation.
#[derive(Debug, Default)]
pub struct Outbox {
    last: u64,
    history: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    sequence: u64,
    packet: Vec<u8>,
    resent: Option<Duration>,
}

/// The answer to a request for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    Packet(Vec<u8>),
    /// Not in the history any more.
    TooLow(u64),
}

impl Outbox {
    /// Returns the number of the newest message; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Takes the next number.
    pub fn take_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps a packet as it was sent: a resent message has its first time and load.
    pub fn keep(&mut self, sequence: u64, packet: Vec<u8>) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Sent {
            sequence,
            packet,
            resent: None,
        });
    }

    /// Answers a request for `first..=last` by a node that has acknowledged `acknowledged`.
    /// A message that was resent less than `interval` ago is not resent yet.
    pub fn resend(
        &mut self,
        first: u64,
        last: u64,
        acknowledged: u64,
        now: Duration,
        interval: Duration,
    ) -> Vec<Resend> {
        let first = first.max(acknowledged + 1);
        let last = last.min(self.last);
        let oldest = self
            .history
            .front()
            .map_or(self.last + 1, |sent| sent.sequence);
        let mut answers = Vec::new();
        if first <= last && first < oldest {
            answers.push(Resend::TooLow(first));
        }
        for sent in &mut self.history {
            let asked_for = (first..=last).contains(&sent.sequence);
            let rested = sent.resent.is_none_or(|resent| now >= resent + interval);
            if asked_for && rested && answers.len() < RESENT_MAX {
                sent.resent = Some(now);
                answers.push(Resend::Packet(sent.packet.clone()));
            }
        }
        answers
    }
}

/// What came from one node in its present generation.
#[derive(Debug)]
pub struct Inbox {
    last: Option<u64>,
    /// Missing number → when to ask for it (again).
    missing: BTreeMap<u64, Duration>,
    /// The remainder that triggers an acknowledgement.
    ack_remainder: u64,
}

/// What a sequence number means to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Newer than all before; so many are missing in between.
    New { missing: u64 },
    /// Newer by more than can be filled; tracking begins anew.
    AfterManyLost,
    /// Was missing.
    Late,
    /// Came before, or is too old to be told from such; recent ones prove their link.
    Duplicate { recent: bool },
}

impl Inbox {
    pub fn new(random: &mut Random) -> Self {
        Self {
            last: None,
            missing: BTreeMap::new(),
            ack_remainder: random.below(ACK_DIVISOR),
        }
    }

    /// Returns the number of the newest message; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last.unwrap_or(0)
    }

    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Notes an arrival.
    pub fn arrive(
        &mut self,
        sequence: u64,
        now: Duration,
        request_delay_max: Duration,
        random: &mut Random,
    ) -> Arrival {
        let Some(last) = self.last else {
            self.last = Some(sequence);
            return Arrival::New { missing: 0 };
        };
        if sequence <= last {
            return match self.missing.remove(&sequence) {
                Some(_) => Arrival::Late,
                None => Arrival::Duplicate {
                    recent: last - sequence < RECENT,
                },
            };
        }
        self.last = Some(sequence);
        let missing = sequence - last - 1;
        if missing > GAP_MAX {
            self.missing.clear();
            return Arrival::AfterManyLost;
        }
        let delay_min = if request_delay_max < 2 * REQUEST_DELAY_MIN {
            Duration::ZERO
        } else {
            REQUEST_DELAY_MIN
        };
        for lost in last + 1..sequence {
            let ask_at = now + random.between(delay_min, request_delay_max);
            self.missing.insert(lost, ask_at);
        }
        self.forget_hopeless(sequence);
        Arrival::New { missing }
    }

    /// What is older than the sender's history can never come, and bounds the memory.
    fn forget_hopeless(&mut self, newest: u64) {
        let oldest = newest.saturating_sub(HISTORY_MAX as u64);
        self.missing = self.missing.split_off(&oldest);
    }

    /// Closes a gap that the sender cannot fill. Returns whether it was one.
    pub fn give_up(&mut self, sequence: u64) -> bool {
        self.missing.remove(&sequence).is_some()
    }

    /// No longer asks for what is missing: the generation it belongs to is over.
    pub fn forget_missing(&mut self) {
        self.missing.clear();
    }

    /// Returns what to ask for now, and notes when to ask again. Neighbours are asked for
    /// together: after a cut, dozens of requests four times a second would be a load of their own.
    pub fn take_requests(&mut self, now: Duration, repeat: Duration) -> Vec<RangeInclusive<u64>> {
        let mut due = Vec::new();
        for run in self.runs() {
            let mut asked = self.missing.range(run.clone()).map(|(_, ask_at)| *ask_at);
            if asked.any(|ask_at| ask_at <= now) {
                for ask_at in self.missing.range_mut(run.clone()) {
                    *ask_at.1 = now + repeat;
                }
                due.push(run);
            }
        }
        due
    }

    /// Missing numbers that follow each other, at most as many as one request is answered with.
    fn runs(&self) -> Vec<RangeInclusive<u64>> {
        let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
        for sequence in self.missing.keys().copied() {
            match runs.last_mut() {
                Some(run)
                    if *run.end() + 1 == sequence && sequence - run.start() < RESENT_MAX as u64 =>
                {
                    *run = *run.start()..=sequence;
                }
                _ => runs.push(sequence..=sequence),
            }
        }
        runs
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.missing.values().min().copied()
    }

    /// Whether this message is one to acknowledge: all before it are here.
    pub fn wants_ack(&self, sequence: u64) -> bool {
        self.missing.is_empty() && sequence % ACK_DIVISOR == self.ack_remainder
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn inbox() -> (Inbox, Random) {
        let mut random = Random::new(1);
        (Inbox::new(&mut random), random)
    }

    #[test]
    fn a_gap_is_asked_for_after_a_while_until_it_is_filled() {
        let (mut inbox, mut random) = inbox();
        let at = Duration::from_secs(1);
        inbox.arrive(4, at, DELAY, &mut random);
        assert_eq!(
            inbox.arrive(7, at, DELAY, &mut random),
            Arrival::New { missing: 2 }
        );
        assert!(inbox.take_requests(at, DELAY).is_empty());
        let later = at + DELAY;
        assert_eq!(inbox.take_requests(later, DELAY), [5..=6]);
        assert!(inbox.take_requests(later, DELAY).is_empty());
        assert_eq!(inbox.arrive(5, later, DELAY, &mut random), Arrival::Late);
        assert_eq!(
            inbox.arrive(5, later, DELAY, &mut random),
            Arrival::Duplicate { recent: true }
        );
        assert_eq!(inbox.take_requests(later + DELAY, DELAY), [6..=6]);
        assert!(inbox.give_up(6));
        assert_eq!(inbox.deadline(), None);
    }

    #[test]
    fn a_long_gap_is_asked_for_in_few_requests() {
        let (mut inbox, mut random) = inbox();
        inbox.arrive(10, Duration::ZERO, DELAY, &mut random);
        inbox.arrive(95, Duration::ZERO, DELAY, &mut random);
        inbox.arrive(97, Duration::ZERO, DELAY, &mut random);
        let first_due = inbox.deadline().expect("something is missing");
        assert!(!inbox.take_requests(first_due, DELAY).is_empty());
        let again = first_due + 2 * DELAY;
        assert_eq!(
            inbox.take_requests(again, DELAY),
            [11..=60, 61..=94, 96..=96]
        );
        assert_eq!(inbox.deadline(), Some(again + DELAY));
        inbox.forget_missing();
        assert_eq!(inbox.deadline(), None);
    }

    #[test]
    fn a_large_gap_is_not_filled() {
        let (mut inbox, mut random) = inbox();
        inbox.arrive(1, Duration::ZERO, DELAY, &mut random);
        assert_eq!(
            inbox.arrive(GAP_MAX + 3, Duration::ZERO, DELAY, &mut random),
            Arrival::AfterManyLost
        );
        assert_eq!(inbox.deadline(), None);
    }

    #[test]
    fn a_recording_is_no_sign_of_life() {
        let (mut inbox, mut random) = inbox();
        inbox.arrive(100, Duration::ZERO, DELAY, &mut random);
        assert_eq!(
            inbox.arrive(20, Duration::ZERO, DELAY, &mut random),
            Arrival::Duplicate { recent: false }
        );
    }

    #[test]
    fn one_message_in_ten_is_acknowledged_when_none_is_missing() {
        let (mut inbox, mut random) = inbox();
        let acks = (1..=100)
            .filter(|sequence| {
                inbox.arrive(*sequence, Duration::ZERO, DELAY, &mut random);
                inbox.wants_ack(*sequence)
            })
            .count();
        assert_eq!(acks, 10);
        inbox.arrive(102, Duration::ZERO, DELAY, &mut random);
        assert!((102..200).all(|sequence| !inbox.wants_ack(sequence)));
    }

    #[test]
    fn what_was_sent_is_resent_once_in_an_interval() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            let sequence = outbox.take_number();
            outbox.keep(sequence, vec![sequence.to_le_bytes()[0]]);
        }
        let ask = |outbox: &mut Outbox, at| outbox.resend(2, 9, 0, at, DELAY);
        assert_eq!(
            ask(&mut outbox, Duration::ZERO),
            [Resend::Packet(vec![2]), Resend::Packet(vec![3])]
        );
        assert_eq!(ask(&mut outbox, Duration::from_millis(1)), []);
        assert_eq!(ask(&mut outbox, DELAY).len(), 2);
        assert_eq!(outbox.resend(1, 3, 3, 2 * DELAY, DELAY), []);
    }

    #[test]
    fn what_is_too_old_is_refused() {
        let mut outbox = Outbox::default();
        for _ in 0..HISTORY_MAX + 10 {
            let sequence = outbox.take_number();
            outbox.keep(sequence, Vec::new());
        }
        assert_eq!(
            outbox.resend(3, 3, 0, Duration::ZERO, DELAY),
            [Resend::TooLow(3)]
        );
    }

    proptest! {
        /// Whatever the order, each message is taken at most once, and memory is bounded.
        #[test]
        fn nothing_is_taken_twice(sequences in proptest::collection::vec(1u64..2000, 1..300)) {
            let (mut inbox, mut random) = inbox();
            let mut taken = std::collections::BTreeSet::new();
            for sequence in sequences {
                match inbox.arrive(sequence, Duration::ZERO, DELAY, &mut random) {
                    Arrival::Duplicate { .. } => {}
                    _ => prop_assert!(taken.insert(sequence)),
                }
                prop_assert!(inbox.missing() <= HISTORY_MAX);
            }
        }
    }
}
