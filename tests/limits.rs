//! Limits and budgets from end to end: a crowd cannot overrun them, both sides'
//! figures agree to the token, they outlive a kill, and each dialect's clients
//! are told in their own words.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::support::billed::{self, Asked, Rig, reconcile, rig, sum};
use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Ending;
use super::support::{runtime, wire};

const CHAT: &str = "/v1/chat/completions";

/// A limit's counter by its name.
fn limit(rig: &Rig, name: &str) -> Value {
    let limits = rig.settled();
    let found = limits.into_iter().find(|limit| limit["limit"] == name);
    found.unwrap_or_else(|| panic!("no limit {name}"))
}

fn figure(limit: &Value, key: &str) -> u64 {
    limit[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} of {limit}"))
}

/// 200 clients at once, then one more until it is refused for good.
fn overrun(name: &str, figure_of: impl Fn(&billed::Sum) -> u64, per_token: u64) {
    let rig = rig("[limits]\nretries = 1\nretry_pause = \"1s\"\n\
         [[limit]]\nname = \"money\"\nfeature = \"money\"\nspend_micro_per_day = 9_000\n\
         [[limit]]\nname = \"tokens\"\nfeature = \"tokens\"\ntokens_per_day = 6_000\n");
    rig.faults(300, 6);
    let ask = |number| Asked::nth(number, 3);
    let crowd = rig.crowd(200, 400, name, ask);
    assert!(crowd.limited.into_inner() > 0, "nobody was refused");
    assert!(crowd.answered.into_inner() > 0, "nobody was answered");
    // What is left goes to one client after the other.
    let refused = (1_000..2_000).find_map(|number| {
        let (status, text) = ask(number).send(rig.daemon.address(), name).unwrap();
        (status == 429).then_some(text)
    });
    let refused = refused.expect("the limit never said no");
    let head = refused.to_ascii_lowercase();
    assert!(head.contains("insufficient_quota"), "{refused}");
    assert!(head.contains("\r\nretry-after: "), "{refused}");
    assert!(head.contains("\r\nx-should-retry: false"), "{refused}");

    let is = limit(&rig, name);
    let most = figure(&is, "most");
    let reserve = (0..2_000)
        .map(|number| ask(number).reserve())
        .max()
        .unwrap()
        * per_token;
    let bills = rig.double.bills();
    let told = figure_of(&sum(&bills, Ending::Told));
    let untold = figure_of(&sum(&bills, Ending::Untold));
    // By the provider's own count.
    assert!(
        told + untold <= most + reserve,
        "{told} + {untold} of {most}"
    );
    // Without prompts that turn out longer than reserved, not even by that.
    assert!(figure(&is, "used") <= most, "{is}");
    assert_eq!(figure(&is, "used") - figure(&is, "estimated"), told, "{is}");
    // And what there is can be used.
    assert!(figure(&is, "left") <= reserve, "{is}");
}

#[test]
fn two_hundred_clients_do_not_overrun_a_budget_of_money() {
    overrun("money", |sum| sum.micro, billed::COMPLETION_MICRO);
}

#[test]
fn two_hundred_clients_do_not_overrun_a_limit_of_tokens() {
    overrun("tokens", |sum| sum.tokens, 1);
}

#[test]
fn figures_agree_with_the_providers_count_to_the_token() {
    let requests = 360;
    let found = reconcile(40, requests);
    found.check(requests);
    // It was no fair-weather run.
    assert!(found.told.legs > 200, "{found:?}");
    assert!(found.untold.legs > 30, "{found:?}");
    assert!(found.refused.legs > 0, "{found:?}");
}

