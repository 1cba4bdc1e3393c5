//! Models in the engine's memory: what is there, loading, unloading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use nearfar_domain::frames::LoadedModel;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::api::Api;
use super::problem::Problem;
use super::reply::json as answer;
use crate::catalog::LocalModel;
use crate::gate::Gate;

/// How often a load's progress is told.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What is in memory, what is on its way there, and how much all may take.
pub(super) async fn show(State(api): State<Arc<Api>>) -> Response {
    let state = api.gate.engine_state();
    answer(
        StatusCode::OK,
        &json!({
            "models": state.models,
            "loading": state.loading,
            "memory_budget": state.memory_budget,
        }),
    )
}

/// Drops a model from memory as soon as no request uses it.
pub(super) async fn unload(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let model = installed(&api.gate, &name)?;
    let in_memory = api
        .gate
        .engine_state()
        .models
        .iter()
        .any(|loaded| loaded.name == model.name);
    api.gate.unload_model(&model).await;
    let body = json!({"unloading": model.name, "in_memory": in_memory});
    Ok(answer(StatusCode::OK, &body))
}

/// Loads a model before anybody asks it. The answer is one object a line:
/// `progress` with `have` and `total` bytes, then `loaded` or `failed`.
pub(super) async fn load(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let model = installed(&api.gate, &name)?;
    let loads = api.gate.load_model(&model).await;
    let loading = Loading {
        gate: Arc::clone(&api.gate),
        name: model.name,
        loads,
        told: None,
        over: false,
    };
    let lines = stream::unfold(loading, |loading| async {
        let (line, loading) = loading.next().await?;
        let bytes = Bytes::from(format!("{line}\n"));
        Some((Ok::<_, std::convert::Infallible>(bytes), loading))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

fn installed(gate: &Gate, name: &str) -> Result<LocalModel, Problem> {
    let models = gate.catalog().models();
    let model = models.iter().find(|model| model.name == name);
    model.cloned().ok_or_else(|| {
        Problem::no_such_model(
            "No model of this name is installed. `nearfar model list` shows those that are.",
        )
    })
}

type Loads = watch::Receiver<BTreeMap<String, Result<LoadedModel, String>>>;

/// One load that somebody watches. Hanging up does not stop it.
struct Loading {
    gate: Arc<Gate>,
    name: String,
    loads: Loads,
    told: Option<u64>,
    over: bool,
}

impl Loading {
    async fn next(mut self) -> Option<(Value, Self)> {
        if self.over {
            return None;
        }
        loop {
            let settled = self.loads.borrow_and_update().get(&self.name).cloned();
            let last = match settled {
                Some(Ok(model)) => Some(json!({"event": "loaded", "model": model})),
                Some(Err(message)) => Some(json!({"event": "failed", "message": message})),
                None if self.gate.parts().engine.pid.is_none() => {
                    let message = "The engine is not running. It is being restarted; try again.";
                    Some(json!({"event": "failed", "message": message}))
                }
                None => None,
            };
            if let Some(line) = last {
                self.over = true;
                return Some((line, self));
            }
            let state = self.gate.engine_state();
            let progress = state.loading.filter(|loading| loading.name == self.name);
            if let Some(loading) = progress
                && self.told.is_none_or(|told| told < loading.read_bytes)
            {
                self.told = Some(loading.read_bytes);
                let line = json!({"event": "progress", "have": loading.read_bytes,
                                  "total": loading.total_bytes});
                return Some((line, self));
            }
            // A change, or the time to look at the progress again.
            let _ = tokio::time::timeout(TELL_EVERY, self.loads.changed()).await;
        }
    }
}
