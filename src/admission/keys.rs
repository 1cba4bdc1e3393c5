//! Virtual keys: made, shown, changed and checked.
//!
//! Requests are checked against a view in memory, without I/O and without a
//! lock. A change is written to the disk first and then shown to requests, so
//! that what a client was told is true after a power cut; a revocation is shown
//! first, so that a full disk does not keep a key alive.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::Deserialize;

use super::identity::{DEFAULT_TENANT, Identity};
use super::token::{self, Token};
use crate::config::{Config, Tenant, is_tenant_name};
use crate::store::{Key, KeyScope, KeyStore, KeysError};

/// Keys that there may be, those that were revoked included.
const MAX_KEYS: usize = 10_000;
/// Entries that a list of a key's scope may have.
const MAX_LIST: usize = 64;
/// The longest name of a key or a feature, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// How long a token stays good after its key got another, where nobody says.
pub const DEFAULT_GRACE_MS: i64 = 24 * 3_600_000;
/// The longest that it may.
const MAX_GRACE_MS: i64 = 30 * DEFAULT_GRACE_MS;
/// Further than this no time lies (a hundred years).
const MAX_AGE_MS: i64 = 100 * 365 * 24 * 3_600_000;
/// The dialects of the fronts.
const FRONTS: [&str; 3] = ["openai", "anthropic", "ollama"];
/// How exactly the last use of a key is known.
const USE_MS: i64 = 60_000;

/// All keys of a state directory, and the tenants of the configuration.
pub struct Keys {
    store: KeyStore,
    tenants: BTreeMap<String, Tenant>,
    /// Whoever shows no key.
    nobody: Arc<Identity>,
    ring: ArcSwap<Ring>,
    /// Held while something is written.
    writing: Mutex<()>,
}

/// What requests see.
#[derive(Default)]
struct Ring(HashMap<String, Arc<Entry>>);

struct Entry {
    key: Key,
    /// `None` where the configuration does not know the tenant any more.
    identity: Option<Arc<Identity>>,
    /// When it was used last, about; 0 for never. Shared by an entry and what
    /// takes its place.
    used: Arc<AtomicI64>,
}

/// What a new key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// Who pays; the default tenant where it is not said.
    pub tenant: Option<String>,
    /// What requests are accounted to where they do not say.
    pub feature: Option<String>,
    /// Features that requests may name; any where it is not said.
    pub features: Option<Vec<String>>,
    /// Fronts that it may call; all where it is not said.
    pub fronts: Option<Vec<String>>,
    /// Patterns of targets; all where it is not said.
    pub targets: Option<Vec<String>>,
    /// Zones; all where it is not said.
    pub zones: Option<Vec<String>>,
    /// Seconds until it is refused; never where it is not said.
    pub expires_in_s: Option<u64>,
}

/// Why a key is not let in. None of them tells more to one who does not have
/// the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is none, and one is required.
    Missing,
    /// Nobody knows it.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// There are several, and they are not the same.
    Several,
    /// It is for other fronts.
    Front,
    /// The configuration does not know its tenant any more.
    NoTenant,
}

impl Denied {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Denied::Missing => "missing",
            Denied::Unknown => "unknown",
            Denied::Revoked => "revoked",
            Denied::Expired => "expired",
            Denied::Several => "several",
            Denied::Front => "front",
            Denied::NoTenant => "no_tenant",
        }
    }
}

