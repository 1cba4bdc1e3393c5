//! Gemini's answers, as `generativelanguage.googleapis.com` writes them.

use serde_json::{Value, json};

use super::http::{Body, Reply};
use super::script::Answer;

/// The model and the method in `/v1beta/models/NAME:METHOD?alt=sse`.
pub fn call_of(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.split_once("/models/")?;
    let rest = rest.split('?').next().unwrap_or(rest);
    rest.split_once(':')
}

/// `generateContent` and `streamGenerateContent`.
pub fn generate(path: &str, request: &Value, answer: &Answer) -> Reply {
    let (model, method) = call_of(path).unwrap_or_default();
    if let Some(wrong) = refuse(request) {
        let body = json!({"error": {"code": 400, "message": wrong, "status": "INVALID_ARGUMENT"}});
        return Reply::error(400, body.to_string());
    }
    let parts = parts(answer, model.contains("gemini-3"));
    if method == "generateContent" {
        return Reply::json(chunk(parts, model, answer, true));
    }
    let last = parts.len().saturating_sub(1);
    let mut chunks: Vec<Value> = parts
        .into_iter()
        .enumerate()
        .map(|(at, part)| chunk(vec![part], model, answer, at == last))
        .collect();
    if chunks.is_empty() {
        chunks.push(chunk(Vec::new(), model, answer, true));
    }
    if path.ends_with("alt=sse") {
        let events = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n"));
        Reply::events(Body::Events(events.collect()))
    } else {
        Reply::json(json!(chunks))
    }
}

/// What the real one refuses: unknown words in a schema, and parts without data.
fn refuse(request: &Value) -> Option<String> {
    let text = request.to_string();
    for word in ["\"$ref\"", "\"$defs\"", "\"additionalProperties\""] {
        if text.contains(word) {
            return Some(format!(
                "Invalid JSON payload received. Unknown name {word}: Cannot find field."
            ));
        }
    }
    let contents = request["contents"].as_array()?;
    let empty = contents
        .iter()
        .any(|content| content["parts"].as_array().is_none_or(Vec::is_empty));
    empty.then(|| "* GenerateContentRequest.contents: contents is not specified".to_owned())
}

fn parts(answer: &Answer, signed: bool) -> Vec<Value> {
    let mut parts: Vec<Value> = answer
        .reasoning
        .iter()
        .map(|text| json!({"text": text, "thought": true}))
        .collect();
    parts.extend(answer.text.iter().map(|text| json!({ "text": text })));
    for (number, (name, arguments)) in answer.calls.iter().enumerate() {
        let args: Value = serde_json::from_str(arguments).unwrap_or_default();
        let mut part = json!({"functionCall": {"name": name, "args": args}});
        // Only the first of parallel calls carries one.
        if number == 0 && (signed || !answer.reasoning.is_empty()) {
            part["thoughtSignature"] = json!(SIGNATURE);
        }
        parts.push(part);
    }
    parts
}

/// A thought signature as it looks.
pub const SIGNATURE: &str = "CiQBjz1rX0ilumvPg6k0sMMUtISoQCLJv2bPJ7Vv9r";

fn chunk(parts: Vec<Value>, model: &str, answer: &Answer, last: bool) -> Value {
    let [prompt, cached, completion, thoughts] = answer.usage;
    let mut usage = json!({
        "promptTokenCount": prompt, "totalTokenCount": prompt,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}]
    });
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if last {
        candidate["finishReason"] = json!(match answer {
            Answer {
                cut_by_limit: true, ..
            } => "MAX_TOKENS",
            Answer {
                refusal: Some(_), ..
            } => "SAFETY",
            _ => "STOP",
        });
        usage["totalTokenCount"] = json!(prompt + completion);
        usage["candidatesTokenCount"] = json!(completion - thoughts);
        if cached > 0 {
            usage["cachedContentTokenCount"] = json!(cached);
        }
        if thoughts > 0 {
            usage["thoughtsTokenCount"] = json!(thoughts);
        }
    }
    json!({
        "candidates": [candidate], "usageMetadata": usage,
        "modelVersion": model, "responseId": "dbl0aJ2dEoublecQ"
    })
}

