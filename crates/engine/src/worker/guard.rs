//! Mistakes of ours stay small and say nothing about content.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// All threads of the engine are named after this.
pub(super) const THREADS: &str = "engine";

/// Runs `work`; `None` when it panicked.
pub(super) fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What `work` touched is dropped by every caller when this is None.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// A panic's message can quote the text that it stumbled over, so of panics on
/// the engine's threads only the place is logged.
pub(super) fn hide_panic_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            match thread.name() {
                Some(name) if name.starts_with(THREADS) => {
                    let (file, line) = info
                        .location()
                        .map_or(("unknown", 0), |at| (at.file(), at.line()));
                    tracing::error!(thread = name, file, line, "a mistake of ours ended a job");
                }
                _ => before(info),
            }
        }));
    });
}
