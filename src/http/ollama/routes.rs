//! The routes under `/api`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;

use super::lines::{self, Kind};
use super::memory::{self, Named};
use super::models::{self, Described};
use super::options::KeepAlive;
use super::request::{self, Read};
use crate::gate::Gate;
use crate::http::api::Api;
use crate::http::asked::asked;
use crate::http::caller::Caller;
use crate::http::fields::Fields;
use crate::http::problem::Problem;
use crate::http::reply::{json, reply};
use crate::http::tags;
use crate::road::aside;

/// The routes of Ollama's API.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(root))
        .route("/api/version", get(version))
        .route("/api/tags", get(list))
        .route("/api/ps", get(loaded))
        .route("/api/show", post(show))
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .route("/api/embed", post(embed))
        .route("/api/embeddings", post(embeddings))
        .route("/api/pull", post(|| refuse(FETCH)))
        .route("/api/create", post(|| refuse(ADD)))
        .route("/api/blobs/{digest}", any(|| refuse(ADD)))
        .route("/api/copy", post(|| refuse(COPY)))
        .route("/api/delete", delete(|| refuse(REMOVE)))
        .route("/api/push", post(|| refuse(PUSH)))
}

const FETCH: &str = "Models are fetched on the device's command line: `nearfar model add \
    hf:OWNER/REPO/FILE.gguf`, or a name that `nearfar model catalogue` lists.";
const ADD: &str = "Models are added on the device's command line: `nearfar model add FILE.gguf`.";
const COPY: &str = "Models have one name each. Add the file once more under another: `nearfar \
    model add FILE.gguf --link --name OTHER`.";
const REMOVE: &str = "Models are removed on the device's command line: `nearfar model rm NAME`.";
const PUSH: &str = "nearfar publishes no models.";

/// What any app may ask takes neither the device's disk nor its network.
async fn refuse(mend: &'static str) -> Problem {
    let code = "not_over_this_api";
    Problem::of_request(StatusCode::NOT_IMPLEMENTED, code, mend.to_owned())
}

/// What clients look at to see whether somebody is there.
async fn root() -> Response {
    let text = "nearfar is running. It speaks Ollama's API under /api and OpenAI's under /v1.\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn version() -> Response {
    json(StatusCode::OK, &models::version())
}

async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    let described = described(&api.gate, &caller).await?;
    Ok(json(
        StatusCode::OK,
        &models::tags(
            &api.gate.names_for(&caller.0),
            &api.gate.targets_for(&caller.0),
            &described,
        ),
    ))
}

async fn loaded(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    let described = described(&api.gate, &caller).await?;
    let mut state = api.gate.engine_state();
    let scope = caller.0.scope();
    state
        .models
        .retain(|loaded| scope.allows(&TargetId::local(&loaded.name), Zone::Device));
    Ok(json(
        StatusCode::OK,
        &models::loaded(&state.models, &described),
    ))
}

async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = api.bodies.read(&parts.headers, body).await?;
    let mut fields = Fields::read(&body)?;
    // Its older name.
    if let Some(name) = fields.take("name") {
        fields.put("model", name);
    }
    let name = request::model(&mut fields)?;
    let described = described(&api.gate, &caller).await?;
    let names = api.gate.names_for(&caller.0);
    match models::show(&names, &api.gate.targets_for(&caller.0), &described, &name) {
        Some(body) => Ok(json(StatusCode::OK, &body)),
        None => Err(Problem::no_such_model(
            "There is no such model. GET /api/tags lists those that there are.",
        )),
    }
}

async fn described(gate: &Gate, caller: &Caller) -> Result<Vec<Described>, Problem> {
    let (catalog, identity) = (Arc::clone(gate.catalog()), Arc::clone(&caller.0));
    // Manifests are read from the disk.
    let read = tokio::task::spawn_blocking(move || models::described(&catalog, &identity)).await;
    read.map_err(|_| Problem::internal())
}

async fn chat(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(&api, caller, "ollama.chat", request, request::chat).await
}

async fn generate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(&api, caller, "ollama.generate", request, request::generate).await
}

async fn embed(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(&api, caller, "ollama.embed", request, request::embed).await
}

async fn embeddings(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    answer(
        &api,
        caller,
        "ollama.embeddings",
        request,
        request::embeddings,
    )
    .await
}

async fn answer(
    api: &Api,
    caller: Caller,
    endpoint: &'static str,
    request: Request,
    understand: fn(&[u8]) -> Result<Read, Problem>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = api.bodies.read(&parts.headers, body).await?;
    let read = aside(body.len(), || understand(&body))?;
    drop(body);
    let tags = tags::read(&parts.headers, read.understood.tags.as_ref())?;
    if read.empty {
        let named = memory::named(&api.gate, &caller.0, &read.understood.model, &tags)?;
        return nothing(&api.gate, named, read.kind, read.keep_alive).await;
    }
    let keep_alive = read.keep_alive;
    let named = match keep_alive {
        KeepAlive::Unsaid => None,
        _ => Some(memory::named(
            &api.gate,
            &caller.0,
            &read.understood.model,
            &tags,
        )?),
    };
    let (asked, wish) = asked(caller, endpoint, &parts.headers, read.understood)?;
    let answer = api.gate.answer(asked).await;
    let answer = answer.map_err(|error| {
        Problem::from(error).renamed("response_format.json_schema.schema", "format")
    })?;
    if let Some(Named::Here(model)) = named {
        memory::keep(&api.gate, &model, keep_alive).await;
    }
    Ok(reply(answer, wish).await)
}

/// Loads or drops a model; there is nothing to answer.
async fn nothing(
    gate: &Gate,
    named: Named,
    kind: Kind,
    keep_alive: KeepAlive,
) -> Result<Response, Problem> {
    let name = match named {
        Named::Elsewhere(name) => name,
        Named::Here(model) => {
            if keep_alive != KeepAlive::Drop {
                memory::load(gate, &model).await?;
            }
            memory::keep(gate, &model, keep_alive).await;
            format!("local/{}", model.name)
        }
    };
    let body = lines::nothing(kind, &name, keep_alive == KeepAlive::Drop);
    Ok(json(StatusCode::OK, &body))
}
