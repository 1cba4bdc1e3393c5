//! Jobs that wait, and how long a new one would.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nearfar_domain::chat::{Chat, Part, Prompt};
use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::frames::{EngineJob, ModelSource, Purpose};
use nearfar_domain::ids::JobId;

use super::link::LinkId;
use super::plan::Rank;
use super::shares::{Share, Shares};

/// Answers in the making at one time. They share each step, so that more of
/// them cost little; their keys and values take memory.
pub(super) const MAX_RUNNING: usize = 16;
/// Places that interactive jobs always find free of others.
const KEPT_FREE: usize = 4;
/// Prompts that are computed ahead at one time.
const MAX_AHEAD: usize = 2;
/// Jobs that may wait.
pub(super) const MAX_WAITING: usize = 64;
/// Text that may wait, in bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// What a job is taken to last before any was seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// A job's name: ids are unique per link.
pub(super) type JobKey = (LinkId, JobId);

/// Jobs that hold a place, per rank.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    pub(super) interactive: usize,
    pub(super) batch: usize,
    pub(super) ahead: usize,
}

impl Places {
    pub(super) fn all(self) -> usize {
        self.interactive + self.batch + self.ahead
    }

    /// Whether a job of this rank may take a place.
    pub(super) fn is_free_for(self, rank: Rank) -> bool {
        let others = self.batch + self.ahead;
        self.all() < MAX_RUNNING
            && match rank {
                Rank::Interactive => true,
                Rank::Batch => others < MAX_RUNNING - KEPT_FREE,
                Rank::Ahead => others < MAX_RUNNING - KEPT_FREE && self.ahead < MAX_AHEAD,
            }
    }
}

/// A job that waits for its model or for its turn.
pub(super) struct Waiting {
    pub(super) key: JobKey,
    pub(super) model: String,
    pub(super) source: ModelSource,
    pub(super) chat: Chat,
    pub(super) partial: String,
    pub(super) received: Instant,
    /// The part of the wait that was for the model to be loaded.
    pub(super) load: Duration,
    pub(super) standing: Standing,
    /// When the gate stops waiting for it to begin.
    begin_by: Option<Instant>,
    bytes: usize,
}

/// How a job stands among the others.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) rank: Rank,
    pub(super) purpose: Purpose,
    pub(super) share: Share,
    pub(super) order: u64,
}

impl Waiting {
    fn new(link: LinkId, job: EngineJob, shares: &mut Shares, order: u64) -> Self {
        let received = Instant::now();
        let chat = job.chat.into_chat();
        let within = job.terms.begin_within_ms;
        Self {
            key: (link, job.job),
            model: job.model,
            source: job.source,
            bytes: weight(&chat) + job.partial.len(),
            chat,
            partial: job.partial,
            received,
            load: Duration::ZERO,
            standing: Standing {
                rank: Rank::of(&job.terms),
                purpose: job.terms.purpose,
                share: shares.of(&job.terms.share),
                order,
            },
            begin_by: within
                .and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok())
                .and_then(|within| received.checked_add(within)),
        }
    }
}

/// The queue: interactive before batch, then whoever was served least, then
/// whoever came first.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Waiting>,
    shares: Shares,
    arrived: u64,
    /// Smoothed time from a job's start to its end.
    service: Option<Duration>,
}

impl Queue {
    /// A job that just arrived; it is not in the queue yet.
    pub(super) fn arrived(&mut self, link: LinkId, job: EngineJob) -> Waiting {
        self.arrived += 1;
        Waiting::new(link, job, &mut self.shares, self.arrived)
    }

