//! One answer, as a state machine that moves one step at a time.
//!
//! A step computes one piece of the prompt or the next token of the answer, so
//! that whoever drives several answers can move them together ([`batch`]), and
//! can drop one between any two steps. Steps are short: pieces of the prompt
//! are cut to a fraction of a second at the speed that was measured ([`pace`]).
//! What is not here: threads, queues and links ([`crate::worker`]).

mod batch;
mod date;
mod draft;
mod guess;
mod kept;
mod pace;
mod prefix;
mod prompt;
mod ready;
mod tally;
mod worth;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use nearfar_domain::chat::Chat;
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, Usage};
use nearfar_domain::frames::{Purpose, Timings};

use crate::constrain::{Constraint, ConstraintError};
use crate::model::{BLOCK_TOKENS, Cache, Part, Wanted};
use crate::sampling::{Certainty, Choice, Sampler, certainty};
pub use batch::{Turn, step};
use draft::Drafting;
use guess::Guesser;
pub(crate) use kept::Restore;
pub use pace::{Pace, STEP_WHILE_QUIET, STEP_WHILE_SPEAKING};
pub use prompt::Prepared;
pub use ready::ReadyModel;
use tally::Tally;
use writer::Writer;

/// A constraint may settle some tokens after the one that was chosen; up to
/// this many are computed with it in one step.
const MAX_FORCED: usize = 32;

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
    /// Tokens of the prompt that were found computed when it began.
    cached: Option<usize>,
    purpose: Purpose,
    /// The most tokens that may be written.
    limit: usize,
    written: usize,
    reasoning: usize,
    sampler: Sampler,
    /// What the answer must look like, where the request says so.
    constraint: Option<Constraint>,
    writer: Writer,
    guesser: Guesser,
    drafting: Drafting,
    tally: Tally,
    /// The tokens of the next step: a piece of the prompt, or the last token and
    /// guesses at what follows it.
    feed: Vec<u32>,
    /// How many of these are guesses.
    guessed: usize,
    /// How many rows of logits it wants of the next step: of its last tokens.
    rows: usize,
    guessed_tokens: usize,
    accepted_tokens: usize,
    prefill: Duration,
    decode: Duration,
    suspect: bool,
}

impl Generation {
    /// Begins an answer; computes nothing yet.
    pub fn new(ready: Arc<ReadyModel>, prepared: Prepared) -> Self {
        Self::with(ready, prepared, Purpose::Answer)
    }

    /// Begins an answer, or the prompt of one that is yet to be asked for.
    pub fn with(ready: Arc<ReadyModel>, prepared: Prepared, purpose: Purpose) -> Self {
        let Prepared {
            tokens,
            limit,
            settings,
            constraint,
            writer,
        } = prepared;
        Self {
            sampler: Sampler::new(settings, &tokens),
            prompt_tokens: tokens.len(),
            limit,
            cache: ready.model.new_cache(),
            ready,
            tokens,
            cached: None,
            purpose,
            written: 0,
            reasoning: 0,
            constraint,
            writer,
            guesser: Guesser::default(),
            drafting: Drafting::default(),
            tally: Tally::default(),
            feed: Vec::new(),
            guessed: 0,
            rows: 0,
            guessed_tokens: 0,
            accepted_tokens: 0,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
            suspect: false,
        }
    }

    /// Reads and checks a request, and reads from disk what was pinned of its
    /// prompt and is not in memory. Takes as long as the text is long and the
    /// disk slow.
    ///
    /// # Errors
    /// The public reason why this model cannot answer this request.
    pub fn prepare(ready: &ReadyModel, chat: &Chat, partial: &str) -> Result<Prepared, Failure> {
        let prepared = prompt::prepare(ready, chat, partial)?;
        ready.bring(prepared.tokens());
        Ok(prepared)
    }

    /// As [`Generation::prepare`], for a prompt of which nothing is to be
    /// computed: nothing is read from disk.
    ///
    /// # Errors
    /// As [`Generation::prepare`].
    pub fn read(ready: &ReadyModel, chat: &Chat, partial: &str) -> Result<Prepared, Failure> {
        prompt::prepare(ready, chat, partial)
    }

