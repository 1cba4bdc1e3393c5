//! A [`Chat`] in serialisable form.
//!
//! The fields are private and the only constructor is private to the frames:
//! nothing but the two encoders can turn content into bytes.

use serde::{Deserialize, Serialize};

use crate::chat::{
    Chat, Message, Params, Part, Prompt, ResponseFormat, Role, Tool, ToolCall, ToolChoice,
};
use crate::embed::{Input, Inputs, Purpose};
use crate::thought::{CacheMark, Origin, Signature, Thought};

/// Content on its way to another process of this daemon. See the module's docs.
#[derive(Serialize, Deserialize)]
pub struct WireChat {
    prompt: WirePrompt,
    tools: Vec<WireTool>,
    tool_cache_marks: Vec<WireMark>,
    tool_choice: WireToolChoice,
    response_format: WireFormat,
    params: WireParams,
    passthrough: String,
    passthrough_of: Origin,
}

#[derive(Serialize, Deserialize)]
enum WirePrompt {
    Turns(Vec<WireMessage>),
    Text(String),
    Inputs {
        items: Vec<WireInput>,
        dimensions: Option<u32>,
        purpose: Option<Purpose>,
    },
}

#[derive(Serialize, Deserialize)]
enum WireInput {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Serialize, Deserialize)]
struct WireMessage {
    role: u8,
    content: Vec<WirePart>,
    name: Option<String>,
    reasoning: Option<String>,
    thoughts: Vec<WireThought>,
    cache_marks: Vec<WireMark>,
    tool_calls: Vec<(String, String, String, Option<Signature>)>,
    tool_call_id: Option<String>,
    tool_failed: bool,
}

/// (items before it, whether it is long).
type WireMark = (u32, bool);

#[derive(Serialize, Deserialize)]
struct WireThought {
    text: String,
    signature: Option<Signature>,
    redacted: bool,
    id: Option<String>,
    after: u32,
}

#[derive(Serialize, Deserialize)]
enum WirePart {
    Text(String),
    Image { url: String, detail: Option<String> },
}

#[derive(Serialize, Deserialize)]
struct WireTool {
    name: String,
    description: Option<String>,
    parameters: Option<String>,
    strict: Option<bool>,
}

#[derive(Serialize, Deserialize)]
enum WireToolChoice {
    Auto,
    None,
    Required,
    Named(String),
}

#[derive(Serialize, Deserialize)]
enum WireFormat {
    Text,
    JsonObject,
    JsonSchema {
        name: String,
        schema: String,
        strict: Option<bool>,
    },
    Regex(String),
    Choice(Vec<String>),
    Grammar(String),
}

#[derive(Serialize, Deserialize)]
struct WireParams {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    logit_bias: Vec<(u32, f32)>,
    logprobs: Option<u8>,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    parallel_tool_calls: Option<bool>,
    reasoning_effort: Option<String>,
    enable_thinking: Option<bool>,
    thinking_tokens: Option<u32>,
}

const ROLES: [Role; 5] = [
    Role::System,
    Role::Developer,
    Role::User,
    Role::Assistant,
    Role::Tool,
];

impl WireChat {
    /// Bounds the answer, where the request does not bound it closer.
    pub(super) fn bound(&mut self, tokens: u32) {
        let limit = &mut self.params.max_tokens;
        *limit = Some(limit.map_or(tokens, |limit| limit.min(tokens)));
    }

    /// Content as bytes-to-be. Called by the two encoders only.
    pub(super) fn of(chat: &Chat) -> Self {
        let chat = chat.clone();
        Self {
            prompt: match chat.prompt {
                Prompt::Text(text) => WirePrompt::Text(text),
                Prompt::Inputs(inputs) => wire_inputs(inputs),
                Prompt::Turns(turns) => {
                    WirePrompt::Turns(turns.into_iter().map(wire_message).collect())
                }
            },
            tools: chat
                .tools
                .into_iter()
                .map(|t| WireTool {
                    name: t.name,
                    description: t.description,
                    parameters: t.parameters,
                    strict: t.strict,
                })
                .collect(),
            tool_cache_marks: chat.tool_cache_marks.into_iter().map(wire_mark).collect(),
            tool_choice: match chat.tool_choice {
                ToolChoice::Auto => WireToolChoice::Auto,
                ToolChoice::None => WireToolChoice::None,
                ToolChoice::Required => WireToolChoice::Required,
                ToolChoice::Named(name) => WireToolChoice::Named(name),
            },
            response_format: match chat.response_format {
                ResponseFormat::Text => WireFormat::Text,
                ResponseFormat::JsonObject => WireFormat::JsonObject,
                ResponseFormat::JsonSchema {
                    name,
                    schema,
                    strict,
                } => WireFormat::JsonSchema {
                    name,
                    schema,
                    strict,
                },
                ResponseFormat::Regex(regex) => WireFormat::Regex(regex),
                ResponseFormat::Choice(choices) => WireFormat::Choice(choices),
                ResponseFormat::Grammar(grammar) => WireFormat::Grammar(grammar),
            },
            params: wire_params(chat.params),
            passthrough: chat.passthrough,
            passthrough_of: chat.passthrough_of,
        }
    }

