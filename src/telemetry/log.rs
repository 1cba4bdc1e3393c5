//! Log lines: plain text on standard error, with a closed list of fields.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

use crate::store::Row;

/// Every field that a log line may carry. None of them can hold content. A
/// field that is not here shows as `name=?`, so that its author notices.
const FIELDS: [&str; 51] = [
    "action",
    "addr",
    "architecture",
    "attempts",
    "behind_rows",
    "bytes",
    "completion_tokens",
    "connections",
    "count",
    "decision",
    "dropped",
    "duration_ms",
    "endpoint",
    "error",
    "failure",
    "fd",
    "file",
    "from",
    "generation",
    "job",
    "kind",
    "layer",
    "limit",
    "listener",
    "load_ms",
    "location",
    "message",
    "model",
    "ms",
    "name",
    "outcome",
    "path",
    "pid",
    "prompt_tokens",
    "provider",
    "queued",
    "reason",
    "request",
    "role",
    "signal",
    "source",
    "state",
    "status",
    "target",
    "took_ms",
    "tries",
    "ttft_ms",
    "under_way",
    "version",
    "within_ms",
    "zone",
];

/// Begins logging for this process, at `filter` (`info`, `nearfar=debug`, …).
/// Later calls change nothing. A filter that cannot be read is taken as `info`.
pub fn begin_logging(filter: &str) {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
        let fields = debug_fn(|writer, field, value| {
            let name = field.name();
            match name {
                "message" => write!(writer, "{value:?}"),
                _ if FIELDS.contains(&name) => write!(writer, "{name}={value:?}"),
                _ => write!(writer, "{name}=?"),
            }
        })
        .delimited(" ");
        let begun = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .fmt_fields(fields)
            .try_init();
        // Somebody else (a test) logs already: theirs stays.
        drop(begun);
    });
}

/// Makes panics tell their place and not their message: messages of the
/// standard library quote the text that was being cut, which may be content.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic
            .location()
            .map_or_else(|| "?".to_owned(), ToString::to_string);
        tracing::error!(location, "a task panicked; this is a mistake in nearfar");
    }));
}

/// The line of one settled request.
pub(super) fn request_line(row: &Row) {
    tracing::info!(
        endpoint = %row.endpoint,
        target = %row.target,
        zone = %row.zone,
        reason = %row.reason,
        outcome = %row.outcome,
        failure = %row.failure,
        attempts = row.attempts,
        ttft_ms = row.ttft_ms,
        duration_ms = row.duration_ms,
        prompt_tokens = row.prompt_tokens,
        completion_tokens = row.completion_tokens,
        decision = %row.decision,
        "request"
    );
}
