//! Nothing of a confined request leaves: a thousand of them with keys present,
//! impossible deadlines and the engine killed half-way. The provider sees no
//! connection, and the kernel no inet socket of the gate or the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use nearfar::supervisor::Role;
use serde_json::json;

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Double;
use super::support::wire;

const REQUESTS: usize = 1000;
const CLIENTS: usize = 4;

/// Every way to confine a request: a header, or a field of the body.
const WAYS: [(&str, &str); 4] = [
    ("x-nearfar-privacy", "device"),
    ("x-nearfar-privacy", "devise"),
    ("x-nearfar-route", "local"),
    ("", ""),
];

fn body(model: &str, confined: bool) -> String {
    let mut body = json!({
        "model": model,
        "max_tokens": 4,
        "messages": [{"role": "user", "content": "hello"}],
    });
    if confined {
        body["nearfar"] = json!({"privacy": "device"});
    }
    body.to_string()
}

/// What may come back: an answer of this device, or a refusal with its reason.
fn check(reply: &wire::Reply, model: &str) -> &'static str {
    match reply.status {
        200 => {
            assert_eq!(reply.header("x-nearfar-zone"), Some("device"), "{model}");
            "answered"
        }
        503 | 429 => {
            let error = &reply.json()["error"];
            let code = error["code"].as_str().unwrap_or_default();
            assert!(!code.is_empty() && error["message"].is_string(), "{error}");
            if model.starts_with("openai/") {
                assert_eq!(code, "privacy_ceiling", "{error}");
            }
            "refused"
        }
        other => panic!("{model}: {other}: {}", reply.body),
    }
}

fn send_all(daemon: &Daemon) -> BTreeMap<&'static str, usize> {
    let next = AtomicUsize::new(0);
    let outcomes: Vec<&'static str> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= REQUESTS {
                            return seen;
                        }
                        if number == REQUESTS / 2 {
                            daemon.kill(Role::Engine);
                        }
                        seen.push(send(daemon, number));
                    }
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_insert(0) += 1;
    }
    counts
}

fn send(daemon: &Daemon, number: usize) -> &'static str {
    let model = [
        "auto",
        "local/concierge",
        "auto",
        "openai/gpt-4o-mini",
        "auto",
    ][number % 5];
    let (name, value) = WAYS[number % WAYS.len()];
    let mut headers = vec![];
    if !name.is_empty() {
        headers.push((name, value));
    }
    if number.is_multiple_of(2) {
        headers.push(("x-nearfar-ttft-ms", "0.001"));
        headers.push(("x-nearfar-deadline-ms", "0.001"));
    }
    let body = body(model, name.is_empty());
    let reply = wire::post(daemon.address(), "/v1/chat/completions", &headers, &body);
    check(&reply, model)
}

/// System calls of each role by an strace that followed all processes.
struct Calls {
    /// (role, the call as strace wrote it)
    calls: Vec<(String, String)>,
}

impl Calls {
    fn read(trace: &str) -> Self {
        let mut role_of: BTreeMap<u32, String> = BTreeMap::new();
        let mut calls = Vec::new();
        for line in trace.lines() {
            let Some((pid, call)) = line.split_once(' ') else {
                continue;
            };
            let Ok(pid) = pid.parse::<u32>() else {
                continue;
            };
            let call = call.trim_start();
            let role = role_of
                .entry(pid)
                .or_insert_with(|| "supervisor".into())
                .clone();
            if call.starts_with("execve(") {
                let role = ["gate", "engine", "egress"]
                    .iter()
                    .find(|role| call.contains(&format!("\"{role}\"")));
                role_of.insert(pid, role.map_or("supervisor", |role| *role).to_owned());
            }
            let makes = ["clone", "fork", "vfork"]
                .iter()
                .any(|name| call.starts_with(name) || call.starts_with(&format!("<... {name}")));
            if makes
                && let Some((_, child)) = call.rsplit_once("= ")
                && let Ok(child) = child.split(' ').next().unwrap_or_default().parse::<u32>()
            {
                // The child may have spoken first; a role of its own stays.
                let inherited = role_of
                    .get(&child)
                    .is_none_or(|known| known == "supervisor");
                if inherited {
                    role_of.insert(child, role.clone());
                }
            }
            calls.push((pid, call.to_owned()));
        }
        let named = |pid: u32| role_of.get(&pid).cloned().unwrap_or_default();
        Self {
            calls: calls
                .into_iter()
                .map(|(pid, call)| (named(pid), call))
                .collect(),
        }
    }

    fn inet(&self, role: &str) -> Vec<&str> {
        self.calls
            .iter()
            .filter(|(of, call)| of == role && call.contains("AF_INET"))
            .filter(|(_, call)| call.starts_with("socket(") || call.starts_with("connect("))
            .map(|(_, call)| call.as_str())
            .collect()
    }

    fn roles(&self) -> BTreeSet<&str> {
        self.calls.iter().map(|(role, _)| role.as_str()).collect()
    }
}

fn has_strace() -> bool {
    std::process::Command::new("strace")
        .args(["-f", "-e", "trace=socket", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn nothing_of_a_thousand_confined_requests_leaves() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start());
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let traced = has_strace();
    let mut options = DaemonOptions::default()
        .env("OPENAI_API_KEY", "sk-present")
        .env("OPENAI_BASE_URL", &double.openai_base())
        .env("ANTHROPIC_API_KEY", "sk-present")
        .env("ANTHROPIC_BASE_URL", &double.anthropic_base());
    if traced {
        let trace = trace.to_str().unwrap();
        let calls = "trace=execve,clone,clone3,fork,vfork,socket,connect";
        options.wrap = [
            "strace",
            "-f",
            "-qq",
            "-s",
            "128",
            "-e",
            calls,
            "-e",
            "signal=none",
            "-o",
            trace,
        ]
        .map(str::to_owned)
        .to_vec();
    } else {
        println!("SKIPPED in part: strace does not work here; only the provider is watched");
    }
    let daemon = Daemon::start(options);
    daemon.wait_ready();

    let counts = send_all(&daemon);
    println!("{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), REQUESTS);
    // Four fifths name a local model or none: an engine that was gone for a
    // moment costs a few of them at most.
    assert!(counts["answered"] > REQUESTS / 2, "{counts:?}");
    assert!(counts["refused"] >= REQUESTS / 5, "{counts:?}");
    assert_eq!(
        double.connections().len(),
        0,
        "the provider saw a connection"
    );

    // The control: the same eyes see a request that may leave.
    let reply = wire::post(
        daemon.address(),
        "/v1/chat/completions",
        &[],
        &body("openai/gpt-4o-mini", false),
    );
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("x-nearfar-zone"), Some("cloud"));
    assert_eq!(double.connections().len(), 1, "the control was seen");

    if traced {
        let (_, log) = daemon.stop();
        let calls = Calls::read(&std::fs::read_to_string(&trace).unwrap());
        assert!(
            calls
                .roles()
                .is_superset(&BTreeSet::from(["gate", "engine", "egress"])),
            "{log}"
        );
        for role in ["gate", "engine"] {
            let inet = calls.inet(role);
            assert!(inet.is_empty(), "{role} touched the network: {inet:?}");
        }
        assert!(
            !calls.inet("egress").is_empty(),
            "the control was not traced"
        );
    }
}
