//! Virtual keys from end to end: who is let in at each front, what a key may
//! use, and that it ends here: no provider, log or file ever has it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::{Answer, Double};
use super::support::{root, runtime, wire};

const CHAT: &str = "/v1/chat/completions";
/// The provider's own key, which is not the client's.
const PROVIDERS_KEY: &str = "sk-of-the-provider";

/// Runs a verb against a state directory: exit code, output, errors.
fn nearfar(state_dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nearfar"))
        .env_clear()
        .env("HOME", state_dir)
        .env("NEARFAR_STATE_DIR", state_dir)
        // Names a file that is not read, so that this machine's own is not.
        .env("NEARFAR_CONFIG", state_dir.join("none.toml"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn told(state_dir: &Path, args: &[&str]) -> Value {
    let (code, out, err) = nearfar(state_dir, args);
    assert_eq!(code, 0, "{args:?}\n{out}{err}");
    serde_json::from_str(&out).unwrap()
}

/// Makes a key: its id and its token.
fn create(state_dir: &Path, args: &[&str]) -> (String, String) {
    let made = told(state_dir, &[&["key", "create"], args, &["--json"]].concat());
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    (word(&made["key"]["id"]), word(&made["token"]))
}

struct Rig {
    far: Double,
    daemon: Daemon,
    /// Runs the double; goes last.
    _runtime: tokio::runtime::Runtime,
}

/// A daemon with a provider, two tenants and what `more` says.
fn rig(more: &str) -> Rig {
    let runtime = runtime();
    let far = runtime.block_on(Double::start());
    far.require_key(PROVIDERS_KEY);
    far.always(Answer::text("from afar"));
    let config = format!(
        "{more}\n[tenants.acme]\nname = \"Acme\"\ntier = \"gold\"\n\
         [tenants.clinic]\nprivacy = \"device\"\n\
         [providers.far]\nbase_url = \"{}\"\nkey_env = \"FAR_KEY\"\n\
         [[providers.far.models]]\nname = \"m\"\ntools = true\n",
        far.openai_base()
    );
    let options = DaemonOptions::default().config(&config);
    let daemon = Daemon::start(options.env("FAR_KEY", PROVIDERS_KEY));
    daemon.wait_ready();
    Rig {
        far,
        daemon,
        _runtime: runtime,
    }
}

impl Rig {
    fn dir(&self) -> &Path {
        self.daemon.state_dir()
    }

    fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> wire::Reply {
        let opened = wire::open(self.daemon.address(), method, path, headers, body);
        opened.unwrap().finish()
    }

    /// A short question to a model, with a key.
    fn ask(&self, token: &str, model: &str) -> wire::Reply {
        let bearer = format!("Bearer {token}");
        self.call(
            "POST",
            CHAT,
            &[("authorization", &bearer)],
            &question(model),
        )
    }
}

fn question(model: &str) -> String {
    json!({
        "model": model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "when is breakfast"}],
    })
    .to_string()
}

#[test]
fn where_keys_are_needed_every_front_asks_for_one_in_its_own_way() {
    let rig = rig("[access]\nrequire_key = true\n");
    let (_, token) = create(rig.dir(), &["kiosk"]);
    let chat = question("local/concierge");
    for (method, path, body) in [
        ("POST", CHAT, chat.as_str()),
        ("POST", "/v1/completions", "{}"),
        ("POST", "/v1/embeddings", "{}"),
        ("POST", "/v1/responses", "{}"),
        ("GET", "/v1/responses/resp_1", ""),
        ("DELETE", "/v1/responses/resp_1", ""),
        ("POST", "/v1/responses/resp_1/cancel", ""),
        ("GET", "/v1/responses/resp_1/input_items", ""),
        ("POST", "/v1/prefill", "{}"),
        ("POST", "/v1/route", "{}"),
        ("GET", "/v1/models", ""),
        ("GET", "/v1/models/local/concierge", ""),
        ("POST", "/v1/messages", chat.as_str()),
        ("POST", "/v1/messages/count_tokens", "{}"),
        ("POST", "/api/chat", "{}"),
        ("POST", "/api/generate", "{}"),
        ("POST", "/api/embed", "{}"),
        ("POST", "/api/embeddings", "{}"),
        ("POST", "/api/show", "{}"),
        ("GET", "/api/tags", ""),
        ("GET", "/api/ps", ""),
        ("GET", "/metrics", ""),
    ] {
        for wrong in [
            &[][..],
            &[("authorization", "Bearer unused")],
            &[(
                "x-api-key",
                "nf_000000000000_00000000000000000000000000000000",
            )],
        ] {
            let reply = rig.call(method, path, wrong, body);
            assert_eq!(reply.status, 401, "{method} {path}: {}", reply.body);
            assert!(!reply.body.contains("00000000"), "{}", reply.body);
            assert!(reply.body.contains("nearfar key create"), "{}", reply.body);
            let (error, shape) = (reply.json(), path.split('/').nth(1));
            if path.starts_with("/v1/messages") {
                assert_eq!(error["error"]["type"], "authentication_error", "{error}");
            } else if shape == Some("api") {
                assert!(error["error"].is_string(), "{error}");
            } else {
                let code = error["error"]["code"].as_str().unwrap();
                assert!(code.ends_with("_api_key"), "{error}");
                assert!(error["error"]["param"].is_string(), "{error}");
            }
        }
        for place in ["authorization", "x-api-key", "api-key"] {
            let value = match place {
                "authorization" => format!("Bearer {token}"),
                _ => token.clone(),
            };
            let reply = rig.call(method, path, &[(place, &value)], body);
            assert_ne!(reply.status, 401, "{place} {path}: {}", reply.body);
        }
    }
    // What tells nothing is open.
    for path in ["/", "/api/version", "/healthz"] {
        assert_eq!(rig.call("GET", path, &[], "").status, 200, "{path}");
    }
    let ready = rig.call("GET", "/readyz", &[], "");
    assert_eq!(ready.json(), json!({"ready": true}));
    let ready = rig.call("GET", "/readyz", &[("x-api-key", &token)], "");
    assert_eq!(ready.json()["engine"]["state"], "up");
    // The control socket is the owner's.
    assert_eq!(rig.daemon.control("/v1/models").0, 200);
    let (_, metrics) = rig.daemon.control("/metrics");
    for why in ["missing", "unknown"] {
        let series = format!("nearfar_denied_requests_total{{why=\"{why}\"}}");
        assert!(metrics.contains(&series), "{metrics}");
    }
}

#[test]
fn without_that_placeholders_go_on_working_and_keys_of_ours_are_checked() {
    let rig = rig("");
    for placeholder in ["unused", "sk-proj-placeholder", "ollama"] {
        let reply = rig.ask(placeholder, "far/m");
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let unknown = rig.ask("nf_000000000000_00000000000000000000000000000000", "far/m");
    assert_eq!(unknown.status, 401);
    assert_eq!(unknown.json()["error"]["code"], "invalid_api_key");
}

#[test]
fn a_key_uses_what_its_scope_has_and_no_more() {
    let rig = rig("");
    let dir = rig.dir();
    let (_, near) = create(dir, &["near", "--targets", "local/*"]);
    let (_, device) = create(dir, &["device", "--zones", "device"]);
    let (_, clinic) = create(dir, &["clinic", "--tenant", "clinic"]);
    let (_, far) = create(dir, &["far", "--targets", "far/*"]);

    let refused = rig.ask(&near, "far/m");
    assert_eq!(refused.status, 403, "{}", refused.body);
    let error = refused.json();
    assert_eq!(error["error"]["code"], "key_scope");
    assert_eq!(error["error"]["param"], "model");
    assert_eq!(error["error"]["type"], "permission_error");
    let x_api_key = [("x-api-key", near.as_str())];
    let refused = rig.call("POST", "/v1/messages", &x_api_key, &question("far/m"));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json()["error"]["type"], "permission_error");
    let bearer = format!("Bearer {near}");
    let ollama = [("authorization", bearer.as_str())];
    let refused = rig.call("POST", "/api/chat", &ollama, &question("far/m"));
    assert_eq!(refused.status, 403);
    assert!(refused.json()["error"].is_string());
    // The tenant's ceiling is a privacy ceiling; a key's zones are a scope.
    assert_eq!(rig.ask(&device, "far/m").status, 403);
    let refused = rig.ask(&clinic, "far/m");
    assert_eq!(refused.json()["error"]["code"], "privacy_ceiling");
    assert_eq!(rig.far.requests().len(), 0, "nothing left the device");

    let listed = |token: &str| {
        let reply = rig.call("GET", "/v1/models", &[("x-api-key", token)], "");
        let list = reply.json()["data"].as_array().unwrap().clone();
        let mut ids: Vec<String> = list
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(listed(&near), ["auto", "local/concierge"]);
    assert_eq!(listed(&far), ["auto", "far/m"]);
    let tags = rig.call("GET", "/api/tags", &[("x-api-key", &far)], "");
    assert!(!tags.body.contains("concierge"), "{}", tags.body);
    let load = json!({"model": "concierge"}).to_string();
    let refused = rig.call("POST", "/api/generate", &[("x-api-key", &far)], &load);
    assert_eq!(refused.status, 403, "{}", refused.body);

    assert_eq!(rig.ask(&far, "auto").status, 200);
    assert_eq!(
        rig.far.requests().len(),
        1,
        "auto goes where the key may go"
    );
    let explained = rig.call(
        "POST",
        "/v1/route",
        &[("x-api-key", &far)],
        &question("auto"),
    );
    let explained = explained.json();
    let out = explained["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .find(|candidate| candidate["target"] == "local/concierge")
        .unwrap();
    assert_eq!(out["exclusion"], "out_of_scope", "{explained}");
    assert_eq!(out["why"], "the request's key or tenant may not use it");
    let confined = rig.call(
        "POST",
        "/v1/route",
        &[("x-api-key", &device)],
        &question("auto"),
    );
    let ceiling = confined.json()["ceiling"].clone();
    assert_eq!(ceiling, json!({"zone": "device", "source": "key"}));

    let (_, anthropic) = create(dir, &["claude", "--fronts", "anthropic"]);
    let shown = [("x-api-key", anthropic.as_str())];
    let messages = rig.call("POST", "/v1/messages", &shown, &question("far/m"));
    assert_eq!(messages.status, 200, "{}", messages.body);
    let refused = rig.call("POST", CHAT, &shown, &question("far/m"));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json()["error"]["code"], "front_not_allowed");

    let features = ["kiosk", "--features", "voice,search"];
    let (_, kiosk) = create(dir, &features);
    let with = |feature: &str| {
        let headers = [
            ("x-api-key", kiosk.as_str()),
            ("x-nearfar-feature", feature),
        ];
        rig.call("POST", CHAT, &headers, &question("far/m"))
    };
    assert_eq!(with("voice").status, 200);
    let refused = with("billing").json();
    assert_eq!(refused["error"]["code"], "feature_not_allowed");
    assert_eq!(refused["error"]["param"], "x-nearfar-feature");
}

#[test]
fn a_key_is_accounted_rotated_and_revoked_without_a_restart() {
    let rig = rig("[access]\nrequire_key = true\n");
    let dir = rig.dir().to_owned();
    let (id, first) = create(&dir, &["app", "--tenant", "acme", "--feature", "chat"]);
    for _ in 0..2 {
        assert_eq!(rig.ask(&first, "far/m").status, 200);
    }
    let usage = told(&dir, &["usage", "--by", "tenant,key,feature", "--json"]);
    let line = &usage["lines"][0];
    assert_eq!(
        line["group"],
        json!({"tenant": "acme", "key": id, "feature": "chat"})
    );
    assert_eq!(line["requests"], 2);
    let (code, out, _) = nearfar(&dir, &["usage", "--by", "tenant"]);
    assert!(code == 0 && out.contains("acme"), "{out}");

    let rotated = told(&dir, &["key", "rotate", "app", "--json"]);
    let second = rotated["token"].as_str().unwrap().to_owned();
    assert_eq!(rotated["key"]["id"], id.as_str());
    for token in [&first, &second] {
        assert_eq!(
            rig.ask(token, "far/m").status,
            200,
            "both are good for a while"
        );
    }
    let again = told(&dir, &["key", "rotate", "app", "--grace", "0s", "--json"]);
    let third = again["token"].as_str().unwrap().to_owned();
    assert_eq!(rig.ask(&first, "far/m").status, 401);
    assert_eq!(
        rig.ask(&second, "far/m").json()["error"]["code"],
        "expired_api_key"
    );
    assert_eq!(rig.ask(&third, "far/m").status, 200);

    let shown = told(&dir, &["key", "show", "app", "--json"]);
    assert_eq!(shown["key"]["state"], "active");
    assert!(shown["key"]["last_used_ms"].is_i64(), "{shown}");
    let (code, out, _) = nearfar(&dir, &["key", "list"]);
    assert!(
        code == 0 && out.contains("acme") && out.contains(&id),
        "{out}"
    );
    let (code, out, err) = nearfar(&dir, &["key", "revoke", &id]);
    assert_eq!((code, out.contains(&id)), (0, true), "{err}");
    let url = rig.daemon.url("");
    let over_tcp = |key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearfar"));
        command
            .env_clear()
            .env("HOME", &dir)
            .env("NEARFAR_KEY", key);
        let args = ["chat", "--once", "hi", "--model", "far/m", "--url", &url];
        command.args(args).stdin(Stdio::null()).output().unwrap()
    };
    let refused = over_tcp(&third);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("revoked"), "{said}");
    let (_, other) = create(&dir, &["cli"]);
    assert!(over_tcp(&other).status.success());
    assert_eq!(nearfar(&dir, &["key", "revoke", "cli"]).0, 0);
    let refused = rig.ask(&third, "far/m");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["error"]["code"], "revoked_api_key");
    let left = told(&dir, &["key", "list", "--json"]);
    assert_eq!(left["keys"], json!([]));

    for (args, words) in [
        (&["key", "revoke", "nobody"][..], "no such key"),
        (
            &["key", "create", "x", "--tenant", "nobody"],
            "[tenants.nobody]",
        ),
        (&["key", "create", "x", "--targets", "gpt"], "local/*"),
        (&["key", "create", "x", "--expires-in", "soon"], "90d"),
    ] {
        let (code, _, err) = nearfar(&dir, args);
        assert!(code != 0 && err.contains(words), "{args:?}: {err}");
    }

    // The client's key went nowhere.
    let asked = rig.far.requests();
    assert_eq!(asked.len(), 6);
    for seen in &asked {
        assert_eq!(
            seen.header("authorization"),
            Some("Bearer sk-of-the-provider")
        );
    }
    let saw = format!(
        "{:?}",
        asked.iter().map(|seen| &seen.headers).collect::<Vec<_>>()
    );
    let log = rig.daemon.log();
    drop(rig);
    for token in [&first, &second, &third] {
        let secret = token.rsplit('_').next().unwrap();
        assert!(!saw.contains(secret) && !log.contains(secret));
    }
}

