//! Every way in which a provider or the network can fail. An answer that is
//! not whole never looks whole.

use std::time::Duration;

use nearfar_domain::events::{Event, FailureKind};

use super::rig::{Ask, KEY, Rig, failure, limits, told};
use crate::support::double::{Answer, Fault};

const EACH: [&str; 4] = ["openai", "anthropic", "gemini", "bedrock"];

async fn meets(rig: &mut Rig, ask: Ask, fault: Fault) -> Vec<Event> {
    rig.double
        .push(Answer::text("one two three four").but(fault));
    rig.ask(ask).await
}

#[tokio::test]
async fn a_connection_that_breaks() {
    let mut rig = Rig::start().await;
    for provider in EACH {
        for fault in [
            Fault::ResetBeforeHeaders,
            Fault::CloseBeforeHeaders,
            Fault::Cut {
                after: 3,
                reset: false,
            },
            Fault::Cut {
                after: 3,
                reset: true,
            },
            Fault::Cut {
                after: 0,
                reset: false,
            },
            Fault::End { after: 3 },
        ] {
            let case = format!("{provider} {fault:?}");
            let events = meets(&mut rig, Ask::hello(provider), fault).await;
            let failed = failure(&events);
            assert_eq!(failed.kind, FailureKind::Cut, "{case}: {failed:?}");
            assert!(failed.message.contains(provider), "{case}: {failed:?}");
            let fault = Fault::Cut {
                after: 0,
                reset: false,
            };
            let events = meets(&mut rig, Ask::hello(provider).whole(), fault).await;
            assert_eq!(failure(&events).kind, FailureKind::Cut, "{case}, whole");
        }
    }
}

#[tokio::test]
async fn what_came_before_a_cut_was_said() {
    let mut rig = Rig::start().await;
    let fault = Fault::Cut {
        after: 3,
        reset: false,
    };
    let events = meets(&mut rig, Ask::hello("openai"), fault).await;
    assert_eq!(told(&events).0, "one two ");
}

