//! Python's random numbers, so that `random(seed='x')` gives what Ansible gives.
//!
//! The Mersenne Twister MT19937, seeded as `CPython`'s `random.Random` does: a number by its
//! 32-bit words, a text by its bytes followed by their SHA-512.

#![expect(
    clippy::cast_possible_truncation,
    reason = "words are cut to 32 bits on purpose; indices are below 1000"
)]

use sha2::{Digest, Sha512};

const SIZE: usize = 624;
const MIDDLE: usize = 397;

pub(super) struct Random {
    state: [u32; SIZE],
    next: usize,
}

impl Random {
    pub(super) fn from_number(seed: u64) -> Self {
        let (low, high) = ((seed & 0xffff_ffff) as u32, (seed >> 32) as u32);
        if high == 0 {
            Self::from_words(&[low])
        } else {
            Self::from_words(&[low, high])
        }
    }

    pub(super) fn from_text(seed: &str) -> Self {
        let mut bytes = seed.as_bytes().to_vec();
        bytes.extend(Sha512::digest(seed));
        // One big-endian number, taken as words from its low end.
        let mut words: Vec<u32> = bytes
            .rchunks(4)
            .map(|chunk| {
                chunk
                    .iter()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte))
            })
            .collect();
        while words.len() > 1 && words.last() == Some(&0) {
            words.pop();
        }
        Self::from_words(&words)
    }

    fn from_words(key: &[u32]) -> Self {
        let mut state = [0_u32; SIZE];
        state[0] = 19_650_218;
        for index in 1..SIZE {
            let before = state[index - 1];
            state[index] = (before ^ (before >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(index as u32);
        }
        let (mut at, mut word) = (1, 0);
        for _ in 0..SIZE.max(key.len()) {
            let before = state[at - 1];
            state[at] = (state[at] ^ (before ^ (before >> 30)).wrapping_mul(1_664_525))
                .wrapping_add(key[word])
                .wrapping_add(word as u32);
            at += 1;
            word = (word + 1) % key.len();
            if at == SIZE {
                state[0] = state[SIZE - 1];
                at = 1;
            }
        }
        for _ in 1..SIZE {
            let before = state[at - 1];
            state[at] = (state[at] ^ (before ^ (before >> 30)).wrapping_mul(1_566_083_941))
                .wrapping_sub(at as u32);
            at += 1;
            if at == SIZE {
                state[0] = state[SIZE - 1];
                at = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, next: SIZE }
    }

    fn word(&mut self) -> u32 {
        if self.next == SIZE {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    fn refill(&mut self) {
        for index in 0..SIZE {
            let joined =
                self.state[index] & 0x8000_0000 | self.state[(index + 1) % SIZE] & 0x7fff_ffff;
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + MIDDLE) % SIZE] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn bits(&mut self, count: u32) -> u64 {
        if count <= 32 {
            return u64::from(self.word() >> (32 - count));
        }
        let low = u64::from(self.word());
        low | u64::from(self.word() >> (64 - count)) << 32
    }

    /// A number from 0 to below `end`, which is above 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let width = u64::BITS - end.leading_zeros();
        loop {
            let number = self.bits(width);
            if number < end {
                return number;
            }
        }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1);
            items.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ansible-core 2.19.14 on Python 3.11 gives them.
    #[test]
    fn seeds_give_what_python_gives() {
        assert_eq!(Random::from_text("abc").below(10), 8);
        assert_eq!(Random::from_text("s1").below(4), 0);
        assert_eq!(Random::from_text("d1").below(100), 58);
        let mut items = ['a', 'b', 'c', 'd'];
        Random::from_text("s1").shuffle(&mut items);
        assert_eq!(items, ['d', 'c', 'b', 'a']);
    }
}
