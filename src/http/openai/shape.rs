//! What both kinds of OpenAI answers have in common: the head that every chunk
//! repeats, usage, finish reasons.

use nearfar_domain::events::{FinishReason, Usage};
use serde_json::{Value, json};

use crate::account::Bill;
use crate::http::dialect::About;

/// What every chunk of one answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The target that really answers.
    pub(crate) model: String,
    /// What the answer costs, once it has ended.
    pub(crate) bill: Bill,
}

impl Head {
    /// `prefix` is `chatcmpl-` or `cmpl-`; the rest of the id is the decision's.
    pub(crate) fn of(about: &About, prefix: &str) -> Self {
        Self {
            id: format!("{prefix}{:032x}", about.decision.0),
            created: about.created,
            model: about.target.to_string(),
            bill: about.bill.clone(),
        }
    }

    /// The object that choices and usage are added to.
    pub(crate) fn object(&self, kind: &str) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        })
    }
}

/// Changes with the code that answers, as OpenAI's does.
pub(crate) const FINGERPRINT: &str = concat!("fp_nearfar_", env!("CARGO_PKG_VERSION"));

/// One server-sent event.
pub(crate) fn push_data(out: &mut String, value: &Value) {
    use std::fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = write!(out, "data: {value}\n\n");
}

/// Tells in a stream's last chunk who went on with an answer that broke off;
/// the headers named the first target only.
pub(crate) fn tell_continuation(chunk: &mut Value, continued_on: &[String]) {
    if !continued_on.is_empty() {
        chunk["nearfar"] = json!({"continued_on": continued_on});
    }
}

/// Tells in a stream's usage what the answer cost, where that is known.
pub(crate) fn tell_cost(chunk: &mut Value, bill: &Bill) {
    if let Some(micro) = bill.get().copied().flatten() {
        chunk["nearfar"] = json!({"cost_micro": micro});
    }
}

/// The end of a whole stream.
pub(crate) const DONE: &str = "data: [DONE]\n\n";

pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// OpenAI's usage object; `null` where the target told no counts.
pub(crate) fn usage(usage: &Usage) -> Value {
    let (Some(prompt), Some(completion)) = (usage.prompt, usage.completion) else {
        return Value::Null;
    };
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt.saturating_add(completion),
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt.unwrap_or(0)},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning.unwrap_or(0)},
    })
}

/// A log-probability as JSON. OpenAI writes -9999 for what has no chance.
pub(crate) fn logprob(value: f32) -> f64 {
    if value.is_finite() {
        // By way of its shortest text, or -0.1 would become -0.10000000149.
        value.to_string().parse().unwrap_or(f64::from(value))
    } else {
        -9999.0
    }
}
