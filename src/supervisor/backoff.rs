//! How long to wait before a process that ended is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// A process that ran this long was healthy: its next end counts as the first.
const HEALTHY: Duration = Duration::from_secs(30);

/// Doubles from 100 ms to 10 s, each a fifth up or down at random so that
/// processes that fall together do not rise together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a run of this length. `dice` is any random number.
    pub(super) fn after(&mut self, ran: Duration, dice: u8) -> Duration {
        if ran >= HEALTHY {
            self.failures = 0;
        }
        let wait = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        wait.mul_f64(0.8 + 0.4 * f64::from(dice) / 255.0)
    }
}

/// A random number; a fixed one where the system has none.
pub(super) fn dice() -> u8 {
    let mut byte = [128];
    // Without randomness the waits lose their jitter and nothing else.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_start_over_after_health() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u128> = (0..9)
            .map(|_| backoff.after(short, 0).as_millis())
            .collect();
        assert_eq!(waits, [80, 160, 320, 640, 1280, 2560, 5120, 8000, 8000]);
        assert_eq!(backoff.after(short, 255), Duration::from_secs(12));
        assert_eq!(backoff.after(HEALTHY, 0).as_millis(), 80);
        assert_eq!(backoff.after(short, 0).as_millis(), 160);
    }
}
