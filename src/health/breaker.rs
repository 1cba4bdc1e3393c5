//! Stops asking a target that fails, and finds out when it is well again.
//!
//! Closed: failures in a row are counted; three open it, and so do half of the
//! last sixteen attempts. Open: nothing goes through until a pause is over,
//! which doubles each time. Half open: one probe goes through; its success
//! closes the breaker, its failure opens it again.

use std::time::{Duration, Instant};

use nearfar_domain::events::FailureKind;

/// Failures in a row that open it.
const IN_A_ROW: u32 = 3;
/// Attempts that the rolling window holds.
const WINDOW: u32 = 16;
/// Failures in a full window that open it.
const IN_WINDOW: u32 = 8;
/// The first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What cannot heal by itself soon rests longer: a key that is refused, and a
/// file that cannot be used.
const KEY_PAUSE: Duration = Duration::from_secs(30);
const FILE_PAUSE: Duration = Duration::from_secs(600);
/// A probe that nobody has heard of for this long no longer holds the place.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);

/// The state of one target's breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    in_a_row: u32,
    /// The last attempts, newest in the lowest bit; 1 is a failure.
    window: u32,
    /// How many of the window's bits are real.
    seen: u32,
    /// Times opened since it was last well.
    opened: u32,
    open_until: Option<Instant>,
    probe_since: Option<Instant>,
    /// The link whose death was counted last.
    crashed_generation: Option<u64>,
}

impl Breaker {
    /// Whether a request may go through now. While half open, one may.
    pub fn allows(&self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => self
                .probe_since
                .is_none_or(|since| now.duration_since(since) > PROBE_PATIENCE),
        }
    }

    /// A request goes through; in a half-open breaker it is the probe.
    pub fn begin(&mut self, now: Instant) {
        if self.open_until.is_some() {
            self.probe_since = Some(now);
        }
    }

    /// It went well.
    pub fn succeeded(&mut self) {
        self.push(false);
        self.in_a_row = 0;
        if self.open_until.take().is_some() {
            // What came before the pause says nothing about now.
            self.window = 0;
            self.seen = 0;
        }
        self.opened = 0;
        self.probe_since = None;
    }

    /// It failed in a way that speaks of the target's health.
    pub fn failed(
        &mut self,
        kind: FailureKind,
        generation: Option<u64>,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        if kind == FailureKind::Crashed && generation.is_some() {
            if self.crashed_generation == generation {
                self.probe_since = None;
                return;
            }
            self.crashed_generation = generation;
        }
        self.push(true);
        self.in_a_row += 1;
        let lasting = match kind {
            FailureKind::Unauthorized => Some(KEY_PAUSE),
            FailureKind::ModelBroken => Some(FILE_PAUSE),
            _ => None,
        };
        let was_open = self.open_until.is_some();
        let full = self.seen >= WINDOW && self.window.count_ones() >= IN_WINDOW;
        let enough = self.in_a_row >= IN_A_ROW || full;
        if !(was_open || enough || lasting.is_some() || retry_after.is_some()) {
            return;
        }
        // A failure of a request that began before the pause does not prolong it.
        if self.open_until.is_some_and(|until| now < until) {
            self.probe_since = None;
            return;
        }
        // Who only asks for a pause gets that one.
        let mut pause = Duration::ZERO;
        if was_open || enough {
            let doubled = FIRST_PAUSE.saturating_mul(1 << self.opened.min(8));
            pause = doubled.min(LONGEST_PAUSE);
        }
        if let Some(lasting) = lasting {
            pause = pause.max(lasting);
        }
        if let Some(asked) = retry_after {
            pause = pause.max(asked.min(LONGEST_PAUSE * 5));
        }
        self.opened += 1;
        self.open_until = Some(now + pause);
        self.probe_since = None;
    }

    /// It ended without saying anything about the target.
    pub fn abandoned(&mut self) {
        self.probe_since = None;
    }

    fn push(&mut self, failure: bool) {
        self.window = ((self.window << 1) | u32::from(failure)) & ((1 << WINDOW) - 1);
        self.seen = (self.seen + 1).min(WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &mut Breaker, times: u32, now: Instant) {
        for _ in 0..times {
            breaker.begin(now);
            breaker.failed(FailureKind::Unreachable, None, None, now);
        }
    }

    #[test]
    fn opens_after_failures_in_a_row_and_one_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        fail(&mut breaker, 2, now);
        assert!(breaker.allows(now));
        fail(&mut breaker, 1, now);
        assert!(!breaker.allows(now), "open");
        let later = now + FIRST_PAUSE;
        assert!(breaker.allows(later), "half open");
        breaker.begin(later);
        assert!(!breaker.allows(later), "one probe only");
        breaker.succeeded();
        assert!(breaker.allows(later), "closed");
        fail(&mut breaker, 2, later);
        assert!(breaker.allows(later), "the count began anew");
    }

    #[test]
    fn a_failed_probe_doubles_the_pause() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        fail(&mut breaker, 3, now);
        let later = now + FIRST_PAUSE;
        fail(&mut breaker, 1, later);
        assert!(!breaker.allows(later + FIRST_PAUSE));
        assert!(breaker.allows(later + FIRST_PAUSE * 2));
    }

    #[test]
    fn an_abandoned_probe_frees_its_place() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        fail(&mut breaker, 3, now);
        let later = now + FIRST_PAUSE;
        breaker.begin(later);
        assert!(!breaker.allows(later));
        breaker.abandoned();
        assert!(breaker.allows(later));
    }

    #[test]
    fn one_crash_counts_once_however_many_answers_it_cost() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            breaker.failed(FailureKind::Crashed, Some(1), None, now);
        }
        assert!(breaker.allows(now));
        breaker.failed(FailureKind::Crashed, Some(2), None, now);
        breaker.failed(FailureKind::Crashed, Some(3), None, now);
        assert!(!breaker.allows(now), "three processes in a row");
    }

    #[test]
    fn failures_between_successes_open_it_too() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..8 {
            breaker.succeeded();
            breaker.failed(FailureKind::Cut, None, None, now);
        }
        assert!(!breaker.allows(now));
    }

    #[test]
    fn a_target_that_asks_to_wait_is_left_alone_that_long() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let asked = Duration::from_secs(20);
        breaker.failed(FailureKind::RateLimited, None, Some(asked), now);
        assert!(!breaker.allows(now + Duration::from_secs(19)));
        assert!(breaker.allows(now + asked));
    }
}
