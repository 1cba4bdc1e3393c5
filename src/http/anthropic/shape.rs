//! What whole answers and streams have in common.

use nearfar_domain::events::{FinishReason, Usage};
use serde_json::{Value, json};

use crate::http::dialect::About;

/// The message that content is added to.
pub(super) fn message(about: &About) -> Value {
    json!({
        "id": format!("msg_{:032x}", about.decision.0),
        "type": "message",
        "role": "assistant",
        "model": about.target.to_string(),
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
    })
}

/// Anthropic counts apart what came from a cache and what went into one. Its
/// counts are never null: what the target did not tell is 0.
pub(super) fn usage(usage: &Usage) -> Value {
    let read = usage.cached_prompt.unwrap_or(0);
    let written = usage.cache_written.unwrap_or(0);
    let prompt = usage.prompt.unwrap_or(0);
    let mut shown = json!({
        "input_tokens": prompt.saturating_sub(read.saturating_add(written)),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.completion.unwrap_or(0),
    });
    if let Some(tokens) = usage.reasoning {
        shown["output_tokens_details"] = json!({"thinking_tokens": tokens});
    }
    shown
}

/// `stop_reason` and `stop_sequence`.
pub(super) fn stop(reason: FinishReason, stopped_by: Option<&str>) -> (&'static str, Value) {
    match (reason, stopped_by) {
        (FinishReason::Stop, Some(text)) => ("stop_sequence", json!(text)),
        (FinishReason::Stop, None) => ("end_turn", Value::Null),
        (FinishReason::Length, _) => ("max_tokens", Value::Null),
        (FinishReason::ToolCalls, _) => ("tool_use", Value::Null),
        (FinishReason::ContentFilter, _) => ("refusal", Value::Null),
    }
}
