//! Prompts that a model keeps: in memory ([`Prefixes`]), and the pinned ones on
//! disk, too ([`Shelf`]).

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::prefix::Prefixes;
use crate::model::Cache;
use crate::pinned::Shelf;

/// What a model keeps. It does not hold the weights, so that a thread that
/// reads the disk does not keep a model in memory.
#[derive(Default)]
pub(super) struct Kept {
    prefixes: Mutex<Prefixes>,
    shelf: OnceLock<Shelf>,
}

impl Kept {
    /// To be called once, before the first answer.
    pub(super) fn use_shelf(&self, shelf: Shelf) {
        // A second one would be the same folder.
        let _ = self.shelf.set(shelf);
    }

    pub(super) fn prefixes(&self) -> MutexGuard<'_, Prefixes> {
        // No code that could panic leaves the tree half-changed.
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a sequence in memory; a pinned one on disk, too.
    pub(super) fn keep(&self, tokens: &[u32], cache: &Cache, pin: bool) {
        self.prefixes().put(tokens, cache, pin);
        // A prompt that was broken off is pinned as far as it came, and not
        // worth the disk.
        if pin
            && cache.len() == tokens.len()
            && let Some(shelf) = self.shelf.get()
        {
            shelf.keep(tokens, cache.fork(tokens.len()));
        }
    }

    /// Lets go of a pinned prompt of exactly these tokens; says whether there
    /// was one.
    pub(super) fn unpin(&self, tokens: &[u32]) -> bool {
        let on_disk = self.shelf.get().is_some_and(|shelf| shelf.forget(tokens));
        self.prefixes().unpin(tokens) || on_disk
    }

    /// Reads what the disk has of a prompt and memory has not, where that saves
    /// work. Takes as long as the disk does.
    pub(super) fn bring(&self, tokens: &[u32]) {
        let Some(shelf) = self.shelf.get() else {
            return;
        };
        let known = self.prefixes().known(tokens);
        let Some(entry) = shelf.better(tokens, known) else {
            return;
        };
        let turn = entry.turn();
        // Somebody else may have read it meanwhile.
        let known = self.prefixes().known(tokens);
        if shelf.better(tokens, known).is_some()
            && let Some(cache) = shelf.read(&entry)
        {
            self.prefixes().put(entry.tokens(), &cache, true);
        }
        drop(turn);
    }
}

/// Reads a model's pinned prompts after it was loaded; ends by itself when the
/// model is dropped.
pub(crate) struct Restore(pub(super) Weak<Kept>);

impl Restore {
    /// Takes as long as the disk does.
    pub(crate) fn run(self) {
        let kept = || self.0.upgrade();
        let first = kept().and_then(|kept| kept.shelf.get().map(Shelf::first));
        for entry in first.into_iter().flatten() {
            let Some(kept) = kept() else { return };
            kept.bring(entry.tokens());
        }
    }
}

impl From<&Arc<Kept>> for Restore {
    fn from(kept: &Arc<Kept>) -> Self {
        Self(Arc::downgrade(kept))
    }
}
