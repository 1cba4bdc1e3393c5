//! `POST /v1/prefill`: computes a prompt before its answer is asked for, so
//! that the answer's first token comes sooner. A voice app sends the system
//! prompt when it starts (with `"pin": true`), and what it has understood so
//! far while the user still speaks.
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
    let (parts, body) = request.into_parts();
    let body = api.bodies.read(&parts.headers, body).await?;
    let (request, pin) = request::prefill(&body)?;
    let (asked, _) = asked(caller, "prefill", &parts.headers, request.into())?;
    drop(body);
    if asked
        .target
        .as_ref()
        .is_some_and(|target| !target.is_local())
    {
        return Err(Problem::field(
            "x-nearfar-route",
            "Prompts are computed ahead on this device only. Name a local model, or leave the \
             tag out.",
        ));
    }
    let answer = api.gate.answer(on_this_device(asked, pin)).await?;
    let usage = ended(answer).await?;
    let cached = usage.cached_prompt.unwrap_or(0);
    let body = json!({
        "cached_tokens": cached,
        "computed_tokens": usage.prompt.unwrap_or(0).saturating_sub(cached),
        "took_ms": (arrived.elapsed().as_secs_f64() * 1e4).round() / 10.0,
    });
    Ok(reply::json(StatusCode::OK, &body))
}

/// The same request, confined.
fn on_this_device(mut asked: Asked, pin: bool) -> Asked {
    asked.says.push(Say {
        source: Source::Route,
        zone: Zone::Device,
    });
    // What an answer would need does not matter where none is made; what the
    // prompt itself needs is checked with it.
    Asked {
        side: Side::Local,
        purpose: Purpose::Prefill { pin },
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
