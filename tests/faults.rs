//! What may go wrong around a request: the engine dies, the client leaves, the
//! input is hostile. The API stays up, and each ending is clear and accounted.

use std::io::{Read, Write};
use std::net::TcpStream;

use nearfar::supervisor::Role;
use serde_json::{Value, json};

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::{Answer, Double, Fault};
use super::support::wire;

const CHAT: &str = "/v1/chat/completions";

/// An answer that goes on until its limit: the tokens that end one are banned.
fn endless(model: &str, stream: bool) -> String {
    json!({
        "model": model,
        "stream": stream,
        "max_tokens": 900,
        "logit_bias": {"4087": -100, "4089": -100},
        "messages": [{"role": "user", "content": "hello"}],
    })
    .to_string()
}

fn short(model: &str) -> String {
    json!({
        "model": model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "hello"}],
    })
    .to_string()
}

/// Ledger rows that ended so: `ok`, `failed`, `refused` or `cancelled`.
fn rows(daemon: &Daemon, outcome: &str) -> u64 {
    let (status, body) = daemon.control("/admin/v1/usage?by=endpoint");
    assert_eq!(status, 200, "{body}");
    let usage: Value = serde_json::from_str(&body).unwrap();
    let lines = usage["lines"].as_array().cloned().unwrap_or_default();
    lines.iter().filter_map(|line| line[outcome].as_u64()).sum()
}

fn engine_is_idle(daemon: &Daemon) -> Option<()> {
    let (_, body) = daemon.try_get("/readyz")?;
    let ready: Value = serde_json::from_str(&body).ok()?;
    (ready["engine"]["running"] == 0 && ready["engine"]["queued"] == 0).then_some(())
}

/// A long answer of this device's model, on its way.
fn endless_answer(daemon: &Daemon) -> wire::Stream {
    let body = endless("local/concierge", true);
    let stream = wire::open(daemon.address(), "POST", CHAT, &[], &body).unwrap();
    assert_eq!(stream.status, 200);
    stream
}

#[test]
fn an_engine_killed_in_mid_answer_goes_on_with_it() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let mut stream = endless_answer(&daemon);
    // Shown content: from here on no other leg can take over unseen.
    let mut seen = String::new();
    while !seen.contains("\"content\":\"") || seen.matches("data: ").count() < 4 {
        let more = stream.more();
        assert!(!more.is_empty(), "ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&more));
    }
    daemon.kill(Role::Engine);
    loop {
        let more = stream.more();
        if more.is_empty() {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&more));
    }
    assert!(!seen.contains("\"error\""), "{seen}");
    assert_eq!(seen.matches("\"finish_reason\":\"").count(), 1, "{seen}");
    assert!(
        seen.contains("\"continued_on\":[\"local/concierge\"]"),
        "{seen}"
    );
    assert!(seen.contains("[DONE]"), "{seen}");

    assert_eq!(daemon.get("/healthz").0, 200);
    let (status, body) = daemon.post(CHAT, &short("local/concierge"));
    assert_eq!(status, 200, "{body}");
    daemon.until("the rows", || (rows(&daemon, "ok") == 2).then_some(()));
}

#[test]
fn an_engine_killed_twice_ends_the_answer_with_an_error_or_whole() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let mut stream = endless_answer(&daemon);
    let mut seen = String::new();
    let mut killed = 0;
    loop {
        // Once for the leg, once for the leg that goes on.
        let pieces = seen.matches("\"content\":\"").count();
        if killed < 2 && pieces > 3 + 8 * killed {
            daemon.kill(Role::Engine);
            killed += 1;
        }
        let more = stream.more();
        if more.is_empty() {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&more));
    }
    // The second kill may come when the rest was written already.
    if seen.contains("\"error\"") {
        assert!(!seen.contains("[DONE]"), "a cut answer looks whole");
        assert!(!seen.contains("\"finish_reason\":\""), "a fake ending");
        daemon.until("the row", || (rows(&daemon, "failed") == 1).then_some(()));
    } else {
        assert_eq!(seen.matches("\"finish_reason\":\"").count(), 1, "{seen}");
        assert!(
            seen.contains("[DONE]"),
            "neither whole nor an error: {seen}"
        );
        daemon.until("the row", || (rows(&daemon, "ok") == 1).then_some(()));
    }
}

