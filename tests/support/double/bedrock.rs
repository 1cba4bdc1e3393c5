//! Bedrock's answers, as `bedrock-runtime.*.amazonaws.com` writes them.

use serde_json::{Value, json};

use super::http::{Body, Reply};
use super::script::{Answer, pieces};

/// `/model/ID/converse` and `/model/ID/converse-stream`.
pub fn is_it(path: &str) -> bool {
    path.starts_with("/model/")
        && (path.ends_with("/converse") || path.ends_with("/converse-stream"))
}

/// The answer to either.
pub fn converse(path: &str, answer: &Answer) -> Reply {
    if path.ends_with("/converse") {
        return Reply::json(whole(answer));
    }
    Reply {
        status: 200,
        content_type: "application/vnd.amazon.eventstream",
        headers: vec![("x-amzn-RequestId".to_owned(), "double-0001".to_owned())],
        body: Body::Frames(stream(answer)),
    }
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer {
        Answer {
            cut_by_limit: true, ..
        } => "max_tokens",
        Answer {
            refusal: Some(_), ..
        } => "content_filtered",
        Answer { calls, .. } if !calls.is_empty() => "tool_use",
        _ => "end_turn",
    }
}

/// Cached tokens are counted apart, as Anthropic counts them.
fn usage(answer: &Answer) -> Value {
    let [prompt, cached, completion, _] = answer.usage;
    json!({
        "inputTokens": prompt - cached, "outputTokens": completion,
        "totalTokens": prompt + completion,
        "cacheReadInputTokens": cached, "cacheWriteInputTokens": 0
    })
}

const SIGNATURE: &str = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h";

fn stream(answer: &Answer) -> Vec<Vec<u8>> {
    let mut out = vec![event("messageStart", json!({"role": "assistant"}))];
    let mut index = 0;
    let mut block = |deltas: Vec<Value>, out: &mut Vec<Vec<u8>>| {
        for delta in deltas {
            out.push(event(
                "contentBlockDelta",
                json!({"contentBlockIndex": index, "delta": delta}),
            ));
        }
        out.push(event(
            "contentBlockStop",
            json!({"contentBlockIndex": index}),
        ));
        index += 1;
    };
    if !answer.reasoning.is_empty() {
        let thought = |text: &String| json!({"reasoningContent": {"text": text}});
        let mut deltas: Vec<Value> = answer.reasoning.iter().map(thought).collect();
        deltas.push(json!({"reasoningContent": {"signature": SIGNATURE}}));
        block(deltas, &mut out);
    }
    if !answer.text.is_empty() {
        let deltas = answer.text.iter().map(|text| json!({ "text": text }));
        block(deltas.collect(), &mut out);
    }
    for (number, (name, arguments)) in answer.calls.iter().enumerate() {
        let at = out.len();
        let input = pieces(arguments, 6)
            .into_iter()
            .filter(|_| arguments != "{}");
        let deltas = input.map(|piece| json!({"toolUse": {"input": piece}}));
        block(deltas.collect(), &mut out);
        let place = usize::from(!answer.reasoning.is_empty())
            + usize::from(!answer.text.is_empty())
            + number;
        let start =
            json!({"toolUse": {"toolUseId": format!("tooluse_double{number}"), "name": name}});
        let start = json!({"contentBlockIndex": place, "start": start});
        out.insert(at, event("contentBlockStart", start));
    }
    out.push(event(
        "messageStop",
        json!({"stopReason": stop_reason(answer)}),
    ));
    out.push(event(
        "metadata",
        json!({"usage": usage(answer), "metrics": {"latencyMs": 321}}),
    ));
    out
}

fn whole(answer: &Answer) -> Value {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        let text = json!({"text": answer.reasoning.concat(), "signature": SIGNATURE});
        content.push(json!({"reasoningContent": {"reasoningText": text}}));
    }
    if !answer.text.is_empty() {
        content.push(json!({"text": answer.whole_text()}));
    }
    for (number, (name, arguments)) in answer.calls.iter().enumerate() {
        let input: Value = serde_json::from_str(arguments).unwrap_or_default();
        let id = format!("tooluse_double{number}");
        content.push(json!({"toolUse": {"toolUseId": id, "name": name, "input": input}}));
    }
    json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop_reason(answer), "usage": usage(answer), "metrics": {"latencyMs": 321}
    })
}

