//! The unfinished file: `NAME.part`, with `NAME.part.version` beside it that
//! says which version of the remote file it is a part of.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::Trouble;

/// Longer version marks are not kept, in bytes.
const MAX_VERSION: u64 = 1_024;
/// Bytes that are gathered into one write to the disk.
const WRITE_BYTES: usize = 1 << 20;

/// A file under way. Its digest is that of the bytes written so far.
pub(super) struct Part {
    path: PathBuf,
    mark: PathBuf,
    name: PathBuf,
    file: BufWriter<File>,
    length: u64,
    hash: Sha256,
    version: Option<String>,
    resumed: bool,
}

impl Part {
    /// Opens what an earlier try left, and hashes it; or begins anew.
    pub(super) async fn open(folder: PathBuf, save_as: &str) -> Result<Self, Trouble> {
        let beside = |end: &str| folder.join(format!("{save_as}{end}"));
        let (path, mark, name) = (beside(".part"), beside(".part.version"), beside(""));
        let version = read_mark(&mark);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .await
            .map_err(|error| disk(&path, &error))?;
        let hashed = path.clone();
        let (hash, length) = tokio::task::spawn_blocking(move || hash_file(&hashed))
            .await
            .map_err(|error| Trouble::fatal(error.to_string()))?
            .map_err(|error| disk(&path, &error))?;
        Ok(Self {
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            resumed: length > 0,
            path,
            mark,
            name,
            length,
            hash,
            version,
        })
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Whether an earlier try wrote some of it.
    pub(super) fn resumed(&self) -> bool {
        self.resumed
    }

    /// The version that it is a part of, where that is known.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Notes the version, so that another try knows what it goes on with.
    pub(super) async fn remember(&mut self, version: &Option<String>) -> Result<(), Trouble> {
        if self.version == *version {
            return Ok(());
        }
        self.version.clone_from(version);
        let text = version.as_deref().unwrap_or_default();
        tokio::fs::write(&self.mark, text)
            .await
            .map_err(|error| disk(&self.mark, &error))
    }

    /// Appends bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        let written = self.file.write_all(bytes).await;
        written.map_err(|error| disk(&self.path, &error))
    }

    /// Brings everything to the file.
    pub(super) async fn flush(&mut self) -> Result<(), Trouble> {
        let flushed = self.file.flush().await;
        flushed.map_err(|error| disk(&self.path, &error))
    }

    /// Throws away what is there and begins anew.
    pub(super) async fn reset(&mut self) -> Result<(), Trouble> {
        self.flush().await?;
        let cut = self.file.get_ref().set_len(0).await;
        cut.map_err(|error| disk(&self.path, &error))?;
        self.length = 0;
        self.hash = Sha256::new();
        self.resumed = false;
        Ok(())
    }

    /// SHA-256 of everything, in hexadecimal.
    pub(super) fn digest(&self) -> String {
        let digest = self.hash.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Deletes it. A file that stays behind is found wrong again next time.
    pub(super) async fn discard(&mut self) {
        let _ = tokio::fs::remove_file(&self.path).await;
        let _ = tokio::fs::remove_file(&self.mark).await;
    }

    /// Makes it durable and gives it its name.
    pub(super) async fn publish(&mut self) -> Result<(), Trouble> {
        self.flush().await?;
        let synced = self.file.get_ref().sync_all().await;
        synced.map_err(|error| disk(&self.path, &error))?;
        let renamed = tokio::fs::rename(&self.path, &self.name).await;
        renamed.map_err(|error| disk(&self.name, &error))?;
        let _ = tokio::fs::remove_file(&self.mark).await;
        // The name itself is durable once its folder is.
        if let Some(folder) = self.name.parent()
            && let Ok(folder) = File::open(folder).await
        {
            let synced = folder.sync_all().await;
            synced.map_err(|error| disk(&self.name, &error))?;
        }
        Ok(())
    }
}

fn read_mark(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_VERSION).read_to_string(&mut text).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

fn hash_file(path: &Path) -> std::io::Result<(Sha256, u64)> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; WRITE_BYTES];
    let mut length = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hash, length));
        }
        hash.update(&buffer[..count]);
        length += count as u64;
    }
}

/// An error of the disk, for people.
fn disk(path: &Path, error: &std::io::Error) -> Trouble {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Trouble::later(format!(
            "the disk is full while writing {path}: free some space and try again; what was \
             fetched stays"
        )),
        _ => Trouble::fatal(format!("cannot write {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn open(folder: &Path) -> Part {
        Part::open(folder.to_owned(), "m.gguf").await.ok().unwrap()
    }

    #[tokio::test]
    async fn a_part_is_taken_up_where_it_ended_and_named_when_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut part = open(folder.path()).await;
        part.remember(&Some("v1".into())).await.ok().unwrap();
        part.write(b"hello ").await.ok().unwrap();
        part.flush().await.ok().unwrap();
        drop(part);

        let mut part = open(folder.path()).await;
        assert_eq!((part.len(), part.version()), (6, Some("v1")));
        part.write(b"world").await.ok().unwrap();
        assert!(!folder.path().join("m.gguf").exists());
        // sha256sum of "hello world"
        assert_eq!(
            part.digest(),
            "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
        );
        part.publish().await.ok().unwrap();
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["m.gguf"]);
        assert_eq!(
            std::fs::read(folder.path().join("m.gguf")).unwrap(),
            b"hello world"
        );
    }

    #[tokio::test]
    async fn a_reset_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut part = open(folder.path()).await;
        part.write(b"wrong").await.ok().unwrap();
        part.reset().await.ok().unwrap();
        part.write(b"hello world").await.ok().unwrap();
        part.flush().await.ok().unwrap();
        assert!(part.digest().starts_with("b94d27b9"));
        let on_disk = std::fs::read(folder.path().join("m.gguf.part")).unwrap();
        assert_eq!(on_disk, b"hello world");
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let error = std::io::Error::from(ErrorKind::StorageFull);
        let Trouble::Fatal { message, retryable } = disk(Path::new("/x"), &error) else {
            panic!("not a fatal trouble");
        };
        assert!(message.contains("disk is full") && retryable);
    }
}
