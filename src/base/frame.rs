//! Length-prefixed frames between the orchestrator and the agent.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of head and body together with the next field, big-endian |
//! | 4 | length of the head, big-endian |
//! | n | the head: one JSON object |
//! | m | the body: raw bytes (a file's content), may be empty |
//!
//! Works on buffers only; whoever owns the pipe reads and writes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest frame taken: a copied file travels in one frame, and the agent must fit into
/// a guest of 384 MiB beside everything else.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {found} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLong { found: usize },
    #[error("a frame's head of {head} bytes in a frame of {frame}")]
    HeadPastEnd { head: usize, frame: usize },
    #[error("a frame's head that is not the expected JSON")]
    Head(#[from] serde_json::Error),
}

/// Returns the bytes of one frame.
pub fn encode<T: Serialize>(head: &T, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    let head = serde_json::to_vec(head)?;
    let length = 4 + head.len() + body.len();
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { found: length });
    }
    let mut frame = Vec::with_capacity(4 + length);
    for field in [length, head.len()] {
        let field = u32::try_from(field).expect("a frame's length was checked above");
        frame.extend_from_slice(&field.to_be_bytes());
    }
    frame.extend_from_slice(&head);
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Collects bytes as they come and gives out whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front that were given out already.
    taken: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 && self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        } else if self.taken > FRAME_BYTES_MAX / 64 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns whether a frame was begun and not finished.
    pub fn is_mid_frame(&self) -> bool {
        self.taken < self.buffer.len()
    }

    /// Takes the next whole frame, when there is one. After an error the stream is lost.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<u8>)>, FrameError> {
        let pending = &self.buffer[self.taken..];
        let Some((length, rest)) = split_u32(pending) else {
            return Ok(None);
        };
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { found: length });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let frame = &rest[..length];
        let Some((head_length, content)) = split_u32(frame) else {
            return Err(FrameError::HeadPastEnd {
                head: 4,
                frame: length,
            });
        };
        if head_length > content.len() {
            return Err(FrameError::HeadPastEnd {
                head: head_length,
                frame: length,
            });
        }
        // Text that is known to be UTF-8 as a whole need not be looked at string by string.
        let head = match std::str::from_utf8(&content[..head_length]) {
            Ok(head) => serde_json::from_str(head),
            Err(_) => serde_json::from_slice(&content[..head_length]),
        }?;
        let body = content[head_length..].to_vec();
        self.taken += 4 + length;
        Ok(Some((head, body)))
    }
}

fn split_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (field, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*field)).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            cut in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.extend(encode(&serde_json::json!({"n": body.len()}), body).expect("small"));
            }
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some((head, body)) = decoder.next_frame::<Value>().expect("valid") {
                    prop_assert_eq!(&head["n"], &Value::from(body.len()));
                    found.push(body);
                }
            }
            prop_assert_eq!(found, bodies);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame::<Value>() {}
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        let result = decoder.next_frame::<Value>();
        assert!(matches!(result, Err(FrameError::TooLong { .. })));
    }
}
