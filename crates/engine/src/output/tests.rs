//! However the text is cut, the parts are the same, and nothing is lost.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn split(format: ToolFormat, thinking: bool, pieces: &[&str]) -> Vec<Piece> {
    let mut splitter = Splitter::new(format, thinking).with_tools(vec!["f".into(), "g".into()]);
    let mut out = Vec::new();
    for piece in pieces {
        out.extend(splitter.push(piece));
    }
    out.extend(splitter.finish());
    let mut merged: Vec<Piece> = Vec::new();
    for piece in out {
        match (merged.last_mut(), &piece) {
            (Some(Piece::Content(a)), Piece::Content(b))
            | (Some(Piece::Reasoning(a)), Piece::Reasoning(b))
            | (Some(Piece::CallArguments(a)), Piece::CallArguments(b)) => a.push_str(b),
            _ => merged.push(piece),
        }
    }
    merged
}

fn content(text: &str) -> Vec<Piece> {
    vec![Piece::Content(text.to_owned())]
}

fn reasoning(text: &str) -> Vec<Piece> {
    vec![Piece::Reasoning(text.to_owned())]
}

fn begun(name: &str, arguments: &str) -> Vec<Piece> {
    vec![
        Piece::CallStart {
            name: name.to_owned(),
        },
        Piece::CallArguments(arguments.to_owned()),
    ]
}

fn call(name: &str, arguments: &str) -> Vec<Piece> {
    let mut call = begun(name, arguments);
    call.push(Piece::CallEnd);
    call
}

/// Checks a text whole, in single characters, and cut in every two and three.
fn every_cut(format: ToolFormat, text: &str, expected: &[Vec<Piece>]) {
    let expected = expected.concat();
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let check = |pieces: &[&str]| {
        assert_eq!(
            split(format, false, pieces),
            expected,
            "{format:?} {pieces:?}"
        );
    };
    check(&[text]);
    let mut single: Vec<&str> = Vec::new();
    for (index, at) in places.iter().enumerate() {
        single.push(&text[*at..places.get(index + 1).copied().unwrap_or(text.len())]);
    }
    check(&single);
    for (index, a) in places.iter().enumerate() {
        check(&[&text[..*a], &text[*a..]]);
        for b in &places[index..] {
            check(&[&text[..*a], &text[*a..*b], &text[*b..]]);
        }
    }
}

#[test]
fn reasoning_is_split_out() {
    let text = "<think>\nhm\n</think>\n\nYes.";
    every_cut(
        ToolFormat::Hermes,
        text,
        &[reasoning("\nhm\n"), content("Yes.")],
    );
    assert_eq!(
        split(ToolFormat::None, true, &["hm</think>Yes."]),
        [reasoning("hm"), content("Yes.")].concat()
    );
}

