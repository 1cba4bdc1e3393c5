//! The shapes of OpenAI's answers, read as tolerantly as its followers need:
//! everything may be absent or null.

use nearfar_domain::events::{TokenLogprob, Usage};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A chunk of a stream or a whole answer: they differ in `delta` and `message`.
#[derive(Deserialize)]
pub(super) struct Chunk {
    pub(super) id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) choices: Option<Vec<Choice>>,
    #[serde(default, deserialize_with = "usage")]
    pub(super) usage: Option<WireUsage>,
    pub(super) error: Option<Value>,
    /// Groq's place for the usage of a stream.
    pub(super) x_groq: Option<Groq>,
}

#[derive(Deserialize)]
pub(super) struct Groq {
    pub(super) usage: Option<WireUsage>,
}

#[derive(Deserialize)]
pub(super) struct Choice {
    pub(super) index: Option<u64>,
    #[serde(alias = "message")]
    pub(super) delta: Option<Delta>,
    /// Raw-text completions.
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) error: Option<Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct Delta {
    pub(super) content: Option<Value>,
    pub(super) refusal: Option<String>,
    pub(super) reasoning_content: Option<Value>,
    pub(super) reasoning: Option<Value>,
    pub(super) tool_calls: Option<Vec<Call>>,
    /// The form before `tool_calls`.
    pub(super) function_call: Option<Function>,
}

#[derive(Deserialize)]
pub(super) struct Call {
    pub(super) index: Option<i64>,
    pub(super) id: Option<String>,
    pub(super) function: Option<Function>,
}

#[derive(Default, Deserialize)]
pub(super) struct Function {
    pub(super) name: Option<String>,
    /// Text; an object from some servers.
    pub(super) arguments: Option<Value>,
}

impl Function {
    pub(super) fn arguments(&self) -> String {
        match &self.arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// Log-probabilities in either form.
#[derive(Deserialize)]
pub(super) struct Logprobs {
    content: Option<Vec<WireToken>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<Map<String, Value>>>>,
}

#[derive(Deserialize)]
struct WireToken {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    top_logprobs: Option<Vec<WireTop>>,
}

#[derive(Deserialize)]
struct WireTop {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

impl Logprobs {
    pub(super) fn into_tokens(self) -> Vec<TokenLogprob> {
        if let Some(content) = self.content {
            return content.into_iter().map(chat_token).collect();
        }
        let logprobs = self.token_logprobs.unwrap_or_default();
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        self.tokens
            .unwrap_or_default()
            .into_iter()
            .zip(logprobs)
            .map(|(token, logprob)| TokenLogprob {
                bytes: token.clone().into_bytes(),
                // The first token of an echoed prompt has none; nothing else lacks it.
                logprob: logprob.unwrap_or(0.0),
                top: tops.next().flatten().map(best_first).unwrap_or_default(),
                token,
            })
            .collect()
    }
}

fn chat_token(wire: WireToken) -> TokenLogprob {
    let bytes =
        |token: &str, bytes: Option<Vec<u8>>| bytes.unwrap_or_else(|| token.as_bytes().to_vec());
    TokenLogprob {
        bytes: bytes(&wire.token, wire.bytes),
        logprob: wire.logprob,
        top: wire
            .top_logprobs
            .unwrap_or_default()
            .into_iter()
            .map(|top| {
                let bytes = bytes(&top.token, top.bytes);
                (top.token, bytes, top.logprob)
            })
            .collect(),
        token: wire.token,
    }
}

fn best_first(map: Map<String, Value>) -> Vec<(String, Vec<u8>, f32)> {
    let mut top: Vec<(String, Vec<u8>, f32)> = map
        .into_iter()
        .filter_map(|(token, value)| {
            let bytes = token.clone().into_bytes();
            Some((token, bytes, value.as_f64()? as f32))
        })
        .collect();
    top.sort_by(|a, b| b.2.total_cmp(&a.2));
    top
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    total_tokens: Option<u64>,
    /// DeepSeek's name for cached tokens.
    prompt_cache_hit_tokens: Option<u64>,
    /// Where Together and Moonshot tell them.
    cached_tokens: Option<u64>,
    /// Where Perplexity tells them.
    reasoning_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    /// OpenRouter's, for models whose cache has a price.
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// A usage that cannot be read is not known; the answer is good all the same.
fn usage<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<WireUsage>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

impl From<WireUsage> for Usage {
    /// OpenAI's `completion_tokens` hold the reasoning; xAI's do not, which its
    /// total tells.
    fn from(wire: WireUsage) -> Usage {
        let details = wire.prompt_tokens_details;
        let reasoning = wire
            .completion_tokens_details
            .and_then(|details| details.reasoning_tokens)
            .or(wire.reasoning_tokens);
        let apart = match (wire.prompt_tokens, wire.completion_tokens, reasoning) {
            (Some(prompt), Some(completion), Some(reasoning)) if reasoning > 0 => {
                let all = prompt
                    .checked_add(completion)
                    .and_then(|n| n.checked_add(reasoning));
                wire.total_tokens
                    .filter(|total| all == Some(*total))
                    .map(|_| reasoning)
            }
            _ => None,
        };
        Usage {
            prompt: wire.prompt_tokens,
            cached_prompt: details
                .as_ref()
                .and_then(|details| details.cached_tokens)
                .or(wire.prompt_cache_hit_tokens)
                .or(wire.cached_tokens),
            cache_written: details.and_then(|details| details.cache_write_tokens),
            cache_written_hour: None,
            completion: wire
                .completion_tokens
                .map(|completion| completion.saturating_add(apart.unwrap_or(0))),
            reasoning,
        }
    }
}

/// The texts in a `content` that is a string or a list of parts:
/// (reasoning, text), as Mistral's reasoning models mix them.
pub(super) fn texts(content: &Value) -> (String, String) {
    let (mut thought, mut said) = (String::new(), String::new());
    match content {
        Value::String(text) => said.push_str(text),
        Value::Array(parts) => {
            for part in parts {
                if let Some(thinking) = part.get("thinking") {
                    let (inner_thought, inner) = texts(thinking);
                    thought.push_str(&inner_thought);
                    thought.push_str(&inner);
                } else if let Some(text) = part.get("text").and_then(Value::as_str) {
                    said.push_str(text);
                }
            }
        }
        _ => {}
    }
    (thought, said)
}
