#![allow(clippy::unwrap_used)]
//! The routes over a real gate that has neither an engine nor egress.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use crate::app;
use crate::config::{Config, Overrides};
use crate::handover::{Handed, ListenerKind, Role, SandboxReport, Setup};

struct Daemon {
    dir: tempfile::TempDir,
    addr: std::net::SocketAddr,
    handed: mpsc::Sender<Handed>,
    run: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn daemon() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let control = std::os::unix::net::UnixListener::bind(dir.path().join("control")).unwrap();
    let data = std::os::unix::net::UnixListener::bind(dir.path().join("data")).unwrap();
    let overrides = Overrides {
        listen: vec![addr],
        state_dir: dir.path().to_owned(),
        env_providers: Vec::new(),
    };
    let config = Config::parse("", None, &overrides).map_err(|errors| errors.to_string());
    let config = config.unwrap();
    let setup = Setup {
        role: Role::Gate,
        config_text: String::new(),
        prices_text: String::new(),
        config_path: None,
        listen: vec![addr],
        state_dir: dir.path().to_owned(),
        env_providers: Vec::new(),
        sandbox: vec![SandboxReport {
            role: Role::Gate,
            seccomp: true,
            landlock_abi: Some(4),
            missing: Vec::new(),
        }],
        started_ms: 1,
    };
    let (handed, receiver) = mpsc::channel(8);
    let run = tokio::spawn(app::run(setup, config, receiver, || {}));
    for (kind, fd) in [
        (ListenerKind::Tcp, OwnedFd::from(tcp)),
        (ListenerKind::Unix, OwnedFd::from(data)),
        (ListenerKind::Control, OwnedFd::from(control)),
    ] {
        handed.send(Handed::Listener(kind, fd)).await.unwrap();
    }
    Daemon {
        dir,
        addr,
        handed,
        run,
    }
}

impl Daemon {
    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn tcp(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        exchange(stream, method, path, body).await
    }

    async fn control(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let stream = UnixStream::connect(self.socket("control")).await.unwrap();
        exchange(stream, method, path, body).await
    }
}

