//! A [`Chat`] as a Gemini request body.

use nearfar_domain::chat::{Chat, Params, Prompt, ResponseFormat, Tool, ToolChoice};
use nearfar_domain::thought::Origin;
use serde_json::{Map, Value, json};

use super::schema::clean;
use super::turns::{Wants, turns};
use crate::codec::{Encoded, Unsupported};
use crate::object::Object;

/// Fields that a [`Chat`] holds itself.
const KNOWN: &[&str] = &[
    "contents",
    "systemInstruction",
    "system_instruction",
    "tools",
    "toolConfig",
    "tool_config",
    "generationConfig",
    "generation_config",
    "model",
];

/// A longer schema is no schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// Writes a request. Penalties, seeds and log-probabilities have their place;
/// `min_p`, `logit_bias` and `parallel_tool_calls` have none and are left out.
/// `vertex`: the service is Vertex AI.
///
/// # Errors
/// [`Unsupported`] for what an answer would be wrong without: raw text,
/// grammars, vectors.
pub fn encode(
    chat: &Chat,
    model: &str,
    stream: bool,
    vertex: bool,
) -> Result<Encoded, Unsupported> {
    let Prompt::Turns(messages) = &chat.prompt else {
        return Err(Unsupported::new(
            "prompt",
            "Gemini's models are reached by conversations here; use /v1/chat/completions",
        ));
    };
    let newest = model.contains("gemini-3");
    let wants = Wants {
        signatures: newest,
        ids: !vertex,
    };
    let turns = turns(messages, wants)?;
    let mut body = Object::default();
    if !turns.system.is_empty() {
        body.set("systemInstruction", &json!({ "parts": turns.system }));
    }
    body.set("contents", &turns.contents);
    set_tools(&mut body, chat)?;
    let mut config = Map::new();
    set_format(&mut config, chat, newest)?;
    set_params(&mut config, &chat.params, model);
    if !config.is_empty() {
        body.set("generationConfig", &config);
    }
    body.merge(chat.passthrough_for(Origin::Gemini), KNOWN)
        .map_err(|_| Unsupported::new("body", "the unknown fields are not a JSON object"))?;
    let path = if stream {
        "/models/{model}:streamGenerateContent?alt=sse"
    } else {
        "/models/{model}:generateContent"
    };
    Ok(Encoded {
        path,
        headers: &[],
        body: body.into_bytes(),
    })
}

fn set_tools(body: &mut Object, chat: &Chat) -> Result<(), Unsupported> {
    if chat.tools.is_empty() {
        return Ok(());
    }
    let functions: Vec<Value> = chat.tools.iter().map(function).collect::<Result<_, _>>()?;
    body.set("tools", &json!([{ "functionDeclarations": functions }]));
    let calling = match &chat.tool_choice {
        ToolChoice::Auto => return Ok(()),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    };
    body.set("toolConfig", &json!({ "functionCallingConfig": calling }));
    Ok(())
}

fn function(tool: &Tool) -> Result<Value, Unsupported> {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    if let Some(text) = &tool.parameters {
        let cleaned = cleaned("tools", text)?;
        // A function without parameters says so by having none.
        if cleaned.get("properties").is_some() || cleaned.get("anyOf").is_some() {
            function["parameters"] = cleaned;
        }
    }
    Ok(function)
}

fn cleaned(field: &'static str, text: &str) -> Result<Value, Unsupported> {
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(Unsupported::new(
            field,
            "the schema is longer than 256 KiB; send a shorter one",
        ));
    }
    let schema = serde_json::from_str(text)
        .map_err(|_| Unsupported::new(field, "the schema is not JSON; send an object"))?;
    Ok(clean(&schema))
}