/// An error body for a status.
pub fn error(status: u16) -> String {
    let (code, message) = match status {
        400 => ("INVALID_ARGUMENT", "Request contains an invalid argument."),
        401 => (
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials.",
        ),
        403 => (
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers.",
        ),
        404 => (
            "NOT_FOUND",
            "models/gemini-0 is not found for API version v1beta, or is not supported for generateContent.",
        ),
        429 => ("RESOURCE_EXHAUSTED", "You exceeded your current quota."),
        503 => (
            "UNAVAILABLE",
            "The model is overloaded. Please try again later.",
        ),
        504 => (
            "DEADLINE_EXCEEDED",
            "Deadline expired before operation could complete.",
        ),
        _ => ("INTERNAL", "An internal error has occurred."),
    };
    let mut body = json!({"error": {"code": status, "message": message, "status": code}});
    if status == 429 {
        body["error"]["details"] = json!([
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
        ]);
    }
    body.to_string()
}

/// An error in the middle of a stream.
pub fn error_event() -> String {
    format!("data: {}\r\n\r\n", error(503))
}

/// The request in OpenAI's words, as far as an answer follows from it.
pub fn as_openai(request: &Value) -> Value {
    let part = |part: &Value| {
        let result = &part["functionResponse"]["response"];
        if part["inlineData"].is_object() || part["fileData"].is_object() {
            json!({"type": "image_url"})
        } else if result.is_object() {
            let said = &result["output"];
            json!({"type": "text", "text": said.as_str().map_or_else(|| said.to_string(), str::to_owned)})
        } else {
            json!({"type": "text", "text": part["text"]})
        }
    };
    let turn = |turn: &Value| {
        let parts: Vec<Value> = turn["parts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(part)
            .collect();
        let role = if turn["role"] == "model" {
            "assistant"
        } else {
            "user"
        };
        json!({"role": role, "content": parts})
    };
    let turns = request["contents"].as_array().into_iter().flatten();
    let functions = request["tools"].as_array().into_iter().flatten();
    let functions = functions
        .filter_map(|tool| tool["functionDeclarations"].as_array())
        .flatten();
    let tools: Vec<Value> = functions
        .map(|function| {
            let parameters = lower(&function["parameters"]);
            json!({"type": "function", "function": {"name": function["name"], "parameters": parameters}})
        })
        .collect();
    let calling = &request["toolConfig"]["functionCallingConfig"];
    let config = &request["generationConfig"];
    let mut out = json!({
        "messages": turns.map(turn).collect::<Vec<_>>(), "tools": tools, "stop": config["stopSequences"]
    });
    match calling["mode"].as_str() {
        Some("NONE") => out["tool_choice"] = json!("none"),
        Some("ANY") => {
            out["tool_choice"] = match calling["allowedFunctionNames"][0].as_str() {
                Some(name) => json!({"type": "function", "function": {"name": name}}),
                None => json!("required"),
            }
        }
        _ => {}
    }
    if config["responseSchema"].is_object() {
        let schema = json!({"name": "answer", "schema": lower(&config["responseSchema"])});
        out["response_format"] = json!({"type": "json_schema", "json_schema": schema});
    } else if config["responseMimeType"] == "application/json" {
        out["response_format"] = json!({"type": "json_object"});
    }
    if config["thinkingConfig"]["includeThoughts"] == true {
        out["thinking"] = json!({"type": "enabled"});
    }
    out
}

/// A schema with the names of its types as JSON Schema has them.
fn lower(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("type", Value::String(text)) => (name.clone(), json!(text.to_ascii_lowercase())),
                _ => (name.clone(), lower(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(lower).collect(),
        other => other.clone(),
    }
}
