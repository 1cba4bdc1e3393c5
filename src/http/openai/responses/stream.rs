//! The answer as items: the events of a stream, and the same items whole.
//!
//! A stream repeats its response at its beginning and its end; between them
//! each item is announced, grows and is told again when it is whole. Reasoning
//! is shown as it is (`reasoning_text`), not summed up. Calls grow side by side
//! and are whole at the end; text and reasoning end when something else begins.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Instant;

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, TokenLogprob, ToolCallDelta, Usage,
};
use nearfar_domain::privacy::Zone;
use nearfar_domain::thought::Signature;
use serde_json::{Map, Value, json};

use super::items::Sealed;
use super::object::{self, Echo, State, id_of};
use crate::conversations::{Conversations, Turn};
use crate::http::collect::{Collected, MAX_WHOLE_BYTES, Piece};
use crate::http::dialect::{About, Chunks, Form};
use crate::http::openai::shape::{logprob, tell_continuation};
use crate::http::problem::Problem;

/// Keeps the answer when it is whole.
pub(super) struct Keeper {
    pub(super) conversations: Arc<Conversations>,
    pub(super) tenant: String,
    /// How far the request was allowed to go; known once it was decided.
    pub(super) ceiling: OnceLock<Zone>,
    /// Whether identifiers are to be replaced before it leaves; told likewise.
    pub(super) redact: OnceLock<bool>,
    pub(super) previous: Option<String>,
    /// What was asked: items that wait for the response's id.
    pub(super) input: Vec<Value>,
}

/// How a response is written.
pub(super) struct ResponseForm {
    pub(super) echo: Echo,
    /// `None`: it is not kept.
    pub(super) keeper: Option<Arc<Keeper>>,
}

impl Form for ResponseForm {
    fn whole(&self, about: &About, answer: &Collected) -> Result<Value, Failure> {
        let mut writer = Writer::new(about.clone(), self.echo.clone(), self.keeper.clone());
        let mut unsent = String::new();
        for event in events_of(answer) {
            writer.push(event, &mut unsent);
            unsent.clear();
        }
        Ok(writer.ended.take().unwrap_or_default())
    }

    fn chunks(self: Box<Self>, about: About) -> Box<dyn Chunks> {
        Box::new(Writer::new(about, self.echo, self.keeper))
    }
}

/// A whole answer as the events that it came of.
fn events_of(answer: &Collected) -> Vec<Event> {
    let mut events = Vec::with_capacity(answer.order.len() + 2);
    if !answer.logprobs.is_empty() {
        events.push(Event::Logprobs(answer.logprobs.clone()));
    }
    events.extend(answer.order.iter().filter_map(|piece| match piece {
        Piece::Content(range) => Some(Event::Content(answer.content[range.clone()].to_owned())),
        Piece::Reasoning(range) => {
            Some(Event::Reasoning(answer.reasoning[range.clone()].to_owned()))
        }
        Piece::Call(place) => answer.tool_calls.get(*place).cloned().map(Event::ToolCall),
        Piece::Signature(of, signature) => Some(Event::Signature {
            of: of.clone(),
            signature: signature.clone(),
        }),
    }));
    events.push(Event::Finished {
        reason: answer.reason.unwrap_or(FinishReason::Stop),
        usage: answer.usage,
    });
    events
}

/// An item that is not whole yet.
enum Open {
    Reasoning {
        text: String,
    },
    Message {
        text: String,
        logprobs: Vec<Value>,
    },
    Call {
        index: u32,
        call_id: String,
        name: String,
        arguments: String,
    },
}

/// Writes one response.
struct Writer {
    about: About,
    echo: Echo,
    keeper: Option<Arc<Keeper>>,
    begun: bool,
    over: bool,
    sequence: u64,
    /// Items in the order in which they were announced.
    output: Vec<Value>,
    /// Those that are not whole, by their place in `output`.
    open: Vec<(usize, Open)>,
    /// Log-probabilities that wait for the text they belong to.
    logprobs: Vec<TokenLogprob>,
    /// Targets that went on with the answer after one that broke off.
    continued_on: Vec<String>,
    /// Bytes that all this takes.
    bytes: usize,
    /// The response as it was in the end.
    ended: Option<Value>,
}

impl Writer {
    fn new(about: About, echo: Echo, keeper: Option<Arc<Keeper>>) -> Self {
        Self {
            about,
            echo,
            keeper,
            begun: false,
            over: false,
            sequence: 0,
            output: Vec::new(),
            open: Vec::new(),
            logprobs: Vec::new(),
            continued_on: Vec::new(),
            bytes: 0,
            ended: None,
        }
    }

