//! The guard from end to end: what the provider saw holds no identifier, what
//! the client got is whole; what is tagged stays on the device, what is blocked
//! goes nowhere.

use serde_json::{Value, json};

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::{Behaviour, Double, Fault};
use super::support::{runtime, wire};

const CHAT: &str = "/v1/chat/completions";
const REDACT: [(&str, &str); 1] = [("x-nearfar-privacy", "redact")];

const MAIL: &str = "ana@mail.example.org";
const CARD: &str = "4111 1111 1111 1111";
const PHONE: &str = "+44 7700 900123";

/// Everything that must not be seen by a provider.
fn hides(text: &str) -> bool {
    let flat = text.replace(' ', "");
    [MAIL, CARD, PHONE]
        .iter()
        .all(|secret| !flat.contains(&secret.replace(' ', "")))
}

struct Rig {
    near: Double,
    far: Double,
    daemon: Daemon,
    /// Runs the doubles; goes last.
    _runtime: tokio::runtime::Runtime,
}

/// A daemon with two providers that repeat what they are told.
fn rig(guard: &str) -> Rig {
    let runtime = runtime();
    let near = runtime.block_on(Double::start());
    let far = runtime.block_on(Double::start());
    near.always_repeats();
    far.always_repeats();
    let provider = |name: &str, double: &Double, zone: &str| {
        format!(
            "[providers.{name}]\nbase_url = \"{}\"\nzone = \"{zone}\"\n\
             [[providers.{name}.models]]\nname = \"m\"\ntools = true\nprefill = true\n",
            double.openai_base()
        )
    };
    let config = format!(
        "{guard}\n{}{}",
        provider("near", &near, "site"),
        provider("far", &far, "cloud")
    );
    let daemon = Daemon::start(DaemonOptions::default().config(&config));
    daemon.wait_ready();
    Rig {
        near,
        far,
        daemon,
        _runtime: runtime,
    }
}

impl Rig {
    fn ask(&self, headers: &[(&str, &str)], body: &Value) -> wire::Reply {
        wire::post(self.daemon.address(), CHAT, headers, &body.to_string())
    }

    /// All that both providers saw.
    fn seen(&self) -> String {
        let both = [&self.near, &self.far];
        let requests = both.into_iter().flat_map(|double| double.requests());
        requests
            .map(|seen| String::from_utf8_lossy(&seen.body).into_owned())
            .collect()
    }
}

fn said(model: &str, text: &str, stream: bool) -> Value {
    json!({
        "model": model,
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    })
}

/// The streamed text, the streamed arguments, and an error where there was one.
fn streamed(reply: &wire::Reply) -> (String, String, Option<Value>) {
    let (mut text, mut arguments, mut error) = (String::new(), String::new(), None);
    for line in reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        let Ok(chunk) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if !chunk["error"].is_null() {
            error = Some(chunk["error"].clone());
        }
        let delta = &chunk["choices"][0]["delta"];
        text += delta["content"].as_str().unwrap_or_default();
        let call = &delta["tool_calls"][0]["function"]["arguments"];
        arguments += call.as_str().unwrap_or_default();
    }
    (text, arguments, error)
}

#[test]
fn providers_see_placeholders_and_clients_what_they_said() {
    let rig = rig("");
    let text = format!("mail {MAIL}, card {CARD}, [EMAIL-1-abcdef], {MAIL} or {PHONE}\nthanks");
    let whole = rig.ask(&REDACT, &said("far/m", &text, false));
    assert_eq!(whole.status, 200, "{}", whole.body);
    assert_eq!(whole.json()["choices"][0]["message"]["content"], text);
    let stream = rig.ask(&REDACT, &said("far/m", &text, true));
    assert_eq!(streamed(&stream), (text.clone(), String::new(), None));
    assert!(stream.body.contains("[DONE]"));
    let seen = rig.seen();
    assert!(hides(&seen) && seen.contains("[EMAIL-1-"), "{seen}");
    // The control: without the tag it goes out as it is.
    rig.ask(&[], &said("far/m", &text, false));
    assert!(!hides(&rig.seen()));
}

#[test]
fn every_part_of_a_conversation_is_redacted_and_arguments_are_restored() {
    let rig = rig("");
    let ask = |stream: bool| {
        let body = json!({
            "model": "far/m",
            "stream": stream,
            "messages": [
                {"role": "system", "content": format!("The owner is {MAIL}.")},
                {"role": "user", "content": format!("Write to {MAIL}")},
                {"role": "assistant", "content": null, "tool_calls": [{
                    "id": "call_1", "type": "function",
                    "function": {"name": "send", "arguments": json!({"to": MAIL}).to_string()},
                }]},
                {"role": "tool", "tool_call_id": "call_1",
                 "content": format!("sent \"{PHONE}\" to {MAIL}")},
            ],
            "tools": [{"type": "function", "function": {
                "name": "send", "description": format!("Asks {MAIL}"),
                "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
            }}],
            "user": MAIL,
        });
        rig.ask(&REDACT, &body)
    };
    let expected = json!({"text": format!("sent \"{PHONE}\" to {MAIL}")});
    let whole = ask(false);
    assert_eq!(whole.status, 200, "{}", whole.body);
    let call = &whole.json()["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments = call["arguments"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(arguments).unwrap(), expected);
    let (_, arguments, error) = streamed(&ask(true));
    assert_eq!(error, None);
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), expected);
    let seen = rig.seen();
    assert!(hides(&seen), "{seen}");
}

