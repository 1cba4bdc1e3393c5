#![allow(clippy::unwrap_used)]
use nearfar_domain::chat::{Chat, Message, Part, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use nearfar_domain::thought::{Origin, Signature, Thought};
use serde_json::{Value, json};

use super::encode;

fn body(chat: &Chat, model: &str) -> Value {
    serde_json::from_slice(&encode(chat, model, true, false).unwrap().body).unwrap()
}

fn call(id: &str, signature: Option<&str>) -> ToolCall {
    ToolCall {
        id: id.into(),
        name: format!("f{id}"),
        arguments: r#"{"on":true}"#.into(),
        signature: signature.map(|data| Signature::new(Origin::Gemini, data)),
    }
}

fn result(id: &str, text: &str) -> Message {
    Message {
        tool_call_id: Some(id.into()),
        ..Message::text(Role::Tool, text)
    }
}

fn rich() -> Chat {
    let mut chat = Chat::turns(vec![
        Message::text(Role::System, "be brief"),
        Message {
            content: vec![
                Part::Text("look".into()),
                Part::Image {
                    url: "data:image/png;base64,AA".into(),
                    detail: Some("low".into()),
                },
                Part::Image {
                    url: "https://example.com/cat.jpg".into(),
                    detail: None,
                },
            ],
            ..Message::text(Role::User, "")
        },
        Message {
            tool_calls: vec![call("1", Some("Cg1")), call("2", None)],
            ..Message::text(Role::Assistant, "I look.")
        },
        result("1", r#"{"ok":1}"#),
        Message::text(Role::Developer, "and kind"),
        Message {
            tool_failed: true,
            ..result("2", "no lamp")
        },
        Message::text(Role::User, "so?"),
    ]);
    chat.tools.push(Tool {
        name: "f1".into(),
        description: Some("switches".into()),
        parameters: Some(
            r##"{"type":"object","properties":{"on":{"$ref":"#/$defs/b"}},"$defs":{"b":{"type":"boolean"}}}"##
                .into(),
        ),
        strict: Some(true),
    });
    chat.tools.push(Tool {
        name: "f2".into(),
        description: None,
        parameters: Some(r#"{"type":"object","properties":{}}"#.into()),
        strict: None,
    });
    chat
}

#[test]
fn a_conversation_with_calls_and_pictures() {
    let mut chat = rich();
    chat.tool_choice = ToolChoice::Named("f1".into());
    chat.passthrough = r#"{"user":"openai's own"}"#.into();
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "be brief"}, {"text": "and kind"}]},
        "contents": [
            {"role": "user", "parts": [
                {"text": "look"},
                {"inlineData": {"mimeType": "image/png", "data": "AA"}},
                {"fileData": {"fileUri": "https://example.com/cat.jpg", "mimeType": "image/jpeg"}}
            ]},
            {"role": "model", "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "f1", "args": {"on": true}, "id": "1"}, "thoughtSignature": "Cg1"},
                {"functionCall": {"name": "f2", "args": {"on": true}, "id": "2"}}
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "f1", "response": {"output": {"ok": 1}}, "id": "1"}},
                {"functionResponse": {"name": "f2", "response": {"error": "no lamp"}, "id": "2"}},
                {"text": "so?"}
            ]}
        ],
        "tools": [{"functionDeclarations": [
            {"name": "f1", "description": "switches", "parameters": {
                "type": "OBJECT", "properties": {"on": {"type": "BOOLEAN"}}
            }},
            {"name": "f2"}
        ]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f1"]}}
    });
    assert_eq!(body(&chat, "gemini-2.5-flash"), expected);
    assert_eq!(body(&chat, "gemini-3-pro-preview"), expected);
    let encoded = encode(&chat, "gemini-2.5-flash", true, true).unwrap();
    assert_eq!(
        encoded.path,
        "/models/{model}:streamGenerateContent?alt=sse"
    );
    let text = String::from_utf8(encoded.body).unwrap();
    assert!(!text.contains("\"id\""), "Vertex knows no ids");
    let whole = encode(&chat, "m", false, false).unwrap();
    assert_eq!(whole.path, "/models/{model}:generateContent");
}

#[test]
fn signatures_go_back_to_their_author_alone() {
    let thought = |origin, data: &str| Thought {
        text: "summary".into(),
        signature: Some(Signature::new(origin, data)),
        after: 1,
        ..Thought::default()
    };
    let chat = Chat::turns(vec![
        Message::text(Role::User, "hi"),
        Message {
            thoughts: vec![
                thought(Origin::Gemini, "Cg"),
                thought(Origin::Anthropic, "Eq"),
            ],
            tool_calls: vec![ToolCall {
                signature: Some(Signature::new(Origin::Anthropic, "foreign")),
                ..call("1", None)
            }],
            ..Message::text(Role::Assistant, "hm")
        },
        result("1", "done"),
    ]);
    let got = body(&chat, "gemini-3-flash-preview");
    assert_eq!(
        got["contents"][1]["parts"],
        json!([
            {"text": "hm"},
            {"text": "", "thoughtSignature": "Cg"},
            {"functionCall": {"name": "f1", "args": {"on": true}, "id": "1"},
             "thoughtSignature": "skip_thought_signature_validator"}
        ])
    );
    let older = body(&chat, "gemini-2.5-pro").to_string();
    assert!(!older.contains("skip_thought") && !older.contains("Eq"));
    assert!(!older.contains("summary") && !older.contains("foreign"));
}

