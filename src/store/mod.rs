//! What is kept in SQLite: the ledger, one row per request, and virtual keys.
//! Never content.
//!
//! [`KeyStore`] is the file of keys. [`Ledger`] owns one writer thread; [`UsageQuery`] asks what was used. The
//! file's shape and its migrations are in `schema`. Nothing here knows of
//! HTTP, targets or policy: a row is what the accounting wrote down.

mod export;
mod keys;
mod ledger;
mod limits;
mod schema;
mod usage;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use export::Unsent;
pub use keys::{KEYS_FILE, Key, KeyScope, KeyStore, KeysError, TokenHash};
pub use ledger::Ledger;
pub use limits::LimitUse;
pub use usage::{
    Dimension, MAX_BASELINES, MAX_GROUPS, MAX_LINES, UnknownDimension, UsageLine, UsageQuery,
};

/// The ledger's file inside the state directory.
pub const LEDGER_FILE: &str = "ledger.sqlite";

/// Why the ledger could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no: the disk, the file's rights, or a mistake of ours.
    #[error("the ledger {path} could not be used: {reason}")]
    Sqlite {
        /// The ledger's file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// The disk refuses: it is full, read-only or failing. It may recover.
    #[error("the ledger {path} cannot be written for now: {reason}; free some room on its disk")]
    Disk {
        /// The ledger's file.
        path: PathBuf,
        /// SQLite's or the system's words.
        reason: String,
    },
    /// A later nearfar wrote this file; an older one would spoil it.
    #[error(
        "the ledger {path} has schema version {found}, this nearfar knows up to {known}: \
         run the newer nearfar, or move the file away to begin a new ledger"
    )]
    Newer {
        /// The ledger's file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The latest that this build knows.
        known: i64,
    },
    /// A question whose answer would not fit into memory.
    #[error("usage has more than {MAX_GROUPS} groups: name fewer dimensions or a shorter time")]
    TooManyGroups,
    /// The file or its folder could not be made or moved.
    #[error("the ledger {path} could not be {what}: {reason}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// `created`, `set aside`…
        what: &'static str,
        /// The system's words.
        reason: std::io::Error,
    },
}

/// One request, settled. Also for refused, failed and cancelled ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When the request came, in milliseconds since 1970.
    pub time_ms: i64,
    /// `dec_…`.
    pub decision: String,
    /// Who pays; `default` where nobody else was told.
    pub tenant: String,
    /// The id of the key that the request came with; empty without one.
    #[serde(default)]
    pub key: String,
    /// What for; empty when the request did not say.
    pub feature: String,
    /// `name@version` of the prompt, or empty.
    pub prompt_version: String,
    /// Which conversation, or empty.
    pub conversation: String,
    /// `openai.chat`, …
    pub endpoint: String,
    /// The model as asked for.
    pub model: String,
    /// The target that answered or failed last; empty when refused.
    pub target: String,
    /// Its zone; empty when refused.
    pub zone: String,
    /// The ceiling's zone.
    pub ceiling: String,
    /// Who set the ceiling.
    pub ceiling_source: String,
    /// Why this target ([`nearfar_domain::explain::Reason`]) or why none.
    pub reason: String,
    /// `ok`, `refused`, `failed` or `cancelled`.
    pub outcome: String,
    /// The failure's kind, or empty.
    pub failure: String,
    /// Legs tried.
    pub attempts: u32,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Of these, from a cache.
    pub cached_prompt_tokens: Option<u64>,
    /// Of these, written to a provider's cache.
    #[serde(default)]
    pub cache_written_tokens: Option<u64>,
    /// Tokens written.
    pub completion_tokens: Option<u64>,
    /// Of these, reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Cost in micro-units, that of failed legs included; `None` where a price or
    /// a count is not known.
    pub cost_micro: Option<u64>,
    /// What the kept answer cost when it was made, in micro-units, where this
    /// one came from the cache; `None` for all others and where it is not known.
    #[serde(default)]
    pub saved_micro: Option<u64>,
    /// Of this, the cost of legs that gave no whole answer.
    #[serde(default)]
    pub failed_cost_micro: Option<u64>,
    /// The target that a saving is reckoned by: the one that would have answered
    /// otherwise. Empty where none is known.
    #[serde(default)]
    pub baseline: String,
    /// What the answer would have cost there, where this device gave it.
    #[serde(default)]
    pub saved_local_micro: Option<u64>,
    /// Time to the first visible event, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Time to the end, in milliseconds.
    pub duration_ms: f64,
    /// Whether it was streamed.
    pub stream: bool,
    /// Legs that gave no whole answer, in the order of trying.
    #[serde(default)]
    pub failed_legs: Vec<FailedLeg>,
}

/// One leg of a request that gave no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLeg {
    /// Who was tried.
    pub target: String,
    /// Its zone.
    pub zone: String,
    /// The failure's kind.
    pub failure: String,
    /// Pieces of an answer that came before: tokens on this device, about as
    /// many elsewhere.
    pub pieces: u64,
}

#[cfg(test)]
mod tests;
