#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::args::Cli;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::talk::{Piece, Question, Told, ask};

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_help_examples_and_exit_codes() {
    fn check(command: &clap::Command, path: &str) {
        let help = command.clone().render_long_help().to_string();
        assert!(command.get_about().is_some(), "{path} says nothing");
        let groups = command.get_subcommands().count() > 0;
        assert!(groups || help.contains("Exit codes"), "{path}:\n{help}");
        for sub in command.get_subcommands() {
            check(sub, &format!("{path} {}", sub.get_name()));
        }
    }
    check(&Cli::command(), "nearfar");
    let demo = Cli::command()
        .find_subcommand_mut("demo")
        .map(clap::Command::render_long_help);
    let demo = demo.unwrap().to_string();
    let demo = demo.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(demo.contains("nothing leaves the device"), "{demo}");
}

#[test]
fn arguments_read_as_meant() {
    let read = |line: &str| Cli::try_parse_from_line(line);
    assert!(read("nearfar serve --listen 127.0.0.1:1 --listen [::1]:2 --state-dir /s").is_ok());
    assert!(read("nearfar --state-dir /s status --json").is_ok());
    assert!(read("nearfar chat --once hi --privacy device --json").is_ok());
    assert!(read("nearfar route hi --ttft-ms 300 --tools t.json").is_ok());
    assert!(read("nearfar usage --by target,feature --since 1d").is_ok());
    assert!(read("nearfar config check x.toml --json").is_ok());
    assert!(read("nearfar completions bash").is_ok());
    assert!(read("nearfar chat --system -facts --once - --json").is_ok());
    for wrong in [
        "nearfar",
        "nearfar serv",
        "nearfar serve --listen here",
        "nearfar chat --system a --system-file b",
        "nearfar route",
        "nearfar completions tcsh",
    ] {
        assert_eq!(read(wrong).unwrap_err().exit_code(), 2, "{wrong}");
    }
}

impl Cli {
    fn try_parse_from_line(line: &str) -> Result<Cli, clap::Error> {
        use clap::Parser;
        Cli::try_parse_from(line.split(' '))
    }
}

/// A daemon that takes one request, answers `answer` in pieces of `size` bytes,
/// and tells what it was asked and when the client went away.
struct Scripted {
    client: Client,
    seen: Arc<Mutex<String>>,
    gone: oneshot::Receiver<()>,
    _dir: tempfile::TempDir,
}

impl Scripted {
    fn start(answer: String, size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let (tell, gone) = oneshot::channel();
        let heard = Arc::clone(&seen);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 64 << 10];
            let mut have = 0;
            loop {
                have += stream.read(&mut bytes[have..]).await.unwrap();
                let text = String::from_utf8_lossy(&bytes[..have]).into_owned();
                let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "))
                        .map_or(0, |length| length.parse().unwrap());
                    body.len() >= length
                });
                if whole {
                    *heard.lock().unwrap() = text;
                    break;
                }
            }
            for piece in answer.as_bytes().chunks(size) {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if answer.contains("connection: close") {
                drop(stream);
            } else {
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
            }
            let _ = tell.send(());
        });
        Self {
            client: Client::control(dir.path()),
            seen,
            gone,
            _dir: dir,
        }
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    x-nearfar-decision: dec_1\r\nx-nearfar-target: local/concierge\r\n\
    x-nearfar-zone: device\r\nx-nearfar-reason: near\r\nconnection: close\r\n\r\n";

fn event(value: &Value) -> String {
    format!("data: {value}\r\n\r\n")
}

fn delta(delta: Value, finish: Option<&str>) -> String {
    event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
}

async fn told(server: &Scripted, shown: &mut String) -> Result<Told, Failed> {
    let messages = [json!({"role": "user", "content": "wifi?"})];
    let question = Question {
        model: "auto",
        messages: &messages,
        privacy: Some("device"),
        feature: Some("test"),
        max_tokens: Some(9),
        temperature: Some(0.0),
    };
    ask(&server.client, &question, &mut |piece| {
        match piece {
            Piece::Text(text) => shown.push_str(text),
            Piece::Reasoning(text) => shown.push_str(&format!("<{text}>")),
        }
        Ok(())
    })
    .await
}

