//! Begins logging, the same way in every process.
#![allow(clippy::disallowed_methods, reason = "the level of the log")]

/// To standard error; `RUST_LOG` filters, `info` without it.
pub(super) fn begin() {
    let filter = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = match filter.trim() {
        "" => "info",
        said => said,
    };
    crate::telemetry::begin_logging(filter);
    crate::telemetry::silence_panics();
}
