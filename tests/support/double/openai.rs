//! OpenAI's answers, as `api.openai.com` writes them.

use serde_json::{Value, json};

use super::http::{Body, Reply};
use super::script::{Answer, pieces};

const ID: &str = "chatcmpl-CfVdouble0000000000000000001";
const CREATED: u64 = 1_763_971_200;

/// `/v1/models`.
pub fn models() -> Reply {
    let model = |id: &str| json!({"id": id, "object": "model", "created": 1_744_316_542, "owned_by": "system"});
    Reply::json(json!({"object": "list", "data": [model("gpt-4.1-mini"), model("gpt-4o-mini")]}))
}

/// `/v1/chat/completions`.
pub fn chat(request: &Value, answer: &Answer) -> Reply {
    let model = format!("{}-2025-04-14", request["model"].as_str().unwrap_or("gpt"));
    if request["stream"] == true {
        Reply::events(Body::Events(chat_stream(request, answer, &model)))
    } else {
        Reply::json(chat_whole(request, answer, &model))
    }
}

fn finish(answer: &Answer) -> &'static str {
    match answer {
        Answer {
            cut_by_limit: true, ..
        } => "length",
        Answer { filtered: true, .. } => "content_filter",
        Answer { calls, .. } if !calls.is_empty() => "tool_calls",
        _ => "stop",
    }
}

fn usage(answer: &Answer) -> Value {
    let [prompt, cached, completion, reasoning] = answer.usage;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0
        }
    })
}

fn logprobs(request: &Value, text: &str) -> Value {
    if request["logprobs"] != true {
        return Value::Null;
    }
    let wanted = request["top_logprobs"].as_u64().unwrap_or(0) as usize;
    let others = [(text, -0.25), (" other", -1.75), (" third", -3.5)];
    let entry = |(token, logprob): &(&str, f64)| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
    let top: Vec<Value> = others.iter().take(wanted).map(entry).collect();
    json!({"content": [{
        "token": text, "logprob": -0.25, "bytes": text.as_bytes(), "top_logprobs": top
    }], "refusal": null})
}

fn chat_stream(request: &Value, answer: &Answer, model: &str) -> Vec<String> {
    let with_usage = request["stream_options"]["include_usage"] == true;
    let chunk = |delta: Value, logprobs: Value, finish: Value| {
        let mut chunk = json!({
            "id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "service_tier": "default", "system_fingerprint": "fp_658b958c37",
            "choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]
        });
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk["obfuscation"] = json!("aQ7x");
        data(&chunk)
    };
    let plain = |delta: Value| chunk(delta, Value::Null, Value::Null);
    let mut events = Vec::new();
    let calls_only = answer.text.is_empty() && !answer.calls.is_empty();
    if !calls_only {
        events.push(plain(
            json!({"role": "assistant", "content": "", "refusal": null}),
        ));
    }
    for thought in &answer.reasoning {
        events.push(plain(json!({"reasoning_content": thought})));
    }
    for text in &answer.text {
        events.push(chunk(
            json!({"content": text}),
            logprobs(request, text),
            Value::Null,
        ));
    }
    if let Some(refusal) = &answer.refusal {
        events.push(plain(json!({"refusal": refusal})));
    }
    for (index, (name, arguments)) in answer.calls.iter().enumerate() {
        let first = json!({"index": index, "id": format!("call_double{index}"), "type": "function",
                           "function": {"name": name, "arguments": ""}});
        let mut delta = json!({"tool_calls": [first]});
        if calls_only && index == 0 {
            delta = json!({"role": "assistant", "content": null, "tool_calls": delta["tool_calls"], "refusal": null});
        }
        events.push(plain(delta));
        for piece in pieces(arguments, 5) {
            events.push(plain(
                json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
            ));
        }
    }
    events.push(chunk(json!({}), Value::Null, json!(finish(answer))));
    if with_usage {
        events.push(data(&json!({
            "id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "service_tier": "default", "system_fingerprint": "fp_658b958c37",
            "choices": [], "usage": usage(answer), "obfuscation": "aQ7x"
        })));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn chat_whole(request: &Value, answer: &Answer, model: &str) -> Value {
    let content = if answer.text.is_empty() {
        Value::Null
    } else {
        json!(answer.whole_text())
    };
    let mut message = json!({"role": "assistant", "content": content});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning.concat());
    }
    if !answer.calls.is_empty() {
        let calls = answer
            .calls
            .iter()
            .enumerate()
            .map(|(index, (name, arguments))| {
                json!({"id": format!("call_double{index}"), "type": "function",
                   "function": {"name": name, "arguments": arguments}})
            });
        message["tool_calls"] = calls.collect();
    }
    message["refusal"] = json!(answer.refusal);
    message["annotations"] = json!([]);
    let logprobs = match request["logprobs"] == true {
        true => {
            let all: Vec<Value> = answer
                .text
                .iter()
                .map(|text| logprobs(request, text)["content"][0].clone())
                .collect();
            json!({"content": all, "refusal": null})
        }
        false => Value::Null,
    };
    json!({
        "id": ID, "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish(answer)}],
        "usage": usage(answer), "service_tier": "default", "system_fingerprint": "fp_658b958c37"
    })
}

