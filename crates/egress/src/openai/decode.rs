//! OpenAI's answers as [`Event`]s: a state machine that is fed messages or a
//! whole body.

use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, Usage};
use serde_json::Value;

use super::calls::{Calls, Disorder, Fragment};
use super::wire::{Choice, Chunk, Delta, texts};
use crate::codec::{cut, malformed};
use crate::sse::Message;
use crate::upstream::Said;

/// Reads one answer.
pub struct Decoder {
    provider: String,
    model: String,
    nonce: u64,
    answer_id: String,
    started: bool,
    calls: Calls,
    refused: bool,
    usage: Usage,
    finish: Option<FinishReason>,
    complete: bool,
}

impl Decoder {
    /// See [`crate::codec::Decoder::new`].
    pub fn new(provider: &str, model: &str, nonce: u64) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            nonce,
            answer_id: String::new(),
            started: false,
            calls: Calls::default(),
            refused: false,
            usage: Usage::default(),
            finish: None,
            complete: false,
        }
    }

    /// Whether `Finished` was given out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the answer is whole: its finish reason came. Only usage and the
    /// end marker may be missing, and both are optional.
    pub fn may_end(&self) -> bool {
        self.finish.is_some()
    }

    /// See [`crate::codec::Decoder::message`].
    pub fn message(&mut self, message: &Message, out: &mut Vec<Event>) -> Result<(), Failure> {
        let data = message.data.trim();
        if self.complete || data.is_empty() {
            return Ok(());
        }
        if data == "[DONE]" {
            return self.end(out);
        }
        let chunk: Chunk = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            // A server that reports an error in words alone.
            Err(_) if message.event == "error" => {
                return Err(self.says(&Value::String(data.to_owned())));
            }
            Err(_) => {
                return Err(malformed(
                    &self.provider,
                    "a chunk is not the JSON that it should be",
                ));
            }
        };
        if message.event == "error" && chunk.error.is_none() && chunk.choices.is_none() {
            let value = serde_json::from_str(data).unwrap_or(Value::Null);
            return Err(self.says(&value));
        }
        self.chunk(chunk, out)
    }

    /// See [`crate::codec::Decoder::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(malformed(&self.provider, "it is empty"));
        }
        let chunk: Chunk = serde_json::from_slice(body)
            .map_err(|_| malformed(&self.provider, "it is not the JSON that it should be"))?;
        let has_choice = chunk.choices.as_ref().is_some_and(|all| !all.is_empty());
        if chunk.error.is_none() && !has_choice {
            let value = serde_json::from_slice(body).unwrap_or(Value::Null);
            let said = Said::of(&value);
            return Err(if said.message.is_some() {
                said.failure(&self.provider, None, None)
            } else {
                malformed(&self.provider, "it has no choices")
            });
        }
        self.chunk(chunk, out)?;
        // A JSON document that closed is whole, even from servers that leave
        // the reason null.
        self.finish.get_or_insert(FinishReason::Stop);
        self.end(out)
    }

    /// See [`crate::codec::Decoder::end`].
    pub fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        let Some(reason) = self.finish else {
            return Err(cut(&self.provider));
        };
        self.start(None, out);
        self.calls
            .finish(out)
            .map_err(|Disorder(what)| malformed(&self.provider, what))?;
        let reason = match reason {
            // OpenAI says `stop` after a call that was forced by name, others
            // after any call; some say `tool_calls` without one.
            FinishReason::Stop | FinishReason::ToolCalls if self.calls.any() => {
                FinishReason::ToolCalls
            }
            FinishReason::Stop | FinishReason::ToolCalls if self.refused => {
                FinishReason::ContentFilter
            }
            FinishReason::ToolCalls => FinishReason::Stop,
            other => other,
        };
        self.complete = true;
        out.push(Event::Finished {
            reason,
            usage: self.usage,
        });
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<Event>) -> Result<(), Failure> {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(self.says(&error));
        }
        if let Some(id) = chunk.id
            && self.answer_id.is_empty()
        {
            self.answer_id = id;
        }
        // Azure's first chunk, about its filters, names no model yet.
        if let Some(model) = chunk.model.filter(|model| !model.is_empty()) {
            self.start(Some(model), out);
        }
        let usage = chunk.usage.or(chunk.x_groq.and_then(|groq| groq.usage));
        if let Some(usage) = usage {
            self.usage = usage.into();
        }
        for choice in chunk.choices.unwrap_or_default() {
            // One answer was asked for.
            if choice.index.unwrap_or(0) == 0 {
                self.choice(choice, out)?;
            }
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice, out: &mut Vec<Event>) -> Result<(), Failure> {
        if let Some(error) = choice.error.filter(|error| !error.is_null()) {
            return Err(self.says(&error));
        }
        self.start(None, out);
        if let Some(logprobs) = choice.logprobs {
            let tokens = logprobs.into_tokens();
            if !tokens.is_empty() {
                out.push(Event::Logprobs(tokens));
            }
        }
        if let Some(text) = choice.text.filter(|text| !text.is_empty()) {
            out.push(Event::Content(text));
        }
        if let Some(delta) = choice.delta {
            self.delta(delta, out)?;
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => {}
            Some("error") => return Err(self.says(&Value::Null)),
            Some("insufficient_system_resource") => {
                return Err(Failure::new(
                    FailureKind::Overloaded,
                    format!("{} stopped for lack of resources", self.provider),
                ));
            }
            Some(word) => self.finish = Some(reason(word)),
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta, out: &mut Vec<Event>) -> Result<(), Failure> {
        // Some send the same reasoning under both names.
        let reasoning = delta
            .reasoning_content
            .filter(|text| !text.is_null())
            .or(delta.reasoning);
        let (thought, plain) = reasoning.as_ref().map(texts).unwrap_or_default();
        let (mixed, said) = match delta.content {
            // Nearly every chunk.
            Some(Value::String(said)) => (String::new(), said),
            other => other.as_ref().map(texts).unwrap_or_default(),
        };
        for text in [thought, plain, mixed] {
            if !text.is_empty() {
                out.push(Event::Reasoning(text));
            }
        }
        if !said.is_empty() {
            out.push(Event::Content(said));
        }
        if let Some(refusal) = delta.refusal.filter(|text| !text.is_empty()) {
            self.refused = true;
            out.push(Event::Content(refusal));
        }
        if let Some(function) = delta.function_call {
            self.call(
                Fragment {
                    key: Some(0),
                    id: None,
                    arguments: function.arguments(),
                    name: function.name,
                },
                out,
            )?;
        }
        for call in delta.tool_calls.unwrap_or_default() {
            let function = call.function.unwrap_or_default();
            self.call(
                Fragment {
                    key: call.index,
                    id: call.id,
                    arguments: function.arguments(),
                    name: function.name,
                },
                out,
            )?;
        }
        Ok(())
    }

    fn call(&mut self, fragment: Fragment, out: &mut Vec<Event>) -> Result<(), Failure> {
        let (answer, nonce) = (&self.answer_id, self.nonce);
        let fallback = |index| {
            let tail = answer.rsplit('-').next().unwrap_or_default();
            format!("call_{tail}{nonce:x}_{index}")
        };
        self.calls
            .push(fragment, fallback, out)
            .map_err(|Disorder(what)| malformed(&self.provider, what))
    }

    fn start(&mut self, model: Option<String>, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                model: model.unwrap_or_else(|| self.model.clone()),
            });
        }
    }

    fn says(&self, error: &Value) -> Failure {
        Said::of(error).failure(&self.provider, None, None)
    }
}

/// What a finish reason's word means; an unknown one is an end like any other.
fn reason(word: &str) -> FinishReason {
    match word {
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filter" | "refusal" | "safety" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}
