#![allow(clippy::unwrap_used)]
//! Whole streams, compared as text with what Anthropic sends; and the same
//! events as one message.

use nearfar_domain::ids::{DecisionId, TargetId};

use super::*;
use crate::http::anthropic::whole::whole;
use crate::http::collect::collect;

fn about() -> About {
    About {
        decision: DecisionId(1),
        target: TargetId::local("concierge"),
        created: 1_700_000_000,
        bill: crate::account::Bill::default(),
    }
}

fn stream(events: Vec<Event>) -> String {
    let mut chunks = MessageChunks::new(about());
    let mut out = String::new();
    for event in events {
        chunks.push(event, &mut out);
    }
    out
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished {
        reason,
        usage: Usage {
            prompt: Some(21),
            cached_prompt: Some(8),
            cache_written: Some(3),
            cache_written_hour: None,
            completion: Some(5),
            reasoning: Some(2),
        },
    }
}

fn call(index: u32, first: bool, arguments: &str) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id: first.then(|| format!("toolu_{index}")),
        name: first.then(|| "f".to_owned()),
        arguments: arguments.to_owned(),
    })
}

fn signature(of: Signed, origin: Origin) -> Event {
    Event::Signature {
        of,
        signature: Signature::new(origin, "Eq="),
    }
}

fn event(name: &str, rest: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n")
}

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":\
    {\"id\":\"msg_00000000000000000000000000000001\",\"type\":\"message\",\"role\":\"assistant\",\
    \"model\":\"local/concierge\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
    \"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":0,\
    \"cache_read_input_tokens\":0,\"output_tokens\":0}}}\n\n";

fn block(index: usize, block: &str) -> String {
    event(
        "content_block_start",
        &format!(",\"index\":{index},\"content_block\":{{{block}}}"),
    )
}

fn delta(index: usize, delta: &str) -> String {
    event(
        "content_block_delta",
        &format!(",\"index\":{index},\"delta\":{{{delta}}}"),
    )
}

fn stop(index: usize) -> String {
    event("content_block_stop", &format!(",\"index\":{index}"))
}

fn end(reason: &str, sequence: &str) -> String {
    let usage = "\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":3,\
        \"cache_read_input_tokens\":8,\"output_tokens\":5,\
        \"output_tokens_details\":{\"thinking_tokens\":2}}";
    event(
        "message_delta",
        &format!(
            ",\"delta\":{{\"stop_reason\":\"{reason}\",\"stop_sequence\":{sequence}}},{usage}"
        ),
    ) + &event("message_stop", "")
}

