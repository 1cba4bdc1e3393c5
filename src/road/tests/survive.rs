//! Answers whose leg breaks off: somebody goes on, or it is said.

use nearfar_domain::chat::{ResponseFormat, ToolChoice};
use nearfar_domain::events::{Failure, ToolCallDelta};

use super::*;

fn call(arguments: &str) -> Act {
    Act::Say(Event::ToolCall(ToolCallDelta {
        index: 0,
        id: Some("call_1".into()),
        name: Some("lights".into()),
        arguments: arguments.into(),
    }))
}

fn reasoning(text: &str) -> Act {
    Act::Say(Event::Reasoning(text.into()))
}

/// The first job does one thing, the others another.
fn first(acts: Vec<Act>, then: Vec<Act>) -> Script {
    Arc::new(move |job| if job == 0 { acts.clone() } else { then.clone() })
}

fn go_on(model: &str, partial: &str) -> Heard {
    Heard::GoOn(model.into(), partial.into())
}

fn run(model: &str) -> Heard {
    Heard::Run(model.into())
}

/// The targets that went on.
fn continued(events: &[Event]) -> Vec<&str> {
    let started = events.iter().filter_map(|event| match event {
        Event::Started { model } => Some(model.as_str()),
        _ => None,
    });
    started.collect()
}

fn usage(events: &[Event]) -> Usage {
    match events.last().unwrap() {
        Event::Finished { usage, .. } => *usage,
        other => panic!("{other:?}"),
    }
}

/// A road without an engine, so that only the provider answers.
async fn without_engine(egress: Script) -> World {
    let world = World::empty(Plan::default());
    world.start_egress(egress).await;
    world
}

#[tokio::test]
async fn an_answer_that_breaks_off_goes_on_at_the_next_leg_that_can() {
    for broken in [
        vec![content("The cap"), content("ital "), Act::Die],
        vec![content("The cap"), content("ital "), fail(FailureKind::Cut)],
    ] {
        let rest = vec![content(" of France"), finish()];
        let world = World::new(always(broken), always(rest)).await;
        let answer = world.answer(ask("auto")).await.unwrap();
        assert_eq!(answer.target.to_string(), "local/small");
        let events = read(answer).await;
        assert_eq!(text(&events), "The capital of France");
        assert_eq!(continued(&events), ["far/big"]);
        // 2 tokens were written here and then read there.
        let usage = usage(&events);
        assert_eq!((usage.prompt, usage.completion), (Some(998), Some(502)));
        assert_eq!(world.egress_hears().await, go_on("big", "The capital"));
        let row = world.row().await;
        assert_eq!((row.outcome.as_str(), row.attempts), ("ok", 2));
        let failed = &row.failed_legs[0];
        assert_eq!((failed.target.as_str(), failed.pieces), ("local/small", 2));
        assert_eq!(
            (row.target.as_str(), row.cost_micro),
            ("far/big", Some(2_000))
        );
        assert!(world.no_more_rows());
    }
}

#[tokio::test]
async fn a_confined_answer_goes_on_at_the_restarted_engine_and_nowhere_else() {
    let world = World::empty(Plan::default());
    let script = first(
        vec![content("half"), fail(FailureKind::Crashed)],
        vec![content(" and half"), finish()],
    );
    world.start_engine(script, true).await;
    world.start_egress(always(answers())).await;
    let answer = world.answer(tagged("auto", "device")).await.unwrap();
    let events = read(answer).await;
    assert_eq!(text(&events), "half and half");
    assert_eq!(world.engine_hears().await, run("small"));
    assert_eq!(world.engine_hears().await, go_on("small", "half"));
    assert!(world.egress_heard_nothing());
}

#[tokio::test]
async fn a_leg_that_breaks_off_twice_is_the_end() {
    let broken = vec![content("half"), fail(FailureKind::Cut)];
    let world = World::new(always(answers()), always(broken)).await;
    let answer = world.answer(ask("far/big")).await.unwrap();
    let events = read(answer).await;
    assert_eq!(text(&events), "halfhalf");
    assert_eq!(failed(&events), Some(FailureKind::Cut));
    assert_eq!(world.egress_hears().await, run("big"));
    assert_eq!(world.egress_hears().await, go_on("big", "half"));
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.failure.as_str(), row.attempts),
        ("failed", "cut", 2)
    );
    assert!(world.no_more_rows());
}

#[tokio::test]
async fn a_provider_that_refuses_a_partial_answer_is_not_asked_again() {
    let engine: Script = Arc::new(|job| match job % 2 {
        0 => vec![content("half"), fail(FailureKind::Internal)],
        _ => vec![content(" rest"), finish()],
    });
    let world = World::new(engine, always(vec![fail(FailureKind::BadRequest)])).await;
    for _ in 0..2 {
        let answer = world.answer(ask("auto")).await.unwrap();
        let events = read(answer).await;
        assert_eq!(text(&events), "half rest");
        assert_eq!(continued(&events), ["local/small"]);
    }
    assert_eq!(world.egress_hears().await, go_on("big", "half"));
    assert!(world.egress_heard_nothing());
}

