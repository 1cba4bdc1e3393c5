//! Answers in the making, and whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfar_domain::events::{Event, Failure, Usage};
use nearfar_domain::frames::{ModelLoad, Purpose, Timings};

use super::link::LinkId;
use super::plan::{Candidate, Rank, plan};
use super::queue::{JobKey, Places, Standing};
use crate::generate::{
    self, Generation, Prepared, Progress, ReadyModel, STEP_WHILE_QUIET, STEP_WHILE_SPEAKING, Turn,
};

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
    standing: Standing,
}

struct Answer {
    key: JobKey,
    generation: Generation,
    before: Before,
    standing: Standing,
}

impl Answer {
    fn candidate(&self) -> Candidate {
        Candidate {
            rank: self.standing.rank,
            served: self.standing.share.served(),
            order: self.standing.order,
            pending: self.generation.pending(),
            prefilling: self.generation.is_prefilling(),
        }
    }
}

/// What a step made of one job.
pub(super) struct Stepped {
    pub(super) key: JobKey,
    pub(super) events: Vec<Event>,
    /// There when this was its last step.
    pub(super) end: Option<Ended>,
}

/// A job that ended.
pub(super) struct Ended {
    pub(super) timings: Timings,
    pub(super) took: Duration,
}

/// Every job that has left the queue and not ended.
#[derive(Default)]
pub(super) struct Answers {
    preparing: BTreeMap<JobKey, Preparing>,
    /// The model of the front one has the next step.
    running: VecDeque<Answer>,
}

