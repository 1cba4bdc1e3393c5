//! The ledger: one row per request, in SQLite. Never content.

use serde::{Deserialize, Serialize};

/// One request, settled. Also for refused, failed and cancelled ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When the request came, in milliseconds since 1970.
    pub time_ms: i64,
    /// `dec_…`.
    pub decision: String,
    /// Who pays; `default` until there are keys.
    pub tenant: String,
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
    /// Tokens written.
    pub completion_tokens: Option<u64>,
    /// Of these, reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Cost in micro-units; `None` where a price or a count is not known.
    pub cost_micro: Option<u64>,
    /// Time to the first visible event, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Time to the end, in milliseconds.
    pub duration_ms: f64,
    /// Whether it was streamed.
    pub stream: bool,
}
