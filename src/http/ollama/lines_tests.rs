#![allow(clippy::unwrap_used)]
use nearfar_domain::ids::{DecisionId, TargetId};

use super::*;

fn about() -> About {
    About {
        decision: DecisionId(7),
        target: TargetId::parse("local/concierge").unwrap(),
        created: 1_700_000_000,
        bill: crate::account::Bill::default(),
    }
}

/// The lines of a stream, less the times that no test can know.
fn stream(kind: Kind, events: Vec<Event>) -> Vec<Value> {
    let form = Box::new(OllamaForm::new(kind, Instant::now()));
    let mut chunks = form.chunks(about());
    assert_eq!(chunks.content_type(), "application/x-ndjson");
    let mut out = String::new();
    for event in events {
        chunks.push(event, &mut out);
    }
    assert!(out.is_empty() || out.ends_with('\n'));
    out.lines()
        .map(|line| timeless(serde_json::from_str(line).unwrap()))
        .collect()
}

fn timeless(mut line: Value) -> Value {
    let fields = line.as_object_mut().unwrap();
    for time in ["created_at", "total_duration", "eval_duration"] {
        if let Some(value) = fields.remove(time) {
            assert!(value.is_string() || value.is_u64(), "{time}");
        }
    }
    line
}

fn finished(reason: FinishReason) -> Event {
    let usage = Usage {
        prompt: Some(12),
        completion: Some(3),
        ..Usage::default()
    };
    Event::Finished { reason, usage }
}

fn call(index: u32, name: Option<&str>, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: name.map(|name| format!("id_{name}")),
        name: name.map(str::to_owned),
        arguments: arguments.to_owned(),
    })
}

#[test]
fn a_chat_streams_a_line_for_each_piece() {
    let lines = stream(
        Kind::Chat,
        vec![
            Event::Reasoning("hm".into()),
            Event::Content("Hel".into()),
            Event::Content("lo\n".into()),
            finished(FinishReason::Stop),
        ],
    );
    let line =
        |message: Value| json!({"model": "local/concierge", "message": message, "done": false});
    assert_eq!(
        lines,
        [
            line(json!({"role": "assistant", "content": "", "thinking": "hm"})),
            line(json!({"role": "assistant", "content": "Hel"})),
            line(json!({"role": "assistant", "content": "lo\n"})),
            json!({"model": "local/concierge", "message": {"role": "assistant", "content": ""},
                   "done": true, "done_reason": "stop", "prompt_eval_count": 12, "eval_count": 3}),
        ]
    );
}

#[test]
fn calls_go_out_whole_with_objects_as_arguments() {
    let lines = stream(
        Kind::Chat,
        vec![
            call(0, Some("f"), "{\"a\""),
            call(0, None, ":1}"),
            call(1, Some("g"), ""),
            finished(FinishReason::ToolCalls),
        ],
    );
    assert_eq!(
        lines[0]["message"]["tool_calls"],
        json!([
            {"id": "id_f", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
            {"id": "id_g", "function": {"index": 1, "name": "g", "arguments": {}}},
        ])
    );
    assert_eq!(lines[1]["done_reason"], "stop");
    assert_eq!(lines.len(), 2);
}

#[test]
fn broken_arguments_are_an_error_and_cut_ones_are_left_out() {
    let broken = |reason| {
        stream(
            Kind::Chat,
            vec![call(0, Some("f"), "{\"a\""), finished(reason)],
        )
    };
    let lines = broken(FinishReason::ToolCalls);
    assert_eq!(lines.len(), 1);
    assert!(lines[0]["error"].as_str().unwrap().contains("arguments"));
    let lines = broken(FinishReason::Length);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["done_reason"], "length");
    assert!(lines[0]["message"].get("tool_calls").is_none());
}

#[test]
fn a_failure_is_an_error_line_and_nothing_looks_done() {
    let lines = stream(
        Kind::Generate,
        vec![
            Event::Content("Half".into()),
            Event::Failed(Failure::new(FailureKind::Crashed, "The engine went away.")),
        ],
    );
    assert_eq!(lines[0]["response"], "Half");
    assert_eq!(
        lines[1],
        json!({"error": "The engine went away.", "code": "crashed"})
    );
    assert!(lines.iter().all(|line| line["done"] != true));
}

#[test]
fn log_probabilities_ride_on_their_text() {
    let token = TokenLogprob {
        token: "H".into(),
        bytes: vec![72],
        logprob: -0.1,
        top: vec![("H".into(), vec![72], -0.1)],
    };
    let lines = stream(
        Kind::Generate,
        vec![
            Event::Logprobs(vec![token]),
            Event::Content("H".into()),
            finished(FinishReason::Length),
        ],
    );
    let entry = json!({"token": "H", "logprob": -0.1, "bytes": [72]});
    let mut expected = entry.clone();
    expected["top_logprobs"] = json!([entry]);
    assert_eq!(lines[0]["logprobs"], json!([expected]));
    assert!(lines[1].get("logprobs").is_none());
}

#[test]
fn silence_is_filled_with_a_line_that_says_nothing() {
    let mut chunks = Box::new(OllamaForm::new(Kind::Chat, Instant::now())).chunks(about());
    let mut out = String::new();
    chunks.keep_alive(&mut out);
    let line: Value = serde_json::from_str(out.trim_end()).unwrap();
    assert_eq!(line["message"]["content"], "");
    assert_eq!(line["done"], false);
}

#[test]
fn whole_answers_are_one_object() {
    let answer = Collected {
        content: "Hello".into(),
        reasoning: "hm".into(),
        reason: Some(FinishReason::Stop),
        usage: Usage {
            prompt: Some(1),
            completion: None,
            ..Usage::default()
        },
        ..Collected::default()
    };
    let whole = |kind| {
        timeless(
            OllamaForm::new(kind, Instant::now())
                .whole(&about(), &answer)
                .unwrap(),
        )
    };
    assert_eq!(
        whole(Kind::Chat),
        json!({"model": "local/concierge",
               "message": {"role": "assistant", "content": "Hello", "thinking": "hm"},
               "done": true, "done_reason": "stop", "prompt_eval_count": 1})
    );
    assert_eq!(
        whole(Kind::Generate),
        json!({"model": "local/concierge", "response": "Hello", "thinking": "hm",
               "done": true, "done_reason": "stop", "prompt_eval_count": 1})
    );
}

#[test]
fn vectors_have_two_shapes() {
    let answer = Collected {
        vectors: vec![vec![0.1, -2.0], vec![3.0, 4.0]],
        usage: Usage {
            prompt: Some(5),
            ..Usage::default()
        },
        ..Collected::default()
    };
    let whole = |kind| {
        timeless(
            OllamaForm::new(kind, Instant::now())
                .whole(&about(), &answer)
                .unwrap(),
        )
    };
    assert_eq!(
        whole(Kind::Embed),
        json!({"model": "local/concierge", "embeddings": [[0.1, -2.0], [3.0, 4.0]],
               "prompt_eval_count": 5})
    );
    assert_eq!(whole(Kind::Embeddings), json!({"embedding": [0.1, -2.0]}));
}

#[test]
fn who_went_on_with_a_broken_answer_is_told() {
    let lines = stream(
        Kind::Chat,
        vec![
            Event::Started { model: "a".into() },
            Event::Content("Hel".into()),
            Event::Started {
                model: "local/concierge".into(),
            },
            Event::Content("lo".into()),
            finished(FinishReason::Stop),
        ],
    );
    let last = lines.last().unwrap();
    assert_eq!(
        last["nearfar"],
        json!({"continued_on": ["local/concierge"]})
    );
}
