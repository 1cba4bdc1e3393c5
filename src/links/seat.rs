//! The place of a link: empty until the peer said hello, empty again when it
//! is gone, taken by the next socket that the supervisor hands over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::locked;

/// Holds the live link `W`, if there is one.
pub(crate) struct Seat<W> {
    live: watch::Sender<Option<Arc<W>>>,
    job: AtomicU64,
    generation: AtomicU64,
    task: Mutex<Option<AbortHandle>>,
    empty_since: Mutex<Instant>,
}

impl<W> Seat<W> {
    pub(crate) fn new() -> Self {
        Self {
            live: watch::Sender::new(None),
            job: AtomicU64::new(1),
            generation: AtomicU64::new(0),
            task: Mutex::new(None),
            empty_since: Mutex::new(Instant::now()),
        }
    }

    /// A job id that no job of this process has had.
    pub(crate) fn next_job(&self) -> u64 {
        self.job.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a new socket; each is higher than the one before.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Remembers the task that serves the newest socket and ends the one before.
    pub(crate) fn replace_task(&self, task: AbortHandle) {
        if let Some(old) = locked(&self.task).replace(task) {
            old.abort();
        }
    }

    /// The live link, now.
    pub(crate) fn live(&self) -> Option<Arc<W>> {
        self.live.borrow().clone()
    }

    /// `None` while a link is live, else when the last one went away.
    pub(crate) fn empty_since(&self) -> Option<Instant> {
        match self.live() {
            Some(_) => None,
            None => Some(*locked(&self.empty_since)),
        }
    }

    /// Follows the live link.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<W>>> {
        self.live.subscribe()
    }

    /// The live link, now or within `patience`.
    pub(crate) async fn wait(&self, patience: Duration) -> Option<Arc<W>> {
        if let Some(live) = self.live() {
            return Some(live);
        }
        let mut watch = self.live.subscribe();
        let found = tokio::time::timeout(patience, watch.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// The peer said hello: from now on its link is the live one.
    pub(crate) fn take(&self, link: Arc<W>) {
        self.live.send_replace(Some(link));
    }

    /// The link is gone; does nothing when another one took its place already.
    pub(crate) fn leave(&self, link: &Arc<W>) {
        self.live.send_if_modified(|live| {
            let ours = live.as_ref().is_some_and(|live| Arc::ptr_eq(live, link));
            if ours {
                *locked(&self.empty_since) = Instant::now();
                *live = None;
            }
            ours
        });
    }
}
