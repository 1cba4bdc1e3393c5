//! Schemas, grammars and the promise that they are followed.

#![allow(clippy::unwrap_used)]

mod bounds;
mod calls;
mod random;

use std::sync::{Arc, OnceLock};

use nearfar_domain::chat::{Message, Params, Role};
use nearfar_domain::events::{Event, FinishReason};
use serde_json::{Value, json};

use super::judge::fits;
use super::*;
use crate::generate::{Generation, Progress, ReadyModel};

/// The model that ships inside the binary: weak enough to break any rule that
/// is not held by force.
fn concierge() -> Arc<ReadyModel> {
    static READY: OnceLock<Arc<ReadyModel>> = OnceLock::new();
    let load =
        || Arc::new(ReadyModel::load("concierge", &crate::embedded().unwrap(), None).unwrap());
    Arc::clone(READY.get_or_init(load))
}

#[derive(Debug, Default)]
struct Told {
    content: String,
    /// Name and arguments.
    calls: Vec<(String, String)>,
    reason: Option<FinishReason>,
}

fn answer(chat: &Chat) -> Result<Told, Failure> {
    let ready = concierge();
    let prepared = Generation::prepare(&ready, chat, "")?;
    let mut generation = Generation::new(ready, prepared);
    let mut events = Vec::new();
    while generation.step(&mut events)? == Progress::More {}
    let mut told = Told::default();
    for event in events {
        match event {
            Event::Content(text) => told.content.push_str(&text),
            Event::ToolCall(call) => match call.name {
                Some(name) => told.calls.push((name, call.arguments)),
                None => told.calls.last_mut().unwrap().1.push_str(&call.arguments),
            },
            Event::Finished { reason, .. } => told.reason = Some(reason),
            _ => {}
        }
    }
    Ok(told)
}

fn ask(text: &str) -> Chat {
    Chat::turns(vec![Message::text(Role::User, text)])
}

fn by_schema(schema: &Value) -> Chat {
    Chat {
        response_format: ResponseFormat::JsonSchema {
            name: "answer".into(),
            schema: schema.to_string(),
            strict: Some(true),
        },
        ..ask("What time is breakfast?")
    }
}

fn within(tokens: u32) -> Params {
    Params {
        max_tokens: Some(tokens),
        temperature: Some(0.0),
        ..Params::default()
    }
}

fn refusal(schema: &Value) -> String {
    let failure = answer(&by_schema(schema)).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(
        failure.field.as_deref(),
        Some("response_format.json_schema.schema")
    );
    failure.message
}

#[test]
fn an_answer_fits_its_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "kind": {"enum": ["food", "room"]},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "open": {"type": "boolean"},
        },
        "required": ["kind", "count", "open"],
        "additionalProperties": false,
    });
    let told = answer(&Chat {
        params: within(60),
        ..by_schema(&schema)
    })
    .unwrap();
    let value: Value = serde_json::from_str(&told.content).unwrap();
    assert!(fits(&schema, &schema, &value), "{value}");
    assert_eq!(told.reason, Some(FinishReason::Stop));
}

#[test]
fn json_mode_gives_an_object_or_says_that_it_is_cut() {
    let chat = Chat {
        response_format: ResponseFormat::JsonObject,
        params: within(40),
        ..ask("Hello")
    };
    let told = answer(&chat).unwrap();
    match told.reason {
        Some(FinishReason::Stop) => {
            assert!(
                serde_json::from_str::<Value>(&told.content)
                    .unwrap()
                    .is_object()
            );
        }
        reason => assert_eq!(reason, Some(FinishReason::Length)),
    }
    assert!(told.content.starts_with('{'));
}

#[test]
fn a_stop_string_inside_json_does_not_make_it_look_whole() {
    let schema = json!({"const": {"a": "xEND", "b": 1}});
    let mut chat = Chat {
        params: within(60),
        ..by_schema(&schema)
    };
    chat.params.stop = vec!["END".into()];
    let told = answer(&chat).unwrap();
    assert_eq!(told.reason, Some(FinishReason::Length));
    chat.params.stop = vec!["never".into()];
    let told = answer(&chat).unwrap();
    assert_eq!(told.reason, Some(FinishReason::Stop));
    assert_eq!(
        serde_json::from_str::<Value>(&told.content).unwrap(),
        schema["const"]
    );
}

#[test]
fn the_other_forms_hold_too() {
    let run = |format: ResponseFormat| {
        let told = answer(&Chat {
            response_format: format,
            params: within(60),
            ..ask("Hi")
        })
        .unwrap();
        assert_eq!(told.reason, Some(FinishReason::Stop), "{told:?}");
        told.content
    };
    let number = run(ResponseFormat::Regex("[0-9]{3}-[a-c]/x".into()));
    assert!(number.len() == 7 && number.ends_with("/x"), "{number}");
    let choice = run(ResponseFormat::Choice(vec![
        "yes \"please\"".into(),
        "no".into(),
    ]));
    assert!(
        ["yes \"please\"", "no"].contains(&choice.as_str()),
        "{choice}"
    );
    let lark = run(ResponseFormat::Grammar(
        "start: \"a\" B \"c\"\nB: /[0-9]{2}/\n".into(),
    ));
    assert!(lark.len() == 4 && lark.starts_with('a'), "{lark}");
    let gbnf =
        "# a list\nroot ::= item-a (\", \" item-a){2}\nitem-a ::= [^\\n,\\[0-9]{1,3} | \"\\x41\" ";
    let gbnf = run(ResponseFormat::Grammar(gbnf.into()));
    assert_eq!(gbnf.split(", ").count(), 3, "{gbnf}");
}

