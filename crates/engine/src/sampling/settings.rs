//! What the request says about sampling, checked and with the gaps filled.

use std::hash::{BuildHasher, RandomState};
use std::ops::RangeInclusive;

use nearfar_domain::chat::Params;
use nearfar_domain::events::{Failure, FailureKind};

use crate::gguf::Gguf;

/// The most alternatives per token that are reported, as in OpenAI's API.
const MAX_TOP_LOGPROBS: u8 = 20;

/// What a model's file recommends; llama.cpp's defaults where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// See [`Params::temperature`].
    pub temperature: f32,
    /// See [`Params::top_k`].
    pub top_k: u32,
    /// See [`Params::top_p`].
    pub top_p: f32,
    /// See [`Params::min_p`].
    pub min_p: f32,
    /// See [`Params::repetition_penalty`].
    pub repetition_penalty: f32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
        }
    }
}

impl Defaults {
    /// Reads the `general.sampling.*` keys. A value out of range is ignored: a
    /// recommendation is no reason to refuse a model.
    pub fn of(gguf: &Gguf) -> Self {
        let fallback = Self::default();
        let number = |key: &str, range: RangeInclusive<f32>, default: f32| {
            gguf.f32(&format!("general.sampling.{key}"))
                .ok()
                .filter(|value| range.contains(value))
                .unwrap_or(default)
        };
        Self {
            temperature: number("temp", 0.0..=10.0, fallback.temperature),
            top_k: gguf.u32("general.sampling.top_k").unwrap_or(fallback.top_k),
            top_p: number("top_p", 0.0..=1.0, fallback.top_p),
            min_p: number("min_p", 0.0..=1.0, fallback.min_p),
            repetition_penalty: number("penalty_repeat", 0.1..=10.0, fallback.repetition_penalty),
        }
    }
}

/// Sampling as one request wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: usize,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 1 is none.
    pub repetition: f32,
    /// 0 is none.
    pub presence: f32,
    /// 0 is none.
    pub frequency: f32,
    /// (token id, value added to its logit).
    pub bias: Vec<(u32, f32)>,
    /// Drawn where the request has none.
    pub seed: u64,
    /// `Some(n)`: report log-probabilities with `n` alternatives.
    pub logprobs: Option<u8>,
}

impl Settings {
    /// Checks `params` and fills the gaps from `defaults`. `vocabulary` is the
    /// number of tokens.
    ///
    /// # Errors
    /// `BadRequest` with the field that is out of range.
    pub fn resolve(
        params: &Params,
        defaults: &Defaults,
        vocabulary: usize,
    ) -> Result<Self, Failure> {
        let settings = Self {
            temperature: within(
                "temperature",
                params.temperature,
                defaults.temperature,
                0.0..=10.0,
            )?,
            top_k: params.top_k.unwrap_or(defaults.top_k) as usize,
            top_p: within("top_p", params.top_p, defaults.top_p, 0.0..=1.0)?,
            min_p: within("min_p", params.min_p, defaults.min_p, 0.0..=1.0)?,
            repetition: within(
                "repetition_penalty",
                params.repetition_penalty,
                defaults.repetition_penalty,
                0.01..=10.0,
            )?,
            presence: within("presence_penalty", params.presence_penalty, 0.0, -2.0..=2.0)?,
            frequency: within(
                "frequency_penalty",
                params.frequency_penalty,
                0.0,
                -2.0..=2.0,
            )?,
            bias: params.logit_bias.clone(),
            seed: params.seed.map_or_else(draw_seed, |seed| seed as u64),
            logprobs: params.logprobs,
        };
        if settings.logprobs.is_some_and(|top| top > MAX_TOP_LOGPROBS) {
            return Err(bad(
                "top_logprobs",
                format!("must be at most {MAX_TOP_LOGPROBS}"),
            ));
        }
        for (id, bias) in &settings.bias {
            if *id as usize >= vocabulary {
                return Err(bad(
                    "logit_bias",
                    format!(
                        "names the token {id}; this model's tokens end at {}",
                        vocabulary.saturating_sub(1)
                    ),
                ));
            }
            if !(-100.0..=100.0).contains(bias) {
                return Err(bad("logit_bias", "must be from -100 to 100".to_owned()));
            }
        }
        Ok(settings)
    }
}

fn within(
    field: &str,
    value: Option<f32>,
    default: f32,
    range: RangeInclusive<f32>,
) -> Result<f32, Failure> {
    let value = value.unwrap_or(default);
    // NaN is in no range.
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(bad(
            field,
            format!("must be from {} to {}", range.start(), range.end()),
        ))
    }
}

fn bad(field: &str, problem: String) -> Failure {
    Failure {
        field: Some(field.to_owned()),
        ..Failure::new(FailureKind::BadRequest, format!("{field} {problem}"))
    }
}

/// A seed for a request without one. The standard library's hasher keys come
/// from the operating system's randomness and differ with every call.
pub(crate) fn draw_seed() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}
