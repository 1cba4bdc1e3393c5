//! Reads one response, a stream or whole, into the job's events.

use std::time::Duration;

use bytes::Bytes;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::TimeLimits;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};

use crate::bedrock::Frames;
use crate::codec::{Decoder, cut, malformed};
use crate::emit::{Emitter, Gone};
use crate::exchange::{late, no_first_byte};
use crate::sse;

/// A whole answer is refused beyond this, in bytes: it must fit into a frame.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// What is read of a finished answer's rest.
const MAX_REST_BYTES: usize = 64 << 10;
/// How long the end marker and the usage may take once the answer is whole.
const TAIL: Duration = Duration::from_secs(2);
/// How long a finished answer's connection may take to become free for reuse.
const DRAIN: Duration = Duration::from_millis(250);

/// Why a job ended without `Finished`.
pub(crate) enum Stopped {
    Failed(Failure),
    Gone,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Self {
        Stopped::Gone
    }
}

/// An answer that is being read.
pub(crate) struct Reading<'a> {
    pub(crate) provider: &'a str,
    pub(crate) decoder: Decoder,
    pub(crate) limits: TimeLimits,
    pub(crate) emit: &'a Emitter,
}

impl Reading<'_> {
    pub(crate) async fn read(
        mut self,
        mut response: Response,
        first_by: Instant,
        asked_stream: bool,
    ) -> Result<(), Stopped> {
        let first = match timeout_at(first_by, response.chunk()).await {
            Err(_) => return Err(no_first_byte(self.provider, self.limits).into()),
            Ok(Err(_)) => return Err(cut(self.provider).into()),
            Ok(Ok(None)) => return Err(malformed(self.provider, "it is empty").into()),
            Ok(Ok(Some(first))) => first,
        };
        if is_binary_stream(&response) {
            let cutter = Cutter::Frames(Frames::default());
            self.read_stream(response, first, cutter).await
        } else if is_stream(&response, &first, asked_stream) {
            let cutter = Cutter::Events(sse::Parser::default());
            self.read_stream(response, first, cutter).await
        } else {
            self.read_whole(response, first).await
        }
    }

    async fn read_stream(
        &mut self,
        mut response: Response,
        mut piece: Bytes,
        mut cutter: Cutter,
    ) -> Result<(), Stopped> {
        let mut events = Vec::new();
        let (mut lines, mut alive) = (0, Instant::now());
        loop {
            let taken = cutter.push(&piece, self.provider, &mut self.decoder, &mut events);
            // What came before a fault was said, and is given out.
            self.emit.events(&mut events).await?;
            taken?;
            // Bytes that complete no line are no sign of life.
            if cutter.lines() > lines {
                lines = cutter.lines();
                alive = Instant::now();
            }
            if self.decoder.is_complete() {
                drain(response).await;
                return Ok(());
            }
            match self.next(&mut response, alive).await {
                Some(Ok(next)) => piece = next,
                Some(Err(late)) => return Err(late.into()),
                None => break,
            }
        }
        // A last message without its blank line counts; one that was cut in
        // the middle does not read, and the end then says so.
        if let Cutter::Events(mut parser) = cutter
            && let Some(message) = parser.finish()
            && let Err(failure) = self.decoder.message(&message, &mut events)
            && failure.kind != FailureKind::Malformed
        {
            self.emit.events(&mut events).await?;
            return Err(failure.into());
        }
        let ended = self.decoder.end(&mut events);
        self.emit.events(&mut events).await?;
        Ok(ended?)
    }

    /// The next piece; `None` where the stream ended, in whatever way, or where
    /// only its end marker is missing. `alive` is when its last line came.
    async fn next(
        &self,
        response: &mut Response,
        alive: Instant,
    ) -> Option<Result<Bytes, Failure>> {
        let idle = Duration::from_millis(self.limits.idle_ms);
        let whole = self.decoder.may_end();
        let limit = if whole { idle.min(TAIL) } else { idle };
        match timeout_at(alive + limit, response.chunk()).await {
            Ok(Ok(piece)) => piece.map(Ok),
            Ok(Err(_)) => None,
            Err(_) if whole => None,
            Err(_) => Some(Err(late(format!(
                "{} sent nothing more for {} ms",
                self.provider, self.limits.idle_ms
            )))),
        }
    }

    async fn read_whole(&mut self, mut response: Response, first: Bytes) -> Result<(), Stopped> {
        let mut body = Vec::from(first);
        loop {
            match timeout_at(
                Instant::now() + Duration::from_millis(self.limits.idle_ms),
                response.chunk(),
            )
            .await
            {
                Ok(Ok(Some(piece))) if body.len() + piece.len() > MAX_ANSWER_BYTES => {
                    return Err(malformed(self.provider, "it is too long").into());
                }
                Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
                Ok(Ok(None)) => break,
                Ok(Err(_)) => return Err(cut(self.provider).into()),
                Err(_) => {
                    return Err(late(format!(
                        "{} sent nothing more for {} ms",
                        self.provider, self.limits.idle_ms
                    ))
                    .into());
                }
            }
        }
        let mut events = Vec::new();
        let decoded = self.decoder.whole(&body, &mut events);
        self.emit.events(&mut events).await?;
        Ok(decoded?)
    }
}

/// What cuts a stream into the pieces that a decoder takes.
enum Cutter {
    /// Server-sent events.
    Events(sse::Parser),
    /// AWS's binary messages.
    Frames(Frames),
}

impl Cutter {
    /// How many lines or messages were completed so far.
    fn lines(&self) -> u64 {
        match self {
            Cutter::Events(parser) => parser.lines(),
            Cutter::Frames(parser) => parser.messages(),
        }
    }

    /// Appends what the bytes complete, up to the first fault.
    fn push(
        &mut self,
        bytes: &[u8],
        provider: &str,
        decoder: &mut Decoder,
        out: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        let torn = |error: &dyn std::error::Error| malformed(provider, &error.to_string());
        match self {
            Cutter::Events(parser) => {
                let mut messages = Vec::new();
                let parsed = parser.push(bytes, &mut messages);
                for message in &messages {
                    decoder.message(message, out)?;
                }
                parsed.map_err(|error| torn(&error))
            }
            Cutter::Frames(parser) => {
                let mut frames = Vec::new();
                let parsed = parser.push(bytes, &mut frames);
                for frame in &frames {
                    decoder.frame(frame, out)?;
                }
                parsed.map_err(|error| torn(&error))
            }
        }
    }
}

fn content_type(response: &Response) -> String {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_ascii_lowercase)
        .unwrap_or_default()
}

fn is_binary_stream(response: &Response) -> bool {
    content_type(response).contains("amazon.eventstream")
}

/// What the answer is: as its type says, else as its first byte looks.
fn is_stream(response: &Response, first: &[u8], asked: bool) -> bool {
    let named = content_type(response);
    if named.contains("event-stream") {
        true
    } else if named.contains("json") {
        false
    } else {
        let start = first.iter().find(|byte| !byte.is_ascii_whitespace());
        asked && !matches!(start, Some(b'{' | b'['))
    }
}

/// Reads what is left after the end marker, so that the connection is free for
/// the next request.
async fn drain(mut response: Response) {
    let until = Instant::now() + DRAIN;
    let mut room = MAX_REST_BYTES;
    while let Ok(Ok(Some(piece))) = timeout_at(until, response.chunk()).await {
        match room.checked_sub(piece.len()) {
            Some(left) => room = left,
            None => break,
        }
    }
}
