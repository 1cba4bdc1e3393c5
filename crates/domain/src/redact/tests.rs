//! Redacted, repeated by a model, restored: nothing is lost and nothing leaks.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::chat::{Message, Part, Prompt, Role, ToolCall};
use crate::events::{Event, FinishReason, ToolCallDelta, Usage};

const NONCE: u32 = 0x1234_5678;

fn vault(text: &str) -> (String, Arc<Vault>) {
    let mut vault = Vault::new(Kinds::ALL, Nonce::new(NONCE));
    let redacted = vault.redact(text).unwrap_or_else(|| text.to_owned());
    vault.settle();
    (redacted, Arc::new(vault))
}

/// What a client gets of these events.
fn restored(vault: &Arc<Vault>, json: bool, events: Vec<Event>) -> (String, String, Vec<String>) {
    let mut restorer = Restorer::new(Arc::clone(vault), json);
    let mut out = VecDeque::new();
    for event in events {
        restorer.push(event, &mut out);
    }
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for event in out {
        match event {
            Event::Content(text) => content += &text,
            Event::Reasoning(text) => reasoning += &text,
            Event::ToolCall(delta) => {
                let index = delta.index as usize;
                calls.resize(calls.len().max(index + 1), String::new());
                calls[index] += &delta.arguments;
            }
            _ => {}
        }
    }
    (content, reasoning, calls)
}

fn finished() -> Event {
    Event::Finished {
        reason: FinishReason::Stop,
        usage: Usage::default(),
    }
}

/// Cuts a text at these places, wherever characters allow.
fn pieces(text: &str, cuts: &[usize]) -> Vec<String> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| cut % (text.len() + 1))
        .filter(|at| text.is_char_boundary(*at))
        .chain([0, text.len()])
        .collect();
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| text[pair[0]..pair[1]].to_owned())
        .collect()
}

#[test]
fn a_value_has_one_placeholder() {
    let (text, _) = vault("a@b.io, c@d.io, a@b.io");
    let parts: Vec<&str> = text.split(", ").collect();
    assert!(parts[0].starts_with("[EMAIL-1-") && parts[1].starts_with("[EMAIL-2-"));
    assert_eq!(parts[0], parts[2]);
}

#[test]
fn text_that_looks_like_a_placeholder_comes_back_as_it_was() {
    let (placeholder, _) = vault("a@b.io");
    for text in [
        format!("{placeholder} a@b.io"),
        format!("a@b.io {} [x] [TEXT-9-abcdef]", placeholder.to_lowercase()),
        format!("[{placeholder}] [EMAIL-1-"),
    ] {
        let (redacted, vault) = vault(&text);
        assert!(!redacted.contains("a@b.io"));
        let events = vec![Event::Content(redacted), finished()];
        assert_eq!(restored(&vault, false, events).0, text);
    }
}

#[test]
fn a_changed_case_is_understood() {
    let (redacted, vault) = vault("a@b.io");
    let events = vec![Event::Content(redacted.to_lowercase()), finished()];
    assert_eq!(restored(&vault, false, events).0, "a@b.io");
}

#[test]
fn only_the_beginning_of_a_placeholder_is_held_back() {
    let (redacted, vault) = vault("a@b.io");
    let mut restorer = Restorer::new(vault, false);
    let mut out = VecDeque::new();
    for piece in ["see [", "1] and [EMA", "X] then "] {
        restorer.push(Event::Content(piece.into()), &mut out);
    }
    assert_eq!(out.len(), 3);
    assert!(out[0] == Event::Content("see ".into()));
    assert!(out[1] == Event::Content("[1] and ".into()));
    assert!(out[2] == Event::Content("[EMAX] then ".into()));
    out.clear();
    restorer.push(Event::Content(redacted[..9].into()), &mut out);
    assert!(out.is_empty());
    restorer.push(Event::Content(redacted[9..].into()), &mut out);
    assert!(out[0] == Event::Content("a@b.io".into()));
}

#[test]
fn what_is_held_back_when_a_leg_fails_is_not_shown() {
    let (_, vault) = vault("a@b.io");
    let mut restorer = Restorer::new(vault, false);
    let mut out = VecDeque::new();
    restorer.push(Event::Content("ok [EMAIL".into()), &mut out);
    let failure = crate::events::Failure::new(crate::events::FailureKind::Cut, "cut");
    restorer.push(Event::Failed(failure), &mut out);
    assert!(out[0] == Event::Content("ok ".into()));
    assert!(matches!(out[1], Event::Failed(_)) && out.len() == 2);
}

#[test]
fn a_part_that_is_gone_on_with_has_the_same_placeholders() {
    let chat = Chat::turns(vec![Message::text(Role::User, "mail a@b.io")]);
    let redacted = Redacted::of(&chat, Kinds::ALL, Nonce::new(NONCE));
    let (part, vault) = redacted.part("I wrote to a@b.io and c@d.io, ");
    assert!(!part.contains('@'));
    let events = vec![Event::Content(part), finished()];
    assert_eq!(
        restored(&vault, false, events).0,
        "I wrote to a@b.io and c@d.io, "
    );
}