    /// Whether it asks for vectors and not for words.
    pub fn asks_for_vectors(&self) -> bool {
        matches!(self.prompt, WirePrompt::Inputs { .. })
    }

    /// The request again, in the process that answers it.
    pub fn into_chat(self) -> Chat {
        Chat {
            prompt: match self.prompt {
                WirePrompt::Text(text) => Prompt::Text(text),
                WirePrompt::Inputs {
                    items,
                    dimensions,
                    purpose,
                } => Prompt::Inputs(Inputs {
                    items: items.into_iter().map(input).collect(),
                    dimensions,
                    purpose,
                }),
                WirePrompt::Turns(turns) => Prompt::Turns(turns.into_iter().map(message).collect()),
            },
            tools: self
                .tools
                .into_iter()
                .map(|t| Tool {
                    name: t.name,
                    description: t.description,
                    parameters: t.parameters,
                    strict: t.strict,
                })
                .collect(),
            tool_cache_marks: self.tool_cache_marks.into_iter().map(mark).collect(),
            tool_choice: match self.tool_choice {
                WireToolChoice::Auto => ToolChoice::Auto,
                WireToolChoice::None => ToolChoice::None,
                WireToolChoice::Required => ToolChoice::Required,
                WireToolChoice::Named(name) => ToolChoice::Named(name),
            },
            response_format: match self.response_format {
                WireFormat::Text => ResponseFormat::Text,
                WireFormat::JsonObject => ResponseFormat::JsonObject,
                WireFormat::JsonSchema {
                    name,
                    schema,
                    strict,
                } => ResponseFormat::JsonSchema {
                    name,
                    schema,
                    strict,
                },
                WireFormat::Regex(regex) => ResponseFormat::Regex(regex),
                WireFormat::Choice(choices) => ResponseFormat::Choice(choices),
                WireFormat::Grammar(grammar) => ResponseFormat::Grammar(grammar),
            },
            params: params(self.params),
            passthrough: self.passthrough,
            passthrough_of: self.passthrough_of,
        }
    }
}

fn wire_inputs(inputs: Inputs) -> WirePrompt {
    let item = |input| match input {
        Input::Text(text) => WireInput::Text(text),
        Input::Tokens(tokens) => WireInput::Tokens(tokens),
    };
    WirePrompt::Inputs {
        items: inputs.items.into_iter().map(item).collect(),
        dimensions: inputs.dimensions,
        purpose: inputs.purpose,
    }
}

fn input(wire: WireInput) -> Input {
    match wire {
        WireInput::Text(text) => Input::Text(text),
        WireInput::Tokens(tokens) => Input::Tokens(tokens),
    }
}

fn wire_message(message: Message) -> WireMessage {
    WireMessage {
        role: ROLES.iter().position(|r| *r == message.role).unwrap_or(0) as u8,
        content: message
            .content
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => WirePart::Text(text),
                Part::Image { url, detail } => WirePart::Image { url, detail },
            })
            .collect(),
        name: message.name,
        reasoning: message.reasoning,
        thoughts: message.thoughts.into_iter().map(wire_thought).collect(),
        cache_marks: message.cache_marks.into_iter().map(wire_mark).collect(),
        tool_calls: message
            .tool_calls
            .into_iter()
            .map(|c| (c.id, c.name, c.arguments, c.signature))
            .collect(),
        tool_call_id: message.tool_call_id,
        tool_failed: message.tool_failed,
    }
}

fn message(wire: WireMessage) -> Message {
    Message {
        role: ROLES
            .get(usize::from(wire.role))
            .copied()
            .unwrap_or(Role::User),
        content: wire
            .content
            .into_iter()
            .map(|part| match part {
                WirePart::Text(text) => Part::Text(text),
                WirePart::Image { url, detail } => Part::Image { url, detail },
            })
            .collect(),
        name: wire.name,
        reasoning: wire.reasoning,
        thoughts: wire.thoughts.into_iter().map(thought).collect(),
        cache_marks: wire.cache_marks.into_iter().map(mark).collect(),
        tool_calls: wire
            .tool_calls
            .into_iter()
            .map(|(id, name, arguments, signature)| ToolCall {
                id,
                name,
                arguments,
                signature,
            })
            .collect(),
        tool_call_id: wire.tool_call_id,
        tool_failed: wire.tool_failed,
    }
}

