//! The link to this device's engine.
#![allow(
    clippy::disallowed_methods,
    reason = "the handle is kept and aborted by the link"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::{
    EngineJob, EngineState, FromEngine, LoadedModel, ModelSource, Timings, ToEngine, VERSION,
    encode,
};
use nearfar_domain::ids::JobId;
use tokio::sync::{mpsc, watch};

use super::jobs::{Cancels, JobStream, Jobs};
use super::locked;
use super::seat::Seat;
use super::wire::{LinkEnd, MAX_OUTGOING, Outgoing, pump};

/// Jobs whose timings may be outstanding; the oldest is forgotten first.
const MAX_UNTIMED: usize = 1024;

/// Told of each job's model and timings when it ended.
pub(super) type OnTimings = Box<dyn Fn(&str, &Timings) + Send + Sync>;

/// A handle to the engine that outlives the engine's process.
#[derive(Clone)]
pub struct EngineLink {
    inner: Arc<Inner>,
}

struct Inner {
    seat: Seat<Live>,
    state: watch::Sender<EngineState>,
    loads: watch::Sender<BTreeMap<String, Result<LoadedModel, String>>>,
    on_timings: OnTimings,
}

/// One socket to one engine process.
struct Live {
    generation: u64,
    pid: u32,
    outgoing: mpsc::Sender<Outgoing>,
    jobs: Arc<Jobs<Event>>,
    untimed: Mutex<BTreeMap<JobId, String>>,
}

impl EngineLink {
    /// A link without a socket yet.
    pub fn new(on_timings: OnTimings) -> Self {
        Self {
            inner: Arc::new(Inner {
                seat: Seat::new(),
                state: watch::Sender::new(EngineState::default()),
                loads: watch::Sender::new(BTreeMap::new()),
                on_timings,
            }),
        }
    }

    /// Serves a new socket in place of the one before, whose jobs end as crashed.
    pub fn connect(&self, stream: std::os::unix::net::UnixStream) {
        let inner = Arc::clone(&self.inner);
        let generation = inner.seat.next_generation();
        let task = tokio::spawn(serve(inner, stream, generation));
        self.inner.seat.replace_task(task.abort_handle());
    }

    /// Starts a job, once the engine is there or within `patience`. Returns the
    /// number of the link that runs it, too: a crash is one per number.
    ///
    /// # Errors
    /// `Crashed` when the engine is not there in time; `BadRequest` when the
    /// request is too long for a frame.
    pub async fn run(
        &self,
        patience: Duration,
        make: impl FnOnce(JobId) -> EngineJob,
    ) -> Result<(JobStream<Event>, u64), Failure> {
        let Some(live) = self.inner.seat.wait(patience).await else {
            return Err(Failure::new(
                FailureKind::Crashed,
                "The engine of this device is not running. It is being restarted; try again.",
            ));
        };
        let job = JobId(self.inner.seat.next_job());
        let made = make(job);
        let model = made.model.clone();
        let frame = encode(&ToEngine::Run(Box::new(made))).map_err(|_| too_long())?;
        let stream = live.jobs.open(job);
        {
            let mut untimed = locked(&live.untimed);
            if untimed.len() >= MAX_UNTIMED {
                untimed.pop_first();
            }
            untimed.insert(job, model);
        }
        let flight = Some(stream.flight());
        // A closed channel is a link that just died: the stream says so itself.
        let _ = live.outgoing.send(Outgoing { frame, flight }).await;
        Ok((stream, live.generation))
    }

    /// Asks for a model to be loaded. Does nothing without an engine; the
    /// outcome shows in [`EngineLink::loads`].
    pub async fn load(&self, model: &str, source: &ModelSource) {
        // What became of an earlier load is no answer to this one.
        self.inner
            .loads
            .send_if_modified(|loads| loads.remove(model).is_some());
        let message = ToEngine::Load {
            model: model.to_owned(),
            source: source.clone(),
        };
        self.send(&message).await;
    }

    /// Asks for a model to be dropped from memory once no job uses it.
    pub async fn unload(&self, model: &str) {
        let model = model.to_owned();
        self.send(&ToEngine::Unload { model }).await;
    }

