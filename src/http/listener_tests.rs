#![allow(clippy::unwrap_used)]
//! Limits over real sockets. Waits are bounded so that a fault fails instead
//! of hanging; nothing asserts how fast something is.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request as AxumRequest, State};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::http::body::Bodies;
use crate::http::front::Front;
use crate::http::hosts::Hosts;
use crate::http::problem::Problem;

const LONG: Duration = Duration::from_secs(20);

struct Running {
    addr: SocketAddr,
    drain: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        max_connections: 64,
        header_timeout: LONG,
        write_stall: LONG,
    }
}

fn start(router: Router, limits: ConnectionLimits) -> Running {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let socket = Socket::tcp(OwnedFd::from(listener)).unwrap();
    let front = Front::new(router, Hosts::new([]));
    let answer = move |request, local| Arc::clone(&front).answer(request, local);
    let (drain, draining) = watch::channel(false);
    let served = tokio::spawn(serve(socket, limits, answer, draining));
    Running {
        addr,
        drain,
        served,
    }
}

fn hello() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}

/// A route that reads its body as the API does.
fn length(max_bytes: usize, timeout: Duration) -> Router {
    let bodies = Bodies::new(max_bytes, timeout);
    let read = |State(bodies): State<Bodies>, request: AxumRequest| async move {
        let (parts, body) = request.into_parts();
        let whole = bodies.read(&parts.headers, body).await?;
        Ok::<_, Problem>(whole.len().to_string())
    };
    Router::new()
        .route("/length", post(read))
        .with_state(bodies)
}

async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.addr).await.unwrap()
}

/// Sends `text` and reads until the server closes.
async fn exchange(running: &Running, text: &str) -> String {
    let mut stream = connect(running).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut reply = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut reply));
    read.await.expect("the server closes").unwrap();
    String::from_utf8(reply).unwrap()
}

/// Reads until `wanted` has come.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut reply = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&reply).contains(wanted) {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "closed after {}", String::from_utf8_lossy(&reply));
            reply.extend_from_slice(&piece[..n]);
        }
    };
    tokio::time::timeout(LONG, reading).await.expect(wanted);
    String::from_utf8(reply).unwrap()
}

fn get_request(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n")
}

/// A body that is still on its way when its request is refused: the client
/// must know that this connection takes no other request.
#[tokio::test]
async fn a_reply_before_the_body_was_read_ends_the_connection() {
    let running = start(length(1 << 20, LONG), limits());
    let head = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: 5\r\n\r\n"
        )
    };
    let mut stream = connect(&running).await;
    stream.write_all(head("/nothing").as_bytes()).await.unwrap();
    let reply = rest(&mut stream).await;
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");

    // One that was read leaves the connection open.
    let mut stream = connect(&running).await;
    for _ in 0..2 {
        let whole = format!("{}12345", head("/length"));
        stream.write_all(whole.as_bytes()).await.unwrap();
        let reply = until(&mut stream, "\r\n\r\n5").await;
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        assert!(!reply.contains("connection: close"), "{reply}");
    }
}

