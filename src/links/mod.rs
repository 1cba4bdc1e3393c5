//! The gate's ends of the sockets to the engine and to egress.
//!
//! In reading order: [`queue`] holds the pieces of one job that its reader has
//! not taken yet, [`jobs`] finds a job's queue by its id, [`wire`] moves frames
//! over one socket, [`seat`] is the place that a socket takes until it dies and
//! the supervisor hands over the next, and [`engine`] and [`egress`] speak the
//! two protocols.
//!
//! A link never waits for the reader of one job: each job has its own queue,
//! bounded in bytes, and a job whose reader falls behind that bound is stopped
//! with a clear failure. Small pieces of text that wait are joined, so that the
//! bound is reached by text and not by bookkeeping.
//!
//! What is not here: which leg is tried when ([`crate::execute`]), and any
//! common interface over the two links: they take different proofs.

mod egress;
mod engine;
mod jobs;
mod queue;
mod seat;
#[cfg(test)]
mod tests;
mod wire;

pub use egress::EgressLink;
pub use engine::EngineLink;
pub use jobs::JobStream;
pub use queue::Piece;

use std::sync::{Mutex, MutexGuard, PoisonError};

use nearfar_domain::events::{Failure, FailureKind};

/// What a job is told whose process went away.
pub(crate) fn lost() -> Failure {
    Failure::new(
        FailureKind::Crashed,
        "The process that was answering went away. It is being restarted; try again.",
    )
}

/// Locks, also after another thread panicked while it held the lock: every
/// critical section here leaves its data whole at each step.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
