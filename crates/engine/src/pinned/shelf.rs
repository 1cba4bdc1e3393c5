//! What is kept on disk of one model.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::{self, Head, Unusable};
use super::writer::{Order, Pin};
use super::{MAX_PINS, discard, list, open, read_head};
use crate::model::{Cache, KvPool, Model};

/// Tokens that a prompt must have more in common with a file than with what is
/// in memory for the file to be read.
const WORTH_READING: usize = 32;

/// One model's pinned prompts on disk.
pub(crate) struct Shelf {
    folder: PathBuf,
    /// The model's name, for the log.
    name: String,
    /// How the names of its files begin.
    beginning: String,
    /// What computes its keys and values: the build, the weights, the layout.
    /// Another processor of the same kind of layout reads them all the same.
    identity: String,
    pool: KvPool,
    orders: SyncSender<Order>,
    entries: Entries,
}

/// The files, the one that was pinned last first. The writer adds to them.
pub(super) type Entries = Arc<Mutex<Vec<Arc<Entry>>>>;

/// A file whose head was read.
pub(crate) struct Entry {
    pub(super) path: PathBuf,
    tokens: Vec<u32>,
    kv_bytes: u64,
    /// Held while it is read, so that whoever needs it, too, waits.
    reading: Mutex<()>,
}

impl Entry {
    pub(super) fn new(path: PathBuf, head: Head) -> Arc<Self> {
        Arc::new(Self {
            path,
            kv_bytes: head.kv_bytes(),
            tokens: head.tokens,
            reading: Mutex::default(),
        })
    }

    /// The prompt.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Waits until nobody else reads it.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        locked(&self.reading)
    }
}

impl Shelf {
    /// Reads the heads of the model's files; those of no use are removed.
    pub(super) fn open(
        folder: &Path,
        name: &str,
        digest: &str,
        model: &Model,
        orders: SyncSender<Order>,
    ) -> Self {
        let pool = model.kv_pool().clone();
        let shelf = Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            beginning: format!("{digest}-"),
            identity: format!(
                "nearfar {}, {digest}, context {}, {}",
                env!("CARGO_PKG_VERSION"),
                model.context_tokens(),
                pool.layout_text()
            ),
            pool,
            orders,
            entries: Entries::default(),
        };
        let found = list(folder, &shelf.beginning);
        let mut entries = locked(&shelf.entries);
        for found in found.into_iter().take(MAX_PINS) {
            match shelf.head(&found.path) {
                Ok(head) => entries.push(Entry::new(found.path, head)),
                Err(reason) => discard(&found.path, name, &reason),
            }
        }
        drop(entries);
        shelf
    }

    fn head(&self, path: &Path) -> Result<Head, Unusable> {
        let head = read_head(path)?;
        match head.identity == self.identity && head.block_bytes == self.pool.block_bytes() {
            true => Ok(head),
            false => Err(Unusable::Foreign),
        }
    }

    /// What is to be read without being asked for: the prompts that were pinned
    /// last and that take no more than half of the room, the oldest first, so
    /// that they are pinned again in their order.
    pub(crate) fn first(&self) -> Vec<Arc<Entry>> {
        let mut room = self.pool.budget_bytes() / 2;
        let mut first: Vec<_> = locked(&self.entries)
            .iter()
            .take_while(|entry| {
                let fits = entry.kv_bytes <= room;
                room = room.saturating_sub(entry.kv_bytes);
                fits
            })
            .cloned()
            .collect();
        first.reverse();
        first
    }

    /// The file that has most in common with `tokens`, if that is worth reading
    /// where `known` of them are in memory.
    pub(crate) fn better(&self, tokens: &[u32], known: usize) -> Option<Arc<Entry>> {
        let common = |entry: &Entry| {
            let both = entry.tokens.iter().zip(tokens);
            both.take_while(|(a, b)| a == b).count()
        };
        let entries = locked(&self.entries);
        let best = entries.iter().max_by_key(|entry| common(entry))?;
        (common(best) >= known + WORTH_READING).then(|| Arc::clone(best))
    }

    /// Reads a file. `None` when it is of no use, or when there is no room now.
    pub(crate) fn read(&self, entry: &Entry) -> Option<Cache> {
        let read = || {
            let used = self.pool.used_bytes().saturating_add(entry.kv_bytes);
            if used > self.pool.budget_bytes() {
                return Err(Unusable::NoRoom);
            }
            let (file, length) = open(&entry.path)?;
            // Only advice, here and below.
            #[cfg(target_os = "linux")]
            let _ = rustix::fs::fadvise(
                &file,
                0,
                std::num::NonZero::new(length),
                rustix::fs::Advice::WillNeed,
            );
            let mut reader = BufReader::new(&file);
            let (head, hasher) = Head::read(&mut reader, length)?;
            if head.identity != self.identity || head.tokens != entry.tokens {
                return Err(Unusable::Foreign);
            }
            let cache = file::read(&mut reader, &head, hasher, &self.pool)?;
            #[cfg(target_os = "linux")]
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            Ok(cache)
        };
        match read() {
            Ok(cache) => Some(cache),
            Err(Unusable::NoRoom) => None,
            Err(reason) => {
                locked(&self.entries).retain(|other| other.path != entry.path);
                discard(&entry.path, &self.name, &reason);
                None
            }
        }
    }

    /// Removes the file of a prompt of exactly these tokens, also one that is
    /// still to be written; says whether there was one.
    pub(crate) fn forget(&self, tokens: &[u32]) -> bool {
        let path = self.path(tokens);
        let mut entries = locked(&self.entries);
        let before = entries.len();
        entries.retain(|entry| entry.path != path);
        let known = entries.len() < before;
        drop(entries);
        // Now, and again behind what waits to be written.
        let _ = std::fs::remove_file(&path);
        let order = Order::Forget(path, Arc::clone(&self.entries));
        if self.orders.try_send(order).is_err() {
            tracing::warn!(
                model = self.name,
                "a prompt that is pinned no longer may still be written; unpin it again"
            );
        }
        known
    }

    /// Where a prompt's file lies.
    fn path(&self, tokens: &[u32]) -> PathBuf {
        let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        let hash = blake3::hash(&bytes).to_hex();
        self.folder
            .join(format!("{}{}.kv", self.beginning, &hash[..32]))
    }

    /// Keeps a prompt: `cache` is the sequence of all of its tokens. Returns at
    /// once; when the disk is too slow for what is pinned, it is not kept.
    pub(crate) fn keep(&self, tokens: &[u32], cache: Cache) {
        if tokens.is_empty() || cache.len() != tokens.len() || tokens.len() > MAX_TOKENS {
            return;
        }
        let head = Head {
            identity: self.identity.clone(),
            tokens: tokens.to_vec(),
            block_bytes: self.pool.block_bytes(),
        };
        let pin = Pin {
            model: self.name.clone(),
            beginning: self.beginning.clone(),
            path: self.path(tokens),
            head,
            cache,
            entries: Arc::clone(&self.entries),
        };
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Keep(Box::new(pin))) {
            tracing::warn!(
                model = self.name,
                "prompts are pinned faster than they can be written; one is kept in memory alone"
            );
        }
    }
}

const MAX_TOKENS: usize = file::MAX_TOKENS as usize;

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that could panic leaves what is behind these locks half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
