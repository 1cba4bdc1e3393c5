//! A whole answer out of its events, for clients that want no stream.

use std::ops::Range;

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, TokenLogprob, ToolCallDelta, Usage,
};
use nearfar_domain::thought::Signature;

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
    /// The stop string that ended it, where the target tells it.
    pub(crate) stopped_by: Option<String>,
    /// The same content, reasoning and calls in the order in which they came,
    /// for dialects that tell it.
    pub(crate) order: Vec<Piece>,
}

/// A stretch of an answer.
pub(crate) enum Piece {
    /// These bytes of the content.
    Content(Range<usize>),
    /// These bytes of the reasoning.
    Reasoning(Range<usize>),
    /// The call at this place.
    Call(usize),
    /// What the target wants to see again.
    Signature(Signed, Signature),
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
            Event::Content(text) => whole.add_content(&text),
            Event::Reasoning(text) => whole.add_reasoning(&text),
            Event::ToolCall(delta) => whole.add_call(delta),
            Event::Signature { of, signature } => {
                whole.order.push(Piece::Signature(of, signature));
            }
            Event::StoppedBy(text) => whole.stopped_by = Some(text),
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

impl Collected {
    fn add_content(&mut self, text: &str) {
        let from = self.content.len();
        self.content.push_str(text);
        let to = self.content.len();
        match self.order.last_mut() {
            Some(Piece::Content(range)) => range.end = to,
            _ => self.order.push(Piece::Content(from..to)),
        }
    }

    fn add_reasoning(&mut self, text: &str) {
        let from = self.reasoning.len();
        self.reasoning.push_str(text);
        let to = self.reasoning.len();
        match self.order.last_mut() {
            Some(Piece::Reasoning(range)) => range.end = to,
            _ => self.order.push(Piece::Reasoning(from..to)),
        }
    }

    fn add_call(&mut self, delta: ToolCallDelta) {
        let mut calls = self.tool_calls.iter_mut();
        match calls.find(|call| call.index == delta.index) {
            Some(call) => {
                call.arguments.push_str(&delta.arguments);
                call.id = call.id.take().or(delta.id);
                call.name = call.name.take().or(delta.name);
            }
            None => {
                self.order.push(Piece::Call(self.tool_calls.len()));
                self.tool_calls.push(delta);
            }
        }
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
