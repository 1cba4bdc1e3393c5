//! One job: a request out, its answer back as events.
//!
//! Dropping the future closes the connection (HTTP/1) or resets its stream
//! (HTTP/2): that is how a job is cancelled. Nothing is read ahead of what the
//! gate takes, beyond one piece and the connection's own window.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::{DownloadEvent, EgressJob, FromEgress, TimeLimits};
use nearfar_domain::ids::JobId;
use nearfar_domain::target::Dialect;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Clients, SentBody};
use crate::codec::{self, Decoder, Encoded, cut, malformed};
use crate::provider::{KeySource, Provider};
use crate::secrets::Key;
use crate::sse;
use crate::upstream::{Said, retry_after_ms, scrub};

/// A whole answer is refused beyond this, in bytes: it must fit into a frame.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// An error's body is read this far.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// How long the end marker and the usage may take once the answer is whole.
const TAIL: Duration = Duration::from_secs(2);
/// How long a finished answer's connection may take to become free for reuse.
const DRAIN: Duration = Duration::from_millis(250);

/// A provider with its key.
pub(crate) struct Upstream {
    pub(crate) provider: Provider,
    pub(crate) key: Key,
}

/// Where a job's events go.
#[derive(Clone)]
pub(crate) struct Emitter {
    job: JobId,
    frames: mpsc::Sender<FromEgress>,
    /// Whether the job's last event is out: a cancellation that comes then is
    /// too late to be one.
    ended: Arc<AtomicBool>,
}

/// The gate is gone: nobody wants the rest.
pub(crate) struct Gone;

impl Emitter {
    pub(crate) fn new(job: JobId, frames: mpsc::Sender<FromEgress>) -> Self {
        Self {
            job,
            frames,
            ended: Arc::default(),
        }
    }

    /// Waits until the gate takes it. Nothing goes out after a last event.
    pub(crate) async fn event(&self, event: Event) -> Result<(), Gone> {
        let last = event.is_last();
        let job = self.job;
        self.send(FromEgress::Event { job, event }, last).await
    }

    /// As [`Emitter::event`], for a download.
    pub(crate) async fn download(&self, event: DownloadEvent) -> Result<(), Gone> {
        let last = !matches!(event, DownloadEvent::Progress { .. });
        let job = self.job;
        self.send(FromEgress::Download { job, event }, last).await
    }

    async fn send(&self, frame: FromEgress, last: bool) -> Result<(), Gone> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.frames.send(frame).await.map_err(|_| Gone)?;
        if last {
            self.ended.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn events(&self, events: &mut Vec<Event>) -> Result<(), Gone> {
        for event in events.drain(..) {
            self.event(event).await?;
        }
        Ok(())
    }
}

/// Why a job ended without `Finished`.
enum Stopped {
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

/// Runs a job to its last event.
pub(crate) async fn run(job: EgressJob, upstream: &Upstream, clients: &Clients, emit: &Emitter) {
    let deadline = Instant::now() + Duration::from_millis(job.limits.total_ms);
    let provider = upstream.provider.name.as_str();
    let total_ms = job.limits.total_ms;
    let stopped = match timeout_at(deadline, answer(job, upstream, clients, emit)).await {
        Ok(Ok(())) | Ok(Err(Stopped::Gone)) => return,
        Ok(Err(Stopped::Failed(failure))) => failure,
        Err(_) => late(format!(
            "{provider} did not finish its answer within {total_ms} ms"
        )),
    };
    let mut failure = stopped;
    let key = upstream.key.get();
    scrub(&mut failure, key.as_ref().map(|key| key.expose_secret()));
    tracing::info!(
        provider,
        kind = failure.kind.as_str(),
        status = failure.upstream_status,
        "a provider's answer failed"
    );
    // A gate that is gone needs no last event.
    let _ = emit.event(Event::Failed(failure)).await;
}

async fn answer(
    job: EgressJob,
    upstream: &Upstream,
    clients: &Clients,
    emit: &Emitter,
) -> Result<(), Stopped> {
    let provider = &upstream.provider;
    let (model, stream, limits) = (job.model, job.stream, job.limits);
    let chat = job.chat.into_chat();
    let encoded = codec::encode(provider.dialect, &provider.base_url, &chat, &model, stream)
        .map_err(Failure::from)?;
    drop(chat);
    let client = clients.get(limits.connect_ms).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            format!("the HTTP client cannot be set up: {error}"),
        )
    })?;
    let body = Bytes::from(encoded.body);
    let outline = Encoded {
        body: Vec::new(),
        ..encoded
    };
    let mut tried_again = false;
    let (response, first_by) = loop {
        let headers = headers(upstream, &outline, stream)?;
        let request = client.post(url(provider, outline.path)).headers(headers);
        let sent = send(request, body.clone(), provider, limits).await?;
        let refused = sent.0.status() == StatusCode::UNAUTHORIZED;
        // The key may have been replaced on disk since it was read.
        if refused && !std::mem::replace(&mut tried_again, true) && upstream.key.reread() {
            continue;
        }
        break sent;
    };
    drop(body);
    if !response.status().is_success() {
        return Err(error_of(response, upstream, limits).await.into());
    }
    let decoder = Decoder::new(
        provider.dialect,
        &provider.name,
        &model,
        emit.job.0 ^ u64::from(std::process::id()),
    );
    let reading = Reading {
        provider: &provider.name,
        decoder,
        limits,
        emit,
    };
    reading.read(response, first_by, stream).await
}

