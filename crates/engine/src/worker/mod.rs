//! The engine as the gate sees it: frames in, frames out.
//!
//! Plain threads: one compute thread owns every model and takes turns between
//! the answers in the making; each link has a reader and a writer, so that no
//! peer can make the compute thread wait. Models are loaded, and long prompts
//! turned into tokens, on threads of their own. What is not here: how an
//! answer is made ([`crate::generate`]).

mod answers;
mod compute;
mod guard;
mod link;
mod load;
mod memory;
mod models;
mod plan;
mod queue;
mod shares;
mod threads;
mod vectors;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use crate::model::Placement;
use compute::Compute;
use link::Input;
pub use memory::default_memory_budget;
use models::Limits;
pub(crate) use threads::set_up as use_threads;
pub use threads::usable_cores;

use crate::pinned::{PinnedOnDisk, Store};

/// How the engine runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads that compute; none means one per physical core that this
    /// process may use.
    pub threads: Option<usize>,
    /// Bytes that all models may take together; none means
    /// [`default_memory_budget`].
    pub memory_budget: Option<u64>,
    /// How long a model stays in memory that nobody uses; none means until
    /// another one needs the room.
    pub keep_alive: Option<Duration>,
    /// Where prompts that a client pinned outlive the process; none means in
    /// memory alone.
    pub pinned: Option<PinnedOnDisk>,
    /// Where the layers of models from files are computed. What lies on a
    /// graphics processor counts as memory, too.
    pub placement: Placement,
}

/// Inputs that may wait for the compute thread. Few: a frame can be large, and
/// the compute thread looks after every step.
const INPUTS: usize = 16;

/// How long the end waits for a pinned prompt that is being written: less than
/// the supervisor waits for the engine.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Answers the jobs that come over the links. Blocks; returns when `links` is
/// closed and the last link ended.
///
/// # Errors
/// When a thread cannot be started.
pub fn serve(links: Receiver<UnixStream>, options: Options) -> std::io::Result<()> {
    guard::hide_panic_messages();
    threads::set_up(options.threads);
    let (inputs, compute_inputs) = sync_channel(INPUTS);
    let from_links = inputs.clone();
    thread::Builder::new()
        .name(format!("{}-links", guard::THREADS))
        .spawn(move || {
            // Ends with the sender of `links`, or with the compute thread.
            for stream in links {
                if from_links.send(Input::Link(stream)).is_err() {
                    return;
                }
            }
            // Nobody is left to tell when this fails.
            let _ = from_links.send(Input::NoMoreLinks);
        })?;
    let limits = Limits {
        budget: options.memory_budget.unwrap_or_else(default_memory_budget),
        keep_alive: options.keep_alive,
        placement: options.placement,
    };
    let pinned = options.pinned.map(|pinned| {
        let name = format!("{}-pinned", guard::THREADS);
        Store::open(pinned, &name).map(Arc::new)
    });
    let pinned = pinned.transpose()?;
    let compute = Compute::new(inputs, compute_inputs, limits, pinned.clone());
    let ended = thread::Builder::new()
        .name(format!("{}-compute", guard::THREADS))
        .spawn(move || compute.run())?
        .join();
    if let Some(pinned) = pinned {
        pinned.finish(LAST_WRITE);
    }
    ended.map_err(|_| {
        std::io::Error::other("the engine's compute thread ended by a mistake of ours")
    })
}

#[cfg(test)]
mod tests;
