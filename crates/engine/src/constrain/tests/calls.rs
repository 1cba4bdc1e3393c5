//! Tool calls: demanded ones, and those that a model begins by itself.

use nearfar_domain::chat::Tool;

use super::*;

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
        .constraint(chat, format, tokenizer, Reasoning::None, "")
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
            .constraint(&chat, ToolFormat::None, tokenizer, reasoning, "")
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
    // Whether all of a text may be written.
    let writes = |text: &str| {
        let mut constraint = grammars
            .constraint(&chat, ToolFormat::Hermes, tokenizer, Reasoning::None, "")
            .unwrap()
            .unwrap();
        tokenizer.encode(text, true).unwrap().iter().all(|id| {
            let allowed = constraint
                .mask()
                .unwrap()
                .is_none_or(|mask| mask.allows(*id));
            allowed && constraint.advance(*id).is_ok()
        })
    };
    let call = |arguments: &str| {
        format!(
            "Sure, {{\"name\": 1}}.\n<tool_call>\n{{\"name\": \"set_light\", \"arguments\": {arguments}}}\n</tool_call> and on, <tool_call>"
        )
    };
    assert!(writes(&call("{\"room\": \"hall\", \"on\": true}")));
    assert!(!writes(&call("{\"room\": \"attic\", \"on\": true}")));
    assert!(!writes(&call("{\"room\": \"hall\"}")));
    assert!(!writes("<tool_call>\n{\"name\": \"open_door\""));
}
