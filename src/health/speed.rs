//! How fast a target is: a linear model, learned online, with the spread of
//! the logarithm of its residuals (see [`Latency`]).
//!
//! Each time is an exponentially weighted geometric mean: one answer that was
//! ten times slower (the machine was busy elsewhere) does not make the target
//! look slow for the next ten. A prior counts as a few
//! samples, so that the first observation moves it without replacing it; what
//! was never observed has a wide spread and is never taken for fast.

use std::time::Duration;

use nearfar_domain::frames::Timings;
use nearfar_domain::snapshot::Latency;
use nearfar_domain::target::RemoteZone;

/// The weight of a new observation once there are many.
const STEADY_WEIGHT: f64 = 0.1;
/// Samples that a prior counts for.
const PRIOR_SAMPLES: f64 = 2.0;
/// Spread of the prior: about a factor of two either way.
const PRIOR_LOG_SD: f64 = 0.8;
/// No target is more regular than this.
const LEAST_LOG_SD: f64 = 0.1;

/// What is assumed of a target before it was observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// Constant part of the time to first token.
    pub ttft_ms: f64,
    /// Per token of the prompt.
    pub ms_per_prompt_token: f64,
    /// Per token of the answer after the first.
    pub ms_per_token: f64,
}

impl Prior {
    /// A model on this device. Decoding reads every weight once per token, at
    /// about 8 GB/s on a small device; prefill shares that read among several
    /// tokens.
    pub fn local(file_bytes: u64) -> Self {
        let ms_per_token = 0.5 + file_bytes as f64 / 8e6;
        Self {
            ttft_ms: 5.0,
            ms_per_prompt_token: ms_per_token / 4.0,
            ms_per_token,
        }
    }

    /// A provider's model.
    pub fn remote(zone: RemoteZone) -> Self {
        let ttft_ms = match zone {
            RemoteZone::Site => 250.0,
            RemoteZone::Cloud => 600.0,
        };
        Self {
            ttft_ms,
            ms_per_prompt_token: 0.05,
            ms_per_token: 15.0,
        }
    }
}

/// Milliseconds to load a model of this size that is not in memory.
pub fn load_ms(file_bytes: u64) -> f64 {
    30.0 + file_bytes as f64 / 500e3
}

/// The learned figures of one target.
#[derive(Clone, Debug)]
pub struct Speed {
    ttft: TimeMean,
    prefill: TimeMean,
    decode: TimeMean,
    /// Mean of the squared logarithm of observed over predicted.
    residual: Mean,
    /// The engine itself tells the rates; the gate's clock is not needed.
    engine: bool,
}

impl Speed {
    /// Nothing observed yet.
    pub fn new(prior: &Prior) -> Self {
        Self {
            ttft: TimeMean::new(prior.ttft_ms),
            prefill: TimeMean::new(prior.ms_per_prompt_token),
            decode: TimeMean::new(prior.ms_per_token),
            residual: Mean::new(PRIOR_LOG_SD * PRIOR_LOG_SD),
            engine: false,
        }
    }

    /// The model as it stands.
    pub fn latency(&self) -> Latency {
        Latency {
            ttft_ms: self.ttft.ms(),
            ms_per_prompt_token: self.prefill.ms(),
            ms_per_token: self.decode.ms(),
            log_sd: self.residual.value.sqrt().max(LEAST_LOG_SD),
        }
    }

    /// A first token came `elapsed` after the attempt began, of which
    /// `waited_ms` was expected waiting.
    pub fn first_token(&mut self, prompt_tokens: u32, waited_ms: f64, elapsed: Duration) {
        let observed = millis(elapsed);
        let predicted = (waited_ms + self.latency().ttft(prompt_tokens)).max(0.1);
        let log = (observed.max(0.1) / predicted).ln();
        self.residual.push(log * log);
        let prefill = f64::from(prompt_tokens) * self.prefill.ms();
        // What is left may be nothing when too much was predicted; one sample
        // shortens the constant by no more than it would by being a quarter.
        let constant = (observed - waited_ms - prefill).max(self.ttft.ms() / 4.0);
        self.ttft.push(constant);
    }

    /// `tokens` after the first took `elapsed`.
    pub fn rest(&mut self, tokens: u64, elapsed: Duration) {
        if !self.engine {
            self.decode.push(millis(elapsed) / tokens as f64);
        }
    }

