//! One answer, as a state machine that moves one step at a time.
//!
//! A step computes one piece of the prompt or one token of the answer, so that
//! whoever drives several answers can take turns, and can drop one between any
//! two steps. Steps are short: pieces of the prompt are cut to a fraction of a
//! second at the speed that was measured. What is not here: threads, queues
//! and links ([`crate::worker`]).

mod date;
mod prompt;
mod ready;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfar_domain::chat::Chat;
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, TokenLogprob, Usage};
use nearfar_domain::frames::Timings;

use crate::constrain::{Constraint, ConstraintError};
use crate::model::{Cache, ModelError};
use crate::sampling::{Choice, Sampler};
pub use prompt::Prepared;
pub use ready::ReadyModel;
use writer::Writer;

/// What a step left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Step again.
    More,
    /// The answer is whole: `Finished` was the last event.
    Finished,
}

/// One answer in the making.
pub struct Generation {
    ready: Arc<ReadyModel>,
    cache: Cache,
    /// The prompt, then what was written. All but the last are in the cache
    /// once the prompt is computed.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    cached: usize,
    /// The most tokens that may be written.
    limit: usize,
    written: usize,
    reasoning: usize,
    sampler: Sampler,
    /// What the answer must look like, where the request says so.
    constraint: Option<Constraint>,
    writer: Writer,
    prefill: Duration,
    decode: Duration,
}

impl Generation {
    /// Begins an answer; computes nothing yet. Takes over the keys and values of
    /// an earlier answer as far as the two prompts agree.
    pub fn new(ready: Arc<ReadyModel>, prepared: Prepared) -> Self {
        let Prepared {
            tokens,
            limit,
            settings,
            constraint,
            writer,
        } = prepared;
        // The last token is computed anew: its logits are what the answer begins with.
        let (cache, cached) = ready.take_cache(&tokens[..tokens.len().saturating_sub(1)]);
        Self {
            sampler: Sampler::new(settings, &tokens),
            prompt_tokens: tokens.len(),
            limit,
            ready,
            cache,
            tokens,
            cached,
            written: 0,
            reasoning: 0,
            constraint,
            writer,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        }
    }

    /// Reads and checks a request. Takes as long as its text is long, and no lock.
    ///
    /// # Errors
    /// The public reason why this model cannot answer this request.
    pub fn prepare(ready: &ReadyModel, chat: &Chat, partial: &str) -> Result<Prepared, Failure> {
        prompt::prepare(ready, chat, partial)
    }

    /// One step. Its events are added to `out`; `Finished` is the last of them.
    ///
    /// # Errors
    /// The answer failed and is not to be stepped again.
    pub fn step(&mut self, out: &mut Vec<Event>) -> Result<Progress, Failure> {
        let done = self.cache.len();
        let pending = self.tokens.len().saturating_sub(done);
        let prefilling = self.written == 0;
        let count = if prefilling {
            pending.min(self.ready.chunk_tokens())
        } else {
            pending
        };
        let begun = Instant::now();
        let logits = self
            .ready
            .model
            .forward(&mut self.cache, &self.tokens[done..done + count]);
        let mut logits = logits.map_err(|error| model_failure(&error))?;
        let took = begun.elapsed();
        if prefilling {
            self.prefill += took;
            self.ready.measured_prefill(count, took);
            if count < pending {
                return Ok(Progress::More);
            }
        }
        // Ids past the tokenizer's vocabulary are padding of the weights.
        logits.truncate(self.ready.tokenizer.vocab_size());
        let mask = match &mut self.constraint {
            Some(constraint) => constraint.mask().map_err(|error| unfollowed(&error))?,
            None => None,
        };
        let choice = self
            .sampler
            .sample_within(&mut logits, mask.as_ref())
            .map_err(|error| Failure::new(FailureKind::ModelBroken, error.to_string()))?;
        if !prefilling {
            self.decode += begun.elapsed();
        }
        self.take(choice, out)
    }

    /// Adds a chosen token to the answer, and those that must follow it.
    fn take(&mut self, mut choice: Choice, out: &mut Vec<Event>) -> Result<Progress, Failure> {
        if self.ready.tokenizer.ends_generation(choice.id) {
            match self
                .constraint
                .as_ref()
                .and_then(Constraint::end_of_reasoning)
            {
                Some(end) => choice = without_logprob(end),
                None => return Ok(self.finish(FinishReason::Stop, out)),
            }
        }
        let id = choice.id;
        if let Some(constraint) = &mut self.constraint {
            constraint.advance(id).map_err(|error| unfollowed(&error))?;
        }
        if self.write(choice, true, out) == Progress::Finished {
            return Ok(Progress::Finished);
        }
        let forced = match &mut self.constraint {
            Some(constraint) if !self.sampler.reports_logprobs() => {
                constraint.forced().map_err(|error| unfollowed(&error))?
            }
            _ => Vec::new(),
        };
        let last = forced.len().saturating_sub(1);
        for (index, id) in forced.into_iter().enumerate() {
            self.sampler.forced(id);
            if self.write(without_logprob(id), index == last, out) == Progress::Finished {
                return Ok(Progress::Finished);
            }
        }
        if self.constraint.as_ref().is_some_and(Constraint::is_over) {
            return Ok(self.finish(FinishReason::Stop, out));
        }
        Ok(Progress::More)
    }

