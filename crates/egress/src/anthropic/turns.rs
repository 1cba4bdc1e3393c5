//! A conversation as Anthropic takes it: instructions apart, roles in turn,
//! tool results at the head of the user's turn.

use nearfar_domain::chat::{Message, Part, Role};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::codec::Unsupported;
use crate::object::raw;

/// What stands in for the turn that Anthropic wants first where a conversation
/// begins with the assistant, as a voice app's greeting does.
const OPENING: &str = "(The conversation begins.)";

/// The `system` and `messages` of a request.
pub(super) struct Turns<'a> {
    pub(super) system: Vec<Block<'a>>,
    pub(super) messages: Vec<Turn<'a>>,
}

#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text {
        text: &'a str,
    },
    Image {
        source: Source<'a>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Box<RawValue>,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: Vec<Block<'a>>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

/// Rearranges the turns.
pub(super) fn turns(messages: &[Message]) -> Result<Turns<'_>, Unsupported> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for message in messages {
        match message.role {
            // Wherever they stand: there is one place for them.
            Role::System | Role::Developer => push_parts(&mut system, &message.content)?,
            Role::User => {
                let turn = turn(&mut turns, "user");
                push_parts(&mut turn.content, &message.content)?;
            }
            Role::Tool => {
                let mut content = Vec::new();
                push_parts(&mut content, &message.content)?;
                let result = Block::ToolResult {
                    tool_use_id: message.tool_call_id.as_deref().unwrap_or_default(),
                    content,
                };
                // All results of one turn stand together, before any text.
                let turn = turn(&mut turns, "user");
                let results = turn
                    .content
                    .iter()
                    .take_while(|block| matches!(block, Block::ToolResult { .. }))
                    .count();
                turn.content.insert(results, result);
            }
            Role::Assistant => {
                let turn = turn(&mut turns, "assistant");
                push_parts(&mut turn.content, &message.content)?;
                for call in &message.tool_calls {
                    turn.content.push(Block::ToolUse {
                        id: &call.id,
                        name: &call.name,
                        input: input(&call.arguments)?,
                    });
                }
            }
        }
    }
    turns.retain(|turn| !turn.content.is_empty());
    if turns.first().is_none_or(|turn| turn.role == "assistant") {
        turns.insert(
            0,
            Turn {
                role: "user",
                content: vec![Block::Text { text: OPENING }],
            },
        );
    }
    trim_last(&mut turns);
    Ok(Turns {
        system,
        messages: turns,
    })
}

/// The turn that a message of this role goes on with, or a new one.
fn turn<'a, 't>(turns: &'t mut Vec<Turn<'a>>, role: &'static str) -> &'t mut Turn<'a> {
    if turns.last().is_none_or(|last| last.role != role) {
        turns.push(Turn {
            role,
            content: Vec::new(),
        });
    }
    let last = turns.len() - 1;
    &mut turns[last]
}

/// A last turn of the assistant is one to go on from; Anthropic refuses white
/// space at its end.
fn trim_last(turns: &mut Vec<Turn<'_>>) {
    let Some(last) = turns.last_mut().filter(|turn| turn.role == "assistant") else {
        return;
    };
    if let Some(Block::Text { text }) = last.content.last_mut() {
        *text = text.trim_end();
        if text.is_empty() {
            last.content.pop();
        }
    }
    if last.content.is_empty() {
        turns.pop();
    }
}

fn push_parts<'a>(blocks: &mut Vec<Block<'a>>, parts: &'a [Part]) -> Result<(), Unsupported> {
    for part in parts {
        match part {
            // Anthropic refuses empty text.
            Part::Text(text) if text.trim().is_empty() => {}
            Part::Text(text) => blocks.push(Block::Text { text }),
            Part::Image { url, .. } => blocks.push(Block::Image {
                source: source(url)?,
            }),
        }
    }
    Ok(())
}

fn source(url: &str) -> Result<Source<'_>, Unsupported> {
    let wrong = |what: &str| Err(Unsupported::new("messages.content.image_url", what));
    let Some(rest) = url.strip_prefix("data:") else {
        if url.starts_with("https://") || url.starts_with("http://") {
            return Ok(Source::Url { url });
        }
        return wrong("a picture's URL must begin with https:// or data:");
    };
    let Some((head, data)) = rest.split_once(',') else {
        return wrong("the data: URL has no comma before its data");
    };
    let Some(head) = head.strip_suffix(";base64") else {
        return wrong("the data: URL must be base64: data:image/png;base64,…");
    };
    let media_type = head.split(';').next().unwrap_or(head);
    if !media_type.starts_with("image/") {
        return wrong("the data: URL must name its type: data:image/png;base64,…");
    }
    Ok(Source::Base64 { media_type, data })
}

/// A call's arguments, which must be an object here.
fn input(arguments: &str) -> Result<Box<RawValue>, Unsupported> {
    let text = match arguments.trim() {
        "" => "{}",
        text => text,
    };
    raw(text)
        .filter(|value| value.get().starts_with('{'))
        .ok_or_else(|| {
            Unsupported::new(
                "messages.tool_calls",
                "a call's arguments are not a JSON object, which this provider needs",
            )
        })
}
