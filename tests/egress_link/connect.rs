//! Connections that cannot be made.

use std::time::Duration;

use nearfar_domain::events::FailureKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::rig::{Ask, Rig, failure, limits};

#[tokio::test]
async fn a_server_that_does_not_take_the_connection() {
    // A listener whose queue is full drops what comes.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    loop {
        let connecting = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(500), connecting).await {
            Ok(stream) => queued.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let mut rig = Rig::with(vec![("full", format!("http://{address}/v1"))]).await;
    let short = limits(200, 60_000, 60_000, 60_000);
    let events = rig.ask(Ask::hello("full").within(short)).await;
    let failed = failure(&events);
    assert_eq!(failed.kind, FailureKind::TimedOut, "{failed:?}");
    assert!(
        failed.message.contains("connected within 200 ms"),
        "{failed:?}"
    );
}

#[tokio::test]
async fn the_limit_for_connecting_holds_for_tls_too() {
    // Takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut rig = Rig::with(vec![("mute", format!("https://{address}/v1"))]).await;
    let short = limits(200, 60_000, 60_000, 60_000);
    let events = rig.ask(Ask::hello("mute").within(short)).await;
    let failed = failure(&events);
    assert_eq!(failed.kind, FailureKind::TimedOut, "{failed:?}");
    assert!(failed.message.contains("connected"), "{failed:?}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_never_sees_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, came) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        seen.send(bytes[..count].to_vec()).unwrap();
    });
    let mut rig = Rig::with(vec![("plain", format!("https://{address}/v1"))]).await;
    let events = rig.ask(Ask::hello("plain")).await;
    assert_eq!(
        failure(&events).kind,
        FailureKind::Unreachable,
        "{events:?}"
    );
    let bytes = came.await.unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains(super::rig::KEY));
}

#[tokio::test]
async fn a_base_url_that_is_none() {
    let mut rig = Rig::with(vec![("nonsense", "not a url".to_owned())]).await;
    let events = rig.ask(Ask::hello("nonsense")).await;
    assert_eq!(failure(&events).kind, FailureKind::Unreachable);
    assert!(failure(&events).message.contains("base_url"), "{events:?}");
}
