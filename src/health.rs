//! What is known of each target from how it has done: whether it can be used
//! ([`breaker`]), how often it may be tried again ([`budget`]), how fast it is
//! ([`speed`]), and how long answers are ([`lengths`]).
//!
//! Numbers only; no content, no I/O. Time comes in as an argument, so that a
//! pause can be tested without waiting for it.

mod breaker;
mod budget;
mod lengths;
mod speed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nearfar_domain::events::FailureKind;
use nearfar_domain::frames::Timings;
use nearfar_domain::ids::TargetId;
use nearfar_domain::snapshot::Latency;

pub use breaker::Breaker;
pub use budget::Budget;
pub use lengths::Lengths;
pub use speed::{Prior, Speed, load_ms};

/// Locks, also after another thread panicked while it held the lock: every
/// critical section here leaves its data whole at each step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Targets that are remembered at most. An open provider accepts any model
/// name, so the number of names is the client's; the least used are forgotten.
const MAX_TARGETS: usize = 512;

/// The record of every target.
#[derive(Default)]
pub struct Health {
    records: Mutex<BTreeMap<TargetId, Record>>,
}

#[derive(Default)]
struct Record {
    breaker: Breaker,
    speed: Option<Speed>,
    budget: Budget,
    /// It refused to go on with a partial answer.
    refuses_prefill: bool,
    uses: u64,
}

impl Health {
    /// Whether the target's breaker lets a request through.
    pub fn allows(&self, target: &TargetId, now: Instant) -> bool {
        let records = locked(&self.records);
        records
            .get(target)
            .is_none_or(|record| record.breaker.allows(now))
    }

    /// How fast the target is: learned as far as it was observed, `prior` else.
    pub fn latency(&self, target: &TargetId, prior: &Prior) -> Latency {
        let records = locked(&self.records);
        match records.get(target).and_then(|record| record.speed.as_ref()) {
            Some(speed) => speed.latency(),
            None => Speed::new(prior).latency(),
        }
    }

    /// An attempt at the target begins. While a breaker is half open it is the
    /// probe. The attempt says how it went through what is returned.
    pub fn begin(self: &Arc<Self>, target: &TargetId, prior: Prior, now: Instant) -> Trial {
        self.record(target, |record| {
            record.breaker.begin(now);
            record.budget.earn();
        });
        Trial {
            health: Arc::clone(self),
            target: target.clone(),
            prior,
            settled: false,
        }
    }

    /// Takes one retry from the target's budget, if there is one.
    pub fn spend_retry(&self, target: &TargetId, now: Instant) -> bool {
        self.record(target, |record| record.budget.spend(now))
    }

    /// The target refused to go on with a partial answer: it is not asked again.
    pub fn refused_prefill(&self, target: &TargetId) {
        self.record(target, |record| record.refuses_prefill = true);
    }

    /// Whether the target was seen to refuse partial answers.
    pub fn refuses_prefill(&self, target: &TargetId) -> bool {
        let records = locked(&self.records);
        records
            .get(target)
            .is_some_and(|record| record.refuses_prefill)
    }

    /// The engine's own account of where a job's time went.
    pub fn engine_timings(&self, target: &TargetId, prior: &Prior, timings: &Timings) {
        self.record(target, |record| {
            let speed = record.speed.get_or_insert_with(|| Speed::new(prior));
            speed.engine_timings(timings);
        });
    }

    /// A model could not be loaded: not to be used until it is replaced or
    /// enough time has passed.
    pub fn broken(&self, target: &TargetId, now: Instant) {
        self.record(target, |record| {
            record
                .breaker
                .failed(FailureKind::ModelBroken, None, None, now);
        });
    }

    /// The engine went away while it loaded a model, perhaps because of it.
    /// `generation` numbers the link that ended.
    pub fn crashed_while_loading(&self, target: &TargetId, generation: u64, now: Instant) {
        let crashed = FailureKind::Crashed;
        self.record(target, |record| {
            record.breaker.failed(crashed, Some(generation), None, now);
        });
    }

    fn record<T>(&self, target: &TargetId, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut records = locked(&self.records);
        if records.len() >= MAX_TARGETS && !records.contains_key(target) {
            let least = records
                .iter()
                .min_by_key(|(_, record)| record.uses)
                .map(|(id, _)| id.clone());
            if let Some(least) = least {
                records.remove(&least);
            }
        }
        let record = records.entry(target.clone()).or_default();
        record.uses += 1;
        change(record)
    }
}

/// One attempt's say about its target. Dropped unsettled (the client went
/// away), it says nothing but frees the probe's place.
pub struct Trial {
    health: Arc<Health>,
    target: TargetId,
    prior: Prior,
    settled: bool,
}

impl Trial {
    /// The first token came, `elapsed` after the attempt began. `waited_ms` is
    /// the part that was expected to be waiting and not the target's own speed.
    pub fn first_token(&self, prompt_tokens: u32, waited_ms: f64, elapsed: Duration) {
        let prior = &self.prior;
        self.health.record(&self.target, |record| {
            let speed = record.speed.get_or_insert_with(|| Speed::new(prior));
            speed.first_token(prompt_tokens, waited_ms, elapsed);
        });
    }

    /// The answer is whole; `tokens` after the first took `elapsed`.
    pub fn succeeded(mut self, tokens: Option<u64>, elapsed: Duration) {
        self.settled = true;
        let prior = &self.prior;
        self.health.record(&self.target, |record| {
            record.breaker.succeeded();
            if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
                let speed = record.speed.get_or_insert_with(|| Speed::new(prior));
                speed.rest(tokens, elapsed);
            }
        });
    }

    /// The attempt failed. `generation` numbers the link that it ran on: many
    /// attempts that die with one process are one crash.
    pub fn failed(
        mut self,
        kind: FailureKind,
        generation: Option<u64>,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        self.settled = true;
        self.health.record(&self.target, |record| {
            if kind.speaks_of_health() {
                record.breaker.failed(kind, generation, retry_after, now);
            } else {
                record.breaker.abandoned();
            }
        });
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.settled {
            self.health
                .record(&self.target, |record| record.breaker.abandoned());
        }
    }
}
