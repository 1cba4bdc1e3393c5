#![allow(clippy::unwrap_used)]
//! Whole streams, compared event by event with what OpenAI sends.

use nearfar_domain::ids::{DecisionId, TargetId};
use nearfar_domain::thought::Origin;

use super::*;

fn about() -> About {
    About {
        decision: DecisionId(0xab),
        target: TargetId::parse("openai/gpt-5").unwrap(),
        created: 1_700_000_000,
        bill: crate::account::Bill::default(),
    }
}

const ID: &str = "resp_000000000000000000000000000000ab";

fn id(prefix: &str, place: usize) -> String {
    format!("{prefix}_000000000000000000000000000000ab{place:03x}")
}

fn keeper(conversations: &Arc<Conversations>) -> Arc<Keeper> {
    let ceiling = OnceLock::new();
    ceiling.set(Zone::Cloud).unwrap();
    Arc::new(Keeper {
        conversations: Arc::clone(conversations),
        tenant: "t".into(),
        ceiling,
        redact: OnceLock::new(),
        previous: None,
        input: vec![json!({"role": "user", "content": "hi"})],
    })
}

/// The events of a stream: their name and what they carry.
fn stream(keeper: Option<Arc<Keeper>>, events: Vec<Event>) -> Vec<(String, Value)> {
    let form = Box::new(ResponseForm {
        echo: Echo::default(),
        keeper,
    });
    let mut chunks = form.chunks(about());
    let mut out = String::new();
    for event in events {
        chunks.push(event, &mut out);
    }
    let events = out
        .split_terminator("\n\n")
        .enumerate()
        .map(|(number, event)| {
            let (name, data) = event.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            let mut data: Value =
                serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            let fields = data.as_object_mut().unwrap();
            assert_eq!(fields.shift_remove("type").unwrap(), name);
            assert_eq!(fields.shift_remove("sequence_number").unwrap(), number);
            (name.to_owned(), data)
        });
    events.collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events
        .iter()
        .map(|(name, _)| name.trim_start_matches("response."))
        .collect()
}

fn finished(reason: FinishReason) -> Event {
    let usage = Usage {
        prompt: Some(12),
        cached_prompt: Some(8),
        completion: Some(3),
        reasoning: Some(1),
        ..Usage::default()
    };
    Event::Finished { reason, usage }
}

fn fragment(index: u32, id: Option<&str>, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: id.map(str::to_owned),
        name: id.map(|id| format!("f_{id}")),
        arguments: arguments.to_owned(),
    })
}

#[test]
fn a_text_is_announced_grows_and_is_told_whole() {
    let events = stream(
        None,
        vec![
            Event::Started { model: "x".into() },
            Event::Content("Hel".into()),
            Event::Content("lo".into()),
            finished(FinishReason::Stop),
        ],
    );
    assert_eq!(
        names(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
    );
    let created = &events[0].1["response"];
    assert_eq!(
        (&created["id"], &created["status"]),
        (&json!(ID), &json!("in_progress"))
    );
    assert_eq!(created["output"], json!([]));
    let message = id("msg", 0);
    assert_eq!(
        events[2].1,
        json!({"output_index": 0, "item": {"id": message, "type": "message",
               "status": "in_progress", "role": "assistant", "content": []}})
    );
    let part = |text: &str| json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text});
    let at = |more: Value| {
        let mut fields = json!({"item_id": message, "output_index": 0, "content_index": 0});
        fields
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        fields
    };
    assert_eq!(events[3].1, at(json!({"part": part("")})));
    assert_eq!(events[4].1, at(json!({"delta": "Hel", "logprobs": []})));
    assert_eq!(events[6].1, at(json!({"text": "Hello", "logprobs": []})));
    assert_eq!(events[7].1, at(json!({"part": part("Hello")})));
    let item = json!({"id": message, "type": "message", "status": "completed",
                      "role": "assistant", "content": [part("Hello")]});
    assert_eq!(events[8].1, json!({"output_index": 0, "item": item}));
    let response = &events[9].1["response"];
    assert_eq!(response["output"], json!([item]));
    assert_eq!(response["status"], "completed");
    assert_eq!(response["store"], false);
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 12,
               "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
               "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1},
               "total_tokens": 15})
    );
}