impl Answers {
    /// Jobs that hold a place.
    pub(super) fn places(&self) -> Places {
        let mut places = Places::default();
        let preparing = self.preparing.values().map(|job| &job.standing);
        let running = self.running.iter().map(|answer| &answer.standing);
        for standing in preparing.chain(running) {
            match standing.rank {
                Rank::Interactive => places.interactive += 1,
                Rank::Batch => places.batch += 1,
                Rank::Ahead => places.ahead += 1,
            }
        }
        places
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
    pub(super) fn prepare(
        &mut self,
        key: JobKey,
        ready: Arc<ReadyModel>,
        before: Before,
        standing: Standing,
    ) {
        let preparing = Preparing {
            ready,
            before,
            standing,
        };
        self.preparing.insert(key, preparing);
    }

    /// The prompt is ready: the answer takes part in steps from now on. Returns
    /// the model's name, or `None` when the job was cancelled meanwhile.
    pub(super) fn begin(&mut self, key: JobKey, prepared: Prepared) -> Option<String> {
        let Preparing {
            ready,
            before,
            standing,
        } = self.preparing.remove(&key)?;
        let name = ready.name().to_owned();
        let generation = Generation::with(ready, prepared, standing.purpose);
        self.running.push_back(Answer {
            key,
            generation,
            before,
            standing,
        });
        Some(name)
    }

    /// Whether nothing is to be computed for this job: it wants to know what is
    /// known of its prompt, or to have it pinned no longer.
    pub(super) fn is_look(&self, key: JobKey) -> bool {
        let preparing = self.preparing.get(&key);
        preparing.is_some_and(|job| matches!(job.standing.purpose, Purpose::Look | Purpose::Unpin))
    }

    /// What is known, or was pinned, of the prompt of such a job, which ends with
    /// that.
    pub(super) fn look(&mut self, key: JobKey, prepared: &Prepared) -> Option<(Usage, Timings)> {
        let Preparing {
            ready,
            before,
            standing,
        } = self.preparing.remove(&key)?;
        let tokens = prepared.tokens();
        let cached = match standing.purpose {
            Purpose::Unpin if ready.unpin(tokens) => tokens.len(),
            Purpose::Unpin => 0,
            _ => ready.known_tokens(tokens),
        };
        let usage = Usage {
            prompt: Some(tokens.len() as u64),
            cached_prompt: Some(cached as u64),
            ..Usage::default()
        };
        Some((usage, ended(before, Timings::default()).timings))
    }

    /// Takes a job out, wherever it is. What it computed is kept for the next
    /// prompt that begins alike.
    pub(super) fn remove(&mut self, key: JobKey) -> Option<Ended> {
        if let Some(preparing) = self.preparing.remove(&key) {
            return Some(ended(preparing.before, Timings::default()));
        }
        let index = self.running.iter().position(|answer| answer.key == key)?;
        let answer = self.running.remove(index)?;
        let timings = answer.generation.timings();
        answer.generation.keep();
        Some(ended(answer.before, timings))
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

    /// One step of one model: of all its answers whose links have room and
    /// whose turn it is. Models take turns. Empty when no answer could be
    /// stepped.
    pub(super) fn step(&mut self, has_room: impl Fn(LinkId) -> bool) -> Vec<Stepped> {
        let Some(front) = self.running.iter().find(|answer| has_room(answer.key.0)) else {
            return Vec::new();
        };
        let ready = Arc::clone(front.generation.ready());
        let (mut own, mut others): (Vec<Answer>, VecDeque<Answer>) = (Vec::new(), VecDeque::new());
        for answer in std::mem::take(&mut self.running) {
            match Arc::ptr_eq(answer.generation.ready(), &ready) {
                true => own.push(answer),
                false => others.push_back(answer),
            }
        }
        // When memory is short, the last of these make room for the first.
        own.sort_by_key(|answer| (answer.standing.rank, answer.standing.order));
        let mut taking: Vec<usize> = (0..own.len())
            .filter(|index| has_room(own[*index].key.0))
            .collect();
        // After a step that failed, one at a time.
        let suspect = |index: &usize| own[*index].generation.is_suspect();
        if let Some(alone) = taking.iter().copied().find(suspect) {
            taking = vec![alone];
        }
        let candidates: Vec<Candidate> =
            taking.iter().map(|index| own[*index].candidate()).collect();
        let speaking = candidates
            .iter()
            .any(|candidate| !candidate.prefilling && candidate.rank == Rank::Interactive);
        let budget = ready.piece_tokens(match speaking {
            true => STEP_WHILE_SPEAKING,
            false => STEP_WHILE_QUIET,
        });
        let mut given = vec![0; own.len()];
        for (index, tokens) in taking.iter().zip(plan(&candidates, budget)) {
            given[*index] = tokens;
        }
        let mut turns: Vec<Turn<'_>> = own
            .iter_mut()
            .zip(&given)
            .map(|(answer, given)| Turn::new(&mut answer.generation, *given))
            .collect();
        generate::step(&ready, &mut turns);
        let outcomes: Vec<_> = turns
            .into_iter()
            .map(|turn| (turn.takes_part(), turn.events, turn.outcome))
            .collect();
        let mut stepped = Vec::new();
        for ((answer, given), (took_part, events, outcome)) in
            own.into_iter().zip(given).zip(outcomes)
        {
            if took_part {
                answer.standing.share.charge(given);
            }
            let (step, again) = after(answer, events, outcome);
            others.extend(again);
            if took_part || step.end.is_some() {
                stepped.push(step);
            }
        }
        self.running = others;
        stepped
    }

    /// How busy and how fast a model is.
    pub(super) fn load(&self, ready: &Arc<ReadyModel>) -> ModelLoad {
        let own = || {
            self.running
                .iter()
                .filter(|answer| Arc::ptr_eq(answer.generation.ready(), ready))
        };
        let ahead: usize = own()
            .filter(|answer| answer.generation.is_prefilling())
            .map(|answer| answer.generation.pending())
            .sum();
        let writing = own().filter(|a| !a.generation.is_prefilling()).count();
        let (ms_per_prompt_token, ms_per_token) = ready.with_pace(|pace| {
            let step = pace.is_known().then(|| pace.step_ms(writing.max(1)));
            (pace.ms_per_prompt_token(), step)
        });
        ModelLoad {
            name: ready.name().to_owned(),
            running: u32::try_from(own().count()).unwrap_or(u32::MAX),
            prompt_tokens_ahead: u32::try_from(ahead).unwrap_or(u32::MAX),
            ms_per_prompt_token,
            ms_per_token,
            kv_bytes: ready.model().kv_pool().used_bytes(),
            kv_budget_bytes: ready.model().kv_pool().budget_bytes(),
            draft: ready.draft_load(),
        }
    }

    /// How long the prompts of the interactive answers still take.
    pub(super) fn prompts_ahead(&self) -> Duration {
        let ms: f64 = self
            .running
            .iter()
            .filter(|answer| answer.standing.rank == Rank::Interactive)
            .filter(|answer| answer.generation.is_prefilling())
            .map(|answer| {
                let each = answer
                    .generation
                    .ready()
                    .with_pace(|pace| pace.ms_per_prompt_token());
                each.unwrap_or(0.0) * answer.generation.pending() as f64
            })
            .sum();
        Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::ZERO)
    }
}

/// What became of an answer in a step, and the answer itself if it goes on.
fn after(
    answer: Answer,
    mut events: Vec<Event>,
    outcome: Result<Progress, Failure>,
) -> (Stepped, Option<Answer>) {
    let key = answer.key;
    let timings = answer.generation.timings();
    let (end, again) = match outcome {
        Ok(Progress::More) => (None, Some(answer)),
        Ok(Progress::Finished) => {
            answer.generation.keep();
            (Some(ended(answer.before, timings)), None)
        }
        Err(failure) => {
            events.push(Event::Failed(failure));
            (Some(ended(answer.before, timings)), None)
        }
    };
    (Stepped { key, events, end }, again)
}

fn ended(before: Before, computed: Timings) -> Ended {
    let Timings {
        queue_ms, load_ms, ..
    } = before.timings();
    Ended {
        timings: Timings {
            queue_ms,
            load_ms,
            ..computed
        },
        took: before.started.elapsed(),
    }
}
