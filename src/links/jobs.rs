//! Jobs under way on one link, by id.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use nearfar_domain::ids::JobId;
use tokio::sync::Notify;

use super::locked;
use super::queue::{Piece, Pushed, Queue};

/// Where a job is between the gate and its peer. Whoever moves it on knows
/// what it owes: the writer may send a job that still waits, and a dropped job
/// owes the peer a `Cancel` only once it was sent.
pub(crate) struct Flight(AtomicU8);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const DROPPED: u8 = 2;

impl Flight {
    fn new() -> Self {
        Self(AtomicU8::new(WAITING))
    }

    /// Called by the writer before it sends the job: whether it is still wanted.
    pub(crate) fn take_off(&self) -> bool {
        self.0
            .compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Called once when the job is dropped: whether the peer knows of it.
    fn drop_was_sent(&self) -> bool {
        self.0.swap(DROPPED, Ordering::AcqRel) == SENT
    }
}

/// Jobs that the peer is to stop. Filled from `Drop`, so it cannot wait; it
/// holds at most one entry per job.
#[derive(Default)]
pub(crate) struct Cancels {
    waiting: Mutex<Vec<JobId>>,
    pub(crate) notify: Notify,
}

impl Cancels {
    fn add(&self, job: JobId) {
        locked(&self.waiting).push(job);
        self.notify.notify_one();
    }

    /// Takes all that wait.
    pub(crate) fn take(&self) -> Vec<JobId> {
        std::mem::take(&mut *locked(&self.waiting))
    }
}

/// The queues of all jobs of one kind on one link.
pub(crate) struct Jobs<P> {
    cancels: Arc<Cancels>,
    table: Mutex<Table<P>>,
}

struct Table<P> {
    queues: HashMap<JobId, Arc<Queue<P>>>,
    /// The link is gone; no job may be added.
    closed: bool,
}

impl<P: Piece> Jobs<P> {
    pub(crate) fn new(cancels: Arc<Cancels>) -> Arc<Self> {
        Arc::new(Self {
            cancels,
            table: Mutex::new(Table {
                queues: HashMap::new(),
                closed: false,
            }),
        })
    }

    /// Adds a job. On a link that is gone it has ended as lost already.
    pub(crate) fn open(self: &Arc<Self>, job: JobId) -> JobStream<P> {
        let queue = Arc::new(Queue::new());
        let mut table = locked(&self.table);
        if table.closed {
            queue.push(P::lost());
        } else {
            table.queues.insert(job, Arc::clone(&queue));
        }
        drop(table);
        JobStream {
            job,
            queue,
            flight: Arc::new(Flight::new()),
            jobs: Arc::clone(self),
        }
    }

    /// Hands a piece to its job. Pieces of jobs that nobody waits for are
    /// dropped: their `Cancel` crossed them on the way.
    pub(crate) fn deliver(&self, job: JobId, piece: P) {
        let Some(queue) = locked(&self.table).queues.get(&job).cloned() else {
            return;
        };
        match queue.push(piece) {
            Pushed::More => {}
            Pushed::Last => {
                locked(&self.table).queues.remove(&job);
            }
            Pushed::Overrun => {
                locked(&self.table).queues.remove(&job);
                self.cancels.add(job);
            }
        }
    }

    /// Ends every job as lost: the link is gone.
    pub(crate) fn close(&self) {
        let mut table = locked(&self.table);
        table.closed = true;
        let queues = std::mem::take(&mut table.queues);
        drop(table);
        for queue in queues.into_values() {
            queue.push(P::lost());
        }
    }

    fn forget(&self, job: JobId) {
        locked(&self.table).queues.remove(&job);
    }
}

/// The pieces of one job as they arrive. Ends after the last piece. Dropping it
/// before stops the job at the peer at once.
pub struct JobStream<P: Piece> {
    job: JobId,
    queue: Arc<Queue<P>>,
    flight: Arc<Flight>,
    jobs: Arc<Jobs<P>>,
}

impl<P: Piece> JobStream<P> {
    /// For the writer, which asks it before it sends the job.
    pub(crate) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// When the last piece came in, however late it was read.
    pub fn ended_at(&self) -> Option<Instant> {
        self.queue.ended_at()
    }
}

impl<P: Piece> Stream for JobStream<P> {
    type Item = P;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<P>> {
        self.queue.poll_next(context)
    }
}

impl<P: Piece> Drop for JobStream<P> {
    fn drop(&mut self) {
        self.jobs.forget(self.job);
        let sent = self.flight.drop_was_sent();
        if sent && self.queue.ended_at().is_none() {
            self.jobs.cancels.add(self.job);
        }
    }
}
