//! The control API, on the control socket alone.
//!
//! Who may open that socket is the file system's affair: it has mode 0600.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use nearfar_domain::frames::DownloadEvent;
use nearfar_domain::ids::JobId;
use serde_json::json;

use super::api::Api;
use super::cache;
use super::openai::models::target;
use super::probes::parts;
use super::problem::Problem;
use super::query;
use super::reply::json;
use super::{limits, memory};
use crate::catalog::{CatalogError, PullLine, PullSpec, install_downloaded, plan_download};
use crate::gate::Gate;
use crate::store::{Dimension, UsageQuery};

/// The routes of the control API.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/admin/v1/status", get(status))
        .route("/admin/v1/usage", get(usage))
        .route("/admin/v1/limits", get(limits::list))
        .route("/admin/v1/cache", get(cache::show).delete(cache::clear))
        .route("/admin/v1/models", get(list).post(pull))
        .route("/admin/v1/models/rescan", post(rescan))
        .route("/admin/v1/models/memory", get(memory::show))
        .route("/admin/v1/models/{name}", delete(remove))
        .route("/admin/v1/models/{name}/load", post(memory::load))
        .route("/admin/v1/models/{name}/unload", post(memory::unload))
}

/// Everything about the daemon that is not a request.
async fn status(State(api): State<Arc<Api>>) -> Response {
    let gate = &api.gate;
    let (_, mut body) = parts(gate);
    let setup = gate.setup();
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
    body["started_ms"] = json!(setup.started_ms);
    body["uptime_ms"] = json!(now_ms.saturating_sub(setup.started_ms).max(0));
    body["state_dir"] = json!(setup.state_dir);
    body["config_path"] = json!(setup.config_path);
    body["listen"] = json!(gate.config().server.listen);
    body["requests"] = json!({
        "under_way": gate.under_way(),
        "limit": gate.config().server.max_requests,
    });
    body["ledger"] = json!({
        "path": gate.ledger().path(),
        "dropped_rows": gate.ledger().dropped(),
    });
    if let Some(state) = gate.limits().sharing() {
        body["shared_limits"] = json!(state);
    }
    if let Some(state) = gate.export() {
        body["fleet_ledger"] = json!(state);
    }
    body["targets"] = gate.targets().iter().map(target).collect();
    json(StatusCode::OK, &body)
}

/// `?by=target,feature&since_ms=…&until_ms=…` → `{"lines": […]}`.
async fn usage(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let asked = usage_query(request.uri().query())?;
    let ledger = Arc::clone(api.gate.ledger());
    let lines = blocking(move || {
        // Whoever just made a request wants to find it here.
        ledger.flush();
        ledger.usage(&asked)
    })
    .await?
    .map_err(|error| Problem::of_ours("ledger", error.to_string()))?;
    Ok(json(StatusCode::OK, &json!({"lines": lines})))
}

fn usage_query(text: Option<&str>) -> Result<UsageQuery, Problem> {
    let mut asked = UsageQuery::default();
    for (name, value) in query::pairs(text) {
        let time = || {
            let wrong = "This must be a time in milliseconds since 1970.";
            value
                .parse()
                .map(Some)
                .map_err(|_| Problem::field(&name, wrong))
        };
        match name.as_str() {
            "by" => {
                asked.by = Dimension::list(&value)
                    .map_err(|error| Problem::field("by", error.to_string()))?;
            }
            "since_ms" => asked.since_ms = time()?,
            "until_ms" => asked.until_ms = time()?,
            _ => {
                let mend = "The parameters are by, since_ms and until_ms.";
                return Err(Problem::field(&name, mend));
            }
        }
    }
    Ok(asked)
}

/// This device's models: `{"models": […]}`.
async fn list(State(api): State<Arc<Api>>) -> Response {
    let models = api.gate.catalog().models();
    json(StatusCode::OK, &json!({"models": *models}))
}

async fn rescan(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let catalog = Arc::clone(api.gate.catalog());
    let count = blocking(move || catalog.rescan()).await?;
    Ok(json(StatusCode::OK, &json!({"models": count})))
}

async fn remove(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let catalog = Arc::clone(api.gate.catalog());
    let shown = name.clone();
    blocking(move || {
        catalog.store().remove(&name)?;
        catalog.rescan();
        Ok(())
    })
    .await?
    .map_err(of_catalog)?;
    Ok(json(StatusCode::OK, &json!({"removed": shown})))
}

