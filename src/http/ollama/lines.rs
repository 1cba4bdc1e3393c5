//! Ollama's answers: one object, or one a line (NDJSON).
//!
//! Times are what this process measured: the whole request, and the answer from
//! its first token to its last. What only the engine knows (loading, computing
//! the prompt) is left out, as are counts that the target did not tell.

use std::time::Instant;

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, TokenLogprob, ToolCallDelta, Usage,
};
use serde_json::{Value, json};

use super::{clock, error_body};
use crate::http::collect::Collected;
use crate::http::dialect::{About, Chunks, Form};
use crate::http::openai::shape::{logprob, tell_continuation};
use crate::http::problem::Problem;

/// The endpoint whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
    /// `/api/embed`.
    Embed,
    /// `/api/embeddings`.
    Embeddings,
}

/// Which answer, and since when it is waited for.
pub(super) struct OllamaForm {
    kind: Kind,
    arrived: Instant,
}

impl OllamaForm {
    pub(super) fn new(kind: Kind, arrived: Instant) -> Self {
        Self { kind, arrived }
    }
}

impl Form for OllamaForm {
    fn whole(&self, about: &About, answer: &Collected) -> Result<Value, Failure> {
        let mut lines = Lines::new(self.kind, self.arrived, about);
        match self.kind {
            Kind::Embed => {
                let mut body =
                    json!({"model": lines.model, "embeddings": vectors(&answer.vectors)});
                body["total_duration"] = json!(nanoseconds(self.arrived));
                if let Some(count) = answer.usage.prompt {
                    body["prompt_eval_count"] = json!(count);
                }
                return Ok(body);
            }
            Kind::Embeddings => {
                let first = answer
                    .vectors
                    .first()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                return Ok(json!({"embedding": vector(first)}));
            }
            Kind::Chat | Kind::Generate => {}
        }
        lines.calls.clone_from(&answer.tool_calls);
        lines.logprobs.clone_from(&answer.logprobs);
        let reason = answer.reason.unwrap_or(FinishReason::Stop);
        let calls = lines.calls(reason)?;
        let mut body = lines.line(&answer.content, &answer.reasoning, calls);
        lines.end(&mut body, reason, &answer.usage);
        Ok(body)
    }

    fn chunks(self: Box<Self>, about: About) -> Box<dyn Chunks> {
        Box::new(Lines::new(self.kind, self.arrived, &about))
    }
}

/// What is sent where there was nothing to answer: the model was loaded, or is
/// to be dropped.
pub(super) fn nothing(kind: Kind, model: &str, dropped: bool) -> Value {
    let reason = if dropped { "unload" } else { "load" };
    let mut body = json!({"model": model, "created_at": clock::now()});
    match kind {
        Kind::Chat => body["message"] = json!({"role": "assistant", "content": ""}),
        Kind::Generate => body["response"] = json!(""),
        Kind::Embed => return json!({"model": model, "embeddings": []}),
        Kind::Embeddings => return json!({"embedding": []}),
    }
    body["done_reason"] = json!(reason);
    body["done"] = json!(true);
    body
}

/// Writes one answer.
struct Lines {
    kind: Kind,
    arrived: Instant,
    /// When the first piece of the answer came.
    began: Option<Instant>,
    model: String,
    /// Calls so far. They go out at the end: their arguments are objects, which
    /// have no halves.
    calls: Vec<ToolCallDelta>,
    /// Log-probabilities that wait for the text they belong to.
    logprobs: Vec<TokenLogprob>,
    /// Targets that went on with the answer after one that broke off.
    continued_on: Vec<String>,
}

impl Lines {
    fn new(kind: Kind, arrived: Instant, about: &About) -> Self {
        Self {
            kind,
            arrived,
            began: None,
            model: about.target.to_string(),
            calls: Vec::new(),
            logprobs: Vec::new(),
            continued_on: Vec::new(),
        }
    }

    /// A line, not the last one.
    fn line(&mut self, text: &str, thinking: &str, calls: Vec<Value>) -> Value {
        let mut line = json!({"model": self.model, "created_at": clock::now()});
        if self.kind == Kind::Chat {
            let mut message = json!({"role": "assistant", "content": text});
            if !thinking.is_empty() {
                message["thinking"] = json!(thinking);
            }
            if !calls.is_empty() {
                message["tool_calls"] = Value::Array(calls);
            }
            line["message"] = message;
        } else {
            line["response"] = json!(text);
            if !thinking.is_empty() {
                line["thinking"] = json!(thinking);
            }
        }
        line["done"] = json!(false);
        let tokens = std::mem::take(&mut self.logprobs);
        if !tokens.is_empty() {
            line["logprobs"] = tokens.iter().map(token).collect();
        }
        line
    }

