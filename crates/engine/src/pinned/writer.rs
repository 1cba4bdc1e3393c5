//! The one thread that writes to the folder.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use super::file::{self, Head, Unusable};
use super::shelf::{Entries, Entry, locked};
use super::{Found, MAX_PINS, PinnedOnDisk, discard, list, read_head};
use crate::model::Cache;

/// Bytes that stay free on the disk: its other users come first.
const RESERVE: u64 = 32 << 20;
/// What a file is called until it is whole.
const UNFINISHED: &str = "unfinished.tmp";

/// What the thread is asked for.
pub(super) enum Order {
    /// Keep a prompt.
    Keep(Box<Pin>),
    /// Remove a prompt's file, after all that was asked for before.
    Forget(PathBuf, Entries),
    /// End, after all that was asked for before.
    Stop,
}

/// A prompt to be kept.
pub(super) struct Pin {
    /// The model's name, for the log.
    pub(super) model: String,
    /// How the names of this model's files begin.
    pub(super) beginning: String,
    pub(super) path: PathBuf,
    pub(super) head: Head,
    pub(super) cache: Cache,
    pub(super) entries: Entries,
}

/// Why a prompt is not kept.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error("it takes {0} bytes and all may take {1} (local.pinned_on_disk)")]
    TooLarge(u64, u64),
    #[error("the disk has {0} bytes free, and it would take {1} of them")]
    DiskFull(u64, u64),
    #[error("it cannot be written: {0}")]
    Io(#[from] io::Error),
}

pub(super) struct Writer {
    folder: PathBuf,
    max_bytes: u64,
}

impl Writer {
    pub(super) fn new(options: PinnedOnDisk) -> Self {
        let PinnedOnDisk { folder, max_bytes } = options;
        Self { folder, max_bytes }
    }

    pub(super) fn run(self, orders: &Receiver<Order>) {
        self.tidy();
        loop {
            match orders.recv() {
                Ok(Order::Keep(pin)) => {
                    let model = pin.model.clone();
                    if let Err(reason) = self.keep(*pin) {
                        tracing::warn!(model, %reason, "a pinned prompt is kept in memory alone");
                    }
                }
                Ok(Order::Forget(path, entries)) => {
                    locked(&entries).retain(|entry| entry.path != path);
                    remove(&path);
                }
                Ok(Order::Stop) | Err(_) => return,
            }
        }
    }

    /// Removes what does not belong here, and what is too much.
    fn tidy(&self) {
        for found in list(&self.folder, "") {
            let name = found.path.file_name().map(|name| name.to_string_lossy());
            let name = name.unwrap_or_default();
            if name == UNFINISHED {
                // Left by a process that was killed.
                remove(&found.path);
            } else if !is_ours(&name) {
                discard(&found.path, "none", &Unusable::NotOurs);
            }
        }
        let kept = list(&self.folder, "");
        too_much(kept, self.max_bytes, 0)
            .iter()
            .for_each(|found| remove(&found.path));
    }

    fn keep(&self, pin: Pin) -> Result<(), NotKept> {
        if self.touch(&pin) {
            return Ok(());
        }
        let bytes = pin.head.file_bytes();
        if bytes > self.max_bytes {
            return Err(NotKept::TooLarge(bytes, self.max_bytes));
        }
        let victims = self.victims(&pin);
        let freed: u64 = victims.iter().map(|found| found.bytes).sum();
        let free = free_bytes(&self.folder).saturating_add(freed);
        if free < bytes.saturating_add(RESERVE) {
            return Err(NotKept::DiskFull(free, bytes));
        }
        victims.iter().for_each(|found| remove(&found.path));
        let unfinished = self.folder.join(UNFINISHED);
        let written = self.write(&unfinished, &pin);
        if written.is_err() {
            remove(&unfinished);
        }
        written?;
        let mut entries = locked(&pin.entries);
        entries.retain(|entry| entry.path.exists());
        entries.insert(0, Entry::new(pin.path, pin.head));
        Ok(())
    }

    /// What this prompt takes the place of: beginnings of it, the oldest of its
    /// model where that has as many as it may have, and the oldest of all until
    /// it fits.
    fn victims(&self, pin: &Pin) -> Vec<Found> {
        let replaced = |found: &Found| {
            found.path == pin.path
                || read_head(&found.path)
                    .is_ok_and(|head| pin.head.tokens.starts_with(&head.tokens))
        };
        let (own, others): (Vec<_>, Vec<_>) = list(&self.folder, "")
            .into_iter()
            .partition(|found| has_beginning(&found.path, &pin.beginning));
        let (mut victims, mut own): (Vec<_>, Vec<_>) = own.into_iter().partition(replaced);
        victims.extend(own.split_off(own.len().min(MAX_PINS - 1)));
        own.extend(others);
        victims.extend(too_much(own, self.max_bytes, pin.head.file_bytes()));
        victims
    }

    /// Whether the prompt is there already; it counts as pinned now.
    fn touch(&self, pin: &Pin) -> bool {
        let same = read_head(&pin.path).is_ok_and(|head| head == pin.head);
        same && File::open(&pin.path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .is_ok()
    }

    /// Whole and on the disk before it has its name.
    fn write(&self, unfinished: &Path, pin: &Pin) -> io::Result<()> {
        remove(unfinished);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(unfinished)?;
        let mut writer = BufWriter::new(&file);
        file::write(&mut writer, &pin.head, &pin.cache)?;
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        // Only advice: memory is better used than for what is in memory already.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        std::fs::rename(unfinished, &pin.path)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// The oldest of these files, as many as must go for `bytes` more to fit.
fn too_much(mut files: Vec<Found>, max_bytes: u64, bytes: u64) -> Vec<Found> {
    files.sort_by_key(|found| Reverse(found.pinned));
    let mut taken: u64 = files.iter().map(|found| found.bytes).sum();
    let mut gone = Vec::new();
    while taken.saturating_add(bytes) > max_bytes
        && let Some(oldest) = files.pop()
    {
        taken -= oldest.bytes;
        gone.push(oldest);
    }
    gone
}

fn has_beginning(path: &Path, beginning: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(beginning))
}

/// `DIGEST-HASH.kv`.
fn is_ours(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let parts = name.strip_suffix(".kv").and_then(|n| n.split_once('-'));
    parts.is_some_and(|(digest, hash)| {
        !digest.is_empty() && digest.chars().all(plain) && hash.chars().all(plain)
    })
}

fn remove(path: &Path) {
    // What is gone is gone; what stays is found again.
    let _ = std::fs::remove_file(path);
}

fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |figures| {
        figures.f_bavail.saturating_mul(figures.f_frsize)
    })
}
