//! The decision's tests: what it prefers, and what it must never do.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::chat::{Chat, Message, Role};
use crate::limit::{Bar, Barred, Measure};
use crate::privacy::{Say, Source, classify};
use crate::snapshot::Latency;
use crate::target::{Capabilities, Target};

fn can_all() -> Capabilities {
    Capabilities {
        context_tokens: Some(8192),
        tools: true,
        forced_tools: true,
        json_object: true,
        json_schema: true,
        grammar: true,
        vision: true,
        logprobs: true,
        raw_text: true,
        chat: true,
        embeddings: false,
    }
}

fn local(name: &str) -> TargetState {
    TargetState {
        cached_tokens: 0,
        barred: None,
        soft: None,
        target: Target {
            id: TargetId::local(name),
            place: Place::Local,
            capabilities: can_all(),
            price: Some(Price::FREE),
            auto: true,
        },
        health: Health::Up,
        wait_ms: 0.0,
        latency: Latency {
            ttft_ms: 5.0,
            ms_per_prompt_token: 1.0,
            ms_per_token: 20.0,
            log_sd: 0.3,
        },
    }
}

fn cloud(name: &str) -> TargetState {
    TargetState {
        cached_tokens: 0,
        barred: None,
        soft: None,
        target: Target {
            id: TargetId::remote(name, "m").unwrap(),
            place: Place::Remote {
                zone: RemoteZone::Cloud,
                dialect: Dialect::Openai,
            },
            capabilities: can_all(),
            price: Some(Price::plain(150_000, 75_000, 600_000)),
            auto: true,
        },
        latency: Latency {
            ttft_ms: 300.0,
            ms_per_prompt_token: 0.05,
            ms_per_token: 8.0,
            log_sd: 0.3,
        },
        ..local(name)
    }
}

fn facts() -> Facts {
    Facts {
        id: DecisionId(7),
        prompt_tokens: 200,
        expected_tokens: 100,
        reserved_tokens: 256,
        needs: Vec::new(),
        model: ModelChoice::Auto,
        scope: Arc::default(),
        side: Side::Auto,
        deadline_ms: None,
        ttft_ms: None,
        max_cost_micro: None,
        most_prompt_tokens: 200,
        most_completion_tokens: None,
        writes_cache: false,
    }
}

fn request(zone: Zone) -> Classified {
    classify(
        Chat::turns(vec![Message::text(Role::User, "hello")]),
        &[Say {
            source: Source::Tag,
            zone,
        }],
    )
}

fn both() -> Snapshot {
    Snapshot {
        targets: vec![local("small"), cloud("far")],
    }
}

fn legs_of(decision: &Decision) -> Vec<String> {
    match &decision.plan {
        Plan::Confined { legs, .. } => legs.iter().map(|l| l.target().to_string()).collect(),
        Plan::Portable { legs, .. } => legs
            .iter()
            .map(|l| match l {
                Leg::Local(l) => l.target().to_string(),
                Leg::Remote(l) => l.target().to_string(),
            })
            .collect(),
    }
}

#[test]
fn near_when_it_can_with_the_far_as_the_second_leg() {
    let decision = decide(request(Zone::Cloud), &facts(), &both())
        .ok()
        .unwrap();
    assert_eq!(legs_of(&decision), ["local/small", "far/m"]);
    assert_eq!(decision.explanation.verdict, Verdict::Go(Reason::Near));
}

#[test]
fn far_when_the_device_would_miss_the_deadline() {
    let facts = Facts {
        deadline_ms: Some(1500.0), // near: 205 + 99*20 = 2185 ms; far: 310 + 792 = 1102 ms
        ..facts()
    };
    let decision = decide(request(Zone::Cloud), &facts, &both()).ok().unwrap();
    assert_eq!(legs_of(&decision), ["far/m", "local/small"]);
    assert_eq!(decision.explanation.verdict, Verdict::Go(Reason::Deadline));
}

#[test]
fn an_impossible_deadline_does_not_widen_a_confined_request() {
    let facts = Facts {
        deadline_ms: Some(1.0),
        ..facts()
    };
    let decision = decide(request(Zone::Device), &facts, &both()).ok().unwrap();
    assert_eq!(legs_of(&decision), ["local/small"]);
    assert_eq!(decision.explanation.verdict, Verdict::Go(Reason::Confined));
}

#[test]
fn a_dead_engine_does_not_widen_a_confined_request() {
    let mut snapshot = both();
    snapshot.targets[0].health = Health::ProcessDown;
    let refused = decide(request(Zone::Device), &facts(), &snapshot)
        .err()
        .unwrap();
    assert_eq!(refused.verdict, Verdict::Refuse(Refusal::Health));
    let decision = decide(request(Zone::Cloud), &facts(), &snapshot)
        .ok()
        .unwrap();
    assert_eq!(legs_of(&decision), ["far/m"]);
    assert_eq!(decision.explanation.verdict, Verdict::Go(Reason::Health));
}

