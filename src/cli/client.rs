//! HTTP/1.1 to the daemon: over its control socket, or over loopback TCP.
#![allow(
    clippy::disallowed_methods,
    reason = "the command line's connection to the daemon"
)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::failed::Failed;
use super::sse;
use crate::config::paths;

/// A connection that nobody takes within this time is not taken at all.
const CONNECT: Duration = Duration::from_secs(5);
/// For answers that need no model.
const SHORT: Duration = Duration::from_secs(30);
/// A larger answer to a verb is not ours.
const MAX_JSON_BYTES: usize = 64 << 20;

/// Where the daemon is.
#[derive(Clone, Debug)]
pub enum Client {
    /// The control socket in this state directory.
    Control(PathBuf),
    /// Loopback TCP: host and port.
    Tcp(String),
}

impl Client {
    /// The daemon of a state directory.
    pub fn control(state_dir: &Path) -> Self {
        Client::Control(state_dir.to_owned())
    }

    /// The daemon behind an address such as `http://127.0.0.1:4141`.
    ///
    /// # Errors
    /// It is not a plain http address of this device.
    pub fn url(url: &str) -> Result<Self, Failed> {
        let wrong = |what: &str| {
            Failed::usage(format!("--url: {what}"))
                .mend("Write it like --url http://127.0.0.1:4141.")
        };
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| wrong("only http addresses of this device can be used"))?;
        let rest = rest.trim_end_matches('/');
        let rest = rest.strip_suffix("/v1").unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (rest, "80"),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = bare == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        if !loopback {
            return Err(wrong("the address is not one of this device"));
        }
        if port.parse::<u16>().is_err() {
            return Err(wrong("the port is not a number"));
        }
        Ok(Client::Tcp(format!("{host}:{port}")))
    }

    /// The path of the control socket, where this client uses one.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Client::Control(dir) => Some(dir.join("control.sock")),
            Client::Tcp(_) => None,
        }
    }

    /// A JSON answer to `GET path`.
    ///
    /// # Errors
    /// No daemon, or its error.
    pub async fn get(&self, path: &str) -> Result<Value, Failed> {
        within(SHORT, async {
            self.open(Method::GET, path, &[], None).await?.json().await
        })
        .await
    }

    /// A JSON answer to `POST path` with a JSON body.
    ///
    /// # Errors
    /// No daemon, or its error.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        within(SHORT, async {
            self.open(Method::POST, path, &[], Some(body))
                .await?
                .json()
                .await
        })
        .await
    }

    /// An answer that is read piece by piece. An error status is an error.
    /// Dropping the future or the reply closes the connection, which cancels
    /// the request.
    ///
    /// # Errors
    /// No daemon, or its error.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Reply, Failed> {
        let reply = self.open_any(method, path, headers, body).await?;
        if reply.status.is_success() {
            Ok(reply)
        } else {
            Err(reply.into_error().await)
        }
    }

    /// As [`Client::open`], but an error status is a reply like any other.
    ///
    /// # Errors
    /// No daemon.
    pub async fn open_any(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Reply, Failed> {
        let host = match self {
            Client::Control(_) => "localhost",
            Client::Tcp(address) => address,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(
                "user-agent",
                concat!("nearfar-cli/", env!("CARGO_PKG_VERSION")),
            );
        if let (Client::Tcp(_), Some(key)) = (self, paths::api_key()) {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|_| Failed::usage("A value holds characters that a header cannot carry."))?;
        let (mut sender, connection) = self.connect().await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        Ok(Reply::new(response, connection))
    }

    async fn connect(&self) -> Result<(http1::SendRequest<Full<Bytes>>, Connection), Failed> {
        match self {
            Client::Control(dir) => {
                let path = dir.join("control.sock");
                let stream = within(CONNECT, async {
                    UnixStream::connect(&path)
                        .await
                        .map_err(|error| no_daemon(dir, &error))
                })
                .await?;
                shake(TokioIo::new(stream)).await
            }
            Client::Tcp(address) => {
                let stream = within(CONNECT, async {
                    TcpStream::connect(address).await.map_err(|error| {
                        Failed::new(format!("Nothing answers at http://{address}: {error}."))
                            .mend("Start it with `nearfar serve`, or see `nearfar status`.")
                    })
                })
                .await?;
                // Small requests should not wait for more.
                let _ = stream.set_nodelay(true);
                shake(TokioIo::new(stream)).await
            }
        }
    }

    fn broken(&self, error: &hyper::Error) -> Failed {
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Failed::new("nearfar closed the connection before it answered.")
                .mend("See its log, and `nearfar status`.")
        } else {
            Failed::new(format!("The answer is not HTTP: {error}."))
        }
    }
}

async fn shake<S>(
    stream: TokioIo<S>,
) -> Result<(http1::SendRequest<Full<Bytes>>, Connection), Failed>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream)
        .await
        .map_err(|error| Failed::new(format!("The connection failed: {error}.")))?;
    let task = tokio::spawn(async move {
        // Its errors come out where the answer is read.
        let _ = connection.await;
    });
    Ok((sender, Connection(task)))
}

/// Drives a connection; dropped, it closes it.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a state directory's socket could not be reached.
fn no_daemon(state_dir: &Path, error: &std::io::Error) -> Failed {
    use std::io::ErrorKind;
    let dir = state_dir.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Failed::new(format!("nearfar is not running for state directory {dir}."))
                .mend("Start it with `nearfar serve`, or name its directory with --state-dir.")
        }
        ErrorKind::PermissionDenied => Failed::new(format!(
            "The control socket in {dir} belongs to somebody else."
        ))
        .mend("Run this as the user that runs nearfar, or use --url http://127.0.0.1:4141."),
        _ => Failed::new(format!(
            "The control socket in {dir} cannot be used: {error}."
        ))
        .mend("See `nearfar doctor`."),
    }
}

