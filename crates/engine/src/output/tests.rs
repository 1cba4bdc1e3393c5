//! However the text is cut, the parts are the same, and nothing is lost.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn split(format: ToolFormat, thinking: bool, pieces: &[&str]) -> Vec<Piece> {
    let mut splitter = Splitter::new(format, thinking);
    let mut out = Vec::new();
    for piece in pieces {
        out.extend(splitter.push(piece));
    }
    out.extend(splitter.finish());
    let mut merged: Vec<Piece> = Vec::new();
    for piece in out {
        match (merged.last_mut(), &piece) {
            (Some(Piece::Content(a)), Piece::Content(b))
            | (Some(Piece::Reasoning(a)), Piece::Reasoning(b)) => a.push_str(b),
            _ => merged.push(piece),
        }
    }
    merged
}

fn content(text: &str) -> Piece {
    Piece::Content(text.to_owned())
}

fn call(name: &str, arguments: &str) -> Piece {
    Piece::ToolCall {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    }
}

#[test]
fn reasoning_is_split_out() {
    let text = "<think>\nhm\n</think>\n\nYes.";
    assert_eq!(
        split(ToolFormat::Hermes, false, &[text]),
        [Piece::Reasoning("\nhm\n".into()), content("Yes.")]
    );
    assert_eq!(
        split(ToolFormat::None, true, &["hm</think>Yes."]),
        [Piece::Reasoning("hm".into()), content("Yes.")]
    );
}

#[test]
fn hermes_calls_are_found_between_content() {
    let text = "One moment.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>";
    assert_eq!(
        split(ToolFormat::Hermes, false, &[text]),
        [
            content("One moment."),
            call("f", "{\"a\": 1}"),
            call("g", "{}")
        ]
    );
}

#[test]
fn a_malformed_call_is_content() {
    for text in [
        "<tool_call>{\"name\": </tool_call> sorry",
        "<tool_call>{\"nam",
        "<tool_call>{\"arguments\":{}}</tool_call>",
    ] {
        assert_eq!(split(ToolFormat::Hermes, false, &[text]), [content(text)]);
    }
}

#[test]
fn llama_s_bare_json_is_a_call() {
    let text = "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}";
    assert_eq!(
        split(ToolFormat::BareJson, false, &[text]),
        [call("f", "{\"a\": \"b\"}")]
    );
    assert_eq!(
        split(ToolFormat::BareJson, false, &["<|python_tag|>", text]),
        [call("f", "{\"a\": \"b\"}")]
    );
    assert_eq!(
        split(ToolFormat::BareJson, false, &["{ not a call }"]),
        [content("{ not a call }")]
    );
}

#[test]
fn without_tools_everything_is_content() {
    let text = "  <tool_call>{\"name\":\"f\"}</tool_call> ";
    assert_eq!(split(ToolFormat::None, false, &[text]), [content(text)]);
}

#[test]
fn a_stop_string_may_straddle_pieces() {
    let mut finder = StopFinder::new(&["END".to_owned(), "\n\n".to_owned()]);
    assert_eq!(finder.push("abcE"), ("abc".to_owned(), false));
    assert_eq!(finder.push("N"), (String::new(), false));
    assert_eq!(finder.push("X\n"), ("ENX".to_owned(), false));
    assert_eq!(finder.push("\nrest"), (String::new(), true));
}

#[test]
fn what_only_looked_like_a_stop_string_is_given_back() {
    let mut finder = StopFinder::new(&["END".to_owned()]);
    assert_eq!(finder.push("abEN"), ("ab".to_owned(), false));
    assert_eq!(finder.finish(), "EN");
}

fn fragments() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("<tool_call>".to_owned()),
        Just("</tool_call>".to_owned()),
        Just("{\"name\": \"f\", \"arguments\": {\"x\": \"é\"}}".to_owned()),
        Just("<|python_tag|>".to_owned()),
        Just("\n".to_owned()),
        Just(" ".to_owned()),
        Just("<".to_owned()),
        "[a-z<{ é]{0,6}",
    ];
    proptest::collection::vec(parts, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_cut_does_not_matter(text in fragments(), cuts in proptest::collection::vec(1..7usize, 1..6), format in 0..3u8, thinking in any::<bool>()) {
        let format = [ToolFormat::None, ToolFormat::Hermes, ToolFormat::BareJson][usize::from(format)];
        let whole = split(format, thinking, &[&text]);
        let chars: Vec<char> = text.chars().collect();
        let mut pieces: Vec<String> = Vec::new();
        let mut at = 0;
        for cut in cuts.iter().cycle() {
            if at >= chars.len() { break; }
            let end = (at + cut).min(chars.len());
            pieces.push(chars[at..end].iter().collect());
            at = end;
        }
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(split(format, thinking, &pieces), whole);
    }

    #[test]
    fn stops_do_not_depend_on_the_cut(text in "[abE ND]{0,40}", cuts in proptest::collection::vec(1..4usize, 1..5)) {
        let expected = text.split("END").next().unwrap().to_owned();
        let mut finder = StopFinder::new(&["END".to_owned()]);
        let mut out = String::new();
        let mut rest = text.as_str();
        let mut stopped = false;
        for cut in cuts.iter().cycle() {
            if rest.is_empty() || stopped { break; }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            let (safe, stop) = finder.push(now);
            out.push_str(&safe);
            stopped = stop;
            rest = later;
        }
        if !stopped { out.push_str(&finder.finish()); }
        prop_assert_eq!(out, expected);
    }
}
