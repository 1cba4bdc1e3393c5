//! How a job of the engine is to be treated among the others.

use serde::{Deserialize, Serialize};

/// Who goes first when a device cannot do everything at once.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Priority {
    /// Somebody waits for the answer and hears it grow.
    #[default]
    Interactive,
    /// Nobody waits: it takes what interactive requests leave.
    Batch,
}

impl Priority {
    /// Reads a tag's text.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "interactive" => Some(Self::Interactive),
            "batch" => Some(Self::Batch),
            _ => None,
        }
    }
}

/// What a job is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// An answer.
    #[default]
    Answer,
    /// The prompt's keys and values, for an answer that will be asked for soon.
    /// It comes after everything else and ends with `Finished`, nothing written.
    Prefill {
        /// Keep them until the model is dropped, as far as there is room: for
        /// system prompts.
        pin: bool,
    },
    /// Nothing: it ends at once with `Finished`, whose usage says how long the
    /// prompt is and how much of it need not be computed.
    Look,
    /// Nothing: a prompt of exactly these tokens is pinned no longer. It ends
    /// with `Finished`, whose usage counts the prompt, and as cached what was
    /// pinned of it: all or nothing.
    Unpin,
}

/// How a job is to be treated among the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Who goes first.
    pub priority: Priority,
    /// Whose job it is: the device is shared evenly between these.
    pub share: String,
    /// The gate waits this long for the answer to begin, in milliseconds from
    /// when the job was sent; a job that cannot begin by then is refused.
    pub begin_within_ms: Option<f64>,
    /// What it is for.
    pub purpose: Purpose,
}
