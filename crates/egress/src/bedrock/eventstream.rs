//! AWS's binary event stream (`application/vnd.amazon.eventstream`), cut out of
//! bytes as they come. No I/O.
//!
//! A message is: its length and its headers' length (big-endian `u32`), the
//! CRC-32 of these eight bytes, the headers, the payload, and the CRC-32 of all
//! that. A header is a name, a type and a value; the ones that matter are text.

/// A longer message is refused: no event of an answer is near it.
const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// Both lengths and their checksum.
const PRELUDE: usize = 12;
/// The checksum at the end.
const TRAILER: usize = 4;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// `event`, `exception` or `error`.
    pub message_type: String,
    /// The event's or exception's name, or the error's code.
    pub name: String,
    /// The error's text, where the message is an `error`.
    pub error_message: String,
    /// JSON.
    pub payload: Vec<u8>,
}

/// The stream is not what it should be; it is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// A length that no message has.
    #[error("a message's length is out of bounds")]
    Length,
    /// A checksum that does not fit.
    #[error("a message's checksum is wrong")]
    Checksum,
    /// Headers that do not parse.
    #[error("a message's headers are not well formed")]
    Headers,
}

/// The parser's state between two pieces of the stream.
#[derive(Default)]
pub struct Frames {
    pending: Vec<u8>,
    messages: u64,
}

impl Frames {
    /// How many messages were completed so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Takes the next bytes and appends the messages that they complete.
    ///
    /// # Errors
    /// [`Torn`].
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), Torn> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        let result = loop {
            match message(&self.pending[at..]) {
                Ok(Some((frame, length))) => {
                    self.messages += 1;
                    out.push(frame);
                    at += length;
                }
                Ok(None) => break Ok(()),
                Err(torn) => break Err(torn),
            }
        };
        self.pending.drain(..at);
        result
    }
}

/// The message at the head of the bytes and its length, once it is whole.
fn message(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Torn> {
    let Some(prelude) = bytes.first_chunk::<PRELUDE>() else {
        return Ok(None);
    };
    let word = |at: usize| {
        u32::from_be_bytes([
            prelude[at],
            prelude[at + 1],
            prelude[at + 2],
            prelude[at + 3],
        ])
    };
    if crc32(&prelude[..8]) != word(8) {
        return Err(Torn::Checksum);
    }
    let (total, headers) = (word(0) as usize, word(4) as usize);
    if total > MAX_MESSAGE_BYTES || total < PRELUDE + TRAILER + headers {
        return Err(Torn::Length);
    }
    let Some(whole) = bytes.get(..total) else {
        return Ok(None);
    };
    let (body, trailer) = whole.split_at(total - TRAILER);
    if trailer != crc32(body).to_be_bytes() {
        return Err(Torn::Checksum);
    }
    let mut frame = Frame {
        payload: body[PRELUDE + headers..].to_vec(),
        ..Frame::default()
    };
    read_headers(&body[PRELUDE..PRELUDE + headers], &mut frame).ok_or(Torn::Headers)?;
    Ok(Some((frame, total)))
}

fn read_headers(mut bytes: &[u8], frame: &mut Frame) -> Option<()> {
    while let [length, rest @ ..] = bytes {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        let (text, rest) = match kind {
            // Booleans have no value; numbers, times and ids have a fixed one.
            0 | 1 => (None, rest),
            2 => (None, rest.get(1..)?),
            3 => (None, rest.get(2..)?),
            4 => (None, rest.get(4..)?),
            5 | 8 => (None, rest.get(8..)?),
            9 => (None, rest.get(16..)?),
            6 | 7 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                let (value, rest) =
                    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                (Some(value), rest)
            }
            _ => return None,
        };
        if let Some(text) = text {
            let text = String::from_utf8_lossy(text).into_owned();
            match name {
                b":message-type" => frame.message_type = text,
                b":event-type" | b":exception-type" | b":error-code" => frame.name = text,
                b":error-message" => frame.error_message = text,
                _ => {}
            }
        }
        bytes = rest;
    }
    Some(())
}

/// Writes a message with text headers, as the service does.
pub fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = PRELUDE + head.len() + payload.len() + TRAILER;
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(head.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out
}

/// CRC-32 as in Ethernet and gzip: polynomial 0x04C11DB7, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut word = at as u32;
            let mut bit = 0;
            while bit < 8 {
                word = (word >> 1) ^ (0xEDB8_8320 * (word & 1));
                bit += 1;
            }
            table[at] = word;
            at += 1;
        }
        table
    };
    let step = |sum: u32, byte: &u8| TABLE[((sum ^ u32::from(*byte)) & 0xFF) as usize] ^ (sum >> 8);
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    /// One of AWS's own test vectors: a header that is a number, and a payload.
    #[test]
    fn a_message_as_aws_writes_it() {
        let vector: [u8; 45] = [
            0x00, 0x00, 0x00, 0x2D, 0x00, 0x00, 0x00, 0x10, 0x41, 0xC4, 0x24, 0xB8, 0x0A, 0x65,
            0x76, 0x65, 0x6E, 0x74, 0x2D, 0x74, 0x79, 0x70, 0x65, 0x04, 0x00, 0x00, 0xA0, 0x0C,
            0x7B, 0x27, 0x66, 0x6F, 0x6F, 0x27, 0x3A, 0x27, 0x62, 0x61, 0x72, 0x27, 0x7D, 0x36,
            0xF4, 0x80, 0xA0,
        ];
        let mut out = Vec::new();
        Frames::default().push(&vector, &mut out).unwrap();
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].payload, b"{'foo':'bar'}");
    }

    #[test]
    fn damage_is_noticed() {
        let whole = encode(&[(":message-type", "event"), (":event-type", "x")], b"{}");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let mut out = Vec::new();
            let pushed = Frames::default().push(&damaged, &mut out);
            assert!(pushed.is_err() && out.is_empty(), "byte {at}");
        }
        let mut huge = (u32::MAX).to_be_bytes().to_vec();
        huge.extend_from_slice(&[0; 4]);
        let sum = crc32(&huge).to_be_bytes();
        huge.extend_from_slice(&sum);
        assert_eq!(
            Frames::default().push(&huge, &mut Vec::new()),
            Err(Torn::Length)
        );
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in proptest::collection::vec(1..30usize, 1..6),
        ) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                let headers = [(":event-type", "contentBlockDelta"), (":message-type", "event")];
                bytes.extend(encode(&headers, payload));
            }
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                frames.push(now, &mut seen).unwrap();
                rest = later;
            }
            prop_assert_eq!(seen.len(), payloads.len());
            for (frame, payload) in seen.iter().zip(&payloads) {
                prop_assert_eq!(&frame.payload, payload);
                prop_assert_eq!(frame.name.as_str(), "contentBlockDelta");
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frames::default().push(&bytes, &mut Vec::new());
        }

        #[test]
        fn any_headers_are_read_without_a_panic(headers in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_headers(&headers, &mut Frame::default());
        }
    }
}
