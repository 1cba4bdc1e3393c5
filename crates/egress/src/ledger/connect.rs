//! One connection to Postgres, with TLS unless the server is this machine.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::LedgerOptions;
use crate::{secrets, tls};

/// Name resolution, TCP, TLS and the password.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection; dropping it closes it.
pub(super) struct Connection {
    pub(super) client: Client,
    /// Moves its bytes.
    _moving: JoinSet<()>,
}

/// Connects, with the password as it is now in its place.
///
/// # Errors
/// For people, without any secret.
pub(super) async fn connect(
    options: &LedgerOptions,
    credentials: &Option<PathBuf>,
) -> Result<Connection, String> {
    let mut config: Config = options
        .url
        .parse()
        .map_err(|error| format!("fleet_ledger.url: {error}"))?;
    let password = secrets::load_any(&options.password, credentials.as_deref());
    if let Some(password) = password.map_err(|why| format!("no password: {why}"))? {
        config.password(password.expose_secret());
    }
    let here = config.get_hosts().iter().all(is_this_machine);
    if !here && !options.url.contains("sslmode=") {
        // A server that offers no TLS must not get the rows for that.
        config.ssl_mode(SslMode::Require);
    }
    config
        .application_name("nearfar")
        .connect_timeout(CONNECT)
        .tcp_user_timeout(Duration::from_secs(30))
        .keepalives_idle(Duration::from_secs(30));
    let tls = match config.get_ssl_mode() {
        SslMode::Disable => None,
        _ => Some(tls::config().map_err(|error| format!("TLS: {error}"))?),
    };
    let connecting = config.connect(MakeTls(
        tls.map(|config| TlsConnector::from(Arc::new(config))),
    ));
    let (client, connection) = tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(|_| format!("it did not answer within {} s", CONNECT.as_secs()))?
        .map_err(|error| told(&error))?;
    let mut moving = JoinSet::new();
    moving.spawn(async move {
        // Whoever waits for an answer is told of the error by the client.
        let _ = connection.await;
    });
    Ok(Connection {
        client,
        _moving: moving,
    })
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    }
}

/// What the server said, in its main line alone: details may quote rows.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    let text = match (error.as_db_error(), error.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Begins TLS on a connection; none where it was switched off.
struct MakeTls(Option<TlsConnector>);

struct Tls {
    connector: Option<TlsConnector>,
    name: String,
}

type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

struct Stream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S> MakeTlsConnect<S> for MakeTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = Tls;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Tls, io::Error> {
        Ok(Tls {
            connector: self.0.clone(),
            name: domain.to_owned(),
        })
    }
}

impl<S> TlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Connecting<S>;

    fn connect(self, stream: S) -> Connecting<S> {
        Box::pin(async move {
            let connector = self.connector.ok_or_else(|| io::Error::other("no TLS"))?;
            let name = ServerName::try_from(self.name).map_err(io::Error::other)?;
            let stream = connector.connect(name, stream).await?;
            Ok(Stream(Box::new(stream)))
        })
    }
}

impl<S> TlsStream for Stream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn channel_binding(&self) -> ChannelBinding {
        // The server's certificate is checked against its name instead.
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}
