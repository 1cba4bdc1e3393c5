//! The faults.

use std::time::Duration;

use serde_json::{Value, json};

use super::Ending::{self, Error, ErrorInBand, Unreached, Whole};
use crate::support::double::{Answer, Behaviour, Fault};

/// The whole answer, in pieces of a word; it ends with characters of several bytes.
pub(super) const TEXT: &str = "Breakfast is served from seven to ten in the garden room, with \
                               fresh coffee ☕ and crêpes 🥞 on Sundays.";
/// Two thirds of it, in events: the first one has the role.
const TWO_THIRDS: usize = 1 + 12;
/// The rest, as a provider goes on that is given what comes before.
const JSON: &str = r#"{"city": "Lyon", "open": true}"#;

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Legs {
    /// The provider under fault, which takes no partial answers.
    One,
    /// The same, which takes them.
    OneThatGoesOn,
    /// A provider of Anthropic's dialect, which takes them.
    Anthropic,
    /// A second one that takes none.
    Two,
    /// A second one that takes them.
    TwoThatGoOn,
    /// A second one that says that it takes them and refuses.
    TwoAndOneRefuses,
    /// An address that is not there.
    Elsewhere(&'static str),
    /// A provider behind TLS that speaks HTTP/2.
    Http2,
}

/// One fault.
pub(super) struct Case {
    pub(super) fault: &'static str,
    pub(super) legs: Legs,
    /// What the first provider does, request by request; then it answers.
    pub(super) first: Vec<Behaviour>,
    /// Whether the last of these is what it does from then on.
    pub(super) for_ever: bool,
    pub(super) body: Value,
    /// Requests of the client, one after the other.
    pub(super) requests: usize,
    pub(super) ends: Ending,
    /// Requests at the first and at the second provider; `None`: whatever.
    pub(super) attempts: Option<(usize, usize)>,
    /// What the answer must be.
    pub(super) expected: &'static str,
}

fn case(fault: &'static str, first: Vec<Behaviour>, ends: Ending) -> Case {
    Case {
        fault,
        legs: Legs::One,
        first,
        for_ever: false,
        body: json!({"stream": true}),
        requests: 1,
        ends,
        attempts: None,
        expected: TEXT,
    }
}

impl Case {
    fn at(self, legs: Legs) -> Self {
        Self { legs, ..self }
    }

    fn attempts(self, first: usize, second: usize) -> Self {
        Self {
            attempts: Some((first, second)),
            ..self
        }
    }

    fn whole_body(mut self) -> Self {
        self.body["stream"] = json!(false);
        self
    }

    fn for_ever(self) -> Self {
        Self {
            for_ever: true,
            ..self
        }
    }

    fn with(mut self, field: &str, value: Value) -> Self {
        self.body[field] = value;
        self
    }
}

/// The fault in the answer.
fn but(fault: Fault) -> Vec<Behaviour> {
    vec![Answer::text(TEXT).but(fault)]
}

fn status(status: u16, headers: Vec<(&'static str, String)>, body: Option<&str>) -> Vec<Behaviour> {
    vec![
        Fault::Status {
            status,
            headers,
            body: body.map(str::to_owned),
        }
        .into(),
    ]
}

fn wait(seconds: u32) -> Vec<(&'static str, String)> {
    vec![("Retry-After", seconds.to_string())]
}

fn tool() -> Value {
    json!([{"type": "function", "function": {"name": "lights", "parameters": {
        "type": "object", "properties": {"room": {"type": "string"}}}}}])
}

fn schema() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "place", "strict": true, "schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "open": {"type": "boolean"}},
        "required": ["city", "open"],
        "additionalProperties": false,
    }}})
}

const TOO_LONG: &str = r#"{"error": {"message": "This model's maximum context length is 8192 tokens.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}"#;
const FILTERED: &str = r#"{"error": {"message": "The response was filtered.", "type": null, "param": "prompt", "code": "content_filter"}}"#;
const BROKEN: &str = r#"{"error": {"message": "upstream connect error", "type": "server_error"}}"#;

pub(super) fn all() -> Vec<Case> {
    let mut all = refusals();
    all.extend(before_the_answer());
    all.extend(in_the_answer());
    all.extend(wrong_answers());
    all.extend(connections());
    all.extend(in_another_dialect());
    all
}

