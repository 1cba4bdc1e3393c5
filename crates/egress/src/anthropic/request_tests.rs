#![allow(clippy::unwrap_used)]
use nearfar_domain::chat::{Chat, Message, Part, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use nearfar_domain::thought::{CacheMark, Origin, Signature, Thought};
use serde_json::{Value, json};

use super::encode;

fn body_of(chat: &Chat, model: &str) -> Value {
    let encoded = encode(chat, model, true).unwrap();
    assert_eq!(encoded.path, "/v1/messages");
    serde_json::from_slice(&encoded.body).unwrap()
}

fn body(chat: &Chat) -> Value {
    body_of(chat, "claude-haiku-4-5")
}

fn tool_turn(id: &str, text: &str) -> Message {
    Message {
        tool_call_id: Some(id.into()),
        ..Message::text(Role::Tool, text)
    }
}

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall {
        id: id.into(),
        name: "light".into(),
        arguments: arguments.into(),
        signature: None,
    }
}

fn with_tool(mut chat: Chat) -> Chat {
    chat.tools.push(Tool {
        name: "light".into(),
        description: Some("switches".into()),
        parameters: Some(r#"{"type":"object","maximum":1e2}"#.into()),
        strict: Some(true),
    });
    chat
}

#[test]
fn a_conversation_in_anthropics_order() {
    let chat = with_tool(Chat::turns(vec![
        Message::text(Role::System, "one"),
        Message::text(Role::User, "hi"),
        Message {
            tool_calls: vec![call("a", "{\"on\":true}"), call("b", "")],
            ..Message::text(Role::Assistant, "sure")
        },
        tool_turn("a", "ok"),
        tool_turn("b", "fine"),
        Message::text(Role::User, "and now?"),
        Message::text(Role::Developer, "two"),
        Message {
            content: vec![
                Part::Image {
                    url: "data:image/png;base64,AAAA".into(),
                    detail: None,
                },
                Part::Image {
                    url: "https://x.example/a.jpg".into(),
                    detail: None,
                },
                Part::Text(" ".into()),
            ],
            ..Message::text(Role::User, "")
        },
    ]));
    let got = body(&chat);
    assert_eq!(
        got["system"],
        json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])
    );
    assert_eq!(
        got["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "sure"},
                {"type": "tool_use", "id": "a", "name": "light", "input": {"on": true}},
                {"type": "tool_use", "id": "b", "name": "light", "input": {}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "ok"}]},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "fine"}]},
                {"type": "text", "text": "and now?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.example/a.jpg"}}
            ]}
        ])
    );
    assert_eq!(got["max_tokens"], 4096);
    assert_eq!(got["stream"], true);
    assert_eq!(
        got["tools"],
        json!([{"name": "light", "description": "switches",
                "input_schema": {"type": "object", "maximum": 1e2}}])
    );
    assert!(got.get("tool_choice").is_none());
}

#[test]
fn a_greeting_first_and_a_partial_answer_last() {
    let chat = Chat::turns(vec![
        Message::text(Role::Assistant, "Welcome!"),
        Message::text(Role::User, "hi"),
        Message::text(Role::Assistant, "It is \n"),
    ]);
    let got = body(&chat);
    assert_eq!(got["messages"][0]["role"], "user");
    assert_eq!(got["messages"][1]["content"][0]["text"], "Welcome!");
    assert_eq!(got["messages"][3]["content"][0]["text"], "It is");
    let got = body(&Chat::turns(vec![Message::text(Role::System, "only")]));
    assert_eq!(got["messages"][0]["role"], "user");
}

#[test]
fn choices_of_tools() {
    for (choice, one, expected) in [
        (
            ToolChoice::Auto,
            true,
            json!({"type": "auto", "disable_parallel_tool_use": true}),
        ),
        (ToolChoice::Required, false, json!({"type": "any"})),
        (ToolChoice::None, true, json!({"type": "none"})),
        (
            ToolChoice::Named("light".into()),
            true,
            json!({"type": "tool", "name": "light", "disable_parallel_tool_use": true}),
        ),
    ] {
        let mut chat = with_tool(Chat::turns(vec![Message::text(Role::User, "x")]));
        chat.tool_choice = choice;
        chat.params.parallel_tool_calls = one.then_some(false);
        assert_eq!(body(&chat)["tool_choice"], expected);
    }
}