#[test]
fn an_answer_in_a_form_keeps_it_when_its_engine_is_killed() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let word = json!({"type": "string", "minLength": 12, "maxLength": 20});
    let words = json!({"type": "array", "items": word, "minItems": 24, "maxItems": 24});
    let schema = json!({
        "type": "object",
        "properties": {"words": words},
        "required": ["words"],
        "additionalProperties": false,
    });
    let body = json!({
        "model": "local/concierge",
        "stream": true,
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "words", "strict": true, "schema": schema
        }},
        "messages": [{"role": "user", "content": "hello"}],
    })
    .to_string();
    let mut stream = wire::open(daemon.address(), "POST", CHAT, &[], &body).unwrap();
    let mut seen = String::new();
    let mut killed = false;
    loop {
        if !killed && seen.matches("\"content\":\"").count() > 3 {
            daemon.kill(Role::Engine);
            killed = true;
        }
        let more = stream.more();
        if more.is_empty() {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&more));
    }
    let chunks = seen.lines().filter_map(|line| line.strip_prefix("data: {"));
    let text: String = chunks
        .map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")).unwrap())
        .filter_map(|chunk| {
            let text = &chunk["choices"][0]["delta"]["content"];
            text.as_str().map(str::to_owned)
        })
        .collect();
    assert!(
        killed && seen.contains("\"finish_reason\":\"stop\""),
        "{seen}"
    );
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let words = value["words"].as_array().unwrap();
    assert_eq!(words.len(), 24);
    for word in words {
        let length = word.as_str().unwrap().chars().count();
        assert!((12..=20).contains(&length), "{word}");
    }
}

#[test]
fn a_client_that_leaves_is_told_to_the_provider() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start());
    let daemon = Daemon::start(
        DaemonOptions::default()
            .env("OPENAI_API_KEY", "sk-here")
            .env("OPENAI_BASE_URL", &double.openai_base()),
    );
    daemon.until("providers", || {
        let (_, body) = daemon.try_get("/v1/models")?;
        body.contains("openai/").then_some(())
    });
    // While the provider reads, while it writes, and where the client waits
    // for the whole.
    let cases = [
        (Fault::StallBeforeBody, true),
        (Fault::Stall { after: 3 }, true),
        (Fault::StallBeforeBody, false),
        (Fault::Stall { after: 3 }, false),
    ];
    for (round, (fault, stream)) in cases.into_iter().enumerate() {
        double.push(Answer::text("one two three four five").but(fault.clone()));
        let body = json!({
            "model": "openai/gpt-4.1-mini",
            "stream": stream,
            "messages": [{"role": "user", "content": "hello"}],
        })
        .to_string();
        let mut connection = TcpStream::connect(daemon.address()).unwrap();
        write!(
            connection,
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        daemon.until("the provider at work", || {
            let requests = double.requests();
            let seen = requests.get(round)?;
            // Past the head, and in an answer past its first words.
            let wanted = if matches!(fault, Fault::Stall { .. }) {
                600
            } else {
                100
            };
            (seen.sent > wanted).then_some(())
        });
        drop(connection);
        daemon.until("the provider to notice", || {
            double.requests()[round].closed_early.then_some(())
        });
        let wanted = round as u64 + 1;
        daemon.until("the row", || {
            (rows(&daemon, "cancelled") == wanted).then_some(())
        });
    }
}

#[test]
fn an_engine_killed_before_its_first_token_is_not_seen_by_the_client() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start());
    let daemon = Daemon::start(
        DaemonOptions::default()
            .env("OPENAI_API_KEY", "sk-here")
            .env("OPENAI_BASE_URL", &double.openai_base()),
    );
    daemon.wait_ready();
    for _ in 0..5 {
        daemon.kill(Role::Engine);
        // Another leg, or the engine that was started anew: an answer either way.
        let (status, body) = daemon.post(CHAT, &short("auto"));
        assert_eq!(status, 200, "{body}");
    }
}