fn set_format(
    config: &mut Map<String, Value>,
    chat: &Chat,
    newest: bool,
) -> Result<(), Unsupported> {
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    match &chat.response_format {
        ResponseFormat::Text => return Ok(()),
        ResponseFormat::JsonObject => {
            set("responseMimeType", json!("application/json"));
        }
        ResponseFormat::JsonSchema { schema, .. } => {
            set("responseMimeType", json!("application/json"));
            set("responseSchema", cleaned("response_format", schema)?);
        }
        ResponseFormat::Choice(choices) => {
            set("responseMimeType", json!("text/x.enum"));
            set("responseSchema", json!({"type": "STRING", "enum": choices}));
        }
        ResponseFormat::Regex(_) | ResponseFormat::Grammar(_) => {
            return Err(Unsupported::new(
                "response_format",
                "Gemini's models follow no grammars; send a json_schema, or use another model",
            ));
        }
    }
    let calls = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
    if calls && !newest {
        return Err(Unsupported::new(
            "response_format",
            "Gemini's models before Gemini 3 answer either in a form or with tools; leave one out",
        ));
    }
    Ok(())
}

fn set_params(config: &mut Map<String, Value>, params: &Params, model: &str) {
    let mut set = |name: &str, value: Value| {
        config.insert(name.to_owned(), value);
    };
    // Through text, so that 0.7 stays 0.7 and does not become 0.699999988.
    let number = |value: f32| value.to_string().parse::<f64>().unwrap_or_default();
    if let Some(temperature) = params.temperature {
        set("temperature", json!(number(temperature)));
    }
    if let Some(top_p) = params.top_p {
        set("topP", json!(number(top_p)));
    }
    if let Some(top_k) = params.top_k.filter(|k| *k > 0) {
        set("topK", json!(top_k));
    }
    if let Some(limit) = params.max_tokens {
        set("maxOutputTokens", json!(limit.max(1)));
    }
    if !params.stop.is_empty() {
        set("stopSequences", json!(params.stop));
    }
    // Gemini's seed is an i32; ours is folded into it, the same one every time.
    if let Some(seed) = params.seed {
        set("seed", json!(seed.rem_euclid(i64::from(i32::MAX))));
    }
    if let Some(penalty) = params.presence_penalty {
        set("presencePenalty", json!(number(penalty)));
    }
    if let Some(penalty) = params.frequency_penalty {
        set("frequencyPenalty", json!(number(penalty)));
    }
    if let Some(top) = params.logprobs {
        set("responseLogprobs", json!(true));
        if top > 0 {
            set("logprobs", json!(top));
        }
    }
    if let Some(thinking) = thinking(params, model) {
        set("thinkingConfig", thinking);
    }
}

/// How the model is to think, where the client said anything about it.
fn thinking(params: &Params, model: &str) -> Option<Value> {
    let levels = model.contains("gemini-3");
    if !levels && !model.contains("2.5") && !model.contains("latest") {
        return None;
    }
    let pro = model.contains("pro");
    let effort = params.reasoning_effort.as_deref();
    let off = params.enable_thinking == Some(false) || effort == Some("none");
    let asked =
        effort.is_some() || params.enable_thinking.is_some() || params.thinking_tokens.is_some();
    if !asked {
        return None;
    }
    if off {
        // Pro models think in any case; this is the least of it.
        return Some(match (levels, pro) {
            (true, true) => json!({"thinkingLevel": "low"}),
            (true, false) => json!({"thinkingLevel": "minimal"}),
            (false, true) => json!({"thinkingBudget": 128}),
            (false, false) => json!({"thinkingBudget": 0}),
        });
    }
    let mut config = json!({"includeThoughts": true});
    match (params.thinking_tokens, effort) {
        (Some(tokens), _) => config["thinkingBudget"] = json!(tokens),
        (None, None) => {}
        // Gemini 3 Pro knows low and high; the others know four steps.
        (None, Some(effort)) if levels => {
            config["thinkingLevel"] = json!(match (effort, pro) {
                ("minimal", false) => "minimal",
                ("minimal" | "low", _) => "low",
                ("medium", false) => "medium",
                _ => "high",
            });
        }
        // As Google's OpenAI-compatible endpoint translates them.
        (None, Some(effort)) => {
            config["thinkingBudget"] = json!(match effort {
                "minimal" | "low" => 1_024,
                "medium" => 8_192,
                _ => 24_576,
            });
        }
    }
    Some(config)
}
