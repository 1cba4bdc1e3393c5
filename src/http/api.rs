//! The data API: what apps call.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};

use super::anthropic::{self, count};
use super::asked::{Understood, asked};
use super::body::Bodies;
use super::caller::Caller;
use super::dialect::Dialect;
use super::openai::{embeddings, models, request, responses};
use super::problem::Problem;
use super::reply::{json, reply};
use super::route::explanation_json;
use super::{ollama, prefill, probes, reply::Wish};
use crate::gate::Gate;
use crate::road::{Asked, aside};

/// What every handler sees.
pub(crate) struct Api {
    pub(crate) gate: Arc<Gate>,
    pub(crate) bodies: Bodies,
    /// Whether who shows no key is refused on this listener.
    pub(crate) requires_key: bool,
}

/// The routes of the data API.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(completions))
        .route("/v1/embeddings", post(make_embeddings))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count::count_tokens))
        .route("/v1/prefill", post(prefill::prefill).delete(prefill::unpin))
        .route("/v1/route", post(explain))
        .route("/v1/models", get(list_models))
        .route("/v1/models/{*id}", get(find_model))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .merge(responses::routes())
        .merge(ollama::routes())
}

/// Whether a path is OpenAI's or our own: what is neither may be of another
/// dialect, which its headers tell.
pub(crate) fn is_known(path: &str) -> bool {
    const KNOWN: [&str; 8] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/prefill",
        "/v1/route",
        "/healthz",
        "/readyz",
        "/metrics",
    ];
    KNOWN.contains(&path) || path.starts_with("/v1/responses")
}

async fn chat_completions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(&api, caller, "openai.chat", request, |body| {
        request::chat_completion(body).map(Into::into)
    })
    .await
}

async fn completions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(&api, caller, "openai.completions", request, |body| {
        request::completion(body).map(Into::into)
    })
    .await
}

async fn make_embeddings(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(&api, caller, "openai.embeddings", request, |body| {
        embeddings::request(body).map(Into::into)
    })
    .await
}

async fn messages(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(
        &api,
        caller,
        "anthropic.messages",
        request,
        anthropic::request::message,
    )
    .await
}

/// Decides and does not run.
async fn explain(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (asked, _) = read(&api, caller, "route", request, |body| {
        request::to_be_explained(body).map(Into::into)
    })
    .await?;
    let explanation = api.gate.route(asked)?;
    Ok(json(StatusCode::OK, &explanation_json(&explanation)))
}

pub(crate) async fn answer(
    api: &Api,
    caller: Caller,
    endpoint: &'static str,
    request: Request,
    understand: Understand,
) -> Result<Response, Problem> {
    let (asked, wish) = read(api, caller, endpoint, request, understand).await?;
    Ok(reply(api.gate.answer(asked).await?, wish).await)
}

/// How an endpoint's body is understood.
pub(crate) type Understand = fn(&[u8]) -> Result<Understood, Problem>;

/// Reads a request: its body as the endpoint understands it, and its tags.
pub(crate) async fn read(
    api: &Api,
    caller: Caller,
    endpoint: &'static str,
    request: Request,
    understand: Understand,
) -> Result<(Asked, Wish), Problem> {
    let (parts, body) = request.into_parts();
    let body = api.bodies.read(&parts.headers, body).await?;
    // The text lives on in the request; the body's share of the allowance is
    // free again when this returns.
    let understood = aside(body.len(), || understand(&body))?;
    asked(caller, endpoint, &parts.headers, understood)
}

async fn list_models(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Response {
    let targets = api.gate.targets_for(&caller.0);
    let names = api.gate.names_for(&caller.0);
    let list = match Dialect::of(request.uri().path(), request.headers()) {
        Dialect::Anthropic => anthropic::models::list(&names, &targets),
        _ => models::list(&names, &targets),
    };
    json(StatusCode::OK, &list)
}

async fn find_model(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let targets = api.gate.targets_for(&caller.0);
    let names = api.gate.names_for(&caller.0);
    let found = match Dialect::of(request.uri().path(), request.headers()) {
        Dialect::Anthropic => anthropic::models::find(&names, &targets, &id),
        _ => models::find(&names, &targets, &id),
    };
    match found {
        Some(model) => Ok(json(StatusCode::OK, &model)),
        None => Err(Problem::no_such_model(
            "There is no such model. GET /v1/models lists those that there are.",
        )),
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