fn refusals() -> Vec<Case> {
    vec![
        case(
            "429 without Retry-After, once",
            status(429, vec![], None),
            Whole,
        )
        .attempts(2, 0),
        case(
            "429 with `Retry-After: 1`, once",
            status(429, wait(1), None),
            Whole,
        )
        .attempts(2, 0),
        case(
            "429 with `Retry-After: 30`",
            status(429, wait(30), None),
            Error(429),
        )
        .attempts(1, 0),
        case("500 once", status(500, vec![], None), Whole).attempts(2, 0),
        case("503 for ever", status(503, vec![], None), Error(503))
            .for_ever()
            .attempts(3, 0),
        case(
            "503 for ever, with a second provider",
            status(503, vec![], None),
            Whole,
        )
        .for_ever()
        .at(Legs::Two)
        .attempts(1, 1),
        case(
            "prompt too long for the model",
            status(400, vec![], Some(TOO_LONG)),
            Error(400),
        )
        .for_ever()
        .at(Legs::Two)
        .attempts(1, 0),
        case(
            "refused by the content filter",
            status(400, vec![], Some(FILTERED)),
            Error(400),
        )
        .for_ever()
        .at(Legs::Two)
        .attempts(1, 0),
        Case {
            requests: 4,
            ..case(
                "a provider that fails every other time, 4 requests",
                [503, 200, 503, 200, 503, 200]
                    .into_iter()
                    .flat_map(|code| match code {
                        200 => vec![Answer::text(TEXT).into()],
                        code => status(code, vec![], None),
                    })
                    .collect(),
                Whole,
            )
        },
    ]
}

fn before_the_answer() -> Vec<Case> {
    let slow = Answer::text(TEXT).with_gap(Duration::from_millis(60));
    vec![
        case(
            "connection reset before the headers, once",
            vec![Fault::ResetBeforeHeaders.into()],
            Whole,
        )
        .attempts(2, 0),
        case(
            "connection closed before the headers, once",
            vec![Fault::CloseBeforeHeaders.into()],
            Whole,
        )
        .attempts(2, 0),
        case(
            "silence",
            vec![Fault::StallBeforeHeaders.into()],
            Error(504),
        )
        .attempts(1, 0),
        case(
            "silence, with a second provider",
            vec![Fault::StallBeforeHeaders.into()],
            Whole,
        )
        .at(Legs::Two)
        .attempts(1, 1),
        case(
            "headers, a byte at a time",
            vec![Fault::SlowHeaders(Duration::from_millis(100)).into()],
            Error(504),
        )
        .attempts(1, 0),
        case(
            "headers and then silence",
            vec![Fault::StallBeforeBody.into()],
            Error(504),
        )
        .attempts(1, 0),
        case("slow from the first token on", vec![slow.into()], Whole).attempts(1, 0),
        case(
            "200 and nothing, once",
            vec![Fault::EmptyBody.into()],
            Whole,
        )
        .attempts(2, 0),
        case(
            "200 with an error body, once",
            status(200, vec![], Some(BROKEN)),
            Whole,
        )
        .attempts(2, 0),
        case("200 with a web page, once", vec![Fault::Page.into()], Whole).attempts(2, 0),
        case(
            "200 with half of a JSON, once",
            vec![Fault::Garbage.into()],
            Whole,
        )
        .attempts(2, 0),
        case("a gzip bomb, once", vec![Fault::GzipBomb.into()], Whole).attempts(2, 0),
    ]
}

