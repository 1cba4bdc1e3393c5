//! What both kinds of OpenAI answers have in common: the head that every chunk
//! repeats, usage, finish reasons, and the collecting of a whole answer.

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, TokenLogprob, ToolCallDelta, Usage,
};
use serde_json::{Value, json};

use crate::road::{Answer, EventStream};

/// The most bytes of an answer that is kept whole. A provider that sends
/// without end must not fill the gate's memory.
const MAX_WHOLE_BYTES: usize = 64 << 20;

/// What every chunk of one answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The target that really answers.
    pub(crate) model: String,
}

impl Head {
    /// `prefix` is `chatcmpl-` or `cmpl-`; the rest of the id is the decision's.
    pub(crate) fn of(answer: &Answer, prefix: &str) -> Self {
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            id: format!("{prefix}{:032x}", answer.decision.0),
            created,
            model: answer.target.to_string(),
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

/// A whole answer.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) tool_calls: Vec<ToolCallDelta>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) reason: Option<FinishReason>,
    pub(crate) usage: Usage,
}

/// Waits for the whole answer.
///
/// # Errors
/// The failure that ended it. What was there of it by then is dropped: a part
/// must not pass for the whole.
pub(crate) async fn collect(mut events: EventStream) -> Result<Collected, Failure> {
    use futures_util::StreamExt as _;
    let mut whole = Collected::default();
    let mut bytes = 0usize;
    while let Some(event) = events.next().await {
        bytes += size(&event);
        if bytes > MAX_WHOLE_BYTES {
            let message = "The answer is too long to be kept whole. Ask for a stream.";
            return Err(Failure::new(FailureKind::Malformed, message));
        }
        match event {
            Event::Started { .. } => {}
            Event::Content(text) => whole.content.push_str(&text),
            Event::Reasoning(text) => whole.reasoning.push_str(&text),
            Event::ToolCall(delta) => add_call(&mut whole.tool_calls, delta),
            Event::Logprobs(tokens) => whole.logprobs.extend(tokens),
            Event::Vectors(vectors) => whole.vectors.extend(vectors),
            Event::Finished { reason, usage } => {
                whole.reason = Some(reason);
                whole.usage = usage;
                return Ok(whole);
            }
            Event::Failed(failure) => return Err(failure),
        }
    }
    Err(cut_off())
}

/// A stream of events that ends without its last one.
pub(crate) fn cut_off() -> Failure {
    Failure::new(FailureKind::Cut, "The answer was cut off. Try again.")
}

fn add_call(calls: &mut Vec<ToolCallDelta>, delta: ToolCallDelta) {
    match calls.iter_mut().find(|call| call.index == delta.index) {
        Some(call) => {
            call.arguments.push_str(&delta.arguments);
            call.id = call.id.take().or(delta.id);
            call.name = call.name.take().or(delta.name);
        }
        None => calls.push(delta),
    }
}

fn size(event: &Event) -> usize {
    // What an event takes beside its text.
    const OVERHEAD: usize = 32;
    OVERHEAD
        + match event {
            Event::Content(text) | Event::Reasoning(text) => text.len(),
            Event::ToolCall(delta) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                delta.arguments.len() + text(&delta.id) + text(&delta.name)
            }
            Event::Logprobs(tokens) => tokens.iter().map(|t| 96 * (1 + t.top.len())).sum(),
            Event::Vectors(vectors) => vectors.iter().map(|v| 4 * v.len()).sum(),
            Event::Started { .. } | Event::Finished { .. } | Event::Failed(_) => 0,
        }
}
