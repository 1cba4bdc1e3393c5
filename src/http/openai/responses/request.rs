//! The body of `POST /v1/responses`.
//!
//! Every error names the field and the mend. What is sent on to a provider of
//! OpenAI's dialect beside the content is what its chat completions know, too.

use nearfar_domain::chat::{Chat, Prompt, ResponseFormat};
use serde_json::{Map, Value, json};

use super::items::{self, Turns};
use super::object::Echo;
use super::tools;
use crate::conversations::Turn;
use crate::http::fields::Fields;
use crate::http::openai::params::params;
use crate::http::problem::Problem;

/// The largest token limit that makes sense to anyone.
const MAX_TOKENS: i64 = 1 << 24;
/// The longest id of a response, in bytes.
const MAX_ID_BYTES: usize = 128;
const MAX_METADATA: usize = 16;

/// A request as it was meant, before what it goes on from is known.
pub(super) struct Request {
    pub(super) model: String,
    pub(super) stream: bool,
    /// Whether the answer is to be kept.
    pub(super) store: bool,
    /// The response that it goes on from.
    pub(super) previous: Option<String>,
    /// The items that were sent.
    pub(super) input: Vec<Value>,
    /// The body object `nearfar`.
    pub(super) tags: Option<Map<String, Value>>,
    pub(super) echo: Echo,
    instructions: Option<String>,
    chat: Chat,
}

impl Request {
    /// The content: instructions, what was said before, what was sent.
    ///
    /// # Errors
    /// Names the first item that is wrong.
    pub(super) fn chat(&mut self, before: &[std::sync::Arc<Turn>]) -> Result<Chat, Problem> {
        let mut turns = Turns::default();
        if let Some(text) = self.instructions.take() {
            turns.instruct(text);
        }
        for item in before.iter().flat_map(|turn| said(turn)) {
            // Was checked when it first came.
            turns.add("previous_response_id", item)?;
        }
        for (index, item) in self.input.iter().enumerate() {
            turns.add(&format!("input[{index}]"), item.clone())?;
        }
        let turns = turns.finish();
        if turns.is_empty() {
            return Err(Problem::field(
                "input",
                "input is missing. It must be a string or an array of items.",
            ));
        }
        let mut chat = std::mem::replace(&mut self.chat, Chat::turns(Vec::new()));
        chat.prompt = Prompt::Turns(turns);
        Ok(chat)
    }
}

/// The items of a kept turn: what was asked, then what was answered.
pub(super) fn said(turn: &Turn) -> Vec<Value> {
    let mut items: Vec<Value> = serde_json::from_str(&turn.input).unwrap_or_default();
    let response: Value = serde_json::from_str(&turn.response).unwrap_or_default();
    if let Value::Array(output) = &response["output"] {
        items.extend(output.iter().cloned());
    }
    items
}

/// Reads the body.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn read(body: &[u8]) -> Result<Request, Problem> {
    let mut fields = Fields::read(body)?;
    refuse(&mut fields)?;
    let model = fields.model()?;
    let input = items::input(&mut fields)?;
    let instructions = fields.string("instructions")?;
    let previous = previous(&mut fields)?;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    fields.take("stream_options");
    let store = fields.boolean("store")?.unwrap_or(true);
    let shown_tools = fields.array("tools")?.unwrap_or_default();
    let mut tools = tools::tools(&shown_tools)?;
    let shown_choice = fields.take("tool_choice");
    let tool_choice = tools::choice(shown_choice.clone(), &mut tools)?;
    let (response_format, text) = text(&mut fields)?;
    let metadata = metadata(&mut fields)?;
    let mut echo = Echo {
        instructions: json!(instructions),
        metadata,
        previous_response_id: json!(previous),
        text,
        tool_choice: shown_choice.unwrap_or_else(|| json!("auto")),
        tools: Value::Array(shown_tools),
        ..Echo::default()
    };
    let mut params = params(&mut fields)?;
    let most = fields.integer("max_output_tokens", 1, MAX_TOKENS)?;
    params.max_tokens = most.map(|n| n as u32).or(params.max_tokens);
    let wants_logprobs = include(&mut fields)?;
    let top = fields.integer("top_logprobs", 0, 20)?.unwrap_or(0);
    params.logprobs = (wants_logprobs || top > 0).then_some(top as u8);
    let mut reasoning = json!({"effort": null, "summary": null});
    // There is no summary: what may be seen of reasoning is shown itself.
    if let Some(mut asked) = fields.object("reasoning")?
        && let Some(effort) = effort(&mut asked)?
    {
        reasoning["effort"] = json!(effort);
        if effort == "none" {
            params.enable_thinking = Some(false);
        }
        params.reasoning_effort = Some(effort);
    }
    echo.reasoning = reasoning;
    echo.max_output_tokens = json!(params.max_tokens);
    echo.parallel_tool_calls = json!(params.parallel_tool_calls.unwrap_or(true));
    echo.temperature = shown(params.temperature);
    echo.top_p = shown(params.top_p);
    echo.top_logprobs = json!(top);
    let tags = fields.object("nearfar")?.map(Fields::rest);
    let mut rest = fields.rest();
    let repeated = |name: &str| rest.get(name).cloned().unwrap_or_default();
    echo.user = repeated("user");
    echo.prompt_cache_key = repeated("prompt_cache_key");
    echo.safety_identifier = repeated("safety_identifier");
    for unlike in [
        "truncation",
        "max_tool_calls",
        "context_management",
        "moderation",
    ] {
        rest.shift_remove(unlike);
    }
    if let Some(verbosity) = echo.text.get("verbosity") {
        // Chat completions have it at the top.
        rest.insert("verbosity".to_owned(), verbosity.clone());
    }
    let mut chat = Chat::turns(Vec::new());
    chat.tools = tools;
    chat.tool_choice = tool_choice;
    chat.response_format = response_format;
    chat.params = params;
    if !rest.is_empty() {
        chat.passthrough = Value::Object(rest).to_string();
    }
    Ok(Request {
        model,
        stream,
        store,
        previous,
        input,
        tags,
        echo,
        instructions,
        chat,
    })
}