#[test]
fn budgets_outlive_a_kill() {
    let runtime = runtime();
    let double = runtime.block_on(super::support::double::Double::start());
    let limits = "[[limit]]\nname = \"day\"\ntenant = \"each\"\ntokens_per_day = 400\n\
                  [[limit]]\nname = \"month\"\nspend_micro_per_month = 100_000\n";
    let config = billed::config(&double, limits);
    let state = tempfile::tempdir().unwrap();
    let start = || {
        Daemon::start(DaemonOptions {
            state_dir: Some(state.path().to_owned()),
            ..DaemonOptions::default().config(&config)
        })
    };
    let counters = |daemon: &Daemon| -> Vec<Value> {
        let body: Value = serde_json::from_str(&daemon.control("/admin/v1/limits").1).unwrap();
        let limits = body["limits"].as_array().unwrap().iter();
        limits
            .filter(|limit| limit["used"] != 0)
            .map(|limit| {
                json!([
                    limit["limit"],
                    limit["of"],
                    limit["used"],
                    limit["estimated"]
                ])
            })
            .collect()
    };
    let asked = Asked {
        prompt: 30,
        completion: 20,
        max_tokens: 20,
        stream: false,
        cancel: false,
    };
    let daemon = start();
    daemon.wait_ready();
    for _ in 0..2 {
        let (status, text) = asked.send(daemon.address(), "f").unwrap();
        assert_eq!(status, 200, "{text}");
    }
    let before = counters(&daemon);
    let expected = [
        json!(["day", {"tenant": "default"}, 100, 0]),
        json!(["month", {}, 140, 0]),
    ];
    assert_eq!(before, expected);
    daemon.until("the figures on the disk", || {
        let ledger = nearfar::store::Ledger::open(state.path()).ok()?;
        let kept = ledger.limits().ok()?;
        let all = kept.iter().map(|one| one.used).sum::<u64>() == 240;
        (kept.len() == 2 && all).then_some(())
    });
    // Dropping it is SIGKILL.
    drop(daemon);
    let daemon = start();
    daemon.wait_ready();
    assert_eq!(counters(&daemon), expected);
    drop(double);
    drop(daemon);
}

/// A daemon with a dear and a cheap provider beside its own model.
fn two_providers(
    limits: &str,
) -> (
    Daemon,
    tokio::runtime::Runtime,
    Vec<super::support::double::Double>,
) {
    let runtime = runtime();
    let doubles: Vec<_> = (0..2)
        .map(|_| runtime.block_on(super::support::double::Double::start()))
        .collect();
    let provider = |name: &str, double: &super::support::double::Double, price: &str| {
        format!(
            "[providers.{name}]\nbase_url = \"{}\"\nopen_list = true\n\
             [[providers.{name}.models]]\nname = \"m\"\nauto = true\n{price}\n",
            double.openai_base()
        )
    };
    let config = format!(
        "{limits}\n{}{}",
        provider(
            "dear",
            &doubles[0],
            "price = { prompt = 50.0, completion = 100.0 }"
        ),
        provider(
            "cheap",
            &doubles[1],
            "price = { prompt = 1.0, completion = 2.0 }"
        ),
    );
    let daemon = Daemon::start(DaemonOptions::default().config(&config));
    daemon.wait_ready();
    (daemon, runtime, doubles)
}

fn ask(daemon: &Daemon, path: &str, headers: &[(&str, &str)], model: &str) -> wire::Reply {
    let body = json!({
        "model": model, "max_tokens": 20,
        "messages": [{"role": "user", "content": "bill 10 6 and more words for the prompt"}],
    });
    wire::post(daemon.address(), path, headers, &body.to_string())
}

/// The candidates of a decision by their targets.
fn candidate(explanation: &Value, target: &str) -> Value {
    let all = explanation["candidates"].as_array().unwrap();
    let found = all.iter().find(|one| one["target"] == target);
    found
        .unwrap_or_else(|| panic!("{target} in {explanation}"))
        .clone()
}

#[test]
fn a_limit_of_a_target_keeps_it_out_and_others_go_on() {
    let (daemon, _runtime, _doubles) = two_providers(
        "[[limit]]\nname = \"cheap month\"\ntarget = \"cheap/*\"\ntokens_per_month = 60\n\
         [[limit]]\nname = \"money\"\nfeature = \"paid\"\nspend_micro_per_day = 1_000_000\n",
    );
    let remote = [("x-nearfar-route", "remote")];
    let first = ask(&daemon, CHAT, &remote, "auto");
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.header("x-nearfar-target"), Some("cheap/m"));
    let second = ask(&daemon, CHAT, &remote, "auto");
    assert_eq!(
        second.header("x-nearfar-target"),
        Some("dear/m"),
        "{}",
        second.body
    );
    let explained = ask(&daemon, "/v1/route", &remote, "auto").json();
    let out = candidate(&explained, "cheap/m");
    let why = out["why"].as_str().unwrap();
    assert!(why.starts_with("over its budget until 20"), "{why}");
    assert!(why.contains("`cheap month`"), "{why}");
    // Named, it is refused in the limit's words.
    let named = ask(&daemon, CHAT, &[], "cheap/m");
    assert_eq!(named.status, 429, "{}", named.body);
    assert_eq!(named.json()["error"]["code"], "insufficient_quota");
    assert_eq!(named.header("x-ratelimit-limit-tokens"), Some("60"));
    assert_eq!(named.header("x-ratelimit-remaining-tokens"), Some("44"));
    // A price that nobody knows is not nothing: money keeps it out.
    let paid = [("x-nearfar-feature", "paid")];
    let unlisted = ask(&daemon, CHAT, &paid, "dear/another");
    assert_eq!(unlisted.status, 429, "{}", unlisted.body);
    let message = unlisted.json()["error"]["message"].to_string();
    assert!(message.contains("price"), "{message}");
    assert_eq!(ask(&daemon, CHAT, &[], "dear/another").status, 200);

    let (_, metrics) = daemon.get("/metrics");
    let refused =
        "nearfar_limit_refused_total{limit=\"cheap month\",measure=\"tokens_per_month\"} 1";
    assert!(metrics.contains(refused), "{metrics}");
}

