//! Anthropic's answers as [`Event`]s: a state machine that is fed messages or a
//! whole body.

use nearfar_domain::events::{Event, Failure, FinishReason, Signed, ToolCallDelta, Usage};
use nearfar_domain::thought::{Origin, Signature};
use serde::Deserialize;
use serde_json::Value;

use crate::codec::{cut, malformed};
use crate::sse::Message;
use crate::upstream::Said;

/// Blocks of one answer; more are a fault of the provider.
const MAX_BLOCKS: usize = 4_096;
/// A longer signature is none, in bytes.
const MAX_SIGNATURE: usize = 1 << 20;

/// Reads one answer.
pub struct Decoder {
    provider: String,
    model: String,
    started: bool,
    /// Tool calls by their block's index.
    calls: Vec<Call>,
    /// The signature of the thinking block that is open, as far as it came.
    signature: String,
    /// The stop string that ended the answer.
    stopped_by: Option<String>,
    usage: WireUsage,
    finish: Option<FinishReason>,
    complete: bool,
}

struct Call {
    block: u64,
    /// The input that came with the block's start, if nothing follows.
    input: String,
    spoke: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Step {
    MessageStart {
        message: Answer,
    },
    ContentBlockStart {
        index: u64,
        content_block: Block,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: End,
        usage: Option<WireUsage>,
    },
    MessageStop,
    Error {
        error: Value,
    },
    /// `ping`, and whatever is new: Anthropic asks to let it pass.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Answer {
    model: Option<String>,
    #[serde(default)]
    content: Vec<Block>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
        #[serde(default)]
        signature: String,
    },
    RedactedThinking {
        #[serde(default)]
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct End {
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation: Option<WireWritten>,
}

/// What of the writes lives how long.
#[derive(Clone, Copy, Default, Deserialize)]
struct WireWritten {
    ephemeral_1h_input_tokens: Option<u64>,
}

impl WireUsage {
    /// Later counts are cumulative and win.
    fn update(&mut self, later: WireUsage) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.cache_creation_input_tokens = later
            .cache_creation_input_tokens
            .or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later
            .cache_read_input_tokens
            .or(self.cache_read_input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_creation = later.cache_creation.or(self.cache_creation);
    }

    /// Anthropic's `input_tokens` leaves out what the cache took part in.
    fn into_usage(self) -> Usage {
        let cached = self.cache_read_input_tokens;
        Usage {
            prompt: self.input_tokens.map(|input| {
                input
                    .saturating_add(cached.unwrap_or(0))
                    .saturating_add(self.cache_creation_input_tokens.unwrap_or(0))
            }),
            cached_prompt: cached,
            cache_written: self.cache_creation_input_tokens,
            cache_written_hour: self
                .cache_creation
                .and_then(|written| written.ephemeral_1h_input_tokens),
            completion: self.output_tokens,
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
            signature: String::new(),
            stopped_by: None,
            usage: WireUsage::default(),
            finish: None,
            complete: false,
        }
    }

    /// Whether `Finished` was given out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// See [`crate::codec::Decoder::message`].
    pub fn message(&mut self, message: &Message, out: &mut Vec<Event>) -> Result<(), Failure> {
        let data = message.data.trim();
        if self.complete || data.is_empty() {
            return Ok(());
        }
        let step: Step = serde_json::from_str(data)
            .map_err(|_| malformed(&self.provider, "an event is not the JSON that it should be"))?;
        match step {
            Step::MessageStart { message } => {
                self.usage.update(message.usage.unwrap_or_default());
                self.start(message.model, out);
            }
            Step::ContentBlockStart {
                index,
                content_block,
            } => {
                self.start(None, out);
                self.block(index, content_block, out)?;
            }
            Step::ContentBlockDelta { index, delta } => self.delta(index, delta, out)?,
            Step::ContentBlockStop { index } => self.close(index, out),
            Step::MessageDelta { delta, usage } => {
                self.usage.update(usage.unwrap_or_default());
                if let Some(word) = delta.stop_reason {
                    self.finish = Some(reason(&word));
                    self.stopped_by = delta.stop_sequence;
                }
            }
            Step::MessageStop => self.stop(out)?,
            Step::Error { error } => {
                return Err(Said::of(&error).failure(&self.provider, None, None));
            }
            Step::Other => {}
        }
        Ok(())
    }

    /// See [`crate::codec::Decoder::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(malformed(&self.provider, "it is empty"));
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|_| malformed(&self.provider, "it is not JSON"))?;
        match value.get("type").and_then(Value::as_str) {
            Some("message") => {}
            Some("error") => return Err(Said::of(&value).failure(&self.provider, None, None)),
            _ => return Err(malformed(&self.provider, "it is not a message")),
        }
        let answer: Answer = serde_json::from_value(value)
            .map_err(|_| malformed(&self.provider, "it is not the message that it should be"))?;
        self.usage.update(answer.usage.unwrap_or_default());
        self.start(answer.model, out);
        for (index, block) in (0u64..).zip(answer.content) {
            self.block(index, block, out)?;
            self.close(index, out);
        }
        self.finish = answer.stop_reason.as_deref().map(reason);
        self.stopped_by = answer.stop_sequence;
        self.stop(out)
    }

