//! Connections: accepting, limits of time and number, and the drain.
//!
//! One listener owns its connections; dropping its future ends them. What a
//! connection may do to the daemon is bounded here: how many there are, how
//! slowly a head may arrive and how long a reply may stay unread. Routes are
//! not known here.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::stall::Guarded;

/// The most bytes of a request's head, and of what is read ahead of a body.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds on one listener's connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// Connections at once. Further ones wait in the kernel's backlog.
    pub(crate) max_connections: usize,
    /// From a connection's being ready for a request to the end of the
    /// request's head; so also how long an idle connection is kept.
    pub(crate) header_timeout: Duration,
    /// How long a client may leave a reply unread before it is cut.
    pub(crate) write_stall: Duration,
}

/// A listening socket.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// Takes over a bound and listening TCP socket.
    pub(crate) fn tcp(fd: OwnedFd) -> io::Result<Self> {
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    /// Takes over a bound and listening unix socket.
    pub(crate) fn unix(fd: OwnedFd) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Self::Unix)
    }

    /// The address that it is bound to; `None` for a unix socket.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A stream of small chunks must not wait for acknowledgements.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Accepts and serves until `drain` turns true (or its sender is gone), then
/// lets what is under way end. `answer` is called for each request, with the
/// connection's own address on TCP.
pub(crate) async fn serve<F, R>(
    socket: Socket,
    limits: ConnectionLimits,
    answer: F,
    drain: watch::Receiver<bool>,
) where
    F: Fn(Request<Incoming>, Option<IpAddr>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.max_connections.max(1)));
    let mut connections = JoinSet::new();
    let mut draining = std::pin::pin!(drained(drain.clone()));
    loop {
        while connections.try_join_next().is_some() {}
        // The place comes before the connection: who finds none stays in the
        // backlog and costs nothing.
        let place = tokio::select! {
            () = &mut draining => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = &mut draining => break,
            accepted = socket.accept() => accepted,
        };
        let drain = drained(drain.clone());
        match accepted {
            Ok(Stream::Tcp(stream)) => {
                let local = stream
                    .local_addr()
                    .ok()
                    .map(|addr| addr.ip().to_canonical());
                connections.spawn(connection(
                    stream,
                    local,
                    limits,
                    answer.clone(),
                    drain,
                    place,
                ));
            }
            Ok(Stream::Unix(stream)) => {
                connections.spawn(connection(
                    stream,
                    None,
                    limits,
                    answer.clone(),
                    drain,
                    place,
                ));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

async fn drained(mut drain: watch::Receiver<bool>) {
    // An error means that the sender is gone: the daemon is stopping too.
    let _ = drain.wait_for(|draining| *draining).await;
}

async fn connection<S, F, R>(
    stream: S,
    local: Option<IpAddr>,
    limits: ConnectionLimits,
    answer: F,
    drained: impl Future<Output = ()>,
    _place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Option<IpAddr>) -> R,
    R: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let reply = answer(request, local);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let io = TokioIo::new(Guarded::new(stream, limits.write_stall));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    // What a connection ends with is the client's affair: it went away, was
    // too slow or sent what is not HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = drained => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