    /// Writes a token. `level`: whether the constraint has seen no token after it.
    fn write(&mut self, choice: Choice, level: bool, out: &mut Vec<Event>) -> Progress {
        let tokenizer = &self.ready.tokenizer;
        self.tokens.push(choice.id);
        self.written += 1;
        let visible = self.ready.is_visible(choice.id);
        let bytes: &[u8] = if visible {
            tokenizer.token_bytes(choice.id)
        } else {
            &[]
        };
        let logprob = choice
            .logprob
            .filter(|_| visible)
            .map(|logprob| TokenLogprob {
                token: String::from_utf8_lossy(bytes).into_owned(),
                bytes: bytes.to_vec(),
                logprob,
                top: choice
                    .top
                    .iter()
                    .map(|(id, logprob)| {
                        let bytes = tokenizer.token_bytes(*id);
                        (
                            String::from_utf8_lossy(bytes).into_owned(),
                            bytes.to_vec(),
                            *logprob,
                        )
                    })
                    .collect(),
            });
        let was_reasoning = self.writer.is_reasoning();
        let stopped = self.writer.push(bytes, logprob, out);
        if was_reasoning || self.writer.is_reasoning() {
            self.reasoning += 1;
        }
        if let Some(mut reason) = stopped {
            // A stop string in the middle of JSON must not make it look whole.
            if reason == FinishReason::Stop
                && let Some(constraint) = &mut self.constraint
                && !(level && constraint.may_end())
            {
                reason = FinishReason::Length;
            }
            out.push(self.finished(reason));
            return Progress::Finished;
        }
        if self.written >= self.limit || self.tokens.len() >= self.ready.model.context_tokens() {
            let whole = level && self.constraint.as_ref().is_some_and(Constraint::is_over);
            let reason = if whole {
                FinishReason::Stop
            } else {
                FinishReason::Length
            };
            return self.finish(reason, out);
        }
        Progress::More
    }

    fn finish(&mut self, reason: FinishReason, out: &mut Vec<Event>) -> Progress {
        let reason = self.writer.finish(reason, out);
        out.push(self.finished(reason));
        Progress::Finished
    }

    fn finished(&self, reason: FinishReason) -> Event {
        Event::Finished {
            reason,
            usage: Usage {
                prompt: Some(self.prompt_tokens as u64),
                cached_prompt: Some(self.cached as u64),
                completion: Some(self.written as u64),
                reasoning: Some(self.reasoning as u64),
            },
        }
    }

    /// Ids of what was written so far.
    pub fn written(&self) -> &[u32] {
        &self.tokens[self.prompt_tokens..]
    }

    /// Where the time went so far; queueing and loading are the caller's.
    pub fn timings(&self) -> Timings {
        Timings {
            prefill_ms: self.prefill.as_secs_f64() * 1000.0,
            prefill_tokens: u32::try_from(self.prompt_tokens - self.cached).unwrap_or(u32::MAX),
            decode_ms: self.decode.as_secs_f64() * 1000.0,
            decode_tokens: u32::try_from(self.written).unwrap_or(u32::MAX),
            ..Timings::default()
        }
    }

    /// Ends this answer, whole or not, and keeps its keys and values for the
    /// next prompt that begins alike. Not to be called after a failed step.
    pub fn keep(self) {
        let Self {
            ready,
            cache,
            mut tokens,
            ..
        } = self;
        tokens.truncate(cache.len());
        ready.keep_cache(tokens, cache);
    }
}

/// A token that was not sampled.
fn without_logprob(id: u32) -> Choice {
    Choice {
        id,
        logprob: None,
        top: Vec::new(),
    }
}

fn unfollowed(error: &ConstraintError) -> Failure {
    let kind = match error {
        ConstraintError::TooComplex => FailureKind::BadRequest,
        ConstraintError::DeadEnd => FailureKind::TargetError,
    };
    Failure::new(kind, error.to_string())
}

fn model_failure(error: &ModelError) -> Failure {
    Failure::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests;
