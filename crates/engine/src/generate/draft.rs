//! Guesses of a smaller model, the draft.
//!
//! Before a step of the model, the draft writes on from where an answer is: a
//! few tokens, which the step then checks all at once ("speculative decoding",
//! Leviathan et al. 2023). What differs from there: a proposal is not accepted
//! by a draw of its own. The model chooses at each place as it would without
//! proposals, with the same number; the draft chose with that number too, so
//! that the two agree about as often as their distributions do
//! ([`crate::sampling`]). The distribution is therefore the model's by
//! construction, and with a seed an answer is the same with and without a draft,
//! which proposals made at the mercy of measured times could not promise.
//!
//! The draft's keys and values follow the conversation: what was proposed and
//! not chosen is cut off, and what it has read is kept for the next prompt that
//! begins alike. It reads what it has missed only when that seems worth it, in
//! pieces. How many tokens it proposes, and whether any, is [`super::worth`]'s
//! matter; where none pay, a few are tried now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nearfar_domain::frames::DraftLoad;

use super::batch::{Turn, survive};
use super::ready::ReadyModel;
use super::worth::{MOST, Offer, Step, plan};
use super::{Generation, MAX_FORCED, Pace};
use crate::constrain::Constraint;
use crate::gguf::LoadError;
use crate::model::{BLOCK_TOKENS, Cache, ModelError, Part, Wanted};
use crate::sampling::Sampler;

/// Share of proposals that is assumed right before any was seen.
const FIRST_SHARE: f64 = 0.7;
/// Weight of a new observation, for one answer and for all of a model.
const WEIGHT: f64 = 0.08;
const SLOW_WEIGHT: f64 = 0.01;
/// Tokens proposed for the sake of seeing how they fare.
const TRIED: usize = 2;
/// Steps between two such trials, which double up to the second figure.
const PAUSE: usize = 16;
const LONGEST_PAUSE: usize = 256;
/// Where no proposals pay on average, every so many answers one begins afresh.
const FRESH_EVERY: u32 = 16;
/// A draft that is no further behind reads that in its first step.
const CLOSE: usize = MAX_FORCED + MOST;
/// How long a draft may read what it has missed before a step of the model.
const READING: Duration = Duration::from_millis(25);
/// An answer is expected to go on for as long as it did, and at least for this.
const EXPECTED: usize = 64;
/// What is read for a trial alone, at most.
const READ_FOR_TRIAL: usize = 512;

/// A model's draft and how it fares.
pub(super) struct Draft {
    ready: Box<ReadyModel>,
    /// Its weights over the model's: a first idea of its speed.
    size: f64,
    fared: Mutex<Fared>,
}

struct Fared {
    share: f64,
    proposed: u64,
    accepted: u64,
    gain: Option<f64>,
    /// Answers since one began afresh.
    since: u32,
}

/// What the draft has for one answer.
#[derive(Default)]
pub(super) struct Drafting {
    /// The answer's tokens that it has read; then proposals, in a step.
    cache: Option<Cache>,
    share: Option<f64>,
    /// Steps until proposals are tried although they do not pay.
    rest: usize,
    pause: usize,
    /// The draft failed at this answer.
    broken: bool,
    proposals: Vec<Proposal>,
    pub(super) proposed_tokens: usize,
    pub(super) accepted_tokens: usize,
}

#[derive(Clone, Copy)]
struct Proposal {
    id: u32,
    /// Whether the draft chose it; otherwise it had to follow.
    drawn: bool,
}

impl Drafting {
    /// Forgets proposals that were not checked: `tokens` are the answer's.
    pub(super) fn clear(&mut self, tokens: usize) {
        self.proposals.clear();
        if let Some(cache) = &mut self.cache {
            cache.truncate(tokens.saturating_sub(1));
        }
    }

    fn fail(&mut self) {
        self.cache = None;
        self.proposals.clear();
        self.broken = true;
    }

    /// Takes in what came in place of the proposals: `came` follows the first
    /// `before` of the answer's tokens.
    pub(super) fn settle(&mut self, draft: &Draft, before: usize, came: &[u32]) {
        if self.proposals.is_empty() {
            return;
        }
        let mut fared = draft.fared();
        let mut right = 0;
        for (proposal, came) in self.proposals.iter().zip(came) {
            let chosen = proposal.id == *came;
            if proposal.drawn {
                let seen = f64::from(u8::from(chosen));
                let share = self.share.get_or_insert(FIRST_SHARE);
                *share += WEIGHT * (seen - *share);
                fared.share += SLOW_WEIGHT * (seen - fared.share);
            }
            if !chosen {
                break;
            }
            right += 1;
        }
        fared.proposed += self.proposals.len() as u64;
        fared.accepted += right as u64;
        self.proposed_tokens += self.proposals.len();
        self.accepted_tokens += right;
        self.proposals.clear();
        if let Some(cache) = &mut self.cache {
            cache.truncate(before + right);
        }
    }

