//! How long a step takes, learned from the steps that were made.
//!
//! A step reads every weight once, whatever it computes, and then works for
//! each token: its time is close to `fixed + tokens × each`. The two are fitted
//! by least squares whose samples fade, so that a device that slows down (heat,
//! other programs, a longer context) is followed within some tens of steps.

use std::time::Duration;

/// A step may take this long while others wait for their next token: they hear
/// a gap, and a cancelled answer holds the processor until the step's end.
pub const STEP_WHILE_SPEAKING: Duration = Duration::from_millis(50);
/// A step may take this long when nobody is speaking.
pub const STEP_WHILE_QUIET: Duration = Duration::from_millis(100);
/// Longer pieces make a prompt no faster and take more memory.
const MAX_PIECE: usize = 512;
/// Shorter pieces read all weights for next to nothing.
const MIN_PIECE: usize = 8;
/// What a sample keeps of its weight with each later one.
const FADING: f64 = 0.95;

/// The learned figures of one model on this device.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Faded sums over the samples: weight, tokens, tokens², ms, ms × tokens.
    weight: f64,
    n: f64,
    nn: f64,
    t: f64,
    tn: f64,
}

impl Pace {
    /// Remembers a step of `tokens` rows.
    pub fn measured(&mut self, tokens: usize, took: Duration) {
        if tokens == 0 {
            return;
        }
        let (n, t) = (tokens as f64, took.as_secs_f64() * 1e3);
        for sum in [
            &mut self.weight,
            &mut self.n,
            &mut self.nn,
            &mut self.t,
            &mut self.tn,
        ] {
            *sum *= FADING;
        }
        self.weight += 1.0;
        self.n += n;
        self.nn += n * n;
        self.t += t;
        self.tn += t * n;
    }

    /// Whether anything was measured.
    pub fn is_known(&self) -> bool {
        self.weight > 0.0
    }

    /// (fixed, each) in milliseconds.
    fn line(&self) -> (f64, f64) {
        if !self.is_known() {
            return (0.0, 0.0);
        }
        let (mean_n, mean_t) = (self.n / self.weight, self.t / self.weight);
        let variance = self.nn / self.weight - mean_n * mean_n;
        let covariance = self.tn / self.weight - mean_n * mean_t;
        // Steps of one size tell nothing of the slope.
        if variance < 0.05 * mean_n * mean_n {
            return (0.0, mean_t / mean_n);
        }
        // Neither part can be negative; noise may say so.
        let each = (covariance / variance).clamp(0.0, mean_t / mean_n);
        (mean_t - each * mean_n, each)
    }

    /// Expected milliseconds of a step of `tokens` rows; 0 when nothing is known.
    pub fn step_ms(&self, tokens: usize) -> f64 {
        let (fixed, each) = self.line();
        fixed + each * tokens as f64
    }

    /// Milliseconds per token of a long prompt that is computed in pieces.
    pub fn ms_per_prompt_token(&self) -> Option<f64> {
        self.is_known().then(|| {
            let piece = self.tokens_within(STEP_WHILE_QUIET).unwrap_or(1);
            self.step_ms(piece) / piece as f64
        })
    }

    /// How many tokens a step may compute to last `time`: at least enough to be
    /// worth the reading of the weights. `None` when nothing is known.
    pub fn tokens_within(&self, time: Duration) -> Option<usize> {
        if !self.is_known() {
            return None;
        }
        let (fixed, each) = self.line();
        let left = (time.as_secs_f64() * 1e3 - fixed).max(0.0);
        Some(((left / each.max(1e-6)) as usize).clamp(MIN_PIECE, MAX_PIECE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(fixed: f64, each: f64, sizes: &[usize]) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..50 {
            for size in sizes {
                let ms = fixed + each * *size as f64;
                pace.measured(*size, Duration::from_secs_f64(ms / 1e3));
            }
        }
        pace
    }

    #[test]
    fn both_parts_are_found() {
        let pace = learned(20.0, 0.5, &[1, 4, 60]);
        assert!((pace.step_ms(1) - 20.5).abs() < 0.1);
        assert!((pace.step_ms(100) - 70.0).abs() < 0.5);
        assert_eq!(pace.tokens_within(Duration::from_millis(50)), Some(60));
    }

    #[test]
    fn one_size_of_step_is_taken_for_the_rate() {
        let pace = learned(20.0, 1.0, &[10]);
        assert!((pace.step_ms(20) - 60.0).abs() < 0.1);
    }

    #[test]
    fn a_slower_device_is_followed() {
        let mut pace = learned(5.0, 0.5, &[1, 32]);
        for _ in 0..40 {
            pace.measured(1, Duration::from_millis(40));
            pace.measured(32, Duration::from_millis(200));
        }
        assert!(pace.step_ms(32) > 190.0, "{}", pace.step_ms(32));
    }

    #[test]
    fn a_piece_is_never_too_small_to_pay_nor_too_large() {
        assert_eq!(
            learned(500.0, 5.0, &[1, 8]).tokens_within(STEP_WHILE_SPEAKING),
            Some(MIN_PIECE)
        );
        assert_eq!(
            learned(0.0, 1e-6, &[1, 8]).tokens_within(STEP_WHILE_QUIET),
            Some(MAX_PIECE)
        );
        assert_eq!(Pace::default().tokens_within(STEP_WHILE_QUIET), None);
    }
}
