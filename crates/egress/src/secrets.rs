//! Keys: read here, held here, zeroed when dropped.
//!
//! A key is seen as text in two places only: while it is read, and while it is
//! made into a header that is marked sensitive. It has no `Display`, and its
//! `Debug` is `secrecy`'s. A variable of the environment stays in the process's
//! environment, where the same user can read it: a credentials directory is
//! the better place, and the log says so.
#![allow(
    clippy::disallowed_methods,
    reason = "keys are read here and nowhere else"
)]

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::provider::KeySource;

/// Longer files are not keys.
const MAX_KEY_BYTES: u64 = 16 << 10;

/// Why there is no key. Never quotes what was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKey {
    #[error("{0} is not set")]
    Unset(String),
    #[error("cannot read {place}: {error}")]
    Unreadable {
        place: String,
        error: std::io::Error,
    },
    #[error("{0} is empty")]
    Empty(String),
    #[error("{0} is longer than {MAX_KEY_BYTES} bytes, which no key is")]
    TooLong(String),
    #[error(
        "{0} holds characters that no HTTP header may carry; a key is one line of printable ASCII"
    )]
    NotAHeader(String),
    #[error("no credentials directory is known, so {0} cannot be read")]
    NoDirectory(String),
    #[error("{0} is not a plain file name")]
    BadName(String),
}

/// One provider's key and where it came from.
pub(crate) struct Key {
    source: KeySource,
    directory: Option<PathBuf>,
    held: RwLock<Option<SecretString>>,
}

impl Key {
    /// Reads the key. A key that cannot be read is logged and left missing: the
    /// provider is then not ready, and all others work.
    pub(crate) fn read(source: &KeySource, directory: Option<&Path>, provider: &str) -> Self {
        let held = match load(source, directory) {
            Ok(key) => key,
            Err(why) => {
                tracing::warn!(provider, reason = %why, "no key for this provider");
                None
            }
        };
        if matches!(source, KeySource::Env(_)) && held.is_some() {
            tracing::warn!(
                provider,
                "the key comes from the environment, which every process of this user can read; \
                 a credentials directory is the way"
            );
        }
        Self {
            source: source.clone(),
            directory: directory.map(Path::to_owned),
            held: RwLock::new(held),
        }
    }

    /// Whether requests can be signed, or need not be.
    pub(crate) fn ready(&self) -> bool {
        matches!(self.source, KeySource::None) || self.get().is_some()
    }

    /// The key of the moment.
    pub(crate) fn get(&self) -> Option<SecretString> {
        self.held
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Where the key is looked for, for people.
    pub(crate) fn place(&self) -> String {
        self.source.describe()
    }

    /// Reads a file again: called when the provider refused the key, which may
    /// have been changed on disk. Returns whether there is another key now.
    pub(crate) fn reread(&self) -> bool {
        if matches!(self.source, KeySource::None | KeySource::Env(_)) {
            return false;
        }
        let Ok(Some(fresh)) = load(&self.source, self.directory.as_deref()) else {
            return false;
        };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let same = held
            .as_ref()
            .is_some_and(|old| old.expose_secret() == fresh.expose_secret());
        *held = Some(fresh);
        !same
    }
}

/// Reads a key from its place; `None` where none is taken.
pub(crate) fn load(
    source: &KeySource,
    directory: Option<&Path>,
) -> Result<Option<SecretString>, NoKey> {
    let Some(secret) = load_any(source, directory)? else {
        return Ok(None);
    };
    let key = secret.expose_secret();
    // A service account's key file is no header; what it is exchanged for is.
    let is_file =
        key.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(key).is_ok();
    if !is_file && !key.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(NoKey::NotAHeader(source.describe()));
    }
    Ok(Some(secret))
}

