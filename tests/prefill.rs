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
