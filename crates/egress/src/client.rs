//! Connections to providers: kept, reused, and told when a request is out.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::redirect::Policy;
use tokio::sync::watch;
use tokio::time::Instant;

/// Connections that wait for their next request are closed after this long.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Connections that wait, per provider.
const POOL_SIZE: usize = 16;
/// Clients that are kept: one per connect limit, which is one per daemon.
const MAX_CLIENTS: usize = 4;
/// A request goes out in pieces of this size, so that the moment when its last
/// one left is near the moment when it was sent.
const PIECE: usize = 64 << 10;

/// The clients, by their connect limit: reqwest sets it per client.
#[derive(Default)]
pub(crate) struct Clients {
    built: Mutex<Vec<(u64, reqwest::Client)>>,
}

impl Clients {
    /// The client whose connections are made within `connect_ms`.
    pub(crate) fn get(&self, connect_ms: u64) -> Result<reqwest::Client, reqwest::Error> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = built.iter().find(|(ms, _)| *ms == connect_ms) {
            return Ok(client.clone());
        }
        let client = build(Duration::from_millis(connect_ms.max(1)))?;
        if built.len() == MAX_CLIENTS {
            built.remove(0);
        }
        built.push((connect_ms, client.clone()));
        Ok(client)
    }
}

fn build(connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
    match builder(connect).build() {
        Ok(client) => Ok(client),
        Err(error) => {
            // Without the system's certificates there is no TLS, but a server
            // on the site that speaks plain HTTP still works.
            tracing::error!(
                %error,
                "the system's TLS certificates cannot be used (on Debian: apt-get install \
                 ca-certificates); providers on https will be unreachable"
            );
            builder(connect).tls_certs_only([]).build()
        }
    }
}

fn builder(connect: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("nearfar/", env!("CARGO_PKG_VERSION")))
        // A redirect would take the prompt and the key to an address that
        // nobody configured.
        .redirect(Policy::none())
        // A proxy in the environment would see every connection; none is used
        // that nobody configured.
        .no_proxy()
        .referer(false)
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
}

/// A request's body that tells when its last piece was handed to the connection.
pub(crate) struct SentBody {
    rest: Bytes,
    sent: watch::Sender<Option<Instant>>,
}

impl SentBody {
    /// The body, and where the moment appears.
    pub(crate) fn new(bytes: Bytes) -> (Self, watch::Receiver<Option<Instant>>) {
        let (sent, seen) = watch::channel(None);
        (Self { rest: bytes, sent }, seen)
    }
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = this.rest.split_to(PIECE.min(this.rest.len()));
        if this.rest.is_empty() {
            // A connection that is tried again sends from the start.
            this.sent.send_replace(Some(Instant::now()));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
