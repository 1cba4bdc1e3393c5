//! One exchange with a provider up to its answer's head: the signed request
//! out, a refusal or the response back.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::frames::TimeLimits;
use nearfar_domain::target::Dialect;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Response, StatusCode};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::SentBody;
use crate::codec::Encoded;
use crate::provider::{KeySource, Provider};
use crate::secrets::Key;
use crate::upstream::{Said, retry_after_ms};

/// An error's body is read this far.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A provider with its key.
pub(crate) struct Upstream {
    pub(crate) provider: Provider,
    pub(crate) key: Key,
}

/// Sends the request. Returns the response's head, and the moment by which the
/// answer's first byte must be there.
pub(crate) async fn send(
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

pub(crate) fn headers(
    upstream: &Upstream,
    encoded: &Encoded,
    stream: bool,
) -> Result<HeaderMap, Failure> {
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

fn sign(dialect: Dialect, key: &SecretString) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match dialect {
        Dialect::Openai => (
            AUTHORIZATION,
            Zeroizing::new(format!("Bearer {}", key.expose_secret())),
        ),
        Dialect::Anthropic => (
            HeaderName::from_static("x-api-key"),
            Zeroizing::new(key.expose_secret().to_owned()),
        ),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    // Keeps it out of every Debug, and out of HTTP/2's header tables.
    value.set_sensitive(true);
    Some((name, value))
}

pub(crate) fn url(provider: &Provider, path: &str) -> String {
    let base = provider.base_url.trim_end_matches('/');
    let base = match provider.dialect {
        Dialect::Openai => base,
        // The path has it.
        Dialect::Anthropic => base.strip_suffix("/v1").unwrap_or(base),
    };
    format!("{base}{path}")
}

/// The failure behind a status that is not a success.
pub(crate) async fn error_of(
    mut response: Response,
    upstream: &Upstream,
    limits: TimeLimits,
) -> Failure {
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

pub(crate) fn late(message: String) -> Failure {
    Failure::new(FailureKind::TimedOut, message)
}

pub(crate) fn no_first_byte(provider: &str, limits: TimeLimits) -> Failure {
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
