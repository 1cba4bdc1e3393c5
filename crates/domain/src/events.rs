//! The answer, as it arrives: the same events from the device and from any
//! provider, in the order that a client may rely on.
//!
//! `Started` first; then content, reasoning, tool calls and log-probabilities;
//! then exactly one of `Finished` and `Failed`. What is not there: the text of
//! the request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::thought::Signature;

/// One step of an answer.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The target took the request; `model` is the one that really answers.
    /// Once more in the middle of an answer that broke off: this target goes on
    /// with it, and `model` is then the target's whole name.
    Started {
        /// The model's name as the target tells it.
        model: String,
    },
    /// More of the answer's text.
    Content(String),
    /// More of the model's reasoning.
    Reasoning(String),
    /// A tool call, or more of its arguments.
    ToolCall(ToolCallDelta),
    /// What the target wants to see again in the conversation's next request.
    Signature {
        /// What it belongs to.
        of: Signed,
        /// The opaque text.
        signature: Signature,
    },
    /// The answer ended before this one of the request's stop strings. Follows
    /// the last content, where the target tells it.
    StoppedBy(String),
    /// Log-probabilities of the tokens behind the next content.
    Logprobs(Vec<TokenLogprob>),
    /// More of the vectors that were asked for, in the order of the inputs.
    Vectors(Vec<Vec<f32>>),
    /// The answer is whole.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took, where the target said so.
        usage: Usage,
    },
    /// The answer is not whole, and this is why.
    Failed(Failure),
}

impl Event {
    /// Whether a client would see or act on this: after the first such event a
    /// leg can no longer be replaced unseen.
    pub fn is_visible(&self) -> bool {
        matches!(
            self,
            Event::Content(_)
                | Event::Reasoning(_)
                | Event::ToolCall(_)
                | Event::Signature { .. }
                | Event::Logprobs(_)
                | Event::Vectors(_)
        )
    }

    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Finished { .. } | Event::Failed(_))
    }
}

/// A fragment of a tool call. Indexes count from 0 without gaps; the first
/// fragment of an index carries `id` and `name`, later ones only arguments.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Which call of this turn.
    pub index: u32,
    /// In the first fragment: the call's id.
    pub id: Option<String>,
    /// In the first fragment: the function's name.
    pub name: Option<String>,
    /// More of the arguments' JSON text.
    pub arguments: String,
}

/// What a signature belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signed {
    /// The reasoning since the last signature: with this it is one whole
    /// thought, which may have no readable text.
    Thought {
        /// The item's id, where the dialect has one.
        id: Option<String>,
    },
    /// Reasoning that is withheld: the signature is all there is of it.
    Redacted,
    /// The tool call of this index.
    Call(u32),
}

/// A token with its log-probability under the model's own distribution.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token as text; U+FFFD where its bytes are not UTF-8 alone.
    pub token: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens at this place, best first.
    pub top: Vec<(String, Vec<u8>, f32)>,
}

/// Why a whole answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model was done, or a stop string came up.
    Stop,
    /// The token limit or the context was reached.
    Length,
    /// The model called tools.
    ToolCalls,
    /// The provider withheld the rest.
    ContentFilter,
}

/// Tokens that an answer took. `None` where the target did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt: Option<u64>,
    /// The part of `prompt` that came from a cache.
    pub cached_prompt: Option<u64>,
    /// The part of `prompt` that was written to a cache, where that has a price.
    pub cache_written: Option<u64>,
    /// The part of `cache_written` that is kept for an hour, where that has a
    /// price of its own.
    pub cache_written_hour: Option<u64>,
    /// Tokens written, reasoning included.
    pub completion: Option<u64>,
    /// The part of `completion` that was reasoning.
    pub reasoning: Option<u64>,
}

/// What went wrong, in kinds that decide what may be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The target says that the request itself is wrong.
    BadRequest,
    /// The target cannot do what is asked; another may.
    Unsupported,
    /// The target refuses what was said, by its content filter.
    Refused,
    /// The answer held what this device's guard does not let through.
    Blocked,
    /// The answer costs more than the request allows.
    TooDear,
    /// Prompt and answer do not fit the model's context.
    ContextLength,
    /// The provider refused our key, or we have none.
    Unauthorized,
    /// The provider refused for its own rules (not a content filter's finish).
    Forbidden,
    /// The model is not known there.
    ModelMissing,
    /// The model's file cannot be used.
    ModelBroken,
    /// Too many requests.
    RateLimited,
    /// The target is overloaded or in maintenance.
    Overloaded,
    /// The connection could not be made.
    Unreachable,
    /// A time limit ran out.
    TimedOut,
    /// The answer was cut off.
    Cut,
    /// The target sent what its dialect does not allow.
    Malformed,
    /// Any other error of the target's.
    TargetError,
    /// Our own process for this leg went away.
    Crashed,
    /// The client went away or cancelled.
    Cancelled,
    /// A mistake of ours.
    Internal,
}

