//! A provider behind TLS that speaks HTTP/2: its first connection ends with a
//! GOAWAY in place of an answer, the next ones answer.
//!
//! The certificate and its authority are for tests alone: `tls/` holds no key of
//! the authority, so nothing else can be signed with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// The server. Stops when dropped.
pub struct Http2 {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Http2 {
    /// Listens on a free port; answers with these server-sent events.
    pub async fn start(events: Vec<String>) -> Self {
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, events) = (acceptor.clone(), seen.clone(), events.clone());
                tokio::spawn(async move { serve(stream, &acceptor, &seen, &events).await });
            }
        });
        Self {
            address,
            requests,
            accepting,
        }
    }

    /// For a provider of the OpenAI dialect.
    pub fn base(&self) -> String {
        format!("https://{}/v1", self.address)
    }

    /// The authority's certificate, for `SSL_CERT_FILE`.
    pub fn authority() -> String {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/tls/authority.pem"
        )
        .to_owned()
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, seen: &AtomicUsize, events: &[String]) {
    let Ok(tls) = acceptor.accept(stream).await else {
        return;
    };
    let Ok(mut connection) = h2::server::handshake(tls).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
            connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR);
            let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
            return;
        }
        let head = axum::http::Response::builder()
            .header("content-type", "text/event-stream")
            .body(())
            .unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        for event in events {
            body.send_data(Bytes::from(event.clone()), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
    }
}