#[tokio::test]
async fn a_tool_call_that_breaks_off_ends_in_band() {
    for acts in [
        vec![content("Well. "), call("{\"on\""), fail(FailureKind::Cut)],
        vec![call("{}"), fail(FailureKind::Cut)],
    ] {
        let world = World::new(always(acts), always(answers())).await;
        let events = read(world.answer(ask("auto")).await.unwrap()).await;
        assert_eq!(failed(&events), Some(FailureKind::Cut));
        assert!(world.egress_heard_nothing());
        assert_eq!(world.row().await.outcome, "failed");
    }
    // Where a call was demanded, text is no beginning of one.
    let acts = vec![content("Well"), fail(FailureKind::Cut)];
    let world = World::new(always(acts), always(answers())).await;
    let mut asked = ask("auto");
    asked.chat.tool_choice = ToolChoice::Required;
    let events = read(world.answer(asked).await.unwrap()).await;
    assert_eq!(failed(&events), Some(FailureKind::Cut));
}

#[tokio::test]
async fn thoughts_that_break_off_are_followed_by_a_whole_answer() {
    let acts = vec![reasoning("Let me"), fail(FailureKind::Cut)];
    let world = World::new(always(acts), always(answers())).await;
    let events = read(world.answer(ask("auto")).await.unwrap()).await;
    assert_eq!(text(&events), "hello");
    assert_eq!(world.egress_hears().await, run("big"));
    assert_eq!(usage(&events).completion, Some(501));
}

#[tokio::test]
async fn a_form_is_gone_on_with_on_this_device_alone() {
    let near: Script = first(
        vec![content("[1, "), fail(FailureKind::Internal)],
        vec![content(" 2]"), finish()],
    );
    let world = World::new(near, always(answers())).await;
    let mut asked = ask("auto");
    asked.chat.response_format = ResponseFormat::JsonSchema {
        name: "a".into(),
        schema: "{}".into(),
        strict: None,
    };
    let events = read(world.answer(asked).await.unwrap()).await;
    assert_eq!(text(&events), "[1, 2]");
    assert!(world.egress_heard_nothing());
    assert_eq!(world.engine_hears().await, run("small"));
    assert_eq!(world.engine_hears().await, go_on("small", "[1,"));
}

#[tokio::test]
async fn a_provider_whose_answer_has_not_the_form_is_at_fault() {
    let world = World::without_retries(always(answers()), always(answers())).await;
    let json = |stream| {
        let mut asked = ask("far/big");
        asked.stream = stream;
        asked.chat.response_format = ResponseFormat::JsonObject;
        asked
    };
    let error = world.answer(json(false)).await.err().unwrap();
    assert_eq!(kind(&error), FailureKind::Malformed);
    let events = read(world.answer(json(true)).await.unwrap()).await;
    assert_eq!(failed(&events), Some(FailureKind::Malformed));
}

#[tokio::test]
async fn an_answer_that_is_wanted_whole_is_made_anew_unseen() {
    for broken in [
        vec![content("half"), fail(FailureKind::Cut)],
        vec![call("{\"on\""), Act::Die],
    ] {
        let world = World::new(always(broken), always(answers())).await;
        let asked = Asked {
            stream: false,
            ..ask("auto")
        };
        let answer = world.answer(asked).await.unwrap();
        assert_eq!(
            (answer.target.to_string(), answer.attempt),
            ("far/big".into(), 2)
        );
        let events = read(answer).await;
        assert_eq!(text(&events), "hello");
        assert!(continued(&events).is_empty());
        assert_eq!(world.egress_hears().await, run("big"));
        let row = world.row().await;
        assert_eq!((row.outcome.as_str(), row.attempts), ("ok", 2));
        assert!(world.no_more_rows());
        assert_eq!(world.road.admission.under_way(), 0);
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let with = |kind| async move {
        let world = without_engine(first(vec![fail(kind)], answers())).await;
        let answered = world.answer(ask("far/big")).await;
        world.row_after(answered).await.attempts
    };
    assert_eq!(with(FailureKind::Overloaded).await, 2);
    assert_eq!(with(FailureKind::Malformed).await, 2);
    assert_eq!(with(FailureKind::ContextLength).await, 1);
    assert_eq!(with(FailureKind::Unauthorized).await, 1);
    assert_eq!(with(FailureKind::Refused).await, 1);
}

#[tokio::test]
async fn a_longer_pause_than_the_deadline_allows_is_not_waited_for() {
    let busy = Act::Say(Event::Failed(Failure {
        retry_after_ms: Some(5_000),
        ..Failure::new(FailureKind::RateLimited, "busy")
    }));
    let world = without_engine(first(vec![busy], answers())).await;
    let asked = Asked {
        deadline_ms: Some(2_000.0),
        ..ask("far/big")
    };
    match world.answer(asked).await.err().unwrap() {
        RoadError::Failed { failure, .. } => assert_eq!(failure.retry_after_ms, Some(5_000)),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.row().await.attempts, 1);
}

#[tokio::test]
async fn what_this_device_cannot_do_another_target_may() {
    let near = always(vec![fail(FailureKind::Unsupported)]);
    let world = World::new(near, always(answers())).await;
    let answer = world.answer(ask("auto")).await.unwrap();
    assert_eq!(answer.target.to_string(), "far/big");
    assert_eq!(text(&read(answer).await), "hello");
}

#[tokio::test]
async fn a_filter_that_refuses_is_not_gone_around() {
    let world = World::new(always(vec![fail(FailureKind::Refused)]), always(answers())).await;
    let error = world.answer(ask("auto")).await.err().unwrap();
    assert_eq!(kind(&error), FailureKind::Refused);
    assert!(world.egress_heard_nothing());
    assert_eq!(world.row().await.attempts, 1);
}
