//! OpenAI's request bodies, read into [`Chat`].
//!
//! Every error names the field and the mend. Fields that nearfar does not know
//! are kept and passed on to providers that speak the same dialect.

use nearfar_domain::chat::{Chat, Message, Part, Prompt, Role, Tool, ToolCall, ToolChoice};
use nearfar_domain::explain::Ability;
use serde_json::{Map, Value};

use super::form::form;
use super::forms::{Kind, OpenaiForm};
use super::params::params;
use super::signed;
use crate::http::asked::{Understood, needs};
use crate::http::fields::{Fields, kind};
use crate::http::problem::Problem;

/// The most messages and tools that one request may carry.
pub(crate) const MAX_MESSAGES: usize = 4096;
const MAX_TOOLS: usize = 256;

/// A request as it was meant.
pub struct OpenaiRequest {
    /// The model's name as the client wrote it.
    pub model: String,
    /// The content.
    pub chat: Chat,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// Whether the stream ends with a usage chunk.
    pub include_usage: bool,
    /// Whether raw text is answered before the answer (`/v1/completions`).
    pub echo: bool,
    /// Whether vectors are answered as base64 (`/v1/embeddings`).
    pub base64: bool,
    /// The body object `nearfar`.
    pub tags: Option<Map<String, Value>>,
}

impl OpenaiRequest {
    /// Abilities without which an answer would be wrong.
    pub fn needs(&self) -> Vec<Ability> {
        needs(&self.chat)
    }
}

impl From<OpenaiRequest> for Understood {
    fn from(request: OpenaiRequest) -> Self {
        let kind = match &request.chat.prompt {
            Prompt::Turns(_) => Kind::Chat,
            Prompt::Text(prompt) => Kind::Text {
                echo: request.echo.then(|| prompt.clone()),
            },
            Prompt::Inputs(_) => Kind::Vectors {
                base64: request.base64,
            },
        };
        let form = OpenaiForm {
            kind,
            include_usage: request.include_usage,
        };
        Self {
            model: request.model,
            chat: request.chat,
            stream: request.stream,
            tags: request.tags,
            form: Box::new(form),
        }
    }
}

/// Reads the body of `/v1/chat/completions`.
///
/// # Errors
/// Names the first field that is wrong.
pub fn chat_completion(body: &[u8]) -> Result<OpenaiRequest, Problem> {
    chat(Fields::read(body)?)
}

/// Reads the body of `/v1/route`: that of a chat completion, or one with a
/// `prompt` in place of `messages`, which stands for one user message.
///
/// # Errors
/// Names the first field that is wrong.
pub fn to_be_explained(body: &[u8]) -> Result<OpenaiRequest, Problem> {
    one_prompt(Fields::read(body)?)
}

fn one_prompt(mut fields: Fields) -> Result<OpenaiRequest, Problem> {
    if let Some(prompt) = fields.string("prompt")? {
        if fields.take("messages").is_some() {
            return Err(Problem::field(
                "prompt",
                "Send prompt or messages, not both.",
            ));
        }
        fields.put(
            "messages",
            serde_json::json!([{"role": "user", "content": prompt}]),
        );
    }
    chat(fields)
}

/// Reads the body of `/v1/prefill`: that of [`to_be_explained`], with `pin`.
///
/// # Errors
/// Names the first field that is wrong.
pub fn prefill(body: &[u8]) -> Result<(OpenaiRequest, bool), Problem> {
    let mut fields = Fields::read(body)?;
    let pin = fields.boolean("pin")?.unwrap_or(false);
    Ok((one_prompt(fields)?, pin))
}

fn chat(mut fields: Fields) -> Result<OpenaiRequest, Problem> {
    let model = fields.model()?;
    let messages = fields
        .array("messages")?
        .ok_or_else(|| fields.missing("messages", "an array of messages"))?;
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(Problem::field(
            "messages",
            format!("messages must hold 1 to {MAX_MESSAGES} messages."),
        ));
    }
    let messages = messages
        .into_iter()
        .enumerate()
        .map(|(index, value)| message(&format!("messages[{index}]"), value))
        .collect::<Result<Vec<_>, _>>()?;
    for old in ["functions", "function_call"] {
        // An answer that leaves them out would be wrong without a word.
        if fields.take(old).is_some() {
            return Err(Problem::field(
                old,
                format!("{old} is not supported. Send tools and tool_choice."),
            ));
        }
    }
    let tools = tools(&mut fields)?;
    let tool_choice = tool_choice(&mut fields, &tools)?;
    let response_format = form(&mut fields)?;
    let mut params = params(&mut fields)?;
    let wants_logprobs = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, 20)?;
    params.logprobs = match (wants_logprobs, top) {
        (true, top) => Some(top.unwrap_or(0) as u8),
        (false, None | Some(0)) => None,
        (false, Some(_)) => {
            return Err(Problem::field(
                "top_logprobs",
                "top_logprobs needs logprobs to be true.",
            ));
        }
    };
    finish(model, Prompt::Turns(messages), false, fields, |chat| {
        chat.tools = tools;
        chat.tool_choice = tool_choice;
        chat.response_format = response_format;
        chat.params = params;
    })
}