#[test]
fn sampling_is_brought_into_range() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.params.temperature = Some(1.8);
    chat.params.top_p = Some(0.5);
    chat.params.top_k = Some(9);
    chat.params.max_tokens = Some(7);
    chat.params.seed = Some(1);
    chat.params.stop = vec!["\n".into(), "END".into()];
    let got = body(&chat);
    assert_eq!(got["temperature"], 1.0);
    assert!(got.get("top_p").is_none() && got.get("seed").is_none());
    assert_eq!((&got["top_k"], &got["max_tokens"]), (&json!(9), &json!(7)));
    assert_eq!(got["stop_sequences"], json!(["END"]));
}

#[test]
fn thinking_is_asked_for_where_it_can_be() {
    let mut chat = with_tool(Chat::turns(vec![Message::text(Role::User, "x")]));
    chat.params.reasoning_effort = Some("low".into());
    chat.params.temperature = Some(0.2);
    let got = body(&chat);
    assert_eq!(
        got["thinking"],
        json!({"type": "enabled", "budget_tokens": 2048})
    );
    assert_eq!(got["max_tokens"], 2048 + 4096);
    assert!(got.get("temperature").is_none());
    chat.params.max_tokens = Some(2_000);
    let got = body(&chat);
    assert_eq!(
        (&got["max_tokens"], &got["thinking"]["budget_tokens"]),
        (&json!(2000), &json!(1999))
    );
    chat.params.max_tokens = Some(100);
    assert!(body(&chat).get("thinking").is_none(), "no room to think");
    chat.params.max_tokens = None;
    chat.tool_choice = ToolChoice::Required;
    assert!(body(&chat).get("thinking").is_none(), "a forced tool");
    chat.tool_choice = ToolChoice::Auto;
    assert!(
        body_of(&chat, "claude-3-haiku-20240307")
            .get("thinking")
            .is_none()
    );
}

#[test]
fn a_schema_goes_out_with_closed_objects() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.response_format = ResponseFormat::JsonSchema {
        name: "n".into(),
        schema: r#"{"type": "object", "properties": {"a": {"type": "object", "additionalProperties": true}, "b": {"const": {"type": "object"}}}}"#.into(),
        strict: Some(true),
    };
    let encoded = encode(&chat, "claude-haiku-4-5", false).unwrap();
    let got: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(
        got["output_config"],
        json!({"format": {"type": "json_schema", "schema": {
            "type": "object",
            "properties": {"a": {"type": "object", "additionalProperties": true}, "b": {"const": {"type": "object"}}},
            "additionalProperties": false
        }}})
    );
}

#[test]
fn what_cannot_be_asked_is_refused_by_field() {
    let user = || Chat::turns(vec![Message::text(Role::User, "x")]);
    let mut json_mode = user();
    json_mode.response_format = ResponseFormat::JsonObject;
    let mut regex = user();
    regex.response_format = ResponseFormat::Regex("a+".into());
    let mut logprobs = user();
    logprobs.params.logprobs = Some(1);
    let mut picture = user();
    if let nearfar_domain::chat::Prompt::Turns(turns) = &mut picture.prompt {
        turns[0].content.push(Part::Image {
            url: "data:image/png,raw".into(),
            detail: None,
        });
    }
    let mut arguments = user();
    if let nearfar_domain::chat::Prompt::Turns(turns) = &mut arguments.prompt {
        turns.push(Message {
            tool_calls: vec![call("a", "[1]")],
            ..Message::text(Role::Assistant, "")
        });
    }
    for (chat, field) in [
        (Chat::text("once"), "prompt"),
        (json_mode, "response_format"),
        (regex, "response_format"),
        (logprobs, "logprobs"),
        (picture, "messages.content.image_url"),
        (arguments, "messages.tool_calls"),
    ] {
        let error = encode(&chat, "claude-haiku-4-5", true).err().unwrap();
        assert_eq!(error.field, field);
    }
}

