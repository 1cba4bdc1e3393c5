//! An answer that repeats what was said, in pieces that fall anywhere.

use serde_json::{Value, json};

use super::script::{Answer, pieces};

/// What the user or a tool said last, in pieces of three bytes, or what is left
/// of it where a partial turn of the assistant comes last; with tools as the
/// first one's argument.
pub fn repeated(request: &Value) -> Option<Answer> {
    let all = request["messages"].as_array()?;
    let begun = all.last().filter(|last| last["role"] == "assistant");
    let begun = begun.and_then(|last| last["content"].as_str());
    let mut backwards = all.iter().rev();
    let said = backwards.find(|m| m["role"] == "user" || m["role"] == "tool")?;
    let said = said["content"].as_str()?;
    let said = said.strip_prefix(begun.unwrap_or_default())?;
    match request["tools"][0]["function"]["name"].as_str() {
        Some(name) => Some(Answer::call(name, &json!({ "text": said }).to_string())),
        None => Some(Answer {
            text: pieces(said, 3),
            ..Answer::default()
        }),
    }
}
