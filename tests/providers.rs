//! Providers of every dialect behind the whole daemon: a client of OpenAI's
//! dialect on one side, the provider double on the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::{Answer, Behaviour, Double, Fault};

const KEY: &str = "sk-of-the-double";
const TARGETS: [&str; 5] = [
    "google/gemini-3-pro-preview",
    "aws/eu.anthropic.claude-x-v1:0",
    "azure/my-deployment",
    "claude/claude-haiku-4-5",
    "open/gpt-x",
];

struct Rig {
    runtime: tokio::runtime::Runtime,
    double: Double,
    daemon: Daemon,
    _folder: tempfile::TempDir,
}

fn rig() -> Rig {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start());
    double.require_key(KEY);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let section = |name: &str, rest: &str, url: &str| {
        let key = key.display();
        format!(
            "[providers.{name}]\n{rest}\nbase_url = \"{url}\"\nkey_file = \"{key}\"\nopen_list = true\n"
        )
    };
    let config = [
        section("google", "preset = \"gemini\"", &double.gemini_base()),
        section("aws", "preset = \"bedrock\"", &double.bedrock_base()),
        section("azure", "", &double.azure_base()).replace("\n\n", "\nauth = \"api-key\"\n"),
        section(
            "claude",
            "dialect = \"anthropic\"",
            &double.anthropic_base(),
        ),
        section("open", "dialect = \"openai\"", &double.openai_base()),
    ];
    let daemon = Daemon::start(DaemonOptions::default().config(&config.concat()));
    daemon.wait_ready();
    Rig {
        runtime,
        double,
        daemon,
        _folder: folder,
    }
}

impl Rig {
    fn post(&self, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(self.daemon.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let body = body.to_string();
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    /// The status, the head and the body, or the data of a stream.
    fn ask(&self, body: &Value) -> (u16, String, Vec<Value>) {
        let mut text = String::new();
        self.post(body).read_to_string(&mut text).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let data: Vec<Value> = rest
            .lines()
            .filter_map(|line| {
                line.strip_prefix("data: ")
                    .or(line.starts_with('{').then_some(line))
            })
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (status, head.to_owned(), data)
    }

    fn seen(&self) -> Value {
        self.double.requests().last().unwrap().json()
    }
}

fn tool() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"room": {"$ref": "#/$defs/room"}},
        "$defs": {"room": {"type": "string", "enum": ["hall"]}},
        "additionalProperties": false
    });
    json!([{"type": "function", "function": {"name": "light", "parameters": parameters}}])
}

fn request(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "stream": stream,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    })
}

/// Text, calls as (id, name, arguments) and finish reason of a stream or an answer.
fn told(data: &[Value]) -> (String, Vec<(String, String, String)>, String) {
    let (mut text, mut reason) = (String::new(), String::new());
    let mut calls: Vec<(String, String, String)> = Vec::new();
    for choice in data.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let delta = if choice["delta"].is_object() {
            &choice["delta"]
        } else {
            &choice["message"]
        };
        text.push_str(delta["content"].as_str().unwrap_or_default());
        for (at, call) in delta["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let index = call["index"].as_u64().map_or(at, |index| index as usize);
            if index == calls.len() {
                let word = |value: &Value| value.as_str().unwrap().to_owned();
                calls.push((
                    word(&call["id"]),
                    word(&call["function"]["name"]),
                    String::new(),
                ));
            } else {
                assert!(call.get("id").is_none(), "an id in a later fragment");
            }
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            calls[index].2.push_str(arguments);
        }
        if let Some(word) = choice["finish_reason"].as_str() {
            assert!(reason.is_empty(), "two finish reasons");
            word.clone_into(&mut reason);
        }
    }
    (text, calls, reason)
}

