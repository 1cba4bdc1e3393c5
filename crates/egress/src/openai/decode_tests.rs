#![allow(clippy::unwrap_used)]
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, ToolCallDelta, Usage};
use serde_json::{Value, json};

use super::Decoder;
use crate::sse::Message;

fn stream(chunks: &[&str]) -> (Vec<Event>, Result<(), Failure>) {
    let mut decoder = Decoder::new("p", "asked", 10);
    let mut out = Vec::new();
    for data in chunks {
        let message = Message {
            event: String::new(),
            data: (*data).to_owned(),
        };
        if let Err(failure) = decoder.message(&message, &mut out) {
            return (out, Err(failure));
        }
    }
    let ended = decoder.end(&mut out);
    (out, ended)
}

fn whole(body: &str) -> (Vec<Event>, Result<(), Failure>) {
    let mut decoder = Decoder::new("p", "asked", 10);
    let mut out = Vec::new();
    let result = decoder.whole(body.as_bytes(), &mut out);
    (out, result)
}

fn call(index: u32, first: Option<(&str, &str)>, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: first.map(|(id, _)| id.to_owned()),
        name: first.map(|(_, name)| name.to_owned()),
        arguments: arguments.to_owned(),
    })
}

fn started(model: &str) -> Event {
    Event::Started {
        model: model.to_owned(),
    }
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished {
        reason,
        usage: Usage::default(),
    }
}

#[test]
fn a_stream_with_usage() {
    let (events, ended) = stream(&[
        r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-x-2025","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#"{"id":"chatcmpl-1","model":"gpt-x-2025","choices":[{"index":0,"delta":{"content":"Hé"},"logprobs":{"content":[{"token":"Hé","logprob":-0.5,"bytes":[72,195,169],"top_logprobs":[{"token":"Hé","logprob":-0.5,"bytes":null}]}],"refusal":null},"finish_reason":null}]}"#,
        r#"{"id":"chatcmpl-1","model":"gpt-x-2025","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#,
        r#"{"id":"chatcmpl-1","model":"gpt-x-2025","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}"#,
        "[DONE]",
        r#"{"ignored":"after the end"}"#,
    ]);
    ended.unwrap();
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(events[0] == started("gpt-x-2025"));
    let Event::Logprobs(tokens) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(tokens[0].bytes, [72, 195, 169]);
    assert_eq!(tokens[0].top[0].1, "Hé".as_bytes());
    assert!(events[2] == Event::Content("Hé".into()));
    let usage = Usage {
        prompt: Some(9),
        cached_prompt: Some(4),
        cache_written: None,
        cache_written_hour: None,
        completion: Some(3),
        reasoning: Some(1),
    };
    assert!(
        events[3]
            == Event::Finished {
                reason: FinishReason::Length,
                usage
            }
    );
}

#[test]
fn calls_are_numbered_from_zero_and_named_once() {
    let (events, ended) = stream(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"index":3,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":3,"id":"a","function":{"name":"f","arguments":"{\"x\":"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":7,"id":"b","function":{"name":"g","arguments":"{"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":3,"function":{"arguments":"1}"}},{"index":7,"function":{"arguments":"}"}}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    ]);
    ended.unwrap();
    let expected = [
        started("asked"),
        call(0, Some(("a", "f")), ""),
        call(0, None, "{\"x\":"),
        call(1, Some(("b", "g")), "{"),
        call(0, None, "1}"),
        call(1, None, "}"),
        finished(FinishReason::ToolCalls),
    ];
    assert!(events == expected, "{events:?}");
}

#[test]
fn calls_that_all_count_as_zero_or_not_at_all() {
    for key in [r#""index":0,"#, ""] {
        let one = format!(
            r#"{{"choices":[{{"delta":{{"tool_calls":[{{{key}"id":"a","function":{{"name":"f","arguments":"{{}}"}}}}]}}}}]}}"#
        );
        let two = one.replace("\"a\"", "\"b\"");
        let (events, ended) = stream(&[
            &one,
            &two,
            r#"{"choices":[{"finish_reason":"tool_calls"}]}"#,
        ]);
        ended.unwrap();
        assert!(events[1] == call(0, Some(("a", "f")), "{}"), "{events:?}");
        assert!(events[2] == call(1, Some(("b", "f")), "{}"), "{events:?}");
    }
}

#[test]
fn a_call_without_id_gets_one_and_a_late_name_is_awaited() {
    let (events, ended) = stream(&[
        r#"{"id":"chatcmpl-zz","choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":":1}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"name":"g"}}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
    ]);
    ended.unwrap();
    assert!(
        events[1] == call(0, Some(("call_zza_0", "f")), "{\"a\":1}"),
        "{events:?}"
    );
    assert!(events[2] == call(1, Some(("call_zza_1", "g")), ""));
    assert!(
        events[3] == call(1, None, "{}"),
        "no arguments are an empty object"
    );
    let (_, ended) = stream(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
    ]);
    assert_eq!(ended.unwrap_err().kind, FailureKind::Malformed);
}

#[test]
fn reasoning_refusal_and_content_as_parts() {
    let (events, ended) = stream(&[
        r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"b"}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_content":"c","reasoning":"c"}}]}"#,
        r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"d"}]},{"type":"text","text":"e"}]}}]}"#,
        r#"{"choices":[{"delta":{"refusal":"I will not"}}]}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"another answer"}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    ]);
    ended.unwrap();
    let expected = [
        started("asked"),
        Event::Reasoning("a".into()),
        Event::Reasoning("b".into()),
        Event::Reasoning("c".into()),
        Event::Reasoning("d".into()),
        Event::Content("e".into()),
        Event::Content("I will not".into()),
        finished(FinishReason::ContentFilter),
    ];
    assert!(events == expected, "{events:?}");
}

