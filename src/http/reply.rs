//! An [`Answer`] on its way to the client: headers, and the body whole or as a
//! stream, in the form that the request's dialect gave.
//!
//! Dropping the reply drops the answer's events, which cancels the leg. hyper
//! drops it when it sees the client go, and it watches for that also while the
//! leg is silent, because the body here is polled and never waits by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use nearfar_domain::events::Event;
use tokio::time::{Instant, Sleep};

use super::collect::{collect, cut_off};
use super::dialect::{About, Chunks, Form};
use super::limits::Quotas;
use super::problem::Problem;
use crate::road::{Answer, EventStream};

/// How long a stream may be silent before something keeps it alive: below the
/// idle limits of common proxies and clients.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes of chunks that are handed to hyper at once.
const BATCH_BYTES: usize = 16 << 10;

/// How the client wants its answer.
pub(crate) struct Wish {
    pub(crate) form: Box<dyn Form>,
    pub(crate) stream: bool,
}

/// Turns an answer into a response. Whole answers are awaited here.
pub(crate) async fn reply(answer: Answer, wish: Wish) -> Response {
    let about = About::of(&answer);
    let wish_is_stream = wish.stream;
    let named = [
        ("x-nearfar-decision", answer.decision.to_string()),
        ("x-nearfar-target", answer.target.to_string()),
        ("x-nearfar-zone", answer.zone.to_string()),
        ("x-nearfar-reason", answer.reason.as_str().to_owned()),
        ("x-nearfar-attempt", answer.attempt.to_string()),
    ];
    let quotas = Quotas(answer.quotas);
    let cache = answer.cache;
    let bill = answer.bill.clone();
    let mut response = if wish.stream {
        stream(answer.events, wish.form.chunks(about), KEEP_ALIVE)
    } else {
        let whole = collect(answer.events).await;
        match whole.and_then(|whole| wish.form.whole(&about, &whole)) {
            Ok(body) => json(StatusCode::OK, &body),
            Err(failure) => {
                return Problem::failed(&failure)
                    .of_leg(about.decision, about.target)
                    .into_response();
            }
        }
    };
    // Of a stream the cost is known when its headers are long gone.
    let cost = bill.get().copied().flatten();
    if let (false, Some(micro)) = (wish_is_stream, cost) {
        response
            .headers_mut()
            .insert("x-nearfar-cost", units(micro));
    }
    for (name, value) in named {
        // A provider's model may have a name that no header can carry.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    if !quotas.0.is_empty() {
        response.extensions_mut().insert(quotas);
    }
    if let Some(part) = cache {
        let headers = response.headers_mut();
        headers.insert(
            HeaderName::from_static("x-nearfar-cache"),
            HeaderValue::from_static(part.outcome.as_str()),
        );
        if let Some(age) = part.age {
            headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
        }
    }
    response
}

/// Currency units, to the last micro-unit.
fn units(micro: u64) -> HeaderValue {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    // Digits and a point are always a header's value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, body.to_string()).into_response()
}

/// `quiet` is the longest silence before something fills it.
fn stream(events: EventStream, chunks: Box<dyn Chunks>, quiet: Duration) -> Response {
    let content_type = chunks.content_type();
    let body = Streamed {
        events: Some(events),
        chunks,
        quiet,
        since: Instant::now(),
        silence: Box::pin(tokio::time::sleep(quiet)),
    };
    let headers = [
        (header::CONTENT_TYPE.as_str(), content_type),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        // Asks a proxy in between not to hold the chunks back.
        ("x-accel-buffering", "no"),
    ];
    (StatusCode::OK, headers, Body::from_stream(body)).into_response()
}

/// The body of a stream.
struct Streamed {
    /// Until the last event came.
    events: Option<EventStream>,
    chunks: Box<dyn Chunks>,
    quiet: Duration,
    /// When the last bytes went out.
    since: Instant,
    /// Runs since some earlier bytes: it is not set anew for each chunk, but
    /// when it rings too early.
    silence: Pin<Box<Sleep>>,
}

impl Streamed {
    /// What has come by now as chunks; empty when nothing has.
    fn ready(&mut self, cx: &mut Context<'_>) -> String {
        let mut out = String::new();
        while let Some(events) = &mut self.events
            && out.len() < BATCH_BYTES
        {
            let Poll::Ready(event) = events.as_mut().poll_next(cx) else {
                break;
            };
            let event = event.unwrap_or_else(|| Event::Failed(cut_off()));
            if event.is_last() {
                // Settles the account now, not when the client has read it all.
                self.events = None;
            }
            self.chunks.push(event, &mut out);
        }
        out
    }
}

impl Streamed {
    /// Whether it has been silent for too long. Until then, wakes the task when
    /// it will be.
    fn is_too_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        while self.silence.as_mut().poll(cx).is_ready() {
            let until = self.since + self.quiet;
            if until <= Instant::now() {
                self.silence.as_mut().reset(Instant::now() + self.quiet);
                return true;
            }
            self.silence.as_mut().reset(until);
        }
        false
    }
}

impl Stream for Streamed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut out = self.ready(cx);
        if out.is_empty() {
            if self.events.is_none() {
                return Poll::Ready(None);
            }
            if !self.is_too_quiet(cx) {
                return Poll::Pending;
            }
            self.chunks.keep_alive(&mut out);
            if out.is_empty() {
                // Nothing keeps this dialect's streams alive: on to the next silence.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.since = Instant::now();
        Poll::Ready(Some(Ok(Bytes::from(out))))
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
