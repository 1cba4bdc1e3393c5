#![allow(clippy::unwrap_used)]
use super::*;

fn turns(items: Value) -> Result<Vec<Message>, Problem> {
    let mut turns = Turns::default();
    for (index, item) in items.as_array().unwrap().iter().enumerate() {
        turns.add(&format!("input[{index}]"), item.clone())?;
    }
    Ok(turns.finish())
}

fn param(items: Value) -> String {
    let problem = turns(items).unwrap_err().openai_body();
    problem["error"]["param"].as_str().unwrap().to_owned()
}

#[test]
fn what_one_side_said_in_a_row_is_one_turn() {
    let turns = turns(json!([
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I call", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        {"type": "message", "role": "assistant", "content": "done"},
        {"type": "message", "role": "assistant", "content": "really"},
    ]))
    .unwrap();
    let roles: Vec<Role> = turns.iter().map(|turn| turn.role).collect();
    assert_eq!(
        roles,
        [
            Role::Developer,
            Role::User,
            Role::Assistant,
            Role::Tool,
            Role::Tool,
            Role::Assistant,
            Role::Assistant
        ]
    );
    assert!(matches!(&turns[1].content[1], Part::Image { detail: Some(d), .. } if d == "low"));
    let turn = &turns[2];
    assert_eq!(turn.reasoning.as_deref(), Some("hm"));
    assert_eq!(turn.plain_text(), "I call");
    assert_eq!(turn.tool_calls.len(), 2);
    assert_eq!(turns[4].tool_call_id.as_deref(), Some("c2"));
    assert_eq!(turns[4].plain_text(), "two");
}

#[test]
fn sealed_reasoning_comes_back_as_it_was() {
    let sealed = |kind: Sealed, origin| kind.show(&Signature::new(origin, "Eq+/="));
    let turns = turns(json!([
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "sum"}],
         "encrypted_content": sealed(Sealed::Thought, Origin::Openai)},
        {"type": "reasoning", "summary": [], "encrypted_content": sealed(Sealed::Redacted, Origin::Anthropic)},
        {"type": "message", "role": "assistant", "content": "I call"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "more"}],
         "encrypted_content": sealed(Sealed::Thought, Origin::Anthropic)},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "reasoning", "summary": [], "encrypted_content": sealed(Sealed::Call(1), Origin::Gemini)},
        {"type": "reasoning", "summary": [], "encrypted_content": sealed(Sealed::Call(9), Origin::Gemini)},
    ]))
    .unwrap();
    assert_eq!(turns.len(), 1);
    let turn = &turns[0];
    let thought = |text: &str, origin, redacted, after, id: Option<&str>| Thought {
        text: text.to_owned(),
        signature: Some(Signature::new(origin, "Eq+/=")),
        redacted,
        id: id.map(str::to_owned),
        after,
    };
    let expected = [
        thought("sum", Origin::Openai, false, 0, Some("rs_1")),
        thought("", Origin::Anthropic, true, 0, None),
        thought("more", Origin::Anthropic, false, 1, None),
    ];
    assert!(turn.thoughts == expected);
    assert!(turn.reasoning.is_none());
    assert!(turn.tool_calls[0].signature.is_none());
    let of_call = turn.tool_calls[1].signature.clone().unwrap();
    assert!(of_call == Signature::new(Origin::Gemini, "Eq+/="));
}

#[test]
fn what_is_wrong_is_named() {
    for (item, expected) in [
        (json!(3), "input[0]"),
        (json!({"role": "owner", "content": "x"}), "input[0].role"),
        (json!({"role": "user"}), "input[0].content"),
        (
            json!({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}),
            "input[0].content[0].type",
        ),
        (
            json!({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}),
            "input[0].content[0].image_url",
        ),
        (
            json!({"type": "item_reference", "id": "msg_1"}),
            "input[0].type",
        ),
        (json!({"type": "web_search_call"}), "input[0].type"),
        (
            json!({"type": "function_call", "name": "f"}),
            "input[0].call_id",
        ),
        (
            json!({"type": "function_call_output", "call_id": "c"}),
            "input[0].output",
        ),
    ] {
        assert_eq!(param(json!([item])), expected, "{item}");
    }
}

#[test]
fn listed_items_have_ids_types_and_parts() {
    let items = [
        json!({"role": "user", "content": "hi"}),
        json!({"type": "function_call_output", "id": "mine", "call_id": "c", "output": "x"}),
    ];
    let listed = listed(&items, "resp_0a");
    assert_eq!(
        listed[0],
        json!({"role": "user", "content": [{"type": "input_text", "text": "hi"}],
               "type": "message", "id": "msg_0ai000", "status": "completed"})
    );
    assert_eq!(listed[1]["id"], "mine");
}
