//! The whole path from a question to its settled row.

#![allow(clippy::unwrap_used)]

mod cached;
mod money;
mod survive;
mod wall;
mod world;

use futures_util::StreamExt;
use nearfar_domain::events::{Event, FailureKind, FinishReason, Usage};
use nearfar_domain::explain::{Reason, Verdict};

use super::*;
use world::*;

fn kind(error: &RoadError) -> FailureKind {
    match error {
        RoadError::Failed { failure, .. } => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_near_answer_is_settled_once_with_its_tokens() {
    let world = World::new(always(answers()), always(answers())).await;
    let answer = world.answer(ask("auto")).await.unwrap();
    assert_eq!(answer.target.to_string(), "local/small");
    assert_eq!((answer.zone, answer.reason), (Zone::Device, Reason::Near));
    let id = answer.decision.to_string();
    let events = read(answer).await;
    assert!(matches!(&events[0], Event::Content(text) if text == "hello"));
    assert!(matches!(events.last().unwrap(), Event::Finished { .. }));
    let row = world.row().await;
    assert_eq!((row.outcome.as_str(), row.attempts), ("ok", 1));
    assert_eq!(row.decision, id);
    assert_eq!(
        (row.target.as_str(), row.zone.as_str()),
        ("local/small", "device")
    );
    assert_eq!(
        (row.prompt_tokens, row.completion_tokens),
        (Some(1_000), Some(500))
    );
    assert_eq!((row.cost_micro, row.feature.as_str()), (Some(0), "kiosk"));
    assert_eq!(
        (row.tenant.as_str(), row.ceiling.as_str()),
        ("default", "cloud")
    );
    assert!(row.ttft_ms.is_some() && row.duration_ms >= row.ttft_ms.unwrap());
    assert!(world.no_more_rows() && world.egress_heard_nothing());
    assert_eq!(world.road.admission.under_way(), 0);
}

#[tokio::test]
async fn a_remote_answer_has_its_price() {
    let world = World::new(always(answers()), always(answers())).await;
    let answer = world.answer(ask("far/big")).await.unwrap();
    assert_eq!((answer.zone, answer.reason), (Zone::Cloud, Reason::Named));
    read(answer).await;
    assert_eq!(world.row().await.cost_micro, Some(1_000 + 1_000));
    let answer = world.answer(ask("far/unlisted")).await.unwrap();
    read(answer).await;
    assert_eq!(world.row().await.cost_micro, None, "its price is not known");
}

#[tokio::test]
async fn a_leg_that_fails_before_it_shows_anything_hands_over_unseen() {
    for acts in [
        vec![fail(FailureKind::Overloaded)],
        vec![
            Act::Say(Event::Content(String::new())),
            fail(FailureKind::ContextLength),
        ],
        vec![Act::Say(Event::Started { model: "m".into() }), Act::Die],
    ] {
        let world = World::new(always(acts), always(answers())).await;
        let answer = world.answer(ask("auto")).await.unwrap();
        assert_eq!(
            (answer.target.to_string(), answer.attempt),
            ("far/big".into(), 2)
        );
        assert_eq!(text(&read(answer).await), "hello");
        let row = world.row().await;
        assert_eq!((row.outcome.as_str(), row.attempts), ("ok", 2));
        assert_eq!(row.target, "far/big");
        assert!(world.no_more_rows());
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_in_itself_is_tried_once() {
    let world = World::new(
        always(vec![fail(FailureKind::BadRequest)]),
        always(answers()),
    )
    .await;
    let error = world.answer(ask("auto")).await.err().unwrap();
    assert_eq!(kind(&error), FailureKind::BadRequest);
    assert_eq!(world.row().await.attempts, 1);
    assert!(world.egress_heard_nothing());
}

#[tokio::test]
async fn a_provider_that_says_nothing_is_at_fault_unless_a_limit_left_nothing() {
    let nothing = |reason| {
        vec![Act::Say(Event::Finished {
            reason,
            usage: Usage::default(),
        })]
    };
    let mute = always(nothing(FinishReason::Stop));
    let world = World::without_retries(always(answers()), mute).await;
    let error = world.answer(ask("far/big")).await.err().unwrap();
    assert_eq!(kind(&error), FailureKind::Malformed);
    let world = World::new(always(answers()), always(nothing(FinishReason::Length))).await;
    let answer = world.answer(ask("far/big")).await.unwrap();
    assert_eq!(read(answer).await.len(), 1);
    assert_eq!(world.row().await.outcome, "ok");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_engine_and_has_its_row() {
    let world = World::new(always(vec![content("a"), content("b")]), always(answers())).await;
    let mut answer = world.answer(ask("local/small")).await.unwrap();
    answer.events.next().await.unwrap();
    assert_eq!(world.road.admission.under_way(), 1);
    drop(answer);
    assert_eq!(world.engine_hears().await, Heard::Run("small".into()));
    assert_eq!(world.engine_hears().await, Heard::Cancel);
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.failure.as_str()),
        ("cancelled", "cancelled")
    );
    assert_eq!((row.completion_tokens, row.cost_micro), (Some(1), Some(0)));
    assert_eq!(world.road.admission.under_way(), 0);
    assert!(world.no_more_rows());
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_first_token_is_accounted_too() {
    let world = World::new(always(vec![]), always(answers())).await;
    let road = Arc::clone(&world.road);
    let waiting = tokio::spawn(async move { road.answer(ask("local/small")).await });
    assert_eq!(world.engine_hears().await, Heard::Run("small".into()));
    waiting.abort();
    assert_eq!(world.engine_hears().await, Heard::Cancel);
    let row = world.row().await;
    assert_eq!((row.outcome.as_str(), row.ttft_ms), ("cancelled", None));
    assert!(world.no_more_rows());
}

#[tokio::test]
async fn a_leg_that_is_too_late_is_replaced_and_cancelled() {
    let world = World::new(always(vec![]), always(answers())).await;
    let asked = Asked {
        ttft_ms: Some(5_000.0),
        ..ask("auto")
    };
    // The near leg is predicted to be in time, is not, and the far one answers.
    let answer = world.answer(asked).await.unwrap();
    assert_eq!(
        (answer.target.to_string(), answer.attempt),
        ("far/big".into(), 2)
    );
    assert_eq!(world.engine_hears().await, Heard::Run("small".into()));
    assert_eq!(world.engine_hears().await, Heard::Cancel);
}

#[tokio::test]
async fn an_impossible_deadline_is_still_answered() {
    let world = World::new(always(answers()), always(answers())).await;
    let asked = Asked {
        deadline_ms: Some(0.0),
        ttft_ms: Some(0.0),
        ..tagged("auto", "device")
    };
    let answer = world.answer(asked).await.unwrap();
    assert_eq!(text(&read(answer).await), "hello");
}

#[tokio::test]
async fn a_confined_request_waits_for_the_restarted_engine() {
    let world = World::empty(Plan::default());
    let script: Script = Arc::new(|job| if job == 0 { vec![Act::Die] } else { answers() });
    world.start_engine(script, true).await;
    world.start_egress(always(answers())).await;
    let answer = world.answer(tagged("auto", "device")).await.unwrap();
    assert_eq!((answer.zone, answer.attempt), (Zone::Device, 2));
    assert_eq!(text(&read(answer).await), "hello");
    assert_eq!(world.row().await.attempts, 2);
    assert!(world.no_more_rows() && world.egress_heard_nothing());
}

#[tokio::test]
async fn every_ending_before_a_leg_has_its_row() {
    let world = World::empty(Plan {
        max_requests: 1,
        ..Plan::default()
    });
    world.start_engine(always(vec![content("a")]), false).await;
    world.start_egress(always(answers())).await;

    let error = world.answer(ask("zebra")).await.err().unwrap();
    assert!(matches!(error, RoadError::NoSuchModel(_)));
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.reason.as_str()),
        ("refused", "no_such_model")
    );

    let error = world
        .answer(tagged("far/big", "device"))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, RoadError::Refused(_)));
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.reason.as_str()),
        ("refused", "privacy")
    );
    assert_eq!(
        (row.ceiling.as_str(), row.ceiling_source.as_str()),
        ("device", "tag")
    );
    assert_eq!((row.target.as_str(), row.attempts), ("", 0));

    let first = world.answer(ask("auto")).await.unwrap();
    let error = world.answer(ask("auto")).await.err().unwrap();
    assert!(matches!(error, RoadError::Busy { limit: 1 }));
    assert_eq!(world.row().await.reason, "busy");
    drop(first);
    assert_eq!(world.row().await.outcome, "cancelled");

    world.road.admission.drain();
    let error = world.answer(ask("auto")).await.err().unwrap();
    assert!(matches!(error, RoadError::Draining));
    assert_eq!(world.row().await.reason, "draining");
    assert!(world.no_more_rows());
}