#[test]
fn past_its_soft_share_a_budget_steers_to_what_is_cheaper() {
    // The deadline makes the providers the first choice.
    let (daemon, _runtime, doubles) = two_providers(
        "[[limit]]\nname = \"day\"\nspend_micro_per_day = 100_000_000\nsoft = 0.01\n",
    );
    let explained = ask(&daemon, "/v1/route", &[], "auto").json();
    assert!(
        candidate(&explained, "dear/m")["behind"].is_null(),
        "{explained}"
    );
    // A hundredth is used up by one long answer of the dear one.
    let body = json!({
        "model": "dear/m", "max_tokens": 12_000,
        "messages": [{"role": "user", "content": "bill 10 11000"}],
    });
    let reply = wire::post(daemon.address(), CHAT, &[], &body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.body);
    let explained = ask(&daemon, "/v1/route", &[], "auto").json();
    let dear = candidate(&explained, "dear/m");
    assert_eq!(dear["behind"]["limit"], "day", "{explained}");
    assert_eq!(
        candidate(&explained, "local/concierge")["rank"],
        0,
        "{explained}"
    );
    let remote = [("x-nearfar-route", "remote")];
    let explained = ask(&daemon, "/v1/route", &remote, "auto").json();
    assert_eq!(candidate(&explained, "cheap/m")["rank"], 0, "{explained}");
    assert_eq!(candidate(&explained, "dear/m")["rank"], 1, "{explained}");
    drop(doubles);
}

#[test]
fn rates_are_told_in_each_dialects_own_words() {
    let limits = "[[limit]]\nname = \"rate\"\nfeature = \"each\"\nrequests_per_minute = 1\n\
                  [[limit]]\nname = \"one\"\nfeature = \"slow\"\nconcurrent_requests = 1\n";
    let (daemon, _runtime, _doubles) = two_providers(limits);
    let feature = |name: &'static str| [("x-nearfar-feature", name)];
    let first = ask(&daemon, CHAT, &feature("a"), "cheap/m");
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.header("x-ratelimit-limit-requests"), Some("1"));
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("0"));
    assert!(first.header("x-ratelimit-reset-requests").is_some());
    let second = ask(&daemon, CHAT, &feature("a"), "cheap/m");
    assert_eq!(second.status, 429, "{}", second.body);
    assert_eq!(second.json()["error"]["code"], "rate_limit_exceeded");
    let message = second.json()["error"]["message"].to_string();
    assert!(
        message.contains("`rate`") && message.contains("feature a"),
        "{message}"
    );
    let wait: u64 = second.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(
        second.header("x-should-retry"),
        None,
        "clients wait and try again"
    );

    let anthropic = ask(&daemon, "/v1/messages", &feature("b"), "cheap/m");
    assert_eq!(anthropic.status, 200, "{}", anthropic.body);
    assert_eq!(
        anthropic.header("anthropic-ratelimit-requests-remaining"),
        Some("0")
    );
    let anthropic = ask(&daemon, "/v1/messages", &feature("b"), "cheap/m");
    assert_eq!(anthropic.status, 429);
    let body = anthropic.json();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert!(
        anthropic
            .header("anthropic-ratelimit-requests-reset")
            .is_some()
    );
    let ollama = ask(&daemon, "/api/chat", &feature("c"), "cheap/m");
    assert_eq!(ollama.status, 200, "{}", ollama.body);
    let ollama = ask(&daemon, "/api/chat", &feature("c"), "cheap/m");
    assert_eq!(ollama.status, 429);
    assert!(ollama.json()["error"].is_string(), "{}", ollama.body);

    // One at a time: the second is told so while the first is under way.
    let body = json!({"model": "cheap/m", "stream": true, "max_tokens": 3_000,
        "messages": [{"role": "user", "content": "bill 10 3000 slowly"}]});
    let to = daemon.address();
    let mut slow = wire::open(to, "POST", CHAT, &feature("slow"), &body.to_string()).unwrap();
    assert_eq!(slow.status, 200);
    assert!(!slow.more().is_empty());
    let (status, shown) = daemon.control("/admin/v1/limits");
    assert_eq!(status, 200);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let mut limits = shown["limits"].as_array().unwrap().iter();
    let one = limits.find(|limit| limit["limit"] == "one").unwrap();
    assert_eq!((&one["reserved"], &one["left"]), (&json!(1), &json!(0)));
    drop(slow);
    daemon.until("the place to be free", || {
        let (_, shown) = daemon.control("/admin/v1/limits");
        let shown: Value = serde_json::from_str(&shown).ok()?;
        let mut limits = shown["limits"].as_array()?.iter();
        limits
            .find(|limit| limit["limit"] == "one" && limit["reserved"] == 0)
            .map(drop)
    });
}