fn in_the_answer() -> Vec<Case> {
    let cut = |reset| Fault::Cut {
        after: TWO_THIRDS,
        reset,
    };
    let call = Answer::call("lights", r#"{"room": "kitchen"}"#).but(Fault::Cut {
        after: 2,
        reset: false,
    });
    vec![
        case("stream cut at 2/3", but(cut(false)), ErrorInBand).attempts(1, 0),
        case(
            "stream cut at 2/3, the provider takes partial answers",
            but(cut(false)),
            Whole,
        )
        .at(Legs::OneThatGoesOn)
        .attempts(2, 0),
        case(
            "stream reset at 2/3, a second provider takes partial answers",
            but(cut(true)),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case(
            "stream cut at 2/3, a second provider takes none",
            but(cut(false)),
            ErrorInBand,
        )
        .at(Legs::Two)
        .attempts(1, 0),
        case(
            "stream cut at 2/3, the second provider refuses the part",
            but(cut(false)),
            ErrorInBand,
        )
        .at(Legs::TwoAndOneRefuses)
        .attempts(1, 1),
        case(
            "stream cut inside a character",
            but(Fault::CutInside {
                text: "☕",
                bytes: 1,
            }),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case(
            "stall at 2/3",
            but(Fault::Stall { after: TWO_THIRDS }),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case(
            "a byte at a time from 2/3 on",
            but(Fault::Drip {
                after: TWO_THIRDS,
                pause: Duration::from_millis(100),
            }),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case(
            "an event that is not JSON at 2/3",
            but(Fault::BadEvent { after: TWO_THIRDS }),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case(
            "an error event at 2/3",
            but(Fault::ErrorEvent { after: TWO_THIRDS }),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case(
            "the stream ends in good order at 2/3",
            but(Fault::End { after: TWO_THIRDS }),
            Whole,
        )
        .at(Legs::TwoThatGoOn)
        .attempts(1, 1),
        case("a tool call cut in its arguments", vec![call], ErrorInBand)
            .at(Legs::TwoThatGoOn)
            .with("tools", tool())
            .attempts(1, 0),
        case("stream cut at 2/3, wanted whole", but(cut(false)), Whole)
            .whole_body()
            .attempts(2, 0),
    ]
}

fn wrong_answers() -> Vec<Case> {
    let filtered = Answer {
        filtered: true,
        ..Answer::text(TEXT)
    };
    let json = |text: &str| -> Behaviour { Answer::text(text).into() };
    vec![
        case("no `[DONE]`", but(Fault::NoEndMarker), Whole).attempts(1, 0),
        case(
            "first, finishing and usage events twice",
            but(Fault::Twice),
            Whole,
        )
        .attempts(1, 0),
        case("a usage that is none", but(Fault::WrongUsage), Whole).attempts(1, 0),
        case(
            "every byte in a packet of its own",
            but(Fault::ByteByByte),
            Whole,
        )
        .attempts(1, 0),
        case("ended by the content filter", vec![filtered.into()], Whole)
            .at(Legs::TwoThatGoOn)
            .attempts(1, 0),
        Case {
            expected: JSON,
            ..case(
                "200 that does not fit the JSON schema, once",
                vec![json(r#"{"town": "Lyon"}"#), json(JSON)],
                Whole,
            )
            .whole_body()
            .with("response_format", schema())
            .attempts(2, 0)
        },
        case(
            "200 that does not fit the JSON schema, as a stream",
            vec![json("Lyon, I think")],
            ErrorInBand,
        )
        .with("response_format", schema())
        .attempts(1, 0),
    ]
}

fn in_another_dialect() -> Vec<Case> {
    let cut = Fault::Cut {
        after: TWO_THIRDS + 2,
        reset: false,
    };
    let all = vec![
        case(
            "Anthropic: 529, overloaded, once",
            status(529, vec![], None),
            Whole,
        ),
        case("Anthropic: stream cut at 2/3", but(cut), Whole),
        case(
            "Anthropic: an error event at 2/3",
            but(Fault::ErrorEvent {
                after: TWO_THIRDS + 2,
            }),
            Whole,
        ),
        case(
            "Anthropic: no `message_stop`",
            but(Fault::NoEndMarker),
            Whole,
        ),
    ];
    all.into_iter()
        .map(|case| case.at(Legs::Anthropic).attempts(2, 0))
        .collect()
}

fn connections() -> Vec<Case> {
    vec![
        case("a name that does not resolve", vec![], Unreached)
            .at(Legs::Elsewhere("https://no-such-host.invalid/v1")),
        case("a port where nobody listens", vec![], Unreached)
            .at(Legs::Elsewhere("http://127.0.0.1:1/v1")),
        case("a TLS handshake that fails", vec![], Unreached).at(Legs::Elsewhere("https")),
        case("HTTP/2 GOAWAY and the end, once", vec![], Whole).at(Legs::Http2),
    ]
}
