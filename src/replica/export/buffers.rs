//! Memory for data in flight, used again: fresh memory costs a page fault every 4 KiB,
//! which is dearer than copying.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Most of what lies idle.
const IDLE_BYTES_MAX: usize = 8 << 20;

/// Smaller ones are not worth keeping apart.
const SMALLEST_BYTES: usize = 4096;

/// What a disk's direct access is aligned to: data goes from here to the disk uncopied.
const ALIGNMENT: usize = 4096;

/// Buffers that wait for use.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer that goes back when nobody refers to it any more.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    /// Where the aligned part begins.
    start: usize,
    len: usize,
    idle: Arc<Mutex<Idle>>,
}

impl Buffers {
    /// Returns a buffer of that length; its content is anything.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let capacity = len.max(SMALLEST_BYTES).next_power_of_two() + ALIGNMENT;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle
            .buffers
            .iter()
            .rposition(|buffer| buffer.len() == capacity);
        let memory = if let Some(at) = found {
            idle.bytes -= capacity;
            idle.buffers.swap_remove(at)
        } else {
            vec![0; capacity]
        };
        Buffer {
            start: memory.as_ptr().align_offset(ALIGNMENT),
            memory,
            len,
            idle: Arc::clone(&self.idle),
        }
    }
}

impl Buffer {
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + memory.len() <= IDLE_BYTES_MAX {
            idle.bytes += memory.len();
            idle.buffers.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_its_last_user_is_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(5000);
        buffer.as_mut_slice().fill(7);
        let bytes = buffer.into_bytes();
        let part = bytes.slice(0..10);
        drop(bytes);
        assert_eq!(buffers.idle.lock().unwrap().bytes, 0);
        drop(part);
        assert_eq!(buffers.idle.lock().unwrap().bytes, 8192 + ALIGNMENT);
        // Content is anything: here what was left in it.
        assert_eq!(buffers.take(8000).as_ref()[..5000], [7; 5000]);
    }

    #[test]
    fn no_more_than_the_limit_lies_idle() {
        let buffers = Buffers::default();
        let taken: Vec<Buffer> = (0..20).map(|_| buffers.take(1 << 20)).collect();
        drop(taken);
        let idle = buffers.idle.lock().unwrap().bytes;
        assert!((1..=IDLE_BYTES_MAX).contains(&idle), "{idle}");
    }
}