#[test]
fn a_named_target_beyond_the_ceiling_is_refused_for_privacy() {
    let facts = Facts {
        model: ModelChoice::Named(TargetId::remote("far", "m").unwrap()),
        ..facts()
    };
    let refused = decide(request(Zone::Device), &facts, &both())
        .err()
        .unwrap();
    assert_eq!(refused.verdict, Verdict::Refuse(Refusal::Privacy));
}

#[test]
fn an_unknown_price_is_over_any_limit() {
    let mut snapshot = both();
    snapshot.targets[0].health = Health::ProcessDown;
    snapshot.targets[1].target.price = None;
    let facts = Facts {
        max_cost_micro: Some(1_000_000),
        ..facts()
    };
    let refused = decide(request(Zone::Cloud), &facts, &snapshot)
        .err()
        .unwrap();
    assert!(
        refused
            .candidates
            .iter()
            .any(|c| matches!(c.outcome, Outcome::Excluded(Exclusion::PriceUnknown)))
    );
}

#[test]
fn the_normal_distribution_is_right_at_known_points() {
    for (z, p) in [
        (0.0, 0.5),
        (1.0, 0.841_344_75),
        (-1.96, 0.024_997_9),
        (3.0, 0.998_650_1),
    ] {
        assert!((normal_cdf(z) - p).abs() < 1e-6, "{z}");
    }
}

fn any_state() -> impl Strategy<Value = TargetState> {
    (
        0..3u8,
        any::<bool>(),
        0..5u8,
        0.0..1e5f64,
        proptest::option::of(1..100_000u32),
        any::<(bool, bool, bool)>(),
    )
        .prop_map(
            |(zone, auto, health, wait_ms, context, (tools, json, priced))| {
                let mut state = match zone {
                    0 => local("a"),
                    1 => cloud("b"),
                    _ => {
                        let mut state = cloud("c");
                        state.target.place = Place::Remote {
                            zone: RemoteZone::Site,
                            dialect: Dialect::Anthropic,
                        };
                        state
                    }
                };
                state.target.auto = auto;
                state.target.capabilities.context_tokens = context;
                state.target.capabilities.tools = tools;
                state.target.capabilities.json_schema = json;
                if !priced {
                    state.target.price = None;
                }
                state.wait_ms = wait_ms;
                state.health = [
                    Health::Up,
                    Health::Starting,
                    Health::ProcessDown,
                    Health::BreakerOpen,
                    Health::NoKey,
                ][usize::from(health)];
                state
            },
        )
}

fn soft(of_target: bool) -> Option<Soft> {
    let limit = "money".to_owned();
    Some(Soft { limit, of_target })
}

fn order_of(snapshot: &Snapshot, facts: &Facts) -> Vec<String> {
    legs_of(&decide(request(Zone::Cloud), facts, snapshot).unwrap())
}

#[test]
fn past_its_soft_share_a_limit_puts_the_dearer_last() {
    // The deadline puts the cloud first.
    let facts = Facts {
        deadline_ms: Some(1_500.0),
        ..facts()
    };
    let mut snapshot = Snapshot {
        targets: vec![local("near"), cloud("dear")],
    };
    assert_eq!(order_of(&snapshot, &facts), ["dear/m", "local/near"]);
    for state in &mut snapshot.targets {
        state.soft = soft(false);
    }
    assert_eq!(order_of(&snapshot, &facts), ["local/near", "dear/m"]);
    let decision = decide(request(Zone::Cloud), &facts, &snapshot).unwrap();
    assert_eq!(decision.explanation.verdict, Verdict::Go(Reason::Limit));
    let behind: Vec<bool> = decision
        .explanation
        .candidates
        .iter()
        .map(|candidate| candidate.behind.is_some())
        .collect();
    assert_eq!(behind, [false, true]);
    // A price that nobody knows is no low one.
    snapshot.targets[1].target.price = None;
    assert_eq!(order_of(&snapshot, &facts), ["local/near", "dear/m"]);
}

#[test]
fn a_target_past_the_soft_share_of_its_own_limit_is_relieved() {
    let mut snapshot = Snapshot {
        targets: vec![cloud("busy"), cloud("free")],
    };
    assert_eq!(order_of(&snapshot, &facts()), ["busy/m", "free/m"]);
    snapshot.targets[0].soft = soft(true);
    assert_eq!(order_of(&snapshot, &facts()), ["free/m", "busy/m"]);
}

