//! One exchange with a provider up to its answer's head: the signed request
//! out, a refusal or the response back.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::frames::TimeLimits;
use nearfar_domain::target::Dialect;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::auth::sign;
use crate::client::SentBody;
use crate::codec::Encoded;
use crate::google::{Tokens, is_account};
use crate::provider::{KeySource, Provider};
use crate::secrets::Key;
use crate::upstream::{Said, retry_after_ms};

/// An error's body is read this far.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A provider with its key.
pub(crate) struct Upstream {
    pub(crate) provider: Provider,
    pub(crate) key: Key,
    /// Access tokens, where the key is a service account's.
    pub(crate) tokens: Tokens,
}

impl Upstream {
    /// What is shown for a key: the key itself, or a token that it was exchanged
    /// for.
    pub(crate) async fn shown(
        &self,
        client: &reqwest::Client,
    ) -> Result<Option<SecretString>, Failure> {
        let key = self.key.get();
        let Some(account) = key.as_ref().filter(|key| is_account(key.expose_secret())) else {
            return Ok(key);
        };
        let name = &self.provider.name;
        let token = self
            .tokens
            .get(client, account.expose_secret(), name)
            .await?;
        Ok(Some(token))
    }

    /// The provider refused what was shown. Whether there may be another now.
    pub(crate) async fn refused(&self) -> bool {
        // Both: the file may have changed, and the token is of no use.
        let forgotten = self.tokens.forget().await;
        self.key.reread() || forgotten
    }
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
    key: Option<&SecretString>,
    url: &Url,
    body: &[u8],
    stream: bool,
) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accept = match (stream, upstream.provider.dialect) {
        (true, Dialect::Bedrock) => "application/vnd.amazon.eventstream",
        (true, _) => "text/event-stream",
        (false, _) => "application/json",
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    for (name, value) in encoded.headers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    if upstream.provider.key == KeySource::None {
        return Ok(headers);
    }
    let signed = key.and_then(|key| sign(&mut headers, upstream.provider.auth, key, url, body));
    if signed.is_none() {
        return Err(Failure::new(
            FailureKind::Unauthorized,
            format!(
                "there is no key for {}: put it into {}",
                upstream.provider.name,
                upstream.key.place()
            ),
        ));
    }
    Ok(headers)
}

/// The address of a request: the provider's base URL, the path below it, and
/// the queries of both.
pub(crate) fn url(provider: &Provider, path: &str, model: &str) -> Result<Url, Failure> {
    let (base, base_query) = split_query(&provider.base_url);
    let base = base.trim_end_matches('/');
    let base = match provider.dialect {
        // The path has it.
        Dialect::Anthropic => base.strip_suffix("/v1").unwrap_or(base),
        Dialect::Openai | Dialect::Gemini | Dialect::Bedrock => base,
    };
    let (path, query) = split_query(path);
    let mut text = format!("{base}{path}").replace("{model}", &segment(model));
    for (query, before) in [(base_query, '?'), (query, '&')] {
        if !query.is_empty() {
            text.push(if text.contains('?') { before } else { '?' });
            text.push_str(query);
        }
    }
    Url::parse(&text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Unreachable,
                format!("the base_url of {} is not an http(s) URL", provider.name),
            )
        })
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// A model's name as one segment of a path, whatever is in it.
fn segment(model: &str) -> String {
    let mut out = String::with_capacity(model.len());
    let model = model.strip_prefix("models/").unwrap_or(model);
    if model.bytes().all(|byte| byte == b'.') {
        // `.` and `..` would lead elsewhere, escaped or not.
        return "no-name".to_owned();
    }
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
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
    let named = header("x-amzn-errortype");
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
    let mut said = Said::read(&body);
    // AWS names the error in a header: `ThrottlingException:http://…`.
    said.code = said.code.or(named.and_then(|name| {
        let name = name.split(':').next().unwrap_or_default();
        (!name.is_empty()).then(|| name.to_owned())
    }));
    let mut failure = said.failure(&provider.name, Some(status.as_u16()), key);
    failure.retry_after_ms = wait.or(failure.retry_after_ms);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::presets::preset;

    fn at(name: &str, base_url: &str, path: &str, model: &str) -> String {
        let provider = Provider {
            base_url: base_url.to_owned(),
            ..preset(name).unwrap()
        };
        url(&provider, path, model).unwrap().to_string()
    }

    #[test]
    fn addresses_are_put_together() {
        assert_eq!(
            at("openai", "https://a/v1/", "/chat/completions", "m"),
            "https://a/v1/chat/completions"
        );
        assert_eq!(
            at("anthropic", "https://a/v1", "/v1/messages", "m"),
            "https://a/v1/messages"
        );
        assert_eq!(
            at(
                "openai",
                "https://r.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21",
                "/chat/completions",
                "my gpt/4"
            ),
            "https://r.openai.azure.com/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21"
        );
        let stream = "/models/{model}:streamGenerateContent?alt=sse";
        assert_eq!(
            at(
                "gemini",
                "https://g/v1beta",
                stream,
                "models/gemini-2.5-flash"
            ),
            "https://g/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        );
        assert_eq!(
            at(
                "bedrock",
                "https://b",
                "/model/{model}/converse",
                "arn:aws:bedrock:x:1:p/y"
            ),
            "https://b/model/arn%3Aaws%3Abedrock%3Ax%3A1%3Ap%2Fy/converse"
        );
        for model in ["..", ".", "../../secrets", "a?b#c"] {
            let url = at("bedrock", "https://b/x", "/model/{model}/converse", model);
            assert!(url.starts_with("https://b/x/model/"), "{url}");
            assert!(url.ends_with("/converse"), "{url}");
        }
    }
}