#[test]
fn text_is_one_block_with_a_ping_after_its_start() {
    let out = stream(vec![
        Event::Started { model: "m".into() },
        Event::Content("Hel".into()),
        Event::Content("lo".into()),
        Event::StoppedBy("END".into()),
        finished(FinishReason::Stop),
    ]);
    let expected = [
        START.to_owned(),
        block(0, r#""type":"text","text":"""#),
        event("ping", ""),
        delta(0, r#""type":"text_delta","text":"Hel""#),
        delta(0, r#""type":"text_delta","text":"lo""#),
        stop(0),
        end("stop_sequence", "\"END\""),
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn thoughts_with_signatures_text_and_calls_are_blocks_in_their_order() {
    let events = vec![
        Event::Reasoning("Hm".into()),
        signature(Signed::Thought { id: None }, Origin::Anthropic),
        signature(Signed::Redacted, Origin::Anthropic),
        Event::Content("So".into()),
        call(0, true, ""),
        call(0, false, "{\"a\":"),
        call(0, false, "1}"),
        signature(Signed::Call(0), Origin::Gemini),
        call(1, true, "{}"),
        finished(FinishReason::ToolCalls),
    ];
    let expected = [
        START.to_owned(),
        block(0, r#""type":"thinking","thinking":"","signature":"""#),
        event("ping", ""),
        delta(0, r#""type":"thinking_delta","thinking":"Hm""#),
        delta(0, r#""type":"signature_delta","signature":"Eq=""#),
        stop(0),
        block(1, r#""type":"redacted_thinking","data":"Eq=""#),
        stop(1),
        block(2, r#""type":"text","text":"""#),
        delta(2, r#""type":"text_delta","text":"So""#),
        stop(2),
        block(
            3,
            r#""type":"tool_use","id":"toolu_0","name":"f","input":{}"#,
        ),
        delta(3, r#""type":"input_json_delta","partial_json":"{\"a\":""#),
        delta(3, r#""type":"input_json_delta","partial_json":"1}""#),
        stop(3),
        block(
            4,
            r#""type":"redacted_thinking","data":"nearfar.gemini.Eq=""#,
        ),
        stop(4),
        block(
            5,
            r#""type":"tool_use","id":"toolu_1","name":"f","input":{}"#,
        ),
        delta(5, r#""type":"input_json_delta","partial_json":"{}""#),
        stop(5),
        end("tool_use", "null"),
    ];
    assert_eq!(stream(events), expected.concat());
}

#[test]
fn a_failure_is_an_error_event_and_the_last() {
    let failure = Failure::new(FailureKind::TimedOut, "Too late.");
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"timeout_error\",\
        \"message\":\"Too late.\"},\"request_id\":null,\
        \"nearfar\":{\"code\":\"timed_out\",\"param\":null}}\n\n";
    assert_eq!(stream(vec![Event::Failed(failure.clone())]), error);
    let out = stream(vec![Event::Content("Hel".into()), Event::Failed(failure)]);
    assert!(
        out.ends_with(error) && !out.contains("message_stop"),
        "{out}"
    );
    assert!(!out.contains("content_block_stop"), "{out}");
}

#[test]
fn pieces_of_a_closed_call_are_an_error_rather_than_lost() {
    let out = stream(vec![
        call(0, true, "{"),
        call(1, true, "{}"),
        call(0, false, "}"),
        finished(FinishReason::ToolCalls),
    ]);
    assert!(out.contains("event: error"), "{out}");
    assert!(!out.contains("message_stop"), "{out}");
}

#[test]
fn silence_is_filled_with_pings() {
    let mut chunks = MessageChunks::new(about());
    let mut out = String::new();
    chunks.keep_alive(&mut out);
    chunks.keep_alive(&mut out);
    let ping = event("ping", "");
    assert_eq!(out, format!("{START}{ping}{ping}"));
}

#[tokio::test]
async fn a_whole_message_has_the_same_blocks() {
    let events = vec![
        Event::Started { model: "m".into() },
        Event::Reasoning("H".into()),
        Event::Reasoning("m".into()),
        signature(Signed::Thought { id: None }, Origin::Anthropic),
        Event::Reasoning("plain".into()),
        Event::Content("So".into()),
        call(0, true, "{\"a\":"),
        call(0, false, "1}"),
        signature(Signed::Call(0), Origin::Gemini),
        finished(FinishReason::ToolCalls),
    ];
    let collected = collect(Box::pin(futures_util::stream::iter(events)));
    let collected = collected.await.unwrap_or_else(|_| panic!("whole"));
    let message = whole(&about(), &collected);
    let expected = json!([
        {"type": "thinking", "thinking": "Hm", "signature": "Eq="},
        {"type": "thinking", "thinking": "plain", "signature": ""},
        {"type": "text", "text": "So"},
        {"type": "tool_use", "id": "toolu_0", "name": "f", "input": {"a": 1}},
        {"type": "redacted_thinking", "data": "nearfar.gemini.Eq="},
    ]);
    assert_eq!(message["content"], expected);
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(message["usage"]["input_tokens"], 10);
    assert_eq!(message["usage"]["cache_read_input_tokens"], 8);
    assert_eq!(message["id"], "msg_00000000000000000000000000000001");
}
