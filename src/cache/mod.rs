//! Answers that are kept for a while, so that the same question need not be
//! answered twice.
//!
//! Kept answers are content. They lie in this process's memory alone, within
//! bounds of bytes, number and age, and are gone when it ends: a file would
//! outlive the request's ceiling, its tenant's key and the owner's mind. What is
//! asked is not kept at all but as a hash under a key that is drawn anew at each
//! start, so that nobody who reads this memory can try out guesses on it.
//!
//! **Never across the wall.** The hash includes the tenant, the ceiling and what
//! is done about identifiers, so an answer is served only under the ceiling that
//! it was made under: a confined request never learns what a wider one was told
//! elsewhere, and no wider one is given what a confined one was told. See
//! [`key`].
//!
//! In reading order: [`wish`] is what a request says about caching, [`key`] what
//! makes two requests the same, [`record`] turns an answer into bytes while it
//! passes and back, [`shelf`] keeps them, [`near`] finds questions that mean the
//! same, and [`flight`] lets those wait who ask what is being answered. What is
//! not here: where on the path it is asked ([`crate::road`]).

mod flight;
mod key;
mod near;
mod record;
mod shelf;
#[cfg(test)]
mod tests;
mod wish;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nearfar_domain::chat::{Chat, Params, Part, Prompt};
use nearfar_domain::privacy::Zone;

use crate::config::cache::Cache as Settings;

pub use flight::{Flight, Lead};
pub use key::{Key, Scope};
pub use near::{Near, Vector, Words};
pub use record::{About, Recorder, Tape};
pub use shelf::{Entry, Share};
pub use wish::Wish;

use flight::Flights;
use key::Secret;
use shelf::Shelf;

/// Kept answers, and what is counted about them. Takes no memory while it is off.
pub struct Cache {
    settings: Settings,
    /// Drawn at the first use; `None` inside where the system has no randomness
    /// to give: then nothing is kept.
    secret: OnceLock<Option<Secret>>,
    shelf: Mutex<Shelf>,
    flights: Arc<Flights>,
    hits: AtomicU64,
    semantic_hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
    saved_micro: AtomicU64,
}

/// What was counted since the start, and how much is kept now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that got the kept answer to the same request.
    pub hits: u64,
    /// Requests that got the kept answer to one that means the same.
    pub semantic_hits: u64,
    /// Requests whose answer was not there.
    pub misses: u64,
    /// Requests for which nobody looked.
    pub bypassed: u64,
    /// Answers that were put in.
    pub stored: u64,
    /// Answers that had to make room.
    pub evicted: u64,
    /// Answers that became too old.
    pub expired: u64,
    /// Answers that are kept now.
    pub entries: usize,
    /// Bytes that they take, with what belongs to them.
    pub bytes: usize,
    /// What the kept answers that were served had cost when they were made, as
    /// far as that is known, in micro-units.
    pub saved_micro: u64,
}

/// How the cache took part in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kept answer to the same request.
    Hit,
    /// The kept answer to one that means the same.
    Semantic,
    /// It was not there.
    Miss,
    /// Nobody looked.
    Bypass,
}

impl Outcome {
    /// The word in `x-nearfar-cache`.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Semantic => "semantic",
            Outcome::Miss => "miss",
            Outcome::Bypass => "bypass",
        }
    }
}

/// How the cache took part in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// What it did.
    pub outcome: Outcome,
    /// How old the answer is, where it was kept.
    pub age: Option<Duration>,
}

/// What the cache may do for one request.
#[derive(Clone, Copy)]
pub struct Plan {
    /// The request's hash.
    pub key: Key,
    /// Where questions lie that may mean the same; `None` where the same words
    /// alone will do.
    pub near: Option<Near>,
    exact: bool,
    look: bool,
    same_again: bool,
    max_age: Option<Duration>,
    /// How long its answer is kept.
    pub ttl: Duration,
}