    /// Writes an event of a stream.
    fn emit(&mut self, out: &mut String, kind: &str, fields: Value) {
        use std::fmt::Write as _;
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(kind));
        body.insert("sequence_number".to_owned(), json!(self.sequence));
        if let Value::Object(fields) = fields {
            body.extend(fields);
        }
        self.sequence += 1;
        // Writing to a string cannot fail.
        let _ = write!(out, "event: {kind}\ndata: {}\n\n", Value::Object(body));
    }

    fn begin(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            for kind in ["response.created", "response.in_progress"] {
                let response = self.object("in_progress", Value::Null, Value::Null, None, false);
                self.emit(out, kind, json!({"response": response}));
            }
        }
    }

    fn object(
        &self,
        status: &'static str,
        usage: Value,
        error: Value,
        reason: Option<&'static str>,
        stored: bool,
    ) -> Value {
        let state = State {
            status,
            output: &self.output,
            usage,
            error,
            reason,
            stored: stored || (status == "in_progress" && self.keeper.is_some()),
        };
        object::object(&self.about, &self.echo, state)
    }

    /// An id that only this response's item of this place has.
    fn item_id(&self, prefix: &str, place: usize) -> String {
        format!("{prefix}_{:032x}{place:03x}", self.about.decision.0)
    }

    /// Announces an item and returns its place.
    fn add(&mut self, out: &mut String, item: Value, open: Open) -> usize {
        let place = self.output.len();
        self.output.push(item.clone());
        self.open.push((place, open));
        let fields = json!({"output_index": place, "item": item});
        self.emit(out, "response.output_item.added", fields);
        place
    }

    /// Announces the one part of a message or of reasoning.
    fn add_part(&mut self, out: &mut String, place: usize, part: Value) {
        let id = self.output[place]["id"].clone();
        let fields =
            json!({"item_id": id, "output_index": place, "content_index": 0, "part": part});
        self.emit(out, "response.content_part.added", fields);
    }

    fn reasoning(&mut self, out: &mut String, delta: &str) {
        self.close_but(out, |open| !matches!(open, Open::Message { .. }));
        let place = match self
            .open
            .iter()
            .find(|(_, o)| matches!(o, Open::Reasoning { .. }))
        {
            Some((place, _)) => *place,
            None => {
                let id = self.item_id("rs", self.output.len());
                let item = json!({"id": id, "type": "reasoning", "summary": [], "content": [],
                                  "status": "in_progress"});
                let text = String::new();
                let place = self.add(out, item, Open::Reasoning { text });
                self.add_part(out, place, json!({"type": "reasoning_text", "text": ""}));
                place
            }
        };
        if let Some((_, Open::Reasoning { text })) = self.open.iter_mut().find(|(p, _)| *p == place)
        {
            text.push_str(delta);
        }
        let fields = json!({"item_id": self.output[place]["id"], "output_index": place,
                            "content_index": 0, "delta": delta});
        self.emit(out, "response.reasoning_text.delta", fields);
    }

    fn content(&mut self, out: &mut String, delta: &str) {
        self.close_but(out, |open| !matches!(open, Open::Reasoning { .. }));
        let place = match self
            .open
            .iter()
            .find(|(_, o)| matches!(o, Open::Message { .. }))
        {
            Some((place, _)) => *place,
            None => {
                let id = self.item_id("msg", self.output.len());
                let item = json!({"id": id, "type": "message", "status": "in_progress",
                                  "role": "assistant", "content": []});
                let open = Open::Message {
                    text: String::new(),
                    logprobs: Vec::new(),
                };
                let place = self.add(out, item, open);
                self.add_part(out, place, text_part("", &[]));
                place
            }
        };
        let tokens: Vec<Value> = std::mem::take(&mut self.logprobs)
            .iter()
            .map(token)
            .collect();
        let shown: Vec<Value> = tokens.iter().map(without_bytes).collect();
        if let Some((_, Open::Message { text, logprobs })) =
            self.open.iter_mut().find(|(p, _)| *p == place)
        {
            text.push_str(delta);
            logprobs.extend(tokens);
        }
        let fields = json!({"item_id": self.output[place]["id"], "output_index": place,
                            "content_index": 0, "delta": delta, "logprobs": shown});
        self.emit(out, "response.output_text.delta", fields);
    }

    fn call(&mut self, out: &mut String, delta: ToolCallDelta) {
        self.close_but(out, |open| matches!(open, Open::Call { .. }));
        let is_it = |open: &Open| matches!(open, Open::Call { index, .. } if *index == delta.index);
        let place = match self.open.iter().find(|(_, open)| is_it(open)) {
            Some((place, _)) => *place,
            None => {
                let id = self.item_id("fc", self.output.len());
                let call_id = delta.id.clone().unwrap_or_else(|| id.clone());
                let name = delta.name.clone().unwrap_or_default();
                let item = json!({"id": id, "type": "function_call", "status": "in_progress",
                                  "call_id": call_id, "name": name, "arguments": ""});
                let open = Open::Call {
                    index: delta.index,
                    call_id,
                    name,
                    arguments: String::new(),
                };
                self.add(out, item, open)
            }
        };
        if delta.arguments.is_empty() {
            return;
        }
        if let Some((_, Open::Call { arguments, .. })) =
            self.open.iter_mut().find(|(p, _)| *p == place)
        {
            arguments.push_str(&delta.arguments);
        }
        let fields = json!({"item_id": self.output[place]["id"], "output_index": place,
                            "delta": delta.arguments});
        self.emit(out, "response.function_call_arguments.delta", fields);
    }

    /// Ends every item but those that may stay open.
    fn close_but(&mut self, out: &mut String, stays: impl Fn(&Open) -> bool) {
        let (stay, close) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|(_, o)| stays(o));
        self.open = stay;
        let close: Vec<(usize, Open)> = close;
        for (place, open) in close {
            self.close(out, place, open, "completed", None);
        }
    }

    /// Tells an item whole.
    fn close(
        &mut self,
        out: &mut String,
        place: usize,
        open: Open,
        status: &str,
        sealed: Option<String>,
    ) {
        let id = self.output[place]["id"].clone();
        let at = json!({"item_id": id, "output_index": place});
        let with = |more: Value| {
            let mut fields = at.clone();
            if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
                fields.extend(more);
            }
            fields
        };
        match open {
            Open::Reasoning { text } => {
                let part = json!({"type": "reasoning_text", "text": text});
                let done = with(json!({"content_index": 0, "text": text}));
                self.emit(out, "response.reasoning_text.done", done);
                let done = with(json!({"content_index": 0, "part": part}));
                self.emit(out, "response.content_part.done", done);
                self.output[place]["content"] = json!([part]);
                if let Some(sealed) = sealed {
                    self.output[place]["encrypted_content"] = json!(sealed);
                }
            }
            Open::Message { text, logprobs } => {
                let shown: Vec<Value> = logprobs.iter().map(without_bytes).collect();
                let part = text_part(&text, &logprobs);
                let done = with(json!({"content_index": 0, "text": text, "logprobs": shown}));
                self.emit(out, "response.output_text.done", done);
                let done = with(json!({"content_index": 0, "part": part}));
                self.emit(out, "response.content_part.done", done);
                self.output[place]["content"] = json!([part]);
            }
            Open::Call {
                name,
                arguments,
                call_id,
                ..
            } => {
                // A call without arguments has an empty object of them.
                let arguments = if arguments.trim().is_empty() {
                    "{}".to_owned()
                } else {
                    arguments
                };
                let done = with(json!({"name": name, "arguments": arguments}));
                self.emit(out, "response.function_call_arguments.done", done);
                self.output[place]["call_id"] = json!(call_id);
                self.output[place]["arguments"] = json!(arguments);
            }
        }
        self.output[place]["status"] = json!(status);
        let fields = json!({"output_index": place, "item": self.output[place]});
        self.emit(out, "response.output_item.done", fields);
    }

    /// Ends everything; the last item as `status` says.
    fn close_all(&mut self, out: &mut String, status: &'static str) {
        let last = self.output.len().saturating_sub(1);
        for (place, open) in std::mem::take(&mut self.open) {
            let status = if place == last { status } else { "completed" };
            self.close(out, place, open, status, None);
        }
    }

    /// What the target wants to see again goes with the reasoning that it
    /// belongs to, or into an item of its own.
    fn signature(&mut self, out: &mut String, of: &Signed, signature: &Signature) {
        let sealed = match of {
            Signed::Thought { .. } => Sealed::Thought,
            Signed::Redacted => Sealed::Redacted,
            Signed::Call(index) => Sealed::Call(*index),
        };
        let shown = sealed.show(signature);
        let open = match sealed {
            Sealed::Thought => {
                let is_reasoning =
                    |(_, open): &(usize, Open)| matches!(open, Open::Reasoning { .. });
                self.open.iter().position(is_reasoning)
            }
            _ => None,
        };
        if let Some(open) = open {
            let (place, open) = self.open.remove(open);
            return self.close(out, place, open, "completed", Some(shown));
        }
        if !matches!(sealed, Sealed::Call(_)) {
            self.close_but(out, |_| false);
        }
        let place = self.output.len();
        let item = json!({"id": self.item_id("rs", place), "type": "reasoning", "summary": [],
                          "encrypted_content": shown, "status": "completed"});
        self.output.push(item.clone());
        for kind in ["response.output_item.added", "response.output_item.done"] {
            self.emit(out, kind, json!({"output_index": place, "item": item}));
        }
    }

    fn finish(&mut self, out: &mut String, reason: FinishReason, usage: &Usage) {
        if !self.logprobs.is_empty() {
            self.content(out, "");
        }
        let (status, why) = match reason {
            FinishReason::Stop | FinishReason::ToolCalls => ("completed", None),
            FinishReason::Length => ("incomplete", Some("max_output_tokens")),
            FinishReason::ContentFilter => ("incomplete", Some("content_filter")),
        };
        self.close_all(out, status);
        let usage = object::usage(usage);
        let mut response = self.object(status, usage, Value::Null, why, self.keeper.is_some());
        tell_continuation(&mut response, &self.continued_on);
        if let Some(keeper) = self.keeper.take() {
            response["store"] = json!(keeper.keep(&id_of(&self.about), &response));
        }
        let kind = format!("response.{status}");
        self.emit(out, &kind, json!({"response": response}));
        self.ended = Some(response);
        self.over = true;
    }

    fn fail(&mut self, out: &mut String, failure: &Failure) {
        self.close_all(out, "incomplete");
        let told = Problem::failed(failure).openai_body();
        let error = json!({"code": told["error"]["code"], "message": told["error"]["message"]});
        let status = match failure.kind {
            FailureKind::Cancelled => "cancelled",
            _ => "failed",
        };
        let response = self.object(status, Value::Null, error, None, false);
        self.emit(out, "response.failed", json!({"response": response}));
        self.over = true;
    }
}