/// Fetches a model through egress and installs it. The body is a [`PullSpec`];
/// the answer is one [`PullLine`] a line, the last one `installed` or `failed`.
/// Hanging up stops the download; the next call goes on from there.
async fn pull(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = api.bodies.read(&head.headers, body).await?;
    let spec: PullSpec = serde_json::from_slice(&body).map_err(|error| {
        let example = "{\"hf\": \"owner/repo/file.gguf\", \"name\": …, \"sha256\": …}";
        Problem::bad_request(
            "invalid_json",
            format!("The body must be {example}: {error}."),
        )
    })?;
    let (catalog, asked) = (Arc::clone(api.gate.catalog()), spec.clone());
    let planned = blocking(move || plan_download(catalog.store(), JobId(0), &asked)).await?;
    let download = planned.map_err(of_catalog)?;
    let file = PathBuf::from(&download.into).join(&download.save_as);
    let pulling = Pulling {
        gate: Arc::clone(&api.gate),
        spec,
        file,
        step: Step::Fetching(Box::pin(api.gate.download(download))),
    };
    let lines = stream::unfold(pulling, |pulling| async {
        let (line, pulling) = pulling.next().await?;
        // A line of our own types always is JSON.
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Some((
            Ok::<_, std::convert::Infallible>(Bytes::from(text)),
            pulling,
        ))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// One model on its way in.
struct Pulling {
    gate: Arc<Gate>,
    spec: PullSpec,
    file: PathBuf,
    step: Step,
}

enum Step {
    Fetching(Pin<Box<dyn Stream<Item = DownloadEvent> + Send>>),
    Installing { sha256: String, verified: bool },
    Over,
}

impl Pulling {
    async fn next(mut self) -> Option<(PullLine, Self)> {
        let line = match std::mem::replace(&mut self.step, Step::Over) {
            Step::Over => return None,
            Step::Fetching(mut events) => {
                let event = events.next().await.unwrap_or_else(cut_off);
                self.step = match &event {
                    DownloadEvent::Progress { .. } => Step::Fetching(events),
                    DownloadEvent::Finished {
                        sha256, verified, ..
                    } => Step::Installing {
                        sha256: sha256.clone(),
                        verified: *verified,
                    },
                    DownloadEvent::Failed { .. } => Step::Over,
                };
                event.into()
            }
            Step::Installing { sha256, verified } => self.install(sha256, verified).await,
        };
        Some((line, self))
    }

    async fn install(&mut self, sha256: String, verified: bool) -> PullLine {
        let catalog = Arc::clone(self.gate.catalog());
        let (spec, file) = (self.spec.clone(), self.file.clone());
        let installed = blocking(move || {
            let store = catalog.store();
            let installed = install_downloaded(store, &file, &spec, &sha256, verified);
            catalog.rescan();
            installed
        });
        let message = match installed.await {
            Ok(Ok(model)) => {
                return PullLine::Installed {
                    model: Box::new(model),
                };
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nearfar made a mistake. Its log says more.".to_owned(),
        };
        PullLine::Failed {
            message,
            retryable: false,
        }
    }
}

fn cut_off() -> DownloadEvent {
    DownloadEvent::Failed {
        message: "The download broke off. Try again; it goes on from there.".to_owned(),
        retryable: true,
    }
}

/// Runs what blocks on the disk away from the connections.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::internal())
}

/// The texts of these errors are for people who manage the device.
fn of_catalog(error: CatalogError) -> Problem {
    let (status, code) = match &error {
        CatalogError::Spec(_) => (StatusCode::BAD_REQUEST, "invalid_value"),
        CatalogError::NotFound(_) | CatalogError::NoSuchModel(_) => {
            (StatusCode::NOT_FOUND, "model_not_found")
        }
        CatalogError::NameTaken(_) | CatalogError::Embedded(..) => {
            (StatusCode::CONFLICT, "name_taken")
        }
        CatalogError::NoRoom { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no_room"),
        _ => return Problem::of_ours("model_store", error.to_string()),
    };
    Problem::of_request(status, code, error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_usage_query_is_read_or_names_what_is_wrong() {
        let asked = usage_query(Some("by=target%2Cfeature&since_ms=5")).unwrap();
        assert_eq!(asked.by, [Dimension::Target, Dimension::Feature]);
        assert_eq!(asked.since_ms, Some(5));
        assert_eq!(usage_query(None).unwrap(), UsageQuery::default());
        for (query, field) in [
            ("by=colour", "by"),
            ("since_ms=soon", "since_ms"),
            ("sins_ms=1", "sins_ms"),
        ] {
            let body = usage_query(Some(query)).unwrap_err().openai_body();
            assert_eq!(body["error"]["param"], field);
        }
    }
}
