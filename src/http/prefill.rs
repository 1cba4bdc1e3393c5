//! `POST /v1/prefill`: computes a prompt before its answer is asked for, so
//! that the answer's first token comes sooner. A voice app sends the system
//! prompt when it starts (with `"pin": true`), and what it has understood so
//! far while the user still speaks. `DELETE /v1/prefill` with the body that a
//! prompt was pinned with pins it no longer.
//!
//! Only on this device: what nobody asked an answer for goes nowhere. It comes
//! after everything else there, and ends when the client leaves.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use nearfar_domain::events::{Event, Failure, FailureKind, Usage};
use nearfar_domain::frames::Purpose;
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::{Say, Source, Zone};
use nearfar_domain::route::Side;
use serde_json::json;

use super::api::Api;
use super::asked::asked;
use super::caller::Caller;
use super::openai::request;
use super::problem::Problem;
use super::reply;
use crate::road::{Answer, Asked};

/// Answers when the prompt is computed.
pub(crate) async fn prefill(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let arrived = Instant::now();
    let (asked, pin) = read(&api, caller, request).await?;
    let usage = run(&api, asked, Purpose::Prefill { pin }).await?;
    let cached = usage.cached_prompt.unwrap_or(0);
    let body = json!({
        "cached_tokens": cached,
        "computed_tokens": usage.prompt.unwrap_or(0).saturating_sub(cached),
        "took_ms": (arrived.elapsed().as_secs_f64() * 1e4).round() / 10.0,
    });
    Ok(reply::json(StatusCode::OK, &body))
}

/// Has a prompt pinned no longer: the body is the one that it was pinned with.
pub(crate) async fn unpin(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (asked, _) = read(&api, caller, request).await?;
    let usage = run(&api, asked, Purpose::Unpin).await?;
    let body = json!({"unpinned": usage.cached_prompt.unwrap_or(0) > 0});
    Ok(reply::json(StatusCode::OK, &body))
}

async fn read(api: &Api, caller: Caller, request: Request) -> Result<(Asked, bool), Problem> {
    let (parts, body) = request.into_parts();
    let body = api.bodies.read(&parts.headers, body).await?;
    let (request, pin) = request::prefill(&body)?;
    let (asked, _) = asked(caller, "prefill", &parts.headers, request.into())?;
    let remote = |target: &TargetId| !target.is_local();
    if asked.target.as_ref().is_some_and(remote) {
        return Err(Problem::field(
            "x-nearfar-route",
            "Prompts are computed ahead on this device only. Name a local model, or leave the \
             tag out.",
        ));
    }
    Ok((asked, pin))
}

/// Does it on this device.
async fn run(api: &Api, asked: Asked, purpose: Purpose) -> Result<Usage, Problem> {
    let answer = api.gate.answer(on_this_device(asked, purpose)).await?;
    ended(answer).await
}

/// The same request, confined.
fn on_this_device(mut asked: Asked, purpose: Purpose) -> Asked {
    asked.says.push(Say {
        source: Source::Route,
        zone: Zone::Device,
    });
    // What an answer would need does not matter where none is made; what the
    // prompt itself needs is checked with it.
    Asked {
        side: Side::Local,
        purpose,
        ..asked
    }
}

async fn ended(mut answer: Answer) -> Result<Usage, Problem> {
    let (decision, target) = (answer.decision, answer.target.clone());
    while let Some(event) = answer.events.next().await {
        match event {
            Event::Finished { usage, .. } => return Ok(usage),
            Event::Failed(failure) => {
                return Err(Problem::failed(&failure).of_leg(decision, target));
            }
            _ => {}
        }
    }
    let lost = Failure::new(FailureKind::Internal, "The prompt's end was not told.");
    Err(Problem::failed(&lost).of_leg(decision, target))
}