impl Chunks for Writer {
    fn push(&mut self, event: Event, out: &mut String) {
        if self.over {
            return;
        }
        let goes_on = !self.output.is_empty();
        self.begin(out);
        self.bytes += match &event {
            Event::Content(text) | Event::Reasoning(text) => text.len(),
            Event::ToolCall(delta) => delta.arguments.len() + 64,
            Event::Logprobs(tokens) => tokens.iter().map(|t| 96 * (1 + t.top.len())).sum(),
            Event::Signature { signature, .. } => signature.data.len(),
            _ => 0,
        };
        if self.bytes > MAX_WHOLE_BYTES {
            let message = "The answer is too long to be told again at its end.";
            return self.fail(out, &Failure::new(FailureKind::Malformed, message));
        }
        match event {
            Event::Content(text) => self.content(out, &text),
            Event::Reasoning(text) => self.reasoning(out, &text),
            Event::ToolCall(delta) => self.call(out, delta),
            Event::Signature { of, signature } => self.signature(out, &of, &signature),
            Event::Logprobs(tokens) => self.logprobs.extend(tokens),
            Event::Finished { reason, usage } => self.finish(out, reason, &usage),
            Event::Failed(failure) => self.fail(out, &failure),
            Event::Started { model } if goes_on => self.continued_on.push(model),
            Event::Started { .. } | Event::StoppedBy(_) | Event::Vectors(_) => {}
        }
    }
}

