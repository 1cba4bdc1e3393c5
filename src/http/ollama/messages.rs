//! Ollama's messages, read into turns.
//!
//! Ollama's tool calls have arguments as objects and often no ids, and a result
//! names the tool in place of the call. Other dialects need ids, so calls get
//! them here, and each result goes to the first call that it can belong to.

use nearfar_domain::chat::{Message, Part, Role, ToolCall};
use serde_json::Value;

use crate::http::fields::{Fields, kind};
use crate::http::problem::Problem;

/// Reads a conversation.
pub(super) fn messages(items: Vec<Value>) -> Result<Vec<Message>, Problem> {
    let mut open = Open::default();
    let items = items.into_iter().enumerate();
    items
        .map(|(index, value)| message(&format!("messages[{index}]"), value, &mut open))
        .collect()
}

/// Calls that no result belongs to yet.
#[derive(Default)]
struct Open {
    calls: Vec<(String, String)>,
    made: usize,
}

impl Open {
    fn call(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.unwrap_or_else(|| format!("call_{}", self.made));
        self.made += 1;
        self.calls.push((id.clone(), name.to_owned()));
        id
    }

    /// The call that a result belongs to: that of its id, else the first one of
    /// its tool, else the first one.
    fn answer(&mut self, id: Option<String>, tool: Option<&str>) -> Option<String> {
        let place = match (&id, tool) {
            (Some(id), _) => self.calls.iter().position(|call| call.0 == *id),
            (None, Some(tool)) => self.calls.iter().position(|call| call.1 == tool),
            (None, None) => (!self.calls.is_empty()).then_some(0),
        };
        let found = place.map(|place| self.calls.remove(place).0);
        found.or(id)
    }
}

fn message(path: &str, value: Value, open: &mut Open) -> Result<Message, Problem> {
    let mut fields = Fields::of(path, value)?;
    let role = match fields.required_string("role")?.as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => {
            return Err(Problem::field(
                fields.path_of("role"),
                "role must be system, user, assistant or tool.",
            ));
        }
    };
    let mut content = Vec::new();
    if let Some(text) = fields.string("content")?
        && !text.is_empty()
    {
        content.push(Part::Text(text));
    }
    content.extend(images(&mut fields)?);
    let mut tool_calls = Vec::new();
    for (index, call) in fields
        .array("tool_calls")?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let path = format!("{path}.tool_calls[{index}]");
        if role != Role::Assistant {
            return Err(Problem::field(
                path,
                "Only an assistant message has tool_calls.",
            ));
        }
        tool_calls.push(tool_call(&path, call, open)?);
    }
    if content.is_empty() && tool_calls.is_empty() {
        content.push(Part::Text(String::new()));
    }
    let tool = match fields.string("tool_name")? {
        Some(name) => Some(name),
        None => fields.string("name")?,
    };
    let mut tool_call_id = fields.string("tool_call_id")?;
    if role == Role::Tool {
        tool_call_id = open.answer(tool_call_id, tool.as_deref());
        if tool_call_id.is_none() && tool.is_none() {
            return Err(fields.missing("tool_name", "the name of the tool whose result this is"));
        }
    }
    Ok(Message {
        content,
        name: tool,
        reasoning: fields.string("thinking")?.filter(|text| !text.is_empty()),
        tool_calls,
        tool_call_id,
        ..Message::text(role, String::new())
    })
}

fn tool_call(path: &str, value: Value, open: &mut Open) -> Result<ToolCall, Problem> {
    let mut fields = Fields::of(path, value)?;
    let id = fields.string("id")?.filter(|id| !id.is_empty());
    let mut function = fields
        .object("function")?
        .ok_or_else(|| fields.missing("function", "an object with name and arguments"))?;
    let name = function.required_string("name")?;
    let arguments = match function.take("arguments") {
        None => "{}".to_owned(),
        // As OpenAI has them; some clients send them so.
        Some(Value::String(text)) => text,
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(other) => {
            let path = function.path_of("arguments");
            let message = format!("{path} must be an object, not {}.", kind(&other));
            return Err(Problem::field(path, message));
        }
    };
    Ok(ToolCall {
        id: open.call(id, &name),
        name,
        arguments,
        ..ToolCall::default()
    })
}

/// Takes `images`: base64 of a file each.
pub(super) fn images(fields: &mut Fields) -> Result<Vec<Part>, Problem> {
    let path = fields.path_of("images");
    let images = fields.array("images")?.unwrap_or_default();
    let images = images.into_iter().enumerate();
    images
        .map(|(index, value)| image(&format!("{path}[{index}]"), value))
        .collect()
}

