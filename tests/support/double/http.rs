//! HTTP/1.1 by hand: reads requests, writes replies, breaks both on command.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fitting::{fitting, wanted_gap, wanted_status};
use super::repeat::repeated;
use super::script::{Answer, Behaviour, Fault};
use super::{Connection, Seen, State, anthropic, bedrock, bill, gemini, hub, openai};

/// A reply before anything goes wrong with it.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// With a length.
    Whole(Vec<u8>),
    /// Chunked, one chunk per event.
    Events(Vec<String>),
    /// Chunked, one chunk per binary message.
    Frames(Vec<Vec<u8>>),
}

impl Reply {
    pub(super) fn json(body: Value) -> Reply {
        Reply {
            status: 200,
            content_type: "application/json",
            headers: Vec::new(),
            body: Body::Whole(body.to_string().into_bytes()),
        }
    }

    pub(super) fn events(body: Body) -> Reply {
        Reply {
            status: 200,
            content_type: "text/event-stream; charset=utf-8",
            headers: vec![("Cache-Control".to_owned(), "no-cache".to_owned())],
            body,
        }
    }

    pub(super) fn text(status: u16, text: &str) -> Reply {
        Reply {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: Body::Whole(text.as_bytes().to_vec()),
        }
    }

    pub(super) fn error(status: u16, body: String) -> Reply {
        Reply {
            content_type: "application/json",
            ..Reply::text(status, &body)
        }
    }
}

/// Accepts connections until dropped; its connections end with it.
pub(super) async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut all = state.connections.lock().unwrap();
            all.push(Connection {
                opened: Instant::now(),
                closed: None,
            });
            all.len() - 1
        };
        let state = state.clone();
        open.spawn(async move {
            let _ = stream.set_nodelay(true);
            Peer {
                stream,
                number,
                state: state.clone(),
                pending: Vec::new(),
                events: 0,
            }
            .serve()
            .await;
            state.connections.lock().unwrap()[number].closed = Some(Instant::now());
        });
        while open.try_join_next().is_some() {}
    }
}

struct Peer {
    stream: TcpStream,
    number: usize,
    state: Arc<State>,
    /// Read and not yet used.
    pending: Vec<u8>,
    /// Events of the reply under way that were sent.
    events: usize,
}

/// The connection is over.
struct Over;

impl Peer {
    async fn serve(mut self) {
        while let Some(request) = self.request().await {
            let place = {
                let mut all = self.state.requests.lock().unwrap();
                all.push(request.clone());
                all.len() - 1
            };
            let behaviour = self.behaviour();
            let reply = reply(&self.state, &request, &behaviour);
            let (status, faultless) = (reply.status, matches!(behaviour.fault, Fault::None));
            self.events = 0;
            let wire_format = Wire::of(&request.path);
            let told = behaviour.answer.as_ref().map(|answer| answer.gap);
            let gap = told.unwrap_or_else(|| wanted_gap(&wire_format.as_openai(&request.json())));
            let kept = self
                .meet(reply, behaviour.fault, gap, wire_format, place)
                .await;
            let whole = kept.is_ok() && faultless;
            let bill = bill::of(&request.json(), self.events, status, whole);
            {
                let mut all = self.state.requests.lock().unwrap();
                all[place].over = true;
                all[place].bill = bill;
            }
            if kept.is_err() {
                return;
            }
        }
    }

    fn behaviour(&self) -> Behaviour {
        let next = self.state.queue.lock().unwrap().pop_front();
        next.or_else(|| self.state.always.lock().unwrap().clone())
            .unwrap_or_default()
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer).await {
            Ok(count) if count > 0 => self.pending.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
        Some(())
    }

    async fn request(&mut self) -> Option<Seen> {
        let end = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            // Somebody begins with TLS.
            if self.pending.first() == Some(&0x16) {
                return None;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.pending.drain(..end).collect()).ok()?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let find_header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let length: usize = find_header("content-length").map_or(0, |v| v.parse().unwrap_or(0));
        while self.pending.len() < length {
            self.more().await?;
        }
        Some(Seen {
            connection: self.number,
            method,
            path,
            headers,
            body: self.pending.drain(..length).collect(),
            at: Instant::now(),
            sent: 0,
            closed_early: false,
            over: false,
            bill: None,
        })
    }