    /// Ends the answer: what was read is kept for the next that begins alike.
    pub(super) fn keep(&self, draft: &Draft, tokens: &[u32]) {
        if let Some(cache) = &self.cache {
            draft.ready.keep_cache(tokens, cache, false);
        }
    }
}

/// What becomes of an answer's draft in a step.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Propose(usize),
    /// Reads so many tokens of those that it missed.
    Read(usize),
}

impl Draft {
    /// Takes `draft` for `model`.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] when their tokens differ: the first difference.
    pub(super) fn new(draft: ReadyModel, model: &ReadyModel) -> Result<Self, LoadError> {
        if let Some(difference) = model.tokenizer.first_difference(&draft.tokenizer) {
            return Err(LoadError::Unsupported(format!(
                "'{}' cannot be the draft of '{}': {difference}; take a draft of the same family, or none",
                draft.name, model.name
            )));
        }
        let size = draft.model.memory_bytes() as f64 / model.model.memory_bytes().max(1) as f64;
        Ok(Self {
            ready: Box::new(draft),
            size,
            fared: Mutex::new(Fared {
                share: FIRST_SHARE,
                proposed: 0,
                accepted: 0,
                gain: None,
                since: 0,
            }),
        })
    }

    pub(super) fn ready(&self) -> &ReadyModel {
        &self.ready
    }

    pub(super) fn load(&self) -> DraftLoad {
        let fared = self.fared();
        DraftLoad {
            name: self.ready.name.clone(),
            acceptance: (fared.proposed > 0).then_some(fared.share),
            gain: fared.gain,
            proposed_tokens: fared.proposed,
            accepted_tokens: fared.accepted,
        }
    }

    fn fared(&self) -> MutexGuard<'_, Fared> {
        // No code that could panic leaves it half-changed.
        self.fared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of a step of `tokens`, of a draft of a model of this pace.
    fn step_ms(&self, model: &Pace, tokens: usize) -> f64 {
        let measured = self
            .ready
            .with_pace(|pace| pace.is_known().then(|| pace.step_ms(tokens)));
        measured.unwrap_or_else(|| model.step_ms(tokens) * self.size)
    }

    /// Milliseconds of reading `tokens` in pieces.
    fn reading_ms(&self, model: &ReadyModel, tokens: usize) -> f64 {
        let measured = self.ready.with_pace(Pace::ms_per_prompt_token);
        let each = measured.or_else(|| {
            let each = model.with_pace(Pace::ms_per_prompt_token);
            each.map(|each| each * self.size)
        });
        each.unwrap_or(0.0) * tokens as f64
    }

    /// The share that a new answer begins with.
    fn first_share(&self) -> f64 {
        let mut fared = self.fared();
        if fared.gain.is_none_or(|gain| gain > 1.0) {
            return fared.share;
        }
        fared.since += 1;
        if fared.since < FRESH_EVERY {
            return fared.share;
        }
        fared.since = 0;
        FIRST_SHARE
    }

