#![allow(clippy::unwrap_used)]
use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, ToolCallDelta, Usage,
};
use nearfar_domain::thought::{Origin, Signature};
use serde_json::{Value, json};

use super::Decoder;
use crate::sse::Message;

fn stream(chunks: &[Value]) -> (Vec<Event>, Result<(), Failure>) {
    let mut decoder = Decoder::new("p", "asked", 0xab);
    let mut out = Vec::new();
    for chunk in chunks {
        let message = Message {
            event: String::new(),
            data: chunk.to_string(),
        };
        if let Err(failure) = decoder.message(&message, &mut out) {
            return (out, Err(failure));
        }
    }
    let ended = decoder.end(&mut out);
    (out, ended)
}

fn whole(body: &Value) -> (Vec<Event>, Result<(), Failure>) {
    let mut out = Vec::new();
    let done = Decoder::new("p", "asked", 0xab).whole(body.to_string().as_bytes(), &mut out);
    (out, done)
}

fn chunk(parts: Value, finish: Option<&str>) -> Value {
    let mut chunk = json!({
        "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 10, "totalTokenCount": 10,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}]
        },
        "modelVersion": "gemini-2.5-flash", "responseId": "r1"
    });
    if let Some(finish) = finish {
        chunk["candidates"][0]["finishReason"] = json!(finish);
        chunk["usageMetadata"]["cachedContentTokenCount"] = json!(4);
        chunk["usageMetadata"]["candidatesTokenCount"] = json!(7);
        chunk["usageMetadata"]["thoughtsTokenCount"] = json!(5);
    }
    chunk
}

fn started() -> Event {
    Event::Started {
        model: "gemini-2.5-flash".to_owned(),
    }
}

fn call(index: u32, id: &str, name: &str, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: Some(id.into()),
        name: Some(name.into()),
        arguments: arguments.into(),
    })
}

fn signature(of: Signed, data: &str) -> Event {
    Event::Signature {
        of,
        signature: Signature::new(Origin::Gemini, data),
    }
}

const USAGE: Usage = Usage {
    prompt: Some(10),
    cached_prompt: Some(4),
    cache_written: None,
    cache_written_hour: None,
    completion: Some(12),
    reasoning: Some(5),
};

