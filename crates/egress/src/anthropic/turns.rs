//! A conversation as Anthropic takes it: instructions apart, roles in turn,
//! tool results at the head of the user's turn.

use nearfar_domain::chat::{Message, Part, Role};
use nearfar_domain::thought::{CacheMark, Item, Origin, Thought};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::codec::Unsupported;
use crate::object::raw;
use crate::picture::{self, Picture};

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

/// A block, and whether a prefix worth keeping ends with it.
#[derive(Serialize)]
pub(super) struct Block<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<Cache>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind<'a> {
    Text {
        text: &'a str,
    },
    Image {
        source: Source<'a>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Box<RawValue>,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

/// `cache_control`.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Cache {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl Cache {
    pub(super) fn of(mark: CacheMark) -> Self {
        Self {
            r#type: "ephemeral",
            ttl: mark.long.then_some("1h"),
        }
    }
}

impl<'a> From<Kind<'a>> for Block<'a> {
    fn from(kind: Kind<'a>) -> Self {
        Self {
            kind,
            cache_control: None,
        }
    }
}

impl Block<'_> {
    fn is_result(&self) -> bool {
        matches!(self.kind, Kind::ToolResult { .. })
    }
}

/// Rearranges the turns.
pub(super) fn turns(messages: &[Message]) -> Result<Turns<'_>, Unsupported> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for message in messages {
        match message.role {
            // Wherever they stand: there is one place for them.
            Role::System | Role::Developer => push_items(&mut system, message)?,
            Role::User => {
                let turn = turn(&mut turns, "user");
                push_items(&mut turn.content, message)?;
            }
            Role::Tool => {
                let mut content = Vec::new();
                for part in &message.content {
                    content.extend(block(part)?);
                }
                // A mark beyond the content is one on the result itself.
                let beyond = |mark: &&CacheMark| mark.after as usize > message.content.len();
                let mark = message.cache_marks.iter().find(beyond);
                for mark in message.cache_marks.iter().filter(|mark| !beyond(mark)) {
                    if let Some(block) = content.get_mut((mark.after as usize).wrapping_sub(1)) {
                        block.cache_control = Some(Cache::of(*mark));
                    }
                }
                let result = Block {
                    cache_control: mark.map(|mark| Cache::of(*mark)),
                    ..Block::from(Kind::ToolResult {
                        tool_use_id: message.tool_call_id.as_deref().unwrap_or_default(),
                        content,
                        is_error: message.tool_failed,
                    })
                };
                // All results of one turn stand together, before any text.
                let turn = turn(&mut turns, "user");
                let results = turn
                    .content
                    .iter()
                    .take_while(|block| block.is_result())
                    .count();
                turn.content.insert(results, result);
            }
            Role::Assistant => {
                let turn = turn(&mut turns, "assistant");
                push_items(&mut turn.content, message)?;
            }
        }
    }
    turns.retain(|turn| !turn.content.is_empty());
    if turns.first().is_none_or(|turn| turn.role == "assistant") {
        turns.insert(
            0,
            Turn {
                role: "user",
                content: vec![Kind::Text { text: OPENING }.into()],
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
    if let Some(Block {
        kind: Kind::Text { text },
        ..
    }) = last.content.last_mut()
    {
        *text = text.trim_end();
        if text.is_empty() {
            last.content.pop();
        }
    }
    if last.content.is_empty() {
        turns.pop();
    }
}

/// A turn's items in order. Thoughts that Anthropic's models did not sign have
/// no place here.
fn push_items<'a>(blocks: &mut Vec<Block<'a>>, message: &'a Message) -> Result<(), Unsupported> {
    let first = blocks.len();
    for item in message.items() {
        match item {
            Item::Part(part) => blocks.extend(block(part)?),
            Item::Call(call) => blocks.push(
                Kind::ToolUse {
                    id: &call.id,
                    name: &call.name,
                    input: input(&call.arguments)?,
                }
                .into(),
            ),
            Item::Thought(thought) => blocks.extend(thinking(thought).map(Block::from)),
            Item::Cache(mark) => {
                if let Some(last) = blocks[first..].last_mut() {
                    last.cache_control = Some(Cache::of(mark));
                }
            }
        }
    }
    Ok(())
}

fn thinking(thought: &Thought) -> Option<Kind<'_>> {
    let signature = thought.signature.as_ref()?.data_for(Origin::Anthropic)?;
    Some(if thought.redacted {
        Kind::RedactedThinking { data: signature }
    } else {
        Kind::Thinking {
            thinking: &thought.text,
            signature,
        }
    })
}

/// A part as a block; Anthropic refuses empty text.
fn block(part: &Part) -> Result<Option<Block<'_>>, Unsupported> {
    Ok(match part {
        Part::Text(text) if text.trim().is_empty() => None,
        Part::Text(text) => Some(Kind::Text { text }.into()),
        Part::Image { url, .. } => {
            let source = match picture::read(url)? {
                Picture::Data { media_type, data } => Source::Base64 { media_type, data },
                Picture::Url(url) => Source::Url { url },
            };
            Some(Kind::Image { source }.into())
        }
    })
}

/// A call's arguments, which must be an object here. Their text stays.
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
