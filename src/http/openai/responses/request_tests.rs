#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use nearfar_domain::chat::{Message, Role, ToolChoice};
use nearfar_domain::privacy::Zone;

use super::*;

fn request(value: Value) -> Result<Request, Problem> {
    read(value.to_string().as_bytes())
}

fn turns(chat: &Chat) -> &[Message] {
    match &chat.prompt {
        Prompt::Turns(turns) => turns,
        _ => &[],
    }
}

fn param(result: Result<Request, Problem>) -> String {
    let problem = result.err().unwrap().openai_body();
    problem["error"]["param"].as_str().unwrap().to_owned()
}

#[test]
fn everything_that_is_known_is_read() {
    let mut read = request(json!({
        "model": "openai/gpt-5", "instructions": "be short", "input": "hi", "stream": true,
        "temperature": 0.1, "top_p": 0.5, "max_output_tokens": 40, "store": false,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "tool_choice": "required", "parallel_tool_calls": false, "truncation": "auto",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"},
                            "strict": true}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"}, "metadata": {"a": "b"},
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "top_logprobs": 2, "service_tier": "flex", "user": "u", "nearfar": {"privacy": "cloud"},
        "seed": 3,
    }))
    .unwrap();
    assert!(read.stream && !read.store && read.previous.is_none());
    let chat = read.chat(&[]).unwrap();
    assert_eq!(turns(&chat)[0].role, Role::System);
    assert_eq!(turns(&chat)[1].plain_text(), "hi");
    assert_eq!(chat.tools.len(), 1);
    assert!(matches!(chat.tool_choice, ToolChoice::Required));
    assert!(matches!(
        chat.response_format,
        ResponseFormat::JsonSchema {
            strict: Some(true),
            ..
        }
    ));
    let params = &chat.params;
    assert_eq!(
        (params.max_tokens, params.logprobs, params.seed),
        (Some(40), Some(2), Some(3))
    );
    assert_eq!(params.reasoning_effort.as_deref(), Some("low"));
    assert_eq!(params.parallel_tool_calls, Some(false));
    let on: Value = serde_json::from_str(&chat.passthrough).unwrap();
    assert_eq!(
        on,
        json!({"service_tier": "flex", "user": "u", "verbosity": "low"})
    );
    assert_eq!(read.echo.temperature, json!(0.1));
    assert_eq!(read.echo.reasoning["effort"], "low");
    assert_eq!(read.echo.metadata, json!({"a": "b"}));
}

#[test]
fn what_is_not_said_has_openais_defaults() {
    let mut read = request(json!({"input": "hi"})).unwrap();
    assert_eq!(read.model, "auto");
    assert!(read.store && !read.stream);
    assert_eq!(read.echo.tool_choice, "auto");
    assert_eq!(read.echo.text, json!({"format": {"type": "text"}}));
    assert!(read.chat(&[]).unwrap().passthrough.is_empty());
}

#[test]
fn what_was_said_before_comes_between_instructions_and_input() {
    let turn = |asked: &str, answered: &str| {
        Arc::new(Turn {
            tenant: "a".into(),
            ceiling: Zone::Cloud,
            redact: false,
            previous: None,
            input: json!([{"role": "user", "content": asked}]).to_string(),
            response: json!({"output": [{"type": "message", "role": "assistant", "content":
                [{"type": "output_text", "text": answered}]}]})
            .to_string(),
        })
    };
    let body = json!({"instructions": "new", "input": "third", "previous_response_id": "resp_1"});
    let mut read = request(body).unwrap();
    assert_eq!(read.previous.as_deref(), Some("resp_1"));
    let chat = read
        .chat(&[turn("first", "one"), turn("second", "two")])
        .unwrap();
    let texts: Vec<String> = turns(&chat).iter().map(Message::plain_text).collect();
    assert_eq!(texts, ["new", "first", "one", "second", "two", "third"]);
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (field, value) in [
        ("background", json!(true)),
        ("conversation", json!("conv_1")),
        ("prompt", json!({"id": "pmpt_1"})),
        ("truncation", json!("some")),
        ("previous_response_id", json!("")),
        ("input", json!(3)),
        ("metadata", json!({"a": 1})),
        ("max_output_tokens", json!(0)),
        ("stream", json!("yes")),
    ] {
        assert_eq!(param(request(json!({"input": "a", field: value}))), field);
    }
    let effort = json!({"input": "a", "reasoning": {"effort": "huge"}});
    assert_eq!(param(request(effort)), "reasoning.effort");
    let format = json!({"input": "a", "text": {"format": {"type": "grammar"}}});
    assert_eq!(param(request(format)), "text.format.type");
    let nothing = request(json!({})).unwrap().chat(&[]).err().unwrap();
    assert_eq!(nothing.openai_body()["error"]["param"], "input");
}
