//! `POST /v1/messages/count_tokens`.
//!
//! For a model of this device the count is exact: the engine renders and
//! tokenizes the prompt as it would for an answer. For a provider's model it is
//! nearfar's own estimate, and the reply says which it is: what a provider
//! would be asked for a count is the whole prompt, which is more than the
//! question is worth.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::request;
use crate::http::api::{Api, read};
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::http::reply;

/// `{"input_tokens": …}`, and under `nearfar` what it was counted for.
pub(crate) async fn count_tokens(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (asked, _) = read(
        &api,
        caller,
        "anthropic.count_tokens",
        request,
        request::message,
    )
    .await?;
    let counted = api.gate.count(asked).await?;
    let target = counted.target.to_string();
    let body = json!({
        "input_tokens": counted.tokens,
        "nearfar": {"target": target, "exact": counted.exact},
    });
    let mut response = reply::json(StatusCode::OK, &body);
    // A provider's model may have a name that no header can carry.
    if let Ok(value) = HeaderValue::try_from(target) {
        response.headers_mut().insert("x-nearfar-target", value);
    }
    Ok(response)
}
