//! The compute thread: takes inputs, starts jobs, steps answers in turn.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason};
use nearfar_domain::frames::{EngineState, FromEngine, ModelSource, Purpose, Timings, ToEngine};

use super::answers::{Answers, Before, Ended, Stepped};
use super::guard::{THREADS, survive};
use super::link::{Input, Link, LinkId};
use super::load::Load;
use super::models::{Limits, Models};
use super::queue::{JobKey, Queue, Waiting};
use super::vectors::Vectors;
use crate::generate::{Generation, Prepared};
use crate::pinned::Store;

/// While busy, the state is told at least this often.
const STATE_EVERY: Duration = Duration::from_secs(1);
/// Waits and rates are told at most this often for their own sake.
const RATES_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for a full link before looking again.
const LINK_PAUSE: Duration = Duration::from_millis(2);

pub(super) struct Compute {
    sender: SyncSender<Input>,
    inputs: Receiver<Input>,
    links: BTreeMap<LinkId, Link>,
    next_link: LinkId,
    more_links: bool,
    pub(super) models: Models,
    /// Requests for vectors have a queue and a thread of their own.
    pub(super) vectors: Vectors,
    queue: Queue,
    answers: Answers,
    told: EngineState,
    told_at: Instant,
}

impl Compute {
    pub(super) fn new(
        sender: SyncSender<Input>,
        inputs: Receiver<Input>,
        limits: Limits,
        pinned: Option<Arc<Store>>,
    ) -> Self {
        Self {
            models: Models::new(sender.clone(), limits, pinned),
            vectors: Vectors::new(sender.clone()),
            sender,
            inputs,
            links: BTreeMap::new(),
            next_link: 0,
            more_links: true,
            queue: Queue::default(),
            answers: Answers::default(),
            told: EngineState::default(),
            told_at: Instant::now(),
        }
    }

    /// Runs until no link is left and none can come.
    pub(super) fn run(mut self) {
        let mut stepped = false;
        while self.more_links || !self.links.is_empty() {
            match self.next_input(stepped) {
                Some(input) => {
                    self.take(input);
                    // Inputs first: a cancellation must not wait for a step.
                    stepped = true;
                    continue;
                }
                None => {
                    self.drop_expired();
                    self.start_jobs();
                }
            }
            stepped = self.step();
            self.tell();
        }
    }