    /// Lets a job wait.
    ///
    /// # Errors
    /// There is no room, or it could not begin in time. `places` are taken, and
    /// `ahead` is the work that comes before it once it has one.
    pub(super) fn enter(
        &mut self,
        job: Waiting,
        places: Places,
        ahead: Duration,
    ) -> Result<(), Box<(Waiting, Failure)>> {
        let wait = self.wait(places, ahead);
        let refused = if !self.has_room(&job) {
            format!(
                "{} requests wait for this device already ({MAX_WAITING} may); a new one would wait about {} s",
                self.jobs.len(),
                wait.as_secs_f64().ceil()
            )
        } else if let Some(within) = job.begin_by.map(|by| by - job.received)
            && wait > within
        {
            format!(
                "the answer could begin in about {:.1} s and is wanted within {:.1} s",
                wait.as_secs_f64(),
                within.as_secs_f64()
            )
        } else {
            self.jobs.push_back(job);
            return Ok(());
        };
        let failure = Failure {
            retry_after_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)),
            ..Failure::new(FailureKind::Overloaded, refused)
        };
        Err(Box::new((job, failure)))
    }

    /// Whether another job may wait.
    fn has_room(&self, job: &Waiting) -> bool {
        let bytes: usize = self.jobs.iter().map(|job| job.bytes).sum();
        self.jobs.len() < MAX_WAITING
            && (self.jobs.is_empty() || bytes + job.bytes <= MAX_WAITING_BYTES)
    }

    /// Takes out the next job that may begin: whose place is free and whose
    /// model `is_here`.
    pub(super) fn next(
        &mut self,
        places: Places,
        mut is_here: impl FnMut(&Waiting) -> bool,
    ) -> Option<Waiting> {
        let (index, _) = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| places.is_free_for(job.standing.rank) && is_here(job))
            .min_by_key(|(_, job)| {
                let standing = &job.standing;
                (standing.rank, standing.share.served(), standing.order)
            })?;
        self.jobs.remove(index)
    }

    /// Takes out the jobs that nobody waits for any more.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(Waiting, Failure)> {
        let (late, jobs) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition::<VecDeque<_>, _>(|job| job.begin_by.is_some_and(|by| by <= now));
        self.jobs = jobs;
        late.into_iter()
            .map(|job| {
                let waited = now.saturating_duration_since(job.received);
                let message = format!(
                    "the answer was wanted to begin by now; it waited {:.1} s for its turn on this device",
                    waited.as_secs_f64()
                );
                (job, Failure::new(FailureKind::TimedOut, message))
            })
            .collect()
    }

    /// The next moment at which a job expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.jobs.iter().filter_map(|job| job.begin_by).min()
    }

    /// Remembers how long a job took from its start to its end.
    pub(super) fn served(&mut self, took: Duration) {
        self.service = Some(self.service.map_or(took, |before| (before * 4 + took) / 5));
    }

    /// Expected wait of a new interactive job: for a place, then for its share
    /// of the steps while the prompts before it take `ahead`.
    pub(super) fn wait(&self, places: Places, ahead: Duration) -> Duration {
        if places.is_free_for(Rank::Interactive) && self.jobs.is_empty() {
            // It gets half of each step while others are at their prompts.
            return ahead / 2;
        }
        let before = self
            .jobs
            .iter()
            .filter(|job| job.standing.rank == Rank::Interactive);
        let before = u32::try_from(before.count()).unwrap_or(u32::MAX);
        let taken = u32::from(!places.is_free_for(Rank::Interactive));
        self.service.unwrap_or(FIRST_GUESS) * (before + taken) / MAX_RUNNING as u32 + ahead / 2
    }
}

/// What a request takes in memory, about.
fn weight(chat: &Chat) -> usize {
    let pictures: usize = match &chat.prompt {
        Prompt::Text(_) | Prompt::Inputs(_) => 0,
        Prompt::Turns(turns) => turns
            .iter()
            .flat_map(|turn| &turn.content)
            .map(|part| match part {
                Part::Text(_) => 0,
                Part::Image { url, .. } => url.len(),
            })
            .sum(),
    };
    chat.text_bytes() + pictures + chat.passthrough.len()
}