#[test]
fn thoughts_marks_and_failures_go_back_as_they_came() {
    let thought = |text: &str, origin, redacted| Thought {
        text: text.into(),
        signature: Some(Signature::new(origin, "Eq")),
        redacted,
        ..Thought::default()
    };
    let mark = |after, long| CacheMark { after, long };
    let mut chat = with_tool(Chat::turns(vec![
        Message {
            cache_marks: vec![mark(1, true)],
            ..Message::text(Role::System, "rules")
        },
        Message {
            cache_marks: vec![mark(1, false)],
            ..Message::text(Role::User, "x")
        },
        Message {
            thoughts: vec![
                thought("hm", Origin::Anthropic, false),
                thought("", Origin::Anthropic, true),
                thought("foreign", Origin::Gemini, false),
            ],
            tool_calls: vec![call("a", "{}")],
            ..Message::text(Role::Assistant, "")
        },
        Message {
            tool_failed: true,
            cache_marks: vec![mark(2, false)],
            ..tool_turn("a", "no lamp")
        },
    ]));
    chat.tool_cache_marks = vec![mark(1, false)];
    chat.params.reasoning_effort = Some("low".into());
    chat.passthrough = r#"{"metadata":{"user_id":"u"},"model":"evil"}"#.into();
    chat.passthrough_of = Origin::Anthropic;
    let got = body(&chat);
    let short = json!({"type": "ephemeral"});
    assert_eq!(
        got["system"],
        json!([{"type": "text", "text": "rules", "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    );
    assert_eq!(
        got["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": short}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "Eq"},
                {"type": "redacted_thinking", "data": "Eq"},
                {"type": "tool_use", "id": "a", "name": "light", "input": {}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "is_error": true,
                 "content": [{"type": "text", "text": "no lamp"}], "cache_control": short}
            ]}
        ])
    );
    assert_eq!(got["tools"][0]["cache_control"], short);
    assert_eq!(got["metadata"], json!({"user_id": "u"}));
    assert_eq!(got["model"], "claude-haiku-4-5");
    assert_eq!(
        got["thinking"]["budget_tokens"], 2048,
        "its own thinking is there, so it may think on"
    );
    if let nearfar_domain::chat::Prompt::Turns(turns) = &mut chat.prompt {
        turns[2].thoughts.clear();
    }
    assert!(
        body(&chat).get("thinking").is_none(),
        "in a call without it"
    );
    if let nearfar_domain::chat::Prompt::Turns(turns) = &mut chat.prompt {
        turns.push(Message::text(Role::User, "and now?"));
    }
    chat.params.reasoning_effort = None;
    chat.params.thinking_tokens = Some(3_000);
    assert_eq!(body(&chat)["thinking"]["budget_tokens"], 3_000);
}

#[test]
fn an_effort_in_anthropics_words_goes_as_it_came() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.passthrough_of = Origin::Anthropic;
    chat.passthrough =
        r#"{"output_config":{"effort":"max"},"thinking":{"type":"adaptive"}}"#.into();
    chat.params.reasoning_effort = Some("xhigh".into());
    let got = body(&chat);
    assert_eq!(got["output_config"], json!({"effort": "max"}));
    assert_eq!(got["thinking"], json!({"type": "adaptive"}));
    chat.response_format = ResponseFormat::JsonSchema {
        name: "answer".into(),
        schema: r#"{"type":"string"}"#.into(),
        strict: None,
    };
    let format = json!({"type": "json_schema", "schema": {"type": "string"}});
    let expected = json!({"effort": "max", "format": format});
    assert_eq!(body(&chat)["output_config"], expected);
}
