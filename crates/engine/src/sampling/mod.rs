//! Logits to the next token.
//!
//! The order is llama.cpp's: logit bias, penalties, top-k, top-p, min-p,
//! temperature, draw. Log-probabilities are the model's own, from before any of
//! these. Ties go to the lower id, so that greedy answers are repeatable. The
//! vocabulary is never sorted as a whole unless the nucleus really spans it.
//!
//! A draw gives each token a chance of its own, made of the draw's number and
//! the token's id, and takes the token that wins. Two models that draw with the
//! same number from similar distributions therefore mostly draw the same token,
//! and neither has to know of the other.

mod choose;
mod confidence;
mod settings;

use std::collections::{HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

pub use confidence::{Certainty, certainty};
pub use settings::{Defaults, Settings};

use crate::constrain::Mask;

/// How many of the last tokens the repetition penalty looks at, as in llama.cpp.
const REPETITION_WINDOW: usize = 64;

/// The model's logits cannot be sampled from. The texts are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// NaN or +∞: broken weights, or numbers that overflowed.
    #[error("the model computed something that is not a number; its file is probably damaged")]
    NotANumber,
    /// No token has a finite logit.
    #[error("the model allows no token at all; its file is probably damaged")]
    Nothing,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability in the model's own distribution;
    /// there when log-probabilities were asked for.
    pub logprob: Option<f32>,
    /// The most likely tokens with theirs, best first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Draws one answer's tokens.
pub struct Sampler {
    settings: Settings,
    random: ChaCha8Rng,
    /// The last tokens of prompt and answer: what the repetition penalty sees.
    window: VecDeque<u32>,
    /// How often each token was written: what the other two penalties see.
    written: HashMap<u32, u32>,
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler that has seen `prompt`.
    pub fn new(settings: Settings, prompt: &[u32]) -> Self {
        let tail = &prompt[prompt.len().saturating_sub(REPETITION_WINDOW)..];
        Self {
            random: ChaCha8Rng::seed_from_u64(settings.seed),
            settings,
            window: tail.iter().copied().collect(),
            written: HashMap::new(),
            candidates: Vec::new(),
        }
    }

    /// Chooses from `logits` (one per token of the vocabulary; changed by bias
    /// and penalties) and remembers the choice.
    ///
    /// # Errors
    /// [`SampleError`]; nothing is remembered then.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Choice, SampleError> {
        self.sample_within(logits, None)
    }

    /// As [`Sampler::sample`], among the tokens that `mask` allows.
    /// Log-probabilities stay those of the model.
    ///
    /// # Errors
    /// [`SampleError`]; nothing is remembered then.
    pub fn sample_within(
        &mut self,
        logits: &mut [f32],
        mask: Option<&Mask>,
    ) -> Result<Choice, SampleError> {
        let mut finite = false;
        for logit in logits.iter() {
            if logit.is_nan() || *logit == f32::INFINITY {
                return Err(SampleError::NotANumber);
            }
            finite |= logit.is_finite();
        }
        if !finite {
            return Err(SampleError::Nothing);
        }
        // Before bias and penalties change the logits.
        let own = self.settings.logprobs.map(|top| {
            let total = choose::log_sum_exp(logits);
            let top = choose::top_n(logits, usize::from(top), &mut self.candidates)
                .into_iter()
                .map(|(logit, id)| (id, (f64::from(logit) - total) as f32))
                .collect::<Vec<_>>();
            (logits.to_vec(), total, top)
        });
        self.bias_and_penalties(logits);
        if let Some(mask) = mask {
            mask.apply(logits);
        }
        let id = if self.settings.temperature <= 0.0 {
            choose::greedy(logits)
        } else {
            let number = self.random.next_u64();
            choose::draw(logits, &self.settings, number, &mut self.candidates)
        }
        .ok_or(SampleError::Nothing)?;
        self.remember(id);
        let (logprob, top) = match own {
            None => (None, Vec::new()),
            Some((own, total, top)) => {
                let logit = own.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
                (Some((f64::from(logit) - total) as f32), top)
            }
        };
        Ok(Choice { id, logprob, top })
    }

    /// A sampler that chooses from other logits as this one would in this place,
    /// with the same draws, and then on its own. It reports no log-probabilities.
    pub fn ahead(&self) -> Self {
        Self {
            settings: Settings {
                logprobs: None,
                ..self.settings.clone()
            },
            random: self.random.clone(),
            window: self.window.clone(),
            written: self.written.clone(),
            candidates: Vec::new(),
        }
    }

    /// Remembers a token that was written without being sampled.
    pub fn forced(&mut self, id: u32) {
        self.remember(id);
    }

    /// Whether log-probabilities are reported, so that each token must be sampled.
    pub fn reports_logprobs(&self) -> bool {
        self.settings.logprobs.is_some()
    }

    fn bias_and_penalties(&self, logits: &mut [f32]) {
        for (id, bias) in &self.settings.bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if self.settings.repetition != 1.0 {
            let mut seen: Vec<u32> = self.window.iter().copied().collect();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    // A penalty must lower the logit whatever its sign.
                    if *logit > 0.0 {
                        *logit /= self.settings.repetition;
                    } else {
                        *logit *= self.settings.repetition;
                    }
                }
            }
        }
        if self.settings.presence != 0.0 || self.settings.frequency != 0.0 {
            for (id, count) in &self.written {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit -= self.settings.presence + self.settings.frequency * *count as f32;
                }
            }
        }
    }

    fn remember(&mut self, id: u32) {
        if self.window.len() == REPETITION_WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(id);
        *self.written.entry(id).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests;
