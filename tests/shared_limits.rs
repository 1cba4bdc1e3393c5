//! Limits that two daemons share in a real Valkey or Redis: never overrun by more
//! than one request's reserve, and no answer waits for a server that is away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Double;
use super::support::runtime;
use super::support::servers::Valkey;

const ANSWER_TOKENS: u64 = 40;

struct Pair {
    double: Double,
    daemons: [Daemon; 2],
    _runtime: tokio::runtime::Runtime,
}

/// Two daemons with one budget of tokens per day.
fn pair(valkey: &Valkey, budget: u64, wait: &str) -> Pair {
    let runtime = runtime();
    let double = runtime.block_on(Double::start());
    double.always_repeats();
    let config = format!(
        "[shared]\nvalkey = \"{}\"\nwait = \"{wait}\"\n\
         [limits]\nanswer_tokens = {ANSWER_TOKENS}\n\
         [[limit]]\nname = \"day\"\ntokens_per_day = {budget}\n\
         [providers.p]\nbase_url = \"{}\"\nzone = \"site\"\n\
         [[providers.p.models]]\nname = \"m\"\n",
        valkey.url(),
        double.openai_base()
    );
    let daemons = [0, 1].map(|_| {
        let daemon = Daemon::start(DaemonOptions::default().config(&config));
        daemon.wait_ready();
        daemon
    });
    for daemon in &daemons {
        wait_up(daemon, true);
    }
    Pair {
        double,
        daemons,
        _runtime: runtime,
    }
}

fn wait_up(daemon: &Daemon, up: bool) {
    daemon.until("the shared limits", || {
        let (_, body) = daemon.control("/admin/v1/status");
        let status: Value = serde_json::from_str(&body).ok()?;
        (status["shared_limits"]["up"] == up).then_some(())
    });
}

/// Status, and the tokens that the answer says it took.
fn ask(daemon: &Daemon) -> (u16, u64) {
    let body = r#"{"model":"p/m","messages":[{"role":"user","content":"one two three"}]}"#;
    let (status, body) = daemon.post("/v1/chat/completions", body);
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    (
        status,
        answer["usage"]["total_tokens"].as_u64().unwrap_or(0),
    )
}

/// Tokens that both daemons' ledgers have.
fn ledgers(pair: &Pair) -> u64 {
    let of = |daemon: &Daemon| {
        let (_, body) = daemon.control("/admin/v1/usage?by=target");
        let usage: Value = serde_json::from_str(&body).unwrap();
        let lines = usage["lines"].as_array().unwrap().clone();
        let tokens = |line: &Value| {
            line["prompt_tokens"].as_u64().unwrap_or(0)
                + line["completion_tokens"].as_u64().unwrap_or(0)
        };
        lines.iter().map(tokens).sum::<u64>()
    };
    pair.daemons.iter().map(of).sum()
}

/// What the server has for the day's budget: used and held.
fn figures(valkey: &Valkey) -> (u64, u64) {
    let counter = "nearfar:{default}:c:tokens_per_day\u{1f}day\u{1f}";
    let figure = |field: &str| valkey.ask(&["HGET", counter, field]).parse().unwrap_or(0);
    (figure("u"), figure("h"))
}

#[test]
fn two_daemons_never_overrun_one_budget() {
    let valkey = Valkey::start();
    // A slow machine must not count as a server that is away.
    let budget = 2_000;
    let pair = pair(&valkey, budget, "60s");
    let taken = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (pair, taken, refused) = (&pair, &taken, &refused);
            scope.spawn(move || {
                for _ in 0..40 {
                    let (status, tokens) = ask(&pair.daemons[worker % 2]);
                    match status {
                        200 => taken.fetch_add(tokens, Ordering::Relaxed),
                        _ => refused.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    let one = ANSWER_TOKENS + 100;
    // Those that came together may have been kept out by what the others held:
    // one after the other they find the rest.
    pair.daemons[0].until("the budget to be used up", || {
        let (status, tokens) = ask(&pair.daemons[1]);
        match status {
            200 => taken.fetch_add(tokens, Ordering::Relaxed),
            _ => refused.fetch_add(1, Ordering::Relaxed),
        };
        let (used, held) = figures(&valkey);
        (held == 0 && used + one > budget).then_some(())
    });
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken <= budget + one, "{taken} of {budget}");
    assert!(
        taken + one > budget,
        "{taken} of {budget}: refused too soon"
    );
    assert_eq!(ledgers(&pair), taken);
    pair.daemons[0].until("all settled", || {
        (figures(&valkey) == (taken, 0)).then_some(())
    });
    assert!(!pair.double.requests().is_empty());
}

#[test]
fn a_server_that_is_killed_under_load_blocks_no_answer_and_loses_no_token() {
    let mut valkey = Valkey::start();
    let pair = pair(&valkey, 1_000_000_000, "20ms");
    let over = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for daemon in &pair.daemons {
            let (over, answered) = (&over, &answered);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let (status, _) = ask(daemon);
                    assert_eq!(status, 200, "{}", daemon.log());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more_answers = |what: &str| {
            let before = answered.load(Ordering::Relaxed);
            pair.daemons[0].until(what, || {
                (answered.load(Ordering::Relaxed) >= before + 30).then_some(())
            });
        };
        more_answers("answers while all is well");
        valkey.kill();
        more_answers("answers without the server");
        wait_up(&pair.daemons[0], false);
        valkey.start_again();
        more_answers("answers after it came back");
        pair.daemons.iter().for_each(|daemon| wait_up(daemon, true));
        valkey.freeze();
        more_answers("answers while the server hangs");
        valkey.kill();
        valkey.start_again();
        more_answers("answers at the end");
        over.store(true, Ordering::Relaxed);
    });
    let taken = ledgers(&pair);
    pair.daemons[0].until("the server to know every token", || {
        (figures(&valkey) == (taken, 0)).then_some(())
    });
}