#[test]
fn an_answer_that_is_counted_has_a_bound() {
    let limits = "[limits]\nanswer_tokens = 9\n\
                  [[limit]]\nname = \"day\"\nfeature = \"counted\"\ntokens_per_day = 1_000_000\n";
    let (daemon, _runtime, doubles) = two_providers(limits);
    let body = json!({"model": "cheap/m",
        "messages": [{"role": "user", "content": "hello"}]})
    .to_string();
    let counted = [("x-nearfar-feature", "counted")];
    assert_eq!(
        wire::post(daemon.address(), CHAT, &counted, &body).status,
        200
    );
    assert_eq!(wire::post(daemon.address(), CHAT, &[], &body).status, 200);
    let seen: Vec<Value> = doubles[1]
        .requests()
        .iter()
        .map(|seen| seen.json())
        .collect();
    let bound = |request: &Value| {
        let keys = ["max_tokens", "max_completion_tokens"];
        keys.iter().find_map(|key| request[*key].as_u64())
    };
    assert_eq!(bound(&seen[0]), Some(9), "{seen:?}");
    assert_eq!(bound(&seen[1]), None, "{seen:?}");
}

/// Runs a verb against a daemon: what it printed.
fn nearfar(daemon: &Daemon, args: &[&str]) -> String {
    let dir = daemon.state_dir();
    let output = Command::new(env!("CARGO_BIN_EXE_nearfar"))
        .env_clear()
        .env("HOME", dir)
        .env("NEARFAR_STATE_DIR", dir)
        .env("NEARFAR_CONFIG", dir.join("none.toml"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_key_and_each_tenant_has_its_own() {
    let limits = "[tenants.acme]\n[tenants.clinic]\n\
                  [[limit]]\nname = \"per key\"\nkey = \"each\"\nrequests_per_minute = 1\n\
                  [[limit]]\nname = \"purse\"\ntenant = \"each\"\n\
                  spend_micro_per_month = 50_000_000\n";
    let (daemon, _runtime, _doubles) = two_providers(limits);
    let create = |name: &str, tenant: &str| -> String {
        let args = ["key", "create", name, "--tenant", tenant, "--json"];
        let made: Value = serde_json::from_str(&nearfar(&daemon, &args)).unwrap();
        format!("Bearer {}", made["token"].as_str().unwrap())
    };
    let (one, other) = (create("one", "acme"), create("other", "acme"));
    let third = create("third", "clinic");
    for (key, status) in [(&one, 200), (&one, 429), (&other, 200), (&third, 200)] {
        let reply = ask(&daemon, CHAT, &[("authorization", key.as_str())], "cheap/m");
        assert_eq!(reply.status, status, "{}", reply.body);
    }
    // Without a key there is no limit of keys.
    for _ in 0..2 {
        assert_eq!(ask(&daemon, CHAT, &[], "cheap/m").status, 200);
    }
    let shown: Value = serde_json::from_str(&nearfar(&daemon, &["limits", "--json"])).unwrap();
    let used = |tenant: &str| {
        let mut limits = shown["limits"].as_array().unwrap().iter();
        let of = limits.find(|limit| limit["limit"] == "purse" && limit["of"]["tenant"] == tenant);
        of.map(|limit| limit["used"].as_u64().unwrap())
    };
    // 10 tokens and 6 tokens at twice the price.
    assert_eq!(used("acme"), Some(44), "{shown}");
    assert_eq!(used("clinic"), Some(22), "{shown}");
    let table = nearfar(&daemon, &["limits"]);
    assert!(table.starts_with("LIMIT"), "{table}");
    assert!(
        table.contains("tenant acme") && table.contains("49.999956"),
        "{table}"
    );
}
