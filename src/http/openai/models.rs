//! `/v1/models`: what a request can name.

use nearfar_domain::snapshot::TargetState;
use serde_json::{Value, json};

/// The list: `auto` and aliases first, then near targets before far ones.
pub(crate) fn list(names: &[&str], targets: &[TargetState]) -> Value {
    let data: Vec<Value> = names
        .iter()
        .map(|name| own(name))
        .chain(targets.iter().map(model))
        .collect();
    json!({"object": "list", "data": data})
}

/// One model; `None` when there is none of this name.
pub(crate) fn find(names: &[&str], targets: &[TargetState], id: &str) -> Option<Value> {
    if names.contains(&id) {
        return Some(own(id));
    }
    targets
        .iter()
        .find(|state| state.target.id.to_string() == id)
        .map(model)
}

/// A name that lets nearfar decide.
fn own(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "nearfar"})
}

/// OpenAI's object, and what nearfar knows of the target under `nearfar`.
fn model(state: &TargetState) -> Value {
    json!({
        "id": state.target.id.to_string(),
        "object": "model",
        "created": 0,
        "owned_by": state.target.id.place(),
        "nearfar": target(state),
    })
}

/// A target and its state, as `/v1/models` and the status show it.
pub(crate) fn target(state: &TargetState) -> Value {
    json!({
        "target": state.target.id.to_string(),
        "zone": state.target.zone(),
        "health": state.health,
        "auto": state.target.auto,
        "wait_ms": state.wait_ms,
        "latency": state.latency,
        "capabilities": state.target.capabilities,
        "price": state.target.price,
    })
}