impl Cache {
    /// An empty cache.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            secret: OnceLock::new(),
            shelf: Mutex::default(),
            flights: Arc::default(),
            hits: AtomicU64::new(0),
            semantic_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            bypassed: AtomicU64::new(0),
            saved_micro: AtomicU64::new(0),
        }
    }

    /// Whether anything is ever kept.
    pub fn is_on(&self) -> bool {
        self.settings.is_on()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What may be done for a request; `None` where it is not to be asked at all.
    pub fn plan(&self, scope: &Scope<'_>, feature: &str, wish: &Wish, chat: &Chat) -> Option<Plan> {
        let settings = &self.settings;
        let own = settings.features.get(feature).copied().unwrap_or_default();
        let any_wording = own.non_deterministic.unwrap_or(settings.non_deterministic);
        let allowed = settings.is_on()
            && !wish.no_store
            && (settings.confined || scope.ceiling != Zone::Device)
            && (any_wording || is_deterministic(chat))
            && !shows_the_web(chat);
        if !allowed {
            return None;
        }
        let secret = self.secret.get_or_init(Secret::draw).as_ref()?;
        let semantic = settings.semantic.as_ref();
        let semantic = semantic.filter(|s| s.features.iter().any(|name| name == feature));
        let near = semantic.and_then(|semantic| {
            let permille = own
                .threshold_permille
                .unwrap_or(semantic.threshold_permille);
            let (bucket, words) = key::bucket(secret, scope, feature, chat)?;
            Some(Near {
                bucket,
                words,
                least: f32::from(permille) / 1e3,
            })
        });
        if !settings.exact && near.is_none() {
            return None;
        }
        Some(Plan {
            key: key::exact(secret, scope, chat),
            near,
            exact: settings.exact,
            look: !wish.no_cache,
            same_again: is_deterministic(chat),
            max_age: wish.max_age_s.map(Duration::from_secs),
            ttl: own.ttl.unwrap_or(settings.ttl),
        })
    }

    /// The kept answer to the same request.
    pub fn get(&self, plan: &Plan, now: Instant) -> Option<Arc<Entry>> {
        if !plan.look || !plan.exact {
            return None;
        }
        let found = locked(&self.shelf).get(plan.key, now)?;
        plan.is_fresh(&found, now).then_some(found)
    }

    /// The kept answer to the nearest question, if that is near enough.
    pub fn get_near(&self, plan: &Plan, vector: &Vector, now: Instant) -> Option<Arc<Entry>> {
        let near = plan.near.filter(|_| plan.look)?;
        let found = locked(&self.shelf).nearest(&near, vector, now)?;
        plan.is_fresh(&found, now).then_some(found)
    }

    /// Keeps an answer, if it is not too large for one. `vector` is its
    /// question's.
    pub fn put(&self, plan: &Plan, vector: Option<Vector>, entry: Entry, now: Instant) {
        let near = plan.near.zip(vector);
        let (bytes, count) = (self.settings.max_bytes, self.settings.max_entries);
        locked(&self.shelf).put(plan.key, near, entry, now, bytes, count);
    }

    /// The most bytes that one answer may have: one must not push out all others.
    pub fn most_bytes(&self) -> usize {
        self.settings.max_bytes / 8
    }

    /// Lets one request be answered while others wait that are the same.
    pub fn fly(&self, plan: &Plan) -> Flight {
        self.flights.join(plan.key)
    }

    /// Counts how it took part in a request. `saved_micro` is what a kept answer
    /// that is served had cost.
    pub fn count(&self, outcome: Outcome, saved_micro: Option<u64>) {
        let counter = match outcome {
            Outcome::Hit => &self.hits,
            Outcome::Semantic => &self.semantic_hits,
            Outcome::Miss => &self.misses,
            Outcome::Bypass => &self.bypassed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.saved_micro
            .fetch_add(saved_micro.unwrap_or(0), Ordering::Relaxed);
    }

    /// Forgets all answers, or one tenant's; tells how many there were.
    pub fn clear(&self, tenant: Option<&str>) -> usize {
        locked(&self.shelf).clear(tenant)
    }

    /// What was counted, and how much is kept.
    pub fn stats(&self, now: Instant) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = locked(&self.shelf).stats(now);
        stats.hits = count(&self.hits);
        stats.semantic_hits = count(&self.semantic_hits);
        stats.misses = count(&self.misses);
        stats.bypassed = count(&self.bypassed);
        stats.saved_micro = count(&self.saved_micro);
        stats
    }

    /// How much is kept of each tenant, by name.
    pub fn shares(&self, now: Instant) -> Vec<Share> {
        locked(&self.shelf).shares(now)
    }
}

impl Plan {
    /// Whether a request may wait for the answer to one that is the same and is
    /// being answered: it would get the same one.
    pub fn may_wait(&self) -> bool {
        self.exact && self.look && self.same_again
    }

    fn is_fresh(&self, entry: &Entry, now: Instant) -> bool {
        let age = now.saturating_duration_since(entry.made);
        self.max_age.is_none_or(|most| age <= most)
    }
}

/// Whether another try would give the same answer: vectors, the likeliest token
/// at each step, or drawing by a seed.
fn is_deterministic(chat: &Chat) -> bool {
    let Params {
        temperature,
        top_k,
        seed,
        ..
    } = &chat.params;
    matches!(chat.prompt, Prompt::Inputs(_))
        || *temperature == Some(0.0)
        || *top_k == Some(1)
        || seed.is_some()
}

/// Whether a picture lies elsewhere, where it may be another one tomorrow.
fn shows_the_web(chat: &Chat) -> bool {
    let Prompt::Turns(turns) = &chat.prompt else {
        return false;
    };
    let mut parts = turns.iter().flat_map(|turn| &turn.content);
    parts.any(|part| matches!(part, Part::Image { url, .. } if !url.starts_with("data:")))
}

/// Each critical section leaves the shelf whole at each step, so a panic
/// elsewhere does not matter.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
