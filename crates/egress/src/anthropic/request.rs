//! A [`Chat`] as an Anthropic request body.

use nearfar_domain::chat::{Chat, Message, Params, Prompt, ResponseFormat, Role, Tool, ToolChoice};
use nearfar_domain::thought::Origin;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::turns::{Cache, turns};
use crate::codec::{Encoded, Unsupported};
use crate::object::{Object, raw};

/// Anthropic wants a limit; this one is below that of every model it serves.
const DEFAULT_MAX_TOKENS: u32 = 4_096;
/// The least that a model may think.
const MIN_BUDGET: u32 = 1_024;

/// Fields that a [`Chat`] holds itself.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "tools",
    "tool_choice",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "nearfar",
];

const HEADERS: &[(&str, &str)] = &[("anthropic-version", "2023-06-01")];

/// Writes a message request. `seed`, penalties and `logit_bias` have no place
/// here and are left out; so are fields of other dialects. Anthropic's own pass through.
///
/// # Errors
/// [`Unsupported`] for what an answer would be wrong without: raw text, forms
/// other than a schema, log-probabilities.
pub fn encode(chat: &Chat, model: &str, stream: bool) -> Result<Encoded, Unsupported> {
    let Prompt::Turns(messages) = &chat.prompt else {
        return Err(Unsupported::new(
            "prompt",
            "Anthropic's models do not continue raw text; use /v1/chat/completions",
        ));
    };
    if chat.params.logprobs.is_some() {
        return Err(Unsupported::new(
            "logprobs",
            "Anthropic's models report no log-probabilities; leave the field out",
        ));
    }
    let turns = turns(messages)?;
    let mut body = Object::default();
    body.set("model", model);
    if !turns.system.is_empty() {
        body.set("system", &turns.system);
    }
    body.set("messages", &turns.messages);
    set_tools(&mut body, chat)?;
    set_format(&mut body, chat)?;
    set_params(&mut body, chat, model);
    body.set("stream", &stream);
    body.merge(chat.passthrough_for(Origin::Anthropic), KNOWN)
        .map_err(|_| Unsupported::new("body", "the unknown fields are not a JSON object"))?;
    Ok(Encoded {
        path: "/v1/messages",
        headers: HEADERS,
        body: body.into_bytes(),
    })
}

/// A schema has a place in Anthropic's API, other forms have none.
fn set_format(body: &mut Object, chat: &Chat) -> Result<(), Unsupported> {
    let schema = match &chat.response_format {
        ResponseFormat::Text => return Ok(()),
        ResponseFormat::JsonSchema { schema, .. } => schema,
        ResponseFormat::JsonObject => {
            return Err(Unsupported::new(
                "response_format",
                "Anthropic's models have no JSON mode without a schema; send a json_schema, or use another model",
            ));
        }
        ResponseFormat::Regex(_) | ResponseFormat::Choice(_) | ResponseFormat::Grammar(_) => {
            return Err(Unsupported::new(
                "response_format",
                "Anthropic's models follow no grammars; send a json_schema, or use another model",
            ));
        }
    };
    let mut schema: Value = serde_json::from_str(schema).map_err(|_| {
        Unsupported::new("response_format", "the schema is not JSON; send an object")
    })?;
    close(&mut schema);
    // What else a client of this dialect says there goes with it.
    let mut config = own_config(chat);
    let format = json!({ "type": "json_schema", "schema": schema });
    config.insert("format".to_owned(), format);
    body.set("output_config", &config);
    Ok(())
}

/// The `output_config` of a client that speaks this dialect.
fn own_config(chat: &Chat) -> Map<String, Value> {
    let own = chat.passthrough_for(Origin::Anthropic);
    let own: Value = serde_json::from_str(own).unwrap_or_default();
    match own.get("output_config") {
        Some(Value::Object(config)) => config.clone(),
        _ => Map::new(),
    }
}

