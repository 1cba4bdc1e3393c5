#![allow(clippy::unwrap_used)]
use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, ToolCallDelta, Usage,
};
use nearfar_domain::thought::{Origin, Signature};
use serde_json::{Value, json};

use super::Decoder;
use crate::sse::Message;

fn stream(steps: &[Value]) -> (Vec<Event>, Result<(), Failure>) {
    let mut decoder = Decoder::new("p", "asked");
    let mut out = Vec::new();
    for step in steps {
        let message = Message {
            event: step["type"].as_str().unwrap_or_default().to_owned(),
            data: step.to_string(),
        };
        if let Err(failure) = decoder.message(&message, &mut out) {
            return (out, Err(failure));
        }
    }
    let ended = decoder.end(&mut out);
    (out, ended)
}

fn start() -> Value {
    json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 1,
            "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1}}
    }})
}

fn call(index: u32, first: Option<(&str, &str)>, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: first.map(|(id, _)| id.to_owned()),
        name: first.map(|(_, name)| name.to_owned()),
        arguments: arguments.to_owned(),
    })
}

fn started() -> Event {
    Event::Started {
        model: "claude-x".to_owned(),
    }
}

const USAGE: Usage = Usage {
    prompt: Some(17),
    cached_prompt: Some(5),
    cache_written: Some(2),
    cache_written_hour: Some(1),
    completion: Some(30),
    reasoning: None,
};

#[test]
fn thinking_text_and_calls() {
    let (events, ended) = stream(&[
        start(),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "Eq"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hé"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"x\":"}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "a_new_event", "anything": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 30}}),
        json!({"type": "message_stop"}),
    ]);
    ended.unwrap();
    let expected = [
        started(),
        Event::Reasoning("hm".into()),
        Event::Signature {
            of: Signed::Thought { id: None },
            signature: Signature::new(Origin::Anthropic, "Eq"),
        },
        Event::Content("Hé".into()),
        call(0, Some(("toolu_1", "f")), ""),
        call(0, None, "{\"x\":"),
        call(0, None, "1}"),
        call(1, Some(("toolu_2", "g")), ""),
        call(1, None, "{}"),
        Event::Finished {
            reason: FinishReason::ToolCalls,
            usage: USAGE,
        },
    ];
    assert!(events == expected, "{events:?}");
}

#[test]
fn every_stop_reason() {
    for (word, expected) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("pause_turn", FinishReason::Length),
        ("refusal", FinishReason::ContentFilter),
        ("tool_use", FinishReason::Stop),
    ] {
        let (events, ended) = stream(&[
            start(),
            json!({"type": "message_delta", "delta": {"stop_reason": word}, "usage": {"output_tokens": 30}}),
            json!({"type": "message_stop"}),
        ]);
        ended.unwrap();
        assert!(
            events[1]
                == Event::Finished {
                    reason: expected,
                    usage: USAGE
                },
            "{word}: {events:?}"
        );
    }
}

#[test]
fn without_its_end_marker_an_answer_is_cut() {
    let text = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}});
    for steps in [
        vec![start()],
        vec![start(), text.clone()],
        vec![start(), text, delta],
    ] {
        let (_, ended) = stream(&steps);
        assert_eq!(ended.unwrap_err().kind, FailureKind::Cut);
    }
}

#[test]
fn faults_inside_a_stream() {
    for (step, kind) in [
        (
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            FailureKind::Overloaded,
        ),
        (
            json!({"type": "content_block_delta"}),
            FailureKind::Malformed,
        ),
        (json!([1]), FailureKind::Malformed),
        (json!({"type": "message_stop"}), FailureKind::Malformed),
    ] {
        let (_, ended) = stream(&[start(), step.clone()]);
        assert_eq!(ended.unwrap_err().kind, kind, "{step}");
    }
}

#[test]
fn a_whole_answer() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1, "a": 2}}
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1}}
    });
    let mut decoder = Decoder::new("p", "asked");
    let mut events = Vec::new();
    decoder
        .whole(body.to_string().as_bytes(), &mut events)
        .unwrap();
    let expected = [
        started(),
        Event::Reasoning("hm".into()),
        Event::Signature {
            of: Signed::Thought { id: None },
            signature: Signature::new(Origin::Anthropic, "x"),
        },
        Event::Signature {
            of: Signed::Redacted,
            signature: Signature::new(Origin::Anthropic, "x"),
        },
        Event::Content("Hi".into()),
        call(0, Some(("toolu_1", "f")), ""),
        call(0, None, "{\"x\":1,\"a\":2}"),
        Event::Finished {
            reason: FinishReason::ToolCalls,
            usage: USAGE,
        },
    ];
    assert!(events == expected, "{events:?}");
}

#[test]
fn bodies_that_are_no_answer() {
    for (body, kind) in [
        ("", FailureKind::Malformed),
        ("{}", FailureKind::Malformed),
        ("[]", FailureKind::Malformed),
        (r#"{"type":"message","content":[]}"#, FailureKind::Malformed),
        (
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#,
            FailureKind::ModelMissing,
        ),
    ] {
        let mut decoder = Decoder::new("p", "asked");
        let failure = decoder.whole(body.as_bytes(), &mut Vec::new()).unwrap_err();
        assert_eq!(failure.kind, kind, "{body}");
    }
}

#[test]
fn the_stop_string_is_named() {
    let (events, ended) = stream(&[
        start(),
        json!({"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"}, "usage": {"output_tokens": 30}}),
        json!({"type": "message_stop"}),
    ]);
    ended.unwrap();
    assert!(events[1] == Event::StoppedBy("END".into()), "{events:?}");
    assert!(matches!(
        events[2],
        Event::Finished {
            reason: FinishReason::Stop,
            ..
        }
    ));
}
