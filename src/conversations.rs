//! Answers that are kept for a while, so that the next request can go on from
//! one by naming it (`previous_response_id`).
//!
//! Conversations are content. They are kept in this process's memory alone and
//! are gone when it ends; they take a bounded number of bytes and are dropped
//! when nobody used them for a while. Each belongs to a tenant and remembers how
//! far it was allowed to go: what once had to stay on the device stays there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nearfar_domain::privacy::Zone;
use tokio::sync::oneshot;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all turns together.
    pub bytes: usize,
    /// Since a turn was last used.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            age: Duration::from_secs(3_600),
        }
    }
}

/// Turns that one chain may have.
const MAX_CHAIN: usize = 1_024;
/// What a turn takes beside its text.
const OVERHEAD: usize = 256;

/// One request and its answer.
pub struct Turn {
    /// Whose it is.
    pub tenant: String,
    /// The farthest zone that it was allowed to reach.
    pub ceiling: Zone,
    /// Whether its request asked that identifiers be replaced before it leaves.
    pub redact: bool,
    /// The turn that it goes on from.
    pub previous: Option<String>,
    /// What was asked: a JSON array of items.
    pub input: String,
    /// What was answered: a response as JSON.
    pub response: String,
}

impl Turn {
    fn bytes(&self) -> usize {
        OVERHEAD + self.input.len() + self.response.len() + self.tenant.len()
    }
}

/// The turns that are kept, and the answers that can be stopped.
#[derive(Default)]
pub struct Conversations {
    limits: Limits,
    kept: Mutex<Kept>,
    running: Mutex<HashMap<String, (String, oneshot::Sender<()>)>>,
}

#[derive(Default)]
struct Kept {
    turns: HashMap<String, Entry>,
    /// Ids in the order of their last use.
    order: BTreeMap<u64, String>,
    ticks: u64,
    bytes: usize,
}

struct Entry {
    turn: Arc<Turn>,
    tick: u64,
    used: Instant,
}

/// An answer under way that its id can stop. Dropped when the answer ends.
pub struct Running {
    conversations: Arc<Conversations>,
    id: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        locked(&self.conversations.running).remove(&self.id);
    }
}

impl Conversations {
    /// Keeps nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Keeps a turn, and tells whether it fitted.
    pub fn keep(&self, id: &str, turn: Turn, now: Instant) -> bool {
        let bytes = turn.bytes();
        // One turn must not push out everything else.
        if self.limits.age.is_zero() || bytes > self.limits.bytes / 2 {
            return false;
        }
        let mut kept = locked(&self.kept);
        kept.remove(id);
        let entry = Entry {
            turn: Arc::new(turn),
            tick: 0,
            used: now,
        };
        kept.bytes += bytes;
        kept.turns.insert(id.to_owned(), entry);
        kept.touch(id, now);
        kept.expire(now, self.limits);
        true
    }

    /// A turn of this tenant.
    pub fn find(&self, tenant: &str, id: &str, now: Instant) -> Option<Arc<Turn>> {
        let mut kept = locked(&self.kept);
        kept.expire(now, self.limits);
        kept.find(tenant, id)
    }

    /// A turn and all before it, oldest first; `None` where one of them is no
    /// longer kept. Using them keeps them longer.
    pub fn chain(&self, tenant: &str, id: &str, now: Instant) -> Option<Vec<Arc<Turn>>> {
        let mut kept = locked(&self.kept);
        kept.expire(now, self.limits);
        let mut chain = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            if chain.len() == MAX_CHAIN {
                return None;
            }
            let turn = kept.find(tenant, &id)?;
            kept.touch(&id, now);
            next = turn.previous.clone();
            chain.push(turn);
        }
        chain.reverse();
        Some(chain)
    }

    /// Forgets a turn, and tells whether there was one.
    pub fn forget(&self, tenant: &str, id: &str) -> bool {
        let mut kept = locked(&self.kept);
        kept.find(tenant, id).is_some() && kept.remove(id)
    }

    /// Lets an answer be stopped by its id. What is returned is told of it.
    pub fn run(self: &Arc<Self>, tenant: &str, id: &str) -> (Running, oneshot::Receiver<()>) {
        let (stop, stopped) = oneshot::channel();
        let entry = (tenant.to_owned(), stop);
        locked(&self.running).insert(id.to_owned(), entry);
        let running = Running {
            conversations: Arc::clone(self),
            id: id.to_owned(),
        };
        (running, stopped)
    }

    /// Stops an answer of this tenant, and tells whether there was one.
    pub fn stop(&self, tenant: &str, id: &str) -> bool {
        let mut running = locked(&self.running);
        if running.get(id).is_none_or(|(owner, _)| owner != tenant) {
            return false;
        }
        let entry = running.remove(id);
        entry.is_some_and(|(_, stop)| stop.send(()).is_ok())
    }
}

