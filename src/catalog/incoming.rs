//! How a file gets into the store unseen: copied and hashed in one pass, under
//! a name that nobody reads, and gone again if anything fails.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::CatalogError;

const CHUNK: usize = 1 << 20;
const COPY_PREFIX: &str = "copy-";
/// A download that nobody went on with for so long is thrown away.
const STALE_DOWNLOAD: Duration = Duration::from_secs(14 * 24 * 3600);

/// How far a long read has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A file that is on its way in. Removed when dropped before it was placed.
#[derive(Debug)]
pub(super) struct Incoming {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Incoming {
    /// A new empty file. Its lock tells [`sweep`] that somebody is still at it;
    /// to be called under the store's lock, so that no sweep comes between.
    pub(super) fn create(folder: &Path) -> Result<Incoming, CatalogError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{COPY_PREFIX}{}-{number}", std::process::id()));
        let create = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let file = create().map_err(CatalogError::io(&path, "created"))?;
        Ok(Incoming {
            path,
            file,
            placed: false,
        })
    }

    /// Fills it from another file and returns its SHA-256. Where the file
    /// system can share blocks between files, nothing is copied.
    pub(super) fn fill(
        &mut self,
        source: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(String, u64), CatalogError> {
        let mut from = File::open(source).map_err(CatalogError::io(source, "read"))?;
        let before = stamp(&from, source)?;
        let digest = if rustix::fs::ioctl_ficlone(&self.file, &from).is_ok() {
            let whole = self.file.seek(SeekFrom::Start(0));
            whole.map_err(CatalogError::io(&self.path, "read"))?;
            pass(&mut self.file, source, before.0, None, progress)?
        } else {
            let sink = Some((&mut self.file, self.path.as_path()));
            pass(&mut from, source, before.0, sink, progress)?
        };
        self.file
            .sync_all()
            .map_err(CatalogError::io(&self.path, "written"))?;
        if stamp(&from, source)? != before {
            return Err(CatalogError::Changed(source.to_owned()));
        }
        Ok((digest, before.0))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place, where it can be seen whole or not at all.
    pub(super) fn place(mut self, to: &Path) -> Result<(), CatalogError> {
        place(&self.path, to)?;
        self.placed = true;
        Ok(())
    }

    /// Writes small content and flushes it to the disk.
    pub(super) fn write_all(&mut self, content: &[u8]) -> Result<(), CatalogError> {
        self.file
            .write_all(content)
            .and_then(|()| self.file.sync_all())
            .map_err(CatalogError::io(&self.path, "written"))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.placed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Renames a whole file to its place and makes that survive a power cut. Older
/// kernels' Landlock allows no rename from folder to folder: then it is copied
/// beside its place first.
pub(super) fn place(from: &Path, to: &Path) -> Result<(), CatalogError> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let mut beside = to.as_os_str().to_owned();
            beside.push(".part");
            let copy = || {
                std::fs::copy(from, &beside)?;
                File::open(&beside)?.sync_all()?;
                std::fs::rename(&beside, to)?;
                std::fs::remove_file(from)
            };
            copy().map_err(CatalogError::io(to, "put in place"))?;
        }
        renamed => renamed.map_err(CatalogError::io(to, "put in place"))?,
    }
    sync_folder(to)
}

/// The SHA-256 and length of a file, which must not change meanwhile.
pub(super) fn hash_file(
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(String, u64), CatalogError> {
    let mut file = File::open(path).map_err(CatalogError::io(path, "read"))?;
    let before = stamp(&file, path)?;
    let digest = pass(&mut file, path, before.0, None, progress)?;
    if stamp(&file, path)? != before {
        return Err(CatalogError::Changed(path.to_owned()));
    }
    Ok((digest, before.0))
}

/// Removes copies whose maker is gone and downloads that nobody goes on with.
/// To be called under the store's lock.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let abandoned = if entry.file_name().to_string_lossy().starts_with(COPY_PREFIX) {
            File::open(&path).is_ok_and(|file| file.try_lock().is_ok())
        } else {
            let changed = entry.metadata().and_then(|meta| meta.modified());
            changed.is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age > STALE_DOWNLOAD)
            })
        };
        if abandoned {
            tracing::info!(file = %path.display(), "an abandoned file of the model store was removed");
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Makes a rename in this file's folder survive a power cut.
pub(super) fn sync_folder(of: &Path) -> Result<(), CatalogError> {
    let folder = of.parent().unwrap_or(of);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(CatalogError::io(folder, "flushed to the disk"))
}

/// When a file was last changed, in milliseconds since 1970.
pub(super) fn modified_ms(meta: &std::fs::Metadata) -> i64 {
    meta.modified()
        .ok()
        .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

fn stamp(file: &File, path: &Path) -> Result<(u64, i64), CatalogError> {
    let meta = file.metadata().map_err(CatalogError::io(path, "read"))?;
    if !meta.is_file() {
        return Err(CatalogError::Spec(format!(
            "{} is not a file: give a GGUF file",
            path.display()
        )));
    }
    Ok((meta.len(), modified_ms(&meta)))
}

fn pass(
    from: &mut File,
    source: &Path,
    total: u64,
    mut sink: Option<(&mut File, &Path)>,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, CatalogError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    progress(Progress { done, total });
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CatalogError::io(source, "read")(error)),
        };
        hasher.update(&buffer[..read]);
        if let Some((file, path)) = &mut sink {
            file.write_all(&buffer[..read])
                .map_err(CatalogError::io(path, "written"))?;
        }
        done += read as u64;
        if done > total {
            return Err(CatalogError::Changed(source.to_owned()));
        }
        progress(Progress { done, total });
    }
    Ok(hex(&hasher.finalize()))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
