//! Requests for vectors: a short queue, and one at a time on a thread of its
//! own beside the answers in words, which go on meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use nearfar_domain::chat::Prompt;
use nearfar_domain::embed::{EmbeddingCard, Inputs};
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, Usage};
use nearfar_domain::frames::{EngineJob, FromEngine, ModelSource, Timings};

use super::answers::Before;
use super::compute::Compute;
use super::guard::{THREADS, survive};
use super::link::{Input, LinkId};
use super::models::Held;
use super::queue::JobKey;
use crate::embed::Embedder;

/// Requests that may wait.
const MAX_WAITING: usize = 64;
/// Text that may wait, in bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// What the thread that makes vectors says.
pub(super) enum Stage {
    /// More vectors.
    More(Vec<Vec<f32>>),
    /// All were sent: the tokens that were read, and the time that it took.
    Done(u64, Duration),
    /// There will be no more, for this reason.
    Failed(Failure),
}

struct Waiting {
    key: JobKey,
    model: String,
    source: ModelSource,
    inputs: Inputs,
    card: EmbeddingCard,
    received: Instant,
    load: Duration,
}

impl Waiting {
    fn before(&self) -> Before {
        Before {
            received: self.received,
            started: Instant::now(),
            load: self.load,
        }
    }
}

struct Running {
    key: JobKey,
    before: Before,
    stop: Arc<AtomicBool>,
    /// Its end was told already: it was cancelled.
    over: bool,
}

/// Every request for vectors that has not ended.
pub(super) struct Vectors {
    inputs: SyncSender<Input>,
    waiting: VecDeque<Waiting>,
    running: Option<Running>,
}

impl Vectors {
    pub(super) fn new(inputs: SyncSender<Input>) -> Self {
        Self {
            inputs,
            waiting: VecDeque::new(),
            running: None,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn running(&self) -> usize {
        usize::from(self.running.as_ref().is_some_and(|running| !running.over))
    }

    /// Whether this job is here and not over.
    pub(super) fn has(&self, key: JobKey) -> bool {
        self.waiting.iter().any(|job| job.key == key)
            || self
                .running
                .as_ref()
                .is_some_and(|running| running.key == key && !running.over)
    }

    fn has_room(&self, job: &Waiting) -> bool {
        let bytes: usize = self.waiting.iter().map(|job| job.inputs.text_bytes()).sum();
        self.waiting.is_empty()
            || (self.waiting.len() < MAX_WAITING
                && bytes + job.inputs.text_bytes() <= MAX_WAITING_BYTES)
    }

    /// The gate is gone: nobody waits for its jobs.
    pub(super) fn close(&mut self, link: LinkId) {
        self.waiting.retain(|job| job.key.0 != link);
        if let Some(running) = self.running.as_mut().filter(|job| job.key.0 == link) {
            running.stop.store(true, Ordering::Relaxed);
            running.over = true;
        }
    }

    /// A model's load ended: the part of the wait that was for it.
    pub(super) fn loaded(&mut self, model: &str, source: &ModelSource, took: Duration) {
        for job in &mut self.waiting {
            if job.model == model && job.source == *source {
                job.load = took.min(job.received.elapsed());
            }
        }
    }

    /// Takes out every job that waits for this model.
    pub(super) fn drop_waiting(
        &mut self,
        model: &str,
        source: &ModelSource,
    ) -> Vec<(JobKey, Before)> {
        let mut out = Vec::new();
        self.waiting.retain(|job| {
            let drop = job.model == model && job.source == *source;
            if drop {
                out.push((job.key, job.before()));
            }
            !drop
        });
        out
    }

    /// Starts the thread for a job.
    fn start(&mut self, job: Waiting, embedder: Arc<Embedder>) -> std::io::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let (key, before) = (job.key, job.before());
        let (inputs, stopped) = (self.inputs.clone(), Arc::clone(&stop));
        thread::Builder::new()
            .name(format!("{THREADS}-vectors"))
            .spawn(move || {
                let last = survive(|| compute(&job, &embedder, &inputs, &stopped));
                // The model is free before the end is told.
                drop((job, embedder));
                let last = last.unwrap_or_else(|| {
                    Stage::Failed(Failure::new(
                        FailureKind::Internal,
                        "the engine made a mistake while it computed these vectors; other requests are not affected",
                    ))
                });
                // Fails only when the compute thread is gone.
                let _ = inputs.send(Input::Vectors(key, last));
            })?;
        self.running = Some(Running {
            key,
            before,
            stop,
            over: false,
        });
        Ok(())
    }
}

/// A whole job, on its own thread; returns its last word.
fn compute(
    job: &Waiting,
    embedder: &Embedder,
    inputs: &SyncSender<Input>,
    stopped: &AtomicBool,
) -> Stage {
    let begun = Instant::now();
    let mut work = match embedder.prepare(&job.inputs, &job.card) {
        Ok(work) => work,
        Err(failure) => return Stage::Failed(failure),
    };
    while !work.is_done() && !stopped.load(Ordering::Relaxed) {
        match embedder.step(&mut work) {
            Ok(vectors) => {
                if inputs
                    .send(Input::Vectors(job.key, Stage::More(vectors)))
                    .is_err()
                {
                    break;
                }
            }
            Err(failure) => return Stage::Failed(failure),
        }
    }
    Stage::Done(work.prompt_tokens, begun.elapsed())
}

impl Compute {
    /// A request for vectors came in.
    pub(super) fn want_vectors(&mut self, link: LinkId, job: EngineJob) {
        let key = (link, job.job);
        let Prompt::Inputs(inputs) = job.chat.into_chat().prompt else {
            return;
        };
        let job = Waiting {
            key,
            model: job.model,
            source: job.source,
            inputs,
            card: job.embedding.unwrap_or_default(),
            received: Instant::now(),
            load: Duration::ZERO,
        };
        if self.vectors.has(key) {
            tracing::warn!(
                job = key.1.0,
                "the gate sent a job twice; the second one is ignored"
            );
        } else if self.vectors.has_room(&job) {
            self.vectors.waiting.push_back(job);
            self.start_vectors();
        } else {
            let failure = Failure::new(
                FailureKind::Overloaded,
                format!("{MAX_WAITING} requests for vectors wait for this device already"),
            );
            self.fail(key, failure, Timings::default());
        }
    }

