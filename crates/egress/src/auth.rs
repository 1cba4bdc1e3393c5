//! How a request shows its key.

use std::time::SystemTime;

use nearfar_domain::target::Dialect;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::bedrock::sigv4;
use crate::openai::host;

/// The header and the form of the key in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `x-api-key`, Anthropic's.
    XApiKey,
    /// `api-key`, Azure's.
    ApiKey,
    /// `x-goog-api-key`, the Gemini API's.
    XGoogApiKey,
    /// AWS's signature, for a key of the form `ID:SECRET` or `ID:SECRET:TOKEN`;
    /// a Bedrock API key is a bearer.
    Aws,
}

/// Hosts of Azure OpenAI and of Foundry.
const AZURE: &[&str] = &[
    ".openai.azure.com",
    ".services.ai.azure.com",
    ".cognitiveservices.azure.com",
];

impl Auth {
    const NAMES: [(&'static str, Auth); 5] = [
        ("bearer", Auth::Bearer),
        ("x-api-key", Auth::XApiKey),
        ("api-key", Auth::ApiKey),
        ("x-goog-api-key", Auth::XGoogApiKey),
        ("aws", Auth::Aws),
    ];

    /// The names in configuration.
    pub fn names() -> [&'static str; 5] {
        Self::NAMES.map(|(name, _)| name)
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Auth> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, auth)| *auth)
    }

    /// What the dialect's own service wants, told from its address where
    /// services differ.
    pub fn usual(dialect: Dialect, base_url: &str) -> Auth {
        let host = host(base_url);
        match dialect {
            Dialect::Openai if AZURE.iter().any(|end| host.ends_with(end)) => Auth::ApiKey,
            Dialect::Openai => Auth::Bearer,
            Dialect::Anthropic => Auth::XApiKey,
            Dialect::Gemini if is_vertex(base_url) => Auth::Bearer,
            Dialect::Gemini => Auth::XGoogApiKey,
            Dialect::Bedrock => Auth::Aws,
        }
    }
}

/// Whether this is Vertex AI and not the Gemini API.
pub(crate) fn is_vertex(base_url: &str) -> bool {
    host(base_url).ends_with("aiplatform.googleapis.com")
}

/// Adds the headers that show the key. `None` for a key that no header carries.
pub(crate) fn sign(
    headers: &mut HeaderMap,
    auth: Auth,
    key: &SecretString,
    url: &reqwest::Url,
    body: &[u8],
) -> Option<()> {
    let key = key.expose_secret();
    let bearer = || Zeroizing::new(format!("Bearer {key}"));
    let plain = || Zeroizing::new(key.to_owned());
    match auth {
        Auth::Bearer => put(headers, AUTHORIZATION, &bearer()),
        Auth::XApiKey => put(headers, HeaderName::from_static("x-api-key"), &plain()),
        Auth::ApiKey => put(headers, HeaderName::from_static("api-key"), &plain()),
        Auth::XGoogApiKey => put(headers, HeaderName::from_static("x-goog-api-key"), &plain()),
        Auth::Aws => {
            let Some(keys) = sigv4::Keys::read(key) else {
                return put(headers, AUTHORIZATION, &bearer());
            };
            let host = match url.port() {
                Some(port) => format!("{}:{port}", url.host_str()?),
                None => url.host_str()?.to_owned(),
            };
            let request = sigv4::Request {
                region: sigv4::region_of(&host),
                service: "bedrock",
                host: &host,
                path: url.path(),
                content_type: "application/json",
                body,
            };
            for (name, value) in sigv4::headers(&request, &keys, SystemTime::now()) {
                put(headers, HeaderName::from_static(name), &value)?;
            }
            Some(())
        }
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) -> Option<()> {
    let mut value = HeaderValue::from_str(text).ok()?;
    // Keeps it out of every Debug, and out of HTTP/2's header tables.
    value.set_sensitive(true);
    headers.insert(name, value);
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn services_are_told_by_their_address() {
        for (dialect, url, auth) in [
            (Dialect::Openai, "https://api.openai.com/v1", Auth::Bearer),
            (
                Dialect::Openai,
                "https://mine.openai.azure.com/openai/v1",
                Auth::ApiKey,
            ),
            (
                Dialect::Openai,
                "https://openai.azure.com.evil.example/v1",
                Auth::Bearer,
            ),
            (
                Dialect::Anthropic,
                "https://api.anthropic.com",
                Auth::XApiKey,
            ),
            (
                Dialect::Gemini,
                "https://generativelanguage.googleapis.com/v1beta",
                Auth::XGoogApiKey,
            ),
            (
                Dialect::Gemini,
                "https://us-central1-aiplatform.googleapis.com/v1/projects/p",
                Auth::Bearer,
            ),
            (
                Dialect::Bedrock,
                "https://bedrock-runtime.us-east-1.amazonaws.com",
                Auth::Aws,
            ),
        ] {
            assert_eq!(Auth::usual(dialect, url), auth, "{url}");
        }
        for name in Auth::names() {
            assert!(Auth::named(name).is_some());
        }
        assert_eq!(Auth::named("basic"), None);
    }

    #[test]
    fn keys_are_shown_as_each_service_wants() {
        let url = "http://127.0.0.1:8080/model/a%3A0/converse"
            .parse()
            .unwrap();
        let shown = |auth, key: &str| {
            let mut headers = HeaderMap::new();
            sign(&mut headers, auth, &SecretString::from(key), &url, b"{}").unwrap();
            assert!(headers.values().all(HeaderValue::is_sensitive));
            headers
        };
        assert_eq!(shown(Auth::ApiKey, "k")["api-key"], "k");
        assert_eq!(shown(Auth::XGoogApiKey, "k")["x-goog-api-key"], "k");
        assert_eq!(
            shown(Auth::Aws, "bedrock-api-key-x")["authorization"],
            "Bearer bedrock-api-key-x"
        );
        let headers = shown(Auth::Aws, "AKIAIOSFODNN7EXAMPLE:secret:token");
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/"));
        assert!(authorization.contains("/us-east-1/bedrock/aws4_request"));
        assert!(!authorization.contains("secret"));
        assert_eq!(headers["x-amz-security-token"], "token");
    }
}
