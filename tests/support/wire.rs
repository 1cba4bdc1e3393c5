//! HTTP/1.1 by hand, so that a test says every byte and sees every byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply that was read whole.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunks' frames.
    pub body: String,
    /// Whether the body ended as its framing says it must.
    pub whole: bool,
}

impl Reply {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// A reply that is read as it comes.
pub struct Stream {
    reader: BufReader<TcpStream>,
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
}

/// POST of a JSON body with more headers; read whole.
pub fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    open(to, "POST", path, headers, body).unwrap().finish()
}

/// Sends a request and reads its reply's head.
pub fn open(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Stream> {
    let mut connection = TcpStream::connect(to)?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes())?;
    connection.write_all(body.as_bytes())?;
    read_head(connection)
}

/// Reads a reply's head.
pub fn read_head(connection: TcpStream) -> std::io::Result<Stream> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    Ok(Stream {
        reader,
        status,
        headers,
    })
}

impl Stream {
    /// Waits for more of the body: what came, frames and all; empty at its end.
    pub fn more(&mut self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let length = self.reader.read(&mut buffer).unwrap_or(0);
        buffer[..length].to_vec()
    }

    /// Reads to the end.
    pub fn finish(mut self) -> Reply {
        let mut raw = Vec::new();
        // A reset is an end too; the framing tells whether it was a good one.
        let _ = self.reader.read_to_end(&mut raw);
        let chunked = self
            .headers
            .iter()
            .any(|(name, value)| name == "transfer-encoding" && value.contains("chunked"));
        let (body, whole) = if chunked { unchunk(&raw) } else { (raw, true) };
        Reply {
            status: self.status,
            headers: self.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            whole,
        }
    }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return (body, false);
        };
        let size = String::from_utf8_lossy(&rest[..end]);
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            return (body, false);
        };
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(..size) else {
            return (body, false);
        };
        body.extend_from_slice(chunk);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
}
