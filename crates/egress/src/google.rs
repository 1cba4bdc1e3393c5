//! Access tokens for Vertex AI, from a service account's key.
//!
//! Source: "Using OAuth 2.0 for Server to Server Applications" (Google
//! Identity): a JWT signed with RS256 is exchanged for a token that lives for an
//! hour. The token is kept and asked for again shortly before it ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use nearfar_domain::events::{Failure, FailureKind};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// What the token may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// An assertion and the token that comes of it live this long, in seconds.
const LIFE: u64 = 3_600;
/// A token is replaced this long before it ends.
const MARGIN: Duration = Duration::from_secs(120);
/// How long the exchange may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// A longer answer is no token, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// A service account's key file, as Google writes it.
#[derive(Deserialize)]
struct Account {
    client_email: String,
    #[serde(deserialize_with = "zeroed")]
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    token_uri: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(deserialize_with = "zeroed")]
    access_token: Zeroizing<String>,
    expires_in: Option<u64>,
}

fn zeroed<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

/// The token of one provider.
#[derive(Default)]
pub(crate) struct Tokens {
    held: Mutex<Option<(SecretString, Instant)>>,
}

/// Whether a key's text is a service account's key file.
pub(crate) fn is_account(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

impl Tokens {
    /// The token of the moment, asked for where there is none. Requests that
    /// come meanwhile wait for the same one.
    ///
    /// # Errors
    /// [`FailureKind::Unauthorized`] for a key that cannot be used or was
    /// refused, [`FailureKind::Unreachable`] where Google cannot be asked.
    pub(crate) async fn get(
        &self,
        client: &reqwest::Client,
        account: &str,
        provider: &str,
    ) -> Result<SecretString, Failure> {
        let mut held = self.held.lock().await;
        if let Some((token, until)) = held.as_ref()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let unusable = || {
            Failure::new(
                FailureKind::Unauthorized,
                format!(
                    "the key of {provider} is not a service account's key file as Google writes it"
                ),
            )
        };
        let account: Account = serde_json::from_str(account).map_err(|_| unusable())?;
        let assertion = assertion(&account, SystemTime::now()).ok_or_else(unusable)?;
        let exchange = exchange(client, &account.token_uri, &assertion);
        let answer = timeout(PATIENCE, exchange).await.ok().flatten();
        let answer = match answer {
            None => {
                return Err(Failure::new(
                    FailureKind::Unreachable,
                    format!("{provider} cannot be reached for an access token"),
                ));
            }
            Some(Err(status)) => {
                return Err(Failure {
                    upstream_status: Some(status),
                    ..Failure::new(
                        FailureKind::Unauthorized,
                        format!("{provider} refused the service account's key (HTTP {status})"),
                    )
                });
            }
            Some(Ok(answer)) => answer,
        };
        let life = Duration::from_secs(answer.expires_in.unwrap_or(LIFE).min(LIFE));
        let until = Instant::now() + life.saturating_sub(MARGIN);
        let token = SecretString::from(answer.access_token.as_str());
        *held = Some((token.clone(), until));
        Ok(token)
    }

    /// Forgets the token, which was refused. Whether there was one.
    pub(crate) async fn forget(&self) -> bool {
        self.held.lock().await.take().is_some()
    }
}

/// The token's answer, or the status of a refusal; `None` where nobody answers.
async fn exchange(
    client: &reqwest::Client,
    uri: &str,
    assertion: &str,
) -> Option<Result<Answer, u16>> {
    let form = Zeroizing::new(format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
    ));
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    let request = client.post(uri).header(CONTENT_TYPE, form_type);
    let mut response = request.body(form.to_string()).send().await.ok()?;
    let status = response.status();
    let mut body = Zeroizing::new(Vec::new());
    while let Some(piece) = response.chunk().await.ok()? {
        if body.len() + piece.len() > MAX_ANSWER {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    if !status.is_success() {
        return Some(Err(status.as_u16()));
    }
    serde_json::from_slice(&body).ok().map(Ok)
}

/// The signed claim that is exchanged for a token.
fn assertion(account: &Account, now: SystemTime) -> Option<Zeroizing<String>> {
    let plain = account.token_uri.starts_with("http://127.0.0.1:");
    if !(plain || account.token_uri.starts_with("https://")) {
        return None;
    }
    let key = RsaKeyPair::from_pkcs8(&der_of(&account.private_key)?).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let mut header = json!({"alg": "RS256", "typ": "JWT"});
    if let Some(id) = &account.private_key_id {
        header["kid"] = json!(id);
    }
    let claims = json!({
        "iss": account.client_email, "scope": SCOPE, "aud": account.token_uri,
        "iat": now, "exp": now + LIFE
    });
    let mut text = base64url(header.to_string().as_bytes());
    text.push('.');
    text.push_str(&base64url(claims.to_string().as_bytes()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        text.as_bytes(),
        &mut signature,
    )
    .ok()?;
    text.push('.');
    text.push_str(&base64url(&signature));
    Some(Zeroizing::new(text))
}

/// The bytes of a `-----BEGIN PRIVATE KEY-----` block.
fn der_of(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() * 3 / 4));
    let (mut bits, mut count) = (0u32, 0);
    for byte in body.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (at, byte)| {
            word | u32::from(*byte) << (16 - 8 * at)
        });
        for at in 0..=chunk.len() {
            let digit = (word >> (18 - 6 * at)) & 63;
            out.push(char::from(DIGITS[digit as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use secrecy::ExposeSecret;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A key of an account that there is not, and its public half.
    fn account(token_uri: &str) -> (String, Vec<u8>) {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = key.public_key().as_ref().to_vec();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key).unwrap();
        let text = base64url(der.as_ref()).replace('-', "+").replace('_', "/");
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let json = json!({
            "type": "service_account", "client_email": "a@p.iam.gserviceaccount.com",
            "private_key_id": "k1", "private_key": pem, "token_uri": token_uri
        });
        (json.to_string(), public)
    }

    #[test]
    fn base64_is_the_usual_one() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (&[0xFB, 0xFF], "-_8"),
        ] {
            assert_eq!(base64url(bytes), text);
            let pem = format!(
                "-----BEGIN PRIVATE KEY-----{}-----END PRIVATE KEY-----",
                text.replace('-', "+").replace('_', "/")
            );
            assert_eq!(der_of(&pem).unwrap().as_slice(), bytes);
        }
        assert!(der_of("-----BEGIN PRIVATE KEY-----!-----END PRIVATE KEY-----").is_none());
        assert!(der_of("no key").is_none());
    }

    #[test]
    fn an_assertion_is_signed_by_the_account() {
        let (json, public) = account("https://oauth2.googleapis.com/token");
        let parsed: Account = serde_json::from_str(&json).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let text = assertion(&parsed, now).unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let pem = |text: &str| {
            let text = text.replace('-', "+").replace('_', "/");
            der_of(&format!(
                "-----BEGIN PRIVATE KEY-----{text}-----END PRIVATE KEY-----"
            ))
            .unwrap()
        };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public)
            .verify(signed.as_bytes(), &pem(signature))
            .unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let header: serde_json::Value = serde_json::from_slice(&pem(header)).unwrap();
        assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        let claims: serde_json::Value = serde_json::from_slice(&pem(claims)).unwrap();
        assert_eq!(claims["iss"], "a@p.iam.gserviceaccount.com");
        assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
        assert_eq!(claims["exp"], 1_700_003_600);
        let (json, _) = account("http://elsewhere.example/token");
        let elsewhere: Account = serde_json::from_str(&json).unwrap();
        assert!(assertion(&elsewhere, now).is_none(), "never unencrypted");
    }

    /// Answers every request with this.
    async fn server(status: &'static str, body: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/token", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                // The form's end: an assertion has two dots and no padding.
                while !String::from_utf8_lossy(&seen).contains("assertion=") {
                    let count = stream.read(&mut buffer).await.unwrap();
                    seen.extend_from_slice(&buffer[..count]);
                }
                let reply = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        uri
    }

    #[tokio::test]
    async fn a_token_is_asked_for_once_and_kept() {
        let uri = server("200 OK", r#"{"access_token":"ya29.one","expires_in":3599}"#).await;
        let (json, _) = account(&uri);
        let (client, tokens) = (reqwest::Client::new(), Tokens::default());
        for _ in 0..2 {
            let token = tokens.get(&client, &json, "vertex").await.unwrap();
            assert_eq!(token.expose_secret(), "ya29.one");
        }
        assert!(tokens.forget().await && !tokens.forget().await);
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_the_key() {
        let uri = server("401 Unauthorized", r#"{"error":"invalid_grant"}"#).await;
        let (json, _) = account(&uri);
        let (client, tokens) = (reqwest::Client::new(), Tokens::default());
        let refused = tokens.get(&client, &json, "vertex").await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Unauthorized);
        assert_eq!(refused.upstream_status, Some(401));
        let (json, _) = account("http://127.0.0.1:9/token");
        let nobody = tokens.get(&client, &json, "vertex").await.unwrap_err();
        assert_eq!(nobody.kind, FailureKind::Unreachable);
        for wrong in [
            "{}",
            "{",
            r#"{"client_email":"a","private_key":"b","token_uri":"https://x"}"#,
        ] {
            let failure = tokens.get(&client, wrong, "vertex").await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Unauthorized, "{wrong}");
        }
    }
}