#[test]
fn a_client_that_leaves_frees_the_engine_and_has_its_row() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    for (round, stream) in [true, false, true, false].into_iter().enumerate() {
        let body = endless("local/concierge", stream);
        if stream {
            let mut open = wire::open(daemon.address(), "POST", CHAT, &[], &body).unwrap();
            assert!(!open.more().is_empty());
            drop(open);
        } else {
            let mut connection = TcpStream::connect(daemon.address()).unwrap();
            write!(
                connection,
                "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            daemon.until("the engine at work", || {
                engine_is_idle(&daemon).is_none().then_some(())
            });
            drop(connection);
        }
        daemon.until("an idle engine", || engine_is_idle(&daemon));
        let wanted = round as u64 + 1;
        daemon.until("the row", || {
            (rows(&daemon, "cancelled") == wanted).then_some(())
        });
    }
}

#[test]
fn hostile_bodies_get_a_clear_error_each() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let deep = format!(
        "{{\"messages\":{}{}}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let bodies = [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        "\"text\"",
        "{\"messages\": 3}",
        "{\"messages\": [3]}",
        "{\"messages\": [{\"role\": \"king\", \"content\": \"x\"}]}",
        "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": {\"a\": 1}}]}",
        "{\"model\": 7, \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"max_tokens\": -1, \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"max_tokens\": 1e99, \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"temperature\": \"hot\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"stop\": [\"\"], \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"logit_bias\": {\"x\": 1}, \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"tools\": [{}], \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"n\": 5, \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"nearfar\": {\"privcy\": \"device\"}, \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
        deep.as_str(),
    ];
    for body in bodies {
        let shown: String = body.chars().take(80).collect();
        let reply = wire::post(daemon.address(), CHAT, &[], body);
        assert_eq!(reply.status, 400, "{shown}: {}", reply.body);
        let error = &reply.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|m| m.len() > 10),
            "{shown}: {error}"
        );
    }
    // Too long for the model's context: refused with the figures, not cut.
    let long = json!({"model": "local/concierge", "messages": [{"role": "user", "content": "word ".repeat(5_000)}]});
    let reply = wire::post(daemon.address(), CHAT, &[], &long.to_string());
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
    assert!(reply.body.contains("1024"), "{}", reply.body);
    assert_eq!(daemon.post(CHAT, &short("auto")).0, 200);
    assert!(!daemon.log().contains("panicked"));
}

#[test]
fn a_body_of_a_hundred_megabytes_is_refused_and_costs_no_memory() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let gate = daemon.wait_for(Role::Gate, None);
    for framing in ["content-length: 104857600", "transfer-encoding: chunked"] {
        let mut connection = TcpStream::connect(daemon.address()).unwrap();
        write!(
            connection,
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
        )
        .unwrap();
        let piece = vec![b' '; 1 << 20];
        for _ in 0..100 {
            let sent = if framing.starts_with("transfer") {
                write!(connection, "{:x}\r\n", piece.len())
                    .and_then(|()| connection.write_all(&piece))
                    .and_then(|()| connection.write_all(b"\r\n"))
            } else {
                connection.write_all(&piece)
            };
            // The daemon may hang up on who goes on sending.
            if sent.is_err() {
                break;
            }
        }
        let mut reply = [0; 64];
        let length = connection.read(&mut reply).unwrap_or(0);
        let head = String::from_utf8_lossy(&reply[..length]);
        // A reset may have taken the reply along; a success may not come.
        assert!(
            head.is_empty() || head.contains(" 413 "),
            "{framing}: {head}"
        );
    }
    let peak = peak_memory_kib(gate);
    assert!(peak < 200 * 1024, "the gate took {peak} KiB");
    assert_eq!(daemon.post(CHAT, &short("auto")).0, 200);
}

fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_client_that_never_finishes_its_head_does_not_hold_the_door() {
    let daemon = Daemon::start(
        DaemonOptions::default().config("[server]\nheader_timeout = \"1s\"\nmax_connections = 8\n"),
    );
    daemon.wait_ready();
    let slow: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut connection = TcpStream::connect(daemon.address()).unwrap();
            connection
                .write_all(b"POST / HTTP/1.1\r\nhost: loc")
                .unwrap();
            connection
        })
        .collect();
    // All places are taken until the heads time out; then there is an answer.
    assert_eq!(daemon.get("/healthz").0, 200);
    for mut connection in slow {
        let mut rest = Vec::new();
        // Cut off, with or without a word.
        let _ = connection.read_to_end(&mut rest);
    }
}
