//! The conversation: `system` and `messages`, block by block.
//!
//! A user's turn with tool results becomes several turns, one for each result:
//! so has every other dialect it. Egress puts them together again.

use nearfar_domain::chat::{Message, Part, Role, ToolCall};
use nearfar_domain::thought::{CacheMark, Origin, Signature, Thought};
use serde_json::Value;

use crate::http::fields::{Fields, kind};
use crate::http::problem::Problem;

/// The most messages that one request may carry.
const MAX_MESSAGES: usize = 4096;

/// Takes `system` and `messages`.
pub(super) fn turns(fields: &mut Fields) -> Result<Vec<Message>, Problem> {
    let mut turns = Vec::new();
    if let Some(blocks) = blocks(fields, "system")? {
        turns.extend(system(blocks)?);
    }
    let messages = fields
        .array("messages")?
        .ok_or_else(|| fields.missing("messages", "an array of messages"))?;
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(Problem::field(
            "messages",
            format!("messages must hold 1 to {MAX_MESSAGES} messages."),
        ));
    }
    for (index, value) in messages.into_iter().enumerate() {
        let mut fields = Fields::of(&format!("messages[{index}]"), value)?;
        let role = fields.required_string("role")?;
        let blocks = blocks(&mut fields, "content")?
            .ok_or_else(|| fields.missing("content", "a string or an array of blocks"))?;
        match role.as_str() {
            "user" => user(blocks, &mut turns)?,
            "assistant" => turns.push(assistant(blocks)?),
            "system" => turns.extend(system(blocks)?),
            _ => {
                return Err(Problem::field(
                    fields.path_of("role"),
                    "role must be user or assistant.",
                ));
            }
        }
    }
    Ok(turns)
}

/// A block and its type.
struct Block {
    kind: String,
    fields: Fields,
}

/// A field that is a string or an array of blocks.
fn blocks(fields: &mut Fields, name: &str) -> Result<Option<Vec<Block>>, Problem> {
    let path = fields.path_of(name);
    let items = match fields.take(name) {
        None => return Ok(None),
        Some(Value::String(text)) => {
            vec![serde_json::json!({"type": "text", "text": text})]
        }
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(Problem::field(
                &path,
                format!(
                    "{path} must be a string or an array of blocks, not {}.",
                    kind(&other)
                ),
            ));
        }
    };
    let blocks = items.into_iter().enumerate().map(|(index, value)| {
        let mut fields = Fields::of(&format!("{path}[{index}]"), value)?;
        let kind = fields.required_string("type")?;
        Ok(Block { kind, fields })
    });
    blocks.collect::<Result<_, Problem>>().map(Some)
}

fn empty(role: Role) -> Message {
    Message {
        content: Vec::new(),
        ..Message::text(role, "")
    }
}

/// `None` where nothing is said.
fn system(blocks: Vec<Block>) -> Result<Option<Message>, Problem> {
    let mut message = empty(Role::System);
    for mut block in blocks {
        if block.kind != "text" {
            return Err(not_supported(&block, "text"));
        }
        let text = block.fields.required_string("text")?;
        if !text.is_empty() {
            message.content.push(Part::Text(text));
        }
        mark(&mut block.fields, &mut message)?;
    }
    Ok((!message.content.is_empty()).then_some(message))
}

fn user(blocks: Vec<Block>, turns: &mut Vec<Message>) -> Result<(), Problem> {
    let mut said = empty(Role::User);
    for mut block in blocks {
        if block.kind == "tool_result" {
            if !said.content.is_empty() {
                turns.push(std::mem::replace(&mut said, empty(Role::User)));
            }
            turns.push(tool_result(block.fields)?);
        } else {
            said.content.extend(part(&mut block)?);
            mark(&mut block.fields, &mut said)?;
        }
    }
    if !said.content.is_empty() {
        turns.push(said);
    }
    Ok(())
}

fn tool_result(mut fields: Fields) -> Result<Message, Problem> {
    let mut message = empty(Role::Tool);
    message.tool_call_id = Some(fields.required_string("tool_use_id")?);
    message.tool_failed = fields.boolean("is_error")?.unwrap_or(false);
    let mut long = cache_mark(&mut fields)?;
    for mut block in blocks(&mut fields, "content")?.unwrap_or_default() {
        message.content.extend(part(&mut block)?);
        long = cache_mark(&mut block.fields)?.or(long);
    }
    message.cache_marks.extend(long.map(|long| CacheMark {
        after: (message.content.len() as u32).max(1),
        long,
    }));
    Ok(message)
}

