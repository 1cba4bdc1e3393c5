//! A request as every dialect means it.
//!
//! [`Chat`] is content. It has no `Serialize`, and its `Debug` shows lengths
//! only, so that it cannot slip into a log, a metric or a cache key; the two
//! ways across a process boundary are the encoders in [`crate::frames`].

use std::fmt;

use crate::embed::Inputs;
use crate::thought::{CacheMark, Origin, Signature, Thought};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// OpenAI's later name for [`Role::System`]; kept apart so that it goes out as it came.
    Developer,
    /// The person or app that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name on the wire, as OpenAI spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// A piece of a message.
#[derive(Clone, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A picture: an `http(s)` URL or a `data:` URL, and OpenAI's detail hint.
    Image {
        /// `https://…` or `data:image/png;base64,…`.
        url: String,
        /// `low`, `high` or `auto`, where the client said it.
        detail: Option<String>,
    },
}

/// A tool call that the model made.
#[derive(Clone, PartialEq, Default)]
pub struct ToolCall {
    /// The id that the result refers to.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments as JSON text, exactly as the model wrote them.
    pub arguments: String,
    /// What the model's maker wants back with the call (Gemini's thought signature).
    pub signature: Option<Signature>,
}

/// One turn.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Part>,
    /// The participant's name, where the client gave one.
    pub name: Option<String>,
    /// The model's reasoning as plain text, given back by the client.
    pub reasoning: Option<String>,
    /// The model's reasoning in a form that proves where it comes from.
    pub thoughts: Vec<Thought>,
    /// Where a prefix ends that the provider should keep.
    pub cache_marks: Vec<CacheMark>,
    /// Calls that an assistant turn made.
    pub tool_calls: Vec<ToolCall>,
    /// For a tool turn: the call that it answers.
    pub tool_call_id: Option<String>,
    /// For a tool turn: the tool says that it failed.
    pub tool_failed: bool,
}

impl Message {
    /// A turn of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Part::Text(text.into())],
            name: None,
            reasoning: None,
            thoughts: Vec::new(),
            cache_marks: Vec::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            tool_failed: false,
        }
    }

    /// All text parts joined by newlines; pictures are left out.
    pub fn plain_text(&self) -> String {
        let mut texts = self.content.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image { .. } => None,
        });
        let Some(first) = texts.next() else {
            return String::new();
        };
        let mut joined = first.to_owned();
        for text in texts {
            joined.push('\n');
            joined.push_str(text);
        }
        joined
    }
}

/// A function that the model may call.
#[derive(Clone, PartialEq)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of the arguments, as JSON text.
    pub parameters: Option<String>,
    /// OpenAI's `strict` flag, where the client set it.
    pub strict: Option<bool>,
}

/// Whether and which tool must be called.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call.
    None,
    /// At least one call.
    Required,
    /// A call of this function.
    Named(String),
}

/// The form that the answer must have.
#[derive(Clone, PartialEq, Default)]
pub enum ResponseFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// The schema's name.
        name: String,
        /// JSON Schema as JSON text.
        schema: String,
        /// OpenAI's `strict` flag.
        strict: Option<bool>,
    },
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text by a grammar: Lark as llguidance reads it, or llama.cpp's GBNF.
    Grammar(String),
}

/// What is asked: turns of a conversation, or raw text to go on with.
#[derive(Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, rendered by the model's chat template.
    Turns(Vec<Message>),
    /// Text that the model continues as it stands (`/v1/completions`).
    Text(String),
    /// Texts that become vectors (`/v1/embeddings`).
    Inputs(Inputs),
}

