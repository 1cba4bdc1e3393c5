//! AWS Signature Version 4, for requests with a body that is known as a whole.
//!
//! Source: "Create a signed AWS API request" in the IAM user guide.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nearfar_domain::calendar::{civil_of, clock_of};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const BLOCK: usize = 64;

/// A pair of keys: `ID:SECRET`, or `ID:SECRET:SESSION_TOKEN`.
pub(crate) struct Keys<'a> {
    id: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// Reads them; `None` for what is no pair, such as a Bedrock API key.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (id, secret) = (parts.next()?, parts.next()?);
        let looks = (16..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
        (looks && !secret.is_empty()).then(|| Self {
            id,
            secret,
            token: parts.next().filter(|token| !token.is_empty()),
        })
    }
}

/// What is signed.
pub(crate) struct Request<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    /// With the port, where it is not the scheme's own.
    pub(crate) host: &'a str,
    /// As it is sent, percent-encoded.
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
}

/// The headers that prove who asks, for a POST.
pub(crate) fn headers(
    request: &Request<'_>,
    keys: &Keys<'_>,
    now: SystemTime,
) -> Vec<(&'static str, Zeroizing<String>)> {
    let time = timestamp(now);
    let day = &time[..8];
    // Names in order.
    let mut signed = vec![
        ("content-type", request.content_type),
        ("host", request.host),
        ("x-amz-date", &time),
    ];
    signed.extend(keys.token.map(|token| ("x-amz-security-token", token)));
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    // The path's escapes are escaped once more, as for all services but S3.
    let mut canonical = Zeroizing::new(format!("POST\n{}\n\n", request.path.replace('%', "%25")));
    for (name, value) in &signed {
        let _ = writeln!(canonical, "{name}:{}", value.trim());
    }
    let _ = write!(
        canonical,
        "\n{names}\n{}",
        hex(&Sha256::digest(request.body))
    );
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{digest}");
    let first = Zeroizing::new(format!("AWS4{}", keys.secret));
    let mut key = Zeroizing::new(hmac(first.as_bytes(), day.as_bytes()));
    for part in [request.region, request.service, "aws4_request"] {
        key = Zeroizing::new(hmac(&key[..], part.as_bytes()));
    }
    let signature = hex(&hmac(&key[..], to_sign.as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        keys.id
    );
    let mut out = vec![
        ("authorization", Zeroizing::new(authorization)),
        ("x-amz-date", Zeroizing::new(time.clone())),
    ];
    if let Some(token) = keys.token {
        out.push(("x-amz-security-token", Zeroizing::new(token.to_owned())));
    }
    out
}

/// The region in a host such as `bedrock-runtime.eu-west-1.amazonaws.com`.
pub(crate) fn region_of(host: &str) -> &str {
    let name = host.split(':').next().unwrap_or(host);
    name.split('.')
        .skip_while(|label| !label.starts_with("bedrock-runtime"))
        .nth(1)
        .filter(|label| label.contains('-'))
        .unwrap_or("us-east-1")
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = Zeroizing::new([0u8; BLOCK]);
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| Zeroizing::new(block.map(|byte| byte ^ with));
    let inner = Sha256::new()
        .chain_update(&pad(0x36)[..])
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(&pad(0x5C)[..])
        .chain_update(inner)
        .finalize()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// `20150830T123600Z`.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let (year, month, day) = civil_of(ms);
    let (hour, minute, second) = clock_of(ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(timestamp(at(0)), "19700101T000000Z");
        assert_eq!(timestamp(at(1_440_938_160)), "20150830T123600Z");
        assert_eq!(timestamp(at(951_782_399)), "20000228T235959Z");
        assert_eq!(timestamp(at(951_868_799)), "20000229T235959Z");
        assert_eq!(timestamp(at(4_102_444_800)), "21000101T000000Z");
    }

    #[test]
    fn the_code_is_rfc_4231s() {
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            )),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    /// `post-x-www-form-urlencoded` of AWS's test suite.
    #[test]
    fn a_request_of_awss_test_suite() {
        let keys =
            Keys::read("AKIDEXAMPLEAKIDEX:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").unwrap();
        let keys = Keys {
            id: "AKIDEXAMPLE",
            ..keys
        };
        let request = Request {
            region: "us-east-1",
            service: "service",
            host: "example.amazonaws.com",
            path: "/",
            content_type: "application/x-www-form-urlencoded",
            body: b"Param1=value1",
        };
        let headers = headers(&request, &keys, at(1_440_938_160));
        assert_eq!(
            headers[0].1.as_str(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
        assert_eq!(headers[1].1.as_str(), "20150830T123600Z");
    }

    #[test]
    fn keys_and_regions_are_told() {
        assert!(Keys::read("bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t").is_none());
        assert!(Keys::read("short:secret").is_none());
        let with_token = Keys::read("ASIAIOSFODNN7EXAMPLE:se/cr+et:to:ken==").unwrap();
        assert_eq!(with_token.token, Some("to:ken=="));
        assert!(
            Keys::read("AKIAIOSFODNN7EXAMPLE:x")
                .unwrap()
                .token
                .is_none()
        );
        for (host, region) in [
            ("bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
            (
                "vpce-1.bedrock-runtime.us-west-2.vpce.amazonaws.com:443",
                "us-west-2",
            ),
            (
                "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
            ),
            ("127.0.0.1:80", "us-east-1"),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }
}