    /// See [`crate::codec::Decoder::end`].
    pub fn end(&mut self, _out: &mut Vec<Event>) -> Result<(), Failure> {
        if self.complete {
            Ok(())
        } else {
            Err(cut(&self.provider))
        }
    }

    fn start(&mut self, model: Option<String>, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                model: model.unwrap_or_else(|| self.model.clone()),
            });
        }
    }

    fn block(&mut self, index: u64, block: Block, out: &mut Vec<Event>) -> Result<(), Failure> {
        match block {
            Block::Text { text } if !text.is_empty() => out.push(Event::Content(text)),
            Block::Thinking {
                thinking,
                signature,
            } => {
                if !thinking.is_empty() {
                    out.push(Event::Reasoning(thinking));
                }
                self.signature = signature;
            }
            Block::RedactedThinking { data } if !data.is_empty() => {
                out.push(signature(Signed::Redacted, data));
            }
            Block::ToolUse { id, name, input } => {
                if self.calls.len() == MAX_BLOCKS {
                    return Err(malformed(&self.provider, "too many tool calls"));
                }
                let input = match input {
                    Value::Null => "{}".to_owned(),
                    input => input.to_string(),
                };
                out.push(Event::ToolCall(ToolCallDelta {
                    index: self.calls.len() as u32,
                    id: Some(id),
                    name: Some(name),
                    arguments: String::new(),
                }));
                self.calls.push(Call {
                    block: index,
                    input,
                    spoke: false,
                });
            }
            Block::Text { .. } | Block::RedactedThinking { .. } | Block::Other => {}
        }
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: Delta, out: &mut Vec<Event>) -> Result<(), Failure> {
        self.start(None, out);
        match delta {
            Delta::Text { text } if !text.is_empty() => out.push(Event::Content(text)),
            Delta::Thinking { thinking } if !thinking.is_empty() => {
                out.push(Event::Reasoning(thinking));
            }
            Delta::Signature { signature } => {
                if self.signature.len() + signature.len() > MAX_SIGNATURE {
                    return Err(malformed(&self.provider, "a signature is too long"));
                }
                self.signature.push_str(&signature);
            }
            Delta::InputJson { partial_json } if !partial_json.is_empty() => {
                let Some(at) = self.calls.iter().rposition(|call| call.block == index) else {
                    // Input of a provider-side tool, whose block was let pass.
                    return Ok(());
                };
                self.calls[at].spoke = true;
                out.push(arguments(at, partial_json));
            }
            _ => {}
        }
        Ok(())
    }

    /// A block is over. A call that was given no input in pieces has the one
    /// that it began with.
    fn close(&mut self, index: u64, out: &mut Vec<Event>) {
        if !self.signature.is_empty() {
            let data = std::mem::take(&mut self.signature);
            out.push(signature(Signed::Thought { id: None }, data));
        }
        let at = self.calls.iter().rposition(|call| call.block == index);
        if let Some(at) = at
            && !std::mem::replace(&mut self.calls[at].spoke, true)
        {
            out.push(arguments(at, std::mem::take(&mut self.calls[at].input)));
        }
    }

    fn stop(&mut self, out: &mut Vec<Event>) -> Result<(), Failure> {
        let Some(reason) = self.finish else {
            return Err(malformed(&self.provider, "it ends without a stop reason"));
        };
        self.start(None, out);
        let reason = match reason {
            FinishReason::Stop | FinishReason::ToolCalls if !self.calls.is_empty() => {
                FinishReason::ToolCalls
            }
            FinishReason::ToolCalls => FinishReason::Stop,
            other => other,
        };
        self.complete = true;
        out.extend(self.stopped_by.take().map(Event::StoppedBy));
        out.push(Event::Finished {
            reason,
            usage: self.usage.into_usage(),
        });
        Ok(())
    }
}

fn signature(of: Signed, data: String) -> Event {
    let signature = Signature::new(Origin::Anthropic, data);
    Event::Signature { of, signature }
}

fn arguments(at: usize, arguments: String) -> Event {
    Event::ToolCall(ToolCallDelta {
        index: at as u32,
        id: None,
        name: None,
        arguments,
    })
}

/// What a stop reason's word means; an unknown one is an end like any other.
fn reason(word: &str) -> FinishReason {
    match word {
        // `pause_turn`: the provider stopped half-way in its own tools.
        "max_tokens" | "model_context_window_exceeded" | "pause_turn" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}