/// Anthropic wants objects that allow nothing but their named properties. Where
/// the client left that open, a narrower answer fits its schema as well.
pub(crate) fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let object = map.get("type").is_some_and(|name| name == "object");
            if object && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            for (key, value) in map.iter_mut() {
                // Values, not schemas.
                if !matches!(key.as_str(), "const" | "enum" | "default" | "examples") {
                    close(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn set_params(body: &mut Object, chat: &Chat, model: &str) {
    let params = &chat.params;
    let max_tokens = params.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).max(1);
    if let Some(budget) = thinking_budget(chat, model) {
        // The budget counts against the limit, which the client meant for the
        // whole answer; a limit that leaves no room to think wins.
        let limit = match params.max_tokens {
            Some(limit) => limit,
            None => budget + DEFAULT_MAX_TOKENS,
        };
        if limit > MIN_BUDGET {
            body.set("max_tokens", &limit);
            let budget = budget.min(limit - 1);
            body.set(
                "thinking",
                &json!({ "type": "enabled", "budget_tokens": budget }),
            );
            // Thinking goes with the default temperature alone.
            set_stop(body, params);
            return;
        }
    }
    body.set("max_tokens", &max_tokens);
    match (params.temperature, params.top_p) {
        // Newer models refuse both together.
        (Some(temperature), _) => body.set("temperature", &temperature.clamp(0.0, 1.0)),
        (None, Some(top_p)) => body.set("top_p", &top_p.clamp(0.0, 1.0)),
        (None, None) => {}
    }
    if let Some(top_k) = params.top_k.filter(|k| *k > 0) {
        body.set("top_k", &top_k);
    }
    set_stop(body, params);
}

fn set_stop(body: &mut Object, params: &Params) {
    // Anthropic refuses stop strings of white space.
    let stop: Vec<&String> = params
        .stop
        .iter()
        .filter(|stop| !stop.trim().is_empty())
        .collect();
    if !stop.is_empty() {
        body.set("stop_sequences", &stop);
    }
}

/// Tokens to think with, where the client asked for thinking and the model can.
/// A forced tool forbids it; so does a turn under way whose thinking (and its
/// signature) the client's dialect could not give back.
pub(crate) fn thinking_budget(chat: &Chat, model: &str) -> Option<u32> {
    let params = &chat.params;
    let can = ["claude-3-7", "-4-", "opus-4", "sonnet-4", "haiku-4"]
        .iter()
        .any(|part| model.contains(part));
    let forced = matches!(
        chat.tool_choice,
        ToolChoice::Required | ToolChoice::Named(_)
    );
    let in_a_call = match &chat.prompt {
        Prompt::Turns(messages) => messages
            .iter()
            .rev()
            .take_while(|message| message.role != Role::User)
            .any(|message| !message.tool_calls.is_empty() && !begins_with_a_thought(message)),
        Prompt::Text(_) | Prompt::Inputs(_) => false,
    };
    if !can || forced || in_a_call || params.enable_thinking == Some(false) {
        return None;
    }
    if let Some(tokens) = params.thinking_tokens {
        return Some(tokens.max(MIN_BUDGET));
    }
    // In Anthropic's own words an effort is no wish to think.
    let effort = params.reasoning_effort.as_deref();
    match effort.filter(|_| !own_config(chat).contains_key("effort")) {
        Some("none" | "minimal") => None,
        Some("low") => Some(2_048),
        Some("medium") => Some(8_192),
        Some(_) => Some(16_384),
        None => (params.enable_thinking == Some(true)).then_some(4_096),
    }
}

/// Whether the turn has what Anthropic wants to see of its thinking.
fn begins_with_a_thought(message: &Message) -> bool {
    let signed = |signature: &nearfar_domain::thought::Signature| {
        signature.data_for(Origin::Anthropic).is_some()
    };
    message
        .thoughts
        .iter()
        .any(|thought| thought.after == 0 && thought.signature.as_ref().is_some_and(signed))
}

fn set_tools(body: &mut Object, chat: &Chat) -> Result<(), Unsupported> {
    if chat.tools.is_empty() {
        return Ok(());
    }
    let tools: Vec<WireTool<'_>> = chat
        .tools
        .iter()
        .enumerate()
        .map(|(at, described)| {
            let mark = chat
                .tool_cache_marks
                .iter()
                .find(|m| m.after as usize == at + 1);
            tool(described, mark.map(|mark| Cache::of(*mark)))
        })
        .collect::<Result<_, _>>()?;
    body.set("tools", &tools);
    let one = chat.params.parallel_tool_calls == Some(false);
    let choice = match &chat.tool_choice {
        ToolChoice::Auto if !one => return Ok(()),
        ToolChoice::Auto => WireChoice::of("auto"),
        ToolChoice::None => WireChoice::of("none"),
        ToolChoice::Required => WireChoice::of("any"),
        ToolChoice::Named(name) => WireChoice {
            name: Some(name),
            ..WireChoice::of("tool")
        },
    };
    let none = chat.tool_choice == ToolChoice::None;
    body.set(
        "tool_choice",
        &WireChoice {
            disable_parallel_tool_use: (one && !none).then_some(true),
            ..choice
        },
    );
    Ok(())
}

fn tool(tool: &Tool, cache_control: Option<Cache>) -> Result<WireTool<'_>, Unsupported> {
    let schema = tool
        .parameters
        .as_deref()
        .unwrap_or(r#"{"type":"object","properties":{}}"#);
    let input_schema = raw(schema).ok_or_else(|| {
        Unsupported::new("tools", "a tool's parameters are not JSON; send an object")
    })?;
    Ok(WireTool {
        name: &tool.name,
        description: tool.description.as_deref(),
        input_schema,
        cache_control,
    })
}

#[derive(Serialize)]
struct WireTool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<Cache>,
}

#[derive(Serialize)]
struct WireChoice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

impl WireChoice<'_> {
    fn of(r#type: &'static str) -> Self {
        Self {
            r#type,
            name: None,
            disable_parallel_tool_use: None,
        }
    }
}
