//! The client's side of server-sent events: bytes in, `data` out.

/// A line longer than this is not an event of ours.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// Cuts a stream into the data of its events, whatever the packets are.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

/// An event was larger than 16 MiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Events {
    /// Takes more bytes; returns the events that they complete.
    ///
    /// # Errors
    /// [`TooLong`].
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
            if piece.ends_with(b"\n") {
                let mut line = std::mem::take(&mut self.line);
                while matches!(line.last(), Some(b'\n' | b'\r')) {
                    line.pop();
                }
                events.extend(self.take_line(&line));
            }
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &[u8]) -> Option<String> {
        if line.is_empty() {
            if !std::mem::take(&mut self.has_data) {
                return None;
            }
            let data = std::mem::take(&mut self.data);
            return Some(String::from_utf8_lossy(&data).into_owned());
        }
        // Comments and other fields are not for us.
        if let Some(value) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data
                .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STREAM: &str = ": hello\r\n\r\ndata: {\"a\":\"\u{e9}\u{1f600}\"}\r\n\r\nevent: x\ndata:1\ndata: 2\n\n\ndata: [DONE]\n\n";

    #[test]
    fn packets_do_not_matter() {
        let whole = Events::default().feed(STREAM.as_bytes()).unwrap();
        assert_eq!(whole, ["{\"a\":\"\u{e9}\u{1f600}\"}", "1\n2", "[DONE]"]);
        for size in 1..9 {
            let mut events = Events::default();
            let mut all = Vec::new();
            for packet in STREAM.as_bytes().chunks(size) {
                all.extend(events.feed(packet).unwrap());
            }
            assert_eq!(all, whole, "packets of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut events = Events::default();
        let packet = vec![b'x'; 1 << 20];
        assert!((0..17).any(|_| events.feed(&packet) == Err(TooLong)));
    }
}
