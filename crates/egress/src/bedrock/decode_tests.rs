#![allow(clippy::unwrap_used)]
use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, ToolCallDelta, Usage,
};
use nearfar_domain::thought::{Origin, Signature};
use serde_json::{Value, json};

use super::Decoder;
use super::eventstream::{Frames, encode};

fn event(name: &str, payload: Value) -> Vec<u8> {
    encode(
        &[
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload.to_string().as_bytes(),
    )
}

fn stream(messages: &[Vec<u8>]) -> (Vec<Event>, Result<(), Failure>) {
    let mut decoder = Decoder::new("p", "anthropic.claude-x");
    let (mut frames, mut read, mut out) = (Frames::default(), Vec::new(), Vec::new());
    frames.push(&messages.concat(), &mut read).unwrap();
    for frame in &read {
        if let Err(failure) = decoder.frame(frame, &mut out) {
            return (out, Err(failure));
        }
    }
    let ended = decoder.end(&mut out);
    (out, ended)
}

fn delta(index: u64, delta: Value) -> Vec<u8> {
    event(
        "contentBlockDelta",
        json!({"contentBlockIndex": index, "delta": delta, "p": "abcdefghij"}),
    )
}

fn stop(index: u64) -> Vec<u8> {
    event(
        "contentBlockStop",
        json!({"contentBlockIndex": index, "p": "ab"}),
    )
}

fn ending(reason: &str) -> [Vec<u8>; 2] {
    [
        event("messageStop", json!({"stopReason": reason, "p": "abc"})),
        event(
            "metadata",
            json!({
                "usage": {"inputTokens": 10, "outputTokens": 30, "totalTokens": 47,
                          "cacheReadInputTokens": 5, "cacheWriteInputTokens": 2},
                "metrics": {"latencyMs": 1234}, "p": "abcdef"
            }),
        ),
    ]
}

fn call(index: u32, first: Option<(&str, &str)>, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: first.map(|(id, _)| id.to_owned()),
        name: first.map(|(_, name)| name.to_owned()),
        arguments: arguments.to_owned(),
    })
}

fn signature(of: Signed, data: &str) -> Event {
    Event::Signature {
        of,
        signature: Signature::new(Origin::Anthropic, data),
    }
}

fn finished(reason: FinishReason) -> Event {
    let usage = Usage {
        prompt: Some(17),
        cached_prompt: Some(5),
        cache_written: Some(2),
        cache_written_hour: None,
        completion: Some(30),
        reasoning: None,
    };
    Event::Finished { reason, usage }
}

fn started() -> Event {
    Event::Started {
        model: "anthropic.claude-x".into(),
    }
}

#[test]
fn thinking_text_and_parallel_calls() {
    let mut messages = vec![
        event("messageStart", json!({"role": "assistant", "p": "a"})),
        delta(0, json!({"reasoningContent": {"text": "hm"}})),
        delta(0, json!({"reasoningContent": {"signature": "Eq"}})),
        stop(0),
        delta(1, json!({"reasoningContent": {"redactedContent": "Er"}})),
        stop(1),
        delta(2, json!({"text": "Grüße"})),
        stop(2),
        event(
            "contentBlockStart",
            json!({"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t1", "name": "f"}}}),
        ),
        delta(3, json!({"toolUse": {"input": "{\"x\":"}})),
        delta(3, json!({"toolUse": {"input": "1}"}})),
        stop(3),
        event(
            "contentBlockStart",
            json!({"contentBlockIndex": 4, "start": {"toolUse": {"toolUseId": "t2", "name": "g"}}}),
        ),
        stop(4),
        event("aNewEvent", json!({"x": 1})),
    ];
    messages.extend(ending("tool_use"));
    let (events, ended) = stream(&messages);
    ended.unwrap();
    let expected = [
        started(),
        Event::Reasoning("hm".into()),
        signature(Signed::Thought { id: None }, "Eq"),
        signature(Signed::Redacted, "Er"),
        Event::Content("Grüße".into()),
        call(0, Some(("t1", "f")), ""),
        call(0, None, "{\"x\":"),
        call(0, None, "1}"),
        call(1, Some(("t2", "g")), ""),
        call(1, None, "{}"),
        finished(FinishReason::ToolCalls),
    ];
    assert!(events == expected, "{events:?}");
}

