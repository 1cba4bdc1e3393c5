//! What may be told about requests: log lines, counters and histograms.
//!
//! All of it comes from the ledger's [`Row`](crate::store::Row) and from kinds
//! and counts. Content never gets here; the log layer prints a closed list of
//! fields and nothing else, so that a careless field cannot leak one.

mod labels;
mod limits;
mod log;
mod metrics;

pub use limits::LimitGauge;
pub use log::{begin_logging, silence_panics};
pub(crate) use metrics::RequestIds;
pub use metrics::{CacheGauges, ExportGauges, Gauges, Metrics, SharingGauges};
