//! A conversation as Gemini takes it: instructions apart, two roles in turn,
//! results of functions by their name.

use nearfar_domain::chat::{Message, Part, Role, ToolCall};
use nearfar_domain::thought::{Item, Origin};
use serde_json::{Value, json};

use crate::codec::{Unsupported, call_arguments};
use crate::picture::{self, Picture};

/// What stands in for the turn that Gemini wants first where a conversation
/// begins with the assistant, as a voice app's greeting does.
const OPENING: &str = "(The conversation begins.)";

/// What Google documents for calls that another model made: Gemini 3 refuses
/// calls without a signature, and these can have none.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// What the model and the service want of a conversation.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    /// Calls need a signature (Gemini 3).
    pub(super) signatures: bool,
    /// Calls and results may carry ids (the Gemini API; not Vertex AI).
    pub(super) ids: bool,
}

/// The parts of `systemInstruction`, and `contents`.
pub(super) struct Turns {
    pub(super) system: Vec<Value>,
    pub(super) contents: Vec<Value>,
}

struct Turn {
    role: &'static str,
    parts: Vec<Value>,
    /// How many parts at the head are results.
    results: usize,
}

/// Rearranges the turns.
pub(super) fn turns(messages: &[Message], wants: Wants) -> Result<Turns, Unsupported> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        match message.role {
            // Wherever they stand: there is one place for them.
            Role::System | Role::Developer => push_parts(&mut system, &message.content)?,
            Role::User => push_parts(&mut turn(&mut turns, "user").parts, &message.content)?,
            Role::Tool => {
                let turn = turn(&mut turns, "user");
                // All results stand together, before any text.
                turn.parts
                    .insert(turn.results, result(message, &messages[..at], wants));
                turn.results += 1;
                let pictures = message.content.iter().filter(|part| !is_text(part));
                for part in pictures {
                    turn.parts.push(part_of(part)?);
                }
            }
            Role::Assistant => assistant(&mut turn(&mut turns, "model").parts, message, wants)?,
        }
    }
    turns.retain(|turn| !turn.parts.is_empty());
    if turns.first().is_none_or(|turn| turn.role == "model") {
        let opening = Turn {
            role: "user",
            parts: vec![json!({ "text": OPENING })],
            results: 0,
        };
        turns.insert(0, opening);
    }
    let content = |turn: Turn| json!({"role": turn.role, "parts": turn.parts});
    Ok(Turns {
        system,
        contents: turns.into_iter().map(content).collect(),
    })
}

fn turn<'t>(turns: &'t mut Vec<Turn>, role: &'static str) -> &'t mut Turn {
    if turns.last().is_none_or(|last| last.role != role) {
        turns.push(Turn {
            role,
            parts: Vec::new(),
            results: 0,
        });
    }
    let last = turns.len() - 1;
    &mut turns[last]
}

fn assistant(parts: &mut Vec<Value>, message: &Message, wants: Wants) -> Result<(), Unsupported> {
    let mut signed = false;
    for item in message.items() {
        match item {
            Item::Part(part) if is_blank(part) => {}
            Item::Part(part) => parts.push(part_of(part)?),
            Item::Call(call) => {
                parts.push(call_part(call, wants, &mut signed)?);
            }
            // The summary was for people; what the model wants back is its
            // signature, in a part without text as its own stream has it.
            Item::Thought(thought) => {
                let signature = thought.signature.as_ref();
                if let Some(data) = signature.and_then(|s| s.data_for(Origin::Gemini)) {
                    parts.push(json!({"text": "", "thoughtSignature": data}));
                }
            }
            Item::Cache(_) => {}
        }
    }
    Ok(())
}

fn call_part(call: &ToolCall, wants: Wants, signed: &mut bool) -> Result<Value, Unsupported> {
    let args = call_arguments(call)?;
    let mut function = json!({"name": call.name, "args": args});
    if wants.ids && !call.id.is_empty() {
        function["id"] = json!(call.id);
    }
    let mut part = json!({ "functionCall": function });
    let own = call
        .signature
        .as_ref()
        .and_then(|signature| signature.data_for(Origin::Gemini));
    // Only the first of parallel calls has one.
    let needed = wants.signatures && !*signed;
    if let Some(data) = own.or(needed.then_some(NO_SIGNATURE)) {
        part["thoughtSignature"] = json!(data);
    }
    *signed = true;
    Ok(part)
}

/// A function's result under the name of the function that was called.
fn result(message: &Message, before: &[Message], wants: Wants) -> Value {
    let id = message.tool_call_id.as_deref().unwrap_or_default();
    let called = before
        .iter()
        .rev()
        .flat_map(|message| &message.tool_calls)
        .find(|call| call.id == id)
        .map(|call| call.name.as_str());
    let name = called.or(message.name.as_deref()).unwrap_or("tool");
    let text = message.plain_text();
    // An object or a list stays one; anything else is text.
    let value = match serde_json::from_str::<Value>(&text) {
        Ok(value) if value.is_object() || value.is_array() => value,
        _ => json!(text),
    };
    let key = if message.tool_failed {
        "error"
    } else {
        "output"
    };
    let mut response = json!({"name": name, "response": { key: value }});
    if wants.ids && !id.is_empty() {
        response["id"] = json!(id);
    }
    json!({ "functionResponse": response })
}

fn push_parts(out: &mut Vec<Value>, parts: &[Part]) -> Result<(), Unsupported> {
    for part in parts.iter().filter(|part| !is_blank(part)) {
        out.push(part_of(part)?);
    }
    Ok(())
}

fn is_text(part: &Part) -> bool {
    matches!(part, Part::Text(_))
}

/// Gemini refuses parts without text.
fn is_blank(part: &Part) -> bool {
    matches!(part, Part::Text(text) if text.is_empty())
}

fn part_of(part: &Part) -> Result<Value, Unsupported> {
    Ok(match part {
        Part::Text(text) => json!({ "text": text }),
        Part::Image { url, .. } => match picture::read(url)? {
            Picture::Data { media_type, data } => {
                json!({"inlineData": {"mimeType": media_type, "data": data}})
            }
            Picture::Url(url) => {
                let mut file = json!({ "fileUri": url });
                if let Some(media_type) = picture::media_type_of(url) {
                    file["mimeType"] = json!(media_type);
                }
                json!({ "fileData": file })
            }
        },
    })
}
