//! A conversation as Converse takes it: instructions apart, roles in turn, tool
//! results at the head of the user's turn.

use nearfar_domain::chat::{Message, Part, Role};
use nearfar_domain::thought::{Item, Origin, Thought};
use serde_json::{Value, json};

use crate::codec::{Unsupported, call_arguments};
use crate::picture::{self, Picture};

/// What stands in for the turn that Converse wants first where a conversation
/// begins with the assistant, as a voice app's greeting does.
const OPENING: &str = "(The conversation begins.)";

/// The `system` and `messages` of a request.
pub(super) struct Turns {
    pub(super) system: Vec<Value>,
    pub(super) messages: Vec<Value>,
    /// Names of the tools that were called, each once: Converse wants them
    /// declared wherever they occur.
    pub(super) called: Vec<String>,
}

struct Turn {
    role: &'static str,
    content: Vec<Value>,
    /// How many blocks at the head are results.
    results: usize,
}

/// Rearranges the turns.
pub(super) fn turns(messages: &[Message]) -> Result<Turns, Unsupported> {
    let mut system = Vec::new();
    let mut called: Vec<String> = Vec::new();
    let mut turns: Vec<Turn> = Vec::new();
    for message in messages {
        for call in &message.tool_calls {
            if !called.contains(&call.name) {
                called.push(call.name.clone());
            }
        }
        match message.role {
            // Wherever they stand: there is one place for them.
            Role::System | Role::Developer => push(&mut system, message)?,
            Role::User => push(&mut turn(&mut turns, "user").content, message)?,
            Role::Assistant => push(&mut turn(&mut turns, "assistant").content, message)?,
            Role::Tool => {
                let mut content = Vec::new();
                for part in &message.content {
                    content.push(block(part)?);
                }
                let status = if message.tool_failed {
                    "error"
                } else {
                    "success"
                };
                let result = json!({"toolResult": {
                    "toolUseId": message.tool_call_id.as_deref().unwrap_or_default(),
                    "content": content,
                    "status": status
                }});
                let turn = turn(&mut turns, "user");
                turn.content.insert(turn.results, result);
                turn.results += 1;
            }
        }
    }
    turns.retain(|turn| !turn.content.is_empty());
    if turns.first().is_none_or(|turn| turn.role == "assistant") {
        let opening = Turn {
            role: "user",
            content: vec![json!({ "text": OPENING })],
            results: 0,
        };
        turns.insert(0, opening);
    }
    trim_last(&mut turns);
    let message = |turn: Turn| json!({"role": turn.role, "content": turn.content});
    Ok(Turns {
        system,
        messages: turns.into_iter().map(message).collect(),
        called,
    })
}

/// A last turn of the assistant is one to go on from; Claude refuses white space
/// at its end.
fn trim_last(turns: &mut [Turn]) {
    let Some(last) = turns.last_mut().filter(|turn| turn.role == "assistant") else {
        return;
    };
    if let Some(block) = last.content.last_mut()
        && let Some(text) = block["text"].as_str()
    {
        *block = json!({ "text": text.trim_end() });
    }
}

fn turn<'t>(turns: &'t mut Vec<Turn>, role: &'static str) -> &'t mut Turn {
    if turns.last().is_none_or(|last| last.role != role) {
        turns.push(Turn {
            role,
            content: Vec::new(),
            results: 0,
        });
    }
    let last = turns.len() - 1;
    &mut turns[last]
}

fn push(blocks: &mut Vec<Value>, message: &Message) -> Result<(), Unsupported> {
    for item in message.items() {
        match item {
            // Converse refuses blank text.
            Item::Part(Part::Text(text)) if text.trim().is_empty() => {}
            Item::Part(part) => blocks.push(block(part)?),
            Item::Call(call) => {
                let input = call_arguments(call)?;
                blocks.push(json!({"toolUse": {
                    "toolUseId": call.id, "name": call.name, "input": input
                }}));
            }
            Item::Thought(thought) => blocks.extend(reasoning(thought)),
            Item::Cache(mark) if !blocks.is_empty() => {
                blocks.push(cache_point(mark.long));
            }
            Item::Cache(_) => {}
        }
    }
    Ok(())
}

/// A thought that its author can check; others are not taken.
fn reasoning(thought: &Thought) -> Option<Value> {
    let signature = thought.signature.as_ref()?.data_for(Origin::Anthropic)?;
    let content = if thought.redacted {
        json!({ "redactedContent": signature })
    } else {
        json!({"reasoningText": {"text": thought.text, "signature": signature}})
    };
    Some(json!({ "reasoningContent": content }))
}

/// The end of a prefix that is worth keeping.
pub(super) fn cache_point(long: bool) -> Value {
    if long {
        json!({"cachePoint": {"type": "default", "ttl": "1h"}})
    } else {
        json!({"cachePoint": {"type": "default"}})
    }
}

fn block(part: &Part) -> Result<Value, Unsupported> {
    let url = match part {
        Part::Text(text) => return Ok(json!({ "text": text })),
        Part::Image { url, .. } => url,
    };
    let Picture::Data { media_type, data } = picture::read(url)? else {
        return Err(Unsupported::new(
            "messages.content.image_url",
            "Bedrock fetches no pictures; send the picture itself as a data: URL",
        ));
    };
    let format = media_type.trim_start_matches("image/");
    if !matches!(format, "png" | "jpeg" | "gif" | "webp") {
        return Err(Unsupported::new(
            "messages.content.image_url",
            "Bedrock takes pictures as png, jpeg, gif or webp",
        ));
    }
    Ok(json!({"image": {"format": format, "source": {"bytes": data}}}))
}