    /// Keeps a model that is in memory for so long after its last use; `None`
    /// for as long as there is room.
    pub async fn keep(&self, model: &str, time: Option<Duration>) {
        let for_ms = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let model = model.to_owned();
        self.send(&ToEngine::Keep { model, for_ms }).await;
    }

    async fn send(&self, message: &ToEngine) {
        let (Some(live), Ok(frame)) = (self.inner.seat.live(), encode(message)) else {
            return;
        };
        let flight = None;
        let _ = live.outgoing.send(Outgoing { frame, flight }).await;
    }

    /// What the engine last said of itself; the default without an engine.
    pub fn state(&self) -> EngineState {
        self.inner.state.borrow().clone()
    }

    /// Follows what models became ready, and which could not be loaded.
    pub fn loads(&self) -> watch::Receiver<BTreeMap<String, Result<LoadedModel, String>>> {
        self.inner.loads.subscribe()
    }

    /// The engine's process id; `None` without a live link.
    pub fn pid(&self) -> Option<u32> {
        self.inner.seat.live().map(|live| live.pid)
    }

    /// `None` while a link is live, else when the last one went away.
    pub fn gone_since(&self) -> Option<Instant> {
        self.inner.seat.empty_since()
    }

    /// Waits until a live link with a higher number than `after` is there.
    /// Returns its number, or `None` when the handle is gone.
    pub(crate) async fn newer_than(&self, after: u64) -> Option<u64> {
        let mut watch = self.inner.seat.watch();
        let newer =
            |live: &Option<Arc<Live>>| live.as_ref().is_some_and(|live| live.generation > after);
        let found = watch.wait_for(newer).await.ok()?;
        found.as_ref().map(|live| live.generation)
    }
}

fn too_long() -> Failure {
    Failure::new(
        FailureKind::BadRequest,
        "The request is too long to be handed on. Send less text or smaller pictures.",
    )
}

/// Ends a link's jobs however its task ends, also when it is replaced.
struct Ending {
    inner: Arc<Inner>,
    live: Option<Arc<Live>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            self.inner.seat.leave(&live);
            live.jobs.close();
            if self.inner.seat.live().is_none() {
                self.inner.state.send_replace(EngineState::default());
                self.inner.loads.send_replace(BTreeMap::new());
            }
        }
    }
}

async fn serve(inner: Arc<Inner>, stream: std::os::unix::net::UnixStream, generation: u64) {
    let cancels = Arc::new(Cancels::default());
    let (outgoing, waiting) = mpsc::channel(MAX_OUTGOING);
    let jobs = Jobs::new(Arc::clone(&cancels));
    let mut ending = Ending {
        inner: Arc::clone(&inner),
        live: None,
    };
    let take = |message: FromEngine| {
        if let FromEngine::Hello { version, pid } = message {
            if version != VERSION {
                return Err(LinkEnd::Version(version));
            }
            let live = Arc::new(Live {
                generation,
                pid,
                outgoing: outgoing.clone(),
                jobs: Arc::clone(&jobs),
                untimed: Mutex::new(BTreeMap::new()),
            });
            ending.live = Some(Arc::clone(&live));
            inner.state.send_replace(EngineState::default());
            inner.loads.send_replace(BTreeMap::new());
            inner.seat.take(live);
            return Ok(());
        }
        let Some(live) = &ending.live else {
            return Err(LinkEnd::NoHello);
        };
        match message {
            FromEngine::Hello { .. } | FromEngine::Pong(_) => {}
            FromEngine::Event { job, event } => live.jobs.deliver(job, event),
            FromEngine::Done { job, timings } => {
                if let Some(model) = locked(&live.untimed).remove(&job) {
                    (inner.on_timings)(&model, &timings);
                }
            }
            FromEngine::Loaded { model, result } => {
                inner.loads.send_modify(|loads| {
                    loads.insert(model, result);
                });
            }
            FromEngine::State(state) => {
                inner.state.send_replace(state);
            }
        }
        Ok(())
    };
    let end = pump(stream, waiting, cancels, ToEngine::Cancel, take).await;
    tracing::info!(peer = "engine", generation, "link ended: {end}");
}
