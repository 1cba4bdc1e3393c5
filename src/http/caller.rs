//! Who calls: from what a request shows in place of a key to an [`Identity`].
//!
//! A handler that takes a [`Caller`] is reached by nobody who is not let in. The
//! key ends here: what goes on is who it belongs to, and no error repeats it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::api::Api;
use super::dialect::Dialect;
use super::problem::Problem;
use crate::admission::{Denied, Identity, WrongFeature};

/// Who calls. A handler that takes it is not reached by others.
pub(crate) struct Caller(pub(crate) Arc<Identity>);

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let tokens = tokens(&parts.headers).map(|(_, token)| token);
        let dialect = Dialect::of(parts.uri.path(), &parts.headers);
        let known = api
            .gate
            .keys()
            .identify(tokens, dialect.as_str(), api.requires_key, now_ms());
        known.map(Self).map_err(|denied| {
            // A probe that shows no key is none that was turned away.
            if parts.uri.path() != "/readyz" {
                api.gate.metrics().denied(denied.as_str());
            }
            problem(denied, &parts.headers)
        })
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Where clients show keys: OpenAI's and Ollama's as a bearer's, Anthropic's,
/// Azure's.
const PLACES: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// Everything that stands in place of a key, with its header.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = (&'static str, &str)> {
    PLACES.into_iter().flat_map(move |place| {
        let values = headers.get_all(place).iter();
        // Bytes that are no text are no key of ours.
        values.filter_map(move |value| {
            let text = value.to_str().ok()?.trim();
            Some((place, bare(place, text)))
        })
    })
}

/// A bearer's token without the scheme. Some clients leave the scheme out.
fn bare<'t>(place: &str, text: &'t str) -> &'t str {
    if place != header::AUTHORIZATION.as_str() {
        return text;
    }
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => text,
    }
}

fn problem(denied: Denied, headers: &HeaderMap) -> Problem {
    let shown = tokens(headers).find(|(_, token)| !token.is_empty());
    let place = match shown {
        Some((place, _)) => place,
        None if headers.contains_key("anthropic-version") => "x-api-key",
        None => "authorization",
    };
    match denied {
        Denied::Missing if shown.is_some() => Problem::unauthorized(
            "invalid_api_key",
            place,
            "This is no key of nearfar's. Its keys begin with nf_; `nearfar key create` makes \
             one.",
        ),
        Denied::Missing => Problem::unauthorized(
            "missing_api_key",
            place,
            "A key is needed here. Send one as `Authorization: Bearer nf_…` or as `x-api-key`; \
             `nearfar key create` makes one.",
        ),
        Denied::Unknown => Problem::unauthorized(
            "invalid_api_key",
            place,
            "This key is not known. Check that it was copied whole; `nearfar key create` makes \
             another.",
        ),
        Denied::Revoked => Problem::unauthorized(
            "revoked_api_key",
            place,
            "This key was revoked. Use another; `nearfar key create` makes one.",
        ),
        Denied::Expired => Problem::unauthorized(
            "expired_api_key",
            place,
            "This key has expired. Use the one that took its place, or have another made with \
             `nearfar key create`.",
        ),
        Denied::Several => Problem::unauthorized(
            "invalid_api_key",
            place,
            "There are several keys in this request. Send one, in one header.",
        ),
        Denied::Front => Problem::out_of_scope(
            "front_not_allowed",
            place,
            "This key is for other APIs than this one. `nearfar key show` tells for which.",
        ),
        Denied::NoTenant => Problem::out_of_scope(
            "tenant_unknown",
            place,
            "This key's tenant is not in the configuration any more, so nobody would pay. Put \
             its section [tenants.NAME] back, or use another key.",
        ),
    }
}

impl From<WrongFeature> for Problem {
    fn from(wrong: WrongFeature) -> Self {
        let allowed = wrong.allowed.join(", ");
        Self::out_of_scope(
            "feature_not_allowed",
            "x-nearfar-feature",
            format!(
                "This key is for certain features. Set x-nearfar-feature to one of them: \
                 {allowed}."
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, axum::http::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn keys_are_found_where_clients_show_them() {
        fn found(pairs: &[(&'static str, &'static [u8])]) -> Vec<String> {
            let headers = headers(pairs);
            tokens(&headers).map(|(_, t)| t.to_owned()).collect()
        }
        for pairs in [
            [("authorization", b"Bearer nf_a" as &[u8])],
            [("authorization", b"bearer  nf_a ")],
            [("authorization", b"nf_a")],
            [("x-api-key", b"nf_a")],
            [("api-key", b" nf_a")],
        ] {
            assert_eq!(found(&pairs), ["nf_a"]);
        }
        let several = found(&[("x-api-key", b"a"), ("authorization", b"Basic b")]);
        assert_eq!(several, ["Basic b", "a"]);
        assert_eq!(found(&[("x-api-key", b"\xff")]), [""; 0]);
    }

    #[test]
    fn no_error_repeats_a_key() {
        let headers = headers(&[("x-api-key", b"nf_verysecret")]);
        for denied in [
            Denied::Missing,
            Denied::Unknown,
            Denied::Revoked,
            Denied::Expired,
            Denied::Several,
            Denied::Front,
            Denied::NoTenant,
        ] {
            let problem = problem(denied, &headers);
            let body = problem.openai_body();
            assert!(matches!(problem.status().as_u16(), 401 | 403));
            assert_eq!(body["error"]["param"], "x-api-key");
            let told = format!("{body} {problem:?}");
            assert!(!told.contains("verysecret"), "{told}");
        }
    }
}
