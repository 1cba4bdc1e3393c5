//! Ollama's API as its clients speak it to us, under `/api`.
//!
//! [`request`] reads bodies, with [`messages`] and [`options`]; [`lines`] writes
//! answers, whole and as lines of JSON; [`models`] tells what can be asked for;
//! [`memory`] loads and unloads. What is not here: fetching and making models.
//! That is done on the command line, because it takes the disk and the network
//! that any app on the device would then have.

mod clock;
pub(crate) mod lines;
mod memory;
mod messages;
mod models;
mod options;
pub(crate) mod request;
mod routes;

pub(crate) use routes::routes;

use serde_json::{Value, json};

use super::problem::Problem;

/// Ollama's error object, also as a line inside a stream.
pub(crate) fn error_body(problem: &Problem) -> Value {
    let told = problem.openai_body();
    let (error, mut body) = (&told["error"], json!({}));
    let message = error["message"].as_str().unwrap_or_default();
    // The message is all that Ollama's clients show, and some look for words.
    body["error"] = match (error["code"].as_str(), error["param"].as_str()) {
        (Some("model_not_found"), _) => json!(format!("model not found: {message}")),
        (_, Some(param)) if !message.contains(param) => json!(format!("{param}: {message}")),
        _ => json!(message),
    };
    body["code"] = error["code"].clone();
    if let Some(param) = error["param"].as_str() {
        body["param"] = json!(param);
    }
    body
}