/// Sends the request. Returns the response's head, and the moment by which the
/// answer's first byte must be there.
async fn send(
    request: reqwest::RequestBuilder,
    body: Bytes,
    provider: &Provider,
    limits: TimeLimits,
) -> Result<(Response, Instant), Failure> {
    let first_byte = Duration::from_millis(limits.first_byte_ms);
    let (body, mut sent) = SentBody::new(body);
    let sending = request.body(reqwest::Body::wrap(body)).send();
    let waiting = async {
        // If the sender is dropped, `sending` itself ends with an error.
        let Ok(at) = sent.wait_for(Option::is_some).await.map(|at| *at) else {
            return std::future::pending().await;
        };
        sleep_until(at.unwrap_or_else(Instant::now) + first_byte).await;
    };
    let response = tokio::select! {
        biased;
        response = sending => response.map_err(|error| transport(provider, &error, limits))?,
        () = waiting => return Err(no_first_byte(&provider.name, limits)),
    };
    let at = sent.borrow().unwrap_or_else(Instant::now);
    Ok((response, at + first_byte))
}

fn headers(upstream: &Upstream, encoded: &Encoded, stream: bool) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accept = if stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    for (name, value) in encoded.headers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    if upstream.provider.key == KeySource::None {
        return Ok(headers);
    }
    let signed = upstream
        .key
        .get()
        .and_then(|key| sign(upstream.provider.dialect, &key));
    let Some((name, value)) = signed else {
        return Err(Failure::new(
            FailureKind::Unauthorized,
            format!(
                "there is no key for {}: put it into {}",
                upstream.provider.name,
                upstream.key.place()
            ),
        ));
    };
    headers.insert(name, value);
    Ok(headers)
}

fn sign(
    dialect: Dialect,
    key: &SecretString,
) -> Option<(reqwest::header::HeaderName, HeaderValue)> {
    let (name, text) = match dialect {
        Dialect::Openai => (
            AUTHORIZATION,
            Zeroizing::new(format!("Bearer {}", key.expose_secret())),
        ),
        Dialect::Anthropic => (
            reqwest::header::HeaderName::from_static("x-api-key"),
            Zeroizing::new(key.expose_secret().to_owned()),
        ),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    // Keeps it out of every Debug, and out of HTTP/2's header tables.
    value.set_sensitive(true);
    Some((name, value))
}

fn url(provider: &Provider, path: &str) -> String {
    let base = provider.base_url.trim_end_matches('/');
    let base = match provider.dialect {
        Dialect::Openai => base,
        // The path has it.
        Dialect::Anthropic => base.strip_suffix("/v1").unwrap_or(base),
    };
    format!("{base}{path}")
}

/// The failure behind a status that is not a success.
async fn error_of(mut response: Response, upstream: &Upstream, limits: TimeLimits) -> Failure {
    let provider = &upstream.provider;
    let status = response.status();
    let header = |name: &str| {
        response
            .headers()
            .get(name)?
            .to_str()
            .ok()
            .map(str::to_owned)
    };
    let wait = retry_after_ms(
        header("retry-after-ms").as_deref(),
        header(RETRY_AFTER.as_str()).as_deref(),
        SystemTime::now(),
    );
    let until = Instant::now() + Duration::from_millis(limits.idle_ms);
    let mut body = Vec::new();
    // What was read of a body that stalls or breaks off is still of use.
    while let Ok(Ok(Some(piece))) = timeout_at(until, response.chunk()).await {
        let room = MAX_ERROR_BYTES - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if body.len() == MAX_ERROR_BYTES {
            break;
        }
    }
    let key = upstream.key.get();
    let key = key.as_ref().map(|key| key.expose_secret());
    let mut failure = Said::read(&body).failure(&provider.name, Some(status.as_u16()), key);
    failure.retry_after_ms = wait;
    if failure.kind == FailureKind::Unauthorized {
        failure.message = format!("{}: look at {}", failure.message, upstream.key.place());
    } else if status.is_redirection() {
        failure.message = format!(
            "{} redirects elsewhere, which is not followed: correct its base_url",
            provider.name
        );
    } else if status == StatusCode::NOT_FOUND && failure.kind == FailureKind::TargetError {
        failure.message = format!("{}: is its base_url right?", failure.message);
    }
    failure
}

/// An answer that is being read.
struct Reading<'a> {
    provider: &'a str,
    decoder: Decoder,
    limits: TimeLimits,
    emit: &'a Emitter,
}

