//! Length-delimited postcard, without I/O.

use serde::{Serialize, de::DeserializeOwned};

/// Frames longer than this are refused on both sides, in bytes: a 32 MiB body
/// with pictures and its overhead.
pub const MAX_FRAME_BYTES: usize = 48 << 20;

const PREFIX: usize = 4;

/// A frame that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME_BYTES} bytes")]
    TooLong(usize),
    /// Not what this version of the frames allows.
    #[error("a frame does not decode: {0}")]
    Malformed(postcard::Error),
    /// The peer closed in the middle of a frame.
    #[error("the peer closed in the middle of a frame")]
    Cut,
}

/// Encodes a message with its length prefix.
///
/// # Errors
/// [`FrameError::TooLong`], or [`FrameError::Malformed`] for a type that
/// postcard cannot write.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::with_capacity(256);
    encode_into(message, &mut frame)?;
    Ok(frame)
}

/// Appends an encoded message with its length prefix to `out`. After an error
/// `out` is not to be sent: the link is closed.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    *out = postcard::to_extend(message, std::mem::take(out)).map_err(FrameError::Malformed)?;
    let length = out.len() - start - PREFIX;
    if length > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(FrameError::TooLong(length));
    }
    // The length fits: MAX_FRAME_BYTES is far below u32::MAX.
    let prefix = (length as u32).to_le_bytes();
    out[start..start + PREFIX].copy_from_slice(&prefix);
    Ok(())
}

/// Decodes the body of one frame (without its length prefix).
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    postcard::from_bytes(body).map_err(FrameError::Malformed)
}

/// Cuts a byte stream into frames, however it arrives.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 1 << 16 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come.
    ///
    /// # Errors
    /// After an error the stream has lost its place: close the link.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = decode(body)?;
        self.start += PREFIX + length;
        Ok(Some(message))
    }

    /// To be called when the peer closed.
    ///
    /// # Errors
    /// [`FrameError::Cut`] when a frame was left unfinished.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.start == self.buffer.len() {
            Ok(())
        } else {
            Err(FrameError::Cut)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_any_chunking(
            messages in proptest::collection::vec("\\PC{0,200}", 0..20),
            cuts in proptest::collection::vec(1..50usize, 1..10),
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                encode_into(message, &mut stream).unwrap();
            }
            let mut reader = Reader::default();
            let mut seen: Vec<String> = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                reader.push(now);
                rest = later;
                while let Some(message) = reader.next_message().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn garbage_is_an_error_or_a_wait_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_message::<super::super::ToEngine>() {}
        }
    }

    #[test]
    fn an_absurd_length_is_refused_before_it_is_awaited() {
        let mut reader = Reader::default();
        reader.push(&u32::MAX.to_le_bytes());
        assert!(matches!(
            reader.next_message::<String>(),
            Err(FrameError::TooLong(_))
        ));
    }

    #[test]
    fn half_a_frame_is_a_cut() {
        let mut reader = Reader::default();
        reader.push(&encode(&"whole").unwrap()[..5]);
        assert!(reader.next_message::<String>().unwrap().is_none());
        assert!(matches!(reader.finish(), Err(FrameError::Cut)));
    }
}