/// `/v1/completions`.
pub fn completion(request: &Value, answer: &Answer) -> Reply {
    let model = request["model"]
        .as_str()
        .unwrap_or("gpt-3.5-turbo-instruct");
    let choice = |text: &str, finish: Value| {
        let logprobs = match request["logprobs"].is_u64() {
            true => json!({"tokens": [text], "token_logprobs": [-0.25],
                           "top_logprobs": [{text: -0.25, " other": -1.75}], "text_offset": [0]}),
            false => Value::Null,
        };
        json!({"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish})
    };
    let reason = if answer.cut_by_limit {
        "length"
    } else {
        "stop"
    };
    let [prompt, _, completion, _] = answer.usage;
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
    let id = "cmpl-CfVdouble0000000000000000001";
    let outer = |choices: Value| json!({"id": id, "object": "text_completion", "created": CREATED, "model": model, "choices": choices});
    if request["stream"] != true {
        let mut body = outer(json!([choice(&answer.whole_text(), json!(reason))]));
        body["usage"] = usage;
        return Reply::json(body);
    }
    let mut events: Vec<String> = answer
        .text
        .iter()
        .map(|text| data(&outer(json!([choice(text, Value::Null)]))))
        .collect();
    let mut last = choice("", json!(reason));
    last["logprobs"] = Value::Null;
    events.push(data(&outer(json!([last]))));
    if request["stream_options"]["include_usage"] == true {
        let mut body = outer(json!([]));
        body["usage"] = usage;
        events.push(data(&body));
    }
    events.push("data: [DONE]\n\n".to_owned());
    Reply::events(Body::Events(events))
}

/// `/v1/embeddings`: each vector begins with its text's length. The last one
/// comes first, as the index allows.
pub fn embeddings(request: &Value) -> Reply {
    let texts = request["input"].as_array().cloned().unwrap_or_default();
    let vector = |(index, text): (usize, &Value)| {
        let length = text.as_str().unwrap_or_default().len();
        json!({"object": "embedding", "index": index, "embedding": [length, 0.5]})
    };
    let data: Vec<Value> = texts.iter().enumerate().rev().map(vector).collect();
    let tokens = texts.len();
    Reply::json(json!({
        "object": "list", "data": data, "model": request["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}
    }))
}

/// An error body for a status.
pub fn error(status: u16) -> String {
    let (message, class, code) = match status {
        401 => (
            "Incorrect API key provided: sk-doubl**********1234. You can find your API key at https://platform.openai.com/account/api-keys.",
            "invalid_request_error",
            json!("invalid_api_key"),
        ),
        404 => (
            "The model `gpt-0` does not exist or you do not have access to it.",
            "invalid_request_error",
            json!("model_not_found"),
        ),
        429 => (
            "Rate limit reached for gpt-4.1-mini in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
            "requests",
            json!("rate_limit_exceeded"),
        ),
        400 => (
            "Invalid value for 'temperature'.",
            "invalid_request_error",
            Value::Null,
        ),
        _ => (
            "The server had an error while processing your request. Sorry about that!",
            "server_error",
            Value::Null,
        ),
    };
    let body = json!({"error": {"message": message, "type": class, "param": null, "code": code}});
    serde_json::to_string_pretty(&body).unwrap()
}

/// An error in the middle of a stream.
pub fn error_event() -> String {
    data(&json!({"error": {
        "message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error", "param": null, "code": null
    }}))
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}
