//! The thread pool.
//!
//! A decode step is a few hundred short jobs, so a worker that waits spins for
//! a moment before it sleeps. The caller takes part. It waits only for workers
//! that have begun on the job: on a busy machine a worker that does not get a
//! core costs nothing, and the others do its share.
//!
//! Each thread begins with a run of items of its own, so that it reads one
//! stream of weights, which the processor foresees, and seldom touches what
//! another thread writes. Whoever is done takes half of what another has left,
//! from the end (Blumofe and Leiserson 1999, with ranges instead of tasks).

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
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
    /// The most items that a thread takes at once.
    chunk: u32,
}

/// Items that a thread has before it and nobody has taken: the first in the
/// upper half, the one behind the last in the lower. On cache lines of its own.
#[repr(align(128))]
struct Run(AtomicU64);

impl Run {
    fn set(&self, start: u32, end: u32) {
        self.0.store(pack(start, end), Ordering::Relaxed);
    }

    /// Takes up to `chunk` items from the front, fewer towards the end, so that
    /// something is left to be stolen.
    fn take(&self, chunk: u32) -> Option<Range<usize>> {
        let taken = self.change(|start, end| {
            let count = chunk.min((end - start) / 2).max(1);
            (start..start + count, (start + count, end))
        })?;
        Some(taken.start as usize..taken.end as usize)
    }

    /// Takes half of the items, from the end.
    fn steal(&self) -> Option<Range<u32>> {
        self.change(|start, end| {
            let middle = end - (end - start).div_ceil(2);
            (middle..end, (start, middle))
        })
    }

    /// `divide(start, end)` gives what is taken and what stays. `None` when
    /// nothing is there. The word is all there is, so a value that comes back
    /// means the same as before.
    fn change(&self, divide: impl Fn(u32, u32) -> (Range<u32>, (u32, u32))) -> Option<Range<u32>> {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let (start, end) = ((now >> 32) as u32, now as u32);
            if start >= end {
                return None;
            }
            let (taken, (start, end)) = divide(start, end);
            let left = pack(start, end);
            match self
                .0
                .compare_exchange_weak(now, left, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(taken),
                Err(other) => now = other,
            }
        }
    }
}

fn pack(start: u32, end: u32) -> u64 {
    u64::from(start) << 32 | u64::from(end)
}

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// Of the caller, then of each worker.
    runs: Box<[Run]>,
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
        let threads = threads.clamp(1, 1024);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            runs: (0..threads).map(|_| Run(AtomicU64::new(0))).collect(),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernel-{index}"))
                    .spawn(move || shared.serve(index))
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
    /// fewer towards the end, from runs of consecutive ones.
    /// Called from within a job, it runs on the calling thread alone.
    ///
    /// # Panics
    /// When `work` panics, with its payload; items not begun are dropped.
    pub(crate) fn share(&self, items: usize, chunk: usize, work: &(dyn Fn(usize) + Sync)) {
        let chunk = chunk.max(1);
        let alone = self.workers.is_empty() || items <= chunk || WORKING.get();
        let (Ok(count), false) = (u32::try_from(items), alone) else {
            (0..items).for_each(work);
            return;
        };
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
        let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
        let job = Job { work, chunk };
        // SAFETY: `turn` is held and the last job is closed: nobody reads this.
        unsafe { *shared.job.get() = Some(job) };
        let threads = self.threads() as u64;
        let cut = |index: u64| (u64::from(count) * index / threads) as u32;
        for (index, run) in (0..threads).zip(&shared.runs) {
            run.set(cut(index), cut(index + 1));
        }
        let number = (shared.state.load(Ordering::Relaxed) >> NUMBER) + 1;
        shared
            .state
            .store((number << NUMBER) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.run(job, 0);
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
    /// Works until nothing is left to take: thread `own` of the team. Panics
    /// are kept for the caller.
    fn run(&self, job: Job, own: usize) {
        WORKING.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the job is open or this thread is counted as inside it,
            // so `share` has not returned and the closure lives.
            let work = unsafe { &*job.work };
            loop {
                while let Some(items) = self.runs[own].take(job.chunk) {
                    items.for_each(work);
                }
                if !self.steal(own) {
                    break;
                }
            }
        }));
        WORKING.set(false);
        if let Err(payload) = result {
            for run in &self.runs {
                run.set(0, 0);
            }
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Fills an empty run from another's; `false` when nobody has items left.
    fn steal(&self, own: usize) -> bool {
        let others = (1..self.runs.len()).map(|step| (own + step) % self.runs.len());
        for other in others {
            if let Some(items) = self.runs[other].steal() {
                // Nobody else writes to a run that is empty.
                self.runs[own].set(items.start, items.end);
                return true;
            }
        }
        false
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
    fn serve(&self, own: usize) {
        let mut last = 0;
        while let Some(state) = self.wait(last) {
            last = state >> NUMBER;
            if !self.join(state) {
                continue;
            }
            // SAFETY: joined, so `share` waits for this thread and does not
            // write; the write came before the state was opened.
            if let Some(job) = unsafe { *self.job.get() } {
                self.run(job, own);
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
