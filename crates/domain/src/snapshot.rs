//! All that the decision may see, frozen.

use serde::{Deserialize, Serialize};

use crate::limit::{Barred, Soft};
use crate::target::Target;

/// An immutable view of every target at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every target that this device could use, near ones first.
    pub targets: Vec<TargetState>,
}

/// A target with its state of the moment.
#[derive(Clone, Debug)]
pub struct TargetState {
    /// What it is.
    pub target: Target,
    /// Whether it can be used now.
    pub health: Health,
    /// Milliseconds before it could begin with this request: the queue ahead,
    /// a model to load, a process to start, a connection to open.
    pub wait_ms: f64,
    /// How fast it has been.
    pub latency: Latency,
    /// Tokens of this request's prompt that it need not compute.
    pub cached_tokens: u32,
    /// The limit that keeps it from answering this request.
    pub barred: Option<Barred>,
    /// The limit that is past its soft share.
    pub soft: Option<Soft>,
}

impl TargetState {
    /// Tokens of a prompt of `prompt_tokens` that it has to compute: always the
    /// last one, which the answer begins with.
    pub fn to_compute(&self, prompt_tokens: u32) -> u32 {
        let known = self.cached_tokens.min(prompt_tokens.saturating_sub(1));
        prompt_tokens - known
    }
}

/// Whether a target can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answers, as far as we know.
    Up,
    /// Its process is being started; [`TargetState::wait_ms`] says how long.
    Starting,
    /// Its process is not running.
    ProcessDown,
    /// It failed too often of late; tried again after a pause.
    BreakerOpen,
    /// The provider's key is missing.
    NoKey,
}

/// A linear model of a target's speed with the spread of its residuals.
///
/// TTFT = `ttft_ms` + prompt tokens × `ms_per_prompt_token`; each further token
/// takes `ms_per_token`. `log_sd` is the standard deviation of the natural
/// logarithm of observed over predicted time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Constant part of the time to first token.
    pub ttft_ms: f64,
    /// Time to first token per token of the prompt.
    pub ms_per_prompt_token: f64,
    /// Time per output token after the first (TPOT).
    pub ms_per_token: f64,
    /// Spread of the logarithm of the residual. Few samples mean a wide one.
    pub log_sd: f64,
}

impl Latency {
    /// Expected time to first token, without waiting, in milliseconds.
    pub fn ttft(&self, prompt_tokens: u32) -> f64 {
        self.ttft_ms + f64::from(prompt_tokens) * self.ms_per_prompt_token
    }
}