#[test]
fn a_limit_keeps_its_target_out_and_others_go_on() {
    let mut snapshot = Snapshot {
        targets: vec![local("near"), cloud("far")],
    };
    let barred = Barred {
        limit: "tokens".to_owned(),
        measure: Measure::TokensPerMonth,
        bar: Bar::UsedUp {
            until_ms: 1_796_083_200_000,
        },
    };
    snapshot.targets[0].barred = Some(barred.clone());
    let decision = decide(request(Zone::Cloud), &facts(), &snapshot).unwrap();
    assert_eq!(decision.explanation.verdict, Verdict::Go(Reason::Limit));
    let Outcome::Excluded(exclusion) = &decision.explanation.candidates[0].outcome else {
        panic!("not excluded")
    };
    assert_eq!(
        exclusion.describe(),
        "over its budget until 2026-12-01 (limit `tokens`)"
    );
    snapshot.targets[1].barred = Some(barred);
    let refused = decide(request(Zone::Cloud), &facts(), &snapshot);
    let verdict = refused.map(|_| ()).unwrap_err().verdict;
    assert_eq!(verdict, Verdict::Refuse(Refusal::Limit));
}

proptest! {
    /// A scope leaves out what it does not cover, adds nothing, and is told.
    #[test]
    fn a_scope_only_narrows(
        targets in proptest::collection::vec(any_state(), 0..20),
        zone in 0..3u8,
        patterns in proptest::option::of(proptest::collection::vec(
            prop::sample::select(vec!["*", "local/*", "*/m", "*a*", "*1*", "x/y"]), 0..3)),
        zones in proptest::option::of(proptest::collection::vec(
            prop::sample::select(vec![Zone::Device, Zone::Site, Zone::Cloud]), 0..3)),
    ) {
        let zone = [Zone::Device, Zone::Site, Zone::Cloud][usize::from(zone)];
        let parse = |text: &str| crate::scope::Pattern::parse(text).unwrap();
        let grant = crate::scope::Grant {
            targets: patterns.map(|all| all.into_iter().map(parse).collect()),
            zones,
        };
        let scope = Arc::new(Scope::all().narrowed(grant));
        let snapshot = Snapshot { targets };
        let explain = |facts: &Facts| match decide(request(zone), facts, &snapshot) {
            Ok(decision) => decision.explanation,
            Err(refused) => refused,
        };
        let wide = explain(&facts());
        let narrow = explain(&Facts { scope: Arc::clone(&scope), ..facts() });
        for (before, after) in wide.candidates.iter().zip(&narrow.candidates) {
            let allowed = scope.allows(&after.target, after.zone);
            match &after.outcome {
                Outcome::Leg { .. } => {
                    prop_assert!(allowed);
                    let was_able = matches!(before.outcome,
                        Outcome::Leg { .. } | Outcome::Excluded(Exclusion::Outranked));
                    prop_assert!(was_able);
                }
                Outcome::Excluded(Exclusion::OutOfScope) => prop_assert!(!allowed),
                Outcome::Excluded(Exclusion::NotAsked) => {}
                Outcome::Excluded(_) => prop_assert!(allowed),
            }
        }
    }

    /// Whatever the state of the world, no leg lies beyond the ceiling, lacks a
    /// needed ability or is down, and every target is accounted for.
    #[test]
    fn no_leg_is_ever_outside_what_the_gate_allows(
        targets in proptest::collection::vec(any_state(), 0..20),
        zone in 0..3u8,
        deadline in proptest::option::of(-10.0..1e6f64),
        limit in proptest::option::of(0..1000u64),
        needs_tools in any::<bool>(),
        side in 0..3u8,
    ) {
        let zone = [Zone::Device, Zone::Site, Zone::Cloud][usize::from(zone)];
        let facts = Facts {
            deadline_ms: deadline,
            max_cost_micro: limit,
            needs: if needs_tools { vec![Ability::Tools] } else { vec![] },
            side: [Side::Auto, Side::Local, Side::Remote][usize::from(side)],
            ..facts()
        };
        let snapshot = Snapshot { targets };
        match decide(request(zone), &facts, &snapshot) {
            Err(refused) => prop_assert!(matches!(refused.verdict, Verdict::Refuse(_))),
            Ok(decision) => {
                let zones: Vec<Zone> = match &decision.plan {
                    Plan::Confined { legs, .. } => legs.iter().map(|_| Zone::Device).collect(),
                    Plan::Portable { legs, .. } => legs.iter().map(|l| match l {
                        Leg::Local(_) => Zone::Device,
                        Leg::Remote(l) => l.zone(),
                    }).collect(),
                };
                prop_assert!(zones.iter().all(|z| *z <= zone));
                prop_assert!(zones.len() <= MAX_LEGS);
                let legs = decision.explanation.candidates.iter()
                    .filter(|c| matches!(c.outcome, Outcome::Leg { .. })).count();
                prop_assert_eq!(legs, zones.len());
                prop_assert_eq!(decision.explanation.candidates.len(), snapshot.targets.len());
                for candidate in &decision.explanation.candidates {
                    if let Outcome::Leg { forecast, .. } = &candidate.outcome {
                        prop_assert!((0.0..=1.0).contains(&forecast.p_meets));
                        prop_assert!(forecast.score.is_finite());
                        if let (Some(limit), Some(cost)) = (limit, forecast.cost_micro) {
                            prop_assert!(cost <= limit);
                        }
                    }
                }
            }
        }
    }
}
