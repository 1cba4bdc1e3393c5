//! Gemini's answers as [`Event`]s: a state machine that is fed messages or a
//! whole body.

use nearfar_domain::events::{
    Event, Failure, FailureKind, FinishReason, Signed, TokenLogprob, ToolCallDelta, Usage,
};
use nearfar_domain::thought::{Origin, Signature};
use serde::Deserialize;
use serde_json::Value;

use crate::codec::{cut, malformed};
use crate::sse::Message;
use crate::upstream::Said;

/// Calls of one turn; more are a fault of the provider.
const MAX_CALLS: u32 = 1_024;

/// Reads one answer.
pub struct Decoder {
    provider: String,
    model: String,
    nonce: u64,
    started: bool,
    calls: u32,
    usage: Usage,
    finish: Option<FinishReason>,
    complete: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<WireUsage>,
    model_version: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    #[serde(default)]
    index: u32,
    logprobs_result: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<Call>,
    executable_code: Option<Code>,
    code_execution_result: Option<Outcome>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    #[serde(default)]
    name: String,
    args: Option<Value>,
}

/// Google's own tools: what they ran and what came of it is shown as text.
#[derive(Deserialize)]
struct Code {
    code: Option<String>,
}

#[derive(Deserialize)]
struct Outcome {
    output: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
}

impl From<WireUsage> for Usage {
    /// Gemini counts thoughts apart from the answer, and what its own tools put
    /// into the prompt apart from the prompt. A count of nothing is left out.
    fn from(wire: WireUsage) -> Usage {
        let thoughts = wire.thoughts_token_count;
        let written = wire.candidates_token_count.unwrap_or(0);
        Usage {
            prompt: wire
                .prompt_token_count
                .map(|prompt| prompt.saturating_add(wire.tool_use_prompt_token_count.unwrap_or(0))),
            cached_prompt: wire.cached_content_token_count,
            cache_written: None,
            cache_written_hour: None,
            completion: wire
                .prompt_token_count
                .map(|_| written.saturating_add(thoughts.unwrap_or(0))),
            reasoning: thoughts,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logprobs {
    #[serde(default)]
    chosen_candidates: Vec<Token>,
    #[serde(default)]
    top_candidates: Vec<Tops>,
}

#[derive(Deserialize)]
struct Tops {
    #[serde(default)]
    candidates: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    log_probability: f32,
}

impl Logprobs {
    fn into_tokens(self) -> Vec<TokenLogprob> {
        let mut tops = self.top_candidates.into_iter();
        let token = |chosen: Token| TokenLogprob {
            bytes: chosen.token.clone().into_bytes(),
            logprob: chosen.log_probability,
            top: tops
                .next()
                .map(|tops| tops.candidates)
                .unwrap_or_default()
                .into_iter()
                .map(|t| (t.token.clone(), t.token.into_bytes(), t.log_probability))
                .collect(),
            token: chosen.token,
        };
        self.chosen_candidates.into_iter().map(token).collect()
    }
}

impl Decoder {
    /// See [`crate::codec::Decoder::new`].
    pub fn new(provider: &str, model: &str, nonce: u64) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            nonce,
            started: false,
            calls: 0,
            usage: Usage::default(),
            finish: None,
            complete: false,
        }
    }

    /// Whether `Finished` was given out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the answer is whole: its finish reason came. Gemini has no end
    /// marker, and some models repeat the reason in every chunk.
    pub fn may_end(&self) -> bool {
        self.finish.is_some()
    }

    /// See [`crate::codec::Decoder::message`].
    pub fn message(&mut self, message: &Message, out: &mut Vec<Event>) -> Result<(), Failure> {
        let data = message.data.trim();
        if self.complete || data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|_| malformed(&self.provider, "a chunk is not the JSON that it should be"))?;
        self.chunk(chunk, out)
    }