    /// One step of this answer alone. Its events are added to `out`; `Finished`
    /// is the last of them.
    ///
    /// # Errors
    /// The answer failed and is not to be stepped again.
    pub fn step(&mut self, out: &mut Vec<Event>) -> Result<Progress, Failure> {
        let ready = Arc::clone(&self.ready);
        let allowance = ready.piece_tokens(STEP_WHILE_QUIET);
        let mut turns = [Turn::new(self, allowance)];
        step(&ready, &mut turns);
        let [
            Turn {
                events, outcome, ..
            },
        ] = turns;
        out.extend(events);
        outcome
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The model that makes the answer.
    pub fn ready(&self) -> &Arc<ReadyModel> {
        &self.ready
    }

    /// Tokens that are still to be computed before the next one can be chosen.
    pub fn pending(&self) -> usize {
        self.tokens.len().saturating_sub(self.cache.len())
    }

    /// Whether it is at its prompt (also once more, after its keys and values
    /// had to make room) rather than writing.
    pub fn is_prefilling(&self) -> bool {
        self.written == 0 || self.pending() > MAX_FORCED
    }

    /// Takes over what is known of the tokens from earlier prompts, where that
    /// is more than it has. The last token is computed anew: its logits are what
    /// the answer goes on with.
    fn begin(&mut self) {
        let wanted = match self.purpose {
            Purpose::Answer => self.tokens.len().saturating_sub(1),
            Purpose::Prefill { .. } | Purpose::Look | Purpose::Unpin => self.tokens.len(),
        };
        let tokens = &self.tokens[..wanted];
        if self.ready.known_tokens(tokens) > self.cache.len() {
            self.cache = self.ready.take_cache(tokens);
        }
        self.cached.get_or_insert(self.cache.len());
    }

    /// Bytes of keys and values that `tokens` more would take.
    fn room_for(&self, tokens: usize) -> u64 {
        let blocks = self.cache.blocks();
        let more = (self.cache.len() + tokens).div_ceil(BLOCK_TOKENS) - blocks.len();
        // A partly filled block that others hold, too, is copied first.
        let shared = !self.cache.len().is_multiple_of(BLOCK_TOKENS)
            && blocks.last().is_some_and(|block| block.holders() > 1);
        (more + usize::from(shared)) as u64 * self.ready.model.kv_pool().block_bytes()
    }

    /// Lets others use what was computed of its tokens so far.
    fn share(&self) {
        self.ready.keep_cache(&self.tokens, &self.cache, false);
    }

    /// How many of the first tokens are the same.
    fn in_common(&self, other: &Self) -> usize {
        let both = self.tokens.iter().zip(&other.tokens);
        both.take_while(|(a, b)| a == b).count()
    }

    /// Drops what was computed; it is computed anew from the tokens.
    fn forget(&mut self) {
        self.cache = self.ready.model.new_cache();
    }

    /// A step with others failed: the next one is to be made alone.
    fn suspect(&mut self) {
        self.suspect = true;
    }

    /// Whether its next step is to be made alone, because one with others failed.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Lays out the tokens of the next step, which `sharing` answers share.
    fn lay_out(&mut self, allowance: usize, sharing: usize) {
        if self.is_prefilling() {
            self.begin();
        }
        let (done, pending) = (self.cache.len(), self.pending());
        self.feed.clear();
        self.guessed = 0;
        self.drafting.clear(self.tokens.len());
        if self.is_prefilling() {
            let count = pending.min(allowance);
            self.feed
                .extend_from_slice(&self.tokens[done..done + count]);
            let answers = self.purpose == Purpose::Answer && count == pending;
            self.rows = usize::from(answers);
            return;
        }
        self.feed.extend_from_slice(&self.tokens[done..]);
        self.rows = 1;
        let most = self.room_to_guess();
        let guesser = &mut self.guesser;
        self.guessed = self
            .ready
            .with_pace(|pace| guesser.guess(&self.tokens, most, pace, sharing));
        self.feed
            .extend_from_slice(&guesser.guesses()[..self.guessed]);
        self.rows = 1 + self.guessed;
    }

    /// The most tokens that may be guessed: the model's own comes on top.
    fn room_to_guess(&self) -> usize {
        let context = self.ready.model.context_tokens();
        (self.limit.saturating_sub(self.written + 1))
            .min(context.saturating_sub(self.tokens.len() + 1))
    }

    /// Its part of the step that was laid out; `None` where nothing is left to
    /// compute.
    fn part(&mut self) -> Option<Part<'_>> {
        let logits = match self.rows {
            0 => Wanted::None,
            1 => Wanted::Last,
            rows => Wanted::Tail(rows),
        };
        (!self.feed.is_empty()).then_some(Part {
            cache: &mut self.cache,
            tokens: &self.feed,
            logits,
        })
    }

    /// Takes in what the step computed for it: `rows` of logits, in `took`.
    fn take_rows(
        &mut self,
        rows: Vec<Vec<f32>>,
        took: Duration,
        out: &mut Vec<Event>,
    ) -> Result<Progress, Failure> {
        self.suspect = false;
        // Where this step's tokens begin.
        let done = self.cache.len().saturating_sub(self.feed.len());
        if self.written == 0 {
            self.prefill += took;
        } else {
            self.decode += took;
        }
        if rows.is_empty() {
            let over = self.purpose != Purpose::Answer && self.pending() == 0;
            if over {
                out.push(self.finished(FinishReason::Stop));
            }
            return Ok(if over {
                Progress::Finished
            } else {
                Progress::More
            });
        }
        let before = self.tokens.len();
        let progress = self.check(rows, done, out);
        let right = self.cache.len().saturating_sub(before);
        self.guessed_tokens += self.guessed;
        self.accepted_tokens += right;
        if let Some(draft) = self.ready.draft() {
            self.drafting.settle(draft, before, &self.tokens[before..]);
        }
        progress
    }