impl Kept {
    fn find(&self, tenant: &str, id: &str) -> Option<Arc<Turn>> {
        let turn = &self.turns.get(id)?.turn;
        (turn.tenant == tenant).then(|| Arc::clone(turn))
    }

    fn touch(&mut self, id: &str, now: Instant) {
        if let Some(entry) = self.turns.get_mut(id) {
            self.order.remove(&entry.tick);
            self.ticks += 1;
            entry.tick = self.ticks;
            entry.used = now;
            self.order.insert(entry.tick, id.to_owned());
        }
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.turns.remove(id) else {
            return false;
        };
        self.order.remove(&entry.tick);
        self.bytes -= entry.turn.bytes();
        true
    }

    /// Drops what is too old or too much, the longest unused first.
    fn expire(&mut self, now: Instant, limits: Limits) {
        while let Some((_, id)) = self.order.first_key_value() {
            let id = id.clone();
            let old = self
                .turns
                .get(&id)
                .is_none_or(|entry| now.saturating_duration_since(entry.used) >= limits.age);
            if !old && self.bytes <= limits.bytes {
                break;
            }
            self.remove(&id);
        }
    }
}

/// A panic elsewhere leaves whole turns behind, so the lock is taken as it is.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn turn(previous: Option<&str>, bytes: usize) -> Turn {
        Turn {
            tenant: "a".into(),
            ceiling: Zone::Cloud,
            redact: false,
            previous: previous.map(str::to_owned),
            input: "x".repeat(bytes),
            response: String::new(),
        }
    }

    fn small() -> Conversations {
        Conversations::new(Limits {
            bytes: 3_000,
            age: Duration::from_secs(60),
        })
    }

    #[test]
    fn a_chain_is_told_oldest_first() {
        let (kept, now) = (small(), Instant::now());
        assert!(kept.keep("1", turn(None, 1), now));
        assert!(kept.keep("2", turn(Some("1"), 2), now));
        assert!(kept.keep("3", turn(Some("2"), 3), now));
        let chain = kept.chain("a", "3", now).unwrap();
        let lengths: Vec<usize> = chain.iter().map(|turn| turn.input.len()).collect();
        assert_eq!(lengths, [1, 2, 3]);
        assert!(kept.forget("a", "2"));
        assert!(kept.chain("a", "3", now).is_none(), "its middle is gone");
        assert!(kept.find("a", "3", now).is_some());
        assert!(!kept.forget("a", "2"));
    }

    #[test]
    fn nobody_sees_what_is_not_theirs() {
        let (kept, now) = (Arc::new(small()), Instant::now());
        kept.keep("1", turn(None, 1), now);
        assert!(kept.find("b", "1", now).is_none());
        assert!(kept.chain("b", "1", now).is_none());
        assert!(!kept.forget("b", "1"));
        let (_running, mut stopped) = kept.run("a", "2");
        assert!(!kept.stop("b", "2"));
        assert!(stopped.try_recv().is_err());
        assert!(kept.stop("a", "2"));
        assert!(stopped.try_recv().is_ok());
        assert!(!kept.stop("a", "2"));
    }

    #[test]
    fn the_longest_unused_goes_when_there_is_no_room() {
        let (kept, now) = (small(), Instant::now());
        kept.keep("1", turn(None, 700), now);
        kept.keep("2", turn(None, 700), now);
        kept.keep("3", turn(None, 700), now);
        kept.chain("a", "1", now).unwrap();
        kept.keep("4", turn(None, 700), now);
        let there = |id| kept.find("a", id, now).is_some();
        assert!(there("1") && !there("2") && there("3") && there("4"));
        assert!(!kept.keep("5", turn(None, 2_000), now), "too large for one");
        assert!(there("1"));
        // The same id again takes its room once.
        for _ in 0..10 {
            kept.keep("4", turn(None, 700), now);
        }
        assert!(there("1") && there("3"));
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let (kept, start) = (small(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        kept.keep("1", turn(None, 1), start);
        kept.keep("2", turn(None, 1), start);
        assert!(kept.chain("a", "1", after(59)).is_some());
        assert!(kept.chain("a", "2", after(60)).is_none());
        assert!(kept.chain("a", "1", after(100)).is_some());
        assert!(kept.chain("a", "1", after(161)).is_none());
        assert_eq!(locked(&kept.kept).bytes, 0);
    }

    #[test]
    fn nothing_is_kept_where_nothing_shall_be() {
        let kept = Conversations::new(Limits {
            bytes: 3_000,
            age: Duration::ZERO,
        });
        assert!(!kept.keep("1", turn(None, 1), Instant::now()));
    }

    #[test]
    fn an_answer_that_ended_cannot_be_stopped() {
        let kept = Arc::new(small());
        drop(kept.run("a", "1"));
        assert!(!kept.stop("a", "1"));
    }
}
