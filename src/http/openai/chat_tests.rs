#![allow(clippy::unwrap_used)]
//! Whole streams, compared as text with what OpenAI sends.

use nearfar_domain::events::{Failure, FailureKind};

use super::*;
use crate::http::collect::collect;
use crate::http::dialect::Chunks as _;

fn head() -> Head {
    Head {
        id: "chatcmpl-1".into(),
        created: 1_700_000_000,
        bill: crate::account::Bill::default(),
        model: "local/concierge".into(),
    }
}

fn stream(include_usage: bool, events: Vec<Event>) -> String {
    let mut chunks = Chunks::new(head(), include_usage);
    let mut out = String::new();
    for event in events {
        chunks.push(event, &mut out);
    }
    out.replace(shape::FINGERPRINT, "FP")
}

fn usage() -> Usage {
    Usage {
        prompt: Some(12),
        cached_prompt: Some(8),
        cache_written: None,
        cache_written_hour: None,
        completion: Some(3),
        reasoning: None,
    }
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished {
        reason,
        usage: usage(),
    }
}

/// A chunk as it must look, around its choices.
fn chunk(choices: &str, more: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\
         \"created\":1700000000,\"model\":\"local/concierge\",\"system_fingerprint\":\"FP\",\
         \"choices\":[{choices}]{more}}}\n\n"
    )
}

fn delta(delta: &str) -> String {
    format!("{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}")
}

fn last(reason: &str) -> String {
    format!("{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"{reason}\"}}")
}

const ROLE: &str = r#"{"role":"assistant","content":""}"#;

