//! `POST /v1/prefill`: prompts that are computed before they are asked about.

use serde_json::{Value, json};

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::wire;

const PREFILL: &str = "/v1/prefill";
const CHAT: &str = "/v1/chat/completions";

const SYSTEM: &str = "You answer for the house. Wi-Fi: network Guest, password sunny42. \
                      Breakfast is from 7 to 10. The pool closes at 21.";

fn body(user: &str, pin: Option<bool>) -> String {
    let mut body = json!({
        "model": "local/concierge",
        "max_tokens": 4,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": user},
        ],
    });
    if let Some(pin) = pin {
        body["pin"] = json!(pin);
    }
    body.to_string()
}

fn tokens(daemon: &Daemon, body: &str) -> (u64, u64) {
    let (status, reply) = daemon.post(PREFILL, body);
    assert_eq!(status, 200, "{reply}");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert!(reply["took_ms"].as_f64().unwrap() >= 0.0);
    let count = |name: &str| reply[name].as_u64().unwrap();
    (count("cached_tokens"), count("computed_tokens"))
}

#[test]
fn a_prompt_is_computed_once() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let (cached, computed) = tokens(&daemon, &body("when is", Some(true)));
    assert!(cached == 0 && computed > 20, "{cached} {computed}");
    // The same again, and more of what the user said.
    let (again, rest) = tokens(&daemon, &body("when is", None));
    assert_eq!((again, rest), (computed, 0));
    let (cached, more) = tokens(&daemon, &body("when is breakfast", None));
    assert!(cached > 20 && more < computed, "{cached} {more}");
    // The answer finds it.
    let (status, reply) = daemon.post(CHAT, &body("when is breakfast", None));
    assert_eq!(status, 200, "{reply}");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let usage = &reply["usage"];
    let found = usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert_eq!(found + 1, usage["prompt_tokens"].as_u64().unwrap());
    daemon.stop();
}

#[test]
fn a_pinned_prompt_is_let_go_by_the_body_that_pinned_it() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let unpin = |user: &str| {
        let stream = wire::open(daemon.address(), "DELETE", PREFILL, &[], &body(user, None));
        let reply = stream.unwrap().finish();
        assert_eq!(reply.status, 200);
        reply.json()["unpinned"].as_bool().unwrap()
    };
    tokens(&daemon, &body("when is", Some(true)));
    assert!(!unpin("when"), "another prompt");
    assert!(unpin("when is"));
    assert!(!unpin("when is"), "it is pinned no longer");
    let (cached, rest) = tokens(&daemon, &body("when is", None));
    assert!(cached > 0 && rest == 0, "what was computed is still there");
    daemon.stop();
}

#[test]
fn it_stays_on_this_device_and_names_what_is_wrong() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    let far = [("x-nearfar-route", "far/big")];
    let reply = wire::post(daemon.address(), PREFILL, &far, &body("hi", None));
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["param"], "x-nearfar-route");
    let wrong = body("hi", None).replace("\"max_tokens\":4", "\"pin\":\"yes\"");
    let reply = wire::post(daemon.address(), PREFILL, &[], &wrong);
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (400, &json!("pin"))
    );
    // Whatever the side that is asked for.
    let remote = [("x-nearfar-route", "remote")];
    let reply = wire::post(daemon.address(), PREFILL, &remote, &body("hi", None));
    assert_eq!(reply.status, 200);
    daemon.stop();
}

/// A system prompt of some hundred tokens.
fn long(seed: u32) -> String {
    let words = ["pool", "towel", "lift", "garden", "guest", "key"];
    let word = |i: u32| {
        format!(
            "{} {}",
            words[(i * seed) as usize % words.len()],
            i * 7 + seed
        )
    };
    (0..60).map(word).collect::<Vec<_>>().join(". ")
}

fn pinned(seed: u32) -> String {
    json!({
        "model": "local/concierge",
        "pin": true,
        "messages": [{"role": "system", "content": long(seed)}],
    })
    .to_string()
}

fn turn(daemon: &Daemon, seed: u32) -> (u64, u64) {
    let body = json!({
        "model": "local/concierge",
        "max_tokens": 4,
        "messages": [
            {"role": "system", "content": long(seed)},
            {"role": "user", "content": "when is breakfast"},
        ],
    });
    let (status, reply) = daemon.post(CHAT, &body.to_string());
    assert_eq!(status, 200, "{reply}");
    let usage = serde_json::from_str::<Value>(&reply).unwrap()["usage"].clone();
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    (
        cached.as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap(),
    )
}

fn kept(state: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(state.join("models/pinned")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_pinned_prompt_outlives_a_restart_of_the_daemon() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let with = |config: &str| DaemonOptions {
        state_dir: Some(state.path().to_owned()),
        ..DaemonOptions::default().config(config)
    };
    let daemon = Daemon::start(with(""));
    daemon.wait_ready();
    let (_, prompt) = tokens(&daemon, &pinned(1));
    let (cached, _) = turn(&daemon, 1);
    assert!(prompt > 200 && cached >= prompt - 16, "{prompt} {cached}");
    let files = daemon.until("the file", || {
        let files = kept(state.path());
        let whole = files
            .iter()
            .all(|f| f.extension().is_some_and(|end| end == "kv"));
        (files.len() == 1 && whole).then_some(files)
    });
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let about = files[0].metadata().unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);

    let daemon = Daemon::start(with(""));
    daemon.wait_ready();
    assert_eq!(turn(&daemon, 1).0, cached, "as it was before the restart");
    // The engine alone dies: the same.
    daemon.kill(nearfar::supervisor::Role::Engine);
    daemon.wait_ready();
    assert_eq!(turn(&daemon, 1).0, cached);
    let (_, log) = daemon.stop();
    assert!(!log.contains("garden"), "no content in the log: {log}");

    // Damaged: computed again, with one line that says why.
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    let daemon = Daemon::start(with(""));
    daemon.wait_ready();
    assert_eq!(turn(&daemon, 1).0, 0);
    let (_, log) = daemon.stop();
    assert_eq!(log.matches("it is damaged").count(), 1, "{log}");
    assert_eq!(kept(state.path()).len(), 0);

    // Switched off: neither kept nor left.
    std::fs::write(state.path().join("models/pinned/embedded0-0.kv"), "old").unwrap();
    let daemon = Daemon::start(with("[local]\npinned_on_disk = \"0B\"\n"));
    daemon.wait_ready();
    tokens(&daemon, &pinned(1));
    daemon.stop();
    assert_eq!(kept(state.path()).len(), 0);
}

/// No file may grow past a limit that a pinned prompt would pass: as on a full
/// disk, the write fails in the middle.
#[test]
fn a_disk_without_room_costs_the_file_alone() {
    let state = tempfile::tempdir().unwrap();
    let limited = "trap '' XFSZ; ulimit -f 800; \"$@\"; exit $?";
    let daemon = Daemon::start(DaemonOptions {
        state_dir: Some(state.path().to_owned()),
        wrap: ["sh", "-c", limited, "sh"].map(str::to_owned).to_vec(),
        ..DaemonOptions::default()
    });
    daemon.wait_ready();
    let (_, prompt) = tokens(&daemon, &pinned(3));
    // What it would take: 3 KiB of keys and values per token. The limit is in
    // blocks of 512 or 1,024 bytes.
    assert!(prompt * 3 > 800, "{prompt}");
    daemon.wait_for_log("a pinned prompt is kept in memory alone");
    assert!(turn(&daemon, 3).0 > 200, "in memory it is there");
    assert_eq!(kept(state.path()).len(), 0, "nothing half-written stays");
    daemon.stop();
}
