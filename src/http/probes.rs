//! What watches the daemon: liveness, readiness, metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use nearfar_domain::frames::{DraftLoad, EngineState};
use serde_json::{Value, json};

use super::api::Api;
use super::caller::Caller;
use super::problem::Problem;
use super::reply::json;
use crate::gate::{Gate, Part};
use crate::handover::PartState;
use crate::telemetry::{CacheGauges, ExportGauges, Gauges, LimitGauge, SharingGauges};

/// Always 200 once the gate is up: restarting it would mend nothing else.
pub(crate) async fn healthz() -> Response {
    let body = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")});
    json(StatusCode::OK, &body)
}

/// 200 when requests of both sides find everything in its place, else 503; in
/// both cases with the state of every part, for those who are let in.
pub(crate) async fn readyz(
    State(api): State<Arc<Api>>,
    caller: Result<Caller, Problem>,
) -> Response {
    let (ready, mut body) = parts(&api.gate);
    if caller.is_err() {
        body = json!({"ready": ready});
    }
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, &body)
}

/// The state of every part, and whether all are ready.
pub(crate) fn parts(gate: &Gate) -> (bool, Value) {
    let parts = gate.parts();
    let draining = gate.is_draining();
    let ready = parts.is_ready() && !draining;
    let mut engine = part(&parts.engine);
    engine["model"] = json!(parts.model);
    engine["model_ready"] = json!(parts.model_ready);
    engine["model_problem"] = json!(parts.model_problem);
    let state = gate.engine_state();
    engine["queued"] = json!(state.queued);
    engine["running"] = json!(state.running);
    engine["models"] = json!(state.models);
    engine["drafts"] = drafts(&state)
        .map(|(model, draft)| json!({"model": model, "draft": draft}))
        .collect();
    let mut egress = part(&parts.egress);
    let providers = gate.providers();
    let providers = providers.iter().map(|provider| {
        json!({
            "name": provider.name,
            "dialect": provider.dialect,
            "zone": provider.zone,
            "ready": provider.ready,
            "models": provider.models.len(),
            "open_list": provider.open_list,
        })
    });
    egress["providers"] = providers.collect();
    let body = json!({
        "ready": ready,
        "version": env!("CARGO_PKG_VERSION"),
        "gate": {
            "state": if draining { "draining" } else { "up" },
            "pid": std::process::id(),
        },
        "engine": engine,
        "egress": egress,
        "sandbox": gate.setup().sandbox,
    });
    (ready, body)
}

/// Models in memory with a draft, and how it fares.
fn drafts(state: &EngineState) -> impl Iterator<Item = (&str, &DraftLoad)> {
    let loads = state.loads.iter();
    loads.filter_map(|load| Some((load.name.as_str(), load.draft.as_ref()?)))
}

fn part(part: &Part) -> Value {
    let (state, restart_in_ms) = match part.state {
        PartState::Starting => ("starting", None),
        PartState::Up => ("up", None),
        PartState::Down { restart_in_ms } => ("down", Some(restart_in_ms)),
    };
    let mut shown = json!({"state": state, "pid": part.pid});
    if let Some(ms) = restart_in_ms {
        shown["restart_in_ms"] = json!(ms);
    }
    shown
}

/// OpenMetrics text.
pub(crate) async fn metrics(State(api): State<Arc<Api>>, _: Caller) -> Response {
    let gate = &api.gate;
    let parts = gate.parts();
    let engine = gate.engine_state();
    let limits = gate.limits().tallies().into_iter();
    let limits = limits.map(|tally| LimitGauge {
        limit: tally.limit,
        measure: tally.measure,
        fullest: tally.fullest,
        refused: tally.refused,
        steered: tally.steered,
        estimated: tally.estimated,
    });
    let cache = gate.cache().is_on().then(|| {
        let stats = gate.cache().stats(std::time::Instant::now());
        CacheGauges {
            hits: stats.hits,
            semantic_hits: stats.semantic_hits,
            misses: stats.misses,
            bypassed: stats.bypassed,
            evicted: stats.evicted,
            entries: stats.entries,
            bytes: stats.bytes,
            saved_micro: stats.saved_micro,
        }
    });
    let text = gate.metrics().render(&Gauges {
        drafts: drafts(&engine)
            .map(|(model, draft)| (format!("local/{model}"), draft.clone()))
            .collect(),
        limits: limits.collect(),
        dropped_rows: gate.ledger().dropped(),
        sharing: gate.limits().sharing().map(|sharing| SharingGauges {
            up: sharing.up,
            alone: sharing.alone,
            outages: sharing.outages,
        }),
        export: gate.export().map(|state| ExportGauges {
            behind_rows: state.behind_rows,
            sent_rows: state.sent_rows,
            failed_batches: state.failed_batches,
            up: state.error.is_none(),
        }),
        in_flight: gate.under_way(),
        engine_queued: engine.queued,
        engine_running: engine.running,
        engine_up: parts.engine.state == PartState::Up,
        egress_up: parts.egress.state == PartState::Up,
        cache,
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