async fn within<T>(
    time: Duration,
    future: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(time, future).await {
        Ok(result) => result,
        Err(_) => Err(Failed::new(format!(
            "nearfar did not answer within {} s.",
            time.as_secs()
        ))
        .mend("See its log, and `nearfar doctor`.")),
    }
}

/// An answer whose headers have come.
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    headers: hyper::HeaderMap,
    body: Incoming,
    _connection: Connection,
    line: Vec<u8>,
    lines: std::collections::VecDeque<String>,
    events: sse::Events,
}

impl Reply {
    fn new(response: Response<Incoming>, connection: Connection) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
            _connection: connection,
            line: Vec::new(),
            lines: std::collections::VecDeque::new(),
            events: sse::Events::default(),
        }
    }

    /// A header's text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// The body is cut off, larger than 64 MiB, or not JSON.
    pub async fn json(self) -> Result<Value, Failed> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|_| {
            Failed::new("The answer is not JSON.")
                .mend("Is it nearfar that listens there? See `nearfar status`.")
        })
    }

    async fn bytes(self) -> Result<Bytes, Failed> {
        // The connection lives until the body is whole.
        let connection = self._connection;
        let collected = Limited::new(self.body, MAX_JSON_BYTES).collect().await;
        drop(connection);
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|_| Failed::new("The answer is cut off or too large."))
    }

    /// An error status as a failure: the daemon's own words where it sent some.
    pub async fn into_error(self) -> Failed {
        let status = self.status;
        match self.json().await {
            Ok(body) => error_of(&body)
                .unwrap_or_else(|| Failed::new(format!("nearfar answered with status {status}."))),
            Err(_) => Failed::new(format!("nearfar answered with status {status}.")),
        }
    }

    /// The next line of a body of JSON lines; `None` at its end.
    ///
    /// # Errors
    /// The body is cut off or a line is too long.
    pub async fn next_line(&mut self) -> Result<Option<Value>, Failed> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                if line.trim().is_empty() {
                    continue;
                }
                return serde_json::from_str(&line)
                    .map(Some)
                    .map_err(|_| Failed::new("A line of the answer is not JSON."));
            }
            let Some(bytes) = self.chunk().await? else {
                let rest = std::mem::take(&mut self.line);
                if rest.is_empty() {
                    return Ok(None);
                }
                self.lines
                    .push_back(String::from_utf8_lossy(&rest).into_owned());
                continue;
            };
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                self.line.extend_from_slice(piece);
                if self.line.len() > MAX_JSON_BYTES {
                    return Err(Failed::new("A line of the answer is too long."));
                }
                if piece.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.line);
                    self.lines
                        .push_back(String::from_utf8_lossy(&line).into_owned());
                }
            }
        }
    }

    /// The data of the next server-sent event; `None` at the end.
    ///
    /// # Errors
    /// The stream is cut off or an event is too long.
    pub async fn next_event(&mut self) -> Result<Option<String>, Failed> {
        loop {
            if let Some(event) = self.lines.pop_front() {
                return Ok(Some(event));
            }
            let Some(bytes) = self.chunk().await? else {
                return Ok(None);
            };
            let events = self
                .events
                .feed(&bytes)
                .map_err(|_| Failed::new("An event of the answer is too long."))?;
            self.lines.extend(events);
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| {
                Failed::new("The answer was cut off: the connection broke.")
                    .mend("See `nearfar status`.")
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// The message of an error body in OpenAI's shape.
pub fn error_of(body: &Value) -> Option<Failed> {
    let error = body.get("error")?;
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .or_else(|| error.as_str())?;
    let message = super::style::safe(message);
    Some(match error.get("param").and_then(Value::as_str) {
        Some(param) if !message.contains(param) => {
            Failed::new(format!("{}: {message}", super::style::safe(param)))
        }
        _ => Failed::new(message),
    })
}

/// Runs a verb's future on a runtime of this thread.
///
/// # Errors
/// The future's, or the runtime's own.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::new(format!("The runtime could not start: {error}.")))?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_addresses_of_this_device() {
        for (url, address) in [
            ("http://127.0.0.1:4141", "127.0.0.1:4141"),
            ("http://localhost:4141/", "localhost:4141"),
            ("http://[::1]:4141/v1", "[::1]:4141"),
            ("http://127.0.0.1", "127.0.0.1:80"),
        ] {
            let Client::Tcp(found) = Client::url(url).unwrap() else {
                panic!("not TCP");
            };
            assert_eq!(found, address);
        }
        for bad in [
            "https://127.0.0.1",
            "http://10.0.0.1:1",
            "127.0.0.1:1",
            "http://127.0.0.1:x",
        ] {
            assert_eq!(Client::url(bad).unwrap_err().code, 2, "{bad}");
        }
    }

    #[test]
    fn without_a_daemon_the_mend_is_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = block_on(Client::control(dir.path()).get("/healthz")).unwrap_err();
        assert_eq!(
            error.what,
            format!(
                "nearfar is not running for state directory {}.",
                dir.path().display()
            )
        );
        assert!(error.mend.unwrap().contains("nearfar serve"));
    }
}