    /// Chooses at each place of `rows` for as long as the guesses were right;
    /// what was computed for wrong ones is forgotten. The step's tokens begin at
    /// `done`.
    fn check(
        &mut self,
        rows: Vec<Vec<f32>>,
        done: usize,
        out: &mut Vec<Event>,
    ) -> Result<Progress, Failure> {
        let (mut place, mut looked_up) = (0, true);
        // The guesses follow all tokens that the answer had.
        let before = self.tokens.len();
        for (index, logits) in rows.into_iter().enumerate() {
            // A token that had to follow the one before was not chosen.
            if index < place {
                continue;
            }
            let choice = self.choose(logits)?;
            let progress = self.take(choice, out)?;
            let guesses = &self.feed[before - done..];
            let came = &self.tokens[before + place..];
            let right = came
                .iter()
                .zip(&guesses[place..])
                .take_while(|(came, guess)| came == guess)
                .count();
            for (offset, id) in came.iter().enumerate() {
                looked_up = looked_up && self.guesser.came(place + offset, *id);
            }
            let all = right == came.len();
            place += right;
            if progress == Progress::Finished || !all {
                self.cache.truncate(before + place);
                return Ok(progress);
            }
        }
        Ok(Progress::More)
    }

    /// Chooses the next token from the model's logits.
    fn choose(&mut self, mut logits: Vec<f32>) -> Result<Choice, Failure> {
        // Ids past the tokenizer's vocabulary are padding of the weights.
        logits.truncate(self.ready.tokenizer.vocab_size());
        let certainty = certainty(&logits);
        let mask = match &mut self.constraint {
            Some(constraint) => constraint.mask().map_err(|error| unfollowed(&error))?,
            None => None,
        };
        let choice = self
            .sampler
            .sample_within(&mut logits, mask.as_ref())
            .map_err(|error| Failure::new(FailureKind::ModelBroken, error.to_string()))?;
        self.tally.extend(certainty);
        Ok(choice)
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
            .map(|logprob| self.ready.told(&choice, logprob));
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
        let is_answer = self.purpose == Purpose::Answer;
        Event::Finished {
            reason,
            usage: Usage {
                prompt: Some(self.prompt_tokens as u64),
                cached_prompt: Some(self.cached.unwrap_or(0) as u64),
                cache_written: None,
                cache_written_hour: None,
                // Of a prompt alone there is nothing to learn about answers.
                completion: is_answer.then_some(self.written as u64),
                reasoning: is_answer.then_some(self.reasoning as u64),
            },
        }
    }

    /// Ids of what was written so far.
    pub fn written(&self) -> &[u32] {
        &self.tokens[self.prompt_tokens..]
    }

    /// How sure the model was of each token that it chose, in order; the one
    /// that ended the answer is among them.
    pub fn certainties(&self) -> &[Certainty] {
        self.tally.tokens()
    }

    /// Where the time went so far; queueing and loading are the caller's. A step
    /// that several answers shared counts whole for each of them: it is how long
    /// they waited.
    pub fn timings(&self) -> Timings {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let cached = self.cached.unwrap_or(0);
        Timings {
            prefill_ms: self.prefill.as_secs_f64() * 1000.0,
            prefill_tokens: count(self.prompt_tokens - cached),
            decode_ms: self.decode.as_secs_f64() * 1000.0,
            decode_tokens: count(self.written),
            cached_tokens: count(cached),
            guessed_tokens: count(self.guessed_tokens),
            accepted_tokens: count(self.accepted_tokens),
            drafted_tokens: count(self.drafting.proposed_tokens),
            drafted_accepted: count(self.drafting.accepted_tokens),
            confidence: self.tally.confidence(),
            ..Timings::default()
        }
    }

    /// Ends this answer, whole or not, and keeps its keys and values for the
    /// next prompt that begins alike. Not to be called after a failed step.
    pub fn keep(self) {
        if let Some(draft) = self.ready.draft() {
            self.drafting.keep(draft, &self.tokens);
        }
        let pin = self.purpose == Purpose::Prefill { pin: true };
        self.ready.keep_cache(&self.tokens, &self.cache, pin);
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
        ConstraintError::TooComplex => FailureKind::Unsupported,
        ConstraintError::DeadEnd => FailureKind::TargetError,
    };
    Failure::new(kind, error.to_string())
}

#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod draft_tests;
#[cfg(test)]
mod tests;
