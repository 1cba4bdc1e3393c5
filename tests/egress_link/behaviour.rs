//! How egress behaves around its answers: connections, cancellation,
//! back-pressure, keys, draining.

use std::time::Duration;

use nearfar_domain::events::{Event, FailureKind};
use nearfar_domain::frames::ToEgress;
use nearfar_domain::ids::JobId;

use super::rig::{Ask, KEY, Link, Rig, failure, told};
use crate::support::double::{Answer, Fault};

#[tokio::test]
async fn one_connection_carries_one_request_after_another() {
    let mut rig = Rig::start().await;
    for round in 0..5 {
        for ask in [
            Ask::hello("openai"),
            Ask::hello("openai").whole(),
            Ask::hello("anthropic"),
        ] {
            let events = rig.ask(ask).await;
            assert_eq!(told(&events).0, "You said: hello", "round {round}");
            // The job's end and the connection's return race by a moment.
            rig.double
                .wait_until("the reply's end", |d| d.requests().iter().all(|r| r.over))
                .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(rig.double.connections().len(), 1);
}

#[tokio::test]
async fn an_error_leaves_its_connection_usable() {
    let mut rig = Rig::start().await;
    rig.double.push(Fault::status(500));
    rig.ask(Ask::hello("openai")).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    rig.ask(Ask::hello("openai")).await;
    assert_eq!(rig.double.connections().len(), 1);
}

#[tokio::test]
async fn jobs_run_side_by_side() {
    let mut rig = Rig::start().await;
    rig.double.push(Fault::Stall { after: 2 });
    let stalled = rig.link.begin(Ask::hello("openai")).await;
    rig.double
        .wait_until("the first request", |d| d.requests().len() == 1)
        .await;
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(rig.link.begin(Ask::hello("openai")).await);
    }
    for job in jobs {
        assert_eq!(told(&rig.link.answer(job).await).0, "You said: hello");
    }
    rig.link.send(&ToEgress::Cancel(stalled)).await;
    let events = rig.link.answer(stalled).await;
    assert_eq!(failure(&events).kind, FailureKind::Cancelled);
}

#[tokio::test]
async fn a_cancelled_job_closes_its_connection() {
    let mut rig = Rig::start().await;
    for fault in [
        Fault::StallBeforeHeaders,
        Fault::StallBeforeBody,
        Fault::Stall { after: 3 },
    ] {
        rig.double.push(fault.clone());
        let number = rig.double.requests().len();
        let job = rig.link.begin(Ask::hello("openai")).await;
        rig.double
            .wait_until("the request", |d| d.requests().len() > number)
            .await;
        rig.link.send(&ToEgress::Cancel(job)).await;
        let events = rig.link.answer(job).await;
        assert_eq!(failure(&events).kind, FailureKind::Cancelled, "{fault:?}");
        rig.double
            .wait_until("the closed connection", |d| {
                d.requests()[number].closed_early
            })
            .await;
    }
    // Cancelling what is not there does no harm.
    rig.link.send(&ToEgress::Cancel(JobId(999))).await;
    assert_eq!(
        told(&rig.ask(Ask::hello("openai")).await).0,
        "You said: hello"
    );
}

#[tokio::test]
async fn a_gate_that_goes_away_cancels_its_jobs_and_no_others() {
    let mut rig = Rig::start().await;
    let mut other = Link::open(rig.links.as_ref().unwrap()).await;
    other.frame().await.unwrap();
    rig.double.push(Fault::Stall { after: 3 });
    let lost = other.begin(Ask::hello("openai")).await;
    other.first(lost).await;
    rig.double
        .push(Answer::text("a b c d e f").with_gap(Duration::from_millis(10)));
    let kept = rig.link.begin(Ask::hello("openai")).await;
    drop(other);
    rig.double
        .wait_until("the closed connection", |d| d.requests()[0].closed_early)
        .await;
    assert_eq!(told(&rig.link.answer(kept).await).0, "a b c d e f");
}

#[tokio::test]
async fn a_gate_that_does_not_read_slows_the_provider() {
    let mut rig = Rig::start().await;
    let piece = "x".repeat(64 << 10);
    let answer = Answer {
        text: vec![piece; 1_024],
        ..Answer::default()
    };
    let total = 64 << 20;
    rig.double.push(answer);
    let job = rig.link.begin(Ask::hello("openai")).await;
    // What the double could send before everything between it and us is full.
    let mut sent = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = rig.double.requests().first().map_or(0, |r| r.sent);
        if now > 0 && now == sent {
            break;
        }
        sent = now;
    }
    assert!(sent < total / 2, "{sent} bytes were taken without a reader");
    rig.link.send(&ToEgress::Cancel(job)).await;
    let events = rig.link.answer(job).await;
    assert_eq!(failure(&events).kind, FailureKind::Cancelled);
}

