//! Schemas, grammars and the promise that they are followed.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, OnceLock};

use nearfar_domain::chat::{Message, Params, Role, Tool};
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
    assert_eq!(failure.kind, FailureKind::BadRequest);
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
                assert_eq!(failure.kind, FailureKind::BadRequest, "{}", failure.message)
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
        assert_eq!(
            (failure.kind, failure.field.as_deref()),
            (FailureKind::BadRequest, Some("grammar"))
        );
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

fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.into(),
        description: Some("does it".into()),
        parameters: Some(parameters.to_string()),
        strict: None,
    };
    vec![
        tool(
            "set_light",
            json!({"type": "object", "properties": {"room": {"enum": ["hall", "bath"]}, "on": {"type": "boolean"}}, "required": ["room", "on"]}),
        ),
        tool("call_desk", json!({"type": "object", "properties": {}})),
    ]
}

#[test]
fn a_demanded_call_has_the_tool_s_form() {
    for (choice, parallel) in [
        (ToolChoice::Required, None),
        (ToolChoice::Required, Some(false)),
        (ToolChoice::Named("set_light".into()), Some(false)),
    ] {
        for seed in 0..4 {
            let chat = Chat {
                tools: tools(),
                tool_choice: choice.clone(),
                params: Params {
                    seed: Some(seed),
                    temperature: Some(1.5),
                    max_tokens: Some(120),
                    parallel_tool_calls: parallel,
                    ..Params::default()
                },
                ..ask("Lights in the hall, please")
            };
            let told = answer(&chat).unwrap();
            assert!(told.content.is_empty(), "{told:?}");
            if told.reason == Some(FinishReason::Length) {
                continue;
            }
            assert_eq!(told.reason, Some(FinishReason::ToolCalls));
            if parallel.is_some() {
                assert_eq!(told.calls.len(), 1);
            }
            for (name, arguments) in &told.calls {
                let tool = chat.tools.iter().find(|tool| tool.name == *name).unwrap();
                let schema: Value =
                    serde_json::from_str(tool.parameters.as_ref().unwrap()).unwrap();
                let value: Value = serde_json::from_str(arguments).unwrap();
                assert!(fits(&schema, &schema, &value), "{name} {arguments}");
                assert!(choice == ToolChoice::Required || name == "set_light");
            }
        }
    }
}

#[test]
fn a_tool_or_json_may_be_the_answer() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"], "additionalProperties": false});
    for seed in 0..6 {
        let chat = Chat {
            tools: tools(),
            params: Params {
                seed: Some(seed),
                temperature: Some(2.0),
                max_tokens: Some(150),
                ..Params::default()
            },
            ..by_schema(&schema)
        };
        let told = answer(&chat).unwrap();
        match told.reason {
            Some(FinishReason::Stop) => {
                let value: Value = serde_json::from_str(&told.content).unwrap();
                assert!(fits(&schema, &schema, &value));
            }
            Some(FinishReason::ToolCalls) => assert!(told.content.is_empty()),
            reason => assert_eq!(reason, Some(FinishReason::Length)),
        }
    }
}

/// What the grammar of a demanded call allows, chosen blindly.
fn blind_walk(chat: &Chat, format: ToolFormat, random: &mut impl FnMut(u32) -> u32) -> String {
    let ready = concierge();
    let tokenizer = ready.tokenizer();
    static GRAMMARS: OnceLock<Grammars> = OnceLock::new();
    let grammars = GRAMMARS.get_or_init(|| Grammars::new(tokenizer).unwrap());
    let mut constraint = grammars
        .constraint(chat, format, tokenizer, Reasoning::None)
        .unwrap()
        .unwrap();
    let mut bytes = Vec::new();
    for _ in 0..400 {
        let mut ids = constraint.forced().unwrap();
        if ids.is_empty() {
            if constraint.is_over() || constraint.may_end() && random(3) == 0 {
                return String::from_utf8(bytes).unwrap();
            }
            let mask = constraint.mask().unwrap().unwrap();
            let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32)
                .filter(|id| mask.allows(*id) && !tokenizer.ends_generation(*id))
                .collect();
            if allowed.is_empty() {
                return String::from_utf8(bytes).unwrap();
            }
            ids.push(allowed[random(allowed.len() as u32) as usize]);
            constraint.advance(ids[0]).unwrap();
        }
        for id in ids {
            bytes.extend_from_slice(tokenizer.token_bytes(id));
        }
    }
    panic!("a call without an end: {}", String::from_utf8_lossy(&bytes));
}

