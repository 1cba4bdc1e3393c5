#![allow(clippy::unwrap_used)]
use nearfar_domain::chat::{Chat, Message, Part, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use serde_json::{Value, json};

use super::encode;
use crate::presets::habits_at;

fn body(chat: &Chat, model: &str, base_url: &str) -> Value {
    let encoded = encode(chat, model, true, habits_at(base_url)).unwrap();
    serde_json::from_slice(&encoded.body).unwrap()
}

fn rich() -> Chat {
    let mut chat = Chat::turns(vec![
        Message::text(Role::Developer, "rules"),
        Message {
            content: vec![
                Part::Text("look".into()),
                Part::Image {
                    url: "data:image/png;base64,AA".into(),
                    detail: Some("low".into()),
                },
            ],
            name: Some("ann".into()),
            ..Message::text(Role::User, "")
        },
        Message {
            content: vec![],
            reasoning: Some("hm".into()),
            tool_calls: vec![ToolCall {
                id: "c1".into(),
                name: "light".into(),
                arguments: "{\"on\":true}".into(),
                signature: None,
            }],
            ..Message::text(Role::Assistant, "")
        },
        Message {
            tool_call_id: Some("c1".into()),
            ..Message::text(Role::Tool, "ok")
        },
    ]);
    chat.tools.push(Tool {
        name: "light".into(),
        description: Some("switches".into()),
        parameters: Some(r#"{"type":"object","maximum":1e2}"#.into()),
        strict: Some(true),
    });
    chat.tool_choice = ToolChoice::Named("light".into());
    chat.params.temperature = Some(0.7);
    chat.params.top_k = Some(40);
    chat.params.max_tokens = Some(99);
    chat.params.logprobs = Some(2);
    chat.params.logit_bias = vec![(7, -1.5)];
    chat.params.parallel_tool_calls = Some(false);
    chat.params.seed = Some(3);
    chat.params.stop = vec!["end".into()];
    chat.params.enable_thinking = Some(false);
    chat.params.reasoning_effort = Some("low".into());
    chat.passthrough = r#"{"user":"u1","model":"evil","max_completion_tokens":5}"#.into();
    chat
}

#[test]
fn everything_goes_out_to_a_server_that_we_do_not_know() {
    let got = body(&rich(), "m", "http://127.0.0.1:1/v1");
    let expected = json!({
        "model": "m",
        "messages": [
            {"role": "developer", "content": "rules"},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
            ]},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "light", "arguments": "{\"on\":true}"}}
            ]},
            {"role": "tool", "content": "ok", "tool_call_id": "c1"}
        ],
        "tools": [{"type": "function", "function": {
            "name": "light", "description": "switches",
            "parameters": {"type": "object", "maximum": 1e2}, "strict": true
        }}],
        "tool_choice": {"type": "function", "function": {"name": "light"}},
        "parallel_tool_calls": false,
        "logprobs": true, "top_logprobs": 2,
        "max_tokens": 99,
        "logit_bias": {"7": -1.5},
        "top_k": 40, "seed": 3, "stop": ["end"], "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": false},
        "stream": true, "stream_options": {"include_usage": true},
        "user": "u1"
    });
    let mut got = got;
    let temperature = got.as_object_mut().unwrap().remove("temperature").unwrap();
    assert_eq!(temperature.to_string(), "0.7");
    assert_eq!(got, expected);
}