#[test]
fn tool_arguments_stay_json_with_values_as_they_were() {
    let key = "-----BEGIN PRIVATE KEY-----\nAb+/=\n-----END PRIVATE KEY-----";
    let arguments = serde_json::json!({"key": key, "to": "a@b.io", "n": "x"}).to_string();
    let mut vault = Vault::new(Kinds::ALL, Nonce::new(NONCE));
    let redacted = vault.redact_json(&arguments, Kinds::ALL).unwrap();
    let number = vault
        .redact_json(r#"{"card": 4111111111111111}"#, Kinds::ALL)
        .unwrap();
    vault.settle();
    let vault = Arc::new(vault);
    assert!(
        !redacted.contains("PRIVATE") && !redacted.contains("a@b.io"),
        "{redacted}"
    );
    assert!(serde_json::from_str::<serde_json::Value>(&number).unwrap()["card"].is_string());
    let call = |index, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index,
            id: None,
            name: None,
            arguments: arguments.to_owned(),
        })
    };
    let mut events: Vec<Event> = pieces(&redacted, &[3, 11, 14, 19, 30, 41])
        .iter()
        .map(|p| call(0, p))
        .collect();
    events.extend([call(1, &number), finished()]);
    let (_, _, calls) = restored(&vault, false, events);
    let back: serde_json::Value = serde_json::from_str(&calls[0]).unwrap();
    assert_eq!(back["key"], key);
    assert_eq!(calls[0], arguments);
    assert_eq!(calls[1], r#"{"card": "4111111111111111"}"#);
}

#[test]
fn no_part_of_a_request_keeps_its_identifiers() {
    let mail = "a@b.io";
    let said = |role| Message::text(role, format!("write to {mail}"));
    let mut chat = Chat::turns(vec![
        said(Role::System),
        said(Role::User),
        Message {
            reasoning: Some(mail.into()),
            tool_calls: vec![ToolCall {
                arguments: format!(r#"{{"to":"{mail}"}}"#),
                ..ToolCall::default()
            }],
            name: Some(mail.into()),
            ..Message::text(Role::Assistant, "")
        },
        said(Role::Tool),
        Message::text(Role::User, "nothing here"),
    ]);
    chat.tools.push(crate::chat::Tool {
        name: "send".into(),
        description: Some(mail.into()),
        parameters: Some(format!(
            r#"{{"$schema":"https://json-schema.org/x","example":"{mail}"}}"#
        )),
        strict: None,
    });
    chat.params.stop = vec![mail.into()];
    chat.passthrough = format!(r#"{{"user":"{mail}"}}"#);
    chat.response_format = crate::chat::ResponseFormat::Choice(vec![mail.into(), "no".into()]);
    let redacted = Redacted::of(&chat, Kinds::ALL, Nonce::new(NONCE));
    let out = redacted.chat().unwrap();
    let Prompt::Turns(turns) = &out.prompt else {
        panic!("turns stay turns")
    };
    let mut sent = format!("{}{}{:?}", out.passthrough, out.params.stop[0], "");
    for turn in turns {
        for part in &turn.content {
            if let Part::Text(text) = part {
                sent += text;
            }
        }
        sent += turn.reasoning.as_deref().unwrap_or_default();
        sent += turn.name.as_deref().unwrap_or_default();
        turn.tool_calls
            .iter()
            .for_each(|call| sent += &call.arguments);
    }
    sent += out.tools[0].description.as_deref().unwrap();
    sent += out.tools[0].parameters.as_deref().unwrap();
    if let crate::chat::ResponseFormat::Choice(choices) = &out.response_format {
        sent += &choices.join(" ");
    }
    assert!(
        !sent.contains(mail) && sent.contains("json-schema.org"),
        "{sent}"
    );
    assert_eq!(sent.matches("[EMAIL-1-").count(), 11, "{sent}");
}

#[test]
fn a_request_without_identifiers_is_not_copied() {
    let chat = Chat::turns(vec![Message::text(Role::User, "hello")]);
    assert!(
        Redacted::of(&chat, Kinds::ALL, Nonce::new(NONCE))
            .chat()
            .is_none()
    );
}

/// Texts with identifiers, brackets and look-alikes.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("ana@mail.example.org".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
        Just("DE89 3704 0044 0532 0130 00".to_owned()),
        Just("+44 7700 900123".to_owned()),
        Just("86.121.97.248".to_owned()),
        Just("password: q8Zr2LmX\"0pTw".to_owned()),
        Just("[EMAIL-1-".to_owned()),
        (1..9u8).prop_map(|n| format!("[EMAIL-{n}-{}]", Nonce::new(NONCE).shown())),
        (1..9u8).prop_map(|n| format!("[email-{n}-{}]", Nonce::new(NONCE).shown())),
        "[\\[\\]\\-a-z0-9é\\\\\" ]{0,8}",
        "\\PC{0,6}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    #[test]
    fn repeated_in_any_pieces_it_comes_back_exactly(
        text in text(),
        cuts in proptest::collection::vec(0..400usize, 0..24),
    ) {
        let (redacted, vault) = vault(&text);
        for secret in ["ana@mail", "4111", "3704 0044", "7700 900123", "86.121"] {
            prop_assert!(!redacted.contains(secret));
        }
        let cut = pieces(&redacted, &cuts);
        let said = |make: fn(String) -> Event| cut.iter().cloned().map(make).chain([finished()]);
        let (content, _, _) = restored(&vault, false, said(Event::Content).collect());
        prop_assert_eq!(&content, &text);
        let (_, reasoning, _) = restored(&vault, false, said(Event::Reasoning).collect());
        prop_assert_eq!(&reasoning, &text);
    }

    #[test]
    fn repeated_in_a_tool_call_it_comes_back_exactly(
        text in text(),
        cuts in proptest::collection::vec(0..400usize, 0..24),
    ) {
        let (redacted, vault) = vault(&text);
        let arguments = serde_json::json!({ "text": redacted }).to_string();
        let call = |arguments| {
            Event::ToolCall(ToolCallDelta { index: 0, id: None, name: None, arguments })
        };
        let events = pieces(&arguments, &cuts).into_iter().map(call).chain([finished()]);
        let (_, _, calls) = restored(&vault, false, events.collect());
        let back: serde_json::Value = serde_json::from_str(&calls[0]).unwrap();
        prop_assert_eq!(back["text"].as_str().unwrap(), &text);
    }
}
