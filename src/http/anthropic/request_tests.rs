#![allow(clippy::unwrap_used)]
use nearfar_domain::chat::{Part, Prompt, Role, ToolChoice};
use nearfar_domain::explain::Ability;
use nearfar_domain::thought::{CacheMark, Signature};

use super::*;
use crate::http::asked::needs;
use crate::http::dialect::Dialect;

fn read(body: &Value) -> Result<Understood, Problem> {
    message(body.to_string().as_bytes())
}

fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
    body[name] = value;
    body
}

fn at_fault(body: &Value) -> String {
    let problem = read(body).err().unwrap();
    let told = problem.body(Dialect::Anthropic, None);
    assert_eq!(told["error"]["type"], "invalid_request_error");
    let message = told["error"]["message"].as_str().unwrap();
    let param = told["nearfar"]["param"].as_str().unwrap_or("-").to_owned();
    assert!(message.contains(&param), "{param}: {message}");
    param
}

#[test]
fn a_conversation_is_read_block_by_block() {
    let body = json!({
        "model": "anthropic/claude-x", "max_tokens": 100, "stream": true,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"},
                 "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "Eq="},
                {"type": "redacted_thinking", "data": "Em="},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"b": 1, "a": 2}},
                {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a cat"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true, "content": [
                    {"type": "text", "text": "no"},
                    {"type": "image", "source": {"type": "url", "url": "https://x.example/b.png"}},
                ], "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "and now?"},
            ]},
        ],
        "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"},
                   "cache_control": {"type": "ephemeral"}}],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": true},
        "stop_sequences": ["END"], "temperature": 0.5, "top_k": 5,
        "metadata": {"user_id": "u"}, "service_tier": "auto", "nearfar": {"privacy": "site"},
    });
    let request = read(&body).unwrap();
    assert!(request.stream);
    assert_eq!(request.tags.unwrap()["privacy"], "site");
    let chat = request.chat;
    let Prompt::Turns(turns) = &chat.prompt else {
        panic!("turns")
    };
    let roles: Vec<Role> = turns.iter().map(|turn| turn.role).collect();
    assert_eq!(
        roles,
        [
            Role::System,
            Role::User,
            Role::Assistant,
            Role::Tool,
            Role::Tool,
            Role::User
        ]
    );
    let mark = |after, long| CacheMark { after, long };
    assert_eq!(turns[0].cache_marks, [mark(1, true)]);
    assert_eq!(turns[1].cache_marks, [mark(3, false)]);
    let image = |url: &str| Part::Image {
        url: url.into(),
        detail: None,
    };
    assert!(turns[1].content[1] == image("data:image/png;base64,AA"));
    assert!(turns[1].content[2] == image("https://x.example/a.png"));
    let said = &turns[2];
    let signed = |text: &str| Some(Signature::new(Origin::Anthropic, text));
    assert_eq!(said.thoughts[0].text, "hm");
    assert!(said.thoughts[0].signature == signed("Eq="));
    assert!(said.thoughts[1].redacted && said.thoughts[1].signature == signed("Em="));
    assert_eq!(said.tool_calls[0].arguments, r#"{"b":1,"a":2}"#);
    assert_eq!(turns[3].tool_call_id.as_deref(), Some("toolu_1"));
    assert!(!turns[3].tool_failed && turns[4].tool_failed);
    assert_eq!(turns[4].content.len(), 2);
    assert_eq!(turns[4].cache_marks, [mark(2, false)]);
    assert_eq!(turns[5].plain_text(), "and now?");
    assert_eq!(chat.tool_cache_marks, [mark(1, false)]);
    assert!(chat.tool_choice == ToolChoice::Named("look".into()));
    assert_eq!(chat.params.parallel_tool_calls, Some(false));
    assert_eq!(chat.params.stop, ["END"]);
    assert_eq!(chat.params.max_tokens, Some(100));
    assert_eq!(chat.passthrough_of, Origin::Anthropic);
    assert_eq!(
        chat.passthrough,
        r#"{"metadata":{"user_id":"u"},"service_tier":"auto"}"#
    );
    let wanted = [Ability::Tools, Ability::ForcedTools, Ability::Vision];
    assert_eq!(needs(&chat), wanted);
}

#[test]
fn what_another_maker_signed_finds_its_way_back() {
    let gemini = Signature::new(Origin::Gemini, "Cg");
    let body = with(
        "messages",
        json!([{"role": "assistant", "content": [
            {"type": "thinking", "thinking": "unsigned", "signature": ""},
            {"type": "tool_use", "id": "1", "name": "f", "input": {}},
            {"type": "redacted_thinking", "data": gemini.shown(Origin::Anthropic)},
        ]}]),
    );
    let Prompt::Turns(turns) = read(&body).unwrap().chat.prompt else {
        panic!("turns")
    };
    assert!(turns[0].thoughts[0].signature.is_none());
    assert!(turns[0].tool_calls[0].signature == Some(gemini));
}

