//! The link to egress, the only process with a network.
#![allow(
    clippy::disallowed_methods,
    reason = "the handle is kept and aborted by the link"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::{
    Download, DownloadEvent, EgressJob, FromEgress, LedgerBatch, LedgerEnd, ProviderCard,
    SharedCall, SharedEnd, ToEgress, VERSION, encode,
};
use nearfar_domain::ids::{JobId, TargetId};
use tokio::sync::{mpsc, watch};

use super::jobs::{Cancels, JobStream, Jobs};
use super::queue::Piece;
use super::seat::Seat;
use super::wire::{LinkEnd, MAX_OUTGOING, Outgoing, pump};

/// A handle to egress that outlives egress's process.
#[derive(Clone)]
pub struct EgressLink {
    inner: Arc<Inner>,
}

struct Inner {
    seat: Seat<Live>,
    /// Kept when egress goes away: what it will offer when it is back.
    cards: watch::Sender<Arc<Vec<ProviderCard>>>,
}

struct Live {
    generation: u64,
    pid: u32,
    outgoing: mpsc::Sender<Outgoing>,
    jobs: Arc<Jobs<Event>>,
    downloads: Arc<Jobs<DownloadEvent>>,
    batches: Arc<Jobs<LedgerEnd>>,
    calls: Arc<Jobs<SharedEnd>>,
}