#[test]
fn the_schema_keeps_its_text() {
    let encoded = encode(&rich(), "m", false, habits_at("http://x/v1")).unwrap();
    let text = String::from_utf8(encoded.body).unwrap();
    assert!(text.contains(r#""parameters":{"type":"object","maximum":1e2}"#));
    assert!(text.contains(r#""stream":false"#) && !text.contains("stream_options"));
    assert_eq!(encoded.path, "/chat/completions");
}

#[test]
fn openai_itself_gets_no_foreign_fields() {
    let got = body(&rich(), "gpt-4o", "https://api.openai.com/v1");
    for field in ["top_k", "chat_template_kwargs"] {
        assert!(got.get(field).is_none(), "{field}");
    }
    assert!(got["messages"][2].get("reasoning_content").is_none());
    assert_eq!(got["messages"][0]["role"], "developer");
    assert_eq!(got["max_tokens"], 99);
}

#[test]
fn models_that_reason_take_another_limit_and_no_sampling() {
    let got = body(&rich(), "gpt-5-mini", "https://api.openai.com/v1");
    assert_eq!(got["max_completion_tokens"], 99);
    for field in ["max_tokens", "temperature", "logit_bias"] {
        assert!(got.get(field).is_none(), "{field}");
    }
    assert_eq!(got["reasoning_effort"], "low");
}

#[test]
fn mistral_gets_its_own_names() {
    let got = body(&rich(), "mistral-small-latest", "https://api.mistral.ai/v1");
    assert_eq!(got["random_seed"], 3);
    for field in [
        "seed",
        "stream_options",
        "parallel_tool_calls",
        "logit_bias",
    ] {
        assert!(got.get(field).is_none(), "{field}");
    }
    assert_eq!(got["messages"][0]["role"], "system");
}

#[test]
fn raw_text_is_a_completion() {
    let mut chat = Chat::text("Once upon");
    chat.params.logprobs = Some(0);
    chat.params.max_tokens = Some(5);
    let encoded = encode(&chat, "m", true, habits_at("http://x/v1")).unwrap();
    assert_eq!(encoded.path, "/completions");
    let got: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(
        got,
        json!({"model": "m", "prompt": "Once upon", "logprobs": 0, "max_tokens": 5,
               "stream": true, "stream_options": {"include_usage": true}})
    );
}

#[test]
fn forms_of_answers_and_choices_of_tools() {
    let mut chat = rich();
    chat.response_format = ResponseFormat::JsonSchema {
        name: "n".into(),
        schema: "{\"type\":\"object\"}".into(),
        strict: Some(true),
    };
    chat.tool_choice = ToolChoice::Required;
    let got = body(&chat, "m", "http://x/v1");
    assert_eq!(
        got["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}})
    );
    assert_eq!(got["tool_choice"], "required");
    for (format, name, value) in [
        (ResponseFormat::Regex("a+".into()), "regex", json!("a+")),
        (
            ResponseFormat::Choice(vec!["a".into()]),
            "choice",
            json!(["a"]),
        ),
        (ResponseFormat::Grammar("g".into()), "grammar", json!("g")),
    ] {
        chat.response_format = format;
        let got = body(&chat, "m", "http://x/v1");
        assert_eq!(got["structured_outputs"], json!({ name: value }));
        assert_eq!(got[&format!("guided_{name}")], value);
        assert!(got.get("response_format").is_none());
        assert_eq!(got.get("grammar").is_some(), name == "grammar");
    }
    chat.response_format = ResponseFormat::JsonObject;
    chat.tool_choice = ToolChoice::None;
    let got = body(&chat, "m", "http://x/v1");
    assert_eq!(got["response_format"], json!({"type": "json_object"}));
    assert_eq!(got["tool_choice"], "none");
    chat.tools.clear();
    let got = body(&chat, "m", "http://x/v1");
    assert!(got.get("tool_choice").is_none() && got.get("parallel_tool_calls").is_none());
}

#[test]
fn what_is_not_json_is_named() {
    let mut chat = rich();
    chat.tools[0].parameters = Some("{".into());
    let error = encode(&chat, "m", true, habits_at("http://x"))
        .err()
        .unwrap();
    assert_eq!(error.field, "tools");
    let mut chat = rich();
    chat.response_format = ResponseFormat::JsonSchema {
        name: "n".into(),
        schema: "nope".into(),
        strict: None,
    };
    let error = encode(&chat, "m", true, habits_at("http://x"))
        .err()
        .unwrap();
    assert_eq!(error.field, "response_format");
}
