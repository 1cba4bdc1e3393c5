//! The ledger's file: how it is opened, its tables, their migrations, and what
//! happens when it is broken.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// Migrations in order; the file's `user_version` counts those that were done.
/// Never edit one that was released: add the next.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        decision TEXT NOT NULL,
        tenant TEXT NOT NULL,
        feature TEXT NOT NULL,
        prompt_version TEXT NOT NULL,
        conversation TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        model TEXT NOT NULL,
        target TEXT NOT NULL,
        zone TEXT NOT NULL,
        ceiling TEXT NOT NULL,
        ceiling_source TEXT NOT NULL,
        reason TEXT NOT NULL,
        outcome TEXT NOT NULL,
        failure TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        prompt_tokens INTEGER,
        cached_prompt_tokens INTEGER,
        completion_tokens INTEGER,
        reasoning_tokens INTEGER,
        cost_micro INTEGER,
        ttft_ms REAL,
        duration_ms REAL NOT NULL,
        stream INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX requests_by_time ON requests (time_ms);
",
    "
    CREATE TABLE failed_legs (
        request INTEGER NOT NULL REFERENCES requests (id),
        target TEXT NOT NULL,
        zone TEXT NOT NULL,
        failure TEXT NOT NULL,
        pieces INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX failed_legs_by_request ON failed_legs (request);
",
    "
    ALTER TABLE requests ADD COLUMN saved_micro INTEGER;
",
    "
    ALTER TABLE requests ADD COLUMN key TEXT NOT NULL DEFAULT '';
",
    "
    ALTER TABLE requests ADD COLUMN cache_written_tokens INTEGER;
    ALTER TABLE requests ADD COLUMN failed_cost_micro INTEGER;
    ALTER TABLE requests ADD COLUMN baseline TEXT NOT NULL DEFAULT '';
    ALTER TABLE requests ADD COLUMN saved_local_micro INTEGER;
",
    "
    CREATE TABLE limit_use (
        name TEXT NOT NULL,
        measure TEXT NOT NULL,
        subject TEXT NOT NULL,
        start_ms INTEGER NOT NULL,
        used INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        PRIMARY KEY (name, measure, subject)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE export (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        daemon TEXT NOT NULL,
        sent INTEGER NOT NULL
    ) STRICT;
    INSERT INTO export VALUES (1, lower(hex(randomblob(16))), 0);
",
];

/// Opens the ledger for writing: creates it with mode 0600, brings it up to
/// date, and sets a corrupt one aside.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    match open_once(path) {
        Err(Opening::Corrupt(reason)) => {
            set_aside(path, &reason)?;
            open_once(path).map_err(|error| match error {
                Opening::Corrupt(reason) => StoreError::Sqlite {
                    path: path.to_owned(),
                    reason,
                },
                Opening::Failed(error) => error,
            })
        }
        Err(Opening::Failed(error)) => Err(error),
        Ok(connection) => Ok(connection),
    }
}

/// Opens the ledger for reading alone.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // The sandbox allows no files outside the state directory.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| failed(path, &error))
}

/// Whether SQLite says that the file's content is broken (not the disk, not the rights).
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// SQLite's words with the file's name.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly) => {
            StoreError::Disk { path, reason }
        }
        _ => StoreError::Sqlite { path, reason },
    }
}

/// Moves a broken ledger out of the way and says so. Its write-ahead log goes
/// with it, under the name that SQLite would look for, so that it can be mended
/// by hand. Returns the new name.
pub(super) fn set_aside(path: &Path, reason: &str) -> Result<PathBuf, StoreError> {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let aside = with_suffix(path, &format!(".corrupt-{now_ms}"));
    std::fs::rename(path, &aside).map_err(|reason| StoreError::File {
        path: path.to_owned(),
        what: "set aside",
        reason,
    })?;
    for tail in ["-wal", "-shm"] {
        match std::fs::rename(with_suffix(path, tail), with_suffix(&aside, tail)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(reason) => {
                return Err(StoreError::File {
                    path: with_suffix(path, tail),
                    what: "set aside",
                    reason,
                });
            }
        }
    }
    tracing::error!(
        ledger = %path.display(),
        aside = %aside.display(),
        reason,
        "the ledger is corrupt: it was set aside and a new one begun; usage before now is only in the old file"
    );
    Ok(aside)
}

enum Opening {
    Corrupt(String),
    Failed(StoreError),
}

fn open_once(path: &Path) -> Result<Connection, Opening> {
    make_private(path).map_err(Opening::Failed)?;
    let sort = |error: rusqlite::Error| {
        if is_corrupt(&error) {
            Opening::Corrupt(error.to_string())
        } else {
            Opening::Failed(failed(path, &error))
        }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sort)?;
    set_up(&connection).map_err(sort)?;
    let found = version(&connection).map_err(sort)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(Opening::Failed(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        }));
    }
    migrate(&mut connection).map_err(sort)?;
    probe(&connection).map_err(sort)?;
    Ok(connection)
}

/// SQLite gives its `-wal` and `-shm` files the mode of the main one.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let created = |reason: std::io::Error| match reason.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Disk {
                path: path.to_owned(),
                reason: reason.to_string(),
            }
        }
        _ => StoreError::File {
            path: path.to_owned(),
            what: "created",
            reason,
        },
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(created)?;
    let mode = file.metadata().map_err(created)?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(0o600))
            .map_err(created)?;
    }
    Ok(())
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // In WAL mode this can lose the last moments at a power cut, never the
    // file; an fsync per batch would wear out flash storage.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Two processes may open a fresh file at once: the version is read again
/// under the write lock.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    if version(connection)? == MIGRATIONS.len() as i64 {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let done = usize::try_from(version(&transaction)?).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()
}

/// Touches both ends of the table and its index. A full check would read the
/// whole file at every start; damage elsewhere shows up when it is met.
fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT max(id), count(time_ms) FROM (SELECT id, time_ms FROM requests ORDER BY id DESC LIMIT 1)", [], |_| Ok(()))?;
    connection.query_row(
        "SELECT min(time_ms) FROM requests INDEXED BY requests_by_time",
        [],
        |_| Ok(()),
    )
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