#[test]
fn an_end_without_a_reason_is_a_cut_and_done_is_optional() {
    let text = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
    let (_, ended) = stream(&[text]);
    assert_eq!(ended.unwrap_err().kind, FailureKind::Cut);
    let (_, ended) = stream(&[text, "[DONE]"]);
    assert_eq!(
        ended.unwrap_err().kind,
        FailureKind::Cut,
        "a bare marker is no reason"
    );
    let (events, ended) = stream(&[text, r#"{"choices":[{"finish_reason":"stop"}]}"#]);
    ended.unwrap();
    assert!(events.last().unwrap().is_last());
}

#[test]
fn errors_inside_a_stream() {
    for (chunk, kind) in [
        (
            r#"{"error":{"message":"boom","type":"server_error","code":null}}"#,
            FailureKind::TargetError,
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"error"}],"error":{"code":429,"message":"slow"}}"#,
            FailureKind::RateLimited,
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"insufficient_system_resource"}]}"#,
            FailureKind::Overloaded,
        ),
        ("{\"choices\":", FailureKind::Malformed),
        ("<html>", FailureKind::Malformed),
    ] {
        let (_, ended) = stream(&[chunk]);
        assert_eq!(ended.unwrap_err().kind, kind, "{chunk}");
    }
    let mut decoder = Decoder::new("p", "m", 0);
    let message = Message {
        event: "error".into(),
        data: r#"{"message":"Overloaded","type":"overloaded_error"}"#.into(),
    };
    let failure = decoder.message(&message, &mut Vec::new()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Overloaded);
}

#[test]
fn a_whole_answer() {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-x",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "logprobs": null, "message": {
            "role": "assistant", "content": null, "refusal": null,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": {"y": 2}}}
            ]
        }}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 3}
    });
    let (events, ended) = whole(&body.to_string());
    ended.unwrap();
    assert!(
        events[1] == call(0, Some(("a", "f")), "{\"x\":1}"),
        "{events:?}"
    );
    assert!(
        events[2] == call(1, Some(("b", "f")), "{\"y\":2}"),
        "{events:?}"
    );
    let Event::Finished { reason, usage } = &events[3] else {
        panic!("{events:?}")
    };
    assert_eq!(*reason, FinishReason::ToolCalls);
    assert_eq!(usage.cached_prompt, Some(3));
}

#[test]
fn a_raw_text_answer() {
    let (events, ended) = whole(
        r#"{"model":"m","choices":[{"index":0,"text":" a time","finish_reason":"length","logprobs":{"tokens":[" a"," time"],"token_logprobs":[-1.0,-2.0],"top_logprobs":[{" a":-1.0," the":-0.5},null],"text_offset":[0,2]}}]}"#,
    );
    ended.unwrap();
    let Event::Logprobs(tokens) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(tokens[0].top[0].0, " the", "best first");
    assert_eq!(tokens[1].logprob, -2.0);
    assert!(events[2] == Event::Content(" a time".into()));
    assert!(events[3] == finished(FinishReason::Length));
}

#[test]
fn empty_and_foreign_bodies_are_malformed() {
    for body in [
        "",
        " \n",
        "null",
        "{}",
        "<html>",
        "[1]",
        r#"{"choices":[]}"#,
        "{\"choices\":[{",
    ] {
        let (_, ended) = whole(body);
        assert_eq!(ended.unwrap_err().kind, FailureKind::Malformed, "{body}");
    }
    let (_, ended) = whole(r#"{"error":{"message":"no","code":"model_not_found"}}"#);
    assert_eq!(ended.unwrap_err().kind, FailureKind::ModelMissing);
}

#[test]
fn usage_in_every_convention() {
    let usage = |usage: Value| {
        let body = json!({"model": "m", "usage": usage, "choices": [
            {"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}
        ]});
        let mut events = Vec::new();
        Decoder::new("p", "m", 0)
            .whole(body.to_string().as_bytes(), &mut events)
            .unwrap();
        match events.last() {
            Some(Event::Finished { usage, .. }) => *usage,
            other => panic!("{other:?}"),
        }
    };
    let expected = Usage {
        prompt: Some(10),
        cached_prompt: Some(4),
        cache_written: None,
        cache_written_hour: None,
        completion: Some(8),
        reasoning: Some(5),
    };
    for told in [
        // OpenAI: reasoning within.
        json!({"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18,
               "prompt_tokens_details": {"cached_tokens": 4},
               "completion_tokens_details": {"reasoning_tokens": 5}}),
        // xAI: reasoning beside.
        json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 18,
               "prompt_tokens_details": {"cached_tokens": 4},
               "completion_tokens_details": {"reasoning_tokens": 5}}),
        // DeepSeek, Together and Perplexity: other places.
        json!({"prompt_tokens": 10, "completion_tokens": 8, "prompt_cache_hit_tokens": 4,
               "completion_tokens_details": {"reasoning_tokens": 5}}),
        json!({"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18,
               "cached_tokens": 4, "reasoning_tokens": 5}),
    ] {
        assert_eq!(usage(told.clone()), expected, "{told}");
    }
    let told = usage(json!({"prompt_tokens": 10, "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 6}}));
    assert_eq!((told.cached_prompt, told.cache_written), (Some(0), Some(6)));
}
