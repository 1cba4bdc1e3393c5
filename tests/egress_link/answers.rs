//! What providers answer, through both codecs and a real connection.

use nearfar_domain::chat::{Chat, Message, Role, Tool};
use nearfar_domain::events::{Event, FinishReason, Signed, Usage};
use serde_json::json;

use super::rig::{Ask, KEY, Rig, calls, chat, told};
use crate::support::double::{Answer, Fault};

/// Every way to reach a provider.
const ALL: [&str; 5] = ["openai", "anthropic", "gemini", "bedrock", "azure"];

fn last(events: &[Event]) -> (FinishReason, Usage) {
    match events.last() {
        Some(Event::Finished { reason, usage }) => (*reason, *usage),
        other => panic!("not finished: {other:?}"),
    }
}

fn with_tool(text: &str) -> Chat {
    let mut chat = chat(text);
    chat.tools.push(Tool {
        name: "light".into(),
        description: None,
        parameters: Some(r#"{"type":"object"}"#.into()),
        strict: None,
    });
    chat
}

#[tokio::test]
async fn the_hello_tells_of_providers_and_not_of_keys() {
    let rig = Rig::start().await;
    let ready: Vec<(&str, bool)> = rig
        .cards
        .iter()
        .map(|card| (card.name.as_str(), card.ready))
        .collect();
    assert_eq!(
        ready,
        [
            ("openai", true),
            ("anthropic", true),
            ("gemini", true),
            ("bedrock", true),
            ("azure", true),
            ("keyless", false),
            ("bare", true)
        ]
    );
    assert!(!String::from_utf8_lossy(&rig.link.bytes).contains(KEY));
    assert!(rig.double.connections().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn openai_is_asked_as_its_own_client_asks() {
    let mut rig = Rig::start().await;
    let events = rig.ask(Ask::hello("openai")).await;
    assert_eq!(told(&events).0, "You said: hello");
    let Event::Started { model } = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(model, "model-1-2025-04-14");
    let request = &rig.double.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/v1/chat/completions")
    );
    assert_eq!(
        request.header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert!(request.header("content-length").is_some(), "not chunked");
    assert!(request.header("x-api-key").is_none());
    assert_eq!(
        request.json(),
        json!({"model": "model-1", "messages": [{"role": "user", "content": "hello"}],
               "stream": true, "stream_options": {"include_usage": true}})
    );
}

#[tokio::test]
async fn anthropic_is_asked_as_its_own_client_asks() {
    let mut rig = Rig::start().await;
    let events = rig.ask(Ask::hello("anthropic")).await;
    assert_eq!(told(&events).0, "You said: hello");
    let request = &rig.double.requests()[0];
    assert_eq!(request.path, "/v1/messages");
    assert_eq!(request.header("x-api-key"), Some(KEY));
    assert_eq!(request.header("anthropic-version"), Some("2023-06-01"));
    assert!(request.header("authorization").is_none());
    assert_eq!(request.json()["max_tokens"], 4096);
}

#[tokio::test]
async fn streamed_or_whole_both_dialects_say_the_same() {
    let mut rig = Rig::start().await;
    for provider in ALL {
        for whole in [false, true] {
            let answer = Answer::text("Grüße, 世界 🌍!")
                .after_thinking("let me see")
                .and_call("light", r#"{"room":"hall","on":true}"#)
                .and_call("light", "{}");
            rig.double.push(answer);
            let ask = Ask::of(provider, with_tool("switch it on"));
            let events = rig.ask(if whole { ask.whole() } else { ask }).await;
            let case = format!("{provider}, whole: {whole}");
            assert_eq!(
                told(&events),
                ("Grüße, 世界 🌍!".to_owned(), "let me see".to_owned()),
                "{case}"
            );
            let calls = calls(&events);
            assert_eq!(calls.len(), 2, "{case}");
            assert_eq!(calls[0].2, r#"{"room":"hall","on":true}"#, "{case}");
            assert_eq!(
                (calls[1].1.as_str(), calls[1].2.as_str()),
                ("light", "{}"),
                "{case}"
            );
            assert_ne!(calls[0].0, calls[1].0, "{case}");
            let (reason, usage) = last(&events);
            assert_eq!(reason, FinishReason::ToolCalls, "{case}");
            assert_eq!(
                (usage.prompt, usage.cached_prompt, usage.completion),
                (Some(21), Some(8), Some(5)),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn a_limit_and_a_refusal_are_told_as_such() {
    let mut rig = Rig::start().await;
    for provider in ALL {
        let limited = Answer {
            cut_by_limit: true,
            ..Answer::text("and then")
        };
        rig.double.push(limited);
        let events = rig.ask(Ask::hello(provider)).await;
        assert_eq!(last(&events).0, FinishReason::Length, "{provider}");
        rig.double.push(Answer {
            refusal: Some("I cannot help with that.".into()),
            ..Answer::default()
        });
        let events = rig.ask(Ask::hello(provider)).await;
        assert_eq!(last(&events).0, FinishReason::ContentFilter, "{provider}");
    }
}

#[tokio::test]
async fn logprobs_come_with_their_alternatives() {
    let mut rig = Rig::start().await;
    for whole in [false, true] {
        let mut chat = chat("hello");
        chat.params.logprobs = Some(2);
        rig.double.push(Answer::text("one two"));
        let ask = Ask::of("openai", chat);
        let events = rig.ask(if whole { ask.whole() } else { ask }).await;
        let tokens: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Logprobs(tokens) => Some(tokens),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(tokens.len(), 2);
        assert_eq!(
            (tokens[0].token.as_str(), tokens[0].logprob),
            ("one ", -0.25)
        );
        assert_eq!(tokens[0].top.len(), 2);
        assert_eq!(tokens[0].bytes, b"one ");
    }
}

#[tokio::test]
async fn raw_text_goes_to_completions() {
    let mut rig = Rig::start().await;
    for whole in [false, true] {
        rig.double.push(Answer::text("there was a time"));
        let ask = Ask::of("openai", Chat::text("Once upon"));
        let events = rig.ask(if whole { ask.whole() } else { ask }).await;
        assert_eq!(told(&events).0, "there was a time");
        assert_eq!(last(&events).1.completion, Some(5));
    }
    assert_eq!(rig.double.requests()[0].path, "/v1/completions");
    assert_eq!(rig.double.requests()[0].json()["prompt"], "Once upon");
}

#[tokio::test]
async fn a_long_prompt_and_a_long_answer_are_whole() {
    let mut rig = Rig::start().await;
    let prompt = "wörter ".repeat(300_000);
    let piece = "Straße ".repeat(2_000);
    rig.double.push(Answer {
        text: vec![piece.clone(); 100],
        ..Answer::default()
    });
    let events = rig.ask(Ask::of("openai", chat(&prompt))).await;
    assert!(told(&events).0 == piece.repeat(100));
    let sent = rig.double.requests()[0].json();
    assert!(sent["messages"][0]["content"] == prompt.as_str());
}

/// Gemini gives none, so each job makes its own.
fn without_ids(mut events: Vec<Event>) -> Vec<Event> {
    for event in &mut events {
        if let Event::ToolCall(delta) = event {
            delta.id = delta.id.take().map(|_| "id".to_owned());
        }
    }
    events
}

#[tokio::test]
async fn how_the_bytes_come_does_not_matter() {
    let mut rig = Rig::start().await;
    for provider in ALL {
        let answer = || Answer::text("Grüße, 世界 🌍!").and_call("light", r#"{"a":"ü"}"#);
        rig.double.push(answer());
        let plain = without_ids(rig.ask(Ask::hello(provider)).await);
        for fault in [Fault::ByteByByte, Fault::Crlf, Fault::NoLastBlankLine] {
            let of_lines = !matches!(fault, Fault::ByteByByte);
            if of_lines && provider == "bedrock" {
                continue;
            }
            let case = format!("{provider} {fault:?}");
            rig.double.push(answer().but(fault));
            let events = without_ids(rig.ask(Ask::hello(provider)).await);
            assert!(events == plain, "{case}: {events:?}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_ignores_the_wish_to_stream_is_understood() {
    let mut rig = Rig::start().await;
    let body = r#"{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}]}"#;
    rig.double.push(Fault::Status {
        status: 200,
        headers: vec![],
        body: Some(body.into()),
    });
    let events = rig.ask(Ask::hello("bare")).await;
    assert_eq!(told(&events).0, "whole");
}

#[tokio::test]
async fn roles_and_turns_reach_both_providers() {
    let mut rig = Rig::start().await;
    let chat = || {
        Chat::turns(vec![
            Message::text(Role::System, "be brief"),
            Message::text(Role::User, "hi"),
            Message::text(Role::Assistant, "hello"),
            Message::text(Role::User, "and now"),
        ])
    };
    rig.ask(Ask::of("openai", chat())).await;
    rig.ask(Ask::of("anthropic", chat())).await;
    let requests = rig.double.requests();
    assert_eq!(requests[0].json()["messages"].as_array().unwrap().len(), 4);
    assert_eq!(requests[1].json()["messages"].as_array().unwrap().len(), 3);
    assert_eq!(requests[1].json()["system"][0]["text"], "be brief");
}

#[tokio::test]
async fn gemini_is_asked_as_its_own_client_asks() {
    let mut rig = Rig::start().await;
    let events = rig.ask(Ask::hello("gemini")).await;
    assert_eq!(told(&events).0, "You said: hello");
    let events = rig.ask(Ask::hello("gemini").whole()).await;
    assert_eq!(told(&events).0, "You said: hello");
    let requests = rig.double.requests();
    assert_eq!(
        requests[0].path,
        "/v1beta/models/model-1:streamGenerateContent?alt=sse"
    );
    assert_eq!(requests[1].path, "/v1beta/models/model-1:generateContent");
    assert_eq!(requests[0].header("x-goog-api-key"), Some(KEY));
    assert!(requests[0].header("authorization").is_none());
    assert_eq!(
        requests[0].json(),
        json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
    );
}

#[tokio::test]
async fn bedrock_and_azure_are_asked_at_their_addresses() {
    let mut rig = Rig::start().await;
    for provider in ["bedrock", "azure"] {
        rig.ask(Ask::hello(provider)).await;
        rig.ask(Ask::hello(provider).whole()).await;
    }
    let requests = rig.double.requests();
    let paths: Vec<&str> = requests.iter().map(|r| r.path.as_str()).collect();
    let azure = "/openai/deployments/model-1/chat/completions?api-version=2024-10-21";
    assert_eq!(
        paths,
        [
            "/model/model-1/converse-stream",
            "/model/model-1/converse",
            azure,
            azure
        ]
    );
    let bearer = format!("Bearer {KEY}");
    assert_eq!(requests[0].header("authorization"), Some(bearer.as_str()));
    assert_eq!(
        requests[0].header("accept"),
        Some("application/vnd.amazon.eventstream")
    );
    assert_eq!(requests[2].header("api-key"), Some(KEY));
    assert!(requests[2].header("authorization").is_none());
}

#[tokio::test]
async fn what_only_its_author_can_read_comes_through() {
    let mut rig = Rig::start().await;
    for (provider, of_a_thought) in [("anthropic", true), ("bedrock", true), ("gemini", false)] {
        for whole in [false, true] {
            let answer = Answer::text("so").after_thinking("let me see");
            rig.double
                .push(answer.and_call("light", "{}").and_call("light", "{}"));
            let ask = Ask::of(provider, with_tool("switch it on"));
            let events = rig.ask(if whole { ask.whole() } else { ask }).await;
            let signed: Vec<&Signed> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Signature { of, .. } => Some(of),
                    _ => None,
                })
                .collect();
            let expected = match of_a_thought {
                true => Signed::Thought { id: None },
                false => Signed::Call(0),
            };
            assert_eq!(signed, [&expected], "{provider}, whole: {whole}");
        }
    }
}
