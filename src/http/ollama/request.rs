//! Ollama's request bodies.

use std::time::Instant;

use nearfar_domain::chat::{Chat, Message, Prompt, Role};
use nearfar_domain::embed::{Input, Inputs, MAX_INPUTS};
use serde_json::Value;

use super::lines::{Kind, OllamaForm};
use super::messages;
use super::options::{self, KeepAlive};
use crate::http::asked::Understood;
use crate::http::fields::{self, Fields};
use crate::http::openai::request::{MAX_MESSAGES, tools};
use crate::http::problem::Problem;

/// The longest vectors that anybody could ask for.
const MAX_DIMENSIONS: i64 = 1 << 16;

/// A request, and what it says about the model's memory.
pub(super) struct Read {
    pub(super) understood: Understood,
    pub(super) kind: Kind,
    /// There is nothing to answer: the model is to be loaded, or dropped.
    pub(super) empty: bool,
    /// How long the model is to stay in memory afterwards.
    pub(super) keep_alive: KeepAlive,
}

/// Reads the body of `/api/chat`.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn chat(body: &[u8]) -> Result<Read, Problem> {
    let mut fields = Fields::read(body)?;
    let items = fields.array("messages")?.unwrap_or_default();
    if items.len() > MAX_MESSAGES {
        return Err(Problem::field(
            "messages",
            format!("messages may hold at most {MAX_MESSAGES} messages."),
        ));
    }
    let mut chat = Chat::turns(messages::messages(items)?);
    chat.tools = tools(&mut fields)?;
    let empty = matches!(&chat.prompt, Prompt::Turns(turns) if turns.is_empty());
    finish(fields, chat, Kind::Chat, empty)
}

/// Reads the body of `/api/generate`.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn generate(body: &[u8]) -> Result<Read, Problem> {
    let mut fields = Fields::read(body)?;
    for (name, mend) in [
        ("suffix", "Put all text into prompt."),
        (
            "template",
            "The model's own is used; send raw and a finished prompt in its place.",
        ),
        ("context", "Send the conversation as messages to /api/chat."),
    ] {
        // Empty ones say nothing.
        let says = match fields.take(name) {
            None => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        if says {
            return Err(Problem::field(
                name,
                format!("{name} is not supported. {mend}"),
            ));
        }
    }
    let prompt = fields.string("prompt")?.unwrap_or_default();
    let system = fields.string("system")?.filter(|text| !text.is_empty());
    let images = messages::images(&mut fields)?;
    let raw = fields.boolean("raw")?.unwrap_or(false);
    let empty = prompt.is_empty() && images.is_empty();
    let chat = if raw {
        if !images.is_empty() {
            return Err(Problem::field(
                "images",
                "A raw prompt has no place for pictures. Leave raw out, or send /api/chat.",
            ));
        }
        Chat::text(prompt)
    } else {
        let mut turns = Vec::new();
        turns.extend(system.map(|text| Message::text(Role::System, text)));
        let mut user = Message::text(Role::User, prompt);
        user.content.extend(images);
        turns.push(user);
        Chat::turns(turns)
    };
    finish(fields, chat, Kind::Generate, empty)
}

/// What chats and prompts have in common.
fn finish(mut fields: Fields, mut chat: Chat, kind: Kind, empty: bool) -> Result<Read, Problem> {
    let model = model(&mut fields)?;
    chat.params = options::params(&mut fields)?;
    chat.response_format = options::format(&mut fields)?;
    let stream = fields.boolean("stream")?.unwrap_or(true);
    let keep_alive = options::keep_alive(&mut fields)?;
    Ok(Read {
        understood: Understood {
            model,
            chat,
            stream,
            tags: fields.object("nearfar")?.map(Fields::rest),
            form: Box::new(OllamaForm::new(kind, Instant::now())),
        },
        kind,
        empty,
        keep_alive,
    })
}

/// Reads the body of `/api/embed`.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn embed(body: &[u8]) -> Result<Read, Problem> {
    let mut fields = Fields::read(body)?;
    let items = match fields.take("input") {
        None => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![Input::Text(text)],
        Some(Value::Array(items)) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| text_of(&format!("input[{index}]"), item))
            .collect::<Result<_, _>>()?,
        Some(other) => {
            return Err(Problem::field(
                "input",
                format!(
                    "input must be a string or an array of strings, not {}.",
                    fields::kind(&other)
                ),
            ));
        }
    };
    vectors(fields, items, Kind::Embed)
}

/// Reads the body of `/api/embeddings`, the older form for one text.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn embeddings(body: &[u8]) -> Result<Read, Problem> {
    let mut fields = Fields::read(body)?;
    let prompt = fields.string("prompt")?.filter(|text| !text.is_empty());
    let items = prompt.map(Input::Text).into_iter().collect();
    vectors(fields, items, Kind::Embeddings)
}

fn vectors(mut fields: Fields, items: Vec<Input>, kind: Kind) -> Result<Read, Problem> {
    if items.len() > MAX_INPUTS {
        return Err(Problem::field(
            "input",
            format!("input may hold at most {MAX_INPUTS} texts. Send more in several requests."),
        ));
    }
    let model = model(&mut fields)?;
    let dimensions = fields.integer("dimensions", 1, MAX_DIMENSIONS)?;
    let empty = items.is_empty();
    let chat = Chat::inputs(Inputs {
        items,
        dimensions: dimensions.map(|n| n as u32),
        purpose: None,
    });
    let keep_alive = options::keep_alive(&mut fields)?;
    Ok(Read {
        understood: Understood {
            model,
            chat,
            stream: false,
            tags: fields.object("nearfar")?.map(Fields::rest),
            form: Box::new(OllamaForm::new(kind, Instant::now())),
        },
        kind,
        empty,
        keep_alive,
    })
}

fn text_of(path: &str, value: Value) -> Result<Input, Problem> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(Input::Text(text)),
        Value::String(_) => Err(Problem::field(path, format!("{path} is empty."))),
        other => Err(Problem::field(
            path,
            format!("{path} must be a string, not {}.", fields::kind(&other)),
        )),
    }
}

/// The model's name in our words: without the tag that Ollama adds by itself.
pub(super) fn model(fields: &mut Fields) -> Result<String, Problem> {
    let mut model = fields.model()?;
    if let Some(bare) = model.strip_suffix(":latest")
        && !bare.is_empty()
    {
        model.truncate(bare.len());
    }
    Ok(model)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