/// Reads a password, which may hold any characters, from its place.
pub(crate) fn load_any(
    source: &KeySource,
    directory: Option<&Path>,
) -> Result<Option<SecretString>, NoKey> {
    let place = source.describe();
    let text = match source {
        KeySource::None => return Ok(None),
        KeySource::Env(name) => match std::env::var(name) {
            Ok(text) => Zeroizing::new(text),
            Err(std::env::VarError::NotPresent) => return Err(NoKey::Unset(place)),
            Err(std::env::VarError::NotUnicode(_)) => return Err(NoKey::NotAHeader(place)),
        },
        KeySource::File(path) => read_file(path, &place)?,
        KeySource::Credential(name) => {
            let plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
            if !plain {
                return Err(NoKey::BadName(place));
            }
            let Some(directory) = directory else {
                return Err(NoKey::NoDirectory(place));
            };
            read_file(&directory.join(name), &place)?
        }
    };
    let key = text.trim();
    if key.is_empty() {
        return Err(NoKey::Empty(place));
    }
    Ok(Some(SecretString::from(key)))
}

fn read_file(path: &Path, place: &str) -> Result<Zeroizing<String>, NoKey> {
    let unreadable = |error| NoKey::Unreadable {
        place: place.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        // A warning and not a refusal: a device that answers with a badly kept
        // key is better than one that stops in the field.
        tracing::warn!(
            path = %path.display(),
            mode = format!("{:04o}", mode & 0o7777),
            "other users can read this key file; run: chmod 600 {}",
            path.display()
        );
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_BYTES as usize + 1));
    file.take(MAX_KEY_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_KEY_BYTES {
        return Err(NoKey::TooLong(place.to_owned()));
    }
    Ok(text)
}

/// The base URL that the environment gives for a preset that reads its key from
/// there, as the providers' own clients do.
pub(crate) fn base_url_from(
    key: &KeySource,
    environment: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let KeySource::Env(name) = key else {
        return None;
    };
    let variable = format!("{}_BASE_URL", name.strip_suffix("_API_KEY")?);
    environment(&variable)
        .map(|url| url.trim().to_owned())
        .filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key_file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_is_read_trimmed_and_never_shown() {
        let (dir, path) = key_file("sk-secret-1\n");
        let key = Key::read(&KeySource::File(path), None, "p");
        let held = key.get().unwrap();
        assert_eq!(held.expose_secret(), "sk-secret-1");
        assert!(!format!("{held:?}").contains("sk-secret"));
        assert!(key.ready());
        drop(dir);
    }

    #[test]
    fn a_credential_is_a_plain_name_in_the_directory() {
        let (dir, _path) = key_file("sk-2");
        let there = load(&KeySource::Credential("key".into()), Some(dir.path()));
        assert_eq!(there.unwrap().unwrap().expose_secret(), "sk-2");
        for name in ["../key", "", ".key", "a/b"] {
            assert!(matches!(
                load(&KeySource::Credential(name.into()), Some(dir.path())),
                Err(NoKey::BadName(_))
            ));
        }
        assert!(matches!(
            load(&KeySource::Credential("key".into()), None),
            Err(NoKey::NoDirectory(_))
        ));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        for (text, part) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("sk-secret\nsecond", "printable ASCII"),
            ("sk-sécret", "printable ASCII"),
            (&"k".repeat(20_000), "longer"),
        ] {
            let (_dir, path) = key_file(text);
            let error = load(&KeySource::File(path), None).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn a_missing_key_leaves_the_provider_unready() {
        let key = Key::read(&KeySource::File("/nonexistent/key".into()), None, "p");
        assert!(!key.ready());
        assert!(Key::read(&KeySource::None, None, "p").ready());
        let unset = load(
            &KeySource::Env("NEARFAR_TEST_NO_SUCH_VARIABLE".into()),
            None,
        );
        assert!(matches!(unset, Err(NoKey::Unset(_))));
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let (_dir, path) = key_file("old");
        let key = Key::read(&KeySource::File(path.clone()), None, "p");
        assert!(!key.reread(), "nothing changed");
        std::fs::write(&path, "new").unwrap();
        assert!(key.reread());
        assert_eq!(key.get().unwrap().expose_secret(), "new");
        std::fs::remove_file(&path).unwrap();
        assert!(!key.reread());
        assert!(key.get().is_some(), "a file that is gone takes no key away");
    }
}