impl FailureKind {
    /// The name in logs, metrics and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::BadRequest => "bad_request",
            FailureKind::Unsupported => "unsupported",
            FailureKind::Refused => "refused",
            FailureKind::Blocked => "blocked",
            FailureKind::TooDear => "too_dear",
            FailureKind::ContextLength => "context_length",
            FailureKind::Unauthorized => "unauthorized",
            FailureKind::Forbidden => "forbidden",
            FailureKind::ModelMissing => "model_missing",
            FailureKind::ModelBroken => "model_broken",
            FailureKind::RateLimited => "rate_limited",
            FailureKind::Overloaded => "overloaded",
            FailureKind::Unreachable => "unreachable",
            FailureKind::TimedOut => "timed_out",
            FailureKind::Cut => "cut",
            FailureKind::Malformed => "malformed",
            FailureKind::TargetError => "target_error",
            FailureKind::Crashed => "crashed",
            FailureKind::Cancelled => "cancelled",
            FailureKind::Internal => "internal",
        }
    }

    /// Whether another leg may succeed where this one did not. A request that
    /// is wrong in itself is wrong everywhere; a cancelled one is not wanted;
    /// one that a content filter refused, or our own guard, is not to be carried
    /// past it.
    pub fn another_leg_may_help(self) -> bool {
        !matches!(
            self,
            FailureKind::BadRequest
                | FailureKind::Cancelled
                | FailureKind::Refused
                | FailureKind::Blocked
        )
    }

    /// Whether it says something about the target's health, rather than about
    /// this one request.
    pub fn speaks_of_health(self) -> bool {
        matches!(
            self,
            FailureKind::Unauthorized
                | FailureKind::RateLimited
                | FailureKind::Overloaded
                | FailureKind::Unreachable
                | FailureKind::TimedOut
                | FailureKind::Cut
                | FailureKind::Malformed
                | FailureKind::TargetError
                | FailureKind::Crashed
                | FailureKind::ModelBroken
        )
    }
}

/// A failed leg. `message` is public: it names no secret and quotes no content
/// of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// For the client: what it is and what to do about it.
    pub message: String,
    /// The request's field that is at fault, where one is.
    pub field: Option<String>,
    /// The provider's HTTP status, where there was one.
    pub upstream_status: Option<u16>,
    /// The provider's own error code.
    pub upstream_code: Option<String>,
    /// How long the target asks us to wait.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure with a public message and nothing else known.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: None,
            upstream_status: None,
            upstream_code: None,
            retry_after_ms: None,
        }
    }
}

// Answers are content too: lengths only.

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Started { model } => write!(f, "Started({model})"),
            Event::Content(text) => write!(f, "Content({} bytes)", text.len()),
            Event::Reasoning(text) => write!(f, "Reasoning({} bytes)", text.len()),
            Event::ToolCall(delta) => fmt::Debug::fmt(delta, f),
            Event::Signature { of, signature } => write!(f, "Signature({of:?}, {signature:?})"),
            Event::StoppedBy(text) => write!(f, "StoppedBy({} bytes)", text.len()),
            Event::Logprobs(tokens) => write!(f, "Logprobs({} tokens)", tokens.len()),
            // A vector tells much of its text.
            Event::Vectors(vectors) => write!(f, "Vectors({})", vectors.len()),
            Event::Finished { reason, usage } => write!(f, "Finished({reason:?}, {usage:?})"),
            Event::Failed(failure) => write!(f, "Failed({:?})", failure.kind),
        }
    }
}

impl fmt::Debug for ToolCallDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ToolCall(index {}, {} bytes)",
            self.index,
            self.arguments.len()
        )
    }
}

impl fmt::Debug for TokenLogprob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenLogprob({} alternatives)", self.top.len())
    }
}
