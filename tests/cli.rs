//! The command line as people use it: the real binary against a real daemon.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::support::daemon::{Daemon, DaemonOptions, signal};

/// The binary in a nearly empty environment.
fn nearfar(state_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearfar"));
    command
        .env_clear()
        .env("HOME", state_dir)
        .env("NEARFAR_STATE_DIR", state_dir)
        // Names a file that is not read, so that this machine's own is not.
        .env("NEARFAR_CONFIG", state_dir.join("none.toml"))
        .args(args)
        .stdin(Stdio::null());
    command
}

fn run(state_dir: &Path, args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = nearfar(state_dir, args).output().unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

fn json(state_dir: &Path, args: &[&str]) -> Value {
    let (code, out, err) = run(state_dir, args);
    assert_eq!(code, 0, "{args:?}\n{out}{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn every_verb_speaks_with_the_daemon() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let dir = daemon.state_dir();

    let decision = json(dir, &["route", "hello", "--privacy", "device", "--json"]);
    assert_eq!(decision["verdict"], "go");
    assert_eq!(decision["reason"], "confined");
    assert_eq!(decision["candidates"][0]["target"], "local/concierge");
    let (code, out, _) = run(dir, &["route", "hello", "--model", "nobody/none"]);
    assert_ne!(code, 0, "{out}");

    let facts = "You are the concierge of Hotel Larkspur.\n- Sauna: costs 12 euros";
    let asked = [
        "chat",
        "--system",
        facts,
        "--once",
        "how much is the sauna",
        "--max-tokens",
        "24",
    ];
    let told = json(
        dir,
        &[&asked[..], &["--feature", "test", "--json"]].concat(),
    );
    assert_eq!(told["zone"], "device");
    assert_eq!(told["target"], "local/concierge");
    assert!(!told["content"].as_str().unwrap().is_empty());
    assert!(told["ttft_ms"].as_f64().unwrap() <= told["total_ms"].as_f64().unwrap());
    let url = daemon.url("");
    for more in [&[][..], &["--url", &url]] {
        let (code, out, err) = run(dir, &[&asked[..], more].concat());
        assert_eq!(code, 0, "{err}");
        assert!(!out.trim().is_empty());
        assert!(
            err.contains("answered by local/concierge · zone device"),
            "{err}"
        );
    }

    let status = json(dir, &["status", "--json"]);
    assert_eq!(status["engine"]["state"], "up");
    let (_, shown, _) = run(dir, &["status"]);
    for words in ["running for", "egress", "seccomp", "local/concierge"] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }

    // A row is written when its answer has ended, which the client sees first.
    let since = Instant::now();
    let counted = || {
        json(
            dir,
            &["usage", "--by", "feature,target", "--since", "1h", "--json"],
        )
    };
    let lines = loop {
        let usage = counted();
        let all = usage["lines"].as_array().unwrap().clone();
        let sum: u64 = all
            .iter()
            .map(|line| line["requests"].as_u64().unwrap())
            .sum();
        if sum >= 3 || since.elapsed() > Duration::from_secs(30) {
            break all;
        }
    };
    let tagged = lines
        .iter()
        .find(|line| line["group"]["feature"] == "test")
        .unwrap();
    assert_eq!((&tagged["requests"], &tagged["ok"]), (&1.into(), &1.into()));
    assert_eq!(tagged["group"]["target"], "local/concierge");

    let empty = dir.join("empty.toml");
    std::fs::write(&empty, "").unwrap();
    let looked = run(
        dir,
        &["doctor", "--json", "--config", empty.to_str().unwrap()],
    );
    let findings: Value = serde_json::from_str(&looked.1).unwrap();
    let daemon_is = findings["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["check"] == "daemon")
        .unwrap();
    assert_eq!(daemon_is["level"], "ok", "{}", looked.1);
}

#[test]
fn the_demo_answers_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let output = nearfar(home.path(), &["demo", "when is breakfast?"])
        .env("TMPDIR", &temporary)
        // It must not reach the demo's daemon.
        .env("OPENAI_API_KEY", "sk-canary")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("when is breakfast?"), "{out}");
    assert!(
        out.contains("answered by local/concierge · zone device"),
        "{out}"
    );
    assert!(out.contains("go local/concierge in zone device"), "{out}");
    assert!(!out.contains("openai/"), "{out}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn without_a_daemon_every_verb_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["chat", "--once", "hi"][..],
        &["route", "hi"],
        &["usage"],
        &["status"],
    ] {
        let (code, out, err) = run(dir.path(), args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}");
        assert!(
            err.contains("nearfar is not running for state directory"),
            "{err}"
        );
        assert!(err.contains("nearfar serve"), "{err}");
    }
    for args in [
        &["usage", "--since", "soon"][..],
        &["usage", "--by", "colour"],
        &["chat", "--x"],
    ] {
        assert_eq!(run(dir.path(), args).0, 2, "{args:?}");
    }
}

