//! One question to the daemon and its streamed answer, for every verb that asks.

use std::time::Instant;

use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{Client, Reply, error_of};
use super::failed::Failed;
use super::style::{Style, ms};

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) model: &'a str,
    /// Turns in OpenAI's form.
    pub(super) messages: &'a [Value],
    pub(super) privacy: Option<&'a str>,
    pub(super) feature: Option<&'a str>,
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f64>,
}

/// A piece of the answer, as it comes.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Reasoning(&'a str),
}

/// An answer, whole or cut by its length limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Told {
    pub(super) content: String,
    pub(super) decision: String,
    pub(super) target: String,
    pub(super) zone: String,
    pub(super) reason: String,
    pub(super) finish_reason: String,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    /// From sending the question to the first visible piece.
    pub(super) ttft_ms: Option<f64>,
    /// To the end.
    pub(super) total_ms: f64,
}

impl Told {
    /// Tokens per second after the first one; `None` where it cannot be told.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        let tokens = self.completion_tokens?.checked_sub(1).filter(|n| *n > 0)?;
        let seconds = (self.total_ms - self.ttft_ms?) / 1_000.0;
        (seconds > 0.0).then(|| tokens as f64 / seconds)
    }

    /// Where the answer came from, in one line.
    pub(super) fn origin(&self, style: Style) -> String {
        let mut parts = vec![format!("answered by {}", self.target)];
        parts.push(format!("zone {}", self.zone));
        if !self.reason.is_empty() {
            parts.push(format!("reason {}", self.reason));
        }
        if let Some(ttft) = self.ttft_ms {
            parts.push(format!("first token {}", ms(ttft)));
        }
        if let Some(rate) = self.tokens_per_second() {
            parts.push(format!("{rate:.1} tokens/s"));
        }
        if self.finish_reason == "length" {
            parts.push("cut at the token limit".to_owned());
        }
        style.dim(&format!("[{}]", super::style::safe(&parts.join(" · "))))
    }
}

/// Asks and streams. `show` gets each piece; dropping the future cancels.
///
/// # Errors
/// No daemon, its refusal, or an answer that is not whole. What was shown
/// before stays shown.
pub(super) async fn ask(
    client: &Client,
    question: &Question<'_>,
    show: &mut dyn FnMut(Piece<'_>) -> std::io::Result<()>,
) -> Result<Told, Failed> {
    let mut body = json!({
        "model": question.model,
        "messages": question.messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let Some(limit) = question.max_tokens {
        body["max_completion_tokens"] = json!(limit);
    }
    if let Some(temperature) = question.temperature {
        body["temperature"] = json!(temperature);
    }
    let mut headers = Vec::new();
    if let Some(privacy) = question.privacy {
        headers.push(("x-nearfar-privacy", privacy.to_owned()));
    }
    if let Some(feature) = question.feature {
        headers.push(("x-nearfar-feature", feature.to_owned()));
    }
    let began = Instant::now();
    let mut reply = client
        .open(Method::POST, "/v1/chat/completions", &headers, Some(&body))
        .await?;
    let mut told = Told {
        decision: reply.header("x-nearfar-decision").to_owned(),
        target: reply.header("x-nearfar-target").to_owned(),
        zone: reply.header("x-nearfar-zone").to_owned(),
        reason: reply.header("x-nearfar-reason").to_owned(),
        ..Told::default()
    };
    read(&mut reply, &mut told, began, show).await?;
    told.total_ms = elapsed_ms(began);
    Ok(told)
}

async fn read(
    reply: &mut Reply,
    told: &mut Told,
    began: Instant,
    show: &mut dyn FnMut(Piece<'_>) -> std::io::Result<()>,
) -> Result<(), Failed> {
    while let Some(event) = reply.next_event().await? {
        if event.trim() == "[DONE]" {
            break;
        }
        let chunk: Value = serde_json::from_str(&event)
            .map_err(|_| Failed::new("A piece of the answer is not JSON."))?;
        if let Some(failed) = error_of(&chunk) {
            return Err(failed.mend("The answer above is not whole."));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            told.prompt_tokens = usage["prompt_tokens"].as_u64();
            told.completion_tokens = usage["completion_tokens"].as_u64();
        }
        let Some(choice) = chunk["choices"].get(0) else {
            continue;
        };
        let delta = &choice["delta"];
        for (text, piece) in [
            (
                delta["reasoning_content"].as_str(),
                Piece::Reasoning as fn(_) -> _,
            ),
            (delta["content"].as_str(), Piece::Text as fn(_) -> _),
        ] {
            let Some(text) = text.filter(|text| !text.is_empty()) else {
                continue;
            };
            told.ttft_ms.get_or_insert_with(|| elapsed_ms(began));
            let piece = piece(text);
            if matches!(piece, Piece::Text(_)) {
                told.content.push_str(text);
            }
            show(piece)?;
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            told.finish_reason = finish.to_owned();
        }
    }
    if told.finish_reason.is_empty() {
        return Err(Failed::new("The answer was cut off.")
            .mend("Ask again; `nearfar status` shows what went away."));
    }
    Ok(())
}

fn elapsed_ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}