    /// Starts the first job whose model is here, and the loads of the others'.
    pub(super) fn start_vectors(&mut self) {
        let mut index = 0;
        while self.vectors.running.is_none() && index < self.vectors.waiting.len() {
            let job = &self.vectors.waiting[index];
            let (key, model, source) = (job.key, job.model.clone(), job.source.clone());
            match self.models.held(&model, &source) {
                Some(Held::Vectors(embedder)) => {
                    let Some(job) = self.vectors.waiting.remove(index) else {
                        return;
                    };
                    let before = job.before();
                    match self.vectors.start(job, embedder) {
                        Ok(()) => self.event(key, Event::Started { model }),
                        Err(error) => {
                            let text = format!("no thread to work on: {error}");
                            let failure = Failure::new(FailureKind::Overloaded, text);
                            self.fail(key, failure, before.timings());
                        }
                    }
                }
                Some(Held::Words(_)) => {
                    let failure = Failure {
                        field: Some("model".to_owned()),
                        ..Failure::new(
                            FailureKind::Unsupported,
                            "this model answers in words and makes no vectors; name an embedding model",
                        )
                    };
                    for (key, before) in self.vectors.drop_waiting(&model, &source) {
                        self.fail(key, failure.clone(), before.timings());
                    }
                }
                None => match self.want(&model, &source) {
                    Ok(()) => index += 1,
                    // Takes all jobs of this model out of the queue.
                    Err(failure) => self.load_failed(&model, &source, &failure),
                },
            }
        }
    }

    /// The thread has something to say.
    pub(super) fn vectors_came(&mut self, key: JobKey, stage: Stage) {
        let Some(running) = self.vectors.running.as_ref().filter(|job| job.key == key) else {
            return;
        };
        let (over, before) = (running.over, running.before);
        let end = match stage {
            Stage::More(vectors) => {
                if !over {
                    self.event(key, Event::Vectors(vectors));
                }
                return;
            }
            Stage::Done(tokens, took) => {
                let usage = Usage {
                    prompt: Some(tokens),
                    completion: Some(0),
                    ..Usage::default()
                };
                let timings = Timings {
                    prefill_ms: took.as_secs_f64() * 1000.0,
                    prefill_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
                    ..before.timings()
                };
                let reason = FinishReason::Stop;
                (Event::Finished { reason, usage }, timings)
            }
            Stage::Failed(failure) => (Event::Failed(failure), before.timings()),
        };
        self.vectors.running = None;
        if !over {
            let (event, timings) = end;
            let (link, job) = key;
            self.event(key, event);
            self.send(link, &FromEngine::Done { job, timings });
        }
        self.models.drop_leaving();
        self.start_vectors();
    }

    /// Stops a job. The one that is being computed stops after its next piece.
    pub(super) fn cancel_vectors(&mut self, key: JobKey) {
        let mut timings = Timings::default();
        if let Some(running) = self.vectors.running.as_mut().filter(|job| job.key == key) {
            running.stop.store(true, Ordering::Relaxed);
            running.over = true;
            timings = running.before.timings();
        }
        self.vectors.waiting.retain(|job| job.key != key);
        let failure = Failure::new(FailureKind::Cancelled, "the request was cancelled");
        self.fail(key, failure, timings);
    }
}