#[test]
fn a_configuration_is_checked_with_every_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nearfar.toml");
    std::fs::write(&file, "[server]\nlistne = 1\ndrain = 5\n").unwrap();
    let path = file.to_str().unwrap();
    let (code, _, err) = run(dir.path(), &["config", "check", path]);
    assert_eq!(code, 1);
    for words in [":2:1:", "did you mean `listen`?", ":3:9:", "2 errors"] {
        assert!(err.contains(words), "{words}\n{err}");
    }
    let (code, out, _) = run(dir.path(), &["config", "check", path, "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, told["errors"].as_array().unwrap().len()), (1, 2));
    assert_eq!(told["errors"][0]["line"], 2);
    let (_, example, _) = run(dir.path(), &["config", "example"]);
    std::fs::write(&file, example).unwrap();
    assert_eq!(run(dir.path(), &["config", "check", path]).0, 0);
}

#[test]
fn a_pipe_that_closes_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = nearfar(dir.path(), &["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut demo = nearfar(home.path(), &["demo"])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while std::fs::read_dir(&temporary).unwrap().count() == 0 {
        std::thread::sleep(Duration::from_millis(5));
        assert!(demo.try_wait().unwrap().is_none(), "it ended by itself");
    }
    signal(demo.id(), Signal::TERM);
    // The answer may have come first; either way it has cleaned up.
    demo.wait().unwrap();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn the_guard_can_be_tried_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let text = dir.join("letter.txt");
    std::fs::write(&text, "Dear Ana,\nwrite to ana@mail.example.org or a 12.\n").unwrap();
    let letter = text.to_str().unwrap();
    let found = json(dir, &["guard", "check", letter, "--json"]);
    let first = &found["findings"][0];
    assert_eq!(
        (&first["kind"], &first["line"], &first["column"]),
        (&"email".into(), &2.into(), &10.into())
    );
    assert_eq!(first["text"], "ana@mail.example.org");
    let redacted = found["redacted"].as_str().unwrap();
    assert!(
        redacted.contains("write to [EMAIL-1-") && !redacted.contains('@'),
        "{redacted}"
    );
    assert_eq!(found["findings"].as_array().unwrap().len(), 1);
    let (code, out, _) = run(dir, &["guard", "check", letter]);
    assert!(
        code == 0 && out.contains("ana@mail.example.org") && out.contains("[EMAIL-1-"),
        "{out}"
    );
    let (code, out, _) = run(dir, &["guard", "check", letter, "--kinds", "card,iban"]);
    assert!(code == 0 && out.contains("nothing found"), "{out}");
    let (code, _, err) = run(dir, &["guard", "check", letter, "--kinds", "emial"]);
    assert!(code == 2 && err.contains("email"), "{err}");
    let config = dir.join("guard.toml");
    std::fs::write(&config, "[guard.kinds]\nemail = \"block\"\n").unwrap();
    let told = json(
        dir,
        &[
            "guard",
            "check",
            letter,
            "--json",
            "--config",
            config.to_str().unwrap(),
        ],
    );
    assert_eq!(told["findings"][0]["action"], "block");
}
