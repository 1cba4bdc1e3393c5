//! Where kept answers lie: within bounds of bytes, number and age, the longest
//! unused first to go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;

use super::Stats;
use super::key::Key;
use super::near::{Near, Vector, Words};
use super::record::Tape;

/// What an answer takes beside its events: the maps' places, ids, counters.
const OVERHEAD: usize = 384;
/// Questions that are looked through for one that means the same; beyond it the
/// oldest go.
const MAX_BUCKET: usize = 1_024;
/// How often answers are looked for that are too old and that nobody asks for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// One kept answer.
pub struct Entry {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The ceiling that it was made under.
    pub ceiling: Zone,
    /// Who answered.
    pub target: TargetId,
    /// Where.
    pub zone: Zone,
    /// The digest of the local model that answered; empty for others.
    pub weights: String,
    /// What it cost then, where that is known.
    pub cost_micro: Option<u64>,
    /// Its events.
    pub tape: Tape,
    /// When it was whole.
    pub made: Instant,
    /// From when on it is not served.
    pub expires: Instant,
}

impl Entry {
    fn bytes(&self) -> usize {
        let names = self.target.place().len() + self.target.model().len() + self.weights.len();
        OVERHEAD + self.tape.len() + self.tenant.len() + names
    }
}

/// How much is kept of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub tenant: String,
    /// How many answers.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
}

struct Held {
    entry: Arc<Entry>,
    tick: u64,
    bytes: usize,
    bucket: Option<Key>,
}

/// A question whose answer is kept.
struct Question {
    key: Key,
    vector: Vector,
    words: Words,
}

#[derive(Default)]
pub(super) struct Shelf {
    held: HashMap<Key, Held>,
    /// Keys in the order of their last use.
    order: BTreeMap<u64, Key>,
    buckets: HashMap<Key, Vec<Question>>,
    ticks: u64,
    bytes: usize,
    swept: Option<Instant>,
    stored: u64,
    evicted: u64,
    expired: u64,
}

impl Shelf {
    pub(super) fn get(&mut self, key: Key, now: Instant) -> Option<Arc<Entry>> {
        self.sweep(now);
        if self.held.get(&key)?.entry.expires <= now {
            self.expired += 1;
            self.remove(key);
            return None;
        }
        self.ticks += 1;
        let held = self.held.get_mut(&key)?;
        self.order.remove(&held.tick);
        held.tick = self.ticks;
        self.order.insert(held.tick, key);
        Some(Arc::clone(&held.entry))
    }

    /// The answer to the nearest question, where it is near enough.
    pub(super) fn nearest(
        &mut self,
        near: &Near,
        vector: &Vector,
        now: Instant,
    ) -> Option<Arc<Entry>> {
        self.sweep(now);
        let questions = self.buckets.get(&near.bucket)?.iter();
        let straight = questions.filter(|other| !near.words.are_turned(other.words));
        let cosines = straight.map(|other| (vector.cosine(&other.vector), other.key));
        let (cosine, key) = cosines.max_by(|a, b| a.0.total_cmp(&b.0))?;
        if cosine < near.least {
            return None;
        }
        self.get(key, now)
    }

    pub(super) fn put(
        &mut self,
        key: Key,
        near: Option<(Near, Vector)>,
        entry: Entry,
        now: Instant,
        max_bytes: usize,
        max_entries: usize,
    ) {
        self.sweep(now);
        self.remove(key);
        let vector = near.as_ref().map_or(0, |(_, vector)| vector.bytes());
        let bytes = entry.bytes() + vector;
        if bytes > max_bytes {
            return;
        }
        let bucket = near.as_ref().map(|(near, _)| near.bucket);
        if let Some((near, vector)) = near {
            let questions = self.buckets.entry(near.bucket).or_default();
            let words = near.words;
            questions.push(Question { key, vector, words });
            if questions.len() > MAX_BUCKET {
                let oldest = questions[0].key;
                self.evicted += 1;
                self.remove(oldest);
            }
        }
        self.ticks += 1;
        self.order.insert(self.ticks, key);
        self.bytes += bytes;
        self.stored += 1;
        let held = Held {
            entry: Arc::new(entry),
            tick: self.ticks,
            bytes,
            bucket,
        };
        self.held.insert(key, held);
        while self.bytes > max_bytes || self.held.len() > max_entries {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            self.evicted += 1;
            self.remove(*oldest);
        }
    }

    pub(super) fn clear(&mut self, tenant: Option<&str>) -> usize {
        let before = self.held.len();
        match tenant {
            None => {
                // Also the room that the maps have grown to.
                self.held = HashMap::new();
                self.order = BTreeMap::new();
                self.buckets = HashMap::new();
                self.bytes = 0;
            }
            Some(tenant) => self.remove_all(|entry| &*entry.tenant == tenant),
        }
        before - self.held.len()
    }

    pub(super) fn stats(&mut self, now: Instant) -> Stats {
        self.expire(now);
        Stats {
            stored: self.stored,
            evicted: self.evicted,
            expired: self.expired,
            entries: self.held.len(),
            bytes: self.bytes,
            ..Stats::default()
        }
    }

    pub(super) fn shares(&mut self, now: Instant) -> Vec<Share> {
        self.expire(now);
        let mut shares: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for held in self.held.values() {
            let share = shares.entry(&held.entry.tenant).or_default();
            share.0 += 1;
            share.1 += held.bytes;
        }
        let share = |(tenant, (entries, bytes)): (&str, (usize, usize))| Share {
            tenant: tenant.to_owned(),
            entries,
            bytes,
        };
        shares.into_iter().map(share).collect()
    }

    fn sweep(&mut self, now: Instant) {
        let since = self.swept.map(|swept| now.saturating_duration_since(swept));
        if since.is_none_or(|since| since >= SWEEP_EVERY) {
            self.expire(now);
        }
    }

    fn expire(&mut self, now: Instant) {
        self.swept = Some(now);
        let before = self.held.len();
        self.remove_all(|entry| entry.expires <= now);
        self.expired += (before - self.held.len()) as u64;
    }

    fn remove_all(&mut self, is_meant: impl Fn(&Entry) -> bool) {
        let meant = self.held.iter().filter(|(_, held)| is_meant(&held.entry));
        let keys: Vec<Key> = meant.map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(held) = self.held.remove(&key) else {
            return;
        };
        self.order.remove(&held.tick);
        self.bytes -= held.bytes;
        if let Some(bucket) = held.bucket
            && let Some(questions) = self.buckets.get_mut(&bucket)
        {
            questions.retain(|other| other.key != key);
            if questions.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
    }
}