    /// Has proposals added to the turns of a step of `model` where they pay.
    /// The step needs `needed` bytes of keys and values without them. Returns
    /// how long that took.
    pub(super) fn propose(
        &self,
        model: &ReadyModel,
        turns: &mut [&mut Turn<'_>],
        needed: u64,
    ) -> Duration {
        let begun = Instant::now();
        let mut acts = self.decide(model, turns);
        if !self.has_room(model, turns, &acts, needed) {
            return begun.elapsed();
        }
        if !matches!(survive(|| self.act(turns, &acts)), Some(Ok(()))) {
            // The answers go on without it. What it left is in disorder.
            tracing::warn!(
                model = model.name,
                draft = self.ready.name,
                "the draft model failed; the answers under way go on without it"
            );
            for (index, _) in acts.drain(..) {
                turns[index].generation.drafting.fail();
            }
        }
        begun.elapsed()
    }

    /// Which turns take part, best first, and how.
    fn decide(&self, model: &ReadyModel, turns: &mut [&mut Turn<'_>]) -> Vec<(usize, Act)> {
        let rows = turns.iter().map(|turn| turn.generation.feed.len()).sum();
        let answers = turns.iter().filter(|turn| turn.generation.rows > 0).count();
        let mut offers: Vec<(usize, Offer)> = Vec::new();
        for (index, turn) in turns.iter_mut().enumerate() {
            offers.extend(self.offer(turn.generation).map(|offer| (index, offer)));
        }
        if offers.is_empty() {
            return Vec::new();
        }
        offers.sort_by(|(_, a), (_, b)| b.share.total_cmp(&a.share));
        let close: Vec<Offer> = offers
            .iter()
            .map(|(_, offer)| Offer {
                behind: offer.behind.min(2),
                ..*offer
            })
            .collect();
        let (best, alone) = model.with_pace(|pace| {
            let step = Step {
                model: pace,
                draft_ms: &|tokens| self.step_ms(pace, tokens),
                rows,
                answers,
            };
            (plan(&step, &close), pace.step_ms(rows))
        });
        self.fared().gain = Some(best.gain);
        // Per token of one answer.
        let saved = alone * (1.0 - 1.0 / best.gain);
        let mut acts = Vec::new();
        let mut reading = false;
        for (place, (index, offer)) in offers.into_iter().enumerate() {
            let generation = &mut *turns[index].generation;
            let pays = place < best.count;
            let close = offer.behind <= CLOSE;
            if !generation.drafting.is_due(pays, close) {
                continue;
            }
            if close {
                let length = if pays { best.length } else { TRIED };
                acts.push((index, Act::Propose(length.min(offer.most))));
                continue;
            }
            let left = generation.limit.saturating_sub(generation.written);
            let expected = left.min(generation.written.max(EXPECTED));
            let worth = match pays {
                true => saved * expected as f64 > self.reading_ms(model, offer.behind),
                false => offer.behind <= READ_FOR_TRIAL,
            };
            if worth && !reading {
                reading = true;
                let piece = self.ready.piece_tokens(READING);
                acts.push((index, Act::Read(piece.min(offer.behind - 1))));
            }
        }
        acts
    }

    /// What could be proposed for an answer; `None` where nothing can.
    fn offer(&self, generation: &mut Generation) -> Option<Offer> {
        // The first token does not wait for the draft.
        let writes = !generation.is_prefilling();
        let Generation {
            drafting, tokens, ..
        } = generation;
        if drafting.broken || generation.guessed > 0 || generation.rows != 1 || !writes {
            return None;
        }
        let share = *drafting.share.get_or_insert_with(|| self.first_share());
        let (_, before) = tokens.split_last()?;
        let cache = drafting
            .cache
            .get_or_insert_with(|| self.ready.take_cache(before));
        let behind = tokens.len() - cache.len();
        let context = self.ready.model.context_tokens();
        let most = generation
            .room_to_guess()
            .min(context.saturating_sub(generation.tokens.len() + 1));
        (most > 0).then_some(Offer {
            share,
            behind,
            most,
        })
    }

    /// Makes room for what the acts need in both models; `false` where there is
    /// none, so that the step is made as it is.
    fn has_room(
        &self,
        model: &ReadyModel,
        turns: &[&mut Turn<'_>],
        acts: &[(usize, Act)],
        needed: u64,
    ) -> bool {
        let (mut more, mut own) = (0, 0);
        let block = self.ready.model.kv_pool().block_bytes();
        for (index, act) in acts {
            let generation = &turns[*index].generation;
            let fed = generation.feed.len();
            let (proposed, read) = match act {
                Act::Propose(length) => (*length, generation.tokens.len() + length),
                Act::Read(tokens) => (0, generation.tokens.len() + tokens),
            };
            more += generation.room_for(fed + proposed) - generation.room_for(fed);
            let held = generation
                .drafting
                .cache
                .as_ref()
                .map_or(0, |cache| cache.blocks().len());
            // One more for a block that others hold, too.
            own += (read.div_ceil(BLOCK_TOKENS) + 1).saturating_sub(held) as u64 * block;
        }
        !acts.is_empty() && model.make_room(needed + more) && self.ready.make_room(own)
    }

    fn act(&self, turns: &mut [&mut Turn<'_>], acts: &[(usize, Act)]) -> Result<(), ModelError> {
        for (index, act) in acts {
            let Generation {
                drafting, tokens, ..
            } = &mut *turns[*index].generation;
            if let (Act::Read(count), Some(cache)) = (*act, &mut drafting.cache) {
                let from = cache.len();
                self.step(&mut [Part {
                    cache,
                    tokens: &tokens[from..from + count],
                    logits: Wanted::None,
                }])?;
            }
        }
        let mut writers: Vec<Writer> = acts
            .iter()
            .filter_map(|(index, act)| match act {
                Act::Propose(length) => Writer::of(*index, turns[*index].generation, *length),
                Act::Read(_) => None,
            })
            .collect();
        let vocabulary = self.ready.tokenizer.vocab_size();
        while writers.iter().any(|writer| !writer.over) {
            let mut live: Vec<&mut Writer> =
                writers.iter_mut().filter(|writer| !writer.over).collect();
            let mut parts: Vec<Part<'_>> = live.iter_mut().map(|writer| writer.part()).collect();
            let logits = self.step(&mut parts)?;
            drop(parts);
            for (writer, mut logits) in live.into_iter().zip(logits) {
                let generation = &*turns[writer.index].generation;
                logits.truncate(vocabulary.min(generation.ready.tokenizer.vocab_size()));
                writer.choose(&mut logits, generation);
            }
        }
        for writer in writers {
            let generation = &mut *turns[writer.index].generation;
            let ids = writer.proposals.iter().map(|proposal| proposal.id);
            generation.feed.extend(ids);
            generation.guessed = writer.proposals.len();
            generation.rows += writer.proposals.len();
            generation.drafting.proposals = writer.proposals;
            generation.drafting.cache = Some(writer.cache);
        }
        Ok(())
    }

    fn step(&self, parts: &mut [Part<'_>]) -> Result<Vec<Vec<f32>>, ModelError> {
        let tokens = parts.iter().map(|part| part.tokens.len()).sum();
        let begun = Instant::now();
        let logits = self.ready.model.step(parts)?;
        self.ready.measured(tokens, begun.elapsed());
        Ok(logits)
    }
}

impl Drafting {
    /// Whether there are to be proposals now: because they pay, or as a trial.
    fn is_due(&mut self, pays: bool, close: bool) -> bool {
        if pays {
            (self.rest, self.pause) = (PAUSE, PAUSE);
            return true;
        }
        if self.pause == 0 {
            (self.rest, self.pause) = (PAUSE, PAUSE);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        // One that has to read first is tried once it has.
        if close {
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            self.rest = self.pause;
        }
        true
    }
}

/// The draft writing on from an answer.
struct Writer {
    index: usize,
    cache: Cache,
    feed: Vec<u32>,
    sampler: Sampler,
    constraint: Option<Constraint>,
    forces: bool,
    proposals: Vec<Proposal>,
    length: usize,
    over: bool,
}

impl Writer {
    fn of(index: usize, generation: &mut Generation, length: usize) -> Option<Self> {
        let cache = generation.drafting.cache.take()?;
        Some(Self {
            index,
            feed: generation.tokens[cache.len()..].to_vec(),
            cache,
            sampler: generation.sampler.ahead(),
            constraint: generation.constraint.clone(),
            // As where the answer itself is written.
            forces: !generation.sampler.reports_logprobs(),
            proposals: Vec::new(),
            length,
            over: false,
        })
    }

    fn part(&mut self) -> Part<'_> {
        Part {
            cache: &mut self.cache,
            tokens: &self.feed,
            logits: Wanted::Last,
        }
    }

    /// Chooses the next token as the answer's own sampler would, and adds those
    /// that must follow it.
    fn choose(&mut self, logits: &mut [f32], generation: &Generation) {
        self.over = true;
        let Ok(mask) = self.constraint.as_mut().map_or(Ok(None), Constraint::mask) else {
            return;
        };
        let Ok(choice) = self.sampler.sample_within(logits, mask.as_ref()) else {
            return;
        };
        // What ends the answer saves no step.
        if generation.ready.tokenizer.ends_generation(choice.id) {
            return;
        }
        self.feed.clear();
        self.push(choice.id, true);
        if let Some(constraint) = &mut self.constraint {
            let forced = match constraint.advance(choice.id) {
                Ok(()) if self.forces => constraint.forced(),
                advanced => advanced.map(|()| Vec::new()),
            };
            let (Ok(forced), false) = (forced, constraint.is_over()) else {
                return;
            };
            for id in forced {
                self.sampler.forced(id);
                self.push(id, false);
            }
        }
        self.over = self.proposals.len() >= self.length;
        self.proposals.truncate(self.length);
    }

    fn push(&mut self, id: u32, drawn: bool) {
        self.proposals.push(Proposal { id, drawn });
        self.feed.push(id);
    }
}
