//! What limits leave: the headers that clients of each dialect read, and the
//! control API's list.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use nearfar_domain::calendar::date_time;
use nearfar_domain::limit::Unit;
use serde_json::json;

use super::api::Api;
use super::dialect::Dialect;
use super::reply::json;
use crate::limits::Quota;

/// A reply's quotas, for the front, which knows the dialect.
#[derive(Clone, Debug)]
pub(crate) struct Quotas(pub(crate) Vec<Quota>);

/// `{"limits": […]}`: every limit, used, reserved, left, when it resets.
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Response {
    let standings = api.gate.limits().standings();
    json(StatusCode::OK, &json!({"limits": standings}))
}

impl Quotas {
    /// Adds the headers of the dialect. Money has none in either.
    pub(crate) fn tell(&self, dialect: Dialect, headers: &mut HeaderMap) {
        for quota in &self.0 {
            let of = match quota.unit {
                Unit::Requests => "requests",
                Unit::Tokens => "tokens",
                Unit::Micro => continue,
            };
            let mut tell = |name: String, value: String| {
                let name = HeaderName::try_from(name);
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                    headers.insert(name, value);
                }
            };
            let (most, left) = (quota.most.to_string(), quota.left.to_string());
            if dialect == Dialect::Anthropic {
                tell(format!("anthropic-ratelimit-{of}-limit"), most);
                tell(format!("anthropic-ratelimit-{of}-remaining"), left);
                let reset = date_time(in_ms(quota.resets_in_ms));
                tell(format!("anthropic-ratelimit-{of}-reset"), reset);
            } else {
                tell(format!("x-ratelimit-limit-{of}"), most);
                tell(format!("x-ratelimit-remaining-{of}"), left);
                let reset = duration(quota.resets_in_ms);
                tell(format!("x-ratelimit-reset-{of}"), reset);
            }
        }
    }
}

/// So many milliseconds from now, in milliseconds since 1970.
fn in_ms(ms: u64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0));
    // Rounded up, as the header has whole seconds.
    i64::try_from(now.saturating_add(ms).saturating_add(999)).unwrap_or(i64::MAX)
}

/// As OpenAI writes it: `6m0s`, `1.5s`, `250ms`, `0s`.
fn duration(ms: u64) -> String {
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let seconds = (ms % 60_000) as f64 / 1e3;
    match (hours, minutes) {
        (0, 0) if ms == 0 => "0s".to_owned(),
        (0, 0) if ms < 1_000 => format!("{ms}ms"),
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:.0}s"),
        (_, _) => format!("{hours}h{minutes}m{seconds:.0}s"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_dialect_has_its_headers() {
        let quotas = Quotas(vec![
            Quota {
                unit: Unit::Tokens,
                most: 1_000,
                left: 250,
                resets_in_ms: 31_000,
            },
            Quota {
                unit: Unit::Micro,
                most: 1,
                left: 1,
                resets_in_ms: 1,
            },
        ]);
        let mut headers = HeaderMap::new();
        quotas.tell(Dialect::Openai, &mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["x-ratelimit-limit-tokens"], "1000");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "250");
        assert_eq!(headers["x-ratelimit-reset-tokens"], "31s");
        let mut headers = HeaderMap::new();
        quotas.tell(Dialect::Anthropic, &mut headers);
        assert_eq!(headers["anthropic-ratelimit-tokens-remaining"], "250");
        let reset = headers["anthropic-ratelimit-tokens-reset"]
            .to_str()
            .unwrap();
        assert!(reset.starts_with("20") && reset.ends_with('Z'), "{reset}");
    }

    #[test]
    fn times_are_written_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1.5s"),
            (360_000, "6m0s"),
            (3_725_000, "1h2m5s"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