/// What the grammar writes, the parser reads, in any cut: the two halves of
/// each family's format fit together.
#[test]
fn every_family_s_demanded_calls_are_read_back() {
    use crate::output::{FORMATS, Piece, Splitter};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut source = ChaCha8Rng::seed_from_u64(3);
    let mut random = move |below: u32| source.next_u32() % below.max(1);
    let mut tools = tools();
    tools.push(Tool {
        name: "count".into(),
        description: None,
        parameters: Some(
            json!({"type": "object", "properties": {
                "n": {"type": "integer", "minimum": 0, "maximum": 9},
                "deep": {"type": "object", "properties": {"list": {"type": "array", "items": {"enum": [true, "a\"]}", 1.5, null]}, "maxItems": 2}}, "required": ["list"]},
                "more": {"type": "boolean"},
            }, "required": ["deep"]})
            .to_string(),
        ),
        strict: None,
    });
    let chat = Chat {
        tools,
        tool_choice: ToolChoice::Required,
        ..ask("Hi")
    };
    for format in FORMATS {
        let mut calls = 0;
        for _ in 0..25 {
            let text = blind_walk(&chat, format, &mut random);
            let names = chat.tools.iter().map(|tool| tool.name.clone()).collect();
            let mut splitter = Splitter::new(format, false).with_tools(names);
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let mut cut = (1 + random(7) as usize).min(rest.len());
                while !rest.is_char_boundary(cut) {
                    cut += 1;
                }
                pieces.extend(splitter.push(&rest[..cut]));
                rest = &rest[cut..];
            }
            pieces.extend(splitter.finish());
            let mut read: Vec<(String, String)> = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::CallStart { name } => read.push((name, String::new())),
                    Piece::CallArguments(more) => read.last_mut().unwrap().1.push_str(&more),
                    Piece::CallEnd => calls += 1,
                    other => panic!("{format:?}: {other:?} in {text}"),
                }
            }
            assert!(!read.is_empty(), "{format:?}: no call in {text}");
            for (name, arguments) in read {
                let tool = chat.tools.iter().find(|tool| tool.name == name).unwrap();
                let schema: Value =
                    serde_json::from_str(tool.parameters.as_ref().unwrap()).unwrap();
                let value: Value = serde_json::from_str(&arguments)
                    .unwrap_or_else(|error| panic!("{format:?}: {error}: {arguments} of {text}"));
                assert!(
                    fits(&schema, &schema, &value),
                    "{format:?} {name} {arguments}"
                );
            }
        }
        assert!(calls >= 25, "{format:?}: {calls} whole calls");
    }
}

#[test]
fn the_grammar_begins_after_the_reasoning() {
    let ready = concierge();
    let tokenizer = ready.tokenizer();
    let grammars = Grammars::new(tokenizer).unwrap();
    let id = |text: &str| tokenizer.id_of(text).unwrap();
    let (open, end) = (id("<think>"), id("</think>"));
    let chat = by_schema(&json!({"const": {"a": 1}}));
    let begin = |reasoning| {
        grammars
            .constraint(&chat, ToolFormat::None, tokenizer, reasoning)
            .unwrap()
            .unwrap()
    };
    let hello = tokenizer.encode("hello", false).unwrap()[0];
    let mut opened = begin(Reasoning::Open { end });
    assert!(opened.mask().unwrap().is_none() && !opened.may_end());
    opened.advance(hello).unwrap();
    assert_eq!(opened.end_of_reasoning(), Some(end));
    opened.advance(end).unwrap();
    assert_eq!(opened.end_of_reasoning(), None);
    let gap: Vec<u8> = opened
        .forced()
        .unwrap()
        .iter()
        .flat_map(|id| tokenizer.token_bytes(*id).to_vec())
        .collect();
    assert_eq!(gap, b"\n\n");
    assert!(!opened.mask().unwrap().unwrap().allows(hello));

    let mut possible = begin(Reasoning::Possible { open, end });
    let mask = possible.mask().unwrap().unwrap();
    assert!(mask.allows(open) && !mask.allows(hello));
    possible.advance(open).unwrap();
    assert!(possible.mask().unwrap().is_none());
    let mut at_once = begin(Reasoning::None);
    assert!(!at_once.mask().unwrap().unwrap().allows(open));
    let mut logits = vec![1.0; tokenizer.vocab_size()];
    at_once.mask().unwrap().unwrap().apply(&mut logits);
    let left = logits.iter().filter(|logit| logit.is_finite()).count();
    assert!((1..5).contains(&left), "{left} tokens may begin the object");
}

#[test]
fn a_call_that_the_model_begins_must_fit() {
    let ready = concierge();
    let tokenizer = ready.tokenizer();
    let grammars = Grammars::new(tokenizer).unwrap();
    let chat = Chat {
        tools: tools(),
        ..ask("Hi")
    };
    let mut constraint = grammars
        .constraint(&chat, ToolFormat::Hermes, tokenizer, Reasoning::None)
        .unwrap()
        .unwrap();
    let mut write = |text: &str| {
        for id in tokenizer.encode(text, true).unwrap() {
            if constraint
                .mask()
                .unwrap()
                .is_some_and(|mask| !mask.allows(id))
            {
                return false;
            }
            constraint.advance(id).unwrap();
        }
        true
    };
    assert!(write("Sure, {\"name\": 1}.\n<tool_call>"));
    assert!(write("\n{\"name\": \"set_light\", \"arguments\": "));
    assert!(!write("[1]"), "the arguments are an object");
    assert!(write("{\"room\": \"hall\", \"on\": true}}\n</tool_call>"));
    assert!(write(" free again, <tool_call>"));
}