/// Why a key could not be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    /// A field is wrong: (field, what to do).
    #[error("{0}: {1}")]
    Field(&'static str, String),
    /// Nobody knows it.
    #[error("there is no such key; `nearfar key list --all` shows those that there are")]
    NoSuchKey,
    /// Several have this name.
    #[error("several keys have this name; say which by its id: {0}")]
    SeveralKeys(String),
    /// It is not good any more, so there is nothing to change.
    #[error("the key was revoked or has expired; make another with `nearfar key create`")]
    NotGood,
    /// There are as many as there may be.
    #[error("there are {MAX_KEYS} keys, which is the limit; revoke one that is not needed")]
    TooMany,
    /// The system gives no randomness.
    #[error("the system gives no random numbers, and a key without them is none")]
    NoRandomness,
    /// The disk.
    #[error(transparent)]
    Store(#[from] KeysError),
    /// It is refused now, and that is not on the disk.
    #[error("the key is refused from now on, but would be good again after a restart: {0}")]
    NotKept(KeysError),
}

impl Keys {
    /// Reads the keys of a state directory. Blocks on the disk. Keys that
    /// cannot be read are all refused, and that is told; what needs no key goes
    /// on.
    pub fn open(config: &Config) -> Self {
        let store = KeyStore::new(&config.state_dir);
        let all = store.all().unwrap_or_else(|error| {
            tracing::error!("{error}; every key is refused until that is mended");
            Vec::new()
        });
        Self::new(store, all, config.tenants.clone())
    }

    fn new(store: KeyStore, all: Vec<Key>, tenants: BTreeMap<String, Tenant>) -> Self {
        let nobody = tenant(&tenants, DEFAULT_TENANT).unwrap_or_default();
        let entries = all.into_iter().map(|key| {
            let used = Arc::new(AtomicI64::new(key.last_used_ms.unwrap_or(0)));
            (key.id.clone(), entry(&tenants, key, used))
        });
        let ring = Ring(entries.collect());
        Self {
            store,
            tenants,
            nobody: Arc::new(nobody),
            ring: ArcSwap::from_pointee(ring),
            writing: Mutex::new(()),
        }
    }

    /// Who shows `tokens` at the front of a dialect: everything that a request
    /// has in place of a key. What does not look like ours is somebody's placeholder, and no key.
    ///
    /// # Errors
    /// Why they are not let in.
    pub fn identify<'t>(
        &self,
        tokens: impl Iterator<Item = &'t str>,
        dialect: &str,
        required: bool,
        now_ms: i64,
    ) -> Result<Arc<Identity>, Denied> {
        let mut ours = tokens.filter(|token| token.starts_with(token::PREFIX));
        let Some(first) = ours.next() else {
            return if required {
                Err(Denied::Missing)
            } else {
                Ok(Arc::clone(&self.nobody))
            };
        };
        // The same one twice is what a careful client does; two are a mistake.
        if ours.any(|other| other != first) {
            return Err(Denied::Several);
        }
        let id = token::claimed_id(first).ok_or(Denied::Unknown)?;
        let ring = self.ring.load();
        let entry = ring.0.get(&id).ok_or(Denied::Unknown)?;
        let identity = entry.check(first, now_ms)?;
        if !identity.may_speak(dialect) {
            return Err(Denied::Front);
        }
        Ok(identity)
    }

    /// Whoever shows no key.
    pub fn nobody(&self) -> &Arc<Identity> {
        &self.nobody
    }

    /// The names of the tenants that the configuration knows, and the default one.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        let missing = !self.tenants.contains_key(DEFAULT_TENANT);
        let default = missing.then_some(DEFAULT_TENANT);
        default
            .into_iter()
            .chain(self.tenants.keys().map(String::as_str))
    }

    /// All keys, oldest first.
    pub fn list(&self) -> Vec<Key> {
        let mut all: Vec<Key> = self
            .ring
            .load()
            .0
            .values()
            .map(|entry| entry.shown())
            .collect();
        all.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        all
    }

    /// The key of this id, or the only one of this name that is not revoked.
    ///
    /// # Errors
    /// There is none, or several have the name.
    pub fn find(&self, named: &str) -> Result<Key, KeyProblem> {
        let ring = self.ring.load();
        if let Some(entry) = ring.0.get(named) {
            return Ok(entry.shown());
        }
        let live = ring
            .0
            .values()
            .filter(|entry| entry.key.revoked_ms.is_none() && entry.key.name == named);
        let found: Vec<&Arc<Entry>> = live.take(MAX_LIST).collect();
        match found.as_slice() {
            [one] => Ok(one.shown()),
            [] => Err(KeyProblem::NoSuchKey),
            several => {
                let ids: Vec<&str> = several.iter().map(|entry| &*entry.key.id).collect();
                Err(KeyProblem::SeveralKeys(ids.join(", ")))
            }
        }
    }

    /// Makes a key. Blocks on the disk.
    ///
    /// # Errors
    /// A field is wrong, there are too many, or it is not on the disk.
    pub fn create(&self, new: &NewKey, now_ms: i64) -> Result<(Key, Token), KeyProblem> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let scope = scope(new)?;
        let tenant = new.tenant.as_deref().unwrap_or(DEFAULT_TENANT);
        self.check_tenant(tenant)?;
        self.make_room()?;
        let id = token::draw_id().ok_or(KeyProblem::NoRandomness)?;
        let token = Token::draw(&id).ok_or(KeyProblem::NoRandomness)?;
        let key = Key {
            name: text("name", &new.name)?,
            tenant: tenant.to_owned(),
            feature: new
                .feature
                .as_deref()
                .map(|name| text("feature", name))
                .transpose()?,
            scope,
            created_ms: now_ms,
            expires_ms: new
                .expires_in_s
                .map(|seconds| later(now_ms, seconds, MAX_AGE_MS, "expires_in_s"))
                .transpose()?,
            last_used_ms: None,
            revoked_ms: None,
            hash: token::hash(token.reveal()),
            previous: None,
            id,
        };
        if let (Some(feature), Some(allowed)) = (&key.feature, &key.scope.features)
            && !allowed.contains(feature)
        {
            let mend = "The default feature must be among the features that the key may name.";
            return Err(KeyProblem::Field("feature", mend.to_owned()));
        }
        self.store.put(&key)?;
        self.show([key.clone()]);
        Ok((key, token))
    }

    /// Refuses a key from the next request on. Answers under way go on. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// There is no such key, or the disk would bring it back.
    pub fn revoke(&self, named: &str, now_ms: i64) -> Result<Key, KeyProblem> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = self.find(named)?;
        key.revoked_ms.get_or_insert(now_ms);
        key.previous = None;
        self.show([key.clone()]);
        self.store.put(&key).map_err(KeyProblem::NotKept)?;
        Ok(key)
    }

    /// Gives a key another token; the one that it has stays good for `grace_s`
    /// seconds (a day where it is not said). Blocks on the disk.
    ///
    /// # Errors
    /// There is no such key, it is not good any more, or it is not on the disk.
    pub fn rotate(
        &self,
        named: &str,
        grace_s: Option<u64>,
        now_ms: i64,
    ) -> Result<(Key, Token), KeyProblem> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = self.find(named)?;
        if key.revoked_ms.is_some() || key.expires_ms.is_some_and(|end| end <= now_ms) {
            return Err(KeyProblem::NotGood);
        }
        let until = match grace_s {
            Some(seconds) => later(now_ms, seconds, MAX_GRACE_MS, "grace_s")?,
            None => now_ms.saturating_add(DEFAULT_GRACE_MS),
        };
        let token = Token::draw(&key.id).ok_or(KeyProblem::NoRandomness)?;
        key.previous = Some((key.hash, until));
        key.hash = token::hash(token.reveal());
        self.store.put(&key)?;
        self.show([key.clone()]);
        Ok((key, token))
    }

    /// Writes down when keys were used last, where that changed. Blocks on the
    /// disk.
    pub fn note_use(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring.load_full();
        let newer = |entry: &&Arc<Entry>| {
            entry.used.load(Ordering::Relaxed) > entry.key.last_used_ms.unwrap_or(0)
        };
        let used: Vec<Key> = ring.0.values().filter(newer).map(|e| e.shown()).collect();
        if used.is_empty() {
            return;
        }
        let times: Vec<(String, i64)> = used
            .iter()
            .filter_map(|key| Some((key.id.clone(), key.last_used_ms?)))
            .collect();
        match self.store.used(&times) {
            Ok(()) => self.show(used),
            Err(error) => tracing::warn!("{error}; when keys were used last is not written down"),
        }
    }

    /// Puts keys into the view. `writing` is held.
    fn show(&self, keys: impl IntoIterator<Item = Key>) {
        let ring = self.ring.load();
        let mut next = ring.0.clone();
        for key in keys {
            let used = match next.get(&key.id) {
                Some(entry) => Arc::clone(&entry.used),
                None => Arc::default(),
            };
            next.insert(key.id.clone(), entry(&self.tenants, key, used));
        }
        self.ring.store(Arc::new(Ring(next)));
    }

    /// Forgets the key that was revoked first, where there is no room.
    fn make_room(&self) -> Result<(), KeyProblem> {
        let ring = self.ring.load();
        if ring.0.len() < MAX_KEYS {
            return Ok(());
        }
        let revoked = ring
            .0
            .values()
            .filter(|entry| entry.key.revoked_ms.is_some());
        let oldest = revoked.min_by_key(|entry| entry.key.revoked_ms);
        let id = oldest.ok_or(KeyProblem::TooMany)?.key.id.clone();
        self.store.remove(&id)?;
        let mut next = ring.0.clone();
        next.remove(&id);
        self.ring.store(Arc::new(Ring(next)));
        Ok(())
    }

    /// A key for a tenant that nobody configured would have none of its limits.
    fn check_tenant(&self, name: &str) -> Result<(), KeyProblem> {
        if self.tenants().any(|known| known == name) {
            return Ok(());
        }
        let known: Vec<&str> = self.tenants().take(16).collect();
        let mend = if is_tenant_name(name) {
            format!(
                "There is no tenant '{name}'. Add a section [tenants.{name}] to the \
                 configuration and start again; there are: {}.",
                known.join(", ")
            )
        } else {
            "A tenant's name has 1 to 64 letters, digits, dots, dashes or underscores.".to_owned()
        };
        Err(KeyProblem::Field("tenant", mend))
    }
}

