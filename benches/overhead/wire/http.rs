//! As much of HTTP/1.1 as both ends need: heads, lengths, chunks.

use std::io::Read;
use std::net::TcpStream;

/// A connection, and what was read ahead of it.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::with_capacity(16 << 10),
        }
    }

    /// Waits for more bytes; whether there were any.
    pub(crate) fn more(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                true
            }
        }
    }

    /// Takes the next head off the buffer, without its blank line.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Some(head);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Takes the next request: its head and body.
    pub(crate) fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head()?;
        if header(&head, "expect").is_some() {
            use std::io::Write;
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.stream.write_all(go_on).ok()?;
        }
        let body = match header(&head, "content-length") {
            Some(length) => {
                let length: usize = length.parse().ok()?;
                while self.buffer.len() < length {
                    if !self.more() {
                        return None;
                    }
                }
                self.buffer.drain(..length).collect()
            }
            None if header(&head, "transfer-encoding").is_some() => {
                let mut body = Vec::new();
                let mut cutter = Chunked::default();
                while !cutter.over {
                    cutter.take(&mut self.buffer, &mut body);
                    if !cutter.over && !self.more() {
                        return None;
                    }
                }
                body
            }
            None => Vec::new(),
        };
        Some((head, body))
    }
}

/// Takes the chunked transfer coding off.
#[derive(Default)]
pub(crate) struct Chunked {
    left: usize,
    pub(crate) over: bool,
}

impl Chunked {
    /// Moves what is there of the body from `raw` to `body`.
    pub(crate) fn take(&mut self, raw: &mut Vec<u8>, body: &mut Vec<u8>) {
        let mut at = 0;
        loop {
            if self.left > 0 {
                let count = self.left.min(raw.len() - at);
                body.extend_from_slice(&raw[at..at + count]);
                at += count;
                self.left -= count;
                if self.left > 0 {
                    break;
                }
            }
            // The line end of the chunk before belongs to the next size's line.
            let from = if raw[at..].starts_with(b"\r\n") {
                at + 2
            } else {
                at
            };
            let Some(end) = find(&raw[from..], b"\r\n") else {
                break;
            };
            let line = String::from_utf8_lossy(&raw[from..from + end]).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                // No double and no peer sends trailers.
                if raw.len() < from + end + 4 {
                    break;
                }
                at = from + end + 4;
                self.over = true;
                break;
            }
            at = from + end + 2;
            self.left = size;
        }
        raw.drain(..at);
    }
}

/// A header's value.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