#[test]
fn every_family_s_calls_are_read_in_every_cut() {
    let both = [call("f", "{\"a\": \"é}]\\\"\"}"), call("g", "{}")];
    let cases: [(ToolFormat, &str); 11] = [
        (
            ToolFormat::Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}}\n</tool_call>\n<tool_call>{\"name\":\"g\"}</tool_call>",
        ),
        (
            ToolFormat::Hermes,
            "<tool_call>[{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}}, {\"arguments\": {}, \"name\": \"g\"}]</tool_call>",
        ),
        (
            ToolFormat::BareJson,
            "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": \"é}]\\\"\"}}; {\"name\": \"g\", \"parameters\": null}",
        ),
        (
            ToolFormat::BareJson,
            "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": \"é}]\\\"\"}}\n{\"name\": \"g\", \"parameters\": {}}",
        ),
        (
            ToolFormat::MistralList,
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}, \"id\": \"x\"}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
        (
            ToolFormat::MistralArgs,
            "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{\"a\": \"é}]\\\"\"}[TOOL_CALLS]g[ARGS]{}",
        ),
        (
            ToolFormat::Granite,
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
        (
            ToolFormat::Phi,
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}}, {\"name\": \"g\", \"arguments\": \"{}\"}]<|/tool_call|>",
        ),
        (
            ToolFormat::Phi,
            "functools[{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}}, {\"name\": \"g\"}]",
        ),
        (
            ToolFormat::MistralList,
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}},{\"name\": \"g\"}]",
        ),
        (
            ToolFormat::Hermes,
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"é}]\\\"\"}}{\"name\": \"g\"}",
        ),
    ];
    for (format, text) in cases {
        every_cut(format, text, &both);
    }
    let python = [
        call("f", r#"{"a":"x\")","n":[1,2.5,true,null]}"#),
        call("g", "{}"),
    ];
    every_cut(
        ToolFormat::Lfm2,
        "<|tool_call_start|>[f(a='x\")', n=[1, 2.5, True, None]), g()]<|tool_call_end|>",
        &python,
    );
    every_cut(
        ToolFormat::ToolCode,
        "```tool_code\nf(a=\"x\\\")\", n=(1, 2.5, True, None))\ng()\n```",
        &python,
    );
    every_cut(
        ToolFormat::BareJson,
        "<|python_tag|>f.call(a=\"x\")",
        &[call("f", r#"{"a":"x"}"#)],
    );
}

#[test]
fn content_may_stand_around_calls() {
    every_cut(
        ToolFormat::Hermes,
        "One moment.\n<tool_call>{\"name\":\"f\"}</tool_call>\n\nDone <b>.",
        &[
            content("One moment."),
            call("f", "{}"),
            content("Done <b>."),
        ],
    );
    every_cut(
        ToolFormat::MistralArgs,
        "So: [TOOL_CALLS]f[ARGS]{} and [x]",
        &[content("So:"), call("f", "{}"), content("and [x]")],
    );
    every_cut(
        ToolFormat::Lfm2,
        "a<|tool_call_start|>[f(x=1)]<|tool_call_end|>b",
        &[content("a"), call("f", "{\"x\":1}"), content("b")],
    );
}

#[test]
fn arguments_grow_while_the_call_is_written() {
    let mut splitter = Splitter::new(ToolFormat::Hermes, false);
    assert!(
        splitter
            .push("<tool_call>{\"name\": \"f\", \"arguments\": ")
            .is_empty()
    );
    assert_eq!(splitter.push("{\"a\": \"hel"), begun("f", "{\"a\": \"hel"));
    assert!(splitter.in_call());
    assert_eq!(splitter.push("lo"), [Piece::CallArguments("lo".into())]);
    assert_eq!(splitter.push("\"}"), [Piece::CallArguments("\"}".into())]);
    assert_eq!(splitter.push("}"), [Piece::CallEnd]);
    assert!(!splitter.in_call() && splitter.calls() == 1);
}

#[test]
fn what_is_no_call_is_content() {
    for (format, text) in [
        (
            ToolFormat::Hermes,
            "<tool_call>{\"name\": </tool_call> sorry",
        ),
        (ToolFormat::Hermes, "x\n<tool_call>{\"nam"),
        (
            ToolFormat::Hermes,
            "<tool_call>{\"arguments\":{}}</tool_call>",
        ),
        (ToolFormat::Hermes, "<tool_call><tool_call> {"),
        (ToolFormat::Hermes, "<tool_call>f(x)</tool_call>"),
        (ToolFormat::BareJson, "{ not a call }"),
        (
            ToolFormat::BareJson,
            "{\"name\": \"Bob\", \"parameters\": {}}",
        ),
        (ToolFormat::BareJson, "<|python_tag|>print(1)"),
        (ToolFormat::MistralList, "[TOOL_CALLS] none"),
        (ToolFormat::MistralArgs, "[TOOL_CALLS]f[ARGH]{}"),
        (ToolFormat::Granite, "<|tool_call|>[]"),
        (ToolFormat::Phi, "Use functools[0] and functools."),
        (
            ToolFormat::Lfm2,
            "<|tool_call_start|>[f(1)]<|tool_call_end|>",
        ),
        (ToolFormat::Lfm2, "<|tool_call_start|>[f(a=\"x"),
        (ToolFormat::ToolCode, "```tool_code\nimport os\n```"),
        (
            ToolFormat::None,
            "  <tool_call>{\"name\":\"f\"}</tool_call> ",
        ),
    ] {
        every_cut(format, text, &[content(text)]);
    }
}

#[test]
fn a_call_that_breaks_off_keeps_what_it_had() {
    every_cut(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1",
        &[begun("f", "{\"a\": 1")],
    );
    every_cut(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1</tool_call> Sorry.",
        &[call("f", "{\"a\": 1"), content("Sorry.")],
    );
}

#[test]
fn formats_are_read_off_the_templates() {
    for (source, format) in [
        ("<tool_call>", ToolFormat::Hermes),
        ("[AVAILABLE_TOOLS] [TOOL_CALLS]", ToolFormat::MistralList),
        ("[TOOL_CALLS] [ARGS]", ToolFormat::MistralArgs),
        ("<|tool_list_start|>", ToolFormat::Lfm2),
        ("<|tool|> <|/tool|>", ToolFormat::Phi),
        (
            "respond with <|tool_call|> followed by",
            ToolFormat::Granite,
        ),
        ("```tool_code", ToolFormat::ToolCode),
        (
            "{\"name\": function name, \"parameters\": d}",
            ToolFormat::BareJson,
        ),
        ("plain", ToolFormat::None),
    ] {
        assert_eq!(ToolFormat::of_template(source), format, "{source}");
    }
}

#[test]
fn a_stop_string_may_straddle_pieces() {
    let mut finder = StopFinder::new(&["END".to_owned(), "\n\n".to_owned()]);
    assert_eq!(finder.push("abcE"), ("abc".to_owned(), false));
    assert_eq!(finder.push("N"), (String::new(), false));
    assert_eq!(finder.push("X\n"), ("ENX".to_owned(), false));
    assert_eq!(finder.found(), None);
    assert_eq!(finder.push("\nrest"), (String::new(), true));
    assert_eq!(finder.found(), Some("\n\n"));
}

#[test]
fn what_only_looked_like_a_stop_string_is_given_back() {
    let mut finder = StopFinder::new(&["END".to_owned()]);
    assert_eq!(finder.push("abEN"), ("ab".to_owned(), false));
    assert_eq!(finder.finish(), "EN");
}

fn fragments() -> impl Strategy<Value = String> {
    let fixed = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|tool_call|>",
        "<|/tool_call|>",
        "<|tool_call_start|>[",
        "]<|tool_call_end|>",
        "[TOOL_CALLS]",
        "f[ARGS]",
        "functools[",
        "```tool_code\n",
        "f(a='é', b=[1])",
        "{\"name\": \"f\", \"arguments\": {\"x\": \"é\"}}",
        "{\"arguments\": {\"x\": [1]}, ",
        "\"name\": \"g\"}",
        "<|python_tag|>",
        "\n",
        " ",
        "<",
        "{}",
        "[",
        "]",
    ];
    let parts = prop_oneof![
        4 => proptest::sample::select(fixed.to_vec()).prop_map(str::to_owned),
        1 => "[a-z<{ é]{0,6}",
    ];
    proptest::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_cut_does_not_matter(text in fragments(), cuts in proptest::collection::vec(1..7usize, 1..6), format in 0..9usize, thinking in any::<bool>()) {
        let format = FORMATS.get(format).copied().unwrap_or(ToolFormat::None);
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

    /// Letters and digits are never part of the punctuation that a format may
    /// swallow: each of them comes out somewhere.
    #[test]
    fn no_word_is_lost(words in proptest::collection::vec("[h-z]{3}|<tool_call>|\\{\"name\": \"|</tool_call>|\\{|\"", 0..10)) {
        let text = words.concat();
        let mut shown = String::new();
        for piece in split(ToolFormat::Hermes, false, &[&text]) {
            match piece {
                Piece::Content(text) | Piece::Reasoning(text) | Piece::CallArguments(text) => shown.push_str(&text),
                Piece::CallStart { name } => shown.push_str(&name),
                Piece::CallEnd => {}
            }
        }
        for word in words.iter().filter(|word| word.len() == 3) {
            prop_assert!(shown.contains(word.as_str()), "{} is missing in {:?}", word, shown);
        }
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
