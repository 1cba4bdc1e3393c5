//! Jobs that wait, and how long a new one would.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nearfar_domain::chat::{Chat, Part, Prompt};
use nearfar_domain::frames::{EngineJob, ModelSource};
use nearfar_domain::ids::JobId;

use super::link::LinkId;

/// Answers in the making at one time. More would slow each other down and keep
/// more caches in memory.
pub(super) const MAX_RUNNING: usize = 4;
/// Jobs that may wait.
pub(super) const MAX_WAITING: usize = 64;
/// Text that may wait, in bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// What a job is taken to last before any was seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// A job's name: ids are unique per link.
pub(super) type JobKey = (LinkId, JobId);

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
    bytes: usize,
}

impl Waiting {
    pub(super) fn new(link: LinkId, job: EngineJob) -> Self {
        let chat = job.chat.into_chat();
        Self {
            key: (link, job.job),
            model: job.model,
            source: job.source,
            bytes: weight(&chat) + job.partial.len(),
            chat,
            partial: job.partial,
            received: Instant::now(),
            load: Duration::ZERO,
        }
    }
}

/// The queue, first come, first served.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Waiting>,
    /// Smoothed time from a job's start to its end.
    service: Option<Duration>,
}

impl Queue {
    /// Whether another job may wait.
    pub(super) fn has_room(&self, job: &Waiting) -> bool {
        let bytes: usize = self.jobs.iter().map(|job| job.bytes).sum();
        self.jobs.len() < MAX_WAITING
            && (self.jobs.is_empty() || bytes + job.bytes <= MAX_WAITING_BYTES)
    }

    /// Remembers how long a job took from its start to its end.
    pub(super) fn served(&mut self, took: Duration) {
        self.service = Some(self.service.map_or(took, |before| (before * 4 + took) / 5));
    }

    /// Expected wait of a new job while `running` are being answered.
    pub(super) fn wait(&self, running: usize) -> Duration {
        if running < MAX_RUNNING && self.jobs.is_empty() {
            return Duration::ZERO;
        }
        let ahead = u32::try_from(self.jobs.len() + 1).unwrap_or(u32::MAX);
        self.service.unwrap_or(FIRST_GUESS) * ahead / MAX_RUNNING as u32
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