/// Status, head and body of one exchange.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_without_an_engine() {
    let daemon = daemon().await;

    let (status, _, body) = daemon.tcp("GET", "/healthz", "").await;
    assert_eq!((status, json(&body)["status"].as_str()), (200, Some("ok")));

    let (status, _, body) = daemon.tcp("GET", "/readyz", "").await;
    let parts = json(&body);
    assert_eq!(status, 503, "{body}");
    assert_eq!(parts["ready"], false);
    assert_eq!(parts["gate"]["state"], "up");
    assert_eq!(parts["engine"]["state"], "starting");
    assert_eq!(parts["egress"]["state"], "starting");
    assert_eq!(parts["sandbox"][0]["landlock_abi"], 4);

    let (status, _, body) = daemon.tcp("GET", "/v1/models", "").await;
    assert_eq!(status, 200);
    let models = json(&body);
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "auto");
    for model in models["data"].as_array().unwrap() {
        let path = format!("/v1/models/{}", model["id"].as_str().unwrap());
        let (status, _, body) = daemon.tcp("GET", &path, "").await;
        assert_eq!((status, &json(&body)["id"]), (200, &model["id"]));
    }
    let (status, _, body) = daemon
        .tcp("GET", "/v1/models/some/model/with/slashes", "")
        .await;
    assert_eq!(status, 404);
    assert_eq!(json(&body)["error"]["code"], "model_not_found");

    let (status, _, body) = daemon.tcp("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(body.contains("nearfar_engine_up 0"), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_explained_and_nothing_is_run() {
    let daemon = daemon().await;
    let body = r#"{"prompt": "hello", "nearfar": {"privacy": "devise"}}"#;
    let (status, _, body) = daemon.tcp("POST", "/v1/route", body).await;
    assert_eq!(status, 200, "{body}");
    let shown = json(&body);
    assert!(shown["decision"].as_str().unwrap().starts_with("dec_"));
    assert_eq!(shown["ceiling"]["zone"], "device");
    assert_eq!(shown["ceiling"]["source"], "unknown_tag");
    assert!(["go", "refuse"].contains(&shown["verdict"].as_str().unwrap()));
    assert!(shown["candidates"].is_array());
    let (_, _, usage) = daemon.control("GET", "/admin/v1/usage", "").await;
    assert_eq!(
        json(&usage)["lines"],
        serde_json::json!([]),
        "not accounted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_the_field_and_unknown_models_the_mend() {
    let daemon = daemon().await;
    let chat = "/v1/chat/completions";
    for (path, body, status, param) in [
        (chat, "{}", 400, "messages"),
        (chat, "{\"messages\":", 400, ""),
        (
            chat,
            r#"{"messages":[{"role":"user","content":"x"}],"n":3}"#,
            400,
            "n",
        ),
        (
            chat,
            r#"{"model":"nobody/x","messages":[{"role":"user","content":"x"}]}"#,
            404,
            "model",
        ),
        ("/v1/completions", r#"{"prompt": 1}"#, 400, "prompt"),
        ("/v1/route", r#"{"prompt": 1}"#, 400, "prompt"),
    ] {
        let (found, head, reply) = daemon.tcp("POST", path, body).await;
        assert_eq!(found, status, "{path} {body}: {reply}");
        assert!(head.contains("x-request-id: req_"), "{head}");
        let error = &json(&reply)["error"];
        assert_eq!(error["param"].as_str().unwrap_or(""), param, "{reply}");
        assert!(error["message"].as_str().unwrap().ends_with('.'), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_machine_readable_and_says_why() {
    let daemon = daemon().await;
    // The one local model cannot see.
    let body = r#"{"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]}"#;
    let (status, head, reply) = daemon.tcp("POST", "/v1/chat/completions", body).await;
    let reply = json(&reply);
    assert_eq!(status, 503, "{reply}");
    assert_eq!(reply["nearfar"]["verdict"], "refuse");
    assert!(reply["error"]["code"].is_string());
    assert!(head.contains("x-nearfar-decision: dec_"), "{head}");
    assert!(head.contains("x-nearfar-reason: "), "{head}");
    let (_, _, usage) = daemon
        .control("GET", "/admin/v1/usage?by=outcome", "")
        .await;
    // The ledger writes behind the answer.
    let mut usage = usage;
    for _ in 0..200 {
        if json(&usage)["lines"][0]["refused"] == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        usage = daemon
            .control("GET", "/admin/v1/usage?by=outcome", "")
            .await
            .2;
    }
    panic!("{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_is_on_the_control_socket_alone() {
    let daemon = daemon().await;
    for path in ["/admin/v1/status", "/admin/v1/usage", "/admin/v1/models"] {
        let (status, _, _) = daemon.tcp("GET", path, "").await;
        assert_eq!(status, 404, "{path}");
        let data = UnixStream::connect(daemon.socket("data")).await.unwrap();
        assert_eq!(exchange(data, "GET", path, "").await.0, 404, "{path}");
        let (status, _, body) = daemon.control("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (status, _, body) = daemon.control("GET", "/admin/v1/status", "").await;
    assert_eq!((status, &json(&body)["started_ms"]), (200, &Value::from(1)));
    let (status, _, _) = daemon.control("GET", "/v1/models", "").await;
    assert_eq!(status, 200, "the data API too");
    let (status, _, body) = daemon.control("POST", "/admin/v1/models/rescan", "").await;
    assert_eq!(status, 200);
    assert!(json(&body)["models"].is_number(), "{body}");
    let (status, _, body) = daemon.control("DELETE", "/admin/v1/models/none", "").await;
    assert_eq!(status, 404, "{body}");
    let (status, _, body) = daemon
        .control("DELETE", "/admin/v1/models/concierge", "")
        .await;
    assert_eq!(status, 409, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_not_fetched_without_egress_and_the_last_line_says_so() {
    let daemon = daemon().await;
    let (status, _, body) = daemon
        .control("POST", "/admin/v1/models", "{\"hf\":1}")
        .await;
    assert_eq!(status, 400, "{body}");
    let body = r#"{"hf": "nonsense"}"#;
    let (status, _, body) = daemon.control("POST", "/admin/v1/models", body).await;
    assert!((400..500).contains(&status), "{status} {body}");
    let body = r#"{"hf": "owner/repo/file.gguf"}"#;
    let (status, head, body) = daemon.control("POST", "/admin/v1/models", body).await;
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("application/x-ndjson"), "{head}");
    assert!(body.contains("{\"event\":\"failed\","), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_the_gate() {
    let daemon = daemon().await;
    let (status, _, _) = daemon.tcp("GET", "/healthz", "").await;
    assert_eq!(status, 200);
    let within = std::time::Duration::from_secs(20);
    daemon.handed.send(Handed::Drain { within }).await.unwrap();
    let ended = tokio::time::timeout(within, daemon.run).await;
    ended.expect("in time").unwrap().unwrap();
}

#[tokio::test]
async fn errors_have_the_shape_of_their_dialect() {
    let daemon = daemon().await;
    let (status, head, reply) = daemon.tcp("POST", "/v1/messages/none", "{}").await;
    assert_eq!(status, 404, "{reply}");
    let told = json(&reply);
    assert_eq!(told["error"]["type"], "not_found_error");
    let id = told["request_id"].as_str().unwrap();
    assert!(head.contains(&format!("\r\nrequest-id: {id}")), "{head}");
    let (status, _, reply) = daemon.tcp("GET", "/api/none", "").await;
    assert_eq!(status, 404);
    assert!(json(&reply)["error"].is_string(), "{reply}");
    let (status, _, reply) = daemon.tcp("GET", "/v1/none", "").await;
    assert_eq!(status, 404);
    assert_eq!(json(&reply)["error"]["code"], "unknown_path");
}

#[tokio::test(flavor = "multi_thread")]
async fn ollamas_paths_answer_without_an_engine() {
    let daemon = daemon().await;

    for path in ["/", "/api/version", "/api/tags", "/api/ps"] {
        let (status, _, body) = daemon.tcp("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        let (status, head, body) = daemon.tcp("HEAD", path, "").await;
        assert_eq!((status, body.as_str()), (200, ""), "{path}: {head}");
    }
    let (_, _, body) = daemon.tcp("GET", "/api/version", "").await;
    assert_eq!(json(&body)["nearfar"], env!("CARGO_PKG_VERSION"));
    let (_, _, body) = daemon.tcp("GET", "/api/tags", "").await;
    let models = json(&body)["models"].as_array().unwrap().clone();
    assert_eq!(models.last().unwrap()["model"], "auto");
    for model in &models {
        let asked = serde_json::json!({"model": model["model"]}).to_string();
        let (status, _, body) = daemon.tcp("POST", "/api/show", &asked).await;
        assert_eq!(status, 200, "{asked}: {body}");
        assert!(json(&body)["capabilities"].is_array());
    }

    for (method, path, words) in [
        ("POST", "/api/pull", "nearfar model add"),
        ("POST", "/api/create", "nearfar model add"),
        ("POST", "/api/copy", "--name"),
        ("DELETE", "/api/delete", "nearfar model rm"),
        ("POST", "/api/push", "publishes no models"),
        ("HEAD", "/api/blobs/sha256:00", ""),
    ] {
        let (status, _, body) = daemon.tcp(method, path, "{}").await;
        assert_eq!(status, 501, "{path}");
        assert!(body.contains(words), "{path}: {body}");
    }
    let none = r#"{"model": "no-such-model", "messages": []}"#;
    for body in [
        none,
        &none.replace("[]", r#"[{"role": "user", "content": "x"}]"#),
    ] {
        let (status, _, body) = daemon.tcp("POST", "/api/chat", body).await;
        assert_eq!(status, 404);
        let error = json(&body)["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("model not found"), "{error}");
    }
    // What should be loaded is not, and that is told.
    if models.len() > 1 {
        let (status, _, body) = daemon.tcp("POST", "/api/generate", "{}").await;
        assert_eq!(status, 503, "{body}");
        let drop = r#"{"keep_alive": 0}"#;
        let (status, _, body) = daemon.tcp("POST", "/api/generate", drop).await;
        assert_eq!(
            (status, json(&body)["done_reason"].as_str()),
            (200, Some("unload"))
        );
    }
    let (status, _, body) = daemon.tcp("GET", "/api/nonsense", "").await;
    assert_eq!(
        (status, json(&body)["code"].as_str()),
        (404, Some("unknown_path"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_are_not_kept_are_not_found() {
    let daemon = daemon().await;
    for (method, path) in [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
    ] {
        let (status, _, body) = daemon.tcp(method, path, "").await;
        let code = json(&body)["error"]["code"].clone();
        assert_eq!(
            (status, code.as_str()),
            (404, Some("response_not_found")),
            "{path}"
        );
    }
    let asked = r#"{"input": "x", "previous_response_id": "resp_1"}"#;
    let (status, _, body) = daemon.tcp("POST", "/v1/responses", asked).await;
    let error = &json(&body)["error"];
    assert_eq!(
        (status, error["code"].as_str()),
        (400, Some("previous_response_not_found"))
    );
    assert_eq!(error["param"], "previous_response_id");
}