fn image(path: &str, value: Value) -> Result<Part, Problem> {
    let wrong = || {
        Problem::field(
            path,
            format!("{path} must be a PNG, JPEG, GIF or WebP file in base64."),
        )
    };
    let Value::String(data) = value else {
        return Err(wrong());
    };
    let (kind, data) = match data.strip_prefix("data:image/") {
        Some(rest) => rest.split_once(";base64,").ok_or_else(wrong)?,
        None => (kind_of_image(&data).ok_or_else(wrong)?, data.as_str()),
    };
    let body = data.trim_end_matches('=');
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let known = matches!(kind, "png" | "jpeg" | "gif" | "webp");
    if !known || body.is_empty() || data.len() - body.len() > 2 || !body.bytes().all(is_base64) {
        return Err(wrong());
    }
    Ok(Part::Image {
        url: format!("data:image/{kind};base64,{data}"),
        detail: None,
    })
}

/// By what files of a kind begin with, in base64.
fn kind_of_image(data: &str) -> Option<&'static str> {
    let kinds = [
        ("iVBORw0KGgo", "png"),
        ("/9j/", "jpeg"),
        ("R0lGODdh", "gif"),
        ("R0lGODlh", "gif"),
        ("UklGR", "webp"),
    ];
    let found = kinds.iter().find(|(first, _)| data.starts_with(first));
    found.map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

    fn read(items: Value) -> Result<Vec<Message>, Problem> {
        let Value::Array(items) = items else {
            unreachable!()
        };
        messages(items)
    }

    fn param(items: Value) -> String {
        let problem = read(items).unwrap_err().openai_body();
        problem["error"]["param"].as_str().unwrap().to_owned()
    }

    #[test]
    fn turns_pictures_and_thoughts_are_read() {
        let turns = read(json!([
            {"role": "system", "content": "be short"},
            {"role": "user", "content": "what is it", "images": [PNG]},
            {"role": "assistant", "content": "a cat", "thinking": "hm"},
        ]))
        .unwrap();
        assert_eq!(turns[0].plain_text(), "be short");
        let url = match &turns[1].content[1] {
            Part::Image { url, .. } => url.as_str(),
            Part::Text(_) => "",
        };
        assert_eq!(url, format!("data:image/png;base64,{PNG}"));
        assert_eq!(turns[2].reasoning.as_deref(), Some("hm"));
    }

    #[test]
    fn calls_get_ids_and_results_find_their_call() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"a": 1}}});
        let turns = read(json!([
            {"role": "assistant", "content": "", "tool_calls": [call("f"), call("g"), call("f")]},
            {"role": "tool", "content": "1", "tool_name": "g"},
            {"role": "tool", "content": "2", "tool_name": "f"},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "tool_calls": [{"id": "mine", "function": {"name": "h"}}]},
            {"role": "tool", "content": "4", "tool_call_id": "mine"},
        ]))
        .unwrap();
        let ids: Vec<&str> = turns[0]
            .tool_calls
            .iter()
            .map(|call| call.id.as_str())
            .collect();
        assert_eq!(ids, ["call_0", "call_1", "call_2"]);
        assert_eq!(turns[0].tool_calls[0].arguments, r#"{"a":1}"#);
        assert!(turns[0].content.is_empty());
        let answered: Vec<_> = turns
            .iter()
            .filter_map(|turn| turn.tool_call_id.as_deref())
            .collect();
        assert_eq!(answered, ["call_1", "call_0", "call_2", "mine"]);
        assert_eq!(turns[4].tool_calls[0].arguments, "{}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (message, expected) in [
            (json!({"role": "owner", "content": "x"}), "messages[0].role"),
            (json!({"content": "x"}), "messages[0].role"),
            (
                json!({"role": "user", "content": [1]}),
                "messages[0].content",
            ),
            (
                json!({"role": "tool", "content": "x"}),
                "messages[0].tool_name",
            ),
            (
                json!({"role": "user", "tool_calls": [{}]}),
                "messages[0].tool_calls[0]",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{}]}),
                "messages[0].tool_calls[0].function",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 1}}]}),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (
                json!({"role": "user", "images": ["https://x.example/a.png"]}),
                "messages[0].images[0]",
            ),
            (
                json!({"role": "user", "images": ["iVBORw0KGgo not base64"]}),
                "messages[0].images[0]",
            ),
            (
                json!({"role": "user", "images": ["data:image/svg+xml;base64,PHN2Zz4="]}),
                "messages[0].images[0]",
            ),
            (
                json!({"role": "user", "images": [3]}),
                "messages[0].images[0]",
            ),
        ] {
            assert_eq!(param(json!([message])), expected, "{message}");
        }
    }
}