#[tokio::test]
async fn end_markers_are_needed_where_nothing_else_says_the_end() {
    let mut rig = Rig::start().await;
    let events = meets(&mut rig, Ask::hello("openai"), Fault::NoEndMarker).await;
    assert!(
        matches!(events.last(), Some(Event::Finished { .. })),
        "{events:?}"
    );
    for provider in ["anthropic", "gemini"] {
        let events = meets(&mut rig, Ask::hello(provider), Fault::NoEndMarker).await;
        assert_eq!(failure(&events).kind, FailureKind::Cut, "{provider}");
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there() {
    let mut rig = Rig::start().await;
    rig.double.refuse().await;
    for provider in EACH {
        let events = rig.ask(Ask::hello(provider)).await;
        let failed = failure(&events);
        assert_eq!(failed.kind, FailureKind::Unreachable, "{failed:?}");
        assert!(failed.message.contains("refused"), "{failed:?}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_answer() {
    let mut rig = Rig::start().await;
    for provider in EACH {
        for fault in [Fault::EmptyBody, Fault::Garbage, Fault::End { after: 0 }] {
            for whole in [false, true] {
                if whole && matches!(fault, Fault::End { .. }) {
                    continue;
                }
                let ask = Ask::hello(provider);
                let ask = if whole { ask.whole() } else { ask };
                let case = format!("{provider} {fault:?} {whole}");
                let events = meets(&mut rig, ask, fault.clone()).await;
                assert_eq!(failure(&events).kind, FailureKind::Malformed, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream() {
    let mut rig = Rig::start().await;
    for (provider, kind) in [
        ("openai", FailureKind::TargetError),
        ("anthropic", FailureKind::Overloaded),
        ("gemini", FailureKind::Overloaded),
        ("bedrock", FailureKind::Overloaded),
    ] {
        let fault = Fault::ErrorEvent { after: 4 };
        let events = meets(&mut rig, Ask::hello(provider), fault).await;
        assert!(!told(&events).0.is_empty(), "{provider}");
        assert_eq!(failure(&events).kind, kind, "{provider}");
    }
}

#[tokio::test]
async fn every_status_has_its_kind() {
    let mut rig = Rig::start().await;
    for (provider, status, kind) in [
        ("openai", 400, FailureKind::BadRequest),
        ("openai", 401, FailureKind::Unauthorized),
        ("openai", 404, FailureKind::ModelMissing),
        ("openai", 429, FailureKind::RateLimited),
        ("openai", 500, FailureKind::TargetError),
        ("anthropic", 400, FailureKind::BadRequest),
        ("anthropic", 401, FailureKind::Unauthorized),
        ("anthropic", 403, FailureKind::Forbidden),
        ("anthropic", 404, FailureKind::ModelMissing),
        ("anthropic", 413, FailureKind::ContextLength),
        ("anthropic", 429, FailureKind::RateLimited),
        ("anthropic", 500, FailureKind::TargetError),
        ("anthropic", 529, FailureKind::Overloaded),
        ("gemini", 400, FailureKind::BadRequest),
        ("gemini", 401, FailureKind::Unauthorized),
        ("gemini", 403, FailureKind::Forbidden),
        ("gemini", 404, FailureKind::ModelMissing),
        ("gemini", 429, FailureKind::RateLimited),
        ("gemini", 500, FailureKind::TargetError),
        ("gemini", 503, FailureKind::Overloaded),
        ("gemini", 504, FailureKind::TimedOut),
        ("bedrock", 400, FailureKind::BadRequest),
        ("bedrock", 403, FailureKind::Unauthorized),
        ("bedrock", 404, FailureKind::ModelMissing),
        ("bedrock", 429, FailureKind::RateLimited),
        ("bedrock", 500, FailureKind::TargetError),
        ("bedrock", 503, FailureKind::Overloaded),
    ] {
        let events = meets(&mut rig, Ask::hello(provider), Fault::status(status)).await;
        let failed = failure(&events);
        assert_eq!(failed.kind, kind, "{provider} {status}: {failed:?}");
        assert_eq!(failed.upstream_status, Some(status));
        assert_eq!(events.len(), 1, "nothing but the failure");
        assert!(!failed.message.contains("sk-"), "{failed:?}");
    }
}

#[tokio::test]
async fn a_proxys_page_is_not_shown() {
    let mut rig = Rig::start().await;
    let fault = Fault::Status {
        status: 502,
        headers: vec![],
        body: Some("<html><h1>502 Bad Gateway</h1></html>".into()),
    };
    let events = meets(&mut rig, Ask::hello("openai"), fault).await;
    assert_eq!(failure(&events).message, "openai answered with HTTP 502");
}

#[tokio::test]
async fn how_long_to_wait_is_passed_on() {
    let mut rig = Rig::start().await;
    for (name, value, expected) in [
        ("Retry-After", "20", Some(20_000)),
        ("retry-after-ms", "1500", Some(1_500)),
        ("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT", Some(0)),
        ("Retry-After", "later", None),
    ] {
        let fault = Fault::Status {
            status: 429,
            headers: vec![(name, value.to_owned())],
            body: None,
        };
        let events = meets(&mut rig, Ask::hello("openai"), fault).await;
        assert_eq!(failure(&events).retry_after_ms, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_key_that_a_provider_quotes_does_not_come_back() {
    let mut rig = Rig::start().await;
    for (status, place) in [(400, "message"), (400, "code"), (500, "param")] {
        let body = format!(r#"{{"error":{{"message":"no","{place}":"the key {KEY} is odd"}}}}"#);
        let fault = Fault::Status {
            status,
            headers: vec![],
            body: Some(body),
        };
        let events = meets(&mut rig, Ask::hello("openai"), fault).await;
        assert_eq!(failure(&events).upstream_status, Some(status));
    }
    let event = format!(r#"{{"error":{{"message":"the key {KEY} is odd"}}}}"#);
    let fault = Fault::Status {
        status: 200,
        headers: vec![],
        body: Some(event),
    };
    let events = meets(&mut rig, Ask::hello("openai"), fault).await;
    assert!(failure(&events).message.contains("[key]"), "{events:?}");
    assert!(!String::from_utf8_lossy(&rig.link.bytes).contains(KEY));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut rig = Rig::start().await;
    for status in [301, 302, 307, 308] {
        let fault = Fault::Status {
            status,
            headers: vec![("Location", rig.double.openai_base() + "/chat/completions")],
            body: Some(String::new()),
        };
        let before = rig.double.requests().len();
        let events = meets(&mut rig, Ask::hello("openai"), fault).await;
        assert_eq!(failure(&events).kind, FailureKind::TargetError);
        assert!(failure(&events).message.contains("base_url"), "{events:?}");
        assert_eq!(rig.double.requests().len(), before + 1, "asked once");
    }
}

#[tokio::test]
async fn silence_ends_by_its_own_limit() {
    let mut rig = Rig::start().await;
    let short = limits(60_000, 150, 60_000, 60_000);
    let pause = Duration::from_millis(10);
    for fault in [
        Fault::StallBeforeHeaders,
        Fault::SlowHeaders(pause),
        Fault::StallBeforeBody,
    ] {
        let case = format!("{fault:?}");
        let events = meets(&mut rig, Ask::hello("openai").within(short), fault).await;
        assert_eq!(failure(&events).kind, FailureKind::TimedOut, "{case}");
        assert!(
            failure(&events).message.contains("begin"),
            "{case}: {events:?}"
        );
    }
    let idle = limits(60_000, 60_000, 150, 60_000);
    let ask = Ask::hello("anthropic").within(idle);
    let events = meets(&mut rig, ask, Fault::Stall { after: 4 }).await;
    assert_eq!(failure(&events).kind, FailureKind::TimedOut);
    assert!(
        failure(&events).message.contains("nothing more"),
        "{events:?}"
    );
    assert!(!told(&events).0.is_empty());
    let total = limits(60_000, 60_000, 60_000, 150);
    let events = meets(
        &mut rig,
        Ask::hello("openai").within(total),
        Fault::Stall { after: 2 },
    )
    .await;
    assert_eq!(failure(&events).kind, FailureKind::TimedOut);
    assert!(failure(&events).message.contains("finish"), "{events:?}");
    let requests = rig.double.requests().len();
    rig.double
        .wait_until("every connection closed by us", |double| {
            double.requests().iter().filter(|r| r.closed_early).count() == requests
        })
        .await;
}

#[tokio::test]
async fn bytes_that_complete_no_line_are_no_sign_of_life() {
    let mut rig = Rig::start().await;
    let idle = limits(60_000, 60_000, 300, 60_000);
    let fault = Fault::Drip {
        after: 3,
        pause: Duration::from_millis(20),
    };
    let events = meets(&mut rig, Ask::hello("openai").within(idle), fault).await;
    assert_eq!(failure(&events).kind, FailureKind::TimedOut);
    assert_eq!(told(&events).0, "one two ");
}

#[tokio::test]
async fn silence_after_the_finish_reason_is_an_end() {
    let mut rig = Rig::start().await;
    // Events: role, four pieces, the reason; usage and [DONE] never come.
    let events = meets(&mut rig, Ask::hello("openai"), Fault::Stall { after: 6 }).await;
    assert_eq!(told(&events).0, "one two three four");
    assert!(
        matches!(events.last(), Some(Event::Finished { .. })),
        "{events:?}"
    );
}

#[tokio::test]
async fn what_a_dialect_cannot_do_is_refused_before_anybody_is_asked() {
    let mut rig = Rig::start().await;
    let mut chat = super::rig::chat("hello");
    chat.params.logprobs = Some(1);
    let events = rig.ask(Ask::of("anthropic", chat)).await;
    assert_eq!(failure(&events).kind, FailureKind::Unsupported);
    assert_eq!(failure(&events).field.as_deref(), Some("logprobs"));
    assert!(rig.double.connections().is_empty());
}

#[tokio::test]
async fn google_tells_in_the_body_how_long_to_wait() {
    let mut rig = Rig::start().await;
    let events = meets(&mut rig, Ask::hello("gemini"), Fault::status(429)).await;
    let failed = failure(&events);
    assert_eq!(failed.retry_after_ms, Some(17_000));
    assert_eq!(failed.upstream_code.as_deref(), Some("RESOURCE_EXHAUSTED"));
    let fault = Fault::Status {
        status: 429,
        headers: vec![("Retry-After", "3".to_owned())],
        body: None,
    };
    let events = meets(&mut rig, Ask::hello("gemini"), fault).await;
    assert_eq!(
        failure(&events).retry_after_ms,
        Some(3_000),
        "the header wins"
    );
}
