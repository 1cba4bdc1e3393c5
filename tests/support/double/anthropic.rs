//! Anthropic's answers, as `api.anthropic.com` writes them.

use serde_json::{Value, json};

use super::http::{Body, Reply};
use super::script::{Answer, pieces};

const ID: &str = "msg_01Double000000000000000001";

/// `/v1/messages`.
pub fn messages(request: &Value, answer: &Answer) -> Reply {
    let model = format!("{}-20251001", request["model"].as_str().unwrap_or("claude"));
    if request["stream"] == true {
        Reply::events(Body::Events(stream(answer, &model)))
    } else {
        Reply::json(whole(answer, &model))
    }
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer {
        Answer {
            cut_by_limit: true, ..
        } => "max_tokens",
        Answer {
            refusal: Some(_), ..
        } => "refusal",
        Answer { calls, .. } if !calls.is_empty() => "tool_use",
        Answer {
            stopped_by: Some(_),
            ..
        } => "stop_sequence",
        _ => "end_turn",
    }
}

/// Anthropic counts cached tokens apart.
fn usage(answer: &Answer, output: u64) -> Value {
    let [prompt, cached, ..] = answer.usage;
    json!({
        "input_tokens": prompt - cached, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output, "service_tier": "standard"
    })
}

fn stream(answer: &Answer, model: &str) -> Vec<String> {
    let mut events = vec![event(json!({"type": "message_start", "message": {
        "model": model, "id": ID, "type": "message", "role": "assistant", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(answer, 1)
    }}))];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>, events: &mut Vec<String>| {
        events.push(event(
            json!({"type": "content_block_start", "index": index, "content_block": start}),
        ));
        if index == 0 {
            events.push(event(json!({"type": "ping"})));
        }
        for delta in deltas {
            events.push(event(
                json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
        }
        events.push(event(json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if !answer.reasoning.is_empty() {
        let mut deltas: Vec<Value> = answer
            .reasoning
            .iter()
            .map(|text| json!({"type": "thinking_delta", "thinking": text}))
            .collect();
        deltas
            .push(json!({"type": "signature_delta", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}));
        block(
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
            &mut events,
        );
    }
    if !answer.text.is_empty() {
        let deltas = answer
            .text
            .iter()
            .map(|text| json!({"type": "text_delta", "text": text}))
            .collect();
        block(json!({"type": "text", "text": ""}), deltas, &mut events);
    }
    for (number, (name, arguments)) in answer.calls.iter().enumerate() {
        let mut deltas = vec![json!({"type": "input_json_delta", "partial_json": ""})];
        if arguments != "{}" {
            deltas.extend(
                pieces(arguments, 6)
                    .into_iter()
                    .map(|piece| json!({"type": "input_json_delta", "partial_json": piece})),
            );
        }
        let start = json!({"type": "tool_use", "id": format!("toolu_double{number}"), "name": name, "input": {}});
        block(start, deltas, &mut events);
    }
    events.push(event(json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(answer), "stop_sequence": answer.stopped_by},
        "usage": {"output_tokens": answer.usage[2]}
    })));
    events.push(event(json!({"type": "message_stop"})));
    events
}

fn whole(answer: &Answer, model: &str) -> Value {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(json!({"type": "thinking", "thinking": answer.reasoning.concat(), "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}));
    }
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.whole_text()}));
    }
    for (number, (name, arguments)) in answer.calls.iter().enumerate() {
        let input: Value = serde_json::from_str(arguments).unwrap_or_default();
        content.push(json!({"type": "tool_use", "id": format!("toolu_double{number}"), "name": name, "input": input}));
    }
    json!({
        "model": model, "id": ID, "type": "message", "role": "assistant", "content": content,
        "stop_reason": stop_reason(answer), "stop_sequence": answer.stopped_by,
        "usage": usage(answer, answer.usage[2])
    })
}

/// An error body for a status.
pub fn error(status: u16) -> String {
    let (class, message) = match status {
        400 => ("invalid_request_error", "max_tokens: Field required"),
        401 => ("authentication_error", "invalid x-api-key"),
        403 => (
            "permission_error",
            "Your API key does not have permission to use the specified resource.",
        ),
        404 => ("not_found_error", "model: claude-0"),
        413 => (
            "request_too_large",
            "Request exceeds the maximum allowed number of bytes.",
        ),
        429 => (
            "rate_limit_error",
            "This request would exceed your organization's rate limit.",
        ),
        529 => ("overloaded_error", "Overloaded"),
        _ => ("api_error", "Internal server error"),
    };
    json!({"type": "error", "error": {"type": class, "message": message}, "request_id": "req_011Double"})
        .to_string()
}

/// An error in the middle of a stream.
pub fn error_event() -> String {
    event(
        json!({"type": "error", "error": {"details": null, "type": "overloaded_error", "message": "Overloaded"}}),
    )
}

fn event(value: Value) -> String {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n")
}
