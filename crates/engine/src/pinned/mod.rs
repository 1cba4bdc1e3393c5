//! Pinned prompts on disk, so that a restart does not compute them again.
//!
//! One folder, one file per prompt ([`file`]), one thread that writes
//! ([`writer`]): off the compute thread, and whole or not at all. What a model
//! finds there when it is loaded is its shelf ([`shelf`]); keys and values are
//! read after the model is ready, or when a request needs them first. A file
//! holds the prompt's tokens and what was computed of them: it is content, and
//! is written for its owner alone.
//!
//! Which prompts are worth keeping is not decided here: [`crate::generate`]
//! brings those that a client pinned.

mod file;
mod shelf;
mod writer;

use std::cmp::Reverse;
use std::fs::{DirEntry, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use file::{Head, Unusable};
pub(crate) use shelf::Shelf;
use writer::{Order, Writer};

use crate::model::Model;

/// Prompts that may be pinned per model, in memory and on disk; the oldest one
/// gives way to a new one.
pub(crate) const MAX_PINS: usize = 8;
/// More files than this are not looked at.
const MAX_FILES: usize = 4096;
/// Prompts that may wait to be written. Each holds its keys and values.
const MAX_ORDERS: usize = MAX_PINS;

/// Where pinned prompts lie on disk, and how much they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedOnDisk {
    /// A folder for nothing else, which the process may write to.
    pub folder: PathBuf,
    /// The most that all files may take together, in bytes. 0 keeps none, and
    /// removes what an earlier run kept.
    pub max_bytes: u64,
}

/// The folder at work.
pub(crate) struct Store {
    folder: PathBuf,
    orders: SyncSender<Order>,
    /// Closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
    keeps: bool,
}

impl Store {
    /// Starts the thread that writes. It first removes what does not belong
    /// there, and the oldest files that are too much.
    pub(crate) fn open(options: PinnedOnDisk, thread_name: &str) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(MAX_ORDERS);
        let (folder, keeps) = (options.folder.clone(), options.max_bytes > 0);
        let writer = Writer::new(options);
        let (ends, ended) = sync_channel(0);
        thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || {
                writer.run(&receiver);
                drop(ends);
            })?;
        Ok(Self {
            folder,
            orders,
            ended: Mutex::new(ended),
            keeps,
        })
    }

    /// What is kept of a model whose weights have this digest. `None` where
    /// nothing is kept.
    pub(crate) fn shelf(&self, name: &str, digest: &str, model: &Model) -> Option<Shelf> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        (self.keeps && !digest.is_empty() && digest.len() <= 64 && digest.chars().all(plain))
            .then(|| Shelf::open(&self.folder, name, digest, model, self.orders.clone()))
    }

    /// Waits until what was asked for is written, and at most so long: what is
    /// half-written then is removed by the next start. Nothing is kept any more.
    pub(crate) fn finish(&self, within: Duration) {
        // Full of orders: there is more to do than there is time.
        if self.orders.try_send(Order::Stop).is_ok() {
            // An error says that the thread has ended, or that it takes too long.
            let _ = shelf::locked(&self.ended).recv_timeout(within);
        }
    }
}

/// A file of the folder.
struct Found {
    path: PathBuf,
    bytes: u64,
    /// When its prompt was last pinned.
    pinned: SystemTime,
}

/// The plain files whose names begin so, the one that was pinned last first.
fn list(folder: &Path, beginning: &str) -> Vec<Found> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Found> = entries
        .take(MAX_FILES)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .filter_map(|entry| look(&entry))
        .collect();
    found.sort_by_key(|found| Reverse(found.pinned));
    found
}

fn look(entry: &DirEntry) -> Option<Found> {
    let about = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(Found {
        path: entry.path(),
        bytes: about.len(),
        pinned: about.modified().ok()?,
    })
}

/// Opens a file for reading; no link, and nothing that an open could wait for.
fn open(path: &Path) -> Result<(File, u64), Unusable> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Unusable::NotOurs);
    }
    Ok((file, about.len()))
}

fn read_head(path: &Path) -> Result<Head, Unusable> {
    let (file, length) = open(path)?;
    Ok(Head::read(&mut io::BufReader::new(file), length)?.0)
}

/// Takes a file of no use away and says why, in one line.
fn discard(path: &Path, model: &str, reason: &Unusable) {
    if matches!(reason, Unusable::Io(error) if error.kind() == io::ErrorKind::NotFound) {
        return;
    }
    tracing::warn!(model, %reason, "a pinned prompt on disk is of no use and is removed");
    // What cannot be removed is found again at the next start.
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests;
