//! Items, of which requests and answers consist, as turns of a conversation.
//!
//! What one side said in a row is one turn: reasoning, a message and calls of
//! an assistant belong together, as other dialects have them. Reasoning that
//! only its author can read stands in `encrypted_content`; [`Sealed`] says how
//! the kinds that OpenAI does not have are told apart in there.

use nearfar_domain::chat::{Message, Part, Role, ToolCall};
use nearfar_domain::thought::{Origin, Signature, Thought};
use serde_json::{Value, json};

use crate::http::fields::{Fields, kind};
use crate::http::openai::request::MAX_MESSAGES;
use crate::http::openai::request::text_or_parts;
use crate::http::problem::Problem;

/// Takes `input`: text, or items.
pub(super) fn input(fields: &mut Fields) -> Result<Vec<Value>, Problem> {
    match fields.take("input") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![json!({
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}],
        })]),
        Some(Value::Array(items)) if items.len() <= MAX_MESSAGES => Ok(items),
        Some(Value::Array(_)) => Err(Problem::field(
            "input",
            format!("input may hold at most {MAX_MESSAGES} items."),
        )),
        Some(other) => Err(Problem::field(
            "input",
            format!(
                "input must be a string or an array of items, not {}.",
                kind(&other)
            ),
        )),
    }
}

/// What stands in a reasoning item's `encrypted_content`.
pub(super) enum Sealed {
    /// The proof of a thought that can be read, or the thought itself.
    Thought,
    /// A thought that is withheld.
    Redacted,
    /// What belongs to the turn's call of this index.
    Call(u32),
}

const REDACTED: &str = "redacted.";
const CALL: &str = "call.";

impl Sealed {
    /// As it is shown. The prefixes have a full stop, which base64 has not.
    pub(super) fn show(&self, signature: &Signature) -> String {
        let shown = signature.shown(Origin::Openai);
        match self {
            Sealed::Thought => shown.into_owned(),
            Sealed::Redacted => format!("{REDACTED}{shown}"),
            Sealed::Call(index) => format!("{CALL}{index}.{shown}"),
        }
    }

    fn read(text: &str) -> (Self, Signature) {
        let (sealed, rest) = if let Some(rest) = text.strip_prefix(REDACTED) {
            (Sealed::Redacted, rest)
        } else if let Some((index, rest)) = text
            .strip_prefix(CALL)
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(index, rest)| Some((index.parse().ok()?, rest)))
        {
            (Sealed::Call(index), rest)
        } else {
            (Sealed::Thought, text)
        };
        (sealed, Signature::read(Origin::Openai, rest))
    }
}

/// The turns of a conversation, grown item by item.
#[derive(Default)]
pub(super) struct Turns {
    turns: Vec<Message>,
}

impl Turns {
    /// What the turns after this one must follow.
    pub(super) fn instruct(&mut self, text: String) {
        self.turns.push(Message::text(Role::System, text));
    }