#[test]
fn no_file_of_the_state_directory_has_a_token() {
    let dir = tempfile::Builder::new().prefix("nf").tempdir().unwrap();
    let state = dir.path().join("state");
    let (id, token) = create(&state, &["kiosk"]);
    let options = DaemonOptions {
        state_dir: Some(state.clone()),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(options);
    let headers = [("x-api-key", token.as_str())];
    let made = wire::open(daemon.address(), "GET", "/v1/models", &headers, "");
    assert_eq!(
        made.unwrap().finish().status,
        200,
        "made before the daemon ran"
    );
    let (status, _) = daemon.stop();
    assert!(status.success());
    let secret = token.rsplit('_').next().unwrap().as_bytes();
    let mut files = 0;
    for entry in std::fs::read_dir(&state).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            let found = bytes.windows(secret.len()).any(|part| part == secret);
            assert!(!found, "{}", entry.path().display());
            files += 1;
        }
    }
    assert!(files >= 2, "keys and ledger are among them");
    let shown = told(&state, &["key", "show", &id, "--json"]);
    assert!(
        shown["key"]["last_used_ms"].is_i64(),
        "written at the stop: {shown}"
    );
}

#[test]
fn other_machines_are_served_only_where_there_is_a_key() {
    let dir = tempfile::Builder::new().prefix("nf").tempdir().unwrap();
    let state = dir.path().join("state");
    let everywhere = || DaemonOptions {
        state_dir: Some(state.clone()),
        listen: vec!["0.0.0.0:0".to_owned()],
        ..DaemonOptions::default()
    };
    let said = Daemon::try_start(everywhere()).err().unwrap();
    assert!(said.contains("nearfar key create"), "{said}");
    let open = everywhere().config("[access]\nrequire_key = false\n");
    let said = Daemon::try_start(open).err().unwrap();
    assert!(said.contains("callers need keys"), "{said}");

    let (_, token) = create(&state, &["lan"]);
    let daemon = Daemon::start(everywhere());
    let ask = |headers: &[(&str, &str)]| {
        let opened = wire::open(daemon.address(), "GET", "/v1/models", headers, "");
        opened.unwrap().finish()
    };
    assert_eq!(ask(&[]).status, 401);
    let reply = ask(&[("x-api-key", &token)]);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let page = [
        ("x-api-key", token.as_str()),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(ask(&page).status, 403, "pages stay out");
    // With the daemon running, the same verbs go through it.
    let (code, _, err) = nearfar(&state, &["key", "revoke", "lan"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(ask(&[("x-api-key", &token)]).status, 401);
}

#[test]
fn real_sdks_tell_wrong_keys_from_small_ones() {
    let Some(python) = std::env::var_os("NEARFAR_TEST_PYTHON") else {
        println!("SKIPPED: no SDKs; scripts/test sets NEARFAR_TEST_PYTHON");
        return;
    };
    let rig = rig("[access]\nrequire_key = true\n");
    let dir = rig.dir();
    let (_, good) = create(dir, &["good", "--tenant", "acme"]);
    let (_, near) = create(dir, &["near", "--targets", "local/*"]);
    let (id, gone) = create(dir, &["gone"]);
    assert_eq!(rig.ask(&gone, "far/m").status, 200);
    assert_eq!(nearfar(dir, &["key", "revoke", &id]).0, 0);
    let script = root().join("tests/sdk/keys_sdk.py");
    let output = Command::new(python)
        .arg(script)
        .args([&rig.daemon.url(""), &good, &near, &gone])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.trim_end().ends_with(" passed"), "{said}\n{errors}");
    let usage = told(dir, &["usage", "--by", "tenant", "--json"]);
    let lines = usage["lines"].as_array().unwrap();
    let acme = lines.iter().find(|line| line["group"]["tenant"] == "acme");
    assert_eq!(acme.unwrap()["ok"], 3, "{usage}");
}
