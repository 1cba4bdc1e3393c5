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
