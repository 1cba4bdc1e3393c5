//! How long a decision takes: 16 targets, a portable request with a deadline.
//! `cargo bench -p nearfar-domain --bench decide` prints nanoseconds.

use std::hint::black_box;
use std::time::Instant;

use nearfar_domain::chat::{Chat, Message, Role};
use nearfar_domain::explain::Ability;
use nearfar_domain::ids::{DecisionId, TargetId};
use nearfar_domain::price::Price;
use nearfar_domain::privacy::classify;
use nearfar_domain::route::{Facts, ModelChoice, Side, decide};
use nearfar_domain::snapshot::{Health, Latency, Snapshot, TargetState};
use nearfar_domain::target::{Capabilities, Dialect, Place, RemoteZone, Target};

const TARGETS: u32 = 16;
const ROUNDS: usize = 20_000;

fn target(number: u32) -> TargetState {
    let local = number < 4;
    let name = format!("model-{number}");
    TargetState {
        cached_tokens: 0,
        barred: None,
        soft: None,
        target: Target {
            id: match TargetId::remote(format!("provider-{number}"), name.clone()) {
                Some(id) if !local => id,
                _ => TargetId::local(name),
            },
            place: if local {
                Place::Local
            } else {
                Place::Remote {
                    zone: RemoteZone::Cloud,
                    dialect: Dialect::Openai,
                }
            },
            capabilities: Capabilities {
                context_tokens: Some(8192),
                tools: true,
                forced_tools: true,
                json_object: true,
                json_schema: true,
                grammar: true,
                vision: number.is_multiple_of(3),
                logprobs: true,
                raw_text: true,
                chat: true,
                embeddings: false,
            },
            price: Some(Price::FREE),
            auto: true,
        },
        health: if number == 5 {
            Health::BreakerOpen
        } else {
            Health::Up
        },
        wait_ms: f64::from(number),
        latency: Latency {
            ttft_ms: 100.0,
            ms_per_prompt_token: 0.5,
            ms_per_token: 10.0 + f64::from(number),
            log_sd: 0.4,
        },
    }
}

fn main() {
    let snapshot = Snapshot {
        targets: (0..TARGETS).map(target).collect(),
    };
    let facts = Facts {
        id: DecisionId(1),
        prompt_tokens: 300,
        expected_tokens: 150,
        reserved_tokens: 256,
        needs: vec![Ability::Tools],
        model: ModelChoice::Auto,
        scope: std::sync::Arc::default(),
        side: Side::Auto,
        deadline_ms: Some(2_000.0),
        ttft_ms: Some(400.0),
        max_cost_micro: Some(1_000_000),
        most_prompt_tokens: 600,
        most_completion_tokens: None,
        writes_cache: false,
    };
    let mut nanos: Vec<u128> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        // Drawing the line belongs to it; the prompt itself is not copied.
        let chat = Chat::turns(vec![Message::text(Role::User, "hello")]);
        let request = classify(chat, &[]);
        let began = Instant::now();
        let decision = decide(request, black_box(&facts), black_box(&snapshot));
        let _ = black_box(decision);
        nanos.push(began.elapsed().as_nanos());
    }
    nanos.sort_unstable();
    let at = |share: f64| nanos[((ROUNDS - 1) as f64 * share) as usize];
    println!(
        "decide, {TARGETS} targets: p50 {} ns, p99 {} ns (bound: 20000 ns)",
        at(0.5),
        at(0.99)
    );
}
