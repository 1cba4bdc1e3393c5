//! Virtual keys on disk: `keys.sqlite`, a file of its own, so that a ledger that
//! was set aside takes no key with it. Of a key's secret there is a hash alone.
//!
//! Writes are rare and must outlive a power cut, so each is its own durable
//! transaction on its own connection, and blocks.

use std::fmt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nearfar_domain::privacy::Zone;
use nearfar_domain::scope::{Grant, Pattern};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// The keys' file inside the state directory.
pub const KEYS_FILE: &str = "keys.sqlite";

const MIGRATIONS: &[&str] = &["
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        tenant TEXT NOT NULL,
        feature TEXT,
        scope TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        last_used_ms INTEGER,
        revoked_ms INTEGER,
        hash BLOB NOT NULL,
        previous_hash BLOB,
        previous_until_ms INTEGER
    ) STRICT;
"];

/// The hash of a token. Not secret by itself, and of no interest to anybody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// One virtual key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `key_…`: what it is called everywhere but in requests.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Who pays.
    pub tenant: String,
    /// What its requests are accounted to where they do not say.
    pub feature: Option<String>,
    /// What it may be used for.
    pub scope: KeyScope,
    /// In milliseconds since 1970, as all times here.
    pub created_ms: i64,
    /// From when on it is refused.
    pub expires_ms: Option<i64>,
    /// About when it was used last.
    pub last_used_ms: Option<i64>,
    /// Since when it is refused.
    pub revoked_ms: Option<i64>,
    /// Of its token.
    pub hash: TokenHash,
    /// Of the token before the last rotation, and until when that is good, too.
    pub previous: Option<(TokenHash, i64)>,
}

/// What a key may be used for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyScope {
    /// Targets that one of these covers; `None` for all.
    pub targets: Option<Vec<Pattern>>,
    /// Targets of these zones; `None` for all.
    pub zones: Option<Vec<Zone>>,
    /// Features that its requests may name; `None` for any.
    pub features: Option<Vec<String>>,
    /// Fronts that it may call, by their dialects; `None` for all.
    #[serde(default)]
    pub fronts: Option<Vec<String>>,
}

impl KeyScope {
    /// What it says of targets.
    pub fn grant(&self) -> Grant {
        Grant {
            targets: self.targets.clone(),
            zones: self.zones.clone(),
        }
    }
}

/// Why the keys could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the keys in {path} could not be {what}: {reason}")]
pub struct KeysError {
    path: PathBuf,
    what: &'static str,
    reason: String,
}

/// The file. Holds nothing open.
#[derive(Clone, Debug)]
pub struct KeyStore {
    path: PathBuf,
}

impl KeyStore {
    /// The keys of a state directory. No I/O.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(KEYS_FILE),
        }
    }

    /// All keys, oldest first. There is no file before the first key.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn all(&self) -> Result<Vec<Key>, KeysError> {
        match self.path.try_exists() {
            Ok(false) => return Ok(Vec::new()),
            Ok(true) => {}
            Err(error) => return Err(self.failed("read", &error)),
        }
        let read = || -> Result<Vec<Key>, String> {
            let connection = self.open()?;
            let mut query = connection
                .prepare(
                    "SELECT id, name, tenant, feature, scope, created_ms, expires_ms,
                        last_used_ms, revoked_ms, hash, previous_hash, previous_until_ms
                     FROM keys ORDER BY created_ms, id",
                )
                .map_err(|error| error.to_string())?;
            let rows = query
                .query_map([], from_row)
                .map_err(|error| error.to_string())?;
            rows.map(|row| row.map_err(|error| error.to_string()))
                .collect()
        };
        read().map_err(|reason| self.failed("read", &reason))
    }

    /// Writes a key, new or changed.
    ///
    /// # Errors
    /// It is not on the disk.
    pub fn put(&self, key: &Key) -> Result<(), KeysError> {
        // A scope of ours always is JSON.
        let scope = serde_json::to_string(&key.scope).unwrap_or_default();
        let (previous_hash, previous_until) = match &key.previous {
            Some((hash, until)) => (Some(&hash.0[..]), Some(*until)),
            None => (None, None),
        };
        self.write(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO keys (id, name, tenant, feature, scope, created_ms,
                    expires_ms, last_used_ms, revoked_ms, hash, previous_hash, previous_until_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    key.id,
                    key.name,
                    key.tenant,
                    key.feature,
                    scope,
                    key.created_ms,
                    key.expires_ms,
                    key.last_used_ms,
                    key.revoked_ms,
                    &key.hash.0[..],
                    previous_hash,
                    previous_until,
                ],
            )
        })
    }

    /// Forgets a key.
    ///
    /// # Errors
    /// It is still on the disk.
    pub fn remove(&self, id: &str) -> Result<(), KeysError> {
        self.write(|connection| connection.execute("DELETE FROM keys WHERE id = ?1", [id]))
    }

    /// Notes when keys were used last: (id, time).
    ///
    /// # Errors
    /// It is not on the disk.
    pub fn used(&self, times: &[(String, i64)]) -> Result<(), KeysError> {
        self.write(|connection| {
            let transaction = connection.transaction()?;
            for (id, time) in times {
                let update = "UPDATE keys SET last_used_ms = ?2 WHERE id = ?1";
                transaction.execute(update, params![id, time])?;
            }
            transaction.commit().map(|()| times.len())
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Connection) -> rusqlite::Result<usize>,
    ) -> Result<(), KeysError> {
        let mut connection = self
            .open()
            .map_err(|reason| self.failed("opened", &reason))?;
        match change(&mut connection) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("written", &error)),
        }
    }

    /// Opens the file, which is made where it is missing, for this user alone.
    fn open(&self) -> Result<Connection, String> {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .map_err(|error| error.to_string())?;
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open(&self.path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            // The sandbox allows no files outside the state directory.
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            let version =
                connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
            Ok((connection, version))
        };
        let (mut connection, found) = open().map_err(|error| error.to_string())?;
        let known = MIGRATIONS.len() as i64;
        if found > known {
            return Err(format!(
                "a newer nearfar wrote it (schema {found}, this one knows up to {known})"
            ));
        }
        if found < known {
            migrate(&mut connection).map_err(|error| error.to_string())?;
        }
        Ok(connection)
    }

    fn failed(&self, what: &'static str, reason: &dyn fmt::Display) -> KeysError {
        KeysError {
            path: self.path.clone(),
            what,
            reason: reason.to_string(),
        }
    }
}

