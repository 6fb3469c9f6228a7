//! Memory for data: aligned as direct input and output wants it, used again and again.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

/// What a disk's direct access is aligned to.
pub const ALIGNMENT: usize = 4096;
/// Buffers kept for use: those of a whole window of requests.
const KEPT_MAX: usize = 64;
/// Larger ones are kept, too, but not more than this size, and no more than this of all.
const KEPT_BYTES_MAX: usize = 1 << 20;
const KEPT_SUM_MAX: usize = 8 << 20;

/// Hands out buffers, and takes them back when the last user is done.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer whose data starts at an aligned address.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Pool {
    /// A buffer of so many bytes; what is in it is left over from before.
    pub fn take(&self, length: usize) -> Buffer {
        let wanted = length + ALIGNMENT;
        let reused = self.free.lock().ok().and_then(|mut free| {
            // A large one is not wasted on a small request.
            let fits = |memory: &Vec<u8>| {
                memory.len() >= wanted && memory.len() <= wanted.saturating_mul(4)
            };
            let index = free.iter().rposition(fits)?;
            Some(free.swap_remove(index))
        });
        let memory = reused.unwrap_or_else(|| vec![0; wanted]);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Buffer {
            memory,
            start,
            length,
            free: Arc::clone(&self.free),
        }
    }

    /// A copy of the bytes at an aligned address.
    pub fn copy(&self, bytes: &[u8]) -> Bytes {
        let mut buffer = self.take(bytes.len());
        buffer.as_mut().copy_from_slice(bytes);
        buffer.freeze()
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
        if memory.len() <= KEPT_BYTES_MAX + ALIGNMENT
            && let Ok(mut free) = self.free.lock()
            && free.len() < KEPT_MAX
            && free.iter().map(Vec::len).sum::<usize>() + memory.len() <= KEPT_SUM_MAX
        {
            free.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_the_sum() {
        let pool = Pool::default();
        let many: Vec<Buffer> = (0..20).map(|_| pool.take(1 << 20)).collect();
        drop(many);
        let kept: usize = pool.free.lock().expect("free").iter().map(Vec::len).sum();
        assert!((4 << 20..=KEPT_SUM_MAX).contains(&kept), "{kept}");
    }

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let pool = Pool::default();
        let first = pool.copy(&[7; 5000]);
        assert_eq!(first.as_ptr().align_offset(ALIGNMENT), 0);
        let slice = first.slice(4096..);
        drop(first);
        assert!(
            pool.free.lock().unwrap().is_empty(),
            "somebody still reads it"
        );
        drop(slice);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
        let _again = pool.take(5000);
        assert!(pool.free.lock().unwrap().is_empty());
    }
}
