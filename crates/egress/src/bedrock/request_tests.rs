#![allow(clippy::unwrap_used)]
use nearfar_domain::chat::{Chat, Message, Part, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use nearfar_domain::thought::{CacheMark, Origin, Signature, Thought};
use serde_json::{Value, json};

use super::encode;

const CLAUDE: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

fn body(chat: &Chat, model: &str) -> Value {
    serde_json::from_slice(&encode(chat, model, true).unwrap().body).unwrap()
}

fn tool(name: &str) -> Tool {
    Tool {
        name: name.into(),
        description: Some("does it".into()),
        parameters: Some(r#"{"type":"object"}"#.into()),
        strict: None,
    }
}

fn rich() -> Chat {
    let call = |id: &str| ToolCall {
        id: id.into(),
        name: "light".into(),
        arguments: r#"{"on":true}"#.into(),
        signature: None,
    };
    let result = |id: &str, text: &str| Message {
        tool_call_id: Some(id.into()),
        ..Message::text(Role::Tool, text)
    };
    Chat::turns(vec![
        Message {
            cache_marks: vec![CacheMark {
                after: 1,
                long: false,
            }],
            ..Message::text(Role::System, "be brief")
        },
        Message {
            content: vec![
                Part::Text("look".into()),
                Part::Image {
                    url: "data:image/jpeg;base64,AA".into(),
                    detail: None,
                },
            ],
            ..Message::text(Role::User, "")
        },
        Message {
            thoughts: vec![Thought {
                text: "hm".into(),
                signature: Some(Signature::new(Origin::Anthropic, "Eq")),
                ..Thought::default()
            }],
            tool_calls: vec![call("1"), call("2")],
            ..Message::text(Role::Assistant, " ")
        },
        result("1", "done"),
        Message {
            tool_failed: true,
            ..result("2", "no lamp")
        },
        Message::text(Role::User, "so?"),
    ])
}

#[test]
fn a_conversation_with_calls_pictures_and_marks() {
    let mut chat = rich();
    chat.tools.push(tool("other"));
    chat.tool_cache_marks = vec![CacheMark {
        after: 1,
        long: true,
    }];
    chat.tool_choice = ToolChoice::Named("other".into());
    let encoded = encode(&chat, CLAUDE, true).unwrap();
    assert_eq!(encoded.path, "/model/{model}/converse-stream");
    assert_eq!(
        body(&chat, CLAUDE),
        json!({
            "messages": [
                {"role": "user", "content": [
                    {"text": "look"},
                    {"image": {"format": "jpeg", "source": {"bytes": "AA"}}}
                ]},
                {"role": "assistant", "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Eq"}}},
                    {"toolUse": {"toolUseId": "1", "name": "light", "input": {"on": true}}},
                    {"toolUse": {"toolUseId": "2", "name": "light", "input": {"on": true}}}
                ]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "1", "content": [{"text": "done"}], "status": "success"}},
                    {"toolResult": {"toolUseId": "2", "content": [{"text": "no lamp"}], "status": "error"}},
                    {"text": "so?"}
                ]}
            ],
            "system": [{"text": "be brief"}, {"cachePoint": {"type": "default"}}],
            "toolConfig": {
                "tools": [
                    {"toolSpec": {"name": "other", "inputSchema": {"json": {"type": "object"}}, "description": "does it"}},
                    {"cachePoint": {"type": "default", "ttl": "1h"}},
                    {"toolSpec": {"name": "light", "inputSchema": {"json": {"type": "object"}}}}
                ],
                "toolChoice": {"tool": {"name": "other"}}
            }
        })
    );
}

#[test]
fn parameters_have_their_own_names() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.params.temperature = Some(0.7);
    chat.params.top_p = Some(0.9);
    chat.params.top_k = Some(40);
    chat.params.max_tokens = Some(99);
    chat.params.stop = vec!["end".into(), "\n".into()];
    let got = body(&chat, "amazon.nova-lite-v1:0");
    assert_eq!(
        got["inferenceConfig"],
        json!({"maxTokens": 99, "temperature": 0.7, "topP": 0.9, "stopSequences": ["end"]})
    );
    assert!(got.get("additionalModelRequestFields").is_none());
    let got = body(&chat, CLAUDE);
    assert!(got["inferenceConfig"].get("topP").is_none());
    assert_eq!(got["additionalModelRequestFields"], json!({"top_k": 40}));
    chat.params.max_tokens = Some(8_000);
    chat.params.reasoning_effort = Some("low".into());
    let got = body(&chat, CLAUDE);
    assert_eq!(
        got["inferenceConfig"],
        json!({"maxTokens": 8000, "stopSequences": ["end"]})
    );
    assert_eq!(
        got["additionalModelRequestFields"],
        json!({"thinking": {"type": "enabled", "budget_tokens": 2048}})
    );
}

#[test]
fn forms_and_what_has_none() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.response_format = ResponseFormat::JsonSchema {
        name: "n".into(),
        schema: r#"{"type":"object"}"#.into(),
        strict: None,
    };
    assert_eq!(
        body(&chat, CLAUDE)["outputConfig"],
        json!({"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {
            "name": "n", "schema": r#"{"type":"object","additionalProperties":false}"#
        }}}})
    );
    let field = |chat: &Chat| encode(chat, CLAUDE, true).err().unwrap().field;
    chat.response_format = ResponseFormat::JsonObject;
    assert_eq!(field(&chat), "response_format");
    chat.response_format = ResponseFormat::Text;
    chat.params.logprobs = Some(1);
    assert_eq!(field(&chat), "logprobs");
    assert_eq!(field(&Chat::text("Once")), "prompt");
    let mut chat = rich();
    if let nearfar_domain::chat::Prompt::Turns(turns) = &mut chat.prompt {
        turns[1].content[1] = Part::Image {
            url: "https://example.com/a.png".into(),
            detail: None,
        };
    }
    assert_eq!(field(&chat), "messages.content.image_url");
}

#[test]
fn no_tools_when_none_may_be_called() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.tools.push(tool("a"));
    chat.tool_choice = ToolChoice::None;
    assert!(body(&chat, CLAUDE).get("toolConfig").is_none());
    chat.tool_choice = ToolChoice::Required;
    assert_eq!(
        body(&chat, CLAUDE)["toolConfig"]["toolChoice"],
        json!({"any": {}})
    );
}