/// The version is read again under the write lock: two processes may be here.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let behaviour = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behaviour)?;
    let done = transaction
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .optional()?;
    let done = usize::try_from(done.unwrap_or(0)).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Key> {
    let wrong = |place: usize, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(place, rusqlite::types::Type::Text, error)
    };
    let scope: String = row.get(4)?;
    // A scope that cannot be read must not turn into an open one.
    let scope = serde_json::from_str(&scope).map_err(|error| wrong(4, error.into()))?;
    let previous: Option<[u8; 32]> = row.get(10)?;
    let until: Option<i64> = row.get(11)?;
    Ok(Key {
        id: row.get(0)?,
        name: row.get(1)?,
        tenant: row.get(2)?,
        feature: row.get(3)?,
        scope,
        created_ms: row.get(5)?,
        expires_ms: row.get(6)?,
        last_used_ms: row.get(7)?,
        revoked_ms: row.get(8)?,
        hash: TokenHash(row.get(9)?),
        previous: previous.map(TokenHash).zip(until),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(id: &str) -> Key {
        Key {
            id: id.into(),
            name: "kiosk".into(),
            tenant: "acme".into(),
            feature: Some("voice".into()),
            scope: KeyScope {
                targets: Some(vec![Pattern::parse("local/*").unwrap()]),
                zones: Some(vec![Zone::Device, Zone::Site]),
                features: Some(vec!["voice".into()]),
                fronts: Some(vec!["ollama".into()]),
            },
            created_ms: 5,
            expires_ms: Some(i64::MAX),
            last_used_ms: None,
            revoked_ms: None,
            hash: TokenHash([7; 32]),
            previous: Some((TokenHash([8; 32]), 9)),
        }
    }

    #[test]
    fn keys_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path());
        assert_eq!(store.all().unwrap(), []);
        assert!(!dir.path().join(KEYS_FILE).exists(), "asking makes no file");
        store.put(&key("key_a")).unwrap();
        let plain = Key {
            feature: None,
            scope: KeyScope::default(),
            expires_ms: None,
            previous: None,
            created_ms: 6,
            ..key("key_b")
        };
        store.put(&plain).unwrap();
        assert_eq!(store.all().unwrap(), [key("key_a"), plain.clone()]);
        let revoked = Key {
            revoked_ms: Some(10),
            ..plain
        };
        store.put(&revoked).unwrap();
        store.used(&[("key_a".into(), 60_000)]).unwrap();
        let all = KeyStore::new(dir.path()).all().unwrap();
        assert_eq!(all[0].last_used_ms, Some(60_000));
        assert_eq!(all[1], revoked);
        store.remove("key_a").unwrap();
        assert_eq!(store.all().unwrap(), [revoked]);
        let mode = dir.path().join(KEYS_FILE).metadata().unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_scope_that_cannot_be_read_is_an_error_and_no_open_scope() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path());
        store.put(&key("key_a")).unwrap();
        let connection = Connection::open(dir.path().join(KEYS_FILE)).unwrap();
        for broken in ["{", "{\"targets\": 3}", "{\"zones\": [\"moon\"]}"] {
            connection
                .execute("UPDATE keys SET scope = ?1", [broken])
                .unwrap();
            assert!(store.all().is_err(), "{broken}");
        }
    }

    #[test]
    fn a_broken_or_newer_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path());
        std::fs::write(
            dir.path().join(KEYS_FILE),
            "no database at all, not one bit",
        )
        .unwrap();
        let error = store.all().unwrap_err().to_string();
        assert!(error.contains(KEYS_FILE), "{error}");
        assert!(store.put(&key("key_a")).is_err());
        std::fs::remove_file(dir.path().join(KEYS_FILE)).unwrap();
        store.put(&key("key_a")).unwrap();
        let connection = Connection::open(dir.path().join(KEYS_FILE)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = store.all().unwrap_err().to_string();
        assert!(error.contains("newer nearfar"), "{error}");
    }
}
