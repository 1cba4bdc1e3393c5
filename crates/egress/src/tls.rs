//! TLS for what is not HTTP: the same library and the same certificates as the
//! providers' connections have.

use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::{self, ClientConfig};

/// Trusts what the system trusts, and always checks the server's name.
///
/// # Errors
/// When the system's certificates cannot be used.
pub(crate) fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}