fn assistant(blocks: Vec<Block>) -> Result<Message, Problem> {
    let mut message = empty(Role::Assistant);
    for mut block in blocks {
        let fields = &mut block.fields;
        match block.kind.as_str() {
            "thinking" => {
                let text = fields.required_string("thinking")?;
                let signature = fields.string("signature")?.filter(|s| !s.is_empty());
                let signature = signature.map(|s| Signature::read(Origin::Anthropic, &s));
                let after = items(&message);
                message.thoughts.push(Thought {
                    text,
                    signature,
                    after,
                    ..Thought::default()
                });
            }
            "redacted_thinking" => {
                let data = fields.required_string("data")?;
                let signature = Signature::read(Origin::Anthropic, &data);
                match message.tool_calls.last_mut() {
                    // What our streams write after a call that Gemini signed.
                    Some(call) if signature.origin == Origin::Gemini => {
                        call.signature = Some(signature);
                    }
                    _ => {
                        let after = items(&message);
                        message.thoughts.push(Thought {
                            signature: Some(signature),
                            redacted: true,
                            after,
                            ..Thought::default()
                        });
                    }
                }
            }
            "tool_use" => {
                let id = fields.required_string("id")?;
                let name = fields.required_string("name")?;
                let input = fields
                    .object("input")?
                    .ok_or_else(|| fields.missing("input", "an object"))?;
                message.tool_calls.push(ToolCall {
                    id,
                    name,
                    arguments: Value::Object(input.rest()).to_string(),
                    ..ToolCall::default()
                });
                mark(fields, &mut message)?;
            }
            "text" => {
                let text = fields.required_string("text")?;
                if !text.is_empty() {
                    message.content.push(Part::Text(text));
                }
                mark(fields, &mut message)?;
            }
            _ => {
                let wanted = "text, thinking, redacted_thinking or tool_use";
                return Err(not_supported(&block, wanted));
            }
        }
    }
    Ok(message)
}

/// A block of what a user or a tool shows; empty text is nothing.
fn part(block: &mut Block) -> Result<Option<Part>, Problem> {
    let fields = &mut block.fields;
    match block.kind.as_str() {
        "text" => {
            let text = fields.required_string("text")?;
            Ok((!text.is_empty()).then_some(Part::Text(text)))
        }
        "image" => {
            let mut source = fields
                .object("source")?
                .ok_or_else(|| fields.missing("source", "an object with type base64 or url"))?;
            image(&mut source).map(Some)
        }
        "document" => {
            let mut source = fields
                .object("source")?
                .ok_or_else(|| fields.missing("source", "an object with type text"))?;
            if source.required_string("type")? != "text" {
                return Err(Problem::field(
                    source.path_of("type"),
                    "Documents are supported as plain text only: type text with data.",
                ));
            }
            source.required_string("data").map(Part::Text).map(Some)
        }
        _ => Err(not_supported(block, "text, image, document or tool_result")),
    }
}

fn image(source: &mut Fields) -> Result<Part, Problem> {
    let url = match source.required_string("type")?.as_str() {
        "base64" => {
            let media_type = source.required_string("media_type")?;
            let well_formed = media_type.starts_with("image/")
                && media_type
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"/+-.".contains(&b));
            if !well_formed {
                return Err(Problem::field(
                    source.path_of("media_type"),
                    "media_type must be an image's, such as image/png.",
                ));
            }
            let data = source.required_string("data")?;
            format!("data:{media_type};base64,{data}")
        }
        // Passed on as it is: nothing here ever fetches it.
        "url" => source.required_string("url")?,
        _ => {
            return Err(Problem::field(
                source.path_of("type"),
                "The picture's source must be of type base64 or url.",
            ));
        }
    };
    Ok(Part::Image { url, detail: None })
}

/// Notes a mark after what the message holds so far.
fn mark(fields: &mut Fields, message: &mut Message) -> Result<(), Problem> {
    let after = items(message);
    let long = cache_mark(fields)?.filter(|_| after > 0);
    message
        .cache_marks
        .extend(long.map(|long| CacheMark { after, long }));
    Ok(())
}

/// Takes `cache_control`: whether it is to last long, where there is a mark.
pub(super) fn cache_mark(fields: &mut Fields) -> Result<Option<bool>, Problem> {
    let Some(mut control) = fields.object("cache_control")? else {
        return Ok(None);
    };
    let kind = control.required_string("type")?;
    let ttl = control.string("ttl")?;
    match (kind.as_str(), ttl.as_deref()) {
        ("ephemeral", None | Some("5m")) => Ok(Some(false)),
        ("ephemeral", Some("1h")) => Ok(Some(true)),
        _ => Err(Problem::field(
            fields.path_of("cache_control"),
            "cache_control must have type ephemeral, and ttl 5m or 1h where there is one.",
        )),
    }
}

fn items(message: &Message) -> u32 {
    (message.content.len() + message.tool_calls.len()) as u32
}

fn not_supported(block: &Block, wanted: &str) -> Problem {
    Problem::field(
        block.fields.path_of("type"),
        format!("Blocks of this type are not supported here. Send {wanted}."),
    )
}