#[test]
fn every_provider_answers_and_calls_tools() {
    let rig = rig();
    for target in TARGETS {
        for stream in [false, true] {
            let case = format!("{target}, stream: {stream}");
            let mut body = request(target, stream);
            if stream {
                body["stream_options"] = json!({"include_usage": true});
            }
            let (status, _, data) = rig.ask(&body);
            assert_eq!(status, 200, "{case}: {data:?}");
            let (text, calls, reason) = told(&data);
            assert_eq!(
                (text.as_str(), reason.as_str()),
                ("You said: hello", "stop"),
                "{case}"
            );
            assert!(calls.is_empty());
            let usage = &data.last().unwrap()["usage"];
            assert_eq!(usage["prompt_tokens"], 21, "{case}");
            assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 8, "{case}");
            assert_eq!(usage["completion_tokens"], 5, "{case}");

            rig.double.push(
                Answer::text("I do. ")
                    .and_call("light", r#"{"room":"hall"}"#)
                    .and_call("light", "{}"),
            );
            let mut body = request(target, stream);
            body["tools"] = tool();
            let (status, _, data) = rig.ask(&body);
            assert_eq!(status, 200, "{case}: {data:?}");
            let (text, calls, reason) = told(&data);
            assert_eq!(
                (text.as_str(), reason.as_str()),
                ("I do. ", "tool_calls"),
                "{case}"
            );
            assert_eq!(calls.len(), 2, "{case}");
            assert_eq!(calls[0].2, r#"{"room":"hall"}"#, "{case}");
            assert_eq!(
                (calls[1].1.as_str(), calls[1].2.as_str()),
                ("light", "{}"),
                "{case}"
            );

            // The calls and their results go back in one turn.
            let call = |call: &(String, String, String)| {
                json!({
                    "id": call.0, "type": "function", "function": {"name": call.1, "arguments": call.2}
                })
            };
            let turns = body["messages"].as_array_mut().unwrap();
            turns.push(json!({"role": "assistant", "content": "I do. ",
                              "tool_calls": [call(&calls[0]), call(&calls[1])]}));
            for (at, (id, _, _)) in calls.iter().enumerate() {
                turns.push(
                    json!({"role": "tool", "tool_call_id": id, "content": format!("done {at}")}),
                );
            }
            let (status, _, data) = rig.ask(&body);
            assert_eq!(status, 200, "{case}: {data:?}");
            let sent = rig.seen();
            let results = match target.split('/').next().unwrap() {
                "google" => sent["contents"][2]["parts"].as_array().unwrap().len(),
                "aws" | "claude" => sent["messages"][2]["content"].as_array().unwrap().len(),
                _ => sent["messages"].as_array().unwrap().len() - 3,
            };
            assert_eq!(results, 2, "{case}: {sent}");
        }
    }
    assert!(!rig.daemon.log().contains(KEY));
}

#[test]
fn pictures_and_schemas_reach_every_provider() {
    let rig = rig();
    for target in TARGETS {
        let mut body = request(target, false);
        body["messages"][1]["content"] = json!([
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        ]);
        body["response_format"] = json!({"type": "json_schema", "json_schema": {
            "name": "thing", "strict": true,
            "schema": {"type": "object", "properties": {"name": {"type": "string"}},
                       "required": ["name"], "additionalProperties": false}
        }});
        rig.double.push(Answer::text(r#"{"name":"cat"}"#));
        let (status, _, data) = rig.ask(&body);
        assert_eq!(status, 200, "{target}: {data:?}");
        assert_eq!(told(&data).0, r#"{"name":"cat"}"#);
        let sent = rig.seen().to_string();
        assert!(
            sent.contains("iVBORw0KGgo=") && sent.contains("image/png") || sent.contains("\"png\"")
        );
        assert!(
            sent.contains("\\\"name\\\"") || sent.contains("\"name\""),
            "{sent}"
        );
    }
}

#[test]
fn their_errors_are_told_as_theirs() {
    let rig = rig();
    for target in TARGETS {
        rig.double.push(Fault::status(400));
        let (status, _, _) = rig.ask(&request(target, true));
        assert_eq!(status, 400, "{target}");

        // Cut in the middle: an error in the stream, never a finish reason.
        let cut = Fault::Cut {
            after: 5,
            reset: false,
        };
        rig.double
            .push(Answer::text("one two three four five six seven eight").but(cut));
        let (status, _, data) = rig.ask(&request(target, true));
        assert_eq!(status, 200, "{target}");
        let (_, _, reason) = told(&data);
        assert_eq!(reason, "", "{target}");
        assert!(
            data.last().unwrap().get("error").is_some(),
            "{target}: {data:?}"
        );

        rig.double.push(Answer {
            refusal: Some("I cannot.".into()),
            ..Answer::text("I ")
        });
        let (_, _, data) = rig.ask(&request(target, true));
        assert_eq!(told(&data).2, "content_filter", "{target}");

        // Last, because the target is left alone for a while then.
        let google = target.starts_with("google");
        rig.double.always(Fault::status(429));
        let (status, head, data) = rig.ask(&request(target, false));
        rig.double.always(Behaviour::default());
        assert_eq!(status, 429, "{target}");
        let waits = head.to_ascii_lowercase().contains("retry-after: 17");
        assert_eq!(waits, google, "{target}: {head}");
        let shown = data[0].to_string();
        assert!(!shown.contains(KEY), "{shown}");
    }
}

#[test]
fn a_client_that_leaves_stops_every_provider() {
    let rig = rig();
    for target in TARGETS {
        for fault in [Fault::StallBeforeBody, Fault::Stall { after: 5 }] {
            let number = rig.double.requests().len();
            let shown = matches!(fault, Fault::Stall { .. });
            rig.double
                .push(Answer::text("one two three four five six seven").but(fault));
            let stream = rig.post(&request(target, true));
            rig.runtime.block_on(
                rig.double
                    .wait_until("the request", |d| d.requests().len() > number),
            );
            let mut reader = BufReader::new(stream);
            let mut waiting = shown;
            while waiting {
                let mut line = String::new();
                let read = reader.read_line(&mut line).unwrap();
                assert_ne!(read, 0, "{target}: the stream ended");
                waiting = !line.contains("two");
            }
            drop(reader);
            rig.runtime.block_on(
                rig.double
                    .wait_until(target, |d| d.requests()[number].closed_early),
            );
        }
    }
}

#[test]
fn what_only_its_author_can_read_survives_the_conversation() {
    let rig = rig();
    for (target, inside) in [
        ("google/gemini-3-pro-preview", true),
        ("claude/claude-x", false),
    ] {
        let mut body = request(target, false);
        body["tools"] = tool();
        body["reasoning_effort"] = json!("low");
        let answer = Answer::text("I do. ").after_thinking("let me see");
        rig.double.push(answer.and_call("light", "{}"));
        let (_, _, data) = rig.ask(&body);
        let message = data[0]["choices"][0]["message"].clone();
        let signature = if inside {
            &message["tool_calls"][0]["extra_content"]["google"]["thought_signature"]
        } else {
            assert_eq!(message["thinking_blocks"][0]["thinking"], "let me see");
            &message["thinking_blocks"][0]["signature"]
        };
        let signature = signature.as_str().unwrap().to_owned();
        let id = message["tool_calls"][0]["id"].clone();
        let turns = body["messages"].as_array_mut().unwrap();
        turns.push(message);
        turns.push(json!({"role": "tool", "tool_call_id": id, "content": "done"}));
        let (status, _, data) = rig.ask(&body);
        assert_eq!(status, 200, "{target}: {data:?}");
        let sent = rig.seen();
        if inside {
            let parts = sent["contents"][1]["parts"].as_array().unwrap();
            assert_eq!(parts[1]["thoughtSignature"], json!(signature), "{sent}");
        } else {
            let block = &sent["messages"][1]["content"][0];
            assert_eq!(block["signature"], json!(signature), "{sent}");
            assert_eq!(block["thinking"], "let me see");
        }
    }
}