impl Keeper {
    fn keep(&self, id: &str, response: &Value) -> bool {
        let turn = Turn {
            tenant: self.tenant.clone(),
            // What nobody decided about stays.
            ceiling: self.ceiling.get().copied().unwrap_or(Zone::Device),
            redact: self.redact.get().copied().unwrap_or(true),
            previous: self.previous.clone(),
            input: Value::Array(super::items::listed(&self.input, id)).to_string(),
            response: response.to_string(),
        };
        self.conversations.keep(id, turn, Instant::now())
    }
}

fn text_part(text: &str, logprobs: &[Value]) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text})
}

fn token(token: &TokenLogprob) -> Value {
    let one = |text: &str, bytes: &[u8], p: f32| json!({"token": text, "bytes": bytes, "logprob": logprob(p)});
    let mut entry = one(&token.token, &token.bytes, token.logprob);
    let top = token.top.iter();
    entry["top_logprobs"] = top.map(|(text, bytes, p)| one(text, bytes, *p)).collect();
    entry
}

/// As events have it.
fn without_bytes(token: &Value) -> Value {
    let bare = |token: &Value| json!({"token": token["token"], "logprob": token["logprob"]});
    let mut entry = bare(token);
    if let Value::Array(top) = &token["top_logprobs"] {
        entry["top_logprobs"] = top.iter().map(bare).collect();
    }
    entry
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