#[test]
fn thinking_effort_and_format_are_understood_and_kept_for_anthropic() {
    let chat = |name: &str, value: Value| read(&with(name, value)).unwrap().chat;
    let enabled = json!({"type": "enabled", "budget_tokens": 2048, "display": "omitted"});
    let read = chat("thinking", enabled.clone());
    assert_eq!(read.params.enable_thinking, Some(true));
    assert_eq!(read.params.thinking_tokens, Some(2048));
    let kept: Value = serde_json::from_str(&read.passthrough).unwrap();
    assert_eq!(kept["thinking"], enabled);
    let read = chat("thinking", json!({"type": "disabled"}));
    assert_eq!(read.params.enable_thinking, Some(false));
    let read = chat("thinking", json!({"type": "adaptive"}));
    assert_eq!(read.params.enable_thinking, None);
    assert_eq!(read.passthrough, r#"{"thinking":{"type":"adaptive"}}"#);

    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    let format = json!({"type": "json_schema", "schema": schema});
    for (name, value) in [
        ("output_config", json!({"format": format})),
        ("output_format", format.clone()),
    ] {
        let read = chat(name, value);
        let ResponseFormat::JsonSchema { schema: found, .. } = &read.response_format else {
            panic!("a schema")
        };
        assert_eq!(*found, schema.to_string());
        assert_eq!(read.passthrough, "");
    }
    let read = chat("output_config", json!({"effort": "max", "format": format}));
    assert_eq!(read.params.reasoning_effort.as_deref(), Some("xhigh"));
    assert_eq!(read.passthrough, r#"{"output_config":{"effort":"max"}}"#);
}

#[test]
fn tool_choices_are_read() {
    let mut body = with("tools", json!([{"name": "f", "input_schema": {}}]));
    for (choice, expected) in [
        (json!({"type": "auto"}), ToolChoice::Auto),
        (json!({"type": "any"}), ToolChoice::Required),
        (json!({"type": "none"}), ToolChoice::None),
        (
            json!({"type": "tool", "name": "f"}),
            ToolChoice::Named("f".into()),
        ),
    ] {
        body["tool_choice"] = choice;
        let chat = read(&body).unwrap().chat;
        assert!(chat.tool_choice == expected);
        assert_eq!(chat.params.parallel_tool_calls, None);
    }
}

#[test]
fn every_error_names_its_field() {
    let user = |content: Value| with("messages", json!([{"role": "user", "content": content}]));
    let block = |block: Value| user(json!([block]));
    for (body, field) in [
        (json!({"max_tokens": 1}), "messages"),
        (with("messages", json!([])), "messages"),
        (
            with("messages", json!([{"role": "user"}])),
            "messages[0].content",
        ),
        (
            with("messages", json!([{"role": "robot", "content": "x"}])),
            "messages[0].role",
        ),
        (user(json!(3)), "messages[0].content"),
        (
            block(json!({"type": "audio"})),
            "messages[0].content[0].type",
        ),
        (
            block(json!({"type": "text"})),
            "messages[0].content[0].text",
        ),
        (
            block(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})),
            "messages[0].content[0].source.type",
        ),
        (
            block(
                json!({"type": "image", "source": {"type": "base64", "media_type": "a,b", "data": ""}}),
            ),
            "messages[0].content[0].source.media_type",
        ),
        (
            block(
                json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1d"}}),
            ),
            "messages[0].content[0].cache_control",
        ),
        (
            block(json!({"type": "tool_result"})),
            "messages[0].content[0].tool_use_id",
        ),
        (with("temperature", json!(9)), "temperature"),
        (with("max_tokens", json!(0)), "max_tokens"),
        (with("stop_sequences", json!([""])), "stop_sequences"),
        (with("system", json!([{"type": "image"}])), "system[0].type"),
        (
            with("thinking", json!({"type": "enabled"})),
            "thinking.budget_tokens",
        ),
        (
            with("output_config", json!({"effort": "huge"})),
            "output_config.effort",
        ),
        (
            with("output_format", json!({"type": "xml"})),
            "output_format.type",
        ),
        (
            with("output_config", json!({"format": {"type": "json_schema"}})),
            "output_config.format.schema",
        ),
        (
            with(
                "tools",
                json!([{"type": "web_search_20250305", "name": "w"}]),
            ),
            "tools[0].type",
        ),
        (
            with("tools", json!([{"name": "f"}])),
            "tools[0].input_schema",
        ),
        (
            with("tools", json!([{"name": "f g", "input_schema": {}}])),
            "tools[0].name",
        ),
        (with("tool_choice", json!({"type": "any"})), "tool_choice"),
        (
            with("tool_choice", json!({"type": "tool", "name": "g"})),
            "tool_choice.name",
        ),
        (
            with("tool_choice", json!({"type": "some"})),
            "tool_choice.type",
        ),
    ] {
        assert_eq!(at_fault(&body), field, "{body}");
    }
}
