//! The links against a scripted peer that plays the frames over a real socket.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use nearfar_domain::chat::{Chat, Message, Role};
use nearfar_domain::events::{Event, FailureKind, FinishReason, Usage};
use nearfar_domain::frames::{
    self, EngineJob, FromEngine, ModelSource, Timings, ToEngine, VERSION, encode,
};
use nearfar_domain::ids::JobId;
use nearfar_domain::privacy::{Classified, Confined, Say, Source, Zone, classify};

use super::queue::{MAX_WAITING_BYTES, Pushed, Queue};
use super::*;

/// An engine that does what the test tells it.
struct Peer {
    stream: UnixStream,
    reader: frames::Reader,
}

impl Peer {
    fn say(&mut self, message: &FromEngine) {
        self.stream.write_all(&encode(message).unwrap()).unwrap();
    }

    fn event(&mut self, job: JobId, event: Event) {
        self.say(&FromEngine::Event { job, event });
    }

    fn hear(&mut self) -> ToEngine {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.reader.next_message().unwrap() {
                return message;
            }
            let read = self.stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the gate closed the link");
            self.reader.push(&chunk[..read]);
        }
    }

    fn hear_run(&mut self) -> JobId {
        match self.hear() {
            ToEngine::Run(job) => job.job,
            _ => panic!("expected a job"),
        }
    }
}

/// Runs the peer's script on a thread, beside the runtime.
async fn play<T: Send + 'static>(
    mut peer: Peer,
    script: impl FnOnce(&mut Peer) -> T + Send + 'static,
) -> (Peer, T) {
    let played = tokio::task::spawn_blocking(move || {
        let result = script(&mut peer);
        (peer, result)
    });
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, played)
        .await
        .unwrap()
        .unwrap()
}

fn socket_to(link: &EngineLink) -> Peer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    link.connect(ours);
    Peer {
        stream: theirs,
        reader: frames::Reader::default(),
    }
}

async fn linked(link: &EngineLink) -> Peer {
    let mut peer = socket_to(link);
    peer.say(&FromEngine::Hello {
        version: VERSION,
        pid: 7,
    });
    link.newer_than(0).await.unwrap();
    peer
}

fn confined() -> Confined {
    let chat = Chat::turns(vec![Message::text(Role::User, "hello")]);
    let say = Say {
        source: Source::Tag,
        zone: Zone::Device,
    };
    match classify(chat, &[say]) {
        Classified::Confined(confined) => confined,
        Classified::Portable(_) => panic!("a device tag confines"),
    }
}

async fn start(link: &EngineLink) -> JobStream<Event> {
    let request = confined();
    let make = |job| EngineJob::confined(job, "m", ModelSource::Embedded, &request);
    link.run(Duration::from_secs(5), make).await.ok().unwrap().0
}

fn quiet() -> EngineLink {
    EngineLink::new(Box::new(|_, _| {}))
}

fn finished() -> Event {
    Event::Finished {
        reason: FinishReason::Stop,
        usage: Usage::default(),
    }
}

async fn next(stream: &mut JobStream<Event>) -> Option<Event> {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, stream.next()).await.unwrap()
}

async fn failure(stream: &mut JobStream<Event>) -> FailureKind {
    loop {
        match next(stream).await {
            Some(Event::Failed(failure)) => return failure.kind,
            Some(_) => {}
            None => panic!("ended without a last event"),
        }
    }
}

#[tokio::test]
async fn an_answer_comes_back_whole_and_its_timings_are_told() {
    let (told, mut timings) = tokio::sync::mpsc::unbounded_channel();
    let link = EngineLink::new(Box::new(move |model, timings| {
        told.send((model.to_owned(), *timings)).unwrap();
    }));
    let peer = linked(&link).await;
    let mut stream = start(&link).await;
    let (_peer, ()) = play(peer, |peer| {
        let job = peer.hear_run();
        peer.event(job, Event::Content("a".into()));
        peer.event(job, finished());
        peer.say(&FromEngine::Done {
            job,
            timings: Timings {
                decode_tokens: 3,
                ..Timings::default()
            },
        });
    })
    .await;
    assert!(next(&mut stream).await == Some(Event::Content("a".into())));
    assert!(next(&mut stream).await == Some(finished()));
    assert!(next(&mut stream).await.is_none());
    let (model, timings) = timings.recv().await.unwrap();
    assert_eq!((model.as_str(), timings.decode_tokens), ("m", 3));
}

#[tokio::test]
async fn a_dropped_answer_is_cancelled_and_a_finished_one_is_not() {
    let link = quiet();
    let peer = linked(&link).await;
    let whole = start(&link).await;
    let (peer, job) = play(peer, |peer| {
        let job = peer.hear_run();
        peer.event(job, finished());
        job
    })
    .await;
    let mut whole = whole;
    assert!(next(&mut whole).await == Some(finished()));
    drop(whole);
    let dropped = start(&link).await;
    let (peer, second) = play(peer, Peer::hear_run).await;
    drop(dropped);
    let (_peer, heard) = play(peer, Peer::hear).await;
    assert!(matches!(heard, ToEngine::Cancel(cancelled) if cancelled == second));
    assert_ne!(job, second);
}

