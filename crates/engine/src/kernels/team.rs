//! The thread pool.
//!
//! A decode step is a few hundred short jobs, so a worker that waits spins for
//! a moment before it sleeps. The caller takes part. It waits only for workers
//! that have begun on the job: on a busy machine a worker that does not get a
//! core costs nothing, and the others do its share.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker spins for the next job. Longer than the serial stretches
/// within a step, shorter than what sampling or the network take.
const SPIN: Duration = Duration::from_micros(60);

/// Bits of `state`: workers inside the job, whether others may join, and the
/// job's number above.
const INSIDE: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const NUMBER: u32 = 17;

thread_local! {
    /// Whether this thread is inside a job already.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

/// What to run. The pointer outlives its use: `share` returns only after the
/// last worker has left.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    items: usize,
    /// The most items that a thread takes at once.
    chunk: usize,
    /// A thread takes at most this part of what is left.
    shares: usize,
}

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// The next item that nobody has taken.
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the caller that holds `Team::turn`, while no
// worker is inside and none may join; workers read it only after they joined.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in it is to a `Sync` closure.
unsafe impl Send for Shared {}

/// Threads that work on one job at a time.
pub(crate) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job is running.
    turn: Mutex<()>,
}

impl Team {
    /// A team of `threads`, the caller included; at least one. Choose the
    /// number by what the process may use (affinity, the cgroup's quota), as
    /// `std::thread::available_parallelism` reports it. Should the system
    /// refuse a thread, the team is smaller.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads.min(1024))
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernel-{index}"))
                    .spawn(move || shared.serve())
                    .ok()
            })
            .collect();
        Self {
            shared,
            workers,
            turn: Mutex::new(()),
        }
    }

    /// How many threads work on a job, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once for each of `0..items`, on all threads, and returns
    /// when all calls have returned. Threads take `chunk` items at a time,
    /// fewer towards the end.
    /// Called from within a job, it runs on the calling thread alone.
    ///
    /// # Panics
    /// When `work` panics, with its payload; items not begun are dropped.
    pub(crate) fn share(&self, items: usize, chunk: usize, work: &(dyn Fn(usize) + Sync)) {
        let chunk = chunk.max(1);
        if self.workers.is_empty() || items <= chunk || WORKING.get() {
            (0..items).for_each(work);
            return;
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. No worker uses the pointer after
        // `close`, which runs before this function returns or unwinds.
        let work: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) + Sync + '_),
                *const (dyn Fn(usize) + Sync + 'static),
            >(work)
        };
        let job = Job {
            work,
            items,
            chunk,
            shares: 2 * self.threads(),
        };
        // SAFETY: `turn` is held and the last job is closed: nobody reads this.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        let number = (shared.state.load(Ordering::Relaxed) >> NUMBER) + 1;
        shared
            .state
            .store((number << NUMBER) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.run(job);
        shared.close();
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a job, so it ends in peace.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Takes chunks until none is left. Panics are kept for the caller.
    fn run(&self, job: Job) {
        WORKING.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the job is open or this thread is counted as inside it,
            // so `share` has not returned and the closure lives.
            let work = unsafe { &*job.work };
            loop {
                // Smaller chunks towards the end, so that the threads end
                // together (guided self-scheduling, Polychronopoulos and Kuck
                // 1987). The estimate may be stale; the addition decides.
                let left = job.items.saturating_sub(self.next.load(Ordering::Relaxed));
                let chunk = job.chunk.min(left / job.shares).max(1);
                let start = self.next.fetch_add(chunk, Ordering::Relaxed);
                if start >= job.items {
                    break;
                }
                (start..(start + chunk).min(job.items)).for_each(work);
            }
        }));
        WORKING.set(false);
        if let Err(payload) = result {
            self.next.store(job.items, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Lets nobody join any more and waits for those inside.
    fn close(&self) {
        let mut inside = self.state.fetch_and(!OPEN, Ordering::AcqRel) & INSIDE;
        let mut tries = 0u32;
        while inside > 0 {
            // A worker still inside is at its last chunk, or has lost its core:
            // then give it ours.
            tries += 1;
            if tries < 4000 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
            inside = self.state.load(Ordering::Acquire) & INSIDE;
        }
    }

    /// A worker's life.
    fn serve(&self) {
        let mut last = 0;
        while let Some(state) = self.wait(last) {
            last = state >> NUMBER;
            if !self.join(state) {
                continue;
            }
            // SAFETY: joined, so `share` waits for this thread and does not
            // write; the write came before the state was opened.
            if let Some(job) = unsafe { *self.job.get() } {
                self.run(job);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Counts this thread into the job of `state`, unless that is closed.
    fn join(&self, mut state: u64) -> bool {
        let number = state >> NUMBER;
        while state & OPEN != 0 && state >> NUMBER == number {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// The state of a job other than `last`; `None` when the team ends.
    fn wait(&self, last: u64) -> Option<u64> {
        let news = || {
            let state = self.state.load(Ordering::SeqCst);
            (state >> NUMBER != last).then_some(state)
        };
        let started = Instant::now();
        let mut spins = 0u32;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(state) = news() {
                return Some(state);
            }
            spins += 1;
            if spins.is_multiple_of(64) && started.elapsed() > SPIN {
                break;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.sleep);
        // Announce first, look second; `share` writes first, looks second.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(state) = news() {
                break Some(state);
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        state
    }
}

/// A lock whose data are valid whatever happened to its last holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
