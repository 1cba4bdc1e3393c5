//! A whole answer as one message.

use nearfar_domain::events::Signed;
use nearfar_domain::thought::Origin;
use serde_json::{Value, json};

use super::shape;
use crate::http::collect::{Collected, Piece};
use crate::http::dialect::About;

/// The message, its blocks in the order in which they came.
pub(super) fn whole(about: &About, answer: &Collected) -> Value {
    let mut blocks: Vec<Value> = Vec::new();
    // Thinking that a signature may still complete.
    let mut unsigned = false;
    for piece in &answer.order {
        let thinking = std::mem::replace(&mut unsigned, false);
        match piece {
            Piece::Content(range) => {
                blocks.push(json!({"type": "text", "text": &answer.content[range.clone()]}));
            }
            Piece::Reasoning(range) => {
                let text = &answer.reasoning[range.clone()];
                blocks.push(json!({"type": "thinking", "thinking": text, "signature": ""}));
                unsigned = true;
            }
            Piece::Call(place) => blocks.extend(answer.tool_calls.get(*place).map(|call| {
                let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
                json!({
                    "type": "tool_use",
                    "id": call.id.as_deref().unwrap_or_default(),
                    "name": call.name.as_deref().unwrap_or_default(),
                    "input": if input.is_object() { input } else { json!({}) },
                })
            })),
            Piece::Signature(of, signature) => {
                let shown = signature.shown(Origin::Anthropic);
                match (of, blocks.last_mut()) {
                    (Signed::Thought { .. }, Some(last)) if thinking => {
                        last["signature"] = json!(shown);
                    }
                    (Signed::Thought { .. }, _) => {
                        blocks.push(json!({"type": "thinking", "thinking": "", "signature": shown}))
                    }
                    (Signed::Redacted | Signed::Call(_), _) => {
                        blocks.push(json!({"type": "redacted_thinking", "data": shown}));
                    }
                }
            }
        }
    }
    let mut message = shape::message(about);
    message["content"] = Value::Array(blocks);
    if let Some(reason) = answer.reason {
        let (reason, sequence) = shape::stop(reason, answer.stopped_by.as_deref());
        message["stop_reason"] = json!(reason);
        message["stop_sequence"] = sequence;
    }
    message["usage"] = shape::usage(&answer.usage);
    message
}