/// The same fields under the same names on both sides.
macro_rules! same_fields {
    ($from:ident => $to:ident { $($field:ident),* $(,)? }) => {
        $to { $($field: $from.$field),* }
    };
}

fn wire_thought(t: Thought) -> WireThought {
    same_fields!(t => WireThought { text, signature, redacted, id, after })
}

fn thought(t: WireThought) -> Thought {
    same_fields!(t => Thought { text, signature, redacted, id, after })
}

fn wire_mark(mark: CacheMark) -> WireMark {
    (mark.after, mark.long)
}

fn mark((after, long): WireMark) -> CacheMark {
    CacheMark { after, long }
}

fn wire_params(p: Params) -> WireParams {
    same_fields!(p => WireParams {
        temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty,
        frequency_penalty, seed, logit_bias, logprobs, max_tokens, stop,
        parallel_tool_calls, reasoning_effort, enable_thinking, thinking_tokens,
    })
}

fn params(p: WireParams) -> Params {
    same_fields!(p => Params {
        temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty,
        frequency_penalty, seed, logit_bias, logprobs, max_tokens, stop,
        parallel_tool_calls, reasoning_effort, enable_thinking, thinking_tokens,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frames::{decode, encode};

    #[test]
    fn a_chat_survives_the_crossing_whole() {
        let mut chat = Chat::turns(
            ROLES
                .iter()
                .map(|role| Message {
                    role: *role,
                    content: vec![
                        Part::Text("text".into()),
                        Part::Image {
                            url: "data:,x".into(),
                            detail: Some("low".into()),
                        },
                    ],
                    name: Some("name".into()),
                    reasoning: Some("why".into()),
                    thoughts: vec![Thought {
                        text: "because".into(),
                        signature: Some(Signature::new(Origin::Anthropic, "Eq")),
                        redacted: true,
                        id: Some("rs_1".into()),
                        after: 2,
                    }],
                    cache_marks: vec![CacheMark {
                        after: 1,
                        long: true,
                    }],
                    tool_calls: vec![ToolCall {
                        id: "1".into(),
                        name: "f".into(),
                        arguments: "{}".into(),
                        signature: Some(Signature::new(Origin::Gemini, "Cg")),
                    }],
                    tool_call_id: Some("1".into()),
                    tool_failed: true,
                })
                .collect(),
        );
        chat.tools.push(Tool {
            name: "f".into(),
            description: Some("d".into()),
            parameters: Some("{}".into()),
            strict: Some(true),
        });
        chat.tool_choice = ToolChoice::Named("f".into());
        chat.response_format = ResponseFormat::JsonSchema {
            name: "n".into(),
            schema: "{}".into(),
            strict: Some(false),
        };
        chat.params = Params {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            min_p: Some(0.05),
            repetition_penalty: Some(1.1),
            presence_penalty: Some(0.1),
            frequency_penalty: Some(0.2),
            seed: Some(-3),
            logit_bias: vec![(7, -1.5)],
            logprobs: Some(3),
            max_tokens: Some(9),
            stop: vec!["end".into()],
            parallel_tool_calls: Some(false),
            reasoning_effort: Some("low".into()),
            enable_thinking: Some(true),
            thinking_tokens: Some(2_048),
        };
        chat.passthrough = r#"{"user":"u"}"#.into();
        chat.passthrough_of = Origin::Anthropic;
        chat.tool_cache_marks = vec![CacheMark {
            after: 1,
            long: false,
        }];
        let bytes = encode(&WireChat::of(&chat)).unwrap();
        let back: WireChat = decode(&bytes[4..]).unwrap();
        assert!(back.into_chat() == chat);
        for format in [
            ResponseFormat::Text,
            ResponseFormat::JsonObject,
            ResponseFormat::Regex("a+".into()),
            ResponseFormat::Choice(vec!["a".into(), "b".into()]),
            ResponseFormat::Grammar("start: \"a\"".into()),
        ] {
            chat.response_format = format;
            let bytes = encode(&WireChat::of(&chat)).unwrap();
            let back: WireChat = decode(&bytes[4..]).unwrap();
            assert!(back.into_chat() == chat);
        }
    }

    #[test]
    fn inputs_survive_the_crossing_whole() {
        let chat = Chat::inputs(Inputs {
            items: vec![Input::Text("text".into()), Input::Tokens(vec![7, 8])],
            dimensions: Some(64),
            purpose: Some(Purpose::Document),
        });
        let bytes = encode(&WireChat::of(&chat)).unwrap();
        let back: WireChat = decode(&bytes[4..]).unwrap();
        assert!(back.into_chat() == chat);
    }
}