#[test]
fn a_whole_answer_says_the_same() {
    let body = json!({
        "output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Eq"}}},
            {"reasoningContent": {"redactedContent": "Er"}},
            {"text": "Grüße"},
            {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"x": 1}}}
        ]}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 10, "outputTokens": 30, "totalTokens": 47,
                  "cacheReadInputTokens": 5, "cacheWriteInputTokens": 2},
        "metrics": {"latencyMs": 1}
    });
    let mut out = Vec::new();
    let mut decoder = Decoder::new("p", "anthropic.claude-x");
    decoder
        .whole(body.to_string().as_bytes(), &mut out)
        .unwrap();
    let expected = [
        started(),
        Event::Reasoning("hm".into()),
        signature(Signed::Thought { id: None }, "Eq"),
        signature(Signed::Redacted, "Er"),
        Event::Content("Grüße".into()),
        call(0, Some(("t1", "f")), "{\"x\":1}"),
        finished(FinishReason::ToolCalls),
    ];
    assert!(out == expected, "{out:?}");
}

#[test]
fn every_stop_reason() {
    for (word, expected) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("tool_use", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("guardrail_intervened", FinishReason::ContentFilter),
        ("content_filtered", FinishReason::ContentFilter),
    ] {
        let (events, ended) = stream(&ending(word));
        ended.unwrap();
        assert!(
            events == [started(), finished(expected)],
            "{word}: {events:?}"
        );
    }
    let (_, ended) = stream(&ending("malformed_tool_use"));
    assert_eq!(ended.unwrap_err().kind, FailureKind::Malformed);
}

#[test]
fn exceptions_and_cuts() {
    for (name, kind) in [
        ("throttlingException", FailureKind::RateLimited),
        ("serviceUnavailableException", FailureKind::Overloaded),
        ("validationException", FailureKind::BadRequest),
        ("modelStreamErrorException", FailureKind::TargetError),
        ("internalServerException", FailureKind::TargetError),
    ] {
        let exception = encode(
            &[(":exception-type", name), (":message-type", "exception")],
            br#"{"message":"Please wait."}"#,
        );
        let (events, ended) = stream(&[delta(0, json!({"text": "a"})), exception]);
        let failure = ended.unwrap_err();
        assert_eq!(failure.kind, kind, "{name}");
        assert_eq!(failure.upstream_code.as_deref(), Some(name));
        assert_eq!(events.len(), 2);
    }
    let error = encode(
        &[
            (":message-type", "error"),
            (":error-code", "InternalError"),
            (":error-message", "An internal server error occurred"),
        ],
        b"",
    );
    let (_, ended) = stream(&[error]);
    assert!(ended.unwrap_err().message.contains("internal server error"));
    let (_, ended) = stream(&[delta(0, json!({"text": "a"}))]);
    assert_eq!(ended.unwrap_err().kind, FailureKind::Cut);
    // Only the usage is missing.
    let (events, ended) = stream(&ending("end_turn")[..1]);
    ended.unwrap();
    assert_eq!(events.len(), 2);
    let garbage = event("messageStop", json!([]));
    let (_, ended) = stream(&[garbage]);
    assert_eq!(ended.unwrap_err().kind, FailureKind::Malformed);
    for body in ["", "{", "[]", "{}"] {
        let done = Decoder::new("p", "m").whole(body.as_bytes(), &mut Vec::new());
        assert_eq!(done.unwrap_err().kind, FailureKind::Malformed, "{body}");
    }
    let done = Decoder::new("p", "m").whole(br#"{"message":"no"}"#, &mut Vec::new());
    assert_eq!(done.unwrap_err().message, "p says: no");
}
