//! Where a job's events go: the link's queue of frames, under the job's id.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nearfar_domain::events::Event;
use nearfar_domain::frames::{DownloadEvent, FromEgress, LedgerEnd, SharedEnd};
use nearfar_domain::ids::JobId;
use tokio::sync::mpsc;

/// Where a job's events go.
#[derive(Clone)]
pub(crate) struct Emitter {
    pub(crate) job: JobId,
    frames: mpsc::Sender<FromEgress>,
    /// Whether the job's last event is out: a cancellation that comes then is
    /// too late to be one.
    ended: Arc<AtomicBool>,
}

/// The gate is gone: nobody wants the rest.
pub(crate) struct Gone;

impl Emitter {
    pub(crate) fn new(job: JobId, frames: mpsc::Sender<FromEgress>) -> Self {
        Self {
            job,
            frames,
            ended: Arc::default(),
        }
    }

    /// Waits until the gate takes it. Nothing goes out after a last event.
    pub(crate) async fn event(&self, event: Event) -> Result<(), Gone> {
        let last = event.is_last();
        let job = self.job;
        self.send(FromEgress::Event { job, event }, last).await
    }

    /// As [`Emitter::event`], for a download.
    pub(crate) async fn download(&self, event: DownloadEvent) -> Result<(), Gone> {
        let last = !matches!(event, DownloadEvent::Progress { .. });
        let job = self.job;
        self.send(FromEgress::Download { job, event }, last).await
    }

    /// The end of a batch of the ledger's rows.
    pub(crate) async fn ledger(&self, end: LedgerEnd) -> Result<(), Gone> {
        let job = self.job;
        self.send(FromEgress::Ledger { job, end }, true).await
    }

    /// The end of a step at the shared counters.
    pub(crate) async fn shared(&self, end: SharedEnd) -> Result<(), Gone> {
        let job = self.job;
        self.send(FromEgress::Shared { job, end }, true).await
    }

    async fn send(&self, frame: FromEgress, last: bool) -> Result<(), Gone> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.frames.send(frame).await.map_err(|_| Gone)?;
        if last {
            self.ended.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) async fn events(&self, events: &mut Vec<Event>) -> Result<(), Gone> {
        for event in events.drain(..) {
            self.event(event).await?;
        }
        Ok(())
    }
}

/// Runs `work` until it is done or `cancelled` is.
pub(crate) async fn until_cancelled(
    work: impl Future<Output = ()>,
    cancelled: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        biased;
        () = cancelled => true,
        () = work => false,
    }
}