impl Entry {
    /// Nothing is told before the secret has been proved.
    fn check(&self, token: &str, now_ms: i64) -> Result<Arc<Identity>, Denied> {
        let (key, shown) = (&self.key, token::hash(token));
        let current = token::is_same(&shown, &key.hash);
        let before = key
            .previous
            .as_ref()
            .filter(|(hash, _)| token::is_same(&shown, hash));
        match before {
            _ if current => {}
            Some((_, until)) if now_ms < *until => {}
            Some(_) => return Err(Denied::Expired),
            None => return Err(Denied::Unknown),
        }
        if key.revoked_ms.is_some() {
            return Err(Denied::Revoked);
        }
        if key.expires_ms.is_some_and(|end| end <= now_ms) {
            return Err(Denied::Expired);
        }
        let identity = self.identity.as_ref().ok_or(Denied::NoTenant)?;
        let coarse = now_ms - now_ms.rem_euclid(USE_MS);
        // Most requests only read: the line is shared by all cores.
        if self.used.load(Ordering::Relaxed) < coarse {
            self.used.store(coarse, Ordering::Relaxed);
        }
        Ok(Arc::clone(identity))
    }

    /// The key with the time of its last use.
    fn shown(&self) -> Key {
        let used = self.used.load(Ordering::Relaxed);
        Key {
            last_used_ms: (used > 0).then_some(used),
            ..self.key.clone()
        }
    }
}

