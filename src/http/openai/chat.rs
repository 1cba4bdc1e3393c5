//! Answers of `/v1/chat/completions`.

use nearfar_domain::events::{Event, FinishReason, TokenLogprob, ToolCallDelta, Usage};
use serde_json::{Value, json};

use super::shape::{self, DONE, Head, push_data};
use super::signed;
use crate::http::collect::{Collected, Piece};
use crate::http::dialect;
use crate::http::problem::Problem;

/// Writes the chunks of one stream, in the order and form that OpenAI sends
/// them: the role, the deltas, the finish reason in a chunk of its own, usage
/// when asked for, `[DONE]`.
pub(crate) struct Chunks {
    head: Head,
    include_usage: bool,
    /// What stands before and after the text of a chunk that has nothing else:
    /// nearly every chunk of a stream.
    frame: (String, String),
    begun: bool,
    /// The reasoning since the last signature, which belongs to it.
    thought: String,
    /// Log-probabilities that wait for the content they belong to.
    logprobs: Vec<TokenLogprob>,
    /// Targets that went on with the answer after one that broke off.
    continued_on: Vec<String>,
}

impl Chunks {
    pub(crate) fn new(head: Head, include_usage: bool) -> Self {
        let frame = frame(&head, include_usage);
        Self {
            head,
            include_usage,
            frame,
            begun: false,
            thought: String::new(),
            logprobs: Vec::new(),
            continued_on: Vec::new(),
        }
    }
}

impl dialect::Chunks for Chunks {
    fn push(&mut self, event: Event, out: &mut String) {
        let goes_on = self.begun;
        if !self.begun && !matches!(event, Event::Failed(_)) {
            self.begun = true;
            let role = json!({"role": "assistant", "content": ""});
            self.chunk(out, role, Value::Null, None);
        }
        match event {
            Event::Started { model } if goes_on => self.continued_on.push(model),
            Event::Started { .. } | Event::StoppedBy(_) | Event::Vectors(_) => {}
            Event::Content(text) if self.logprobs.is_empty() => self.text(out, text),
            Event::Content(text) => self.content(out, &text),
            Event::Signature { of, signature } => {
                let thought = std::mem::take(&mut self.thought);
                let delta = signed::delta(&of, &signature, &thought);
                self.chunk(out, delta, Value::Null, None);
            }
            Event::Reasoning(text) => {
                self.thought.push_str(&text);
                let delta = json!({"reasoning_content": text});
                self.chunk(out, delta, Value::Null, None);
            }
            Event::ToolCall(delta) => {
                let delta = json!({"tool_calls": [call_delta(&delta)]});
                self.chunk(out, delta, Value::Null, None);
            }
            Event::Logprobs(tokens) => self.logprobs.extend(tokens),
            Event::Finished { reason, usage } => self.finish(out, reason, &usage),
            Event::Failed(failure) => push_data(out, &Problem::failed(&failure).openai_body()),
        }
    }
}

impl Chunks {
    /// A chunk of text alone: as [`Chunks::content`] writes it, without building
    /// the object.
    fn text(&self, out: &mut String, text: String) {
        use std::fmt::Write as _;
        let (before, after) = &self.frame;
        // Writing to a string cannot fail.
        let _ = write!(out, "{before}{}{after}", Value::String(text));
    }

    fn content(&mut self, out: &mut String, text: &str) {
        let tokens = std::mem::take(&mut self.logprobs);
        let logprobs = logprobs(&tokens);
        self.chunk(out, json!({"content": text}), logprobs, None);
    }

    fn finish(&mut self, out: &mut String, reason: FinishReason, usage: &Usage) {
        if !self.logprobs.is_empty() {
            // Of tokens that made no text, such as the end of the turn.
            self.content(out, "");
        }
        let reason = shape::finish_reason(reason);
        let mut last = self.choice(json!({}), Value::Null, Some(reason));
        shape::tell_continuation(&mut last, &self.continued_on);
        push_data(out, &last);
        if self.include_usage {
            let mut chunk = self.head.object("chat.completion.chunk");
            chunk["choices"] = json!([]);
            chunk["usage"] = shape::usage(usage);
            shape::tell_cost(&mut chunk, &self.head.bill);
            push_data(out, &chunk);
        }
        out.push_str(DONE);
    }