    /// The engine's own account of a job.
    pub fn engine_timings(&mut self, timings: &Timings) {
        self.engine = true;
        // A handful of tokens measures the overhead, not the rate.
        if timings.prefill_tokens >= 8 && timings.prefill_ms.is_finite() {
            let rate = timings.prefill_ms / f64::from(timings.prefill_tokens);
            self.prefill.push(rate);
        }
        if timings.decode_tokens >= 2 && timings.decode_ms.is_finite() {
            let rate = timings.decode_ms / f64::from(timings.decode_tokens - 1);
            self.decode.push(rate);
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Times below this are not told apart, in milliseconds.
const LEAST_MS: f64 = 0.001;

/// A geometric mean of times.
#[derive(Clone, Debug)]
struct TimeMean(Mean);

impl TimeMean {
    fn new(prior_ms: f64) -> Self {
        Self(Mean::new(prior_ms.max(LEAST_MS).ln()))
    }

    fn push(&mut self, sample_ms: f64) {
        self.0.push(sample_ms.max(LEAST_MS).ln());
    }

    fn ms(&self) -> f64 {
        self.0.value.exp()
    }
}

/// A mean whose first samples weigh more than the later ones.
#[derive(Clone, Debug)]
struct Mean {
    value: f64,
    samples: f64,
}

impl Mean {
    fn new(prior: f64) -> Self {
        Self {
            value: prior,
            samples: PRIOR_SAMPLES,
        }
    }

    fn push(&mut self, sample: f64) {
        self.samples += 1.0;
        let weight = (1.0 / self.samples).max(STEADY_WEIGHT);
        self.value += weight * (sample - self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_what_it_sees_and_grows_surer() {
        let mut speed = Speed::new(&Prior::remote(RemoteZone::Cloud));
        let before = speed.latency();
        for _ in 0..100 {
            speed.first_token(100, 0.0, Duration::from_millis(205));
            speed.rest(50, Duration::from_millis(500));
        }
        let after = speed.latency();
        assert!((after.ttft(100) - 205.0).abs() < 2.0, "{after:?}");
        assert!((after.ms_per_token - 10.0).abs() < 0.1, "{after:?}");
        assert!(after.log_sd < before.log_sd / 2.0, "{after:?}");
    }

    #[test]
    fn an_irregular_target_keeps_a_wide_spread() {
        let mut speed = Speed::new(&Prior::remote(RemoteZone::Cloud));
        for round in 0..100u64 {
            let ms = if round % 2 == 0 { 100 } else { 2_000 };
            speed.first_token(0, 0.0, Duration::from_millis(ms));
        }
        assert!(speed.latency().log_sd > 0.8, "{:?}", speed.latency());
    }

    #[test]
    fn the_engine_knows_its_rates_better_than_the_gate() {
        let mut speed = Speed::new(&Prior::local(8_000_000));
        for _ in 0..100 {
            speed.engine_timings(&Timings {
                prefill_ms: 50.0,
                prefill_tokens: 100,
                decode_ms: 198.0,
                decode_tokens: 100,
                ..Timings::default()
            });
            speed.rest(99, Duration::from_secs(60)); // a client that read slowly
        }
        let learned = speed.latency();
        assert!(
            (learned.ms_per_prompt_token - 0.5).abs() < 0.01,
            "{learned:?}"
        );
        assert!((learned.ms_per_token - 2.0).abs() < 0.01, "{learned:?}");
    }

    #[test]
    fn one_slow_answer_does_not_make_a_target_slow() {
        let prior = Prior::local(8_000_000);
        let mut speed = Speed::new(&prior);
        speed.rest(100, Duration::from_millis(100 * 150)); // 100 times the prior
        let learned = speed.latency();
        assert!(
            learned.ms_per_token < 6.0 * prior.ms_per_token,
            "{learned:?}"
        );
        assert!(learned.ms_per_token > prior.ms_per_token, "{learned:?}");
    }

    #[test]
    fn waiting_is_not_the_targets_speed() {
        let mut speed = Speed::new(&Prior::local(8_000_000));
        for _ in 0..100 {
            speed.first_token(0, 1_000.0, Duration::from_millis(1_010));
        }
        assert!(speed.latency().ttft_ms < 20.0, "{:?}", speed.latency());
    }
}