/// How the model chooses its words. `None` means "the target's default".
#[derive(Clone, PartialEq, Default)]
pub struct Params {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus mass, 0 to 1.
    pub top_p: Option<f32>,
    /// Number of most likely tokens kept; 0 keeps all.
    pub top_k: Option<u32>,
    /// Least probability kept, relative to the most likely token, 0 to 1.
    pub min_p: Option<f32>,
    /// Multiplicative penalty on tokens seen; 1 is none.
    pub repetition_penalty: Option<f32>,
    /// Additive penalty on tokens that occurred, -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Additive penalty per occurrence, -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Makes sampling repeatable.
    pub seed: Option<i64>,
    /// (token id, value added to its logit).
    pub logit_bias: Vec<(u32, f32)>,
    /// `Some(n)`: report each token's log-probability and those of the `n` most likely.
    pub logprobs: Option<u8>,
    /// The most tokens to write, reasoning included.
    pub max_tokens: Option<u32>,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// Whether one turn may make several calls.
    pub parallel_tool_calls: Option<bool>,
    /// `minimal`, `low`, `medium`, `high`: for models that reason.
    pub reasoning_effort: Option<String>,
    /// Qwen-style switch of the template.
    pub enable_thinking: Option<bool>,
    /// The most tokens to think with, where the client said it in tokens.
    pub thinking_tokens: Option<u32>,
}

/// A whole request: content and how to answer it.
#[derive(Clone, PartialEq)]
pub struct Chat {
    /// What is asked.
    pub prompt: Prompt,
    /// Functions that may be called.
    pub tools: Vec<Tool>,
    /// Where a prefix of the tools ends that the provider should keep.
    pub tool_cache_marks: Vec<CacheMark>,
    /// Which must be.
    pub tool_choice: ToolChoice,
    /// The form of the answer.
    pub response_format: ResponseFormat,
    /// How to choose words.
    pub params: Params,
    /// Fields that nearfar does not know, as a JSON object in text; passed on
    /// between like dialects, dropped otherwise. Empty when there are none.
    pub passthrough: String,
    /// The dialect of `passthrough`.
    pub passthrough_of: Origin,
}

impl Chat {
    /// A conversation with all else at its defaults.
    pub fn turns(messages: Vec<Message>) -> Self {
        Self {
            prompt: Prompt::Turns(messages),
            tools: Vec::new(),
            tool_cache_marks: Vec::new(),
            tool_choice: ToolChoice::Auto,
            response_format: ResponseFormat::Text,
            params: Params::default(),
            passthrough: String::new(),
            passthrough_of: Origin::Openai,
        }
    }

    /// Raw text to continue.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            prompt: Prompt::Text(text.into()),
            ..Self::turns(Vec::new())
        }
    }

    /// Texts that become vectors.
    pub fn inputs(inputs: Inputs) -> Self {
        Self {
            prompt: Prompt::Inputs(inputs),
            ..Self::turns(Vec::new())
        }
    }

    /// Bytes of text in the prompt and the tools: what prefill cost and the
    /// estimate of tokens scale with. Pictures are not counted.
    pub fn text_bytes(&self) -> usize {
        let prompt = match &self.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Inputs(inputs) => inputs.text_bytes(),
            Prompt::Turns(messages) => messages.iter().map(message_bytes).sum(),
        };
        let tools: usize = self
            .tools
            .iter()
            .map(|tool| {
                tool.name.len()
                    + tool.description.as_ref().map_or(0, String::len)
                    + tool.parameters.as_ref().map_or(0, String::len)
            })
            .sum();
        prompt + tools
    }

    /// The unknown fields, for a target of this dialect; empty for others.
    pub fn passthrough_for(&self, origin: Origin) -> &str {
        if self.passthrough_of == origin {
            &self.passthrough
        } else {
            ""
        }
    }

    /// Whether any turn shows a picture.
    pub fn has_images(&self) -> bool {
        match &self.prompt {
            Prompt::Text(_) | Prompt::Inputs(_) => false,
            Prompt::Turns(messages) => messages
                .iter()
                .any(|m| m.content.iter().any(|p| matches!(p, Part::Image { .. }))),
        }
    }
}