    fn chunk(&self, out: &mut String, delta: Value, logprobs: Value, finish: Option<&str>) {
        push_data(out, &self.choice(delta, logprobs, finish));
    }

    fn choice(&self, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        choice(&self.head, self.include_usage, delta, logprobs, finish)
    }
}

fn choice(
    head: &Head,
    include_usage: bool,
    delta: Value,
    logprobs: Value,
    finish: Option<&str>,
) -> Value {
    let mut chunk = head.object("chat.completion.chunk");
    chunk["choices"] = json!([{
        "index": 0,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish,
    }]);
    if include_usage {
        chunk["usage"] = Value::Null;
    }
    chunk
}

/// A chunk of text, cut where its text stands. The text of the chunk that is cut
/// is empty, and its name the last `"content":""` in it: no value before can
/// hold that, for its quotes would be escaped.
fn frame(head: &Head, include_usage: bool) -> (String, String) {
    const TEXT: &str = "\"content\":\"\"";
    let delta = json!({"content": ""});
    let mut chunk = String::new();
    let value = choice(head, include_usage, delta, Value::Null, None);
    push_data(&mut chunk, &value);
    let at = chunk
        .rfind(TEXT)
        .map_or(chunk.len(), |at| at + TEXT.len() - 2);
    let after = chunk.split_off(at);
    (chunk, after.get(2..).unwrap_or_default().to_owned())
}

/// A whole answer as one object.
pub(crate) fn whole(head: &Head, answer: &Collected) -> Value {
    let content = if answer.content.is_empty() && !answer.tool_calls.is_empty() {
        Value::Null
    } else {
        json!(answer.content)
    };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning);
    }
    if !answer.tool_calls.is_empty() {
        message["tool_calls"] = answer.tool_calls.iter().map(call).collect();
    }
    let mut thought = "";
    for piece in &answer.order {
        match piece {
            Piece::Reasoning(range) => thought = &answer.reasoning[range.clone()],
            Piece::Signature(of, signature) => {
                signed::add(&mut message, of, signature, std::mem::take(&mut thought));
            }
            Piece::Content(_) | Piece::Call(_) => {}
        }
    }
    let mut object = head.object("chat.completion");
    object["choices"] = json!([{
        "index": 0,
        "message": message,
        "logprobs": logprobs(&answer.logprobs),
        "finish_reason": answer.reason.map(shape::finish_reason),
    }]);
    object["usage"] = shape::usage(&answer.usage);
    object
}

/// A fragment: only the first one of a call has an id and a name.
fn call_delta(delta: &ToolCallDelta) -> Value {
    let mut call = json!({"index": delta.index});
    if let Some(id) = &delta.id {
        call["id"] = json!(id);
        call["type"] = json!("function");
    }
    let mut function = json!({});
    if let Some(name) = &delta.name {
        function["name"] = json!(name);
    }
    function["arguments"] = json!(delta.arguments);
    call["function"] = function;
    call
}

fn call(call: &ToolCallDelta) -> Value {
    json!({
        "id": call.id.as_deref().unwrap_or_default(),
        "type": "function",
        "function": {
            "name": call.name.as_deref().unwrap_or_default(),
            "arguments": call.arguments,
        },
    })
}

fn logprobs(tokens: &[TokenLogprob]) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let one = |token: &str, bytes: &[u8], value: f32| json!({"token": token, "logprob": shape::logprob(value), "bytes": bytes});
    let content: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let mut entry = one(&token.token, &token.bytes, token.logprob);
            entry["top_logprobs"] = token
                .top
                .iter()
                .map(|(text, bytes, value)| one(text, bytes, *value))
                .collect();
            entry
        })
        .collect();
    json!({"content": content, "refusal": null})
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