#[test]
fn what_cannot_be_followed_is_refused_with_its_place() {
    for (schema, place) in [
        (
            json!({"properties": {"a": {"not": {"type": "string"}}}}),
            "#/properties/a/not",
        ),
        (
            json!({"type": "object", "properties": {"a/b": {"type": "strin"}}}),
            "#/properties/a~1b/type",
        ),
        (
            json!({"items": [{"uniqueItems": true}]}),
            "#/items/0/uniqueItems",
        ),
        (json!({"$ref": "#/$defs/none"}), "#/$ref"),
        (json!({"$ref": "https://example.com/s"}), "#/$ref"),
        (
            json!({"properties": {"n": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["n"], "type": "object"}),
            "#/properties/n",
        ),
        (
            json!({"type": "object", "properties": {"p": {"type": "string", "pattern": "(a"}}, "required": ["p"]}),
            "#/properties/p",
        ),
        (json!({"anyOf": []}), "#/anyOf"),
        (json!({"type": "array", "minItems": 100_000}), "#/minItems"),
        (
            json!({"allOf": [{"exclusiveMinimum": true}]}),
            "#/allOf/0/exclusiveMinimum",
        ),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            "#",
        ),
    ] {
        let message = refusal(&schema);
        assert!(
            message.contains(&format!("{place}:")),
            "{schema}: {message}"
        );
    }
}

#[test]
fn hostile_schemas_and_grammars_are_refused_and_quoted_nowhere() {
    let mut deep = json!({"type": "string"});
    for _ in 0..60 {
        deep = json!({"type": "array", "items": deep});
    }
    let wide: serde_json::Map<String, Value> = (0..6_000)
        .map(|index| (format!("secret{index}"), json!({"type": "string"})))
        .collect();
    for schema in [
        deep,
        json!({"type": "object", "properties": wide}),
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"type": "string", "pattern": "((secret{1,500}){1,500}){1,500}"}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
    ] {
        // Not every one of them is refused on every path; none may hang or panic.
        match answer(&Chat {
            params: within(4),
            ..by_schema(&schema)
        }) {
            Ok(told) => assert_eq!(told.reason, Some(FinishReason::Length)),
            Err(failure) => {
                assert_eq!(
                    failure.kind,
                    FailureKind::Unsupported,
                    "{}",
                    failure.message
                )
            }
        }
    }
    for grammar in [
        "start: /secret(/",
        "start: secret\n",
        "root ::= [secret",
        "secret ::= \"a\"",
        "start: start",
        "%json",
    ] {
        let chat = Chat {
            response_format: ResponseFormat::Grammar(grammar.into()),
            params: within(4),
            ..ask("Hi")
        };
        let failure = answer(&chat).err().unwrap();
        let kinds = [FailureKind::BadRequest, FailureKind::Unsupported];
        assert!(kinds.contains(&failure.kind), "{:?}", failure.kind);
        assert_eq!(failure.field.as_deref(), Some("grammar"));
        assert!(!failure.message.contains("secret"), "{}", failure.message);
    }
    let regex = Chat {
        response_format: ResponseFormat::Regex("a(?=secret)".into()),
        ..ask("Hi")
    };
    let failure = answer(&regex).err().unwrap();
    assert_eq!(failure.field.as_deref(), Some("guided_regex"));
    assert!(!failure.message.contains("secret"), "{}", failure.message);
}

/// The rest of an answer that was begun elsewhere.
fn rest(chat: &Chat, begun: &str) -> Result<(String, Option<FinishReason>), Failure> {
    let ready = concierge();
    let prepared = Generation::prepare(&ready, chat, begun)?;
    let mut generation = Generation::new(ready, prepared);
    let mut events = Vec::new();
    while generation.step(&mut events)? == Progress::More {}
    let mut text = String::new();
    let mut reason = None;
    for event in events {
        match event {
            Event::Content(more) => text.push_str(&more),
            Event::Finished { reason: why, .. } => reason = Some(why),
            _ => {}
        }
    }
    Ok((text, reason))
}

#[test]
fn an_answer_that_was_begun_elsewhere_goes_on_within_its_form() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "open": {"type": "boolean"},
        },
        "required": ["city", "open"],
        "additionalProperties": false,
    });
    let chat = Chat {
        params: within(200),
        ..by_schema(&schema)
    };
    for begun in [
        r#"{"city": "Ly"#,
        r#"{"city":"Lyon","op"#,
        "{\n  \"city\": \"Lyon\",\n  \"open\":",
        "{",
        r#"{"city": "Lyon", "open": true}"#,
    ] {
        let (more, reason) = rest(&chat, begun).unwrap();
        assert_eq!(reason, Some(FinishReason::Stop), "{begun}");
        let whole: Value = serde_json::from_str(&format!("{begun}{more}")).unwrap();
        assert!(fits(&schema, &schema, &whole), "{begun}{more}");
    }
    // What cannot become a fitting answer any more is not gone on with.
    for begun in ["Sure! Here is", r#"{"town": "Ly"#, r#"{"city": 7"#] {
        let failure = rest(&chat, begun).err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unsupported);
    }
}

#[test]
fn a_choice_that_was_begun_elsewhere_is_finished() {
    let chat = Chat {
        response_format: ResponseFormat::Choice(vec!["breakfast".into(), "dinner".into()]),
        params: within(20),
        ..ask("Which meal?")
    };
    assert_eq!(rest(&chat, "break").unwrap().0, "fast");
    assert_eq!(rest(&chat, "dinner").unwrap().0, "");
}