fn entry(tenants: &BTreeMap<String, Tenant>, key: Key, used: Arc<AtomicI64>) -> Arc<Entry> {
    let identity = tenant(tenants, &key.tenant).map(|identity| {
        let features = key.scope.features.clone().map(Arc::from);
        let identity = identity
            .with_key(Arc::from(key.id.as_str()), features)
            .at_fronts(key.scope.fronts.clone().map(Arc::from))
            .for_feature(key.feature.as_deref().map(Arc::from))
            .narrowed(key.scope.grant());
        Arc::new(identity)
    });
    Arc::new(Entry {
        key,
        identity,
        used,
    })
}

/// A tenant without a key. A name that is not configured is nobody, but for the
/// default one.
fn tenant(tenants: &BTreeMap<String, Tenant>, name: &str) -> Option<Identity> {
    let identity = Identity::tenant_of(Arc::from(name));
    match tenants.get(name) {
        Some(tenant) => Some(
            identity
                .of_tier(tenant.tier.as_deref().map(Arc::from))
                .within(tenant.privacy)
                .for_feature(tenant.feature.as_deref().map(Arc::from))
                .narrowed(tenant.grant.clone()),
        ),
        None => (name == DEFAULT_TENANT).then_some(identity),
    }
}

fn later(now_ms: i64, seconds: u64, most: i64, field: &'static str) -> Result<i64, KeyProblem> {
    let ms = i64::try_from(seconds)
        .ok()
        .and_then(|s| s.checked_mul(1_000));
    match ms {
        Some(ms) if (0..=most).contains(&ms) => Ok(now_ms.saturating_add(ms)),
        _ => {
            let mend = format!("This must be from 0 to {} seconds.", most / 1_000);
            Err(KeyProblem::Field(field, mend))
        }
    }
}

fn text(field: &'static str, said: &str) -> Result<String, KeyProblem> {
    let said = said.trim();
    if said.is_empty() || said.len() > MAX_NAME_BYTES || said.chars().any(char::is_control) {
        let mend = format!("This must be a text of 1 to {MAX_NAME_BYTES} printable characters.");
        return Err(KeyProblem::Field(field, mend));
    }
    Ok(said.to_owned())
}

fn scope(new: &NewKey) -> Result<KeyScope, KeyProblem> {
    Ok(KeyScope {
        targets: list("targets", new.targets.as_deref(), |text| {
            nearfar_domain::scope::Pattern::parse(text).map_err(|error| error.to_string())
        })?,
        zones: list("zones", new.zones.as_deref(), |text| {
            use nearfar_domain::privacy::Zone;
            match text {
                "device" => Ok(Zone::Device),
                "site" => Ok(Zone::Site),
                "cloud" => Ok(Zone::Cloud),
                _ => Err("a zone is device, site or cloud".to_owned()),
            }
        })?,
        fronts: list("fronts", new.fronts.as_deref(), |said| match FRONTS {
            fronts if fronts.contains(&said) => Ok(said.to_owned()),
            fronts => Err(format!("the fronts are {}", fronts.join(", "))),
        })?,
        features: list("features", new.features.as_deref(), |said| {
            text("features", said).map_err(|error| error.to_string())
        })?,
    })
}

/// An empty list would allow nothing: somebody made a mistake.
fn list<T>(
    field: &'static str,
    said: Option<&[String]>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, KeyProblem> {
    let Some(said) = said else { return Ok(None) };
    if said.is_empty() || said.len() > MAX_LIST {
        let mend = format!("The list must have 1 to {MAX_LIST} entries; leave it out for all.");
        return Err(KeyProblem::Field(field, mend));
    }
    let all: Result<Vec<T>, String> = said.iter().map(|text| read(text.trim())).collect();
    all.map(Some)
        .map_err(|mend| KeyProblem::Field(field, format!("{mend}.")))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