    /// Adds an item.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub(super) fn add(&mut self, path: &str, item: Value) -> Result<(), Problem> {
        let mut fields = Fields::of(path, item)?;
        let kind = fields.string("type")?;
        match kind.as_deref() {
            // The short form of a message has no type.
            None | Some("message") => self.message(&mut fields),
            Some("function_call") => self.call(&mut fields),
            Some("function_call_output") => self.output(&mut fields),
            Some("reasoning") => self.reasoning(&mut fields),
            Some("item_reference") => Err(Problem::field(
                fields.path_of("type"),
                "Items are not kept one by one. Send the item itself, or name the whole response \
                 as previous_response_id.",
            )),
            Some(_) => Err(Problem::field(
                fields.path_of("type"),
                "The item's type must be message, function_call, function_call_output or \
                 reasoning. Items of tools that OpenAI runs are of no use to other models.",
            )),
        }
    }

    /// All turns.
    pub(super) fn finish(self) -> Vec<Message> {
        self.turns
    }

    /// The assistant's turn that goes on.
    fn open(&mut self) -> &mut Message {
        if self
            .turns
            .last()
            .is_none_or(|turn| turn.role != Role::Assistant)
        {
            self.turns.push(assistant());
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }

    fn message(&mut self, fields: &mut Fields) -> Result<(), Problem> {
        let role = match fields.required_string("role")?.as_str() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => {
                return Err(Problem::field(
                    fields.path_of("role"),
                    "role must be system, developer, user or assistant.",
                ));
            }
        };
        let content = text_or_parts(fields, "content", part)?
            .ok_or_else(|| fields.missing("content", "a string or an array of parts"))?;
        if role == Role::Assistant && self.open().content.is_empty() {
            self.open().content = content;
        } else {
            let mut turn = Message::text(role, "");
            turn.content = content;
            self.turns.push(turn);
        }
        Ok(())
    }

    fn call(&mut self, fields: &mut Fields) -> Result<(), Problem> {
        let call = ToolCall {
            id: fields.required_string("call_id")?,
            name: fields.required_string("name")?,
            arguments: fields
                .string("arguments")?
                .unwrap_or_else(|| "{}".to_owned()),
            ..ToolCall::default()
        };
        self.open().tool_calls.push(call);
        Ok(())
    }

    fn output(&mut self, fields: &mut Fields) -> Result<(), Problem> {
        let id = fields.required_string("call_id")?;
        let output = text_or_parts(fields, "output", part)?
            .ok_or_else(|| fields.missing("output", "a string or an array of parts"))?;
        let mut turn = Message::text(Role::Tool, "");
        turn.content = output;
        turn.tool_call_id = Some(id);
        self.turns.push(turn);
        Ok(())
    }

    fn reasoning(&mut self, fields: &mut Fields) -> Result<(), Problem> {
        let id = fields.string("id")?;
        // The reasoning itself where there is some, else what sums it up.
        let mut text = texts(fields, "content")?;
        let summary = texts(fields, "summary")?;
        if text.is_empty() {
            text = summary;
        }
        let Some(sealed) = fields
            .string("encrypted_content")?
            .filter(|s| !s.is_empty())
        else {
            if !text.is_empty() {
                let turn = self.open();
                let before = turn.reasoning.take();
                turn.reasoning = Some(before.map_or(text.clone(), |b| format!("{b}\n{text}")));
            }
            return Ok(());
        };
        let (sealed, signature) = Sealed::read(&sealed);
        let turn = self.open();
        match sealed {
            Sealed::Call(index) => {
                if let Some(call) = turn.tool_calls.get_mut(index as usize) {
                    call.signature = Some(signature);
                }
            }
            Sealed::Thought | Sealed::Redacted => turn.thoughts.push(Thought {
                redacted: matches!(sealed, Sealed::Redacted),
                text,
                signature: Some(signature),
                id,
                after: (turn.content.len() + turn.tool_calls.len()) as u32,
            }),
        }
        Ok(())
    }
}

fn assistant() -> Message {
    let mut turn = Message::text(Role::Assistant, "");
    turn.content.clear();
    turn
}

fn texts(fields: &mut Fields, name: &str) -> Result<String, Problem> {
    let parts = fields.array(name)?.unwrap_or_default();
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect();
    Ok(texts.join("\n"))
}

fn part(path: &str, value: Value) -> Result<Part, Problem> {
    let mut fields = Fields::of(path, value)?;
    let kind = fields.required_string("type")?;
    match kind.as_str() {
        "input_text" | "output_text" | "text" => Ok(Part::Text(fields.required_string("text")?)),
        "refusal" => Ok(Part::Text(fields.required_string("refusal")?)),
        "input_image" => match fields.string("image_url")? {
            Some(url) => Ok(Part::Image {
                url,
                detail: fields.string("detail")?.filter(|detail| detail != "auto"),
            }),
            None => Err(Problem::field(
                fields.path_of("image_url"),
                "Files of OpenAI's are not within reach. Send the picture as image_url, a data: \
                 URL or an https: one.",
            )),
        },
        _ => Err(Problem::field(
            fields.path_of("type"),
            "The part's type must be input_text, output_text, refusal or input_image. Send files \
             as text, and sound as what was said.",
        )),
    }
}

/// Items as they are kept and listed: each with a type and an id.
pub(super) fn listed(items: &[Value], response: &str) -> Vec<Value> {
    let number = response.trim_start_matches("resp_");
    let items = items.iter().enumerate();
    items
        .map(|(index, item)| {
            let kind = item["type"].as_str().unwrap_or("message");
            let prefix = match kind {
                "function_call" => "fc",
                "function_call_output" => "fco",
                "reasoning" => "rs",
                _ => "msg",
            };
            let mut listed = item.clone();
            listed["type"] = json!(kind);
            if listed["id"].as_str().is_none_or(str::is_empty) {
                listed["id"] = json!(format!("{prefix}_{number}i{index:03x}"));
            }
            if kind == "message"
                && let Some(text) = item["content"].as_str()
            {
                let part = if item["role"] == "assistant" {
                    "output_text"
                } else {
                    "input_text"
                };
                listed["content"] = json!([{"type": part, "text": text}]);
            }
            if listed["status"].is_null() {
                listed["status"] = json!("completed");
            }
            listed
        })
        .collect()
}

#[cfg(test)]
#[path = "items_tests.rs"]
mod tests;
