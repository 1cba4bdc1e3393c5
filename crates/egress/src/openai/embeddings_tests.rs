//! What goes out for vectors, and what is made of what comes back.

#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::Chat;
use nearfar_domain::embed::{Input, Inputs, Purpose};
use nearfar_domain::events::{Event, FailureKind};
use serde_json::{Value, json};

use super::{Embeddings, encode};

fn ask(items: Vec<Input>) -> Chat {
    Chat::inputs(Inputs {
        items,
        dimensions: Some(256),
        purpose: Some(Purpose::Query),
    })
}

#[test]
fn a_request_is_written_as_openai_has_it() {
    let mut chat = ask(vec![Input::Text("a".into()), Input::Text("b".into())]);
    chat.passthrough = r#"{"user":"u","input":"smuggled","encoding_format":"base64"}"#.into();
    let habits = crate::presets::habits_at("https://api.openai.com/v1");
    let encoded = encode(&chat, "text-embedding-3-small", true, habits).unwrap();
    assert_eq!(encoded.path, "/embeddings");
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    let expected = json!({
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 256,
        "encoding_format": "float",
        "user": "u",
    });
    assert_eq!(body, expected);
    let encoded = encode(
        &chat,
        "m",
        true,
        crate::presets::habits_at("http://127.0.0.1:8080/v1"),
    )
    .unwrap();
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(body["input_type"], "query");
    let mixed = ask(vec![Input::Text("a".into()), Input::Tokens(vec![1])]);
    let refused = encode(&mixed, "m", true, habits).err().unwrap();
    assert_eq!(refused.field, "input");
}

fn read(body: &Value, inputs: usize) -> Result<Vec<Event>, FailureKind> {
    let mut events = Vec::new();
    let mut decoder = Embeddings::new("p", "m", inputs);
    decoder
        .whole(body.to_string().as_bytes(), &mut events)
        .map_err(|failure| failure.kind)?;
    assert!(decoder.is_complete());
    Ok(events)
}

#[test]
fn vectors_come_in_the_order_of_the_inputs() {
    let body = json!({"object": "list", "model": "m-1", "data": [
        {"object": "embedding", "index": 1, "embedding": [0.5, 1]},
        {"object": "embedding", "index": 0, "embedding": [0.25, -1]},
    ], "usage": {"prompt_tokens": 7, "total_tokens": 7}});
    let events = read(&body, 2).unwrap();
    let [
        Event::Started { model },
        Event::Vectors(vectors),
        Event::Finished { usage, .. },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(model, "m-1");
    assert_eq!(*vectors, [vec![0.25, -1.0], vec![0.5, 1.0]]);
    assert_eq!((usage.prompt, usage.completion), (Some(7), Some(0)));
}

#[test]
fn what_is_not_one_good_vector_per_input_is_refused() {
    let item = |index: usize, vector: Value| json!({"index": index, "embedding": vector});
    for data in [
        json!([item(0, json!([1]))]),
        json!([item(0, json!([1])), item(0, json!([1]))]),
        json!([item(0, json!([1])), item(2, json!([1]))]),
        json!([item(0, json!([1])), item(1, json!([1, 2]))]),
        json!([item(0, json!([])), item(1, json!([]))]),
        json!([item(0, json!([1])), item(1, json!(["x"]))]),
        json!([item(0, json!([1])), item(1, json!([1e300]))]),
    ] {
        let kind = read(&json!({"data": data}), 2).unwrap_err();
        assert_eq!(kind, FailureKind::Malformed, "{data}");
    }
    let error = json!({"error": {"message": "no such model", "code": "model_not_found"}});
    assert_eq!(read(&error, 1).unwrap_err(), FailureKind::ModelMissing);
}
