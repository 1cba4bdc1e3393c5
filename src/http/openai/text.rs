//! Answers of `/v1/completions`, the endpoint that goes on with raw text.

use nearfar_domain::events::{Event, FinishReason, TokenLogprob, Usage};
use serde_json::{Map, Value, json};

use super::shape::{self, DONE, Head, push_data};
use crate::http::collect::Collected;
use crate::http::dialect;
use crate::http::problem::Problem;

/// Writes the chunks of one stream.
pub(crate) struct Chunks {
    head: Head,
    include_usage: bool,
    /// The prompt, until it was sent: with `echo` it comes before the answer.
    echo: Option<String>,
    logprobs: Vec<TokenLogprob>,
    /// Characters sent so far.
    offset: usize,
    /// Targets that went on with the answer after one that broke off.
    continued_on: Vec<String>,
}

impl Chunks {
    /// `echo` is the prompt where the client wants it back.
    pub(crate) fn new(head: Head, include_usage: bool, echo: Option<String>) -> Self {
        Self {
            head,
            include_usage,
            echo,
            logprobs: Vec::new(),
            offset: 0,
            continued_on: Vec::new(),
        }
    }
}

impl dialect::Chunks for Chunks {
    fn push(&mut self, event: Event, out: &mut String) {
        let goes_on = self.offset > 0;
        if !matches!(event, Event::Failed(_))
            && let Some(prompt) = self.echo.take()
        {
            self.text(out, &prompt);
        }
        match event {
            Event::Content(text) => self.text(out, &text),
            Event::Logprobs(tokens) => self.logprobs.extend(tokens),
            Event::Finished { reason, usage } => self.finish(out, reason, &usage),
            Event::Failed(failure) => push_data(out, &Problem::failed(&failure).openai_body()),
            Event::Started { model } if goes_on => self.continued_on.push(model),
            // Raw text has no turns, so it has neither reasoning nor calls.
            Event::Started { .. }
            | Event::Reasoning(_)
            | Event::ToolCall(_)
            | Event::Signature { .. }
            | Event::StoppedBy(_)
            | Event::Vectors(_) => {}
        }
    }
}

impl Chunks {
    fn text(&mut self, out: &mut String, text: &str) {
        let tokens = std::mem::take(&mut self.logprobs);
        let logprobs = logprobs(&tokens, self.offset);
        self.offset += text.chars().count();
        self.chunk(out, text, logprobs, None);
    }

    fn finish(&mut self, out: &mut String, reason: FinishReason, usage: &Usage) {
        if !self.logprobs.is_empty() {
            self.text(out, "");
        }
        let reason = shape::finish_reason(reason);
        let mut last = self.choice("", Value::Null, Some(reason));
        shape::tell_continuation(&mut last, &self.continued_on);
        push_data(out, &last);
        if self.include_usage {
            let mut chunk = self.head.object("text_completion");
            chunk["choices"] = json!([]);
            chunk["usage"] = shape::usage(usage);
            push_data(out, &chunk);
        }
        out.push_str(DONE);
    }

    fn chunk(&self, out: &mut String, text: &str, logprobs: Value, finish: Option<&str>) {
        push_data(out, &self.choice(text, logprobs, finish));
    }

    fn choice(&self, text: &str, logprobs: Value, finish: Option<&str>) -> Value {
        let mut chunk = self.head.object("text_completion");
        chunk["choices"] = json!([{
            "text": text,
            "index": 0,
            "logprobs": logprobs,
            "finish_reason": finish,
        }]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

/// A whole answer as one object.
pub(crate) fn whole(head: &Head, answer: &Collected, echo: Option<&str>) -> Value {
    let prompt = echo.unwrap_or_default();
    let mut object = head.object("text_completion");
    object["choices"] = json!([{
        "text": format!("{prompt}{}", answer.content),
        "index": 0,
        "logprobs": logprobs(&answer.logprobs, prompt.chars().count()),
        "finish_reason": answer.reason.map(shape::finish_reason),
    }]);
    object["usage"] = shape::usage(&answer.usage);
    object
}

/// The older shape of log-probabilities: four lists side by side. Offsets count
/// characters from the start of the text, which is at `offset`.
fn logprobs(tokens: &[TokenLogprob], mut offset: usize) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let mut offsets = Vec::with_capacity(tokens.len());
    let mut top = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(offset);
        offset += token.token.chars().count();
        top.push(if token.top.is_empty() {
            Value::Null
        } else {
            let entries = token.top.iter();
            let entries = entries.map(|(text, _, p)| (text.clone(), json!(shape::logprob(*p))));
            let mut entries = entries.collect::<Map<_, _>>();
            // The token that was taken is always among them, even as one too many.
            entries
                .entry(token.token.clone())
                .or_insert_with(|| json!(shape::logprob(token.logprob)));
            Value::Object(entries)
        });
    }
    json!({
        "tokens": tokens.iter().map(|t| t.token.as_str()).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|t| shape::logprob(t.logprob)).collect::<Vec<_>>(),
        "top_logprobs": top,
        "text_offset": offsets,
    })
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