    /// Writes a reply, or what is left of it.
    async fn meet(
        &mut self,
        reply: Reply,
        fault: Fault,
        gap: Duration,
        wire_format: Wire,
        place: usize,
    ) -> Result<(), Over> {
        match fault {
            Fault::ResetBeforeHeaders => return self.reset(),
            Fault::CloseBeforeHeaders => return Err(Over),
            Fault::StallBeforeHeaders => return self.stall(place).await,
            Fault::SlowHeaders(pause) => {
                for byte in b"HTTP/1.1 200 OK\r\nx-slow: "
                    .iter()
                    .chain(std::iter::repeat(&b'a'))
                {
                    self.write(&[*byte], place).await?;
                    self.pause(pause, place).await?;
                }
            }
            _ => {}
        }
        let (head, pieces, chunked) = wire(reply);
        self.write(head.as_bytes(), place).await?;
        let pieces = distort(pieces, &fault, wire_format);
        for (number, piece) in pieces.iter().enumerate() {
            match fault {
                Fault::StallBeforeBody => return self.stall(place).await,
                Fault::Stall { after } if after == number => return self.stall(place).await,
                Fault::Cut { after, reset } if after == number => {
                    // Half of the piece, so that the cut is inside an event.
                    let bytes = framed(piece, chunked);
                    self.write(&bytes[..bytes.len() / 2], place).await?;
                    // Lets the bytes go out before a reset takes them back.
                    self.pause(Duration::from_millis(30), place).await?;
                    return if reset { self.reset() } else { Err(Over) };
                }
                Fault::CutInside { text, bytes } => {
                    if let Some(at) = find(piece, text.as_bytes()) {
                        // The chunk's frame says how long it would have been.
                        let frame = framed(piece, chunked).len() - piece.len() - 2;
                        let bytes = &framed(piece, chunked)[..frame + at + bytes];
                        self.write(bytes, place).await?;
                        self.pause(Duration::from_millis(30), place).await?;
                        return Err(Over);
                    }
                }
                Fault::Drip { after, pause } if number >= after => {
                    for byte in framed(piece, chunked) {
                        self.write(&[byte], place).await?;
                        self.pause(pause, place).await?;
                    }
                    continue;
                }
                Fault::End { after } if after == number => break,
                Fault::CutFile { after_bytes } => {
                    let kept = &piece[..after_bytes.min(piece.len())];
                    self.write(kept, place).await?;
                    self.pause(Duration::from_millis(30), place).await?;
                    return Err(Over);
                }
                _ => {}
            }
            if !gap.is_zero() {
                self.pause(gap, place).await?;
            }
            let bytes = framed(piece, chunked);
            if matches!(fault, Fault::ByteByByte) {
                for byte in bytes {
                    self.write(&[byte], place).await?;
                    tokio::task::yield_now().await;
                }
            } else {
                self.write(&bytes, place).await?;
            }
            self.events = number + 1;
        }
        if chunked {
            self.write(b"0\r\n\r\n", place).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], place: usize) -> Result<(), Over> {
        let written = self.stream.write_all(bytes).await;
        let mut all = self.state.requests.lock().unwrap();
        match written {
            Ok(()) => {
                all[place].sent += bytes.len();
                Ok(())
            }
            Err(_) => {
                all[place].closed_early = true;
                Err(Over)
            }
        }
    }

    /// Waits, and notices if the client goes away meanwhile.
    async fn pause(&mut self, time: Duration, place: usize) -> Result<(), Over> {
        let gone = tokio::select! {
            () = tokio::time::sleep(time) => false,
            more = self.more() => more.is_none(),
        };
        if gone {
            self.state.requests.lock().unwrap()[place].closed_early = true;
            return Err(Over);
        }
        Ok(())
    }

    async fn stall(&mut self, place: usize) -> Result<(), Over> {
        loop {
            self.pause(Duration::from_secs(3600), place).await?;
        }
    }