#[tokio::test]
async fn every_reply_has_an_id_and_openais_shape() {
    let running = start(hello().merge(length(1 << 20, LONG)), limits());
    let reply = exchange(
        &running,
        &get_request("/hello", "X-Client-Request-Id: mine\r\n"),
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert!(reply.contains("x-request-id: req_"), "{reply}");
    assert!(!reply.contains("mine"));

    let reply = exchange(&running, &get_request("/v1/nothing", "")).await;
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
    assert!(reply.contains("\"code\":\"unknown_path\""), "{reply}");

    let reply = exchange(&running, &get_request("/length", "")).await;
    assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
    assert!(reply.contains("allow: POST"), "{reply}");
    assert!(reply.contains("\"error\":{\"message\""), "{reply}");
    assert!(reply.contains("x-request-id: req_"), "{reply}");

    let options = get_request("/length", "").replace("GET", "OPTIONS");
    let reply = exchange(&running, &options).await;
    assert!(reply.starts_with("HTTP/1.1 204 "), "{reply}");
    assert!(reply.contains("allow: POST"), "{reply}");
    assert!(!reply.contains("access-control"), "{reply}");

    let head = get_request("/hello", "").replace("GET", "HEAD");
    let reply = exchange(&running, &head).await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert!(reply.ends_with("\r\n\r\n"), "no body: {reply}");
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let running = start(hello(), limits());
    for (head, code) in [
        ("Host: evil.example\r\n", "host_not_allowed"),
        (
            "Host: localhost\r\nOrigin: http://evil.example\r\n",
            "origin_not_allowed",
        ),
        ("Host: localhost\r\nOrigin: null\r\n", "origin_not_allowed"),
        ("", "host_not_allowed"),
    ] {
        let text = format!("GET /hello HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        let reply = exchange(&running, &text).await;
        assert!(reply.starts_with("HTTP/1.1 403 "), "{head}: {reply}");
        assert!(reply.contains(code), "{reply}");
    }
}

#[tokio::test]
async fn a_unix_socket_needs_no_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let socket = Socket::unix(OwnedFd::from(listener)).unwrap();
    let front = Front::new(hello(), Hosts::new([]));
    let answer = move |request, local| Arc::clone(&front).answer(request, local);
    let (_drain, draining) = watch::channel(false);
    tokio::spawn(serve(socket, limits(), answer, draining));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let text = "GET /hello HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n";
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

#[tokio::test]
async fn slow_heads_are_cut_and_idle_connections_too() {
    let limits = ConnectionLimits {
        header_timeout: Duration::from_millis(200),
        ..limits()
    };
    let running = start(hello(), limits);
    let mut idle = connect(&running).await;
    let mut slow = connect(&running).await;
    slow.write_all(b"GET /hello HTTP/1.1\r\nHost: lo")
        .await
        .unwrap();
    let dripping = async {
        loop {
            // A drip must not extend the time.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if slow.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, dripping).await.expect("cut");
    assert!(!rest(&mut idle).await.contains("200"));
    let reply = exchange(&running, &get_request("/hello", "")).await;
    assert!(reply.ends_with("hello"), "others are served: {reply}");
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let running = start(hello(), limits());
    let huge = format!("X-Big: {}\r\n", "x".repeat(MAX_HEAD_BYTES * 2));
    let mut stream = connect(&running).await;
    // The server may close before it has read it all.
    let _ = stream
        .write_all(get_request("/hello", &huge).as_bytes())
        .await;
    let mut reply = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut reply));
    let _ = read.await.expect("the server closes");
    assert!(!String::from_utf8_lossy(&reply).contains("200 OK"));
}

#[tokio::test]
async fn an_announced_body_that_is_too_large_is_refused_unread() {
    let running = start(length(1000, LONG), limits());
    let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n";
    let mut stream = connect(&running).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let reply = until(&mut stream, "request_too_large").await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

#[tokio::test]
async fn a_client_that_sends_it_all_before_it_reads_learns_why() {
    let running = start(length(1000, LONG), limits());
    for framing in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let head = format!("POST /length HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        let mut stream = connect(&running).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 1_000_000];
        for _ in 0..100 {
            if framing.starts_with("Transfer") {
                stream.write_all(b"f4240\r\n").await.unwrap();
            }
            stream.write_all(&piece).await.unwrap();
            if framing.starts_with("Transfer") {
                stream.write_all(b"\r\n").await.unwrap();
            }
        }
        let reply = until(&mut stream, "request_too_large").await;
        assert!(reply.starts_with("HTTP/1.1 413 "), "{framing}: {reply}");
    }
}

#[tokio::test]
async fn who_asks_before_sending_gets_an_answer_before_sending() {
    let running = start(length(1000, LONG), limits());
    let head = |length: usize| {
        format!(
            "POST /length HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    let mut stream = connect(&running).await;
    stream.write_all(head(5).as_bytes()).await.unwrap();
    until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"12345").await.unwrap();
    assert!(rest(&mut stream).await.ends_with('5'));

    let reply = exchange(&running, &head(5_000)).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

#[tokio::test]
async fn a_body_that_drips_is_cut() {
    let running = start(length(1000, Duration::from_millis(200)), limits());
    let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n";
    let mut stream = connect(&running).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut reply = vec![0; 4096];
    let n = tokio::time::timeout(LONG, reader.read(&mut reply)).await;
    let n = n.expect("an answer").unwrap();
    let reply = String::from_utf8_lossy(&reply[..n]).into_owned();
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    dripping.abort();
}

#[tokio::test]
async fn further_connections_wait_for_a_place() {
    let held = Arc::new(Notify::new());
    let inside = Arc::new(AtomicUsize::new(0));
    let (hold, count) = (Arc::clone(&held), Arc::clone(&inside));
    let wait = move || {
        let (hold, count) = (Arc::clone(&hold), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            hold.notified().await;
            "done"
        }
    };
    let limits = ConnectionLimits {
        max_connections: 2,
        ..limits()
    };
    let running = start(Router::new().route("/wait", get(wait)), limits);
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&running).await;
        let request = get_request("/wait", "");
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for round in 0..5 {
        // Two are inside, or as many as there are left.
        let expected = (round + 2).min(5);
        while inside.load(Ordering::SeqCst) < expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(inside.load(Ordering::SeqCst), expected);
        held.notify_one();
        let mut reply = String::new();
        streams.remove(0).read_to_string(&mut reply).await.unwrap();
        assert!(reply.ends_with("done"), "{reply}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_500() {
    let panics = || async {
        if true {
            panic!("on purpose");
        }
    };
    let running = start(hello().route("/panic", get(panics)), limits());
    let reply = exchange(&running, &get_request("/panic", "")).await;
    assert!(reply.starts_with("HTTP/1.1 500 "), "{reply}");
    assert!(!reply.contains("on purpose"));
    let reply = exchange(&running, &get_request("/hello", "")).await;
    assert!(reply.ends_with("hello"), "{reply}");
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_end() {
    let inside = Arc::new(Notify::new());
    let held = Arc::new(Notify::new());
    let (hold, came) = (Arc::clone(&held), Arc::clone(&inside));
    let wait = move || {
        let (hold, came) = (Arc::clone(&hold), Arc::clone(&came));
        async move {
            came.notify_one();
            hold.notified().await;
            "done"
        }
    };
    let running = start(Router::new().route("/wait", get(wait)), limits());
    let mut idle = connect(&running).await;
    let mut stream = connect(&running).await;
    let request = "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    inside.notified().await;
    running.drain.send(true).unwrap();
    assert_eq!(rest(&mut idle).await, "", "idle connections close");
    held.notify_one();
    let reply = rest(&mut stream).await;
    assert!(reply.ends_with("done"), "{reply}");
    let ended = tokio::time::timeout(LONG, running.served).await;
    ended.expect("the listener ends").unwrap();
    assert!(TcpStream::connect(running.addr).await.is_err());
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let dropped = Arc::new(Notify::new());
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let tell = Arc::clone(&dropped);
    let flood = move || {
        let tell = Tell(Arc::clone(&tell));
        async move {
            let piece = bytes::Bytes::from(vec![b'x'; 1 << 20]);
            let stream = futures_util::stream::repeat_with(move || {
                let _ = &tell;
                Ok::<_, Infallible>(piece.clone())
            });
            Body::from_stream(stream)
        }
    };
    let limits = ConnectionLimits {
        write_stall: Duration::from_millis(300),
        ..limits()
    };
    let running = start(Router::new().route("/flood", get(flood)), limits);
    let mut stream = connect(&running).await;
    stream
        .write_all(get_request("/flood", "").as_bytes())
        .await
        .unwrap();
    tokio::time::timeout(LONG, dropped.notified())
        .await
        .expect("cut");
}
