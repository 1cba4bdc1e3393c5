#![allow(clippy::unwrap_used)]
//! Answers over real sockets: headers, disconnects and keep-alives.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use nearfar_domain::events::{Failure, FailureKind, FinishReason, Usage};
use nearfar_domain::explain::Reason;
use nearfar_domain::ids::{DecisionId, TargetId};
use nearfar_domain::privacy::{Ceiling, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::*;
use crate::http::front::Front;
use crate::http::hosts::Hosts;
use crate::http::listener::{ConnectionLimits, Socket, serve};
use crate::http::openai::forms::{Kind, OpenaiForm};

const LONG: Duration = Duration::from_secs(20);

/// Events that a test hands out, and word of when they were dropped.
struct Script {
    events: mpsc::Receiver<Event>,
    _dropped: oneshot::Sender<()>,
}

impl Stream for Script {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(cx)
    }
}

fn script() -> (Answer, mpsc::Sender<Event>, oneshot::Receiver<()>) {
    let (send, events) = mpsc::channel(8);
    let (on_drop, dropped) = oneshot::channel();
    let answer = Answer {
        quotas: Vec::new(),
        decision: DecisionId(0xabc),
        target: TargetId::local("concierge"),
        zone: Zone::Device,
        reason: Reason::Near,
        ceiling: Ceiling::OPEN,
        attempt: 2,
        cache: None,
        bill: crate::account::Bill::default(),
        events: Box::pin(Script {
            events,
            _dropped: on_drop,
        }),
    };
    (answer, send, dropped)
}

fn chat() -> OpenaiForm {
    OpenaiForm {
        kind: Kind::Chat,
        include_usage: false,
    }
}

/// Serves one answer and sends it a request.
async fn serve_one(answer: Answer, stream: bool) -> (TcpStream, watch::Sender<bool>) {
    let answer = Arc::new(Mutex::new(Some(answer)));
    let handler = move || {
        let answer = answer.lock().unwrap().take().unwrap();
        let form = Box::new(chat());
        reply(answer, Wish { form, stream })
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let socket = Socket::tcp(OwnedFd::from(listener)).unwrap();
    let front = Front::new(Router::new().route("/x", post(handler)), Hosts::new([]));
    let limits = ConnectionLimits {
        max_connections: 8,
        header_timeout: LONG,
        write_stall: LONG,
    };
    let (drain, draining) = watch::channel(false);
    let answer = move |request, local| Arc::clone(&front).answer(request, local);
    tokio::spawn(serve(socket, limits, answer, draining));
    let mut client = TcpStream::connect(addr).await.unwrap();
    let request = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    client.write_all(request.as_bytes()).await.unwrap();
    (client, drain)
}

async fn until(client: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(wanted) {
            let mut piece = [0; 4096];
            let n = client.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "closed after {text}");
            text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
        }
    };
    tokio::time::timeout(LONG, reading).await.expect(wanted);
    text
}

fn finished() -> Event {
    Event::Finished {
        reason: FinishReason::Stop,
        usage: Usage::default(),
    }
}

#[tokio::test]
async fn a_stream_has_its_headers_and_its_first_chunk_at_once() {
    let (answer, events, dropped) = script();
    let (mut client, _drain) = serve_one(answer, true).await;
    events.send(Event::Content("Hel".into())).await.unwrap();
    let text = until(&mut client, "Hel").await;
    for header in [
        "HTTP/1.1 200 OK\r\n",
        "content-type: text/event-stream\r\n",
        "cache-control: no-cache\r\n",
        "x-accel-buffering: no\r\n",
        "x-nearfar-decision: dec_00000000000000000000000000000abc\r\n",
        "x-nearfar-target: local/concierge\r\n",
        "x-nearfar-zone: device\r\n",
        "x-nearfar-reason: near\r\n",
        "x-nearfar-attempt: 2\r\n",
        "x-request-id: req_",
    ] {
        assert!(text.contains(header), "{header} in {text}");
    }
    events.send(finished()).await.unwrap();
    let text = until(&mut client, "\r\n0\r\n\r\n").await;
    assert!(text.contains("data: [DONE]\n\n"), "{text}");
    // The events are dropped as soon as the last one came.
    assert!(dropped.await.is_err());
}

#[tokio::test]
async fn a_stream_that_fails_or_breaks_off_has_no_done() {
    for failure in [
        Some(Failure::new(FailureKind::Crashed, "The engine went away.")),
        None,
    ] {
        let (answer, events, _dropped) = script();
        let (mut client, _drain) = serve_one(answer, true).await;
        events.send(Event::Content("Half".into())).await.unwrap();
        if let Some(failure) = failure {
            events.send(Event::Failed(failure)).await.unwrap();
        }
        drop(events);
        let text = until(&mut client, "\r\n0\r\n\r\n").await;
        assert!(text.contains("data: {\"error\":{\"message\":"), "{text}");
        assert!(!text.contains("[DONE]"), "{text}");
        assert!(!text.contains("\"finish_reason\":\""), "{text}");
    }
}

#[tokio::test]
async fn a_whole_answer_that_fails_is_an_error_with_its_leg() {
    let (answer, events, _dropped) = script();
    let (mut client, _drain) = serve_one(answer, false).await;
    events.send(Event::Content("Half".into())).await.unwrap();
    let failure = Failure::new(FailureKind::TimedOut, "Too slow.");
    events.send(Event::Failed(failure)).await.unwrap();
    let text = until(&mut client, "Too slow.").await;
    assert!(text.starts_with("HTTP/1.1 504 "), "{text}");
    assert!(text.contains("x-nearfar-target: local/concierge"), "{text}");
    assert!(!text.contains("Half"), "{text}");
}

#[tokio::test]
async fn hanging_up_drops_the_events_though_the_leg_is_silent() {
    for stream in [true, false] {
        let (answer, events, dropped) = script();
        let (mut client, _drain) = serve_one(answer, stream).await;
        events.send(Event::Content("Hel".into())).await.unwrap();
        if stream {
            until(&mut client, "Hel").await;
        }
        // The leg says nothing more, and the client goes.
        drop(client);
        let gone = tokio::time::timeout(LONG, dropped).await;
        assert!(gone.expect("dropped").is_err(), "stream: {stream}");
        drop(events);
    }
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    use futures_util::StreamExt;
    let (answer, events, _dropped) = script();
    let chunks = Box::new(chat()).chunks(About::of(&answer));
    let quiet = Duration::from_millis(30);
    let body = super::stream(answer.events, chunks, quiet).into_body();
    let mut body = body.into_data_stream();
    events.send(Event::Content("Hel".into())).await.unwrap();
    let first = body.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: {"));
    for _ in 0..2 {
        assert_eq!(body.next().await.unwrap().unwrap(), ": keep-alive\n\n");
    }
    events.send(finished()).await.unwrap();
    let last = body.next().await.unwrap().unwrap();
    assert!(last.ends_with(b"data: [DONE]\n\n"));
    assert!(body.next().await.is_none());
}