#[tokio::test]
async fn a_ping_is_answered_while_jobs_run() {
    let mut rig = Rig::start().await;
    rig.double.push(Fault::Stall { after: 2 });
    let job = rig.link.begin(Ask::hello("openai")).await;
    rig.link.send(&ToEgress::Ping(42)).await;
    while rig.link.pongs.is_empty() {
        rig.link.take_frame().await;
    }
    assert_eq!(rig.link.pongs, [42]);
    rig.link.send(&ToEgress::Cancel(job)).await;
    rig.link.answer(job).await;
}

#[tokio::test]
async fn providers_without_a_name_or_a_key_are_not_asked() {
    let mut rig = Rig::start().await;
    let events = rig.ask(Ask::hello("nobody")).await;
    assert_eq!(failure(&events).kind, FailureKind::ModelMissing);
    let events = rig.ask(Ask::hello("keyless")).await;
    let failed = failure(&events);
    assert_eq!(failed.kind, FailureKind::Unauthorized);
    assert!(
        failed.message.contains("nothing"),
        "names the place: {failed:?}"
    );
    assert!(rig.double.connections().is_empty());
}

#[tokio::test]
async fn a_key_that_was_replaced_on_disk_is_taken_up_within_the_request() {
    let mut rig = Rig::start().await;
    rig.double.require_key("sk-new");
    let events = rig.ask(Ask::hello("openai")).await;
    assert_eq!(failure(&events).kind, FailureKind::Unauthorized);
    assert!(
        failure(&events).message.contains("the credential key"),
        "{events:?}"
    );
    assert_eq!(
        rig.double.requests().len(),
        1,
        "the same key is not tried twice"
    );
    std::fs::write(rig.folder.path().join("key"), "sk-new\n").unwrap();
    let events = rig.ask(Ask::hello("openai")).await;
    assert_eq!(told(&events).0, "You said: hello");
    let requests = rig.double.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].header("authorization"), Some("Bearer sk-new"));
    assert!(!String::from_utf8_lossy(&rig.link.bytes).contains(KEY));
}

#[tokio::test]
async fn draining_ends_what_runs_and_begins_nothing() {
    let mut rig = Rig::start().await;
    rig.double
        .push(Answer::text("a b c d e f").with_gap(Duration::from_millis(100)));
    let running = rig.link.begin(Ask::hello("openai")).await;
    rig.link.first(running).await;
    rig.drain.send(true).unwrap();
    // The flag and a job travel apart: wait until egress has seen the flag.
    loop {
        rig.double.push(Answer::text("begun before the flag"));
        let job = rig.link.begin(Ask::hello("openai")).await;
        let events = rig.link.answer(job).await;
        if let Some(Event::Failed(failed)) = events.last() {
            assert_eq!(failed.kind, FailureKind::Overloaded);
            assert!(failed.message.contains("stopping"), "{failed:?}");
            break;
        }
    }
    assert_eq!(told(&rig.link.answer(running).await).0, "a b c d e f");
    assert!(rig.link.frame().await.is_none(), "the link is closed");
    rig.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn it_ends_when_the_supervisor_and_the_gate_are_gone() {
    let mut rig = Rig::start().await;
    rig.links = None;
    assert_eq!(
        told(&rig.ask(Ask::hello("openai")).await).0,
        "You said: hello"
    );
    drop(rig.link);
    rig.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_on_a_link_ends_that_link_alone() {
    let mut rig = Rig::start().await;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    rig.links.as_ref().unwrap().send(theirs).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut ours = ours;
        ours.write_all(&[0xff; 64]).unwrap();
        let mut rest = Vec::new();
        // Ends: egress closes. A reset is an end too.
        let _ = ours.read_to_end(&mut rest);
    });
    ended.await.unwrap();
    assert_eq!(
        told(&rig.ask(Ask::hello("openai")).await).0,
        "You said: hello"
    );
}
