//! `/admin/v1/keys`: virtual keys. On the control socket alone.
//!
//! A token is in the reply to its making and nowhere else.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::blocking;
use super::api::Api;
use super::caller::now_ms;
use super::problem::Problem;
use super::query;
use super::reply::json;
use crate::admission::{KeyProblem, NewKey, Token};
use crate::store::Key;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/admin/v1/keys", get(list).post(create))
        .route("/admin/v1/keys/{key}", get(show).delete(revoke))
        .route("/admin/v1/keys/{key}/rotate", post(rotate))
}

/// A key as it is shown: all but its token, which nobody has.
pub(crate) fn shown(key: &Key, now_ms: i64) -> Value {
    let state = match key {
        key if key.revoked_ms.is_some() => "revoked",
        key if key.expires_ms.is_some_and(|end| end <= now_ms) => "expired",
        _ => "active",
    };
    let grace = key.previous.as_ref().map(|(_, until)| *until);
    json!({
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "state": state,
        "feature": key.feature,
        "features": key.scope.features,
        "targets": key.scope.targets,
        "zones": key.scope.zones,
        "fronts": key.scope.fronts,
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "last_used_ms": key.last_used_ms,
        "revoked_ms": key.revoked_ms,
        "previous_token_until_ms": grace.filter(|until| *until > now_ms),
    })
}

/// A key with its token, this once.
pub(crate) fn with_token(key: &Key, token: &Token, now_ms: i64) -> Value {
    json!({"key": shown(key, now_ms), "token": token.reveal()})
}

/// `?tenant=…` → `{"keys": […]}`, also those that are not good any more.
async fn list(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let mut tenant = None;
    for (name, value) in query::pairs(request.uri().query()) {
        match name.as_str() {
            "tenant" => tenant = Some(value),
            _ => return Err(Problem::field(&name, "The only parameter is tenant.")),
        }
    }
    let now_ms = now_ms();
    let all = api.gate.keys().list();
    let wanted = |key: &&Key| tenant.as_ref().is_none_or(|tenant| *tenant == key.tenant);
    let keys: Vec<Value> = all
        .iter()
        .filter(wanted)
        .map(|key| shown(key, now_ms))
        .collect();
    Ok(json(StatusCode::OK, &json!({"keys": keys})))
}

async fn show(State(api): State<Arc<Api>>, Path(named): Path<String>) -> Result<Response, Problem> {
    let key = api.gate.keys().find(&named).map_err(of_keys)?;
    Ok(json(StatusCode::OK, &json!({"key": shown(&key, now_ms())})))
}

/// The body is a [`NewKey`]; the reply `{"key": {…}, "token": "nf_…"}`.
async fn create(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let example = "{\"name\": …, \"tenant\": …, \"targets\": […], \"expires_in_s\": …}";
    let new: NewKey = body(&api, request, example).await?;
    let (keys, now_ms) = (Arc::clone(api.gate.keys()), now_ms());
    let made = blocking(move || keys.create(&new, now_ms)).await?;
    let (key, token) = made.map_err(of_keys)?;
    tracing::info!(key = %key.id, tenant = %key.tenant, "a key was made");
    let body = with_token(&key, &token, now_ms);
    Ok(json(StatusCode::CREATED, &body))
}

async fn revoke(
    State(api): State<Arc<Api>>,
    Path(named): Path<String>,
) -> Result<Response, Problem> {
    let (keys, now_ms) = (Arc::clone(api.gate.keys()), now_ms());
    let revoked = blocking(move || keys.revoke(&named, now_ms)).await?;
    let key = revoked.map_err(of_keys)?;
    tracing::info!(key = %key.id, tenant = %key.tenant, "a key was revoked");
    Ok(json(StatusCode::OK, &json!({"key": shown(&key, now_ms)})))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    /// Seconds for which the token before stays good.
    grace_s: Option<u64>,
}

/// The body is `{"grace_s": …}` or `{}`; the reply as that of making one.
async fn rotate(
    State(api): State<Arc<Api>>,
    Path(named): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let rotation: Rotation = body(&api, request, "{\"grace_s\": 86400}").await?;
    let (keys, now_ms) = (Arc::clone(api.gate.keys()), now_ms());
    let rotated = blocking(move || keys.rotate(&named, rotation.grace_s, now_ms)).await?;
    let (key, token) = rotated.map_err(of_keys)?;
    tracing::info!(key = %key.id, tenant = %key.tenant, "a key was rotated");
    Ok(json(StatusCode::OK, &with_token(&key, &token, now_ms)))
}

async fn body<T: for<'de> Deserialize<'de>>(
    api: &Api,
    request: Request,
    example: &str,
) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let body = api.bodies.read(&head.headers, body).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let message = format!("The body must be {example}: {error}.");
        Problem::bad_request("invalid_json", message)
    })
}

/// The texts of these errors are for people who manage the device.
fn of_keys(problem: KeyProblem) -> Problem {
    let (status, code) = match &problem {
        KeyProblem::Field(field, mend) => return Problem::field(*field, mend.clone()),
        KeyProblem::NoSuchKey => (StatusCode::NOT_FOUND, "key_not_found"),
        KeyProblem::SeveralKeys(_) => (StatusCode::CONFLICT, "several_keys"),
        KeyProblem::NotGood => (StatusCode::CONFLICT, "key_not_good"),
        KeyProblem::TooMany => (StatusCode::CONFLICT, "too_many_keys"),
        KeyProblem::NoRandomness | KeyProblem::Store(_) | KeyProblem::NotKept(_) => {
            return Problem::of_ours("keys", problem.to_string());
        }
    };
    Problem::of_request(status, code, problem.to_string())
}
