//! Answers in the making, and whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::Timings;

use super::guard::survive;
use super::link::LinkId;
use super::queue::JobKey;
use crate::generate::{Generation, Prepared, Progress, ReadyModel};

/// Times of a job before its answer began.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(super) received: Instant,
    pub(super) started: Instant,
    pub(super) load: Duration,
}

impl Before {
    /// These times in the form of the frames, with nothing computed yet.
    pub(super) fn timings(&self) -> Timings {
        let waited = self.started.saturating_duration_since(self.received);
        Timings {
            queue_ms: waited.saturating_sub(self.load).as_secs_f64() * 1000.0,
            load_ms: self.load.as_secs_f64() * 1000.0,
            ..Timings::default()
        }
    }
}

/// A job whose prompt is being turned into tokens on another thread.
struct Preparing {
    ready: Arc<ReadyModel>,
    before: Before,
}

struct Answer {
    key: JobKey,
    generation: Generation,
    before: Before,
}

/// A job that ended.
pub(super) struct Ended {
    pub(super) key: JobKey,
    pub(super) timings: Timings,
    pub(super) took: Duration,
}

/// Every job that has left the queue and not ended.
#[derive(Default)]
pub(super) struct Answers {
    preparing: BTreeMap<JobKey, Preparing>,
    /// The front one has the next turn.
    running: VecDeque<Answer>,
}

impl Answers {
    /// Jobs that hold a place.
    pub(super) fn len(&self) -> usize {
        self.preparing.len() + self.running.len()
    }

    /// Whether any answer could be stepped.
    pub(super) fn any_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether this job is here.
    pub(super) fn has(&self, key: JobKey) -> bool {
        self.preparing.contains_key(&key) || self.running.iter().any(|answer| answer.key == key)
    }

    /// Gives a job a place while its prompt is being prepared.
    pub(super) fn prepare(&mut self, key: JobKey, ready: Arc<ReadyModel>, before: Before) {
        self.preparing.insert(key, Preparing { ready, before });
    }

    /// The prompt is ready: the answer takes turns from now on. Returns the
    /// model's name, or `None` when the job was cancelled meanwhile.
    pub(super) fn begin(&mut self, key: JobKey, prepared: Prepared) -> Option<String> {
        let Preparing { ready, before } = self.preparing.remove(&key)?;
        let name = ready.name().to_owned();
        let generation = Generation::new(ready, prepared);
        self.running.push_back(Answer {
            key,
            generation,
            before,
        });
        Some(name)
    }

    /// Takes a job out, wherever it is. What it computed is kept for the next
    /// prompt that begins alike.
    pub(super) fn remove(&mut self, key: JobKey) -> Option<Ended> {
        if let Some(preparing) = self.preparing.remove(&key) {
            return Some(ended(key, preparing.before, Timings::default()));
        }
        let index = self.running.iter().position(|answer| answer.key == key)?;
        let answer = self.running.remove(index)?;
        let timings = answer.generation.timings();
        answer.generation.keep();
        Some(ended(key, answer.before, timings))
    }

    /// Keys of a link's jobs.
    pub(super) fn of_link(&self, link: LinkId) -> Vec<JobKey> {
        let running = self.running.iter().map(|answer| answer.key);
        self.preparing
            .keys()
            .copied()
            .chain(running)
            .filter(|key| key.0 == link)
            .collect()
    }

    /// Steps the next answer whose link has room. Returns its events, and the
    /// end of the job where this was its last step; `None` when no answer could
    /// be stepped.
    pub(super) fn step(
        &mut self,
        has_room: impl Fn(LinkId) -> bool,
    ) -> Option<(JobKey, Vec<Event>, Option<Ended>)> {
        let index = self
            .running
            .iter()
            .position(|answer| has_room(answer.key.0))?;
        let mut answer = self.running.remove(index)?;
        let key = answer.key;
        let mut events = Vec::new();
        let stepped = survive(|| answer.generation.step(&mut events));
        let end = match stepped {
            Some(Ok(Progress::More)) => {
                self.running.push_back(answer);
                return Some((key, events, None));
            }
            Some(Ok(Progress::Finished)) => {
                let timings = answer.generation.timings();
                answer.generation.keep();
                ended(key, answer.before, timings)
            }
            Some(Err(failure)) => {
                events.push(Event::Failed(failure));
                ended(key, answer.before, answer.generation.timings())
            }
            None => {
                events.push(Event::Failed(Failure::new(
                    FailureKind::Internal,
                    "the engine made a mistake while it computed this answer; other requests are not affected",
                )));
                ended(key, answer.before, Timings::default())
            }
        };
        Some((key, events, Some(end)))
    }
}

fn ended(key: JobKey, before: Before, computed: Timings) -> Ended {
    let Timings {
        queue_ms, load_ms, ..
    } = before.timings();
    Ended {
        key,
        timings: Timings {
            queue_ms,
            load_ms,
            ..computed
        },
        took: before.started.elapsed(),
    }
}