#[test]
fn parameters_have_their_own_names() {
    let mut chat = Chat::turns(vec![Message::text(Role::Assistant, "Hello, I am here.")]);
    chat.params.temperature = Some(0.7);
    chat.params.top_p = Some(0.9);
    chat.params.top_k = Some(40);
    chat.params.max_tokens = Some(99);
    chat.params.stop = vec!["end".into()];
    chat.params.seed = Some(-3);
    chat.params.presence_penalty = Some(0.5);
    chat.params.frequency_penalty = Some(0.25);
    chat.params.logprobs = Some(2);
    chat.params.reasoning_effort = Some("low".into());
    chat.passthrough = r#"{"safetySettings":[],"contents":"smuggled"}"#.into();
    chat.passthrough_of = Origin::Gemini;
    let got = body(&chat, "gemini-2.5-flash");
    assert_eq!(
        got["generationConfig"],
        json!({
            "temperature": 0.7, "topP": 0.9, "topK": 40, "maxOutputTokens": 99,
            "stopSequences": ["end"], "seed": 2_147_483_644, "presencePenalty": 0.5,
            "frequencyPenalty": 0.25, "responseLogprobs": true, "logprobs": 2,
            "thinkingConfig": {"includeThoughts": true, "thinkingBudget": 1024}
        })
    );
    assert_eq!(got["safetySettings"], json!([]));
    assert_eq!(
        got["contents"][0]["role"], "user",
        "a turn of the user is first"
    );
    assert_eq!(got["contents"].as_array().unwrap().len(), 2);
}

#[test]
fn thinking_is_asked_as_the_model_knows_it() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    let thinking =
        |chat: &Chat, model| body(chat, model)["generationConfig"]["thinkingConfig"].clone();
    assert_eq!(thinking(&chat, "gemini-2.5-pro"), Value::Null);
    chat.params.enable_thinking = Some(false);
    for (model, expected) in [
        ("gemini-2.5-pro", json!({"thinkingBudget": 128})),
        ("gemini-2.5-flash", json!({"thinkingBudget": 0})),
        ("gemini-3-pro-preview", json!({"thinkingLevel": "low"})),
        (
            "gemini-3-flash-preview",
            json!({"thinkingLevel": "minimal"}),
        ),
        ("gemini-2.0-flash", Value::Null),
    ] {
        assert_eq!(thinking(&chat, model), expected, "{model}");
    }
    chat.params.enable_thinking = None;
    chat.params.reasoning_effort = Some("medium".into());
    for (model, expected) in [
        (
            "gemini-2.5-pro",
            json!({"includeThoughts": true, "thinkingBudget": 8192}),
        ),
        (
            "gemini-3-pro-preview",
            json!({"includeThoughts": true, "thinkingLevel": "high"}),
        ),
    ] {
        assert_eq!(thinking(&chat, model), expected, "{model}");
    }
    chat.params.thinking_tokens = Some(2_000);
    assert_eq!(
        thinking(&chat, "gemini-2.5-pro"),
        json!({"includeThoughts": true, "thinkingBudget": 2000})
    );
}

#[test]
fn forms_of_answers() {
    let mut chat = Chat::turns(vec![Message::text(Role::User, "x")]);
    chat.response_format = ResponseFormat::JsonSchema {
        name: "n".into(),
        schema:
            r#"{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}"#
                .into(),
        strict: Some(true),
    };
    assert_eq!(
        body(&chat, "gemini-2.5-flash")["generationConfig"],
        json!({"responseMimeType": "application/json", "responseSchema": {
            "type": "OBJECT", "properties": {"a": {"type": "STRING"}}
        }})
    );
    chat.response_format = ResponseFormat::Choice(vec!["a".into(), "b".into()]);
    assert_eq!(
        body(&chat, "gemini-2.5-flash")["generationConfig"],
        json!({"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a", "b"]}})
    );
    chat.response_format = ResponseFormat::JsonObject;
    chat.tools = rich().tools;
    assert!(encode(&chat, "gemini-3-pro", true, false).is_ok());
    let refused = encode(&chat, "gemini-2.5-flash", true, false)
        .err()
        .unwrap();
    assert_eq!(refused.field, "response_format");
    chat.tools.clear();
    for format in [
        ResponseFormat::Regex("a".into()),
        ResponseFormat::Grammar("g".into()),
        ResponseFormat::JsonSchema {
            name: "n".into(),
            schema: "{".into(),
            strict: None,
        },
    ] {
        chat.response_format = format;
        let refused = encode(&chat, "gemini-2.5-flash", true, false)
            .err()
            .unwrap();
        assert_eq!(refused.field, "response_format");
    }
    let raw = encode(&Chat::text("Once"), "m", true, false).err().unwrap();
    assert_eq!(raw.field, "prompt");
}

#[test]
fn what_is_not_json_is_named() {
    let mut chat = rich();
    chat.tools[0].parameters = Some("{".into());
    assert_eq!(
        encode(&chat, "m", true, false).err().unwrap().field,
        "tools"
    );
    let mut chat = rich();
    if let nearfar_domain::chat::Prompt::Turns(turns) = &mut chat.prompt {
        turns[2].tool_calls[0].arguments = "[1]".into();
    }
    assert_eq!(
        encode(&chat, "m", true, false).err().unwrap().field,
        "messages.tool_calls"
    );
}