#[tokio::test]
async fn when_every_leg_fails_the_last_one_speaks() {
    let world = World::without_retries(
        always(vec![fail(FailureKind::ModelBroken)]),
        always(vec![fail(FailureKind::Unreachable)]),
    )
    .await;
    match world.answer(ask("auto")).await.err().unwrap() {
        RoadError::Failed {
            target, failure, ..
        } => {
            assert_eq!(target.to_string(), "far/big");
            assert_eq!(failure.kind, FailureKind::Unreachable);
        }
        other => panic!("{other:?}"),
    }
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.failure.as_str()),
        ("failed", "unreachable")
    );
    assert_eq!(row.attempts, 2);
    // The broken model rests: the next request goes to the provider at once.
    let error = world.answer(ask("auto")).await.err().unwrap();
    assert_eq!(kind(&error), FailureKind::Unreachable);
    assert_eq!(world.row().await.attempts, 1);
}

#[tokio::test]
async fn a_route_is_shown_and_not_run() {
    let world = World::new(always(answers()), always(answers())).await;
    let explanation = world.road.route(ask("auto")).unwrap();
    assert_eq!(explanation.verdict, Verdict::Go(Reason::Near));
    assert_eq!(explanation.candidates.len(), 2);
    let refused = world.road.route(tagged("far/big", "device")).unwrap();
    assert!(matches!(refused.verdict, Verdict::Refuse(_)));
    assert!(world.road.route(ask("zebra")).is_err());
    assert!(world.no_more_rows() && world.egress_heard_nothing());
}
