#![allow(clippy::unwrap_used)]
use nearfar_domain::events::{Failure, FailureKind};

use super::*;
use crate::http::dialect::Chunks as _;

fn head() -> Head {
    Head {
        id: "cmpl-1".into(),
        created: 1_700_000_000,
        bill: crate::account::Bill::default(),
        model: "local/concierge".into(),
    }
}

fn token(text: &str, logprob: f32) -> TokenLogprob {
    TokenLogprob {
        token: text.to_owned(),
        bytes: text.as_bytes().to_vec(),
        logprob,
        top: vec![(text.to_owned(), text.as_bytes().to_vec(), logprob)],
    }
}

fn chunk(text: &str, logprobs: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,\
         \"model\":\"local/concierge\",\"system_fingerprint\":\"FP\",\"choices\":[{{\
         \"text\":\"{text}\",\"index\":0,\"logprobs\":{logprobs},\"finish_reason\":{finish}}}]}}\
         \n\n"
    )
}

#[test]
fn the_prompt_comes_back_first_and_offsets_count_its_characters() {
    let mut chunks = Chunks::new(head(), false, Some("Öde ".into()));
    let mut out = String::new();
    let unlikely = TokenLogprob {
        top: vec![("t".into(), vec![b't'], -0.25)],
        ..token("d", -1.5)
    };
    for event in [
        Event::Logprobs(vec![token("an", -0.5), unlikely]),
        Event::Content("and".into()),
        Event::Finished {
            reason: FinishReason::Length,
            usage: Usage::default(),
        },
    ] {
        chunks.push(event, &mut out);
    }
    let logprobs = "{\"tokens\":[\"an\",\"d\"],\"token_logprobs\":[-0.5,-1.5],\
         \"top_logprobs\":[{\"an\":-0.5},{\"t\":-0.25,\"d\":-1.5}],\"text_offset\":[4,6]}";
    let expected = [
        chunk("Öde ", "null", "null"),
        chunk("and", logprobs, "null"),
        chunk("", "null", "\"length\""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(out.replace(shape::FINGERPRINT, "FP"), expected.concat());
}

#[test]
fn a_failure_ends_without_done() {
    let mut chunks = Chunks::new(head(), true, Some("prompt".into()));
    let mut out = String::new();
    chunks.push(
        Event::Failed(Failure::new(FailureKind::TimedOut, "Too late.")),
        &mut out,
    );
    let expected = "data: {\"error\":{\"message\":\"Too late.\",\"type\":\"server_error\",\
         \"param\":null,\"code\":\"timed_out\"}}\n\n";
    assert_eq!(out, expected);
}

#[test]
fn whole_text_with_echo() {
    let collected = Collected {
        content: "time".into(),
        logprobs: vec![token("time", -0.5)],
        reason: Some(FinishReason::Stop),
        usage: Usage {
            prompt: Some(3),
            completion: Some(1),
            ..Usage::default()
        },
        ..Collected::default()
    };
    let object = whole(&head(), &collected, Some("Once upon a "));
    assert_eq!(object["choices"][0]["text"], "Once upon a time");
    assert_eq!(object["choices"][0]["logprobs"]["text_offset"], json!([12]));
    assert_eq!(object["choices"][0]["finish_reason"], "stop");
    assert_eq!(object["usage"]["total_tokens"], 4);
    let object = whole(&head(), &collected, None);
    assert_eq!(object["choices"][0]["text"], "time");
    assert_eq!(object["choices"][0]["logprobs"]["text_offset"], json!([0]));
}
