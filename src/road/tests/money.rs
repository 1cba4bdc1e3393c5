//! What answers cost, what they may cost, and what they save. `far/big` takes 1
//! for a million tokens of prompt and 2 for a million written.

use std::collections::BTreeMap;

use nearfar_domain::explain::{Exclusion, Outcome};
use nearfar_domain::price::Price;

use super::*;

async fn world(plan: Plan, egress: Script) -> World {
    let world = World::empty(plan);
    world.start_engine(always(answers()), false).await;
    world.start_egress(egress).await;
    world
}

/// A request that may write so many tokens and cost so much.
fn limited(model: &str, max_tokens: u32, max_cost_micro: u64) -> Asked {
    let mut asked = ask(model);
    asked.chat.params.max_tokens = Some(max_tokens);
    asked.max_cost_micro = Some(max_cost_micro);
    asked
}

/// What the prompt `hello` may cost at most there, and 500 tokens of answer.
const PROMPT: u64 = 8;
const ANSWER: u64 = 1_000;

#[tokio::test]
async fn whoever_may_cost_more_than_the_limit_is_left_out_with_the_figure() {
    let world = World::new(always(answers()), always(answers())).await;
    let refused = world
        .answer(limited("far/big", 500, PROMPT + ANSWER - 1))
        .await;
    let Err(RoadError::Refused(explanation)) = refused else {
        panic!("it was not refused");
    };
    let out = &explanation.candidates[1];
    let cost_micro = PROMPT + ANSWER;
    assert_eq!(out.target.to_string(), "far/big");
    assert_eq!(
        out.outcome,
        Outcome::Excluded(Exclusion::TooDear { cost_micro })
    );
    assert_eq!(out.cost.unwrap().most_micro, Some(cost_micro));
    let row = world.row().await;
    assert_eq!((row.outcome.as_str(), row.cost_micro), ("refused", Some(0)));
    assert!(world.egress_heard_nothing());
    // This device costs nothing.
    let answer = world.answer(limited("auto", 500, 0)).await.unwrap();
    assert_eq!(answer.target.to_string(), "local/small");
}

#[tokio::test]
async fn a_whole_answer_that_turns_out_too_dear_is_a_fault_and_its_cost_is_known() {
    let world = World::new(always(answers()), always(answers())).await;
    let mut asked = limited("far/big", 500, PROMPT + ANSWER);
    asked.stream = false;
    // The provider says 1,000 tokens of prompt: 2,000 micro-units.
    let Err(RoadError::Failed { failure, .. }) = world.answer(asked).await else {
        panic!("it did not fail");
    };
    assert_eq!(failure.kind, FailureKind::TooDear);
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.failure.as_str()),
        ("failed", "too_dear")
    );
    assert_eq!(
        (row.cost_micro, row.failed_cost_micro),
        (Some(2_000), Some(2_000))
    );
}

#[tokio::test]
async fn a_stream_that_writes_more_than_is_paid_for_is_cut_and_goes_on_nowhere_dear() {
    let much = "word ".repeat(200);
    let script = always(vec![
        content("a "),
        content(&much),
        content(&much),
        finish(),
    ]);
    let world = World::new(always(answers()), script).await;
    let answer = world
        .answer(limited("far/big", 10, PROMPT + 20))
        .await
        .unwrap();
    let events = read(answer).await;
    assert_eq!(text(&events), "a ");
    assert_eq!(failed(&events), Some(FailureKind::TooDear));
    assert_eq!(world.egress_hears().await, Heard::Run("big".into()));
    let row = world.row().await;
    assert_eq!((row.outcome.as_str(), row.cost_micro), ("failed", None));
}