impl EgressLink {
    /// A link without a socket yet. `expected` stands for the providers until
    /// egress names them itself.
    pub fn new(expected: Vec<ProviderCard>) -> Self {
        Self {
            inner: Arc::new(Inner {
                seat: Seat::new(),
                cards: watch::Sender::new(Arc::new(expected)),
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

    /// Starts a job, once egress is there or within `patience`. Takes what only
    /// a cleared request can be made into. Returns the number of the link that
    /// runs it, too.
    ///
    /// # Errors
    /// `Crashed` when egress is not there in time; `BadRequest` when the request
    /// is too long for a frame.
    pub async fn run(
        &self,
        patience: Duration,
        make: impl FnOnce(JobId) -> EgressJob,
    ) -> Result<(JobStream<Event>, u64), Failure> {
        let Some(live) = self.inner.seat.wait(patience).await else {
            return Err(Failure::new(
                FailureKind::Crashed,
                "The process that reaches providers is not running. It is being restarted; try \
                 again.",
            ));
        };
        let job = JobId(self.inner.seat.next_job());
        let frame = encode(&ToEgress::Run(Box::new(make(job)))).map_err(|_| {
            Failure::new(
                FailureKind::BadRequest,
                "The request is too long to be handed on. Send less text or smaller pictures.",
            )
        })?;
        let stream = live.jobs.open(job);
        let flight = Some(stream.flight());
        // A closed channel is a link that just died: the stream says so itself.
        let _ = live.outgoing.send(Outgoing { frame, flight }).await;
        Ok((stream, live.generation))
    }

    /// Starts a download; its job id is drawn here. Without egress the stream
    /// fails at once.
    pub fn download(&self, mut download: Download) -> JobStream<DownloadEvent> {
        let job = JobId(self.inner.seat.next_job());
        let Some(live) = self.inner.seat.live() else {
            let closed = Jobs::new(Arc::new(Cancels::default()));
            closed.close();
            return closed.open(job);
        };
        download.job = job;
        let stream = live.downloads.open(job);
        let sent = encode(&ToEgress::Download(download)).is_ok_and(|frame| {
            let flight = Some(stream.flight());
            live.outgoing.try_send(Outgoing { frame, flight }).is_ok()
        });
        if !sent {
            live.downloads.deliver(job, DownloadEvent::lost());
        }
        stream
    }

    /// Stores rows in the fleet's ledger; the job's id is drawn here. Without
    /// egress it fails at once. Dropping the future gives the job up.
    pub async fn store(&self, mut batch: LedgerBatch) -> LedgerEnd {
        let Some(live) = self.inner.seat.live() else {
            return LedgerEnd::lost();
        };
        let job = JobId(self.inner.seat.next_job());
        batch.job = job;
        let Ok(frame) = encode(&ToEgress::Ledger(batch)) else {
            return LedgerEnd::lost();
        };
        let mut stream = live.batches.open(job);
        let flight = Some(stream.flight());
        // A closed channel is a link that just died: the stream says so itself.
        let _ = live.outgoing.send(Outgoing { frame, flight }).await;
        stream.next().await.unwrap_or_else(LedgerEnd::lost)
    }

    /// Does a step at the counters that several daemons share; the job's id is
    /// drawn here. Without egress it fails at once.
    pub async fn shared(&self, mut call: SharedCall) -> SharedEnd {
        let Some(live) = self.inner.seat.live() else {
            return SharedEnd::lost();
        };
        let job = JobId(self.inner.seat.next_job());
        call.job = job;
        let Ok(frame) = encode(&ToEgress::Shared(call)) else {
            return SharedEnd::lost();
        };
        let mut stream = live.calls.open(job);
        let flight = Some(stream.flight());
        // A closed channel is a link that just died: the stream says so itself.
        let _ = live.outgoing.send(Outgoing { frame, flight }).await;
        stream.next().await.unwrap_or_else(SharedEnd::lost)
    }

    /// The providers, as egress last named them.
    pub fn cards(&self) -> Arc<Vec<ProviderCard>> {
        Arc::clone(&self.inner.cards.borrow())
    }

    /// Whether a provider's model goes on with an assistant turn that it is
    /// given in part.
    pub fn takes_prefill(&self, target: &TargetId) -> bool {
        let cards = self.inner.cards.borrow();
        let card = cards.iter().find(|card| card.name == target.place());
        card.and_then(|card| {
            card.models
                .iter()
                .find(|model| model.name == target.model())
        })
        .is_some_and(|model| model.prefill)
    }

    /// Egress's process id; `None` without a live link.
    pub fn pid(&self) -> Option<u32> {
        self.inner.seat.live().map(|live| live.pid)
    }

    /// `None` while a link is live, else when the last one went away.
    pub fn gone_since(&self) -> Option<Instant> {
        self.inner.seat.empty_since()
    }
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
            live.downloads.close();
            live.batches.close();
            live.calls.close();
        }
    }
}

async fn serve(inner: Arc<Inner>, stream: std::os::unix::net::UnixStream, generation: u64) {
    let cancels = Arc::new(Cancels::default());
    let (outgoing, waiting) = mpsc::channel(MAX_OUTGOING);
    let jobs = Jobs::new(Arc::clone(&cancels));
    let downloads = Jobs::new(Arc::clone(&cancels));
    let batches = Jobs::new(Arc::clone(&cancels));
    let calls = Jobs::new(Arc::clone(&cancels));
    let mut ending = Ending {
        inner: Arc::clone(&inner),
        live: None,
    };
    let take = |message: FromEgress| {
        if let FromEgress::Hello {
            version,
            pid,
            providers,
        } = message
        {
            if version != VERSION {
                return Err(LinkEnd::Version(version));
            }
            let live = Arc::new(Live {
                generation,
                pid,
                outgoing: outgoing.clone(),
                jobs: Arc::clone(&jobs),
                downloads: Arc::clone(&downloads),
                batches: Arc::clone(&batches),
                calls: Arc::clone(&calls),
            });
            inner.cards.send_replace(Arc::new(providers));
            ending.live = Some(Arc::clone(&live));
            inner.seat.take(live);
            return Ok(());
        }
        let Some(live) = &ending.live else {
            return Err(LinkEnd::NoHello);
        };
        match message {
            FromEgress::Hello { .. } | FromEgress::Pong(_) => {}
            FromEgress::Event { job, event } => live.jobs.deliver(job, event),
            FromEgress::Download { job, event } => live.downloads.deliver(job, event),
            FromEgress::Ledger { job, end } => live.batches.deliver(job, end),
            FromEgress::Shared { job, end } => live.calls.deliver(job, end),
        }
        Ok(())
    };
    let end = pump(stream, waiting, cancels, ToEgress::Cancel, take).await;
    tracing::info!(peer = "egress", generation, "link ended: {end}");
}
