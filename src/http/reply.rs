//! An [`Answer`] on its way to the client: headers, and the body whole or as
//! server-sent events.
//!
//! Dropping the reply drops the answer's events, which cancels the leg. hyper
//! drops it when it sees the client go, and it watches for that also while the
//! leg is silent, because the body here is polled and never waits by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use nearfar_domain::events::Event;
use tokio::time::{Instant, Sleep};

use super::openai::shape::{self, Head};
use super::openai::{chat, embeddings, text};
use super::problem::Problem;
use crate::road::{Answer, EventStream};

/// How long a stream may be silent before a comment keeps it alive: below the
/// idle limits of common proxies and clients.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes of chunks that are handed to hyper at once.
const BATCH_BYTES: usize = 16 << 10;

/// The form of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`, with the prompt where the client wants it back.
    Text { echo: Option<String> },
    /// `/v1/embeddings`: never a stream.
    Vectors { base64: bool },
}

/// How the client wants its answer.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) form: Form,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// Turns an answer into a response. Whole answers are awaited here.
pub(crate) async fn reply(answer: Answer, wish: Wish) -> Response {
    let prefix = match wish.form {
        Form::Chat => "chatcmpl-",
        Form::Text { .. } => "cmpl-",
        Form::Vectors { .. } => "embd-",
    };
    let head = Head::of(&answer, prefix);
    let named = [
        ("x-nearfar-decision", answer.decision.to_string()),
        ("x-nearfar-target", answer.target.to_string()),
        ("x-nearfar-zone", answer.zone.to_string()),
        ("x-nearfar-reason", answer.reason.as_str().to_owned()),
        ("x-nearfar-attempt", answer.attempt.to_string()),
    ];
    let (decision, target) = (answer.decision, answer.target);
    let mut response = if wish.stream {
        stream(answer.events, head, wish, KEEP_ALIVE)
    } else {
        match shape::collect(answer.events).await {
            Ok(whole) => {
                let body = match &wish.form {
                    Form::Chat => chat::whole(&head, &whole),
                    Form::Text { echo } => text::whole(&head, &whole, echo.as_deref()),
                    Form::Vectors { base64 } => embeddings::whole(&head, &whole, *base64),
                };
                json(StatusCode::OK, &body)
            }
            Err(failure) => {
                return Problem::failed(&failure)
                    .of_leg(decision, target)
                    .into_response();
            }
        }
    };
    for (name, value) in named {
        // A provider's model may have a name that no header can carry.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, body.to_string()).into_response()
}

/// `quiet` is the longest silence before a comment fills it.
fn stream(events: EventStream, head: Head, wish: Wish, quiet: Duration) -> Response {
    let chunks = match wish.form {
        // Vectors are not asked for as a stream.
        Form::Chat | Form::Vectors { .. } => {
            Chunks::Chat(chat::Chunks::new(head, wish.include_usage))
        }
        Form::Text { echo } => Chunks::Text(text::Chunks::new(head, wish.include_usage, echo)),
    };
    let body = Sse {
        events: Some(events),
        chunks,
        quiet,
        silence: Box::pin(tokio::time::sleep(quiet)),
    };
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        // Asks a proxy in between not to hold the chunks back.
        ("x-accel-buffering", "no"),
    ];
    (StatusCode::OK, headers, Body::from_stream(body)).into_response()
}

enum Chunks {
    Chat(chat::Chunks),
    Text(text::Chunks),
}

impl Chunks {
    fn push(&mut self, event: Event, out: &mut String) {
        match self {
            Chunks::Chat(chunks) => chunks.push(event, out),
            Chunks::Text(chunks) => chunks.push(event, out),
        }
    }
}

/// The body of a stream.
struct Sse {
    /// Until the last event came.
    events: Option<EventStream>,
    chunks: Chunks,
    quiet: Duration,
    /// Runs since the last bytes.
    silence: Pin<Box<Sleep>>,
}

impl Sse {
    /// What has come by now as chunks; empty when nothing has.
    fn ready(&mut self, cx: &mut Context<'_>) -> String {
        let mut out = String::new();
        while let Some(events) = &mut self.events
            && out.len() < BATCH_BYTES
        {
            let Poll::Ready(event) = events.as_mut().poll_next(cx) else {
                break;
            };
            let event = event.unwrap_or_else(|| Event::Failed(shape::cut_off()));
            if event.is_last() {
                // Settles the account now, not when the client has read it all.
                self.events = None;
            }
            self.chunks.push(event, &mut out);
        }
        out
    }
}

impl Stream for Sse {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let out = self.ready(cx);
        if out.is_empty() {
            if self.events.is_none() {
                return Poll::Ready(None);
            }
            if self.silence.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let until = Instant::now() + self.quiet;
        self.silence.as_mut().reset(until);
        let bytes = if out.is_empty() {
            Bytes::from_static(b": keep-alive\n\n")
        } else {
            Bytes::from(out)
        };
        Poll::Ready(Some(Ok(bytes)))
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
