//! How OpenAI and its followers deviate from one another, as data.
//!
//! A field that a server refuses is an error where it could have been an
//! answer; a field that it ignores costs nothing. So what only some accept is
//! sent to those, and to servers that we do not know (vLLM, llama.cpp, Ollama
//! and their like ignore what they do not know). Who deviates how stands in the
//! table of presets.

use serde::Deserialize;

/// What one server accepts. The default is a server that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Habits {
    /// `top_k`, `min_p`, `repetition_penalty`, and `input_type` for vectors.
    pub sampling_extras: bool,
    /// `chat_template_kwargs`, for `enable_thinking`.
    pub template_kwargs: bool,
    /// `stream_options`. The others report usage unasked.
    pub stream_options: bool,
    /// The role `developer`. For the others it is `system`.
    pub developer_role: bool,
    /// `parallel_tool_calls`.
    pub parallel_tool_calls: bool,
    /// `logit_bias`.
    pub logit_bias: bool,
    /// `reasoning_effort`.
    pub reasoning_effort: bool,
    /// `prefix` on a last turn of the assistant, which is refused without it.
    pub prefix: bool,
    /// The name of `seed`.
    pub seed: Seed,
    /// The name of the limit on the answer's tokens.
    pub limit: Limit,
    /// The field that takes an assistant turn's reasoning back.
    pub reasoning: Reasoning,
    /// The word for "a tool must be called": `any` is Mistral's.
    pub required: Required,
}

/// See [`Habits::seed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seed {
    /// OpenAI's.
    Seed,
    /// Mistral's.
    RandomSeed,
}

/// See [`Habits::limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// `max_completion_tokens` for OpenAI's models that reason, else
    /// `max_tokens`.
    ByModel,
    /// The earlier name.
    MaxTokens,
    /// The later name.
    MaxCompletionTokens,
}

/// See [`Habits::reasoning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// None: it is left out.
    None,
    /// DeepSeek's name, which most took over.
    ReasoningContent,
    /// OpenRouter's name.
    Reasoning,
}

/// See [`Habits::required`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Required {
    /// OpenAI's.
    Required,
    /// Mistral's.
    Any,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            sampling_extras: true,
            template_kwargs: true,
            stream_options: true,
            developer_role: true,
            parallel_tool_calls: true,
            logit_bias: true,
            reasoning_effort: true,
            prefix: false,
            seed: Seed::Seed,
            limit: Limit::ByModel,
            reasoning: Reasoning::ReasoningContent,
            required: Required::Required,
        }
    }
}

/// The host of a URL, without user, port and path.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    host.split(':').next().unwrap_or(host)
}

/// Whether this is one of OpenAI's models that reason: they take
/// `max_completion_tokens`, and no sampling parameters.
pub(super) fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let o_series = name
        .strip_prefix('o')
        .and_then(|rest| rest.chars().next())
        .is_some_and(|c| c.is_ascii_digit());
    o_series || (name.starts_with("gpt-5") && !name.contains("chat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_in_any_url() {
        for (url, expected) in [
            ("https://api.openai.com:443/v1", "api.openai.com"),
            ("http://user@h?x=1", "h"),
            ("h/v1", "h"),
        ] {
            assert_eq!(host(url), expected);
        }
    }

    #[test]
    fn models_that_reason() {
        for model in [
            "o1",
            "o3-mini",
            "o4-mini",
            "gpt-5",
            "gpt-5-mini",
            "openai/o3",
        ] {
            assert!(reasons(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-5-chat-latest", "omni", "gpt-4.1", "olmo-2"] {
            assert!(!reasons(model), "{model}");
        }
    }
}
