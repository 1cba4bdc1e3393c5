//! The state directory: its folders, its lock, and the sockets in it.
#![allow(
    clippy::disallowed_methods,
    reason = "the supervisor opens all listeners"
)]

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Longest path that a unix socket's address holds, less the closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// Why the state directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Cannot be made or entered.
    #[error("cannot use the state directory {}: {source}", path.display())]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "another nearfar serves from {}: stop it, or give this one its own --state-dir",
        .0.display()
    )]
    Taken(PathBuf),
    /// The socket's address would not fit.
    #[error(
        "the socket path {} is {} bytes long and may have {MAX_SOCKET_PATH}: choose a shorter --state-dir",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// Something that is not a socket lies where ours is to be.
    #[error("{} is not a socket: move it away", .0.display())]
    NotASocket(PathBuf),
}

/// A state directory that is ours alone as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked; closing it gives the lock up. Children do not inherit it.
    _lock: File,
}

impl StateDir {
    /// Makes the folders that are missing (mode 0700) and takes the lock.
    ///
    /// # Errors
    /// [`StateDirError::Unusable`], [`StateDirError::Taken`].
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let unusable = |path: &Path, source| StateDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|e| unusable(path, e))?;
        let path = path.canonicalize().map_err(|e| unusable(path, e))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o700))
            .map_err(|e| unusable(&path, e))?;
        // A process may only be let into folders that are there already.
        for folder in [
            "models/blobs",
            "models/manifests",
            "models/incoming",
            super::sandbox::places::PINNED,
        ] {
            let folder = path.join(folder);
            builder.create(&folder).map_err(|e| unusable(&folder, e))?;
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| unusable(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateDirError::Taken(path)),
            Err(std::fs::TryLockError::Error(e)) => Err(unusable(&lock_path, e)),
        }
    }

    /// Absolute, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listening socket for this user alone. One that an earlier daemon left
    /// is replaced: the lock says that nobody serves it.
    ///
    /// # Errors
    /// All of [`StateDirError`] but `Taken`.
    pub fn listen(&self, name: &str) -> Result<UnixListener, StateDirError> {
        let path = self.path.join(name);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(StateDirError::TooLong(path));
        }
        let unusable = |source| StateDirError::Unusable {
            path: path.clone(),
            source,
        };
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                std::fs::remove_file(&path).map_err(unusable)?;
            }
            Ok(_) => return Err(StateDirError::NotASocket(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unusable(e)),
        }
        let listener = UnixListener::bind(&path).map_err(unusable)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(unusable)?;
        listener.set_nonblocking(true).map_err(unusable)?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_one_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(
            StateDir::open(&path),
            Err(StateDirError::Taken(_))
        ));
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn stale_sockets_are_replaced_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        drop(state.listen("s.sock").unwrap());
        state.listen("s.sock").unwrap();
        let mode = folder.path().join("s.sock").metadata().unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        std::fs::write(folder.path().join("file"), "precious").unwrap();
        assert!(matches!(
            state.listen("file"),
            Err(StateDirError::NotASocket(_))
        ));
    }

    #[test]
    fn a_long_path_is_refused_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("x".repeat(100))).unwrap();
        let error = state.listen("nearfar.sock").unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
