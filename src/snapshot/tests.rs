#![allow(clippy::unwrap_used)]

use nearfar_domain::events::FailureKind;
use nearfar_domain::frames::{LoadedModel, ModelCard, ModelSource, Tuning};
use nearfar_domain::target::RemoteZone;

use super::*;

fn model(name: &str, architecture: &str, file_bytes: u64) -> LocalModel {
    LocalModel {
        name: name.into(),
        source: if name == "concierge" {
            ModelSource::Embedded
        } else {
            ModelSource::File {
                path: format!("/models/{name}.gguf"),
                tokenizer: None,
                sha256: None,
                tuning: Tuning::default(),
            }
        },
        capabilities: Capabilities {
            context_tokens: Some(1024),
            chat: architecture != "bert",
            embeddings: architecture == "bert",
            ..dialect_can(Dialect::Openai)
        },
        architecture: architecture.into(),
        file_bytes,
        sha256: String::new(),
        embedding: None,
    }
}

fn card(name: &str, zone: RemoteZone, models: &[&str]) -> ProviderCard {
    ProviderCard {
        name: name.into(),
        dialect: Dialect::Openai,
        zone,
        ready: true,
        models: models
            .iter()
            .enumerate()
            .map(|(index, name)| ModelCard {
                name: (*name).into(),
                capabilities: dialect_can(Dialect::Openai),
                price: None,
                auto: index == 0,
                prefill: false,
            })
            .collect(),
        open_list: true,
    }
}

struct World {
    models: Vec<LocalModel>,
    cards: Vec<ProviderCard>,
    engine: Presence,
    state: EngineState,
    health: Arc<Health>,
    tariffs: Tariffs,
}

impl World {
    fn new() -> Self {
        Self {
            models: vec![
                model("concierge", "qwen3", 8_000_000),
                model("minilm", "bert", 900_000_000),
                model("qwen", "qwen3", 500_000_000),
                model("huge", "llama", 50_000_000_000),
            ],
            cards: vec![
                card("far", RemoteZone::Cloud, &["a", "b"]),
                card("lan", RemoteZone::Site, &["c"]),
            ],
            engine: Presence::Up,
            state: EngineState::default(),
            health: Arc::default(),
            tariffs: Tariffs::default(),
        }
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            models: &self.models,
            preferred: None,
            memory_bytes: 2 << 30,
            engine: self.engine,
            engine_state: &self.state,
            egress: Presence::Up,
            cards: &self.cards,
            health: &self.health,
            tariffs: &self.tariffs,
            local_price: Price::FREE,
            now: Instant::now(),
        }
    }
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let targets = snapshot.targets.iter();
    targets.map(|state| state.target.id.to_string()).collect()
}

fn state<'a>(snapshot: &'a Snapshot, name: &str) -> &'a TargetState {
    let mut targets = snapshot.targets.iter();
    targets.find(|s| s.target.id.to_string() == name).unwrap()
}

#[test]
fn near_targets_come_first_and_the_local_choice_before_all() {
    let world = World::new();
    let snapshot = world.sources().snapshot(&[]);
    assert_eq!(
        names(&snapshot),
        [
            "local/qwen",
            "local/minilm",
            "local/concierge",
            "local/huge",
            "lan/c",
            "far/a",
            "far/b"
        ]
    );
    let auto: Vec<bool> = snapshot.targets.iter().map(|s| s.target.auto).collect();
    assert_eq!(auto, [true, true, false, false, true, true, false]);
    // With two that make vectors, none is taken unasked.
    let mut world = world;
    world.models.push(model("bge", "bert", 100_000_000));
    let snapshot = world.sources().snapshot(&[]);
    assert!(!state(&snapshot, "local/minilm").target.auto);
    assert!(!state(&snapshot, "local/bge").target.auto);
}

#[test]
fn the_configured_model_wins_and_the_embedded_one_stands_in() {
    let mut world = World::new();
    let preferred = Sources {
        preferred: Some("huge"),
        ..world.sources()
    };
    assert_eq!(preferred.auto_model().unwrap().name, "huge");
    world
        .health
        .broken(&TargetId::local("qwen"), Instant::now());
    assert_eq!(world.sources().auto_model().unwrap().name, "concierge");
    world.models.truncate(1);
    assert_eq!(world.sources().auto_model().unwrap().name, "concierge");
}

#[test]
fn a_model_that_is_not_loaded_waits_for_it() {
    let mut world = World::new();
    let cold = state(&world.sources().snapshot(&[]), "local/qwen").wait_ms;
    world.state.wait_ms = 40.0;
    world.state.models.push(LoadedModel {
        name: "qwen".into(),
        architecture: "qwen3".into(),
        memory_bytes: 1,
        context_tokens: 1024,
        tools: true,
        load_ms: 900.0,
    });
    let warm = state(&world.sources().snapshot(&[]), "local/qwen").wait_ms;
    assert!(cold > 500.0, "{cold}");
    assert!((warm - 40.0).abs() < 1e-9, "{warm}");
}

#[test]
fn health_follows_processes_keys_and_breakers() {
    let mut world = World::new();
    world.engine = Presence::Down;
    world.cards[0].ready = false;
    let lan = TargetId::remote("lan", "c").unwrap();
    for _ in 0..3 {
        let now = Instant::now();
        let trial = world
            .health
            .begin(&lan, Prior::remote(RemoteZone::Site), now);
        trial.failed(FailureKind::Unreachable, None, None, now);
    }
    let snapshot = world.sources().snapshot(&[]);
    assert_eq!(state(&snapshot, "local/qwen").health, Usable::ProcessDown);
    assert_eq!(state(&snapshot, "far/a").health, Usable::NoKey);
    assert_eq!(state(&snapshot, "lan/c").health, Usable::BreakerOpen);
    world.engine = Presence::Starting(250.0);
    let snapshot = world.sources().snapshot(&[]);
    assert_eq!(state(&snapshot, "local/qwen").health, Usable::Starting);
    assert!(state(&snapshot, "local/qwen").wait_ms >= 250.0);
}

#[test]
fn an_open_provider_takes_any_name_but_only_when_asked() {
    let world = World::new();
    let id = TargetId::parse("far/new-model").unwrap();
    let snapshot = world.sources().snapshot(std::slice::from_ref(&id));
    assert!(!state(&snapshot, "far/new-model").target.auto);
    assert!(!names(&world.sources().snapshot(&[])).contains(&id.to_string()));
    let listed = TargetId::parse("far/a").unwrap();
    let twice = names(&world.sources().snapshot(std::slice::from_ref(&listed)));
    assert_eq!(twice.iter().filter(|name| *name == "far/a").count(), 1);
}
