//! Reading request bodies, within bounds of size, time and memory.
#![allow(
    clippy::disallowed_methods,
    reason = "reads what is left of a refused body, bounded in time"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// A body up to this size takes nothing from the shared allowance, so that
/// large bodies cannot starve small requests.
const FREE_BYTES: usize = 64 << 10;
/// How many bodies of the largest size may be in memory at once.
const LARGEST_AT_ONCE: usize = 4;
/// The most bytes of a refused body that are read and thrown away.
const MAX_DISCARD_BYTES: u64 = 512 << 20;

/// The bounds on bodies, and the memory that they share.
#[derive(Clone, Debug)]
pub(crate) struct Bodies {
    max_bytes: usize,
    timeout: Duration,
    /// In KiB.
    allowance: Arc<Semaphore>,
}

/// A whole body, with its share of the allowance.
pub(crate) struct Whole {
    bytes: BytesMut,
    _share: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// Bodies of at most `max_bytes`, each to arrive within `timeout`.
    pub(crate) fn new(max_bytes: usize, timeout: Duration) -> Self {
        let kib = (max_bytes / 1024 + 1).saturating_mul(LARGEST_AT_ONCE);
        Self {
            max_bytes,
            timeout,
            allowance: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads a body that should be JSON.
    ///
    /// # Errors
    /// 415 for a content type that an HTML form could send, 413 and 408 for a
    /// body that is too large or too slow, 400 for one that breaks off, and 429
    /// when too many large ones are being read.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Whole, Problem> {
        refuse_form_types(headers)?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes as u64) {
            self.discard(headers, announced, body);
            return Err(Problem::too_large(self.max_bytes));
        }
        match tokio::time::timeout(self.timeout, self.collect(body)).await {
            Ok(Ok(whole)) => Ok(whole),
            Ok(Err((problem, rest))) => {
                if let Some(body) = rest {
                    self.discard(headers, None, body);
                }
                Err(problem)
            }
            Err(_) => Err(Problem::too_slow()),
        }
    }

    async fn collect(&self, mut body: Body) -> Result<Whole, (Problem, Option<Body>)> {
        let mut bytes = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                let message = "The body broke off. Send it whole.";
                (Problem::bad_request("body_broken", message), None)
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = bytes.len() + data.len();
            if length > self.max_bytes {
                return Err((Problem::too_large(self.max_bytes), Some(body)));
            }
            let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let needed = length.saturating_sub(FREE_BYTES).div_ceil(1024);
            if needed > held {
                // Doubling keeps the number of steps small, as the buffer does.
                let largest = self.max_bytes / 1024 + 1;
                let more = needed.max(held * 2).min(largest.max(needed)) - held;
                let more = u32::try_from(more).unwrap_or(u32::MAX);
                // Waiting here could be waiting for each other.
                match Arc::clone(&self.allowance).try_acquire_many_owned(more) {
                    Ok(permit) => match &mut share {
                        Some(share) => share.merge(permit),
                        None => share = Some(permit),
                    },
                    Err(_) => return Err((Problem::too_many_bodies(), Some(body))),
                }
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Whole {
            bytes,
            _share: share,
        })
    }

    /// Reads the rest of a refused body and throws it away, for a while.
    ///
    /// Most clients read no reply before they have sent everything; closing on
    /// them would replace the reason by a reset connection. A client that waits
    /// for `100 Continue` sends nothing and needs none of this.
    fn discard(&self, headers: &HeaderMap, announced: Option<u64>, mut body: Body) {
        let waits = headers.contains_key(header::EXPECT);
        if waits || announced.is_some_and(|length| length > MAX_DISCARD_BYTES) {
            return;
        }
        let reading = async move {
            let mut left = MAX_DISCARD_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        tokio::spawn(tokio::time::timeout(self.timeout, reading));
    }
}

/// A page of another origin can send these without asking first.
fn refuse_form_types(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all(header::CONTENT_TYPE) {
        let essence = value.as_bytes().split(|b| *b == b';').next().unwrap_or(&[]);
        let essence = essence.trim_ascii().to_ascii_lowercase();
        let form = matches!(
            essence.as_slice(),
            b"text/plain" | b"application/x-www-form-urlencoded"
        ) || essence.starts_with(b"multipart/");
        if form {
            return Err(Problem::unsupported_media());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::StatusCode;
    use bytes::Bytes;
    use futures_util::stream;

    fn chunks(sizes: &[usize]) -> Body {
        let parts: Vec<Result<Bytes, std::io::Error>> =
            sizes.iter().map(|n| Ok(vec![b'x'; *n].into())).collect();
        Body::from_stream(stream::iter(parts))
    }

    fn status(result: Result<Whole, Problem>) -> StatusCode {
        result.err().unwrap().status()
    }

    #[tokio::test]
    async fn the_limit_is_exact_and_holds_for_chunked_bodies() {
        let bodies = Bodies::new(100, Duration::from_secs(5));
        let headers = HeaderMap::new();
        assert_eq!(
            bodies
                .read(&headers, chunks(&[60, 40]))
                .await
                .unwrap()
                .len(),
            100
        );
        let over = bodies.read(&headers, chunks(&[60, 41])).await;
        assert_eq!(status(over), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn large_bodies_share_one_allowance() {
        let bodies = Bodies::new(1 << 20, Duration::from_secs(5));
        let headers = HeaderMap::new();
        let mut held = Vec::new();
        for _ in 0..LARGEST_AT_ONCE {
            held.push(bodies.read(&headers, chunks(&[1 << 20])).await.unwrap());
        }
        let one_more = bodies.read(&headers, chunks(&[1 << 20])).await;
        assert_eq!(status(one_more), StatusCode::TOO_MANY_REQUESTS);
        bodies.read(&headers, chunks(&[FREE_BYTES])).await.unwrap();
        held.pop();
        bodies.read(&headers, chunks(&[1 << 20])).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_form_can_send_is_refused() {
        let bodies = Bodies::new(100, Duration::from_secs(5));
        for (kind, fine) in [
            ("application/json; charset=utf-8", true),
            ("application/vnd.api+json", true),
            ("Text/Plain;charset=UTF-8", false),
            ("multipart/form-data; boundary=x", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            let read = bodies.read(&headers, chunks(&[2])).await;
            assert_eq!(read.is_ok(), fine, "{kind}");
        }
    }
}