/// An error's header and body for a status.
pub fn error(status: u16) -> (&'static str, String) {
    let (name, message) = match status {
        400 => ("ValidationException", "The provided request is not valid"),
        401 | 403 => (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        404 => (
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
        ),
        429 => ("ThrottlingException", "Too many requests, please wait."),
        503 => (
            "ServiceUnavailableException",
            "Bedrock is unable to process your request.",
        ),
        _ => (
            "InternalServerException",
            "The system encountered an unexpected error.",
        ),
    };
    (name, json!({ "message": message }).to_string())
}

/// An error in the middle of a stream.
pub fn error_frame() -> Vec<u8> {
    frame(
        &[
            (":exception-type", "serviceUnavailableException"),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        br#"{"message":"Bedrock is unable to process your request."}"#,
    )
}

fn event(name: &str, payload: Value) -> Vec<u8> {
    let mut payload = payload;
    // Bedrock pads its events so that their lengths tell nothing.
    payload["p"] = json!("abcdefghijk");
    frame(
        &[
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload.to_string().as_bytes(),
    )
}

/// A message of AWS's event stream, written here apart from the code that is
/// tested with it.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap());
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = u32::try_from(16 + head.len() + payload.len()).unwrap();
    let mut out = total.to_be_bytes().to_vec();
    out.extend_from_slice(&u32::try_from(head.len()).unwrap().to_be_bytes());
    let sum = crc(&out).to_be_bytes();
    out.extend_from_slice(&sum);
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    let sum = crc(&out).to_be_bytes();
    out.extend_from_slice(&sum);
    out
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

/// The request in OpenAI's words, as far as an answer follows from it.
pub fn as_openai(request: &Value) -> Value {
    let block = |block: &Value| {
        let result = block["toolResult"]["content"].as_array();
        if block["image"].is_object() {
            json!({"type": "image_url"})
        } else if let Some(content) = result {
            let text: String = content.iter().filter_map(|b| b["text"].as_str()).collect();
            json!({"type": "text", "text": text})
        } else {
            json!({"type": "text", "text": block["text"]})
        }
    };
    let turn = |turn: &Value| {
        let content = turn["content"].as_array().into_iter().flatten();
        json!({"role": turn["role"], "content": content.map(block).collect::<Vec<_>>()})
    };
    let turns = request["messages"].as_array().into_iter().flatten();
    let config = &request["toolConfig"];
    let tools = config["tools"].as_array().into_iter().flatten();
    let tools: Vec<Value> = tools
        .filter(|tool| tool["toolSpec"].is_object())
        .map(|tool| {
            let spec = &tool["toolSpec"];
            let parameters = &spec["inputSchema"]["json"];
            json!({"type": "function", "function": {"name": spec["name"], "parameters": parameters}})
        })
        .collect();
    let mut out = json!({
        "messages": turns.map(turn).collect::<Vec<_>>(), "tools": tools,
        "stop": request["inferenceConfig"]["stopSequences"]
    });
    let choice = &config["toolChoice"];
    if let Some(name) = choice["tool"]["name"].as_str() {
        out["tool_choice"] = json!({"type": "function", "function": {"name": name}});
    } else if choice["any"].is_object() {
        out["tool_choice"] = json!("required");
    }
    let form = &request["outputConfig"]["textFormat"]["structure"]["jsonSchema"];
    if let Some(text) = form["schema"].as_str() {
        let schema: Value = serde_json::from_str(text).unwrap_or_default();
        let schema = json!({"name": "answer", "schema": schema});
        out["response_format"] = json!({"type": "json_schema", "json_schema": schema});
    }
    if request["additionalModelRequestFields"]["thinking"].is_object() {
        out["thinking"] = json!({"type": "enabled"});
    }
    out
}
