//! Work that would keep the gate's thread from all other requests.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Requests from this size on are read and searched aside, in bytes. What is
/// smaller takes less than about a millisecond.
const LONG: usize = 128 << 10;

/// Does work that grows with the `bytes` of a request. For a large one the other
/// tasks of this thread go on at another thread meanwhile.
pub(crate) fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let others = || {
        Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    if bytes >= LONG && others() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::channel;

    use super::*;

    /// With one worker, `there` can only be sent while the work waits for it if
    /// the worker's other tasks went on elsewhere.
    #[test]
    fn other_tasks_go_on_while_a_large_request_is_read() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (there, waiting) = channel();
        let large = runtime.spawn(async move {
            let other = tokio::task::spawn(async move { there.send(7).unwrap() });
            let got = aside(LONG, || waiting.recv().unwrap());
            other.await.unwrap();
            got
        });
        assert_eq!(runtime.block_on(large).unwrap(), 7);
    }

    #[test]
    fn outside_of_such_a_runtime_it_is_done_in_place() {
        assert_eq!(aside(LONG, || 1), 1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(async { aside(LONG, || 2) }), 2);
    }
}
