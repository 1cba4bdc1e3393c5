//! An answer as Anthropic's server-sent events: `message_start`; each block's
//! start, deltas and stop, and a `ping` after the first start; `message_delta`
//! with stop reason and usage; `message_stop`. A failure is an `error` event,
//! with nothing after it.

use std::fmt::Write as _;

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, ToolCallDelta, Usage,
};
use nearfar_domain::thought::{Origin, Signature};
use serde_json::{Value, json};

use super::shape;
use crate::http::dialect::{About, Chunks, Dialect};
use crate::http::problem::Problem;

/// Writes one stream.
pub(super) struct MessageChunks {
    about: About,
    begun: bool,
    /// The next block's index.
    next: usize,
    open: Open,
    /// Signatures of the open call, to be written after it.
    signatures: Vec<Signature>,
    stopped_by: Option<String>,
    failed: bool,
}

/// The block that is being written; its index is one below the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Text,
    Thinking,
    Call(u32),
}

impl MessageChunks {
    pub(super) fn new(about: About) -> Self {
        Self {
            about,
            begun: false,
            next: 0,
            open: Open::None,
            signatures: Vec::new(),
            stopped_by: None,
            failed: false,
        }
    }

    fn begin(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            let mut message = shape::message(&self.about);
            // Counts come with the end, when they are known.
            message["usage"] = shape::usage(&Usage::default());
            push(out, json!({"type": "message_start", "message": message}));
        }
    }

    /// Opens a block of this kind, unless it is open.
    fn open(&mut self, kind: Open, block: impl FnOnce() -> Value, out: &mut String) {
        if self.open == kind {
            return;
        }
        self.close(out);
        let start =
            json!({"type": "content_block_start", "index": self.next, "content_block": block()});
        push(out, start);
        if self.next == 0 {
            push(out, json!({"type": "ping"}));
        }
        self.next += 1;
        self.open = kind;
    }

    fn delta(&self, delta: Value, out: &mut String) {
        let index = self.next.saturating_sub(1);
        let event = json!({"type": "content_block_delta", "index": index, "delta": delta});
        push(out, event);
    }

    fn close(&mut self, out: &mut String) {
        if self.open == Open::None {
            return;
        }
        self.open = Open::None;
        let index = self.next.saturating_sub(1);
        push(out, json!({"type": "content_block_stop", "index": index}));
        for signature in std::mem::take(&mut self.signatures) {
            self.redacted(&signature, out);
        }
    }

    fn text(&mut self, text: &str, out: &mut String) {
        self.open(Open::Text, || json!({"type": "text", "text": ""}), out);
        self.delta(json!({"type": "text_delta", "text": text}), out);
    }

    fn think(&mut self, out: &mut String) {
        let block = || json!({"type": "thinking", "thinking": "", "signature": ""});
        self.open(Open::Thinking, block, out);
    }

    fn call(&mut self, call: ToolCallDelta, out: &mut String) {
        let begins = call.id.is_some() || call.name.is_some();
        if self.open != Open::Call(call.index) && !begins {
            // A block that was closed cannot be opened again.
            return self.fail(
                &Failure::new(
                    FailureKind::Malformed,
                    "The provider mixed the pieces of several tool calls, which this stream \
                     cannot carry. Ask without a stream.",
                ),
                out,
            );
        }
        let block = || {
            json!({
                "type": "tool_use",
                "id": call.id.as_deref().unwrap_or_default(),
                "name": call.name.as_deref().unwrap_or_default(),
                "input": {},
            })
        };
        self.open(Open::Call(call.index), block, out);
        if !call.arguments.is_empty() {
            let delta = json!({"type": "input_json_delta", "partial_json": call.arguments});
            self.delta(delta, out);
        }
    }

    fn sign(&mut self, of: &Signed, signature: Signature, out: &mut String) {
        match of {
            Signed::Thought { .. } => {
                self.think(out);
                let shown = signature.shown(Origin::Anthropic);
                self.delta(json!({"type": "signature_delta", "signature": shown}), out);
                self.close(out);
            }
            Signed::Call(index) if self.open == Open::Call(*index) => {
                self.signatures.push(signature);
            }
            Signed::Redacted | Signed::Call(_) => {
                self.close(out);
                self.redacted(&signature, out);
            }
        }
    }

    /// A block that only its author can read.
    fn redacted(&mut self, signature: &Signature, out: &mut String) {
        let data = signature.shown(Origin::Anthropic);
        let block = || json!({"type": "redacted_thinking", "data": data});
        self.open(Open::Text, block, out);
        self.close(out);
    }

    fn finish(&mut self, reason: FinishReason, usage: &Usage, out: &mut String) {
        self.close(out);
        let (reason, sequence) = shape::stop(reason, self.stopped_by.as_deref());
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let usage = shape::usage(usage);
        push(
            out,
            json!({"type": "message_delta", "delta": delta, "usage": usage}),
        );
        push(out, json!({"type": "message_stop"}));
    }

    fn fail(&mut self, failure: &Failure, out: &mut String) {
        self.failed = true;
        let body = Problem::failed(failure).body(Dialect::Anthropic, None);
        push(out, body);
    }
}

impl Chunks for MessageChunks {
    fn push(&mut self, event: Event, out: &mut String) {
        if self.failed {
            return;
        }
        if !matches!(event, Event::Failed(_)) {
            self.begin(out);
        }
        match event {
            Event::Started { .. } | Event::Vectors(_) | Event::Logprobs(_) => {}
            Event::Content(text) => self.text(&text, out),
            Event::Reasoning(text) => {
                self.think(out);
                self.delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Event::ToolCall(call) => self.call(call, out),
            Event::Signature { of, signature } => self.sign(&of, signature, out),
            Event::StoppedBy(text) => self.stopped_by = Some(text),
            Event::Finished { reason, usage } => self.finish(reason, &usage, out),
            Event::Failed(failure) => self.fail(&failure, out),
        }
    }

    fn keep_alive(&mut self, out: &mut String) {
        self.begin(out);
        push(out, json!({"type": "ping"}));
    }
}

/// One event, named by its type.
fn push(out: &mut String, event: Value) {
    let name = event["type"].as_str().unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(out, "event: {name}\ndata: {event}\n\n");
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
