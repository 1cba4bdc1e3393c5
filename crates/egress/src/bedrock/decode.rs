//! Converse's answers as [`Event`]s: a state machine that is fed frames or a
//! whole body.

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, ToolCallDelta, Usage,
};
use nearfar_domain::thought::{Origin, Signature};
use serde::Deserialize;
use serde_json::Value;

use super::eventstream::Frame;
use crate::codec::{cut, malformed};
use crate::upstream::Said;

/// Calls of one turn; more are a fault of the provider.
const MAX_CALLS: usize = 1_024;

/// Reads one answer.
pub struct Decoder {
    provider: String,
    model: String,
    started: bool,
    calls: Vec<Call>,
    usage: Usage,
    finish: Option<FinishReason>,
    complete: bool,
}

struct Call {
    block: u64,
    /// Whether any argument was given out.
    spoke: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStart {
    content_block_index: u64,
    start: Option<Start>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    tool_use: Option<ToolUse>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse {
    tool_use_id: String,
    name: String,
    input: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockDelta {
    content_block_index: u64,
    delta: Delta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<Input>,
    reasoning_content: Option<Reasoning>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    input: String,
}

/// In a stream text and signature stand apart, in a whole answer inside
/// `reasoningText`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
    reasoning_text: Option<ReasoningText>,
}

#[derive(Deserialize)]
struct ReasoningText {
    text: Option<String>,
    signature: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    text: Option<String>,
    tool_use: Option<ToolUse>,
    reasoning_content: Option<Reasoning>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    output: Output,
    stop_reason: String,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Output {
    message: Content,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Vec<Block>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stop {
    stop_reason: String,
}

#[derive(Deserialize)]
struct BlockStop {
    #[serde(rename = "contentBlockIndex")]
    index: u64,
}

#[derive(Deserialize)]
struct Metadata {
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
}

impl From<WireUsage> for Usage {
    /// Converse's `inputTokens` leaves out what the cache took part in.
    fn from(wire: WireUsage) -> Usage {
        let (read, written) = (wire.cache_read_input_tokens, wire.cache_write_input_tokens);
        Usage {
            prompt: wire.input_tokens.map(|input| {
                input
                    .saturating_add(read.unwrap_or(0))
                    .saturating_add(written.unwrap_or(0))
            }),
            cached_prompt: read,
            cache_written: written,
            cache_written_hour: None,
            completion: wire.output_tokens,
            reasoning: None,
        }
    }
}

impl Decoder {
    /// See [`crate::codec::Decoder::new`].
    pub fn new(provider: &str, model: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            started: false,
            calls: Vec::new(),
            usage: Usage::default(),
            finish: None,
            complete: false,
        }
    }

    /// Whether `Finished` was given out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the stop reason came: only the usage may be missing.
    pub fn may_end(&self) -> bool {
        self.finish.is_some()
    }

    /// Takes one frame of a stream and appends what it means.
    ///
    /// # Errors
    /// What the provider reports, or [`FailureKind::Malformed`].
    pub fn frame(&mut self, frame: &Frame, out: &mut Vec<Event>) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        if frame.message_type != "event" {
            return Err(self.exception(frame));
        }
        match frame.name.as_str() {
            "messageStart" => self.start(out),
            "contentBlockStart" => {
                let step: BlockStart = self.read(frame)?;
                self.start(out);
                if let Some(call) = step.start.and_then(|start| start.tool_use) {
                    self.call(step.content_block_index, call, out)?;
                }
            }
            "contentBlockDelta" => {
                let step: BlockDelta = self.read(frame)?;
                self.start(out);
                self.delta(step, out);
            }
            "contentBlockStop" => {
                let step: BlockStop = self.read(frame)?;
                self.close(step.index, out);
            }
            "messageStop" => {
                let step: Stop = self.read(frame)?;
                self.finish = Some(self.reason(&step.stop_reason)?);
            }
            // The last one.
            "metadata" => {
                let step: Metadata = self.read(frame)?;
                if let Some(usage) = step.usage {
                    self.usage = usage.into();
                }
                if self.finish.is_some() {
                    self.end(out)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// See [`crate::codec::Decoder::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(malformed(&self.provider, "it is empty"));
        }
        let answer: Whole = serde_json::from_slice(body).map_err(|_| {
            let said = Said::read(body);
            match said.message {
                Some(_) => said.failure(&self.provider, None, None),
                None => malformed(&self.provider, "it is not the JSON that it should be"),
            }
        })?;
        self.start(out);
        for (index, block) in (0u64..).zip(answer.output.message.content) {
            if let Some(call) = block.tool_use {
                self.call(index, call, out)?;
                self.close(index, out);
            }
            let delta = Delta {
                text: block.text,
                tool_use: None,
                reasoning_content: block.reasoning_content,
            };
            self.delta(
                BlockDelta {
                    content_block_index: index,
                    delta,
                },
                out,
            );
        }
        if let Some(usage) = answer.usage {
            self.usage = usage.into();
        }
        self.finish = Some(self.reason(&answer.stop_reason)?);
        self.end(out)
    }

    /// See [`crate::codec::Decoder::end`].
    pub fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        let Some(reason) = self.finish else {
            return Err(cut(&self.provider));
        };
        self.start(out);
        let reason = match reason {
            FinishReason::Stop if !self.calls.is_empty() => FinishReason::ToolCalls,
            FinishReason::ToolCalls if self.calls.is_empty() => FinishReason::Stop,
            other => other,
        };
        self.complete = true;
        out.push(Event::Finished {
            reason,
            usage: self.usage,
        });
        Ok(())
    }

    fn read<'a, T: Deserialize<'a>>(&self, frame: &'a Frame) -> Result<T, Failure> {
        serde_json::from_slice(&frame.payload)
            .map_err(|_| malformed(&self.provider, "an event is not the JSON that it should be"))
    }

    /// An exception in the stream, or an error of the stream itself.
    fn exception(&self, frame: &Frame) -> Failure {
        let mut said = Said::read(&frame.payload);
        said.code = Some(frame.name.clone());
        if said.message.is_none() && !frame.error_message.is_empty() {
            said.message = Some(frame.error_message.clone());
        }
        said.failure(&self.provider, None, None)
    }

    fn start(&mut self, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                model: self.model.clone(),
            });
        }
    }