    fn reset(&self) -> Result<(), Over> {
        // Closing then sends RST instead of FIN.
        let _ = self.stream.set_zero_linger();
        Err(Over)
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The right reply to a request.
fn reply(state: &State, request: &Seen, behaviour: &Behaviour) -> Reply {
    let wire_format = Wire::of(&request.path);
    let error = |status| wire_format.error(status);
    match &behaviour.fault {
        Fault::Status {
            status,
            headers,
            body,
        } => {
            let body = body.clone().unwrap_or_else(|| error(*status));
            let mut reply = Reply::error(*status, body);
            let headers = headers.iter();
            reply.headers = headers.map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
            if wire_format == Wire::Bedrock {
                let name = bedrock::error(*status).0.to_owned();
                reply.headers.push(("x-amzn-ErrorType".to_owned(), name));
            }
            return reply;
        }
        Fault::EmptyBody => return Reply::error(200, String::new()),
        Fault::Page => {
            let mut reply = Reply::text(200, "<!doctype html><title>Sign in</title>");
            reply.content_type = "text/html; charset=utf-8";
            return reply;
        }
        Fault::GzipBomb => {
            let mut reply = Reply::error(200, String::new());
            reply.headers = vec![("Content-Encoding".to_owned(), "gzip, gzip".to_owned())];
            reply.body = Body::Whole(BOMB.to_vec());
            return reply;
        }
        Fault::Garbage => return Reply::error(200, "{\"choices\": [{]".to_owned()),
        _ => {}
    }
    let provider_path = request.path.starts_with("/v1/") || wire_format.is_googles_or_awss();
    if provider_path && let Some(key) = state.key.lock().unwrap().as_ref() {
        let bearer = format!("Bearer {key}");
        let given = [
            request.header("authorization"),
            request.header("x-api-key"),
            request.header("x-goog-api-key"),
            request.header("api-key"),
        ];
        if !given.contains(&Some(key)) && !given.contains(&Some(bearer.as_str())) {
            return Reply::error(401, error(401));
        }
    }
    let body = request.json();
    let asked = wire_format.as_openai(&body);
    if behaviour.answer.is_none()
        && let Some(status) = wanted_status(&asked)
    {
        return Reply::error(status, error(status));
    }
    let answer = behaviour.answer.clone();
    let answer = answer.or_else(|| rest(state, &asked));
    let repeats = state.repeats.load(Ordering::Relaxed);
    let answer = answer.or_else(|| repeated(&asked).filter(|_| repeats));
    let answer = answer.unwrap_or_else(|| fitting(&asked));
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v1/chat/completions") => openai::chat(&body, &answer),
        ("POST", "/v1/completions") => openai::completion(&body, &answer),
        ("POST", "/v1/embeddings") => openai::embeddings(&body),
        ("POST", "/v1/messages") => anthropic::messages(&body, &answer),
        ("POST", path) if wire_format == Wire::Gemini => gemini::generate(path, &body, &answer),
        ("POST", path) if wire_format == Wire::Bedrock => bedrock::converse(path, &answer),
        // Azure's addresses, with a deployment or without.
        ("POST", path) if azure(path) => openai::chat(&body, &answer),
        ("GET", "/v1/models") => openai::models(),
        ("GET" | "HEAD", path) if path.contains("/resolve/") || path.starts_with("/cdn/") => {
            hub::resolve(state, request)
        }
        _ => Reply::error(404, error(404)),
    }
}

/// What is left to say of the double's text.
fn rest(state: &State, request: &Value) -> Option<Answer> {
    let text = state.text.lock().unwrap().clone()?;
    let last = request["messages"].as_array()?.last()?;
    let content = &last["content"];
    let said = content.as_str().or(content[0]["text"].as_str());
    let begun = said.filter(|_| last["role"] == "assistant");
    Some(Answer::text(text.strip_prefix(begun.unwrap_or_default())?))
}

/// `/openai/v1/…` and `/openai/deployments/NAME/…?api-version=…`.
fn azure(path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let versioned = path.starts_with("/openai/deployments/") && query.starts_with("api-version=");
    (versioned || path.starts_with("/openai/v1/")) && path.ends_with("/chat/completions")
}

/// Whose wire format a path belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Openai,
    Anthropic,
    Gemini,
    Bedrock,
}

impl Wire {
    fn of(path: &str) -> Wire {
        if path.ends_with("/messages") {
            Wire::Anthropic
        } else if gemini::call_of(path).is_some() {
            Wire::Gemini
        } else if bedrock::is_it(path) {
            Wire::Bedrock
        } else {
            Wire::Openai
        }
    }

