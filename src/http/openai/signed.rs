//! What only its author can check, in OpenAI's dialect, which has no place for
//! it: where clients and other gateways already look. Gemini's signatures stand
//! in `extra_content.google.thought_signature`, as Google's own compatible
//! endpoint has them; signed thinking in `thinking_blocks`, as LiteLLM has it.
//! A client that sends its assistant turns back as they came loses nothing.

use nearfar_domain::chat::Message;
use nearfar_domain::events::Signed;
use nearfar_domain::thought::{Origin, Signature, Thought};
use serde_json::{Value, json};

use crate::http::fields::Fields;
use crate::http::problem::Problem;

/// More thoughts in one turn are refused.
const MAX_BLOCKS: usize = 256;

fn google(signature: &Signature) -> Value {
    json!({"google": {"thought_signature": signature.shown(Origin::Gemini)}})
}

/// The field of a turn that holds a thought, and the thought in it.
fn block(of: &Signed, signature: &Signature, thought: &str) -> Value {
    let shown = signature.shown(Origin::Anthropic);
    match of {
        Signed::Redacted => json!({"type": "redacted_thinking", "data": shown}),
        _ => json!({"type": "thinking", "thinking": thought, "signature": shown}),
    }
}

/// A signature as the delta of a stream. `thought` is the reasoning before it.
pub(super) fn delta(of: &Signed, signature: &Signature, thought: &str) -> Value {
    match (of, signature.origin) {
        (Signed::Call(index), _) => json!({"tool_calls": [{
            // Some clients want the function in every fragment.
            "index": index, "function": {"arguments": ""}, "extra_content": google(signature)
        }]}),
        (Signed::Thought { .. }, Origin::Gemini) => json!({ "extra_content": google(signature) }),
        _ => json!({ "thinking_blocks": [block(of, signature, thought)] }),
    }
}

/// Adds a signature to a whole message, whose calls are there already.
pub(super) fn add(message: &mut Value, of: &Signed, signature: &Signature, thought: &str) {
    match (of, signature.origin) {
        (Signed::Call(index), _) => {
            if let Some(call) = message["tool_calls"].get_mut(*index as usize) {
                call["extra_content"] = google(signature);
            }
        }
        (Signed::Thought { .. }, Origin::Gemini) => message["extra_content"] = google(signature),
        _ => {
            let block = block(of, signature, thought);
            match message["thinking_blocks"].as_array_mut() {
                Some(blocks) => blocks.push(block),
                None => message["thinking_blocks"] = json!([block]),
            }
        }
    }
}

/// A call's signature, given back by the client.
pub(super) fn of_call(fields: &mut Fields) -> Result<Option<Signature>, Problem> {
    let Some(mut extra) = fields.object("extra_content")? else {
        return Ok(None);
    };
    let Some(mut google) = extra.object("google")? else {
        return Ok(None);
    };
    let text = google.string("thought_signature")?;
    Ok(text.map(|text| Signature::read(Origin::Gemini, &text)))
}

/// The thoughts of a turn, given back by the client.
pub(super) fn read(fields: &mut Fields, message: &mut Message) -> Result<(), Problem> {
    let blocks = fields.array("thinking_blocks")?.unwrap_or_default();
    let path = fields.path_of("thinking_blocks");
    if blocks.len() > MAX_BLOCKS {
        return Err(Problem::field(
            &path,
            format!("{path} may hold at most {MAX_BLOCKS} blocks."),
        ));
    }
    for (index, value) in blocks.into_iter().enumerate() {
        let mut block = Fields::of(&format!("{path}[{index}]"), value)?;
        let redacted = block.string("type")?.as_deref() == Some("redacted_thinking");
        let text = block.string("thinking")?.unwrap_or_default();
        let signature = block.string(if redacted { "data" } else { "signature" })?;
        let signature = signature.filter(|text| !text.is_empty());
        message.thoughts.push(Thought {
            text,
            signature: signature.map(|text| Signature::read(Origin::Anthropic, &text)),
            redacted,
            ..Thought::default()
        });
    }
    if let Some(signature) = of_call(fields)? {
        let after = u32::try_from(message.content.len()).unwrap_or(u32::MAX);
        message.thoughts.push(Thought {
            signature: Some(signature),
            after,
            ..Thought::default()
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nearfar_domain::chat::Role;

    use super::*;

    #[test]
    fn what_was_shown_is_read_again() {
        let anthropic = Signature::new(Origin::Anthropic, "Eq");
        let gemini = Signature::new(Origin::Gemini, "Cg");
        let thought = Signed::Thought { id: None };
        let mut message = json!({"role": "assistant", "tool_calls": [{"id": "a"}]});
        add(&mut message, &thought, &anthropic, "hm");
        add(&mut message, &Signed::Redacted, &anthropic, "");
        add(&mut message, &thought, &gemini, "");
        add(&mut message, &Signed::Call(0), &gemini, "");
        add(&mut message, &Signed::Call(7), &gemini, "");
        assert_eq!(
            message,
            json!({
                "role": "assistant",
                "tool_calls": [{"id": "a", "extra_content": {"google": {"thought_signature": "Cg"}}}],
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "Eq"},
                    {"type": "redacted_thinking", "data": "Eq"}
                ],
                "extra_content": {"google": {"thought_signature": "Cg"}}
            })
        );
        let mut call = Fields::of("call", message["tool_calls"][0].clone()).unwrap();
        assert_eq!(of_call(&mut call).unwrap(), Some(gemini.clone()));
        let mut turn = Message::text(Role::Assistant, "text");
        read(&mut Fields::of("turn", message).unwrap(), &mut turn).unwrap();
        assert_eq!(turn.thoughts.len(), 3);
        assert_eq!(turn.thoughts[0].text, "hm");
        assert_eq!(turn.thoughts[0].signature, Some(anthropic));
        assert!(turn.thoughts[1].redacted);
        assert_eq!(
            (turn.thoughts[2].after, &turn.thoughts[2].signature),
            (1, &Some(gemini))
        );
    }

    #[test]
    fn each_has_its_place_in_a_stream() {
        let gemini = Signature::new(Origin::Gemini, "Cg");
        assert_eq!(
            delta(&Signed::Call(1), &gemini, ""),
            json!({"tool_calls": [{"index": 1, "function": {"arguments": ""},
                    "extra_content": {"google": {"thought_signature": "Cg"}}}]})
        );
        let thought = Signed::Thought { id: None };
        assert_eq!(
            delta(&thought, &gemini, "hm"),
            json!({"extra_content": {"google": {"thought_signature": "Cg"}}})
        );
        let anthropic = Signature::new(Origin::Anthropic, "Eq");
        assert_eq!(
            delta(&thought, &anthropic, "hm"),
            json!({"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "Eq"}]})
        );
    }

    #[test]
    fn blocks_that_are_none_are_named() {
        let mut turn = Message::text(Role::Assistant, "text");
        for wrong in [
            json!({"thinking_blocks": 7}),
            json!({"thinking_blocks": [1]}),
        ] {
            let mut fields = Fields::of("turn", wrong).unwrap();
            assert!(read(&mut fields, &mut turn).is_err());
        }
    }
}