    fn call(&mut self, block: u64, call: ToolUse, out: &mut Vec<Event>) -> Result<(), Failure> {
        if self.calls.len() == MAX_CALLS {
            return Err(malformed(&self.provider, "too many tool calls"));
        }
        let arguments = match call.input {
            None | Some(Value::Null) => String::new(),
            Some(input) => input.to_string(),
        };
        let spoke = !arguments.is_empty();
        out.push(Event::ToolCall(ToolCallDelta {
            index: self.calls.len() as u32,
            id: Some(call.tool_use_id),
            name: Some(call.name),
            arguments,
        }));
        self.calls.push(Call { block, spoke });
        Ok(())
    }

    fn delta(&mut self, step: BlockDelta, out: &mut Vec<Event>) {
        let delta = step.delta;
        if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
            out.push(Event::Content(text));
        }
        if let Some(input) = delta.tool_use.filter(|input| !input.input.is_empty()) {
            self.arguments(step.content_block_index, input.input, out);
        }
        let Some(reasoning) = delta.reasoning_content else {
            return;
        };
        let inner = reasoning.reasoning_text;
        let (text, signature) = match inner {
            Some(inner) => (inner.text, inner.signature),
            None => (reasoning.text, reasoning.signature),
        };
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            out.push(Event::Reasoning(text));
        }
        let signed = |of, data: Option<String>| {
            data.filter(|data| !data.is_empty())
                .map(|data| Event::Signature {
                    of,
                    signature: Signature::new(Origin::Anthropic, data),
                })
        };
        out.extend(signed(Signed::Thought { id: None }, signature));
        out.extend(signed(Signed::Redacted, reasoning.redacted_content));
    }

    fn arguments(&mut self, block: u64, arguments: String, out: &mut Vec<Event>) {
        let Some(at) = self.calls.iter().rposition(|call| call.block == block) else {
            return;
        };
        self.calls[at].spoke = true;
        out.push(Event::ToolCall(ToolCallDelta {
            index: at as u32,
            id: None,
            name: None,
            arguments,
        }));
    }

    /// A call that was given no input has an empty one.
    fn close(&mut self, block: u64, out: &mut Vec<Event>) {
        let silent = self
            .calls
            .iter()
            .any(|call| call.block == block && !call.spoke);
        if silent {
            self.arguments(block, "{}".to_owned(), out);
        }
    }

    /// What a stop reason's word means; an unknown one is an end like any other.
    fn reason(&self, word: &str) -> Result<FinishReason, Failure> {
        Ok(match word {
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "guardrail_intervened" | "content_filtered" => FinishReason::ContentFilter,
            "malformed_model_output" | "malformed_tool_use" => {
                return Err(Failure {
                    upstream_code: Some(word.to_owned()),
                    ..Failure::new(
                        FailureKind::Malformed,
                        format!("the model of {} wrote what cannot be read", self.provider),
                    )
                });
            }
            _ => FinishReason::Stop,
        })
    }
}
