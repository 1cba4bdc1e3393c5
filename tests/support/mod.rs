//! What the integration tests share.
// Each test module uses some of it, and the one binary exports nothing.
#![allow(dead_code, unreachable_pub)]

pub mod billed;
pub mod daemon;
pub mod double;
pub mod http2;
#[cfg(any(feature = "postgres", feature = "valkey"))]
pub mod servers;
pub mod wire;

use std::path::PathBuf;

/// The root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a server of the tests beside the test, on one thread, for as long as it
/// is held.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
