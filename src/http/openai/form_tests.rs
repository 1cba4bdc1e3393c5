//! Every name for the answer's form, and what is refused.

#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::ResponseFormat;
use nearfar_domain::explain::Ability;
use serde_json::{Value, json};

use crate::http::openai::request::{chat_completion, completion};

fn with(fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn schema_of(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::JsonSchema { schema, .. } => serde_json::from_str(schema).unwrap(),
        other => panic!("not a schema: {other:?}"),
    }
}

#[test]
fn a_schema_has_many_names() {
    let schema = json!({"type": "object", "x": 1});
    for fields in [
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}}}),
        json!({"guided_json": schema}),
        json!({"guided_json": schema.to_string()}),
        json!({"json_schema": schema}),
        json!({"structured_outputs": {"json": schema}}),
        json!({"guided_json": schema, "structured_outputs": {"json": schema}}),
    ] {
        let request = chat_completion(with(fields).to_string().as_bytes()).unwrap();
        assert_eq!(schema_of(&request.chat.response_format), schema);
        assert_eq!(request.needs(), [Ability::JsonSchema]);
        assert!(request.chat.passthrough.is_empty());
    }
}

#[test]
fn grammars_have_their_names_too() {
    let regex = ResponseFormat::Regex("a+".into());
    let choice = ResponseFormat::Choice(vec!["a".into(), "b".into()]);
    let grammar = ResponseFormat::Grammar("root ::= \"a\"".into());
    for (fields, format) in [
        (json!({"guided_regex": "a+"}), &regex),
        (json!({"structured_outputs": {"regex": "a+"}}), &regex),
        (json!({"guided_choice": ["a", "b"]}), &choice),
        (
            json!({"structured_outputs": {"choice": ["a", "b"]}}),
            &choice,
        ),
        (json!({"grammar": "root ::= \"a\""}), &grammar),
        (json!({"guided_grammar": "root ::= \"a\""}), &grammar),
        (
            json!({"structured_outputs": {"grammar": "root ::= \"a\""}}),
            &grammar,
        ),
    ] {
        let request = chat_completion(with(fields.clone()).to_string().as_bytes()).unwrap();
        assert!(request.chat.response_format == *format, "{fields}");
        assert_eq!(request.needs(), [Ability::Grammar]);
    }
    let request = completion(br#"{"prompt": "a", "guided_regex": "a+"}"#).unwrap();
    assert!(request.chat.response_format == regex);
}

#[test]
fn what_is_wrong_is_named() {
    for (fields, place) in [
        (json!({"guided_regex": 3}), "guided_regex"),
        (json!({"grammar": " "}), "grammar"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"guided_choice": ["a", ""]}), "guided_choice"),
        (json!({"guided_json": [1]}), "guided_json"),
        (
            json!({"guided_regex": "a", "grammar": "start: \"a\""}),
            "grammar",
        ),
        (
            json!({"structured_outputs": {"structural_tag": "x"}}),
            "structured_outputs.structural_tag",
        ),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format.type",
        ),
    ] {
        let problem = chat_completion(with(fields).to_string().as_bytes())
            .err()
            .unwrap();
        assert_eq!(problem.openai_body()["error"]["param"], json!(place));
        assert_eq!(problem.status().as_u16(), 400);
    }
}