fn message_bytes(message: &Message) -> usize {
    let parts: usize = message
        .content
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Image { .. } => 0,
        })
        .sum();
    let calls: usize = message
        .tool_calls
        .iter()
        .map(|call| call.name.len() + call.arguments.len())
        .sum();
    let thoughts: usize = message.thoughts.iter().map(|t| t.text.len()).sum();
    parts + calls + thoughts + message.reasoning.as_ref().map_or(0, String::len)
}

// Debug of everything that carries content shows lengths only. A derive would
// print the prompt into the first log line that a hurried person writes.

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Part::Image { url, .. } => write!(f, "Image({} bytes)", url.len()),
        }
    }
}

impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ToolCall({} bytes)", self.arguments.len())
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.parameters.as_ref().map_or(0, String::len);
        write!(f, "Tool(schema of {schema} bytes)")
    }
}

impl fmt::Debug for ToolChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ToolChoice::Auto => "Auto",
            ToolChoice::None => "None",
            ToolChoice::Required => "Required",
            ToolChoice::Named(_) => "Named(..)",
        })
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Params")
            .field("temperature", &self.temperature)
            .field("max_tokens", &self.max_tokens)
            .field("stop", &self.stop.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseFormat::Text => f.write_str("Text"),
            ResponseFormat::JsonObject => f.write_str("JsonObject"),
            ResponseFormat::JsonSchema { schema, .. } => {
                write!(f, "JsonSchema({} bytes)", schema.len())
            }
            ResponseFormat::Regex(regex) => write!(f, "Regex({} bytes)", regex.len()),
            ResponseFormat::Choice(choices) => write!(f, "Choice({} texts)", choices.len()),
            ResponseFormat::Grammar(grammar) => write!(f, "Grammar({} bytes)", grammar.len()),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("role", &self.role)
            .field("content", &self.content)
            .field("tool_calls", &self.tool_calls.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prompt::Turns(messages) => f.debug_list().entries(messages).finish(),
            Prompt::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Prompt::Inputs(inputs) => inputs.fmt(f),
        }
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("prompt", &self.prompt)
            .field("tools", &self.tools.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_content() {
        let mut chat = Chat::turns(vec![
            Message::text(Role::System, "secret-system"),
            Message {
                tool_calls: vec![ToolCall {
                    id: "secret-id".into(),
                    name: "secret-name".into(),
                    arguments: "secret-arguments".into(),
                    signature: Some(Signature::new(Origin::Gemini, "secret-signature")),
                }],
                reasoning: Some("secret-reasoning".into()),
                name: Some("secret-speaker".into()),
                tool_call_id: Some("secret-call".into()),
                content: vec![Part::Image {
                    url: "secret-url".into(),
                    detail: None,
                }],
                thoughts: vec![Thought {
                    text: "secret-thought".into(),
                    ..Thought::default()
                }],
                ..Message::text(Role::Assistant, "")
            },
        ]);
        chat.tools.push(Tool {
            name: "secret-tool".into(),
            description: Some("secret-description".into()),
            parameters: Some("secret-schema".into()),
            strict: None,
        });
        chat.response_format = ResponseFormat::JsonSchema {
            name: "secret-format".into(),
            schema: "secret-json".into(),
            strict: None,
        };
        chat.passthrough = "secret-extra".into();
        chat.params.stop = vec!["secret-stop".into()];
        chat.tool_choice = ToolChoice::Named("secret-tool".into());
        let shown = format!(
            "{chat:?} {:#?} {:?} {:?} {:?} {:?}",
            chat.prompt, chat.tools, chat.response_format, chat.params, chat.tool_choice
        );
        for format in [
            ResponseFormat::Regex("secret".into()),
            ResponseFormat::Choice(vec!["secret".into()]),
            ResponseFormat::Grammar("secret".into()),
        ] {
            assert!(!format!("{format:?}").contains("secret"));
        }
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("13 bytes"), "lengths are shown: {shown}");
    }
}
