//! `/v1/models` for clients that send `anthropic-version`.

use nearfar_domain::snapshot::TargetState;
use serde_json::{Value, json};

/// When models were made is not known here.
const UNKNOWN: &str = "1970-01-01T00:00:00Z";

/// The list in one page, `auto` and aliases first, then near targets before far ones.
pub(crate) fn list(names: &[&str], targets: &[TargetState]) -> Value {
    let data: Vec<Value> = names
        .iter()
        .map(|name| model(name, None))
        .chain(targets.iter().map(of_target))
        .collect();
    let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({"data": data, "has_more": false, "first_id": first, "last_id": last})
}

/// One model; `None` when there is none of this name.
pub(crate) fn find(names: &[&str], targets: &[TargetState], id: &str) -> Option<Value> {
    if names.contains(&id) {
        return Some(model(id, None));
    }
    let found = targets
        .iter()
        .find(|state| state.target.id.to_string() == id);
    found.map(of_target)
}

fn of_target(state: &TargetState) -> Value {
    let context = state.target.capabilities.context_tokens;
    model(&state.target.id.to_string(), context)
}

fn model(id: &str, context_tokens: Option<u32>) -> Value {
    json!({
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": UNKNOWN,
        "lifecycle": "active",
        "max_input_tokens": context_tokens,
    })
}
