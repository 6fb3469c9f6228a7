//! Memory for data in flight: aligned as direct input and output wants it, used again and again, since fresh memory
//! costs a page fault every 4 KiB, which is dearer than copying.
//!
//! What lies idle is bounded, and given back when no burst asks for it any more: the daemon calls [`Pool::tidy`] from
//! time to time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What a disk's direct access is aligned to.
pub const ALIGNMENT: usize = 4096;
/// Smaller ones are not worth keeping apart.
const SMALLEST_BYTES: usize = 4096;
/// Most of what lies idle.
const IDLE_BYTES_MAX: usize = 8 << 20;

/// Hands out buffers, and takes them back when the last user is done.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Those that came back last are at the end, and taken first: what a burst left over sinks.
    buffers: Vec<Returned>,
    bytes: usize,
    /// How often it was tidied up.
    round: u64,
}

#[derive(Debug)]
struct Returned {
    memory: Vec<u8>,
    round: u64,
}

/// A buffer whose data starts at an aligned address.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    pool: Pool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of so many bytes; what is in it is left over from before.
    pub fn take(&self, length: usize) -> Buffer {
        let capacity = length.max(SMALLEST_BYTES).next_power_of_two() + ALIGNMENT;
        let mut idle = self.idle();
        let found = idle
            .buffers
            .iter()
            .rposition(|returned| returned.memory.len() == capacity);
        let reused = found.map(|index| {
            idle.bytes -= capacity;
            idle.buffers.remove(index).memory
        });
        drop(idle);
        let memory = reused.unwrap_or_else(|| vec![0; capacity]);
        Buffer {
            start: memory.as_ptr().align_offset(ALIGNMENT),
            memory,
            length,
            pool: self.clone(),
        }
    }

    /// A copy of the bytes at an aligned address.
    pub fn copy(&self, bytes: &[u8]) -> Bytes {
        let mut buffer = self.take(bytes.len());
        buffer.as_mut().copy_from_slice(bytes);
        buffer.freeze()
    }

    /// Gives back what nobody has used since the call before this one.
    pub fn tidy(&self) {
        let mut idle = self.idle();
        let Idle {
            buffers,
            bytes,
            round,
        } = &mut *idle;
        buffers.retain(|returned| {
            let stays = returned.round == *round;
            *bytes -= if stays { 0 } else { returned.memory.len() };
            stays
        });
        *round += 1;
    }
}

impl Buffer {
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut idle = self.pool.idle();
        if idle.bytes + memory.len() <= IDLE_BYTES_MAX {
            idle.bytes += memory.len();
            let round = idle.round;
            idle.buffers.push(Returned { memory, round });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_idle(pool: &Pool) -> usize {
        let idle = pool.idle();
        let sum: usize = idle
            .buffers
            .iter()
            .map(|returned| returned.memory.len())
            .sum();
        assert_eq!(idle.bytes, sum);
        sum
    }

    fn burst(pool: &Pool, count: usize) {
        let taken: Vec<Buffer> = (0..count).map(|_| pool.take(100_000)).collect();
        drop(taken);
    }

    #[test]
    fn no_more_than_the_limit_lies_idle() {
        let pool = Pool::default();
        let taken: Vec<Buffer> = (0..20).map(|_| pool.take(1 << 20)).collect();
        drop(taken);
        assert!((4 << 20..=IDLE_BYTES_MAX).contains(&bytes_idle(&pool)));
    }

    #[test]
    fn what_a_burst_left_over_is_given_back_and_what_is_used_stays() {
        let pool = Pool::default();
        burst(&pool, 30);
        pool.tidy();
        for _ in 0..100 {
            burst(&pool, 3);
        }
        assert_eq!(pool.idle().buffers.len(), 30);
        pool.tidy();
        assert_eq!(pool.idle().buffers.len(), 3);
        pool.tidy();
        assert_eq!(bytes_idle(&pool), 0);
    }

    #[test]
    fn buffers_are_aligned_and_used_again_when_the_last_user_is_done() {
        let pool = Pool::default();
        let first = pool.copy(&[7; 5000]);
        assert_eq!(first.as_ptr().align_offset(ALIGNMENT), 0);
        let slice = first.slice(4096..);
        drop(first);
        assert_eq!(bytes_idle(&pool), 0, "somebody still reads it");
        drop(slice);
        assert_eq!(bytes_idle(&pool), 8192 + ALIGNMENT);
        // Content is anything: here what was left in it.
        assert_eq!(pool.take(8000).as_ref()[..5000], [7; 5000]);
    }
}
