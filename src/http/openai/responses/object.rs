//! The response object: what was asked, as far as it is shown again, and what
//! came of it.

use nearfar_domain::events::Usage;
use serde_json::{Map, Value, json};

use crate::http::dialect::About;

/// What a response repeats of its request, in OpenAI's order of fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Echo {
    pub(super) instructions: Value,
    pub(super) max_output_tokens: Value,
    pub(super) metadata: Value,
    pub(super) parallel_tool_calls: Value,
    pub(super) previous_response_id: Value,
    pub(super) prompt_cache_key: Value,
    pub(super) reasoning: Value,
    pub(super) safety_identifier: Value,
    pub(super) temperature: Value,
    pub(super) text: Value,
    pub(super) tool_choice: Value,
    pub(super) tools: Value,
    pub(super) top_logprobs: Value,
    pub(super) top_p: Value,
    pub(super) user: Value,
}

/// What became of a response.
pub(super) struct State<'a> {
    /// `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
    pub(super) status: &'static str,
    pub(super) output: &'a [Value],
    pub(super) usage: Value,
    /// `{code, message}` of a response that failed.
    pub(super) error: Value,
    /// Why a response is incomplete.
    pub(super) reason: Option<&'static str>,
    /// Whether it is kept.
    pub(super) stored: bool,
}

/// A response's id: its decision's number.
pub(super) fn id_of(about: &About) -> String {
    format!("resp_{:032x}", about.decision.0)
}

/// The object.
pub(super) fn object(about: &About, echo: &Echo, state: State<'_>) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    put("id", json!(id_of(about)));
    put("object", json!("response"));
    put("created_at", json!(about.created));
    put("status", json!(state.status));
    put("background", json!(false));
    put("error", state.error);
    let reason = state.reason.map(|reason| json!({"reason": reason}));
    put("incomplete_details", json!(reason));
    put("instructions", echo.instructions.clone());
    put("max_output_tokens", echo.max_output_tokens.clone());
    put("max_tool_calls", Value::Null);
    put("metadata", echo.metadata.clone());
    put("model", json!(about.target.to_string()));
    put("output", json!(state.output));
    put("parallel_tool_calls", echo.parallel_tool_calls.clone());
    put("previous_response_id", echo.previous_response_id.clone());
    put("prompt_cache_key", echo.prompt_cache_key.clone());
    put("reasoning", echo.reasoning.clone());
    put("safety_identifier", echo.safety_identifier.clone());
    put("service_tier", json!("default"));
    put("store", json!(state.stored));
    put("temperature", echo.temperature.clone());
    put("text", echo.text.clone());
    put("tool_choice", echo.tool_choice.clone());
    put("tools", echo.tools.clone());
    put("top_logprobs", echo.top_logprobs.clone());
    put("top_p", echo.top_p.clone());
    put("truncation", json!("disabled"));
    put("usage", state.usage);
    put("user", echo.user.clone());
    Value::Object(body)
}

/// The usage object; `null` where the target told no counts.
pub(super) fn usage(usage: &Usage) -> Value {
    let (Some(input), Some(output)) = (usage.prompt, usage.completion) else {
        return Value::Null;
    };
    json!({
        "input_tokens": input,
        "input_tokens_details": {
            "cached_tokens": usage.cached_prompt.unwrap_or(0),
            "cache_write_tokens": usage.cache_written.unwrap_or(0),
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning.unwrap_or(0)},
        "total_tokens": input.saturating_add(output),
    })
}
