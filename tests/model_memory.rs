//! `nearfar model load | unload | ps | bench`, the real binary.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::root;

fn model(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nearfar"))
        .arg("model")
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .env_clear()
        .env("HOME", state)
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(state: &Path, args: &[&str]) -> Value {
    let output = model(state, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn in_memory(state: &Path) -> Vec<String> {
    let models = json(state, &["ps"])["models"].clone();
    let models = models.as_array().unwrap().iter();
    models
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn models_are_loaded_listed_and_unloaded_through_the_daemon() {
    let config = "[local]\nmemory_budget = \"1GiB\"\n";
    let daemon = Daemon::start(DaemonOptions::default().config(config));
    daemon.wait_ready();
    let state = daemon.state_dir();
    daemon.until("the default model", || {
        (in_memory(state) == ["concierge"]).then_some(())
    });
    let file = root().join("models/concierge/concierge.gguf");
    let file = file.to_str().unwrap();
    json(state, &["add", file, "--name", "second"]);
    let loaded = json(state, &["load", "second"]);
    assert_eq!(loaded["name"], "second");
    assert!(loaded["memory_bytes"].as_u64().unwrap() > 1 << 20);
    daemon.until("both in memory", || {
        (in_memory(state).len() == 2).then_some(())
    });
    let output = model(state, &["ps"]);
    assert!(output.status.success());
    assert!(said(&output).contains("second") && said(&output).contains("1.07 GB"));
    // Again: it is there already.
    let output = model(state, &["load", "second"]);
    assert!(said(&output).contains("in memory"), "{}", said(&output));
    json(state, &["unload", "second"]);
    daemon.until("one left", || {
        (in_memory(state) == ["concierge"]).then_some(())
    });
    let output = model(state, &["load", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("nearfar model list"),
        "{}",
        said(&output)
    );
}

#[test]
fn the_longest_unused_models_make_room() {
    // The least that may be configured: a few times concierge.
    let config = "[local]\nmemory_budget = \"64MiB\"\n";
    let daemon = Daemon::start(DaemonOptions::default().config(config));
    daemon.wait_ready();
    let state = daemon.state_dir();
    assert_eq!(json(state, &["ps"])["memory_budget"], 64 << 20);
    let file = root().join("models/concierge/concierge.gguf");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for name in names {
        json(state, &["add", file.to_str().unwrap(), "--name", name]);
        json(state, &["load", name]);
    }
    let there = daemon.until("the last one", || {
        let there = in_memory(state);
        there.contains(&"h".to_owned()).then_some(there)
    });
    assert!(there.len() < names.len(), "some made room: {there:?}");
}

#[test]
fn a_model_is_measured_without_a_daemon() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "concierge", "--threads", "1", "--rounds", "1"];
    let measured = json(home.path(), &args);
    assert_eq!(measured["threads"], 1);
    let limit = measured["decode_limit_tokens_per_s"].as_f64().unwrap();
    assert!(limit > 0.0);
    let results = measured["results"].as_array().unwrap();
    let has = |what: &str, tokens: u64| {
        results.iter().any(|cell| {
            let rate = cell["tokens_per_s"].as_f64().unwrap();
            cell["what"] == what && cell["tokens"] == tokens && rate > 0.0
        })
    };
    assert!(has("prefill", 32) && has("decode", 0), "{measured}");
    let output = model(home.path(), &["bench", "/nowhere.gguf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("not there"), "{}", said(&output));
}