    fn fragment(&mut self, delta: ToolCallDelta) {
        let mut calls = self.calls.iter_mut();
        match calls.find(|call| call.index == delta.index) {
            Some(call) => call.arguments.push_str(&delta.arguments),
            None => self.calls.push(delta),
        }
    }

    /// The calls as Ollama writes them. A call whose arguments were cut off by
    /// the token limit is left out: `length` says that something is missing.
    fn calls(&mut self, reason: FinishReason) -> Result<Vec<Value>, Failure> {
        let mut calls = Vec::with_capacity(self.calls.len());
        for call in std::mem::take(&mut self.calls) {
            let arguments = match call.arguments.trim() {
                "" => Ok(json!({})),
                text => serde_json::from_str::<Value>(text),
            };
            let arguments = match arguments {
                Ok(object @ Value::Object(_)) => object,
                _ if reason == FinishReason::Length => continue,
                _ => {
                    return Err(Failure::new(
                        FailureKind::Malformed,
                        "The model called a tool with arguments that are no JSON object. Try \
                         again.",
                    ));
                }
            };
            calls.push(json!({
                "id": call.id.unwrap_or_default(),
                "function": {
                    "index": call.index,
                    "name": call.name.unwrap_or_default(),
                    "arguments": arguments,
                },
            }));
        }
        Ok(calls)
    }

    /// Makes a line the last one.
    fn end(&self, line: &mut Value, reason: FinishReason, usage: &Usage) {
        line["done"] = json!(true);
        line["done_reason"] = json!(match reason {
            FinishReason::Stop | FinishReason::ToolCalls => "stop",
            FinishReason::Length => "length",
            FinishReason::ContentFilter => "content_filter",
        });
        tell_continuation(line, &self.continued_on);
        line["total_duration"] = json!(nanoseconds(self.arrived));
        if let Some(count) = usage.prompt {
            line["prompt_eval_count"] = json!(count);
        }
        if let Some(count) = usage.completion {
            line["eval_count"] = json!(count);
        }
        if let Some(began) = self.began {
            line["eval_duration"] = json!(nanoseconds(began));
        }
    }

    fn finish(&mut self, out: &mut String, reason: FinishReason, usage: &Usage) {
        match self.calls(reason) {
            Err(failure) => push_line(out, &error_body(&Problem::failed(&failure))),
            Ok(calls) => {
                if !calls.is_empty() {
                    let line = self.line("", "", calls);
                    push_line(out, &line);
                }
                let mut line = self.line("", "", Vec::new());
                self.end(&mut line, reason, usage);
                push_line(out, &line);
            }
        }
    }
}

impl Chunks for Lines {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn push(&mut self, event: Event, out: &mut String) {
        if event.is_visible() && self.began.is_none() {
            self.began = Some(Instant::now());
        }
        match event {
            Event::Content(text) => {
                let line = self.line(&text, "", Vec::new());
                push_line(out, &line);
            }
            Event::Reasoning(text) => {
                let line = self.line("", &text, Vec::new());
                push_line(out, &line);
            }
            Event::ToolCall(delta) => self.fragment(delta),
            Event::Started { model } if self.began.is_some() => self.continued_on.push(model),
            Event::Logprobs(tokens) => self.logprobs.extend(tokens),
            Event::Finished { reason, usage } => self.finish(out, reason, &usage),
            Event::Failed(failure) => push_line(out, &error_body(&Problem::failed(&failure))),
            _ => {}
        }
    }

    /// A line without text: clients read every line as JSON, so there are no
    /// comments.
    fn keep_alive(&mut self, out: &mut String) {
        let tokens = std::mem::take(&mut self.logprobs);
        let line = self.line("", "", Vec::new());
        self.logprobs = tokens;
        push_line(out, &line);
    }
}

fn push_line(out: &mut String, value: &Value) {
    use std::fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{value}");
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn token(token: &TokenLogprob) -> Value {
    let one = |text: &str, bytes: &[u8], p: f32| json!({"token": text, "logprob": logprob(p), "bytes": bytes});
    let mut entry = one(&token.token, &token.bytes, token.logprob);
    if !token.top.is_empty() {
        let top = token.top.iter();
        entry["top_logprobs"] = top.map(|(text, bytes, p)| one(text, bytes, *p)).collect();
    }
    entry
}

fn vectors(vectors: &[Vec<f32>]) -> Value {
    vectors.iter().map(|v| vector(v)).collect()
}

/// By way of their shortest text, or 0.1 would become 0.10000000149.
fn vector(vector: &[f32]) -> Value {
    let number = |x: &f32| json!(x.to_string().parse::<f64>().unwrap_or(f64::from(*x)));
    vector.iter().map(number).collect()
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