    /// The next input, waiting only as long as there is nothing to compute.
    fn next_input(&mut self, stepped: bool) -> Option<Input> {
        if stepped {
            return self.inputs.try_recv().ok();
        }
        let paused = self.links.values().any(|link| !link.has_room());
        let busy = self.answers.places().all() > 0
            || !self.queue.jobs.is_empty()
            || self.models.loading().is_some();
        let mut patience = if paused {
            LINK_PAUSE
        } else if busy {
            STATE_EVERY
        } else if let Some(expiry) = self.models.next_expiry(Instant::now()) {
            expiry
        } else {
            return self.inputs.recv().ok();
        };
        if let Some(expiry) = self.queue.next_expiry() {
            patience = patience.min(expiry.saturating_duration_since(Instant::now()));
        }
        self.inputs.recv_timeout(patience).ok()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Link(stream) => self.open(stream),
            Input::NoMoreLinks => self.more_links = false,
            Input::Closed(link) => self.close(link),
            Input::Frame(link, frame) => self.frame(link, frame),
            Input::Room(room) => {
                if let Err(refused) = self.models.room(*room) {
                    self.loaded(*refused);
                }
            }
            Input::Loaded(load) => self.loaded(*load),
            Input::Prepared(key, result, took) => self.prepared(key, result, took),
            Input::Vectors(key, stage) => self.vectors_came(key, stage),
        }
    }

    fn open(&mut self, stream: UnixStream) {
        self.next_link += 1;
        match Link::start(self.next_link, stream, &self.sender) {
            Ok(mut link) => {
                // A gate that comes to a busy engine knows so at once.
                link.send(&FromEngine::State(self.state()));
                self.links.insert(self.next_link, link);
            }
            Err(error) => tracing::error!(%error, "a link to the gate cannot be served"),
        }
    }

    /// The gate is gone: nobody waits for its jobs.
    fn close(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.queue.jobs.retain(|job| job.key.0 != link);
        for key in self.answers.of_link(link) {
            self.answers.remove(key);
        }
        self.vectors.close(link);
        self.models.drop_leaving();
    }

    fn frame(&mut self, link: LinkId, frame: ToEngine) {
        match frame {
            ToEngine::Run(job) if job.chat.asks_for_vectors() => self.want_vectors(link, *job),
            ToEngine::Run(job) => {
                let job = self.queue.arrived(link, *job);
                match job.standing.purpose {
                    Purpose::Look => self.look(job),
                    _ => self.enqueue(job),
                }
            }
            ToEngine::Cancel(job) => self.cancel((link, job)),
            ToEngine::Load { model, source } => {
                if self.models.held(&model, &source).is_some() {
                    self.tell_loaded(link, &model);
                } else if let Err(failure) = self.want(&model, &source) {
                    self.load_failed(&model, &source, &failure);
                }
            }
            ToEngine::Unload { model } => self.models.unload(&model),
            ToEngine::Keep { model, for_ms } => {
                let keep = for_ms.map(Duration::from_millis);
                self.models.keep(&model, keep, Instant::now());
            }
            ToEngine::Ping(number) => self.send(link, &FromEngine::Pong(number)),
        }
    }

    fn enqueue(&mut self, job: Waiting) {
        let key = job.key;
        if self.answers.has(key) || self.queue.jobs.iter().any(|waiting| waiting.key == key) {
            tracing::warn!(
                job = key.1.0,
                "the gate sent a job twice; the second one is ignored"
            );
            return;
        }
        let (places, ahead) = (self.answers.places(), self.answers.prompts_ahead());
        if let Err(refused) = self.queue.enter(job, places, ahead) {
            let (job, failure) = *refused;
            self.fail(job.key, failure, Timings::default());
        }
    }

    /// Finds out how much of a prompt is known. It waits for nothing: whoever
    /// asks wants to know it now or not at all.
    fn look(&mut self, job: Waiting) {
        let Some(ready) = self.models.get(&job.model, &job.source) else {
            let failure = Failure::new(
                FailureKind::ModelMissing,
                "the model is not in memory, so nothing of the prompt is known",
            );
            return self.fail(job.key, failure, Timings::default());
        };
        let (before, standing) = (before(&job), job.standing.clone());
        self.answers
            .prepare(job.key, Arc::clone(&ready), before, standing);
        self.prepare(job, ready);
    }

    /// Ends the jobs whose answers nobody waits for any more.
    fn drop_expired(&mut self) {
        for (job, failure) in self.queue.expired(Instant::now()) {
            self.fail(job.key, failure, before(&job).timings());
        }
    }

    fn cancel(&mut self, key: JobKey) {
        if self.vectors.has(key) {
            return self.cancel_vectors(key);
        }
        let timings = if let Some(index) = self.queue.jobs.iter().position(|job| job.key == key) {
            self.queue
                .jobs
                .remove(index)
                .map(|job| before(&job).timings())
        } else {
            self.answers.remove(key).map(|ended| ended.timings)
        };
        // A job that ended before is no longer here, and its end was told.
        if let Some(timings) = timings {
            let failure = Failure::new(FailureKind::Cancelled, "the request was cancelled");
            self.fail(key, failure, timings);
            self.models.drop_leaving();
        }
    }

    /// Asks for the models that jobs wait for, and gives free places to the
    /// jobs whose models are here.
    fn start_jobs(&mut self) {
        let mut index = 0;
        while index < self.queue.jobs.len() {
            let job = &self.queue.jobs[index];
            let (model, source) = (job.model.clone(), job.source.clone());
            if self.models.get(&model, &source).is_none()
                && let Err(failure) = self.want(&model, &source)
            {
                // Takes this job out of the queue, and all others of its model.
                self.load_failed(&model, &source, &failure);
            } else {
                index += 1;
            }
        }
        loop {
            let models = &mut self.models;
            let is_here = |job: &Waiting| models.get(&job.model, &job.source).is_some();
            let Some(job) = self.queue.next(self.answers.places(), is_here) else {
                return;
            };
            if let Some(ready) = self.models.get(&job.model, &job.source) {
                let (before, standing) = (before(&job), job.standing.clone());
                self.answers
                    .prepare(job.key, Arc::clone(&ready), before, standing);
                self.prepare(job, ready);
            }
        }
    }

    pub(super) fn want(&mut self, model: &str, source: &ModelSource) -> Result<(), Failure> {
        if self.models.is_coming(model, source) {
            return Ok(());
        }
        self.models.want(model, source)
    }

    /// Turns a job's text into tokens on a thread of its own: a long prompt
    /// must not hold up the other answers.
    fn prepare(&mut self, job: Waiting, ready: Arc<crate::generate::ReadyModel>) {
        let key = job.key;
        let sender = self.sender.clone();
        let spawned = thread::Builder::new().name(format!("{THREADS}-prepare")).spawn(move || {
            let begun = Instant::now();
            let result = survive(|| match job.standing.purpose {
                Purpose::Unpin => Generation::read(&ready, &job.chat, &job.partial),
                _ => Generation::prepare(&ready, &job.chat, &job.partial),
            });
            drop((ready, job));
            let result = result.unwrap_or_else(|| {
                Err(Failure::new(
                    FailureKind::Internal,
                    "the engine made a mistake while it read this request; other requests are not affected",
                ))
            });
            // Fails only when the compute thread is gone.
            let _ = sender.send(Input::Prepared(key, result.map(Box::new), begun.elapsed()));
        });
        if let Err(error) = spawned {
            let timings = self
                .answers
                .remove(key)
                .map(|ended| ended.timings)
                .unwrap_or_default();
            let failure = Failure::new(
                FailureKind::Overloaded,
                format!("no thread to work on: {error}"),
            );
            self.fail(key, failure, timings);
        }
    }

    fn prepared(&mut self, key: JobKey, result: Result<Box<Prepared>, Failure>, took: Duration) {
        match result {
            Ok(prepared) if self.answers.is_look(key) => {
                if let Some((usage, timings)) = self.answers.look(key, &prepared) {
                    let reason = FinishReason::Stop;
                    self.event(key, Event::Finished { reason, usage });
                    self.send(
                        key.0,
                        &FromEngine::Done {
                            job: key.1,
                            timings,
                        },
                    );
                }
            }
            Ok(prepared) => {
                if let Some(model) = self.answers.begin(key, *prepared) {
                    tracing::debug!(
                        job = key.1.0,
                        took_ms = took.as_millis() as u64,
                        "a job begins"
                    );
                    self.event(key, Event::Started { model });
                }
            }
            Err(failure) => {
                // None when the job was cancelled meanwhile.
                if let Some(ended) = self.answers.remove(key) {
                    self.fail(key, failure, ended.timings);
                }
            }
        }
    }

    fn loaded(&mut self, load: Load) {
        let (name, source, took) = (load.name.clone(), load.source.clone(), load.took);
        let (result, failed) = self.models.loaded(load);
        let now = Instant::now();
        for job in &mut self.queue.jobs {
            if job.model == name && job.source == source {
                job.load = took.min(now.saturating_duration_since(job.received));
            }
        }
        self.vectors.loaded(&name, &source, took);
        match result {
            Ok(loaded) => {
                tracing::info!(
                    model = name,
                    load_ms = took.as_millis() as u64,
                    "a model is ready"
                );
                self.send_all(&FromEngine::Loaded {
                    model: name,
                    result: Ok(loaded),
                });
            }
            Err(failure) => self.load_failed(&name, &source, &failure),
        }
        for (name, source, failure) in failed {
            self.load_failed(&name, &source, &failure);
        }
        self.start_vectors();
    }

    /// Fails every job that waits for a model which cannot be had.
    pub(super) fn load_failed(&mut self, model: &str, source: &ModelSource, failure: &Failure) {
        tracing::warn!(
            model,
            kind = failure.kind.as_str(),
            reason = failure.message,
            "a model cannot be loaded"
        );
        let mut index = 0;
        while index < self.queue.jobs.len() {
            let job = &self.queue.jobs[index];
            if job.model == model && job.source == *source {
                if let Some(job) = self.queue.jobs.remove(index) {
                    self.fail(job.key, failure.clone(), before(&job).timings());
                }
            } else {
                index += 1;
            }
        }
        for (key, before) in self.vectors.drop_waiting(model, source) {
            self.fail(key, failure.clone(), before.timings());
        }
        self.send_all(&FromEngine::Loaded {
            model: model.to_owned(),
            result: Err(failure.message.clone()),
        });
    }

    fn tell_loaded(&mut self, link: LinkId, model: &str) {
        let loaded = self
            .models
            .list()
            .into_iter()
            .find(|loaded| loaded.name == model);
        if let Some(loaded) = loaded {
            let frame = FromEngine::Loaded {
                model: model.to_owned(),
                result: Ok(loaded),
            };
            self.send(link, &frame);
        }
    }

    /// One step of one model; `false` when there was none to make.
    fn step(&mut self) -> bool {
        for link in self.links.values_mut() {
            link.flush();
        }
        if !self.answers.any_running() {
            return false;
        }
        let links = &self.links;
        let stepped = self
            .answers
            .step(|link| links.get(&link).is_some_and(Link::has_room));
        let any = !stepped.is_empty();
        for Stepped { key, events, end } in stepped {
            for event in events {
                self.event(key, event);
            }
            let Some(Ended { timings, took }) = end else {
                continue;
            };
            self.send(
                key.0,
                &FromEngine::Done {
                    job: key.1,
                    timings,
                },
            );
            self.queue.served(took);
            self.models.drop_leaving();
        }
        any
    }

    pub(super) fn event(&mut self, (link, job): JobKey, event: Event) {
        self.send(link, &FromEngine::Event { job, event });
    }

    pub(super) fn fail(&mut self, key: JobKey, failure: Failure, timings: Timings) {
        self.event(key, Event::Failed(failure));
        self.send(
            key.0,
            &FromEngine::Done {
                job: key.1,
                timings,
            },
        );
    }

    pub(super) fn send(&mut self, link: LinkId, frame: &FromEngine) {
        if let Some(link) = self.links.get_mut(&link) {
            link.send(frame);
        }
    }

    fn send_all(&mut self, frame: &FromEngine) {
        for link in self.links.values_mut() {
            link.send(frame);
        }
    }

    fn state(&self) -> EngineState {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (places, ahead) = (self.answers.places(), self.answers.prompts_ahead());
        EngineState {
            queued: count(self.queue.jobs.len() + self.vectors.waiting()),
            running: count(places.all() + self.vectors.running()),
            wait_ms: self.queue.wait(places, ahead).as_secs_f64() * 1000.0,
            models: self.models.list(),
            loads: self
                .models
                .all()
                .map(|ready| self.answers.load(ready))
                .collect(),
            loading: self.models.loading(),
            memory_budget: self.models.budget(),
        }
    }

    /// Tells the state when it changed, and at least once a second while busy.
    /// Waits for links without room: what they would hear later is newer.
    fn tell(&mut self) {
        if self.links.values().any(|link| !link.has_room()) {
            return;
        }
        self.models.expire(Instant::now());
        let age = self.told_at.elapsed();
        let state = self.state();
        // Figures that change with every step are told a few times a second.
        let changed = (state.queued, state.running) != (self.told.queued, self.told.running)
            || state.models != self.told.models
            || (age >= RATES_EVERY && state != self.told);
        let busy = state.running > 0 || state.queued > 0 || state.loading.is_some();
        if !(changed || busy && age >= STATE_EVERY) {
            return;
        }
        self.send_all(&FromEngine::State(state.clone()));
        self.told = state;
        self.told_at = Instant::now();
    }
}

fn before(job: &Waiting) -> Before {
    Before {
        received: job.received,
        started: Instant::now(),
        load: job.load,
    }
}
