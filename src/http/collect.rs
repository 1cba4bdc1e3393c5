//! A whole answer out of its events, for clients that want no stream.

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, TokenLogprob, ToolCallDelta, Usage,
};

use crate::road::EventStream;

/// The most bytes of an answer that is kept whole. A provider that sends
/// without end must not fill the gate's memory.
pub(crate) const MAX_WHOLE_BYTES: usize = 64 << 20;

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
            Event::Started { .. } | Event::Signature { .. } | Event::StoppedBy(_) => {}
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
            Event::Content(text) | Event::Reasoning(text) | Event::StoppedBy(text) => text.len(),
            Event::Signature { signature, .. } => signature.data.len(),
            Event::ToolCall(delta) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                delta.arguments.len() + text(&delta.id) + text(&delta.name)
            }
            Event::Logprobs(tokens) => tokens.iter().map(|t| 96 * (1 + t.top.len())).sum(),
            Event::Vectors(vectors) => vectors.iter().map(|v| 4 * v.len()).sum(),
            Event::Started { .. } | Event::Finished { .. } | Event::Failed(_) => 0,
        }
}
