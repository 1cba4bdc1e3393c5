//! One step of a model over several answers at once.
//!
//! Reading the weights is most of what a token costs on a small processor, so
//! the answers of one model share it: each gives its next token, or a piece of
//! its prompt, and gets its own logits back. What an answer makes of them is
//! its own matter; no answer can tell who else was in the step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nearfar_domain::events::{Event, Failure, FailureKind};

use super::{Generation, Progress, ReadyModel};
use crate::model::{BLOCK_TOKENS, ModelError};

/// An answer's part in a step.
pub struct Turn<'a> {
    pub(super) generation: &'a mut Generation,
    /// The most tokens of its prompt that it may compute; 0 where it sits out.
    allowance: usize,
    /// What the step made of the answer so far.
    pub events: Vec<Event>,
    /// How the step ended for it. An answer that failed is not to be stepped again.
    pub outcome: Result<Progress, Failure>,
}

impl<'a> Turn<'a> {
    /// A part in the next step, with at most `allowance` tokens of the prompt;
    /// with 0 the answer sits out, and may have to give up its keys and values
    /// to those before it.
    pub fn new(generation: &'a mut Generation, allowance: usize) -> Self {
        Self {
            generation,
            allowance,
            events: Vec::new(),
            outcome: Ok(Progress::More),
        }
    }

    /// Whether it takes part; after the step, whether it did.
    pub fn takes_part(&self) -> bool {
        self.allowance > 0
    }
}

/// A prompt that waits saves at least this many tokens of work by waiting.
const WORTH_WAITING: usize = 2 * BLOCK_TOKENS;

/// Steps `turns` at once: answers of `ready`, those with precedence first. When
/// there is no room for the keys and values of all, the last ones give theirs
/// up and compute them again later.
pub fn step(ready: &ReadyModel, turns: &mut [Turn<'_>]) {
    let sharing = turns.iter().filter(|turn| turn.takes_part()).count();
    let mut needed = 0;
    for index in 0..turns.len() {
        if turns[index].takes_part() {
            seat(ready, turns, index, sharing, &mut needed);
        }
    }
    let mut taking: Vec<&mut Turn<'_>> =
        turns.iter_mut().filter(|turn| turn.takes_part()).collect();
    let drafted = match ready.draft() {
        Some(draft) => draft.propose(ready, &mut taking, needed),
        None => Duration::ZERO,
    };
    let begun = Instant::now();
    let logits = match (
        survive(|| compute(ready, &mut taking)),
        taking.as_mut_slice(),
    ) {
        (Some(Ok(logits)), _) => logits,
        (Some(Err(error)), [turn]) => {
            turn.outcome = Err(Failure::new(error.kind(), error.to_string()));
            return;
        }
        (None, [turn]) => {
            turn.outcome = Err(our_mistake());
            return;
        }
        // One of them was the reason, and shows it when it is alone. A panic may
        // have left what was computed in disorder: it is computed anew.
        (failed, turns) => {
            for turn in turns {
                if failed.is_none() {
                    turn.generation.forget();
                }
                turn.generation.suspect();
            }
            return;
        }
    };
    let took = begun.elapsed();
    let tokens = taking.iter().map(|turn| turn.generation.feed.len()).sum();
    ready.measured(tokens, took);
    let took = took + drafted;
    let mut logits = logits.into_iter();
    for turn in taking {
        let own: Vec<Vec<f32>> = logits.by_ref().take(turn.generation.rows).collect();
        let (generation, events) = (&mut *turn.generation, &mut turn.events);
        turn.outcome = survive(|| generation.take_rows(own, took, events))
            .unwrap_or_else(|| Err(our_mistake()));
    }
}

/// Lays out the part of the turn at `index` if there is room for it beside the
/// `needed` bytes of those before it; otherwise it sits out.
fn seat(
    ready: &ReadyModel,
    turns: &mut [Turn<'_>],
    index: usize,
    sharing: usize,
    needed: &mut u64,
) {
    let fresh = turns[index].generation.cache.is_empty();
    if fresh && share_and_wait(turns, index) {
        turns[index].allowance = 0;
        return;
    }
    let turn = &mut turns[index];
    turn.generation.lay_out(turn.allowance, sharing);
    let feed = turn.generation.feed.len();
    // One that begins must have room for all of its prompt.
    let tokens = match fresh {
        true => turn.generation.pending(),
        false => feed,
    };
    let needs = turn.generation.room_for(tokens);
    while !ready.make_room(*needed + needs) {
        // One that begins takes nothing from those that move on.
        let mut later = turns[index + 1..].iter_mut().rev();
        let victim =
            later.find(|turn| !(turn.generation.cache.is_empty() || fresh && turn.takes_part()));
        if let Some(victim) = victim {
            victim.generation.forget();
            victim.allowance = 0;
            continue;
        }
        if *needed == 0 && turns_hold_nothing(turns, index) {
            let pool = ready.model.kv_pool();
            let error = ModelError::NoRoom {
                used_bytes: pool.used_bytes(),
                budget_bytes: pool.budget_bytes(),
            };
            turns[index].outcome = Err(Failure::new(error.kind(), error.to_string()));
        } else if fresh {
            turns[index].generation.forget();
        }
        turns[index].allowance = 0;
        return;
    }
    *needed += turns[index].generation.room_for(feed);
}

/// Whether no answer but the one at `index` holds keys and values.
fn turns_hold_nothing(turns: &[Turn<'_>], index: usize) -> bool {
    let mut others = turns.iter().enumerate().filter(|(at, _)| *at != index);
    others.all(|(_, turn)| turn.generation.cache.is_empty())
}

/// The turn at `index` is about to begin. What others computed of the same
/// beginning is shared. Returns whether it had better wait for one that is
/// computing more of it in this step.
fn share_and_wait(turns: &[Turn<'_>], index: usize) -> bool {
    let own = &turns[index].generation;
    let known = own.ready.known_tokens(&own.tokens);
    let others = turns.iter().enumerate().filter(|(at, _)| *at != index);
    for (at, other) in others {
        let (common, held) = (
            own.in_common(other.generation),
            other.generation.cache.len(),
        );
        let growing =
            other.takes_part() && other.generation.is_prefilling() && (at < index || held > 0);
        if growing && common > held.max(known) + WORTH_WAITING {
            return true;
        }
        if common.min(held) > known {
            other.generation.share();
        }
    }
    false
}

fn compute(ready: &ReadyModel, turns: &mut [&mut Turn<'_>]) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut parts: Vec<_> = turns
        .iter_mut()
        .filter_map(|turn| turn.generation.part())
        .collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    ready.model.step(&mut parts)
}

/// Runs `work`; `None` when it panicked.
pub(super) fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What `work` touched is forgotten or dropped by every caller then.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn our_mistake() -> Failure {
    Failure::new(
        FailureKind::Internal,
        "the engine made a mistake while it computed this answer; other requests are not affected",
    )
}