#[tokio::test]
async fn a_local_answer_saves_what_the_next_leg_would_have_cost() {
    let world = world(Plan::default(), always(answers())).await;
    let answer = world.answer(ask("auto")).await.unwrap();
    let bill = answer.bill.clone();
    read(answer).await;
    assert_eq!(bill.get(), Some(&Some(0)));
    let row = world.row().await;
    assert_eq!(
        (row.baseline.as_str(), row.saved_local_micro),
        ("far/big", Some(2_000))
    );
    // Nobody else would have answered these.
    for asked in [tagged("auto", "device"), ask("local/small")] {
        read(world.answer(asked).await.unwrap()).await;
        let row = world.row().await;
        assert_eq!((row.baseline.as_str(), row.saved_local_micro), ("", None));
    }
    // What a provider answers saves nothing.
    read(world.answer(ask("far/big")).await.unwrap()).await;
    assert_eq!(world.row().await.saved_local_micro, None);
}

#[tokio::test]
async fn a_configured_baseline_holds_for_every_local_answer_and_energy_has_its_price() {
    let plan = Plan {
        savings_baseline: TargetId::parse("far/big"),
        local_price: Price::plain(10_000, 0, 200_000),
        ..Plan::default()
    };
    let world = world(plan, always(answers())).await;
    read(world.answer(tagged("auto", "device")).await.unwrap()).await;
    let row = world.row().await;
    assert_eq!(
        (row.baseline.as_str(), row.saved_local_micro),
        ("far/big", Some(2_000))
    );
    assert_eq!(row.cost_micro, Some(10 + 100));
}

#[tokio::test]
async fn a_baseline_without_a_known_price_saves_nothing_that_anybody_could_tell() {
    let plan = Plan {
        savings_baseline: TargetId::parse("far/nobody-knows"),
        ..Plan::default()
    };
    let world = world(plan, always(answers())).await;
    read(world.answer(ask("auto")).await.unwrap()).await;
    let row = world.row().await;
    assert_eq!((row.baseline.as_str(), row.saved_local_micro), ("", None));
}

#[tokio::test]
async fn a_leg_that_failed_unheard_costs_nothing_and_one_that_was_heard_is_unknown() {
    let script = |then: &str| {
        let then = then.to_owned();
        let script: Script = Arc::new(move |job| match job {
            0 if then.is_empty() => vec![fail(FailureKind::Overloaded)],
            0 => vec![content(&then), fail(FailureKind::Cut)],
            _ => answers(),
        });
        script
    };
    let world = world(Plan::default(), script("")).await;
    read(world.answer(ask("far/big")).await.unwrap()).await;
    let row = world.row().await;
    assert_eq!(
        (row.cost_micro, row.failed_cost_micro),
        (Some(2_000), Some(0))
    );
    let world = self::world(Plan::default(), script("hel")).await;
    read(world.answer(ask("far/big")).await.unwrap()).await;
    let row = world.row().await;
    assert_eq!((row.outcome.as_str(), row.attempts), ("ok", 2));
    assert_eq!((row.cost_micro, row.failed_cost_micro), (None, None));
}

#[tokio::test]
async fn an_alias_means_its_targets_and_no_others() {
    let target = |name| TargetId::parse(name).unwrap();
    let plan = Plan {
        aliases: BTreeMap::from([
            (
                "fast".to_owned(),
                vec![target("local/small"), target("far/big")],
            ),
            ("odd".to_owned(), vec![target("far/unlisted")]),
        ]),
        ..Plan::default()
    };
    let world = world(plan, always(answers())).await;
    let answer = world.answer(ask("fast")).await.unwrap();
    assert_eq!(answer.target.to_string(), "local/small");
    read(answer).await;
    assert_eq!(world.row().await.model, "fast");
    let remote = Asked {
        side: Side::Remote,
        ..ask("fast")
    };
    assert_eq!(
        world.answer(remote).await.unwrap().target.to_string(),
        "far/big"
    );
    assert_eq!(
        world.answer(ask("odd")).await.unwrap().target.to_string(),
        "far/unlisted"
    );
    // The wall stands before any name.
    assert!(matches!(
        world.answer(tagged("odd", "device")).await,
        Err(RoadError::Refused(_))
    ));
}