impl Reading<'_> {
    async fn read(
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
        if is_stream(&response, &first, asked_stream) {
            self.read_stream(response, first).await
        } else {
            self.read_whole(response, first).await
        }
    }

    async fn read_stream(
        &mut self,
        mut response: Response,
        mut piece: Bytes,
    ) -> Result<(), Stopped> {
        let mut parser = sse::Parser::default();
        let (mut messages, mut events) = (Vec::new(), Vec::new());
        loop {
            let parsed = parser.push(&piece, &mut messages);
            let decoded = messages
                .drain(..)
                .try_for_each(|message| self.decoder.message(&message, &mut events));
            // What came before a fault was said, and is given out.
            self.emit.events(&mut events).await?;
            decoded?;
            parsed.map_err(|error| malformed(self.provider, &error.to_string()))?;
            if self.decoder.is_complete() {
                drain(response).await;
                return Ok(());
            }
            match self.next(&mut response).await {
                Some(Ok(next)) => piece = next,
                Some(Err(late)) => return Err(late.into()),
                None => break,
            }
        }
        // A last message without its blank line counts; one that was cut in
        // the middle does not read, and the end then says so.
        if let Some(message) = parser.finish()
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
    /// only its end marker is missing.
    async fn next(&self, response: &mut Response) -> Option<Result<Bytes, Failure>> {
        let idle = Duration::from_millis(self.limits.idle_ms);
        let whole = self.decoder.may_end();
        let limit = if whole { idle.min(TAIL) } else { idle };
        match timeout_at(Instant::now() + limit, response.chunk()).await {
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

/// What the answer is: as its type says, else as its first byte looks.
fn is_stream(response: &Response, first: &[u8], asked: bool) -> bool {
    let named = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_ascii_lowercase)
        .unwrap_or_default();
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
    let mut room = MAX_ERROR_BYTES;
    while let Ok(Ok(Some(piece))) = timeout_at(until, response.chunk()).await {
        match room.checked_sub(piece.len()) {
            Some(left) => room = left,
            None => break,
        }
    }
}

/// Runs `work` until it is done or `cancelled` is.
pub(crate) async fn until_cancelled(
    work: impl Future<Output = ()>,
    cancelled: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        biased;
        () = cancelled => true,
        () = work => false,
    }
}

fn late(message: String) -> Failure {
    Failure::new(FailureKind::TimedOut, message)
}

fn no_first_byte(provider: &str, limits: TimeLimits) -> Failure {
    late(format!(
        "{provider} did not begin to answer within {} ms",
        limits.first_byte_ms
    ))
}

/// An error of the connection in public words.
fn transport(provider: &Provider, error: &reqwest::Error, limits: TimeLimits) -> Failure {
    let name = &provider.name;
    if error.is_builder() {
        return Failure::new(
            FailureKind::Unreachable,
            format!("the base_url of {name} is not an http(s) URL"),
        );
    }
    if error.is_timeout() {
        return late(format!(
            "{name} could not be connected within {} ms",
            limits.connect_ms
        ));
    }
    if error.is_connect() {
        return Failure::new(
            FailureKind::Unreachable,
            format!("{name} cannot be reached: {}", innermost(error)),
        );
    }
    Failure::new(
        FailureKind::Cut,
        format!("{name} closed the connection before it answered"),
    )
}

/// The last cause in the chain: "Connection refused (os error 111)".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
