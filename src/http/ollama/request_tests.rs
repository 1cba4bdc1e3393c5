#![allow(clippy::unwrap_used)]
use nearfar_domain::chat::ResponseFormat;
use serde_json::json;

use super::*;

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn param(result: Result<Read, Problem>) -> String {
    let problem = result.err().unwrap().openai_body();
    problem["error"]["param"].as_str().unwrap().to_owned()
}

#[test]
fn a_chat_streams_unless_told_otherwise() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let read = chat(&body(
        json!({"model": "concierge:latest", "messages": messages}),
    ))
    .unwrap();
    assert!(read.understood.stream && !read.empty);
    assert_eq!(read.keep_alive, KeepAlive::Unsaid);
    assert_eq!(read.understood.model, "concierge");
    assert!(read.understood.chat.passthrough.is_empty());
    let read = chat(&body(json!({
        "model": "openai/gpt-4o-mini", "messages": messages, "stream": false, "format": "json",
        "keep_alive": 0, "unheard_of": 1, "nearfar": {"privacy": "device"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    })))
    .unwrap();
    assert!(!read.understood.stream);
    assert_eq!(read.keep_alive, KeepAlive::Drop);
    assert_eq!(read.understood.model, "openai/gpt-4o-mini");
    assert_eq!(read.understood.chat.tools[0].name, "f");
    assert!(matches!(
        read.understood.chat.response_format,
        ResponseFormat::JsonObject
    ));
    assert_eq!(read.understood.tags.unwrap()["privacy"], "device");
    assert!(
        read.understood.chat.passthrough.is_empty(),
        "what Ollama's clients send is no field of another dialect"
    );
}

#[test]
fn nothing_to_answer_is_a_load() {
    for messages in [json!([]), Value::Null] {
        assert!(
            chat(&body(json!({"model": "x", "messages": messages})))
                .unwrap()
                .empty
        );
    }
    assert!(
        generate(&body(json!({"model": "x", "prompt": ""})))
            .unwrap()
            .empty
    );
    assert!(
        generate(&body(json!({"model": "x", "system": "be short"})))
            .unwrap()
            .empty
    );
    assert!(
        embed(&body(json!({"model": "x", "input": []})))
            .unwrap()
            .empty
    );
    assert!(embeddings(&body(json!({"model": "x"}))).unwrap().empty);
}

#[test]
fn a_prompt_is_a_turn_and_a_raw_one_is_text() {
    let read = generate(&body(json!({
        "model": "x", "prompt": "what is it", "system": "be short", "images": ["/9j/4AAQSkZJRg=="],
        "suffix": "", "context": [], "options": {"num_predict": 3}, "think": false,
    })))
    .unwrap();
    let Prompt::Turns(turns) = &read.understood.chat.prompt else {
        unreachable!()
    };
    assert_eq!((turns[0].role, turns[1].role), (Role::System, Role::User));
    assert!(read.understood.chat.has_images());
    assert_eq!(read.understood.chat.params.max_tokens, Some(3));
    assert_eq!(read.understood.chat.params.enable_thinking, Some(false));
    let raw = generate(&body(
        json!({"model": "x", "prompt": "One two", "raw": true}),
    ))
    .unwrap();
    assert!(matches!(raw.understood.chat.prompt, Prompt::Text(text) if text == "One two"));
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (field, value) in [
        ("suffix", json!("end")),
        ("template", json!("{{ .Prompt }}")),
        ("context", json!([1, 2])),
    ] {
        let sent = body(json!({"model": "x", "prompt": "a", field: value}));
        assert_eq!(param(generate(&sent)), field);
    }
    assert_eq!(param(chat(&body(json!({"messages": 3})))), "messages");
    assert_eq!(param(chat(&body(json!({"stream": "yes"})))), "stream");
    assert_eq!(param(embed(&body(json!({"input": [1]})))), "input[0]");
    assert_eq!(param(embed(&body(json!({"input": ["a", ""]})))), "input[1]");
    let many = vec!["x"; MAX_INPUTS + 1];
    assert_eq!(param(embed(&body(json!({"input": many})))), "input");
}

#[test]
fn vectors_are_never_a_stream() {
    let read = embed(&body(
        json!({"model": "x", "input": ["a", "b"], "dimensions": 4}),
    ))
    .unwrap();
    let Prompt::Inputs(inputs) = &read.understood.chat.prompt else {
        unreachable!()
    };
    assert_eq!((inputs.items.len(), inputs.dimensions), (2, Some(4)));
    assert!(!read.understood.stream);
    assert_eq!(read.kind, Kind::Embed);
}