#[test]
fn thoughts_text_and_parallel_calls() {
    let parts = [
        json!([{"text": "let me", "thought": true}]),
        json!([{"text": " see", "thought": true}]),
        json!([{"text": "Grüße"}]),
        json!([
            {"functionCall": {"name": "f", "args": {"b": 1, "a": [true]}}, "thoughtSignature": "Cg"},
            {"functionCall": {"id": "fc-7", "name": "g"}}
        ]),
        json!([{"text": "", "thoughtSignature": "Ch"}]),
    ];
    let last = parts.len() - 1;
    let chunks: Vec<Value> = parts
        .iter()
        .enumerate()
        .map(|(at, parts)| chunk(parts.clone(), (at == last).then_some("STOP")))
        .collect();
    let (events, ended) = stream(&chunks);
    ended.unwrap();
    let expected = [
        started(),
        Event::Reasoning("let me".into()),
        Event::Reasoning(" see".into()),
        Event::Content("Grüße".into()),
        call(0, "call_ab_0", "f", r#"{"b":1,"a":[true]}"#),
        signature(Signed::Call(0), "Cg"),
        call(1, "fc-7", "g", "{}"),
        signature(Signed::Thought { id: None }, "Ch"),
        Event::Finished {
            reason: FinishReason::ToolCalls,
            usage: USAGE,
        },
    ];
    assert!(events == expected, "{events:?}");

    let all: Vec<Value> = parts
        .iter()
        .flat_map(|parts| parts.as_array().unwrap().clone())
        .collect();
    let (events, done) = whole(&chunk(json!(all), Some("STOP")));
    done.unwrap();
    assert!(events == expected, "{events:?}");
    let (events, done) = whole(&json!(chunks));
    done.unwrap();
    assert!(events == expected, "a list of chunks: {events:?}");
}

#[test]
fn every_finish_reason() {
    for (word, expected) in [
        ("STOP", FinishReason::Stop),
        ("MAX_TOKENS", FinishReason::Length),
        ("SAFETY", FinishReason::ContentFilter),
        ("RECITATION", FinishReason::ContentFilter),
        ("PROHIBITED_CONTENT", FinishReason::ContentFilter),
        ("OTHER", FinishReason::ContentFilter),
        ("A_NEW_WORD", FinishReason::Stop),
    ] {
        let (events, ended) = stream(&[chunk(json!([{"text": "a"}]), Some(word))]);
        ended.unwrap();
        assert!(
            matches!(events.last(), Some(Event::Finished { reason, .. }) if *reason == expected),
            "{word}"
        );
    }
    for (word, expected) in [
        ("MALFORMED_FUNCTION_CALL", FailureKind::Malformed),
        ("UNEXPECTED_TOOL_CALL", FailureKind::Malformed),
        ("MISSING_THOUGHT_SIGNATURE", FailureKind::BadRequest),
    ] {
        let (_, ended) = stream(&[chunk(json!([]), Some(word))]);
        let failure = ended.unwrap_err();
        assert_eq!(failure.kind, expected, "{word}");
        assert_eq!(failure.upstream_code.as_deref(), Some(word));
    }
}

#[test]
fn a_prompt_that_is_refused_is_told_as_a_filter() {
    let refused = json!({
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
        "modelVersion": "gemini-2.5-flash"
    });
    for (events, done) in [stream(std::slice::from_ref(&refused)), whole(&refused)] {
        done.unwrap();
        let usage = Usage {
            prompt: Some(9),
            completion: Some(0),
            ..Usage::default()
        };
        let reason = FinishReason::ContentFilter;
        assert!(
            events == [started(), Event::Finished { reason, usage }],
            "{events:?}"
        );
    }
    // Safe prompts carry feedback, too.
    let mut fine = chunk(json!([{"text": "a"}]), Some("STOP"));
    fine["promptFeedback"] = json!({"safetyRatings": []});
    let (events, _) = stream(&[fine]);
    assert!(matches!(
        events.last(),
        Some(Event::Finished {
            reason: FinishReason::Stop,
            ..
        })
    ));
}

#[test]
fn an_answer_that_was_cut_is_not_whole() {
    let (events, ended) = stream(&[chunk(json!([{"text": "a"}]), None)]);
    assert_eq!(ended.unwrap_err().kind, FailureKind::Cut);
    assert_eq!(events.len(), 2);
    let (_, done) = whole(&chunk(json!([{"text": "a"}]), None));
    assert_eq!(done.unwrap_err().kind, FailureKind::Malformed);
    for body in ["", " ", "{", "[{]", "7"] {
        let done = Decoder::new("p", "m", 0).whole(body.as_bytes(), &mut Vec::new());
        assert_eq!(done.unwrap_err().kind, FailureKind::Malformed, "{body}");
    }
}

#[test]
fn errors_in_the_stream_and_in_the_body() {
    let error = json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}});
    for (_, done) in [
        stream(&[chunk(json!([{"text": "a"}]), None), error.clone()]),
        whole(&error),
        whole(&json!([error])),
    ] {
        let failure = done.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Overloaded);
        assert_eq!(failure.upstream_code.as_deref(), Some("UNAVAILABLE"));
        assert_eq!(failure.message, "p says: The model is overloaded.");
    }
}

#[test]
fn logprobs_and_googles_own_tools() {
    let mut first = chunk(
        json!([
            {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
            {"inlineData": {"mimeType": "image/png", "data": "AA"}},
            {"text": "one"}
        ]),
        Some("STOP"),
    );
    first["candidates"][0]["logprobsResult"] = json!({
        "chosenCandidates": [{"token": "one", "tokenId": 7, "logProbability": -0.25}],
        "topCandidates": [{"candidates": [
            {"token": "one", "logProbability": -0.25}, {"token": "two", "logProbability": -2.0}
        ]}]
    });
    let (events, ended) = stream(&[first]);
    ended.unwrap();
    let Event::Logprobs(tokens) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (tokens[0].token.as_str(), tokens[0].logprob),
        ("one", -0.25)
    );
    assert_eq!(tokens[0].top[1].0, "two");
    let text: String = events
        .iter()
        .filter_map(|event| match event {
            Event::Content(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(text, "print(1)1\none");
}
