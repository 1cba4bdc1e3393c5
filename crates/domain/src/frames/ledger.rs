//! Rows of the ledger on their way to the fleet's. No content: what a row holds
//! is what the accounting wrote down.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;

/// Rows to be stored in the fleet's ledger, all or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerBatch {
    /// Names the job.
    pub job: JobId,
    /// Which ledger file the rows are from, drawn at random with the file. With
    /// a row's `id` it names the row in the whole fleet.
    pub daemon: String,
    /// In the order of their ids.
    pub rows: Vec<LedgerRow>,
}

/// One request, settled. The fields are those of this device's ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in `store::Row`, which tells of them")]
pub struct LedgerRow {
    /// The row's number in its ledger file.
    pub id: i64,
    pub time_ms: i64,
    pub decision: String,
    pub tenant: String,
    pub key: String,
    pub feature: String,
    pub prompt_version: String,
    pub conversation: String,
    pub endpoint: String,
    pub model: String,
    pub target: String,
    pub zone: String,
    pub ceiling: String,
    pub ceiling_source: String,
    pub reason: String,
    pub outcome: String,
    pub failure: String,
    pub attempts: i64,
    pub prompt_tokens: Option<i64>,
    pub cached_prompt_tokens: Option<i64>,
    pub completion_tokens: Option<i64>,
    pub reasoning_tokens: Option<i64>,
    pub cost_micro: Option<i64>,
    pub saved_micro: Option<i64>,
    pub cache_written_tokens: Option<i64>,
    pub failed_cost_micro: Option<i64>,
    pub baseline: String,
    pub saved_local_micro: Option<i64>,
    pub ttft_ms: Option<f64>,
    pub duration_ms: f64,
    pub stream: bool,
    /// In the order of trying.
    pub failed_legs: Vec<LedgerLeg>,
}

/// One leg that gave no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in `store::FailedLeg`")]
pub struct LedgerLeg {
    pub target: String,
    pub zone: String,
    pub failure: String,
    pub pieces: i64,
}

/// What became of a [`LedgerBatch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerEnd {
    /// Every row is in the fleet's ledger, whether it came now or before.
    Stored,
    /// Another ledger has the same name: a copy of this device's disk is in the
    /// fleet, or this file lost rows in a power cut. Nothing was stored; the
    /// rows go under a new name.
    Taken,
    /// Nothing is known to be stored; the same batch may be sent again.
    Failed {
        /// For people: what, and where there is something to do, what. No secret.
        message: String,
    },
}
