#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn chat_of(body: &Value) -> Result<OpenaiRequest, Problem> {
    chat_completion(body.to_string().as_bytes())
}

fn at_fault(body: &Value) -> String {
    let problem = chat_of(body).err().unwrap();
    let error = &problem.openai_body()["error"];
    assert!(error["message"].as_str().unwrap().len() > 10);
    error["param"].as_str().unwrap_or("-").to_owned()
}

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}]})
}

fn with(name: &str, value: Value) -> Value {
    let mut body = hello();
    body[name] = value;
    body
}

#[test]
fn the_least_request_is_for_auto() {
    let request = chat_of(&hello()).unwrap();
    assert_eq!(request.model, "auto");
    assert!(!request.stream);
    assert!(request.needs().is_empty());
    assert_eq!(request.chat.passthrough, "");
}

#[test]
fn a_full_request_is_read_field_by_field() {
    let request = chat_of(&json!({
        "model": "openai/gpt-x",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
            ]},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": true,
        }}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "max_completion_tokens": 7, "seed": -3,
        "stop": "END", "logit_bias": {"7": -100}, "logprobs": true, "top_logprobs": 2, "n": 1,
        "stream": true, "stream_options": {"include_usage": true},
        "nearfar": {"privacy": "device"},
        "service_tier": "flex", "metadata": {"a": "b"},
    }))
    .unwrap();
    let chat = &request.chat;
    let Prompt::Turns(turns) = &chat.prompt else {
        panic!("turns")
    };
    assert_eq!(turns.len(), 4);
    assert_eq!(turns[0].role, Role::Developer);
    assert_eq!(turns[1].name.as_deref(), Some("ann"));
    assert_eq!(turns[2].reasoning.as_deref(), Some("hm"));
    assert_eq!(turns[2].tool_calls[0].name, "look");
    assert_eq!(turns[3].tool_call_id.as_deref(), Some("call_1"));
    assert_eq!(chat.params.max_tokens, Some(7), "the newer name wins");
    assert_eq!(chat.params.stop, ["END"]);
    assert_eq!(chat.params.logit_bias, [(7, -100.0)]);
    assert_eq!(chat.params.logprobs, Some(2));
    assert_eq!(chat.params.seed, Some(-3));
    assert!(request.stream && request.include_usage);
    assert_eq!(request.tags.as_ref().unwrap()["privacy"], "device");
    assert_eq!(
        chat.passthrough,
        r#"{"service_tier":"flex","metadata":{"a":"b"}}"#
    );
    assert_eq!(
        request.needs(),
        [
            Ability::Tools,
            Ability::ForcedTools,
            Ability::JsonSchema,
            Ability::Vision,
            Ability::Logprobs,
        ]
    );
}

#[test]
fn errors_name_the_field() {
    let tool = json!([{"type": "function", "function": {"name": "no spaces"}}]);
    for (body, field) in [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [3]}), "messages[0]"),
        (json!({"messages": [{"role": "king"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (with("temperature", json!(2.5)), "temperature"),
        (with("temperature", json!("hot")), "temperature"),
        (with("max_tokens", json!(0)), "max_tokens"),
        (with("max_tokens", json!(1.5)), "max_tokens"),
        (with("n", json!(2)), "n"),
        (with("stream", json!("yes")), "stream"),
        (with("stop", json!([""])), "stop"),
        (with("tools", tool), "tools[0].function.name"),
        (with("tool_choice", json!("required")), "tool_choice"),
        (with("top_logprobs", json!(2)), "top_logprobs"),
        (with("logit_bias", json!({"x": 1})), "logit_bias"),
        (
            with("response_format", json!({"type": "xml"})),
            "response_format.type",
        ),
        (with("nearfar", json!("device")), "nearfar"),
        (with("functions", json!([])), "functions"),
        (with("model", json!("a\nb")), "model"),
        (with("model", json!("x".repeat(300))), "model"),
    ] {
        assert_eq!(at_fault(&body), field, "{body}");
    }
}

#[test]
fn what_is_no_json_is_told_by_place_and_never_quoted() {
    for (body, code) in [
        (b"".as_slice(), "invalid_json"),
        (b"{\"secret\": tru", "invalid_json"),
        (b"{\"messages\": [\"secret\",]}", "invalid_json"),
        (b"{\"secret\": \"\xff\xfe\"}", "invalid_utf8"),
        (b"{\"a\": 1e999}", "invalid_json"),
        (b"{} secret", "invalid_json"),
        (b"{\"a\": \"\\ud800\"}", "invalid_json"),
    ] {
        let shown = chat_completion(body).err().unwrap().openai_body();
        assert_eq!(shown["error"]["code"], code);
        assert!(!shown.to_string().contains("secret"));
    }
    let problem = completion(b"[1, 2]").err().unwrap().openai_body();
    assert!(
        problem["error"]["message"]
            .as_str()
            .unwrap()
            .contains("an object")
    );
}

#[test]
fn depth_and_number_of_values_are_bounded() {
    for deep in [
        "[".repeat(100_000),
        format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)),
    ] {
        let problem = chat_completion(deep.as_bytes()).err().unwrap();
        assert_eq!(problem.openai_body()["error"]["code"], "invalid_json");
    }
    let wide = format!("{{\"a\": [0{}]}}", ",0".repeat(500_000));
    let problem = chat_completion(wide.as_bytes()).err().unwrap();
    assert_eq!(problem.openai_body()["error"]["code"], "too_many_values");
    // Commas in text are text.
    let text = "a, \\\"b\\\": [c], ".repeat(200_000);
    let body = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"{text}\"}}]}}");
    assert!(chat_completion(body.as_bytes()).is_ok());
}

#[test]
fn the_last_of_duplicate_keys_counts() {
    let body = br#"{"messages": [], "messages": [{"role": "user", "content": "x"}]}"#;
    assert!(chat_completion(body).is_ok());
}

#[test]
fn completions_take_one_text() {
    let request = completion(br#"{"prompt": ["once"], "echo": true, "logprobs": 3}"#).unwrap();
    assert!(matches!(&request.chat.prompt, Prompt::Text(text) if text == "once"));
    assert!(request.echo);
    assert_eq!(request.chat.params.logprobs, Some(3));
    assert_eq!(request.chat.params.max_tokens, Some(16));
    assert_eq!(request.needs(), [Ability::Logprobs, Ability::RawText]);
    for body in [
        r#"{}"#,
        r#"{"prompt": [1, 2]}"#,
        r#"{"prompt": ["a", "b"]}"#,
        r#"{"prompt": 3}"#,
    ] {
        let problem = completion(body.as_bytes()).err().unwrap();
        assert_eq!(problem.openai_body()["error"]["param"], "prompt", "{body}");
    }
}

#[test]
fn a_prompt_to_be_explained_is_a_user_message() {
    let request = to_be_explained(br#"{"prompt": "hi", "model": "local/x"}"#).unwrap();
    let Prompt::Turns(turns) = &request.chat.prompt else {
        panic!("turns")
    };
    assert_eq!(turns[0].plain_text(), "hi");
    assert_eq!(request.model, "local/x");
    let both = br#"{"prompt": "hi", "messages": []}"#;
    assert!(to_be_explained(both).is_err());
    assert!(to_be_explained(br#"{}"#).is_err());
}