    /// See [`crate::codec::Decoder::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(malformed(&self.provider, "it is empty"));
        }
        let wrong = || malformed(&self.provider, "it is not the JSON that it should be");
        // A stream that nobody asked to be events is a list of its chunks.
        let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let chunks: Vec<Chunk> = if is_list {
            serde_json::from_slice(body).map_err(|_| wrong())?
        } else {
            vec![serde_json::from_slice(body).map_err(|_| wrong())?]
        };
        for chunk in chunks {
            self.chunk(chunk, out)?;
        }
        if self.finish.is_none() {
            return Err(malformed(
                &self.provider,
                "it holds no candidate that is finished",
            ));
        }
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
        let reason = match reason {
            // Gemini says STOP after calls.
            FinishReason::Stop if self.calls > 0 => FinishReason::ToolCalls,
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
            return Err(Said::of(&error).failure(&self.provider, None, None));
        }
        self.start(chunk.model_version, out);
        if let Some(usage) = chunk.usage_metadata {
            self.usage = usage.into();
        }
        if chunk
            .prompt_feedback
            .is_some_and(|feedback| feedback.block_reason.is_some())
        {
            // The prompt was refused: there is no candidate, and will be none.
            self.finish = Some(FinishReason::ContentFilter);
        }
        for candidate in chunk.candidates {
            // One answer was asked for.
            if candidate.index == 0 {
                self.candidate(candidate, out)?;
            }
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: Candidate, out: &mut Vec<Event>) -> Result<(), Failure> {
        if let Some(logprobs) = candidate.logprobs_result {
            let tokens = logprobs.into_tokens();
            if !tokens.is_empty() {
                out.push(Event::Logprobs(tokens));
            }
        }
        for part in candidate.content.map(|c| c.parts).unwrap_or_default() {
            self.part(part, out)?;
        }
        match candidate.finish_reason.as_deref() {
            None | Some("" | "FINISH_REASON_UNSPECIFIED") => {}
            Some(word) => self.finish = Some(self.reason(word)?),
        }
        Ok(())
    }

    fn part(&mut self, part: Part, out: &mut Vec<Event>) -> Result<(), Failure> {
        let signature = part
            .thought_signature
            .filter(|data| !data.is_empty())
            .map(|data| Signature::new(Origin::Gemini, data));
        if let Some(call) = part.function_call {
            return self.call(call, signature, out);
        }
        let code = part.executable_code.and_then(|code| code.code);
        let outcome = part.code_execution_result.and_then(|o| o.output);
        let text = part.text.or(code).or(outcome).unwrap_or_default();
        if !text.is_empty() {
            out.push(if part.thought {
                Event::Reasoning(text)
            } else {
                Event::Content(text)
            });
        }
        if let Some(signature) = signature {
            let of = Signed::Thought { id: None };
            out.push(Event::Signature { of, signature });
        }
        Ok(())
    }

    /// Calls come whole. The id is Google's where it gives one.
    fn call(
        &mut self,
        call: Call,
        signature: Option<Signature>,
        out: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        if self.calls == MAX_CALLS {
            return Err(malformed(&self.provider, "too many tool calls"));
        }
        if call.name.is_empty() {
            return Err(malformed(&self.provider, "a tool call without a name"));
        }
        let index = self.calls;
        self.calls += 1;
        let id = call.id.filter(|id| !id.is_empty());
        let arguments = match call.args {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(args) => args.to_string(),
        };
        out.push(Event::ToolCall(ToolCallDelta {
            index,
            id: Some(id.unwrap_or_else(|| format!("call_{:x}_{index}", self.nonce))),
            name: Some(call.name),
            arguments,
        }));
        if let Some(signature) = signature {
            let of = Signed::Call(index);
            out.push(Event::Signature { of, signature });
        }
        Ok(())
    }

    fn start(&mut self, model: Option<String>, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                model: model
                    .filter(|model| !model.is_empty())
                    .unwrap_or_else(|| self.model.clone()),
            });
        }
    }

    /// What a finish reason's word means. Words for a call that came out wrong
    /// are failures: what was said is not an answer.
    fn reason(&self, word: &str) -> Result<FinishReason, Failure> {
        Ok(match word {
            "MAX_TOKENS" => FinishReason::Length,
            "SAFETY"
            | "RECITATION"
            | "LANGUAGE"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR"
            // The rest is withheld for reasons that Google does not tell.
            | "OTHER"
            | "IMAGE_OTHER" => FinishReason::ContentFilter,
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE" => {
                return Err(Failure {
                    upstream_code: Some(word.to_owned()),
                    ..malformed(&self.provider, "the model's tool call is not well formed")
                });
            }
            "MISSING_THOUGHT_SIGNATURE" => {
                return Err(Failure {
                    upstream_code: Some(word.to_owned()),
                    field: Some("messages".to_owned()),
                    ..Failure::new(
                        FailureKind::BadRequest,
                        format!(
                            "{} wants the thought signatures of its tool calls back; send the \
                             assistant's messages as they came",
                            self.provider
                        ),
                    )
                });
            }
            // `STOP`; an unknown word is an end like any other.
            _ => FinishReason::Stop,
        })
    }
}
