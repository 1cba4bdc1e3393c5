//! What each user of the device was given, so that all are given as much.
//!
//! Start-time fair queueing with tokens as the measure: one who comes new
//! begins level with the least served of those who are there, so that nobody
//! saves up by staying away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// One user's account. It lives as long as a job holds it.
#[derive(Clone, Debug)]
pub(super) struct Share(Arc<AtomicU64>);

impl Share {
    /// Tokens that were computed for it.
    pub(super) fn served(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds tokens that were computed for it.
    pub(super) fn charge(&self, tokens: usize) {
        self.0.fetch_add(tokens as u64, Ordering::Relaxed);
    }
}

/// The accounts of all who have a job here.
#[derive(Default)]
pub(super) struct Shares {
    known: Vec<(String, Weak<AtomicU64>)>,
}

impl Shares {
    /// The account of `name`.
    pub(super) fn of(&mut self, name: &str) -> Share {
        self.known.retain(|(_, share)| share.strong_count() > 0);
        let live =
            |(who, share): &(String, Weak<AtomicU64>)| (who == name).then(|| share.upgrade());
        if let Some(share) = self.known.iter().find_map(live).flatten() {
            return Share(share);
        }
        let least = self
            .known
            .iter()
            .filter_map(|(_, share)| share.upgrade())
            .map(|share| share.load(Ordering::Relaxed))
            .min();
        let share = Arc::new(AtomicU64::new(least.unwrap_or(0)));
        self.known.push((name.to_owned(), Arc::downgrade(&share)));
        Share(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_lives_as_long_as_its_jobs_and_a_new_one_begins_level() {
        let mut shares = Shares::default();
        let (a, b) = (shares.of("a"), shares.of("b"));
        a.charge(100);
        b.charge(40);
        assert_eq!(shares.of("a").served(), 100);
        assert_eq!(shares.of("c").served(), 40, "level with the least served");
        drop((a, b));
        assert_eq!(shares.of("a").served(), 0, "all left");
        assert_eq!(shares.known.len(), 1);
    }
}