#[test]
fn a_streamed_answer_arrives_whole_whatever_the_packets() {
    let body = [
        HEAD.to_owned(),
        ": waiting\r\n\r\n".to_owned(),
        delta(json!({"role": "assistant", "content": ""}), None),
        delta(json!({"reasoning_content": "hm"}), None),
        delta(json!({"content": "blue \u{e9}\u{1f600}"}), None),
        delta(json!({"content": " heron"}), Some("stop")),
        event(&json!({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}})),
        "data: [DONE]\r\n\r\n".to_owned(),
    ]
    .concat();
    for size in [1, 7, 100_000] {
        block_on(async {
            let server = Scripted::start(body.clone(), size);
            let mut shown = String::new();
            let told = told(&server, &mut shown).await?;
            assert_eq!(shown, "<hm>blue \u{e9}\u{1f600} heron");
            assert_eq!(told.content, "blue \u{e9}\u{1f600} heron");
            assert_eq!(
                (told.zone.as_str(), told.target.as_str()),
                ("device", "local/concierge")
            );
            assert_eq!(
                (told.prompt_tokens, told.completion_tokens),
                (Some(12), Some(3))
            );
            assert!(told.ttft_ms.is_some_and(|ttft| ttft <= told.total_ms));
            let origin = told.origin(super::style::Style::PLAIN);
            assert!(origin.starts_with("[answered by local/concierge · zone device · reason near"));
            let seen = server.seen.lock().unwrap().clone();
            assert!(
                seen.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
                "{seen}"
            );
            assert!(seen.contains("x-nearfar-privacy: device"), "{seen}");
            assert!(seen.contains("\"max_completion_tokens\":9"), "{seen}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn an_answer_that_breaks_off_is_never_whole() {
    let begun = [HEAD, &delta(json!({"content": "blue"}), None)].concat();
    let cases = [
        (begun.clone(), "cut off"),
        (
            begun.clone() + &event(&json!({"error": {"message": "the engine crashed"}})),
            "the engine crashed",
        ),
        (begun + "data: {oops\r\n\r\n", "not JSON"),
        (
            "HTTP/1.1 503 x\r\ncontent-length: 60\r\n\r\n{\"error\":{\"message\":\"no model may answer\",\"param\":\"model\"}} "
                .to_owned(),
            "no model may answer",
        ),
        ("HTTP/1.1 500 x\r\ncontent-length: 2\r\n\r\nno".to_owned(), "status 500"),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "HTTP"),
    ];
    for (answer, what) in cases {
        block_on(async {
            let server = Scripted::start(answer.clone(), 50);
            let failed = told(&server, &mut String::new()).await.unwrap_err();
            assert!(failed.what.contains(what), "{failed}");
            assert_eq!(failed.code, 1);
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn dropping_the_question_closes_the_connection() {
    block_on(async {
        let endless = HEAD.replace("connection: close\r\n", "transfer-encoding: chunked\r\n");
        let server = Scripted::start(endless, 1_000);
        {
            let mut shown = String::new();
            let asking = told(&server, &mut shown);
            tokio::pin!(asking);
            let waited = tokio::time::timeout(std::time::Duration::from_millis(50), &mut asking);
            assert!(waited.await.is_err(), "the answer does not end");
        }
        // Ends only once the daemon sees the end of the connection.
        server.gone.await.unwrap();
        Ok(())
    })
    .unwrap();
}

#[test]
fn json_lines_are_read_one_by_one() {
    block_on(async {
        let lines = "{\"have\":1}\n\n{\"have\":\"\u{e9}\"}\n{\"end\":true}";
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{lines}");
        let server = Scripted::start(answer, 3);
        let mut reply = server
            .client
            .open(
                hyper::Method::POST,
                "/admin/v1/models",
                &[],
                Some(&json!({})),
            )
            .await?;
        let mut seen = Vec::new();
        while let Some(line) = reply.next_line().await? {
            seen.push(line);
        }
        assert_eq!(
            seen,
            [
                json!({"have": 1}),
                json!({"have": "\u{e9}"}),
                json!({"end": true})
            ]
        );
        Ok(())
    })
    .unwrap();
}