    fn is_googles_or_awss(self) -> bool {
        matches!(self, Wire::Gemini | Wire::Bedrock)
    }

    /// A request in words that an answer can be made to follow from.
    fn as_openai(self, body: &Value) -> Value {
        match self {
            Wire::Openai | Wire::Anthropic => body.clone(),
            Wire::Gemini => gemini::as_openai(body),
            Wire::Bedrock => bedrock::as_openai(body),
        }
    }

    fn error(self, status: u16) -> String {
        match self {
            Wire::Openai => openai::error(status),
            Wire::Anthropic => anthropic::error(status),
            Wire::Gemini => gemini::error(status),
            Wire::Bedrock => bedrock::error(status).1,
        }
    }

    fn error_event(self) -> Vec<u8> {
        match self {
            Wire::Openai => openai::error_event().into_bytes(),
            Wire::Anthropic => anthropic::error_event().into_bytes(),
            Wire::Gemini => gemini::error_event().into_bytes(),
            Wire::Bedrock => bedrock::error_frame(),
        }
    }
}

/// Head, pieces of the body, and whether they are chunks.
fn wire(reply: Reply) -> (String, Vec<Vec<u8>>, bool) {
    let reason = match reply.status {
        200 => "OK",
        206 => "Partial Content",
        302 => "Found",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Status",
    };
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\nDate: Mon, 24 Nov 2025 08:00:00 GMT\r\nContent-Type: {}\r\n",
        reply.status, reply.content_type
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let (pieces, chunked) = match reply.body {
        Body::Whole(bytes) => {
            head.push_str(&format!("Content-Length: {}\r\n", bytes.len()));
            (vec![bytes], false)
        }
        Body::Events(events) => {
            head.push_str("Transfer-Encoding: chunked\r\n");
            let bytes = events.into_iter().map(String::into_bytes);
            (bytes.collect(), true)
        }
        Body::Frames(frames) => {
            head.push_str("Transfer-Encoding: chunked\r\n");
            (frames, true)
        }
    };
    head.push_str("\r\n");
    (head, pieces, chunked)
}

fn framed(piece: &[u8], chunked: bool) -> Vec<u8> {
    if !chunked {
        return piece.to_vec();
    }
    let mut out = format!("{:x}\r\n", piece.len()).into_bytes();
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
    out
}

/// 64 MiB of spaces, packed twice by `gzip -9`.
const BOMB: &[u8] = include_bytes!("bomb.gz");

/// The body's pieces under faults that change the text itself.
fn distort(mut pieces: Vec<Vec<u8>>, fault: &Fault, wire_format: Wire) -> Vec<Vec<u8>> {
    match fault {
        Fault::Crlf => {
            for piece in &mut pieces {
                let text = String::from_utf8_lossy(piece).replace("\r\n", "\n");
                *piece = text.replace('\n', "\r\n").into_bytes();
            }
        }
        Fault::BadEvent { after } => {
            let at = (*after).min(pieces.len());
            pieces.insert(at, b"data: {\"choices\": [{\"delta\": \n\n".to_vec());
        }
        Fault::Twice => {
            let rest = pieces.len().saturating_sub(3);
            let twice = |number: usize| number == 0 || number >= rest;
            pieces = pieces
                .into_iter()
                .enumerate()
                .flat_map(|(number, piece)| vec![piece; 1 + usize::from(twice(number))])
                .collect();
        }
        Fault::WrongUsage => {
            for piece in &mut pieces {
                let text = String::from_utf8_lossy(piece);
                *piece = text
                    .replace("\"prompt_tokens\":21", "\"prompt_tokens\":-21")
                    .replace("\"completion_tokens\":5", "\"completion_tokens\":\"five\"")
                    .into_bytes();
            }
        }
        Fault::NoEndMarker => {
            pieces.pop();
        }
        Fault::NoLastBlankLine => {
            if let Some(last) = pieces.last_mut() {
                last.truncate(last.len() - 2);
            }
        }
        Fault::ErrorEvent { after } => {
            pieces.truncate(*after);
            pieces.push(wire_format.error_event());
        }
        _ => {}
    }
    pieces
}