/// What OpenAI keeps or runs on its own servers.
fn refuse(fields: &mut Fields) -> Result<(), Problem> {
    if fields.boolean("background")?.unwrap_or(false) {
        return Err(Problem::field(
            "background",
            "Answers are not made in the background. Ask for a stream and keep it open.",
        ));
    }
    for (name, mend) in [
        (
            "conversation",
            "Name the last response as previous_response_id, or send all items as input.",
        ),
        (
            "prompt",
            "Send the prompt's text as instructions and input.",
        ),
    ] {
        if fields.take(name).is_some() {
            let message = format!("{name} lives at OpenAI, not here. {mend}");
            return Err(Problem::field(name, message));
        }
    }
    let truncation = fields.string("truncation")?;
    if truncation.is_some_and(|word| word != "auto" && word != "disabled") {
        return Err(Problem::field(
            "truncation",
            "truncation must be auto or disabled.",
        ));
    }
    Ok(())
}

fn previous(fields: &mut Fields) -> Result<Option<String>, Problem> {
    match fields.string("previous_response_id")? {
        Some(id) if id.is_empty() || id.len() > MAX_ID_BYTES => Err(Problem::field(
            "previous_response_id",
            format!(
                "previous_response_id must be the id of a response, 1 to {MAX_ID_BYTES} bytes."
            ),
        )),
        id => Ok(id),
    }
}

/// Takes `text`: the answer's form, and `text` as it is shown again.
fn text(fields: &mut Fields) -> Result<(ResponseFormat, Value), Problem> {
    let mut shown = json!({"format": {"type": "text"}});
    let Some(mut text) = fields.object("text")? else {
        return Ok((ResponseFormat::Text, shown));
    };
    if let Some(verbosity) = text.string("verbosity")? {
        if !matches!(verbosity.as_str(), "low" | "medium" | "high") {
            let path = text.path_of("verbosity");
            return Err(Problem::field(
                path,
                "verbosity must be low, medium or high.",
            ));
        }
        shown["verbosity"] = json!(verbosity);
    }
    let Some(value) = text.take("format") else {
        return Ok((ResponseFormat::Text, shown));
    };
    shown["format"] = value.clone();
    let mut format = Fields::of("text.format", value)?;
    let read = match format.required_string("type")?.as_str() {
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        "json_schema" => {
            let schema = format
                .object("schema")?
                .ok_or_else(|| format.missing("schema", "a JSON Schema"))?;
            ResponseFormat::JsonSchema {
                name: format
                    .string("name")?
                    .unwrap_or_else(|| "answer".to_owned()),
                schema: Value::Object(schema.rest()).to_string(),
                strict: format.boolean("strict")?,
            }
        }
        _ => {
            return Err(Problem::field(
                "text.format.type",
                "text.format.type must be text, json_object or json_schema.",
            ));
        }
    };
    Ok((read, shown))
}

/// Takes `include` and tells whether log-probabilities are wanted. Encrypted
/// reasoning is there wherever there is some; the rest belongs to tools that
/// nearfar does not have.
fn include(fields: &mut Fields) -> Result<bool, Problem> {
    let wanted = fields.array("include")?.unwrap_or_default();
    Ok(wanted
        .iter()
        .any(|name| name == "message.output_text.logprobs"))
}

fn effort(reasoning: &mut Fields) -> Result<Option<String>, Problem> {
    const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    match reasoning.string("effort")? {
        Some(word) if !EFFORTS.contains(&word.as_str()) => Err(Problem::field(
            "reasoning.effort",
            format!("reasoning.effort must be one of {}.", EFFORTS.join(", ")),
        )),
        word => Ok(word),
    }
}

fn metadata(fields: &mut Fields) -> Result<Value, Problem> {
    let Some(pairs) = fields.object("metadata")? else {
        return Ok(json!({}));
    };
    let pairs = pairs.rest();
    let short = |(name, value): (&String, &Value)| {
        name.len() <= 64
            && value
                .as_str()
                .is_some_and(|text| text.chars().count() <= 512)
    };
    if pairs.len() > MAX_METADATA || !pairs.iter().all(short) {
        return Err(Problem::field(
            "metadata",
            format!(
                "metadata may hold at most {MAX_METADATA} texts of at most 512 characters, with \
                 names of at most 64."
            ),
        ));
    }
    Ok(Value::Object(pairs))
}

/// By way of its shortest text, or 0.1 would become 0.10000000149.
fn shown(number: Option<f32>) -> Value {
    number.map_or(Value::Null, |x| {
        json!(x.to_string().parse::<f64>().unwrap_or(f64::from(x)))
    })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
