//! How often a target may be tried again: a token bucket, so that retries do
//! not multiply the load of a target that is in trouble.
//!
//! Each attempt earns a tenth of a retry, and time earns one now and then, for
//! a device that asks seldom. The idea is Finagle's and Linkerd's retry budget.

use std::time::{Duration, Instant};

/// What an attempt earns.
const PER_ATTEMPT: f64 = 0.1;
/// How long it takes to earn one by waiting.
const BY_TIME: Duration = Duration::from_secs(10);
/// The most that is kept.
const MOST: f64 = 10.0;

/// One target's budget of retries.
#[derive(Debug)]
pub struct Budget {
    retries: f64,
    since: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            retries: MOST,
            since: None,
        }
    }
}

impl Budget {
    /// An attempt is made.
    pub fn earn(&mut self) {
        self.retries = (self.retries + PER_ATTEMPT).min(MOST);
    }

    /// Takes a retry, if there is one.
    pub fn spend(&mut self, now: Instant) -> bool {
        let since = self.since.replace(now).unwrap_or(now);
        let waited = now.saturating_duration_since(since).as_secs_f64();
        self.retries = (self.retries + waited / BY_TIME.as_secs_f64()).min(MOST);
        let enough = self.retries >= 1.0;
        if enough {
            self.retries -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_attempts_once_the_reserve_is_used_up() {
        let now = Instant::now();
        let mut budget = Budget::default();
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.earn();
            retries += u32::from(budget.spend(now));
        }
        assert!((100..=112).contains(&retries), "{retries}");
        assert!(budget.spend(now + BY_TIME), "time earns one");
    }
}