#[test]
fn an_answer_that_breaks_off_inside_a_placeholder_goes_on_exactly() {
    let rig = rig("");
    let text = format!("please write to {MAIL} and then to {PHONE} today");
    // The role, then pieces of three bytes: the last whole one ends in `[PHONE`.
    let after = 1 + "please write to [EMAIL-1-abcdef] and then to [PHONE".len() / 3;
    rig.near.push(Behaviour::from(Fault::Cut {
        after,
        reset: false,
    }));
    let headers = [REDACT[0], ("x-nearfar-route", "remote")];
    let reply = rig.ask(&headers, &said("auto", &text, true));
    let (content, _, error) = streamed(&reply);
    assert_eq!(error, None, "{}", reply.body);
    assert_eq!(content, text, "{}", reply.body);
    let seen = rig.seen();
    assert!(hides(&seen), "{seen}");
    assert_eq!(
        rig.near.requests().len() + rig.far.requests().len(),
        2,
        "{seen}"
    );
}

#[test]
fn each_kind_meets_its_action() {
    let rig = rig(
        "[guard.kinds]\ncard = \"device\"\nemail = \"redact\"\nsecret = \"block\"\nphone = \"site\"",
    );
    let text = format!("pay with card {CARD}");
    let refused = rig.ask(&[], &said("far/m", &text, false));
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["error"]["code"], "privacy_ceiling");
    let mut near = said("auto", &text, false);
    near["max_tokens"] = json!(4);
    let answered = rig.ask(&[], &near);
    assert_eq!(
        answered.header("x-nearfar-zone"),
        Some("device"),
        "{}",
        answered.body
    );
    assert_eq!(rig.seen(), "", "nothing left the device");
    let text = format!("ring {PHONE}");
    assert_eq!(rig.ask(&[], &said("far/m", &text, false)).status, 503);
    assert_eq!(rig.ask(&[], &said("near/m", &text, false)).status, 200);
    assert_eq!(rig.far.requests().len(), 0);
    let text = format!("write to {MAIL}");
    let reply = rig.ask(&[], &said("far/m", &text, false));
    assert_eq!(reply.json()["choices"][0]["message"]["content"], text);
    let sent = String::from_utf8_lossy(&rig.far.requests()[0].body).into_owned();
    assert!(!sent.contains(MAIL) && sent.contains("[EMAIL-1-"), "{sent}");
    let blocked = rig.ask(&[], &said("auto", "key AKIAIOSFODNN7EXAMPLE", false));
    assert_eq!(
        (blocked.status, &blocked.json()["error"]["code"]),
        (400, &json!("guard_blocked"))
    );
    assert!(!blocked.body.contains("AKIA"), "{}", blocked.body);
    let metrics = rig.daemon.control("/metrics").1;
    assert!(metrics.contains("nearfar_guard_identifiers_total{kind=\"card\",action=\"device\"}"));
    for secret in [MAIL, CARD, PHONE, "AKIA"] {
        assert!(!rig.daemon.log().contains(secret), "content in the log");
    }
}

#[test]
fn patterns_models_and_sizes_are_kept() {
    let rig = rig("[guard]\nmodels = [\"far/*\"]\nmax_prompt = 200\n\
         [[guard.patterns]]\nname = \"project\"\ntext = \"Blue Heron\"\n\
         [[guard.patterns]]\nname = \"ticket\"\nregex = 'TCK-\\d{6}'\nin = \"answer\"\n");
    let code = |reply: &wire::Reply| reply.json()["error"]["code"].clone();
    let reply = rig.ask(&[], &said("far/m", "the blue heron files", false));
    assert_eq!((reply.status, code(&reply)), (400, json!("guard_blocked")));
    assert!(
        !reply.body.to_lowercase().contains("heron"),
        "{}",
        reply.body
    );
    let reply = rig.ask(&[], &said("near/m", "hello", false));
    assert_eq!(
        (reply.status, code(&reply)),
        (403, json!("model_not_allowed"))
    );
    let reply = rig.ask(&[], &said("far/m", &"long ".repeat(50), false));
    assert_eq!(
        (reply.status, code(&reply)),
        (413, json!("prompt_too_long"))
    );
    assert_eq!(rig.seen(), "");
    let reply = rig.ask(&[], &said("far/m", "see TCK-123456 now", false));
    assert_eq!((reply.status, code(&reply)), (400, json!("guard_blocked")));
    let reply = rig.ask(&[], &said("far/m", "see TCK-123456 now", true));
    let (text, _, error) = streamed(&reply);
    assert!(
        "see TCK-12345".starts_with(&text) && !text.is_empty(),
        "{text}"
    );
    assert_eq!(error.unwrap()["code"], "guard_blocked");
    assert!(!reply.body.contains("[DONE]") && !reply.body.contains("finish_reason\":\""));
    assert_eq!(rig.near.requests().len(), 0);
    let fine = rig.ask(&[], &said("auto", "hello there", false));
    assert_eq!(
        fine.header("x-nearfar-target"),
        Some("far/m"),
        "{}",
        fine.body
    );
}
