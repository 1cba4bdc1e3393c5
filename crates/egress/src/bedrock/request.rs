//! A [`Chat`] as a Converse request body.

use nearfar_domain::chat::{Chat, Params, Prompt, ResponseFormat, ToolChoice};
use serde_json::{Map, Value, json};

use super::turns::{cache_point, turns};
use crate::anthropic::{close, thinking_budget};
use crate::codec::{Encoded, Unsupported};
use crate::object::Object;

/// Room for the answer beside a budget to think.
const ANSWER_TOKENS: u32 = 4_096;
/// The least that a model may think.
const MIN_BUDGET: u32 = 1_024;

/// Writes a request. `seed`, penalties and `logit_bias` have no place here and
/// are left out; so are fields of other dialects.
///
/// # Errors
/// [`Unsupported`] for what an answer would be wrong without: raw text, forms
/// other than a schema, log-probabilities, pictures elsewhere.
pub fn encode(chat: &Chat, model: &str, stream: bool) -> Result<Encoded, Unsupported> {
    let Prompt::Turns(messages) = &chat.prompt else {
        return Err(Unsupported::new(
            "prompt",
            "Bedrock's Converse holds conversations; use /v1/chat/completions",
        ));
    };
    if chat.params.logprobs.is_some() {
        return Err(Unsupported::new(
            "logprobs",
            "Bedrock reports no log-probabilities; leave the field out",
        ));
    }
    let turns = turns(messages)?;
    let mut body = Object::default();
    body.set("messages", &turns.messages);
    if !turns.system.is_empty() {
        body.set("system", &turns.system);
    }
    set_tools(&mut body, chat, &turns.called)?;
    set_format(&mut body, &chat.response_format)?;
    set_params(&mut body, chat, model);
    let path = if stream {
        "/model/{model}/converse-stream"
    } else {
        "/model/{model}/converse"
    };
    Ok(Encoded {
        path,
        headers: &[],
        body: body.into_bytes(),
    })
}

fn set_tools(body: &mut Object, chat: &Chat, called: &[String]) -> Result<(), Unsupported> {
    let mut tools = Vec::new();
    for (at, tool) in chat.tools.iter().enumerate() {
        let schema = match &tool.parameters {
            None => json!({"type": "object", "properties": {}}),
            Some(text) => serde_json::from_str(text).map_err(|_| {
                Unsupported::new("tools", "a tool's parameters are not JSON; send an object")
            })?,
        };
        let mut spec = json!({"name": tool.name, "inputSchema": {"json": schema}});
        if let Some(description) = tool.description.as_ref().filter(|text| !text.is_empty()) {
            spec["description"] = json!(description);
        }
        tools.push(json!({ "toolSpec": spec }));
        let mark = chat
            .tool_cache_marks
            .iter()
            .find(|m| m.after as usize == at + 1);
        tools.extend(mark.map(|mark| cache_point(mark.long)));
    }
    // Calls in the conversation need their tools declared, offered or not.
    for name in called {
        if !chat.tools.iter().any(|tool| &tool.name == name) {
            let spec = json!({"name": name, "inputSchema": {"json": {"type": "object"}}});
            tools.push(json!({ "toolSpec": spec }));
        }
    }
    let none = chat.tool_choice == ToolChoice::None;
    // There is no word for "no call": the tools are not offered.
    if tools.is_empty() || (none && called.is_empty()) {
        return Ok(());
    }
    let mut config = json!({ "tools": tools });
    match &chat.tool_choice {
        ToolChoice::Auto | ToolChoice::None => {}
        ToolChoice::Required => config["toolChoice"] = json!({"any": {}}),
        ToolChoice::Named(name) => config["toolChoice"] = json!({"tool": {"name": name}}),
    }
    body.set("toolConfig", &config);
    Ok(())
}

fn set_format(body: &mut Object, format: &ResponseFormat) -> Result<(), Unsupported> {
    let (name, schema) = match format {
        ResponseFormat::Text => return Ok(()),
        ResponseFormat::JsonSchema { name, schema, .. } => (name, schema),
        _ => {
            return Err(Unsupported::new(
                "response_format",
                "Bedrock's one form of answers is a json_schema; send one, or use another model",
            ));
        }
    };
    let mut schema: Value = serde_json::from_str(schema).map_err(|_| {
        Unsupported::new("response_format", "the schema is not JSON; send an object")
    })?;
    close(&mut schema);
    let schema = json!({"name": name, "schema": schema.to_string()});
    body.set(
        "outputConfig",
        &json!({"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}),
    );
    Ok(())
}

fn set_params(body: &mut Object, chat: &Chat, model: &str) {
    let params = &chat.params;
    let mut config = Map::new();
    let mut more = Map::new();
    let budget = thinking_budget(chat, model).filter(|budget| {
        params.max_tokens.is_none_or(|limit| limit > MIN_BUDGET) && *budget >= MIN_BUDGET
    });
    if let Some(budget) = budget {
        let limit = params
            .max_tokens
            .unwrap_or(budget.saturating_add(ANSWER_TOKENS));
        config.insert("maxTokens".to_owned(), json!(limit));
        let budget = budget.min(limit - 1);
        more.insert(
            "thinking".to_owned(),
            json!({"type": "enabled", "budget_tokens": budget}),
        );
    } else {
        if let Some(limit) = params.max_tokens {
            config.insert("maxTokens".to_owned(), json!(limit.max(1)));
        }
        set_sampling(&mut config, &mut more, params, model);
    }
    let stop: Vec<&String> = params
        .stop
        .iter()
        .filter(|s| !s.trim().is_empty())
        .collect();
    if !stop.is_empty() {
        config.insert("stopSequences".to_owned(), json!(stop));
    }
    if !config.is_empty() {
        body.set("inferenceConfig", &config);
    }
    if !more.is_empty() {
        body.set("additionalModelRequestFields", &more);
    }
}

/// Thinking goes with the default sampling alone, so this is without it.
fn set_sampling(
    config: &mut Map<String, Value>,
    more: &mut Map<String, Value>,
    params: &Params,
    model: &str,
) {
    // Through text, so that 0.7 stays 0.7.
    let number = |value: f32| {
        json!(
            value
                .clamp(0.0, 1.0)
                .to_string()
                .parse::<f64>()
                .unwrap_or(1.0)
        )
    };
    let claude = model.contains("anthropic");
    match (params.temperature, params.top_p) {
        (Some(temperature), top_p) => {
            config.insert("temperature".to_owned(), number(temperature));
            // Claude's newer models refuse both together.
            if let Some(top_p) = top_p.filter(|_| !claude) {
                config.insert("topP".to_owned(), number(top_p));
            }
        }
        (None, Some(top_p)) => {
            config.insert("topP".to_owned(), number(top_p));
        }
        (None, None) => {}
    }
    if let Some(top_k) = params.top_k.filter(|k| *k > 0 && claude) {
        more.insert("top_k".to_owned(), json!(top_k));
    }
}
