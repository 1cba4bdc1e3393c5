//! Server-sent events, cut out of bytes as they come. No I/O.
//!
//! Follows the WHATWG's "Interpreting an event stream": LF, CR and CRLF end
//! lines, a byte order mark is skipped, comments are skipped, several `data`
//! lines are joined by newlines. Unlike the standard, what was complete when
//! the stream ended is handed out even without its blank line, because
//! providers have been seen to leave it out.

/// A line longer than this is refused: no event of an answer is near it, and
/// many events may wait for a slow client.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// So is an event whose lines together are longer.
pub const MAX_EVENT_BYTES: usize = 2 << 20;

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The event's type; empty where the stream does not name it.
    pub event: String,
    /// The joined `data` lines.
    pub data: String,
}

/// The stream holds a line or an event over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line or event of the stream is over the limit of {MAX_EVENT_BYTES} bytes")]
pub struct TooLong;

/// The parser's state between two pieces of the stream.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    event: String,
    data: String,
    has_data: bool,
    lines: u64,
}

impl Parser {
    /// Lines that were complete so far, comments and blank ones included: what
    /// tells a stream that lives from one that drips.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Takes the next bytes and appends the events that they complete.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is then of no use any more.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Message>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let taken = end.unwrap_or(bytes.len());
            if self.line.len() + taken > MAX_LINE_BYTES {
                return Err(TooLong);
            }
            let Some(end) = end else {
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            self.after_cr = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.end_line(&bytes[..end], out)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.end_line(&line, out)?;
                // The buffer is kept for the next line that comes in parts.
                line.clear();
                self.line = line;
            }
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// The event that the stream's end left without its blank line, if any.
    /// Its last line may be cut short.
    pub fn finish(&mut self) -> Option<Message> {
        let mut out = Vec::new();
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_line(&line, &mut out).ok()?;
        }
        self.dispatch(&mut out);
        out.pop()
    }

    fn end_line(&mut self, bytes: &[u8], out: &mut Vec<Message>) -> Result<(), TooLong> {
        self.lines += 1;
        let text = String::from_utf8_lossy(bytes);
        let mut line = text.as_ref();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(out);
        } else if !line.starts_with(':') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event),
                "data" => {
                    if self.data.len() + value.len() > MAX_EVENT_BYTES {
                        return Err(TooLong);
                    }
                    if std::mem::replace(&mut self.has_data, true) {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                // `id` and `retry` steer reconnection, which an answer has none of.
                _ => {}
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, out: &mut Vec<Message>) {
        let event = std::mem::take(&mut self.event);
        if std::mem::take(&mut self.has_data) {
            out.push(Message {
                event,
                data: std::mem::take(&mut self.data),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Vec<Message> {
        let mut parser = Parser::default();
        let mut out = Vec::new();
        parser.push(bytes, &mut out).unwrap();
        out.extend(parser.finish());
        out
    }

    fn message(event: &str, data: &str) -> Message {
        Message {
            event: event.into(),
            data: data.into(),
        }
    }

    #[test]
    fn fields_comments_and_endings() {
        let text = "\u{feff}: hello\nevent: ping\ndata: {\"a\":1}\nid: 7\nretry: 10\n\n\
                    data:one\r\ndata: two\r\ndata\r\n\r\n\
                    event: only a name\n\n\
                    data:  kept space\r\rdata: [DONE]";
        assert_eq!(
            whole(text.as_bytes()),
            vec![
                message("ping", "{\"a\":1}"),
                message("", "one\ntwo\n"),
                message("", " kept space"),
                message("", "[DONE]"),
            ]
        );
    }

    #[test]
    fn a_mark_in_the_middle_is_text() {
        assert_eq!(
            whole("data: a\n\ndata: \u{feff}b\n\n".as_bytes())[1].data,
            "\u{feff}b"
        );
    }

    #[test]
    fn nothing_pending_means_nothing_at_the_end() {
        assert_eq!(whole(b"data: x\n\n").len(), 1);
        assert_eq!(whole(b": keep-alive\n\n"), vec![]);
        assert_eq!(whole(b""), vec![]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let mut out = Vec::new();
        let refused = (0..20).any(|_| parser.push(&piece, &mut out).is_err());
        assert!(refused);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let mut line = b"data: ".to_vec();
        line.resize(1 << 20, b'x');
        line.push(b'\n');
        let mut out = Vec::new();
        let refused = (0..30).any(|_| parser.push(&line, &mut out).is_err());
        assert!(refused && out.is_empty());
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            "data: \\PC{0,12}",
            "data:\\PC{0,12}",
            "event: [a-z_]{0,8}",
            ":\\PC{0,5}",
            Just(String::new()),
            Just("data".to_owned()),
            "[a-z]{0,4}: x",
        ];
        let ending = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        proptest::collection::vec((line, ending), 0..24).prop_map(|lines| {
            let mut bytes = Vec::new();
            for (line, ending) in lines {
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(ending.as_bytes());
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(bytes in stream(), cuts in proptest::collection::vec(1..7usize, 1..6)) {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                parser.push(now, &mut seen).unwrap();
                rest = later;
            }
            seen.extend(parser.finish());
            prop_assert_eq!(seen, whole(&bytes));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            whole(&bytes);
        }
    }
}
