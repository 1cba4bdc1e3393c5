//! Whatever happens, a confined request leaves no trace at egress.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::config::Privacy;
use crate::handover::{PartState, Role};

/// What makes the request confined.
#[derive(Clone, Debug)]
enum Confines {
    Tag(String),
    RouteLocal,
    Default,
    Feature,
}

/// How the engine fares.
#[derive(Clone, Copy, Debug)]
enum Engine {
    Answers,
    Fails,
    DiesAndComesBack,
    DiesInTheAnswer,
    SaysNothingAndDies,
    Down,
}

fn confines() -> impl Strategy<Value = Confines> {
    prop_oneof![
        "device|redact|devise|[a-z ]{0,8}".prop_map(Confines::Tag),
        Just(Confines::RouteLocal),
        Just(Confines::Default),
        Just(Confines::Feature),
    ]
}

fn engine() -> impl Strategy<Value = Engine> {
    prop_oneof![
        Just(Engine::Answers),
        Just(Engine::Fails),
        Just(Engine::DiesAndComesBack),
        Just(Engine::DiesInTheAnswer),
        Just(Engine::SaysNothingAndDies),
        Just(Engine::Down),
    ]
}

async fn start(world: &World, engine: Engine) {
    let script: Script = match engine {
        Engine::Answers => always(answers()),
        Engine::Fails => always(vec![fail(FailureKind::Overloaded)]),
        Engine::DiesAndComesBack => Arc::new(|job| {
            if job % 2 == 0 {
                vec![Act::Die]
            } else {
                answers()
            }
        }),
        Engine::DiesInTheAnswer => always(vec![content("half"), Act::Die]),
        Engine::SaysNothingAndDies => always(vec![Act::Die]),
        Engine::Down => {
            let restart_in_ms = 60_000;
            let state = PartState::Down { restart_in_ms };
            let parts = &world.road.view.parts;
            parts.hear(Role::Engine, state, Instant::now());
            return;
        }
    };
    world.start_engine(script, true).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_confined_request_never_reaches_egress(
        confines in confines(),
        engine in engine(),
        deadline_ms in proptest::option::of(-1.0..50.0f64),
        ttft_ms in proptest::option::of(0.0..50.0f64),
        model in "auto|local/small|far/big|big|far/other|",
        wider in proptest::option::of("cloud|site"),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let device = Zone::Device;
        let privacy = Privacy {
            default: if matches!(confines, Confines::Default) { device } else { Zone::Cloud },
            features: match confines {
                Confines::Feature => BTreeMap::from([("kiosk".to_owned(), device)]),
                _ => BTreeMap::new(),
            },
        };
        let ask_so = || {
            let mut asked = match &confines {
                // A known wider tag beside it must not widen it.
                Confines::Tag(tag) if !["cloud", "site", "redact"].contains(&tag.trim()) => {
                    tagged(&model, tag)
                }
                Confines::Tag(_) => tagged(&model, "device"),
                _ => ask(&model),
            };
            if matches!(confines, Confines::RouteLocal) {
                asked.side = Side::Local;
            }
            let wider = wider.iter().map(|tag| nearfar_domain::privacy::read_tag(tag));
            asked.says.extend(wider);
            Asked { deadline_ms, ttft_ms, ..asked }
        };
        runtime.block_on(async {
            let world = World::empty(Plan { privacy, ..Plan::default() });
            world.start_egress(always(answers())).await;
            start(&world, engine).await;
            for _ in 0..3 {
                match world.answer(ask_so()).await {
                    Ok(answer) => {
                        prop_assert_eq!(answer.zone, Zone::Device);
                        let events = read(answer).await;
                        prop_assert!(events.last().unwrap().is_last());
                    }
                    Err(RoadError::Failed { target, .. }) => prop_assert!(target.is_local()),
                    Err(RoadError::Refused(explanation)) => {
                        prop_assert_eq!(explanation.ceiling.zone, Zone::Device);
                    }
                    Err(other) => prop_assert!(false, "{:?}", other),
                }
                world.row().await;
                prop_assert!(world.no_more_rows(), "settled once");
            }
            // The control: the same peer does hear what may leave.
            prop_assert!(world.egress_heard_nothing());
            if !matches!(confines, Confines::Default | Confines::Feature) {
                read(world.answer(ask("far/big")).await.unwrap()).await;
                prop_assert_eq!(world.egress_hears().await, Heard::Run("big".into()));
            }
            Ok(())
        })?;
    }
}
