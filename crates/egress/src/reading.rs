//! Reads one response, a stream or whole, into the job's events.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::TimeLimits;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::bedrock::Frames;
use crate::codec::{Decoder, cut, malformed};
use crate::emit::{Emitter, Gone};
use crate::exchange::{late, no_first_byte};
use crate::sse;

/// A whole answer is refused beyond this, in bytes: it must fit into a frame.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Of an answer that is wanted whole, about this much is read at once.
const MAX_GATHERED_BYTES: usize = 64 << 10;
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
    /// Whether text that came in one piece of the stream may go out as one.
    pub(crate) joined: bool,
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
        let mut alarm = std::pin::pin!(sleep_until(alive));
        loop {
            let mut ended = false;
            if self.joined {
                (piece, ended) = gather(&mut response, piece).await;
            }
            let taken = cutter.push(&piece, self.provider, &mut self.decoder, &mut events);
            if self.joined {
                join(&mut events);
            }
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
            if ended {
                break;
            }
            match self.next(&mut response, alive, alarm.as_mut()).await {
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
    /// `alarm` may ring too early: it is not set anew for each piece.
    async fn next(
        &self,
        response: &mut Response,
        alive: Instant,
        mut alarm: Pin<&mut Sleep>,
    ) -> Option<Result<Bytes, Failure>> {
        let idle = Duration::from_millis(self.limits.idle_ms);
        let whole = self.decoder.may_end();
        let limit = if whole { idle.min(TAIL) } else { idle };
        let due = alive + limit;
        if alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        loop {
            tokio::select! {
                biased;
                // Nothing is lost when it is asked again.
                piece = response.chunk() => return piece.ok().flatten().map(Ok),
                () = &mut alarm => {}
            }
            if Instant::now() < due {
                alarm.as_mut().reset(due);
            } else if whole {
                return None;
            } else {
                return Some(Err(late(format!(
                    "{} sent nothing more for {} ms",
                    self.provider, self.limits.idle_ms
                ))));
            }
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

/// Adds what is at hand to a piece, and says whether the stream ended there. What
/// the network brings at once comes in as many pieces as the provider wrote.
async fn gather(response: &mut Response, first: Bytes) -> (Bytes, bool) {
    let mut gathered = Vec::new();
    let together = |gathered: Vec<u8>| match gathered.is_empty() {
        true => first.clone(),
        false => Bytes::from(gathered),
    };
    loop {
        let mut next = response.chunk().now_or_never();
        if next.is_none() {
            // The connection has its turn: it may hold one more.
            tokio::task::yield_now().await;
            next = response.chunk().now_or_never();
        }
        match next {
            None => return (together(gathered), false),
            Some(Ok(None) | Err(_)) => return (together(gathered), true),
            Some(Ok(Some(more))) => {
                if gathered.is_empty() {
                    gathered.extend_from_slice(&first);
                }
                gathered.extend_from_slice(&more);
            }
        }
        if gathered.len() > MAX_GATHERED_BYTES {
            return (together(gathered), false);
        }
    }
}

/// Makes one event of texts that follow each other.
fn join(events: &mut Vec<Event>) {
    events.dedup_by(|next, last| match (last, next) {
        (Event::Content(last), Event::Content(next))
        | (Event::Reasoning(last), Event::Reasoning(next)) => {
            last.push_str(next);
            true
        }
        _ => false,
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_of_one_kind_that_follow_each_other_are_joined() {
        let content = |text: &str| Event::Content(text.into());
        let thought = |text: &str| Event::Reasoning(text.into());
        let logprobs = || Event::Logprobs(Vec::new());
        let mut events = vec![
            thought("a"),
            thought("b"),
            content("c"),
            content("d"),
            content("e"),
            logprobs(),
            content("f"),
        ];
        join(&mut events);
        let expected = vec![thought("ab"), content("cde"), logprobs(), content("f")];
        assert_eq!(events, expected);
    }
}
