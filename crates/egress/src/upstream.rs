//! What a provider's error means: its status, body and headers as a [`Failure`].

use std::time::{Duration, SystemTime};

use nearfar_domain::events::{Failure, FailureKind};
use serde_json::Value;

/// Longer messages of a provider are cut here, in characters.
const MAX_MESSAGE: usize = 500;
/// Longer codes and field names are cut here, in characters.
const MAX_CODE: usize = 100;
/// No honest provider asks for a longer wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// An error as a provider wrote it, whatever its shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// For people.
    pub message: Option<String>,
    /// The error's class, such as `invalid_request_error`.
    pub class: Option<String>,
    /// The error's code, such as `context_length_exceeded`.
    pub code: Option<String>,
    /// The request's field at fault.
    pub field: Option<String>,
    /// How long to wait, where the body says it (Google's `RetryInfo`).
    pub retry_after_ms: Option<u64>,
}

impl Said {
    /// Reads an error body. What is not JSON says nothing: it is a proxy's page.
    pub fn read(body: &[u8]) -> Said {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Said::of(&value),
            Err(_) => Said::default(),
        }
    }

    /// Reads a JSON error: OpenAI's, Anthropic's and Google's `{"error": {…}}`, a bare
    /// `{"message": …}`, FastAPI's `{"detail": …}`, an error that is a string.
    pub fn of(value: &Value) -> Said {
        match value {
            // Google's compatible endpoint wraps its errors into an array.
            Value::Array(items) => items.first().map(Said::of).unwrap_or_default(),
            Value::String(text) => Said {
                message: Some(text.clone()),
                ..Said::default()
            },
            Value::Object(map) => match map.get("error").filter(|inner| !inner.is_null()) {
                Some(inner) => Said::of(inner),
                None => Said {
                    message: ["message", "detail", "msg", "Message"]
                        .iter()
                        .find_map(|name| map.get(*name).and_then(message)),
                    class: map.get("type").and_then(word),
                    code: code(map),
                    field: map.get("param").and_then(word),
                    retry_after_ms: map.get("details").and_then(retry_info),
                },
            },
            _ => Said::default(),
        }
    }

    /// What it means, from the words alone or with the HTTP status.
    pub fn kind(&self, status: Option<u16>) -> FailureKind {
        let code = self.code.as_deref().unwrap_or_default();
        let class = self.class.as_deref().unwrap_or_default();
        if let Some(kind) = named(code).or_else(|| named(class)) {
            // A wrong request may be wrong because it is too long.
            return match (kind, status) {
                (FailureKind::BadRequest, _) if self.speaks_of_length() => {
                    FailureKind::ContextLength
                }
                // OpenAI files a wrong path or method under the same class.
                // And all that is wrong with itself under another.
                (FailureKind::BadRequest | FailureKind::TargetError, Some(status)) => {
                    self.kind_of_status(status)
                }
                (kind, _) => kind,
            };
        }
        match status {
            Some(status) => self.kind_of_status(status),
            None => match code.parse::<u16>() {
                Ok(status) if (400..600).contains(&status) => self.kind_of_status(status),
                _ => FailureKind::TargetError,
            },
        }
    }

    fn kind_of_status(&self, status: u16) -> FailureKind {
        match status {
            400 | 422 if self.speaks_of_length() => FailureKind::ContextLength,
            400 | 415 | 422 => FailureKind::BadRequest,
            401 => FailureKind::Unauthorized,
            402 | 429 => FailureKind::RateLimited,
            403 | 451 => FailureKind::Forbidden,
            404 if self.speaks_of_a_model() => FailureKind::ModelMissing,
            408 | 504 | 524 => FailureKind::TimedOut,
            413 => FailureKind::ContextLength,
            503 | 529 => FailureKind::Overloaded,
            _ => FailureKind::TargetError,
        }
    }

    fn speaks_of_length(&self) -> bool {
        self.mentions(&[
            "context length",
            "context_length",
            "context window",
            "context size",
            "maximum context",
            "prompt is too long",
            "too many tokens",
            "too large for model",
            "maximum number of tokens",
            "input is too long",
        ])
    }

    fn speaks_of_a_model(&self) -> bool {
        self.mentions(&["model"])
    }

    fn mentions(&self, words: &[&str]) -> bool {
        let text = self.message.as_deref().unwrap_or_default();
        let text = text.to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    }

    /// The failure in public words. `key` is taken out of everything.
    pub fn failure(&self, provider: &str, status: Option<u16>, key: Option<&str>) -> Failure {
        let kind = self.kind(status);
        let told = self.message.as_deref().map(|text| public(text, key));
        let message = match (kind, status, told) {
            // Providers quote parts of the key here.
            (FailureKind::Unauthorized, Some(status), _) => {
                format!("{provider} refused the key (HTTP {status})")
            }
            (FailureKind::Unauthorized, None, _) => format!("{provider} refused the key"),
            (_, _, Some(told)) if !told.is_empty() => format!("{provider} says: {told}"),
            (_, Some(status), _) => format!("{provider} answered with HTTP {status}"),
            (_, None, _) => format!("{provider} reports an error without a message"),
        };
        let short = |text: &Option<String>| {
            text.as_deref()
                .map(|text| cut(&redact(text, key), MAX_CODE))
                .filter(|text| !text.is_empty())
        };
        Failure {
            field: short(&self.field),
            upstream_status: status,
            upstream_code: short(&self.code).or_else(|| short(&self.class)),
            retry_after_ms: self.retry_after_ms,
            ..Failure::new(kind, message)
        }
    }
}

fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // FastAPI lists what is wrong.
        Value::Array(items) => items
            .first()
            .and_then(|item| item.get("msg")?.as_str().map(str::to_owned)),
        Value::Object(map) => map.get("detail").and_then(message),
        _ => None,
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The error's code. Google's number repeats the HTTP status, its `status` is
/// the word; the reason behind a wrong key stands in the details.
fn code(map: &serde_json::Map<String, Value>) -> Option<String> {
    let reason = map.get("details").and_then(|details| {
        let reasons = details.as_array()?.iter().filter_map(|d| d.get("reason"));
        reasons
            .filter_map(Value::as_str)
            .find(|r| *r == "API_KEY_INVALID")
    });
    if let Some(reason) = reason {
        return Some(reason.to_owned());
    }
    let (code, status) = (map.get("code"), map.get("status"));
    match (code, status) {
        (Some(Value::Number(_)), Some(Value::String(word))) => Some(word.clone()),
        _ => code.and_then(word).or_else(|| status.and_then(word)),
    }
}

/// `{"@type": "….RetryInfo", "retryDelay": "17s"}` among the details.
fn retry_info(details: &Value) -> Option<u64> {
    let mut delays = details
        .as_array()?
        .iter()
        .filter_map(|d| d.get("retryDelay"));
    let seconds = delays.next()?.as_str()?.strip_suffix('s')?;
    retry_after_ms(None, Some(seconds), SystemTime::UNIX_EPOCH)
}

/// Codes and classes of OpenAI, Anthropic, Google, AWS, Azure and those that
/// follow them.
fn named(word: &str) -> Option<FailureKind> {
    Some(match word.to_ascii_lowercase().as_str() {
        "context_length_exceeded" | "request_too_large" | "exceed_context_size_error" => {
            FailureKind::ContextLength
        }
        "model_not_found"
        | "not_found_error"
        | "model_not_available"
        | "not_found"
        | "deploymentnotfound"
        | "resourcenotfoundexception" => FailureKind::ModelMissing,
        "invalid_api_key"
        | "authentication_error"
        | "api_key_invalid"
        | "unauthenticated"
        | "unrecognizedclientexception"
        | "invalidsignatureexception"
        | "incompletesignatureexception"
        | "missingauthenticationtokenexception"
        | "expiredtokenexception" => FailureKind::Unauthorized,
        // Google refuses whole countries with `failed_precondition`.
        "permission_error"
        | "permission_denied"
        | "failed_precondition"
        | "accessdeniedexception"
        | "unsupported_country_region_territory" => FailureKind::Forbidden,
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "insufficient_quota"
        | "billing_error"
        | "resource_exhausted"
        | "throttlingexception"
        | "toomanyrequestsexception"
        | "servicequotaexceededexception"
        | "tokens"
        | "requests" => FailureKind::RateLimited,
        "overloaded_error"
        | "engine_overloaded"
        | "unavailable_error"
        | "unavailable"
        | "serviceunavailableexception"
        | "modelnotreadyexception" => FailureKind::Overloaded,
        "timeout_error" | "deadline_exceeded" | "modeltimeoutexception" => FailureKind::TimedOut,
        "api_error"
        | "server_error"
        | "internal_server_error"
        | "internal"
        | "internalserverexception"
        | "modelerrorexception"
        | "modelstreamerrorexception" => FailureKind::TargetError,
        "content_filter" | "content_policy_violation" | "responsibleaipolicyviolation" => {
            FailureKind::Refused
        }
        "invalid_request_error" | "invalid_argument" | "validationexception" => {
            FailureKind::BadRequest
        }
        _ => return None,
    })
}

/// A provider's text, fit to be shown: without our key, on one line, bounded.
fn public(text: &str, key: Option<&str>) -> String {
    cut(&redact(text, key), MAX_MESSAGE)
}

fn redact(text: &str, key: Option<&str>) -> String {
    match key.filter(|key| !key.is_empty()) {
        Some(key) => text.replace(key, "[key]"),
        None => text.to_owned(),
    }
}

fn cut(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit * 2));
    for (count, character) in text.trim().chars().enumerate() {
        if count == limit {
            out.push('…');
            break;
        }
        out.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    out
}

/// Takes our key out of a failure, wherever a provider may have put it.
pub fn scrub(failure: &mut Failure, key: Option<&str>) {
    failure.message = redact(&failure.message, key);
    for text in [&mut failure.field, &mut failure.upstream_code] {
        *text = text.as_deref().map(|text| redact(text, key));
    }
}

/// How long the provider asks us to wait: `retry-after-ms`, else `Retry-After`
/// in seconds or as a date. Bounded to a day.
pub fn retry_after_ms(
    milliseconds: Option<&str>,
    retry_after: Option<&str>,
    now: SystemTime,
) -> Option<u64> {
    let number = |text: Option<&str>, unit: f64| {
        text.and_then(|text| text.trim().parse::<f64>().ok())
            .filter(|n| n.is_finite() && *n >= 0.0)
            .map(|n| n * unit)
    };
    let limit = MAX_RETRY_AFTER.as_millis() as u64;
    if let Some(ms) = number(milliseconds, 1.0).or_else(|| number(retry_after, 1000.0)) {
        // A float beyond u64 saturates.
        return Some((ms as u64).min(limit));
    }
    let date = httpdate::parse_http_date(retry_after?.trim()).ok()?;
    let wait = date.duration_since(now).unwrap_or_default();
    Some(u64::try_from(wait.as_millis()).unwrap_or(limit).min(limit))
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