/// A schema whose answers are short.
fn random_schema(random: &mut impl FnMut(u32) -> u32, depth: u32) -> Value {
    match random(if depth == 0 { 8 } else { 13 }) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": "integer", "minimum": -5, "maximum": random(100)}),
        2 => json!({"type": "number", "minimum": 0, "exclusiveMaximum": 10}),
        3 => json!({"type": "string", "minLength": random(3), "maxLength": 3 + random(9)}),
        4 => json!({"enum": ["a", 1, null, "é\"x", {"k": [true]}]}),
        5 => json!({"const": [1, "two"]}),
        6 => json!({"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"}),
        7 => json!({"type": ["null", "integer"], "multipleOf": 5, "minimum": 0, "maximum": 50}),
        8 => {
            let items = random_schema(random, depth - 1);
            json!({"type": "array", "items": items, "minItems": random(2), "maxItems": 2 + random(2)})
        }
        9 => {
            let (a, b) = (
                random_schema(random, depth - 1),
                random_schema(random, depth - 1),
            );
            json!({"anyOf": [a, b]})
        }
        10 => {
            let first = random_schema(random, depth - 1);
            json!({"type": "array", "prefixItems": [first, {"type": "boolean"}], "items": false, "minItems": 1, "maxItems": 2})
        }
        11 => {
            let inner = random_schema(random, depth - 1);
            json!({"type": "object", "additionalProperties": inner, "maxProperties": 1 + random(2)})
        }
        _ => {
            let count = 1 + random(4);
            let mut properties = serde_json::Map::new();
            for index in 0..count {
                properties.insert(format!("p {index}"), random_schema(random, depth - 1));
            }
            let required: Vec<String> = (0..count)
                .filter(|_| random(2) == 0)
                .map(|index| format!("p {index}"))
                .collect();
            let mut schema =
                json!({"type": "object", "properties": properties, "required": required});
            if random(2) == 0 {
                schema["additionalProperties"] = json!(false);
            }
            schema
        }
    }
}

/// 60 schemas; `NEARFAR_SCHEMAS=1000` tries as many.
#[test]
fn answers_to_random_schemas_are_valid_with_any_sampling() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let count = std::env::var("NEARFAR_SCHEMAS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    let mut source = ChaCha8Rng::seed_from_u64(7);
    let mut random = move |below: u32| source.next_u32() % below.max(1);
    let (mut whole, mut cut) = (0, 0);
    for number in 0..count {
        let schema = random_schema(&mut random, 2);
        let params = Params {
            temperature: Some([0.0, 0.7, 1.5, 5.0][random(4) as usize]),
            top_k: Some([0, 1, 40][random(3) as usize]),
            top_p: Some([1.0, 0.9, 0.1][random(3) as usize]),
            min_p: Some([0.0, 0.05, 1.0][random(3) as usize]),
            repetition_penalty: Some([1.0, 1.3, 0.7][random(3) as usize]),
            frequency_penalty: Some([0.0, 2.0, -2.0][random(3) as usize]),
            presence_penalty: Some([0.0, 1.0][random(2) as usize]),
            logit_bias: vec![(random(500), 100.0), (random(500), -100.0)],
            logprobs: (random(4) == 0).then_some(2),
            seed: Some(i64::from(number)),
            max_tokens: Some(if random(5) == 0 { random(12) + 1 } else { 200 }),
            ..Params::default()
        };
        let limit = params.max_tokens;
        let told = answer(&Chat {
            params,
            ..by_schema(&schema)
        })
        .unwrap_or_else(|failure| panic!("{number}: {schema}: {}", failure.message));
        match told.reason {
            Some(FinishReason::Stop) => {
                let value: Value = serde_json::from_str(&told.content).unwrap_or_else(|error| {
                    panic!("{number}: {schema}: {error} in {}", told.content)
                });
                assert!(
                    fits(&schema, &schema, &value),
                    "{number}: {schema}: {value}"
                );
                whole += 1;
            }
            reason => {
                assert_eq!(reason, Some(FinishReason::Length), "{number}: {schema}");
                cut += u32::from(limit == Some(200));
            }
        }
    }
    println!("{whole} of {count} answers are whole and valid; {cut} reached a limit of 200 tokens");
    assert!(
        whole * 3 > count,
        "too few answers were whole to say anything"
    );
}