#[test]
fn reasoning_and_calls_are_items_of_their_own() {
    let events = stream(
        None,
        vec![
            Event::Reasoning("h".into()),
            Event::Reasoning("m".into()),
            fragment(0, Some("a"), ""),
            fragment(0, None, "{\"x\""),
            fragment(1, Some("b"), ""),
            fragment(0, None, ":1}"),
            finished(FinishReason::ToolCalls),
        ],
    );
    assert_eq!(
        names(&events)[2..],
        [
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    let call = |place: usize, name: &str, arguments: &str| {
        json!({"id": id("fc", place), "type": "function_call", "status": "completed",
               "call_id": name, "name": format!("f_{name}"), "arguments": arguments})
    };
    let response = &events.last().unwrap().1["response"];
    assert_eq!(
        response["output"],
        json!([
            {"id": id("rs", 0), "type": "reasoning", "summary": [],
             "content": [{"type": "reasoning_text", "text": "hm"}], "status": "completed"},
            call(1, "a", "{\"x\":1}"),
            call(2, "b", "{}"),
        ])
    );
}

#[test]
fn signatures_are_sealed_into_their_reasoning() {
    let signed = |of| Event::Signature {
        of,
        signature: Signature::new(Origin::Anthropic, "Eq=="),
    };
    let events = stream(
        None,
        vec![
            Event::Reasoning("hm".into()),
            signed(Signed::Thought { id: None }),
            signed(Signed::Redacted),
            Event::Content("x".into()),
            fragment(0, Some("a"), "{}"),
            signed(Signed::Call(0)),
            finished(FinishReason::ToolCalls),
        ],
    );
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(output[0]["encrypted_content"], "nearfar.anthropic.Eq==");
    assert_eq!(output[0]["content"][0]["text"], "hm");
    assert_eq!(
        output[1]["encrypted_content"],
        "redacted.nearfar.anthropic.Eq=="
    );
    assert_eq!(output[2]["type"], "message");
    assert_eq!(output[3]["type"], "function_call");
    assert_eq!(
        output[4]["encrypted_content"],
        "call.0.nearfar.anthropic.Eq=="
    );
}

#[test]
fn a_limit_leaves_the_last_item_incomplete() {
    let events = stream(
        None,
        vec![
            Event::Content("Half".into()),
            finished(FinishReason::Length),
        ],
    );
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "response.incomplete");
    assert_eq!(
        last["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[test]
fn a_failure_never_looks_complete() {
    let conversations = Arc::new(Conversations::default());
    let events = stream(
        Some(keeper(&conversations)),
        vec![
            Event::Content("Half".into()),
            Event::Failed(Failure::new(FailureKind::Crashed, "The engine went away.")),
            Event::Content("more".into()),
        ],
    );
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "response.failed");
    let response = &last["response"];
    assert_eq!(response["status"], "failed");
    assert_eq!(
        response["error"],
        json!({"code": "crashed", "message": "The engine went away."})
    );
    assert_eq!(response["output"][0]["status"], "incomplete");
    assert!(conversations.find("t", ID, Instant::now()).is_none());
    let events = stream(
        None,
        vec![Event::Failed(Failure::new(
            FailureKind::Cancelled,
            "Cancelled.",
        ))],
    );
    assert_eq!(names(&events), ["created", "in_progress", "failed"]);
    assert_eq!(events[2].1["response"]["status"], "cancelled");
}

#[test]
fn a_whole_answer_is_kept_with_what_was_asked() {
    let conversations = Arc::new(Conversations::default());
    let events = stream(
        Some(keeper(&conversations)),
        vec![Event::Content("Hello".into()), finished(FinishReason::Stop)],
    );
    let response = &events.last().unwrap().1["response"];
    assert_eq!(response["store"], true);
    let turn = conversations.find("t", ID, Instant::now()).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&turn.response).unwrap()["output"],
        response["output"]
    );
    assert!(turn.input.contains("input_text"));
    assert!(turn.ceiling == Zone::Cloud);
}

#[test]
fn whole_answers_have_the_same_items() {
    let answer = Collected {
        content: "Hello".into(),
        reasoning: "hm".into(),
        tool_calls: vec![ToolCallDelta {
            index: 0,
            id: Some("a".into()),
            name: Some("f".into()),
            arguments: "{}".into(),
        }],
        reason: Some(FinishReason::ToolCalls),
        order: vec![
            Piece::Reasoning(0..2),
            Piece::Signature(
                Signed::Thought { id: None },
                Signature::new(Origin::Openai, "Eq=="),
            ),
            Piece::Content(0..5),
            Piece::Call(0),
        ],
        ..Collected::default()
    };
    let form = ResponseForm {
        echo: Echo::default(),
        keeper: None,
    };
    let response = form.whole(&about(), &answer).unwrap();
    let kinds: Vec<&str> = response["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(response["output"][0]["encrypted_content"], "Eq==");
    assert_eq!(response["usage"], Value::Null);
}

#[test]
fn log_probabilities_ride_on_their_text() {
    let token = TokenLogprob {
        token: "H".into(),
        bytes: vec![72],
        logprob: -0.1,
        top: vec![("H".into(), vec![72], -0.1)],
    };
    let events = stream(
        None,
        vec![
            Event::Logprobs(vec![token]),
            Event::Content("H".into()),
            finished(FinishReason::Stop),
        ],
    );
    let bare = json!({"token": "H", "logprob": -0.1});
    let mut shown = bare.clone();
    shown["top_logprobs"] = json!([bare]);
    assert_eq!(events[4].1["logprobs"], json!([shown]));
    let part = &events.last().unwrap().1["response"]["output"][0]["content"][0];
    assert_eq!(part["logprobs"][0]["bytes"], json!([72]));
}

#[test]
fn who_went_on_with_a_broken_answer_is_told() {
    let events = stream(
        None,
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
    let response = &events.last().unwrap().1["response"];
    assert_eq!(
        response["nearfar"],
        json!({"continued_on": ["local/concierge"]})
    );
    assert_eq!(response["output"][0]["content"][0]["text"], "Hello");
}