#[test]
fn text_streams_as_openai_streams_it() {
    let out = stream(
        false,
        vec![
            Event::Content("Hel".into()),
            Event::Content("lo\n\"you\"".into()),
            finished(FinishReason::Stop),
        ],
    );
    let expected = [
        chunk(&delta(ROLE), ""),
        chunk(&delta(r#"{"content":"Hel"}"#), ""),
        chunk(&delta(r#"{"content":"lo\n\"you\""}"#), ""),
        chunk(&last("stop"), ""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn usage_comes_last_with_no_choices_and_is_null_before() {
    let out = stream(
        true,
        vec![Event::Content("Hi".into()), finished(FinishReason::Length)],
    );
    let null = ",\"usage\":null";
    let expected = [
        chunk(&delta(ROLE), null),
        chunk(&delta(r#"{"content":"Hi"}"#), null),
        chunk(&last("length"), null),
        chunk(
            "",
            ",\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15,\
             \"prompt_tokens_details\":{\"cached_tokens\":8},\
             \"completion_tokens_details\":{\"reasoning_tokens\":0}}",
        ),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn reasoning_and_tool_calls_have_their_own_deltas() {
    let call = |id: Option<&str>, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index: 0,
            id: id.map(str::to_owned),
            name: id.map(|_| "set_light".to_owned()),
            arguments: arguments.to_owned(),
        })
    };
    let out = stream(
        false,
        vec![
            Event::Reasoning("hm".into()),
            call(Some("call_1"), ""),
            call(None, "{\"on\":true}"),
            finished(FinishReason::ToolCalls),
        ],
    );
    let expected = [
        chunk(&delta(ROLE), ""),
        chunk(&delta(r#"{"reasoning_content":"hm"}"#), ""),
        chunk(
            &delta(
                "{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\
                 \"function\":{\"name\":\"set_light\",\"arguments\":\"\"}}]}",
            ),
            "",
        ),
        chunk(
            &delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"on\":true}"}}]}"#),
            "",
        ),
        chunk(&last("tool_calls"), ""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn a_failure_ends_a_stream_without_reason_and_without_done() {
    let out = stream(
        true,
        vec![
            Event::Content("Half an".into()),
            Event::Failed(Failure::new(FailureKind::Crashed, "The engine went away.")),
        ],
    );
    let null = ",\"usage\":null";
    let expected = [
        chunk(&delta(ROLE), null),
        chunk(&delta(r#"{"content":"Half an"}"#), null),
        "data: {\"error\":{\"message\":\"The engine went away.\",\"type\":\"server_error\",\
         \"param\":null,\"code\":\"crashed\"}}\n\n"
            .to_owned(),
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn an_empty_answer_still_has_its_role_and_reason() {
    let out = stream(false, vec![finished(FinishReason::Stop)]);
    let expected = [
        chunk(&delta(ROLE), ""),
        chunk(&last("stop"), ""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(out, expected.concat());
}

fn token(text: &str, logprob: f32) -> TokenLogprob {
    TokenLogprob {
        token: text.to_owned(),
        bytes: text.as_bytes().to_vec(),
        logprob,
        top: vec![
            (text.to_owned(), text.as_bytes().to_vec(), logprob),
            ("?".to_owned(), vec![63], f32::NEG_INFINITY),
        ],
    }
}

#[test]
fn log_probabilities_ride_on_the_content_they_belong_to() {
    let out = stream(
        false,
        vec![
            Event::Logprobs(vec![token("H", -0.1)]),
            Event::Logprobs(vec![token("i", -0.25)]),
            Event::Content("Hi".into()),
            Event::Logprobs(vec![token("", -1.0)]),
            finished(FinishReason::Stop),
        ],
    );
    let entry = |text: &str, bytes: &str, p: &str| {
        format!(
            "{{\"token\":\"{text}\",\"logprob\":{p},\"bytes\":{bytes},\"top_logprobs\":[\
             {{\"token\":\"{text}\",\"logprob\":{p},\"bytes\":{bytes}}},\
             {{\"token\":\"?\",\"logprob\":-9999.0,\"bytes\":[63]}}]}}"
        )
    };
    let content = |text: &str, entries: &str| {
        format!(
            "{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"logprobs\":{{\"content\":\
             [{entries}],\"refusal\":null}},\"finish_reason\":null}}"
        )
    };
    let both = format!(
        "{},{}",
        entry("H", "[72]", "-0.1"),
        entry("i", "[105]", "-0.25")
    );
    let expected = [
        chunk(&delta(ROLE), ""),
        chunk(&content("Hi", &both), ""),
        chunk(&content("", &entry("", "[]", "-1.0")), ""),
        chunk(&last("stop"), ""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(out, expected.concat());
}

#[tokio::test]
async fn a_whole_answer_is_one_object() {
    let events = vec![
        Event::Started { model: "x".into() },
        Event::Reasoning("hm".into()),
        Event::Content("Hel".into()),
        Event::Content("lo".into()),
        finished(FinishReason::Stop),
    ];
    let collected = collect(Box::pin(futures_util::stream::iter(events)));
    let object = whole(&head(), &collected.await.unwrap()).to_string();
    let expected = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\
         \"created\":1700000000,\"model\":\"local/concierge\",\"system_fingerprint\":\"FP\",\
         \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello\",\
         \"refusal\":null,\"reasoning_content\":\"hm\"},\"logprobs\":null,\
         \"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\
         \"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":8},\
         \"completion_tokens_details\":{\"reasoning_tokens\":0}}}";
    assert_eq!(object.replace(shape::FINGERPRINT, "FP"), expected);
}

#[tokio::test]
async fn content_is_null_where_there_are_only_calls() {
    let fragment = |index, id: Option<&str>, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index,
            id: id.map(str::to_owned),
            name: id.map(|id| format!("f_{id}")),
            arguments: arguments.to_owned(),
        })
    };
    let events = vec![
        fragment(0, Some("a"), "{\"x\""),
        fragment(0, None, ":1}"),
        fragment(1, Some("b"), "{}"),
        finished(FinishReason::ToolCalls),
    ];
    let collected = collect(Box::pin(futures_util::stream::iter(events)));
    let object = whole(&head(), &collected.await.unwrap());
    let message = object["choices"][0]["message"].to_string();
    let expected = "{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":[\
         {\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f_a\",\"arguments\":\
         \"{\\\"x\\\":1}\"}},{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"f_b\",\
         \"arguments\":\"{}\"}}]}";
    assert_eq!(message, expected);
}

#[tokio::test]
async fn a_part_never_passes_for_the_whole() {
    for events in [
        vec![Event::Content("Half".into())],
        vec![
            Event::Content("Half".into()),
            Event::Failed(Failure::new(FailureKind::Cut, "cut")),
        ],
        vec![],
    ] {
        let collected = collect(Box::pin(futures_util::stream::iter(events))).await;
        assert_eq!(collected.err().unwrap().kind, FailureKind::Cut);
    }
}

#[test]
fn text_is_escaped_and_stands_in_its_place_whatever_the_head_holds() {
    let head = Head {
        model: "p/\"content\":\"\" {}\n".into(),
        ..head()
    };
    let text = "say \"content\":\"\"\n\u{1}ü\\";
    for include_usage in [false, true] {
        let mut chunks = Chunks::new(head.clone(), include_usage);
        let (mut quick, mut built) = (String::new(), String::new());
        chunks.push(Event::Content("a".into()), &mut String::new());
        chunks.push(Event::Content(text.into()), &mut quick);
        chunks.content(&mut built, text);
        assert_eq!(quick, built);
    }
}
