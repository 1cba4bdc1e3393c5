//! The codecs under one name: which dialect writes a request and reads its answer.
//!
//! No trait: there are four dialects, all are known here, and a provider names
//! its own.

use nearfar_domain::chat::{Chat, ToolCall};
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::target::Dialect;
use serde_json::Value;

use crate::auth::is_vertex;
use crate::provider::Provider;
use crate::sse::Message;
use crate::{anthropic, bedrock, gemini, openai};

/// A request, ready for the wire, without its key.
pub struct Encoded {
    /// Below the provider's base URL, with a leading slash. `{model}` stands for
    /// the model's name.
    pub path: &'static str,
    /// Headers beside content type and key.
    pub headers: &'static [(&'static str, &'static str)],
    /// The JSON body.
    pub body: Vec<u8>,
}

/// What the dialect or the model cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsupported {
    /// The request's field, as OpenAI names it.
    pub field: &'static str,
    /// What it is and what to do.
    pub message: String,
}

impl Unsupported {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
        }
    }
}

/// A call's arguments as the object that some dialects take instead of text.
///
/// # Errors
/// [`Unsupported`], when they are none.
pub(crate) fn call_arguments(call: &ToolCall) -> Result<Value, Unsupported> {
    let arguments = match call.arguments.trim() {
        "" => "{}",
        text => text,
    };
    serde_json::from_str(arguments)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| {
            Unsupported::new(
                "messages.tool_calls",
                "a call's arguments are not a JSON object, which this provider needs",
            )
        })
}

impl From<Unsupported> for Failure {
    fn from(unsupported: Unsupported) -> Failure {
        Failure {
            field: Some(unsupported.field.to_owned()),
            ..Failure::new(FailureKind::Unsupported, unsupported.message)
        }
    }
}

/// Writes a request to a provider.
///
/// # Errors
/// [`Unsupported`], when an answer without the field would be wrong.
pub fn encode(
    provider: &Provider,
    chat: &Chat,
    model: &str,
    stream: bool,
) -> Result<Encoded, Unsupported> {
    match provider.dialect {
        Dialect::Openai => openai::encode(chat, model, stream, provider.habits),
        Dialect::Anthropic => anthropic::encode(chat, model, stream),
        Dialect::Gemini => gemini::encode(chat, model, stream, is_vertex(&provider.base_url)),
        Dialect::Bedrock => bedrock::encode(chat, model, stream),
    }
}

/// Reads one answer, in pieces or whole.
pub enum Decoder {
    /// OpenAI's dialect.
    Openai(openai::Decoder),
    /// Anthropic's dialect.
    Anthropic(anthropic::Decoder),
    /// Gemini's dialect.
    Gemini(gemini::Decoder),
    /// Bedrock's Converse.
    Bedrock(bedrock::Decoder),
    /// Vectors, which OpenAI's dialect alone has.
    Embeddings(openai::Embeddings),
}

impl Decoder {
    /// A decoder for an answer of `model`. `provider` names it in failures,
    /// `nonce` makes ids for tool calls that come without one.
    pub fn new(dialect: Dialect, provider: &str, model: &str, nonce: u64) -> Self {
        match dialect {
            Dialect::Openai => Decoder::Openai(openai::Decoder::new(provider, model, nonce)),
            Dialect::Anthropic => Decoder::Anthropic(anthropic::Decoder::new(provider, model)),
            Dialect::Gemini => Decoder::Gemini(gemini::Decoder::new(provider, model, nonce)),
            Dialect::Bedrock => Decoder::Bedrock(bedrock::Decoder::new(provider, model)),
        }
    }

    /// A decoder for the vectors of so many inputs.
    pub fn embeddings(provider: &str, model: &str, inputs: usize) -> Self {
        Decoder::Embeddings(openai::Embeddings::new(provider, model, inputs))
    }

    /// Takes one message of a stream and appends what it means.
    ///
    /// # Errors
    /// What the provider reports, or [`FailureKind::Malformed`]. The answer has
    /// then failed.
    pub fn message(&mut self, message: &Message, out: &mut Vec<Event>) -> Result<(), Failure> {
        match self {
            Decoder::Openai(decoder) => decoder.message(message, out),
            Decoder::Anthropic(decoder) => decoder.message(message, out),
            Decoder::Gemini(decoder) => decoder.message(message, out),
            Decoder::Bedrock(decoder) => decoder.whole(message.data.as_bytes(), out),
            Decoder::Embeddings(decoder) => decoder.whole(message.data.as_bytes(), out),
        }
    }

    /// As [`Decoder::message`], for a frame of AWS's event stream.
    ///
    /// # Errors
    /// As [`Decoder::message`].
    pub fn frame(&mut self, frame: &bedrock::Frame, out: &mut Vec<Event>) -> Result<(), Failure> {
        match self {
            Decoder::Bedrock(decoder) => decoder.frame(frame, out),
            // Nobody else sends such streams.
            _ => Ok(()),
        }
    }

    /// Takes a whole body and appends everything up to and with `Finished`.
    ///
    /// # Errors
    /// As [`Decoder::message`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Failure> {
        match self {
            Decoder::Openai(decoder) => decoder.whole(body, out),
            Decoder::Anthropic(decoder) => decoder.whole(body, out),
            Decoder::Gemini(decoder) => decoder.whole(body, out),
            Decoder::Bedrock(decoder) => decoder.whole(body, out),
            Decoder::Embeddings(decoder) => decoder.whole(body, out),
        }
    }

    /// Whether the end marker was read: nothing more is to come.
    pub fn is_complete(&self) -> bool {
        match self {
            Decoder::Openai(decoder) => decoder.is_complete(),
            Decoder::Anthropic(decoder) => decoder.is_complete(),
            Decoder::Gemini(decoder) => decoder.is_complete(),
            Decoder::Bedrock(decoder) => decoder.is_complete(),
            Decoder::Embeddings(decoder) => decoder.is_complete(),
        }
    }

    /// Whether the answer may be taken as whole if the stream ends here.
    pub fn may_end(&self) -> bool {
        match self {
            Decoder::Openai(decoder) => decoder.may_end(),
            Decoder::Anthropic(decoder) => decoder.is_complete(),
            Decoder::Gemini(decoder) => decoder.may_end(),
            Decoder::Bedrock(decoder) => decoder.may_end(),
            Decoder::Embeddings(decoder) => decoder.is_complete(),
        }
    }

    /// The stream has ended: appends the last events.
    ///
    /// # Errors
    /// [`FailureKind::Cut`] when the answer is not whole.
    pub fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Failure> {
        match self {
            Decoder::Openai(decoder) => decoder.end(out),
            Decoder::Anthropic(decoder) => decoder.end(out),
            Decoder::Gemini(decoder) => decoder.end(out),
            Decoder::Bedrock(decoder) => decoder.end(out),
            Decoder::Embeddings(decoder) => decoder.end(),
        }
    }
}

/// A provider sent what its dialect does not allow.
pub(crate) fn malformed(provider: &str, what: &str) -> Failure {
    Failure::new(
        FailureKind::Malformed,
        format!("{provider} sent an answer that cannot be read: {what}"),
    )
}

/// A provider's answer ended too early.
pub(crate) fn cut(provider: &str) -> Failure {
    Failure::new(
        FailureKind::Cut,
        format!("{provider} ended the stream before the answer was whole"),
    )
}
