//! What an idle daemon weighs, how fast it is there, and how fast a client that
//! leaves frees the engine.
//!
//! ```sh
//! cargo bench --bench footprint            # a table
//! cargo bench --bench footprint -- --json
//! ```
//!
//! Time to `/healthz` and to a ready model counts from the start of `nearfar
//! serve`; memory is the resident set (pages shared between the processes count
//! once for each) and the proportional set (they count once). A cancellation
//! counts from the client's close until the gate has heard from the engine that
//! it runs nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nearfar::supervisor::Role;
use serde_json::{Value, json};
use support::daemon::{Daemon, DaemonOptions};
use support::wire;

const ROUNDS: usize = 20;

fn main() {
    let as_json = std::env::args().any(|argument| argument == "--json");
    let mut health = Vec::new();
    let mut ready = Vec::new();
    for _ in 0..ROUNDS {
        let (to_health, to_ready, _) = start();
        health.push(to_health);
        ready.push(to_ready);
    }
    let (_, _, daemon) = start();
    std::thread::sleep(Duration::from_secs(2));
    let mut memory = vec![("supervisor", memory_kib(daemon.pid()))];
    for role in Role::ALL {
        memory.push((role.name(), memory_kib(daemon.wait_for(role, None))));
    }
    let mut freed = Vec::new();
    for round in 0..ROUNDS {
        freed.push(cancel(&daemon, round % 2 == 0));
    }
    let spread = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        json!({"min": times[0], "median": times[times.len() / 2], "max": times[times.len() - 1]})
    };
    let small: u64 = memory
        .iter()
        .filter(|(name, _)| *name != "engine")
        .map(|(_, m)| m.0)
        .sum();
    let shared: u64 = memory
        .iter()
        .filter(|(name, _)| *name != "engine")
        .map(|(_, m)| m.1)
        .sum();
    let figures = json!({
        "start_to_healthz_ms": spread(&mut health),
        "start_to_ready_ms": spread(&mut ready),
        "close_to_idle_engine_ms": spread(&mut freed),
        "idle_kib": memory.iter().map(|(name, (rss, pss))| json!({"process": name, "rss": rss, "pss": pss})).collect::<Vec<_>>(),
        "idle_without_engine_kib": {"rss": small, "pss": shared},
    });
    if as_json {
        println!("{figures}");
    } else {
        println!("{}", serde_json::to_string_pretty(&figures).unwrap());
    }
}

/// Starts a daemon: milliseconds to `/healthz`, to a ready model, and itself.
fn start() -> (f64, f64, Daemon) {
    let begun = Instant::now();
    let daemon = Daemon::start(DaemonOptions::default());
    while daemon
        .try_get("/healthz")
        .is_none_or(|(status, _)| status != 200)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    let health = begun.elapsed();
    while daemon
        .try_get("/readyz")
        .is_none_or(|(status, _)| status != 200)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    (ms(health), ms(begun.elapsed()), daemon)
}

/// Resident and proportional set of a process, in KiB.
fn memory_kib(pid: u32) -> (u64, u64) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Rss:"), field("Pss:"))
}

/// Leaves in mid-answer: milliseconds until the engine runs nothing.
fn cancel(daemon: &Daemon, stream: bool) -> f64 {
    let body = json!({
        "model": "local/concierge",
        "stream": stream,
        "max_tokens": 900,
        "logit_bias": {"4087": -100, "4089": -100},
        "messages": [{"role": "user", "content": "hello"}],
    })
    .to_string();
    let path = "/v1/chat/completions";
    let closed;
    if stream {
        let mut open = wire::open(daemon.address(), "POST", path, &[], &body).unwrap();
        assert!(!open.more().is_empty());
        closed = Instant::now();
        drop(open);
    } else {
        let mut connection = TcpStream::connect(daemon.address()).unwrap();
        write!(
            connection,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        while running(daemon) == 0 {}
        closed = Instant::now();
        drop(connection);
    }
    while running(daemon) != 0 {}
    closed.elapsed().as_secs_f64() * 1e3
}

fn running(daemon: &Daemon) -> u64 {
    let (_, body) = daemon.try_get("/readyz").unwrap();
    let ready: Value = serde_json::from_str(&body).unwrap();
    ready["engine"]["running"].as_u64().unwrap()
}