#[tokio::test]
async fn when_the_process_dies_every_answer_ends_as_crashed_and_the_next_link_works() {
    let link = quiet();
    let peer = linked(&link).await;
    let (mut first, mut second) = (start(&link).await, start(&link).await);
    drop(peer);
    assert_eq!(failure(&mut first).await, FailureKind::Crashed);
    assert_eq!(failure(&mut second).await, FailureKind::Crashed);
    assert!(link.pid().is_none());

    // A request that comes now waits for the next process.
    let waiting = tokio::spawn({
        let link = link.clone();
        async move { next(&mut start(&link).await).await }
    });
    let peer = linked(&link).await;
    let (_peer, ()) = play(peer, |peer| {
        let job = peer.hear_run();
        peer.event(job, finished());
    })
    .await;
    assert!(waiting.await.unwrap() == Some(finished()));
}

#[tokio::test]
async fn a_new_socket_takes_the_place_of_the_old_one() {
    let link = quiet();
    let _old = linked(&link).await;
    let mut answer = start(&link).await;
    let _new = linked_again(&link, 1).await;
    assert_eq!(failure(&mut answer).await, FailureKind::Crashed);
    assert!(link.pid().is_some());
}

async fn linked_again(link: &EngineLink, after: u64) -> Peer {
    let mut peer = socket_to(link);
    peer.say(&FromEngine::Hello {
        version: VERSION,
        pid: 8,
    });
    link.newer_than(after).await.unwrap();
    peer
}

#[tokio::test]
async fn a_peer_of_another_version_or_without_hello_is_not_listened_to() {
    let link = quiet();
    for message in [
        FromEngine::Hello {
            version: VERSION + 1,
            pid: 7,
        },
        FromEngine::Pong(1),
    ] {
        let mut peer = socket_to(&link);
        peer.say(&message);
        let (_peer, read) = play(peer, |peer| peer.stream.read(&mut [0; 8]).unwrap()).await;
        assert_eq!(read, 0, "the gate closes the link");
        assert!(link.pid().is_none());
    }
}

#[tokio::test]
async fn a_slow_reader_is_stopped_and_blocks_nobody() {
    let link = quiet();
    let peer = linked(&link).await;
    let (mut slow, mut quick) = (start(&link).await, start(&link).await);
    let (_peer, heard) = play(peer, |peer| {
        let slow = peer.hear_run();
        let quick = peer.hear_run();
        let piece = "x".repeat(64 << 10);
        for _ in 0..40 {
            peer.event(slow, Event::Content(piece.clone()));
        }
        peer.event(quick, finished());
        let heard = peer.hear();
        matches!(heard, ToEngine::Cancel(job) if job == slow)
    })
    .await;
    assert!(heard, "the engine is told to stop the slow one");
    assert!(next(&mut quick).await == Some(finished()));
    assert_eq!(failure(&mut slow).await, FailureKind::Cancelled);
    assert!(next(&mut slow).await.is_none());
}

fn drain(queue: &Queue<Event>) -> Vec<Event> {
    let mut context = Context::from_waker(Waker::noop());
    let mut events = Vec::new();
    while let Poll::Ready(Some(event)) = queue.poll_next(&mut context) {
        events.push(event);
    }
    events
}

#[test]
fn waiting_text_is_joined_and_loses_nothing() {
    let queue = Queue::new();
    let mut sent = String::new();
    for number in 0..5_000 {
        let piece = format!("{number} ");
        sent.push_str(&piece);
        assert_eq!(queue.push(Event::Content(piece)), Pushed::More);
    }
    queue.push(finished());
    let events = drain(&queue);
    assert!(events.len() < 50, "{}", events.len());
    let read: String = events
        .iter()
        .map(|event| match event {
            Event::Content(text) => text.as_str(),
            _ => "",
        })
        .collect();
    assert!(read == sent);
    assert!(events.last().unwrap().is_last());
}

#[test]
fn what_waits_is_bounded_and_reading_makes_room() {
    let queue = Arc::new(Queue::new());
    let piece = || Event::Content("x".repeat(MAX_WAITING_BYTES / 4));
    for _ in 0..20 {
        assert_eq!(queue.push(piece()), Pushed::More);
        drain(&queue);
    }
    let pushed: Vec<Pushed> = (0..5).map(|_| queue.push(piece())).collect();
    assert_eq!(pushed[3], Pushed::Overrun, "{pushed:?}");
    assert_eq!(pushed[4], Pushed::Last, "later pieces are ignored");
    assert!(drain(&queue).last().unwrap().is_last());
}