/// Reads the body of `/v1/completions`.
///
/// # Errors
/// Names the first field that is wrong.
pub fn completion(body: &[u8]) -> Result<OpenaiRequest, Problem> {
    let mut fields = Fields::read(body)?;
    let model = fields.model()?;
    let prompt = match fields.take("prompt") {
        None => return Err(fields.missing("prompt", "a string")),
        Some(Value::String(text)) => text,
        Some(Value::Array(items)) => match <[Value; 1]>::try_from(items) {
            Ok([Value::String(text)]) => text,
            _ => {
                return Err(Problem::field(
                    "prompt",
                    "prompt must be one string. Send several prompts as several requests, and \
                     text rather than token ids.",
                ));
            }
        },
        Some(other) => {
            return Err(Problem::field(
                "prompt",
                format!("prompt must be a string, not {}.", kind(&other)),
            ));
        }
    };
    if fields.take("suffix").is_some() {
        return Err(Problem::field(
            "suffix",
            "suffix is not supported. Leave it out and put all text into prompt.",
        ));
    }
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let response_format = form(&mut fields)?;
    let mut params = params(&mut fields)?;
    params.logprobs = fields.integer("logprobs", 0, 20)?.map(|n| n as u8);
    if params.max_tokens.is_none() {
        // OpenAI's own default for this endpoint.
        params.max_tokens = Some(16);
    }
    finish(model, Prompt::Text(prompt), echo, fields, |chat| {
        chat.response_format = response_format;
        chat.params = params;
    })
}

fn finish(
    model: String,
    prompt: Prompt,
    echo: bool,
    mut fields: Fields,
    fill: impl FnOnce(&mut Chat),
) -> Result<OpenaiRequest, Problem> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let mut include_usage = false;
    if let Some(mut options) = fields.object("stream_options")? {
        include_usage = options.boolean("include_usage")?.unwrap_or(false);
    }
    for only_one in ["n", "best_of"] {
        if fields.integer(only_one, 1, 128)?.is_some_and(|n| n > 1) {
            return Err(Problem::field(
                only_one,
                format!("{only_one} must be 1. Send several requests for several answers."),
            ));
        }
    }
    let tags = fields.object("nearfar")?.map(Fields::rest);
    let mut chat = Chat::turns(Vec::new());
    chat.prompt = prompt;
    fill(&mut chat);
    let rest = fields.rest();
    if !rest.is_empty() {
        chat.passthrough = Value::Object(rest).to_string();
    }
    Ok(OpenaiRequest {
        model,
        chat,
        stream,
        include_usage,
        echo,
        base64: false,
        tags,
    })
}

fn message(path: &str, value: Value) -> Result<Message, Problem> {
    let mut fields = Fields::of(path, value)?;
    let role = fields.required_string("role")?;
    let role = match role.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        // `function` is the name that OpenAI used before tools.
        "tool" | "function" => Role::Tool,
        _ => {
            return Err(Problem::field(
                fields.path_of("role"),
                "role must be system, developer, user, assistant or tool.",
            ));
        }
    };
    let content = text_or_parts(&mut fields, "content", part)?.unwrap_or_default();
    let tool_calls = match fields.array("tool_calls")? {
        None => Vec::new(),
        Some(_) if role != Role::Assistant => {
            return Err(Problem::field(
                fields.path_of("tool_calls"),
                "Only an assistant message has tool_calls.",
            ));
        }
        Some(calls) => calls
            .into_iter()
            .enumerate()
            .map(|(index, call)| tool_call(&format!("{path}.tool_calls[{index}]"), call))
            .collect::<Result<_, _>>()?,
    };
    if content.is_empty() && tool_calls.is_empty() && role != Role::Assistant {
        return Err(fields.missing("content", "a string or an array of parts"));
    }
    let name = fields.string("name")?;
    let reasoning = fields
        .string("reasoning_content")?
        .or(fields.string("reasoning")?);
    let tool_call_id = fields.string("tool_call_id")?;
    if role == Role::Tool && tool_call_id.is_none() && name.is_none() {
        return Err(fields.missing("tool_call_id", "the id of the call that this answers"));
    }
    let mut message = Message {
        content,
        name,
        reasoning,
        tool_calls,
        tool_call_id,
        ..Message::text(role, "")
    };
    if role == Role::Assistant {
        signed::read(&mut fields, &mut message)?;
    }
    Ok(message)
}

