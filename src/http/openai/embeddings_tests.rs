//! Requests for vectors as clients send them, and the answers' bytes.

#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::Prompt;
use nearfar_domain::events::Usage;
use nearfar_domain::explain::Ability;

use super::*;

fn read(body: Value) -> Result<OpenaiRequest, Problem> {
    request(body.to_string().as_bytes())
}

fn inputs(body: Value) -> Inputs {
    let request = read(body).unwrap();
    assert_eq!(request.needs(), [Ability::Embeddings]);
    match request.chat.prompt {
        Prompt::Inputs(inputs) => inputs,
        _ => panic!("not inputs"),
    }
}

#[test]
fn every_form_of_input_is_read() {
    let text = |text: &str| Input::Text(text.into());
    for (input, expected) in [
        (json!("a"), vec![text("a")]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([1, 2]), vec![Input::Tokens(vec![1, 2])]),
        (
            json!([[1], [2, 3]]),
            vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])],
        ),
    ] {
        let read = inputs(json!({"model": "m", "input": input}));
        assert!(read.items == expected, "{input}");
    }
    let all = json!({
        "model": "local/x", "input": "a", "encoding_format": "base64", "dimensions": 64,
        "input_type": "query", "user": "u", "nearfar": {"privacy": "device"},
    });
    let request = read(all).unwrap();
    assert_eq!(request.model, "local/x");
    assert!(request.base64 && !request.stream);
    assert_eq!(request.chat.passthrough, r#"{"user":"u"}"#);
    assert_eq!(request.tags.unwrap()["privacy"], "device");
    let Prompt::Inputs(inputs) = request.chat.prompt else {
        panic!("not inputs")
    };
    assert_eq!(inputs.dimensions, Some(64));
    assert_eq!(inputs.purpose, Some(Purpose::Query));
}

#[test]
fn what_is_wrong_is_named_with_the_mend() {
    for (body, field) in [
        (json!({"model": "m"}), "input"),
        (json!({"input": 3}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": ["a", ""]}), "input[1]"),
        (json!({"input": ["a", 3]}), "input[1]"),
        (json!({"input": ["a", [3]]}), "input"),
        (json!({"input": [[3], []]}), "input[1]"),
        (json!({"input": [1, "a"]}), "input"),
        (json!({"input": [1, -1]}), "input"),
        (json!({"input": [1, 5_000_000_000_u64]}), "input"),
        (json!({"input": vec!["a"; MAX_INPUTS + 1]}), "input"),
        (
            json!({"input": "a", "encoding_format": "int8"}),
            "encoding_format",
        ),
        (json!({"input": "a", "dimensions": 0}), "dimensions"),
        (json!({"input": "a", "input_type": "poem"}), "input_type"),
    ] {
        let problem = read(body.clone()).err().unwrap();
        let told = problem.openai_body();
        assert_eq!(told["error"]["param"], field, "{body}: {told}");
        assert_eq!(told["error"]["type"], "invalid_request_error");
    }
}

#[test]
fn answers_have_openais_shape_in_both_encodings() {
    let head = Head {
        id: "embd-1".into(),
        created: 1,
        bill: crate::account::Bill::default(),
        model: "local/x".into(),
    };
    let answer = Collected {
        vectors: vec![vec![0.1, -2.5], vec![1.0, 0.0]],
        usage: Usage {
            prompt: Some(9),
            ..Usage::default()
        },
        ..Collected::default()
    };
    let expected = json!({
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.1, -2.5]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.0]},
        ],
        "model": "local/x",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    });
    assert_eq!(whole(&head, &answer, false), expected);
    let packed = whole(&head, &answer, true);
    // python3 -c "import base64,struct; print(base64.b64encode(struct.pack('<2f',.1,-2.5)))"
    assert_eq!(packed["data"][0]["embedding"], "zczMPQAAIMA=");
    assert_eq!(packed["data"][1]["embedding"], "AACAPwAAAAA=");
}

#[test]
fn base64_pads_as_it_should() {
    assert_eq!(as_base64(&[]), "");
    assert_eq!(as_base64(&[1.0]), "AACAPw==");
    assert_eq!(as_base64(&[1.0, 1.0, 1.0]), "AACAPwAAgD8AAIA/");
}