/// Takes a field that is text or an array of what `part` reads.
pub(crate) fn text_or_parts(
    fields: &mut Fields,
    name: &str,
    part: fn(&str, Value) -> Result<Part, Problem>,
) -> Result<Option<Vec<Part>>, Problem> {
    let path = fields.path_of(name);
    match fields.take(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![Part::Text(text)])),
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            parts
                .map(|(index, value)| part(&format!("{path}[{index}]"), value))
                .collect::<Result<_, _>>()
                .map(Some)
        }
        Some(other) => Err(Problem::field(
            &path,
            format!(
                "{path} must be a string or an array of parts, not {}.",
                kind(&other)
            ),
        )),
    }
}

fn part(path: &str, value: Value) -> Result<Part, Problem> {
    let mut fields = Fields::of(path, value)?;
    let kind = fields.required_string("type")?;
    match kind.as_str() {
        "text" | "input_text" => Ok(Part::Text(fields.required_string("text")?)),
        "refusal" => Ok(Part::Text(fields.required_string("refusal")?)),
        "image_url" => {
            let mut image = fields
                .object("image_url")?
                .ok_or_else(|| fields.missing("image_url", "an object with a url"))?;
            Ok(Part::Image {
                url: image.required_string("url")?,
                detail: image.string("detail")?,
            })
        }
        _ => Err(Problem::field(
            fields.path_of("type"),
            "The part's type must be text or image_url.",
        )),
    }
}

fn tool_call(path: &str, value: Value) -> Result<ToolCall, Problem> {
    let mut fields = Fields::of(path, value)?;
    let id = fields.required_string("id")?;
    let mut function = fields
        .object("function")?
        .ok_or_else(|| fields.missing("function", "an object with name and arguments"))?;
    Ok(ToolCall {
        id,
        name: function.required_string("name")?,
        arguments: function
            .string("arguments")?
            .unwrap_or_else(|| "{}".to_owned()),
        signature: signed::of_call(&mut fields)?,
    })
}

pub(crate) fn tools(fields: &mut Fields) -> Result<Vec<Tool>, Problem> {
    let Some(items) = fields.array("tools")? else {
        return Ok(Vec::new());
    };
    if items.len() > MAX_TOOLS {
        return Err(Problem::field(
            "tools",
            format!("tools may hold at most {MAX_TOOLS} tools."),
        ));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let mut tool = Fields::of(&format!("tools[{index}]"), value)?;
            let kind = tool.string("type")?;
            if kind.as_deref().unwrap_or("function") != "function" {
                return Err(Problem::field(
                    tool.path_of("type"),
                    "The tool's type must be function.",
                ));
            }
            let function = tool
                .object("function")?
                .ok_or_else(|| tool.missing("function", "an object with a name"))?;
            function_tool(function)
        })
        .collect()
}

/// A function with its name, description and schema, as chat completions and
/// responses spell it.
pub(crate) fn function_tool(mut function: Fields) -> Result<Tool, Problem> {
    Ok(Tool {
        name: function.function_name(64)?,
        description: function.string("description")?,
        parameters: function
            .object("parameters")?
            .map(|schema| Value::Object(schema.rest()).to_string()),
        strict: function.boolean("strict")?,
    })
}

fn tool_choice(fields: &mut Fields, tools: &[Tool]) -> Result<ToolChoice, Problem> {
    let wrong = || {
        Problem::field(
            "tool_choice",
            "tool_choice must be none, auto, required, or \
             {\"type\":\"function\",\"function\":{\"name\":…}} with the name of one of the tools.",
        )
    };
    let choice = match fields.take("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return Err(wrong()),
        },
        Some(value) => {
            let mut object = Fields::of("tool_choice", value)?;
            let name = object
                .object("function")?
                .map(|mut f| f.required_string("name"))
                .ok_or_else(wrong)??;
            ToolChoice::Named(name)
        }
    };
    match &choice {
        ToolChoice::Named(name) if !tools.iter().any(|t| t.name == *name) => Err(wrong()),
        ToolChoice::Required if tools.is_empty() => Err(Problem::field(
            "tool_choice",
            "tool_choice is required, but there are no tools.",
        )),
        _ => Ok(choice),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
