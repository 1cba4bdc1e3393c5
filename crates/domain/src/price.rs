//! Money, in integer micro-units of one currency (1 unit = 1,000,000 micro).
//!
//! An unknown price is `None` everywhere, never zero: a free model and a model
//! whose price nobody entered are different things. What is not here: where
//! prices come from, and which tokens a provider counts how (egress brings every
//! provider's count into the one form of [`Usage`]).

use serde::{Deserialize, Serialize};

use crate::events::Usage;

/// What a target charges for each kind of token, in micro-units per million.
///
/// 150,000 means 0.15 currency units per million tokens. A provider that does
/// not price a kind apart has the price of the kind that it counts it as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Prompt tokens that the provider computes.
    pub prompt_micro_per_mtok: u64,
    /// Prompt tokens read from the provider's cache.
    pub cached_prompt_micro_per_mtok: u64,
    /// Prompt tokens written to the provider's cache.
    pub cache_write_micro_per_mtok: u64,
    /// The same, to be kept for an hour.
    pub cache_write_hour_micro_per_mtok: u64,
    /// Tokens written, save reasoning.
    pub completion_micro_per_mtok: u64,
    /// Tokens of reasoning.
    pub reasoning_micro_per_mtok: u64,
}

impl Rates {
    /// Prices without anything apart: reasoning is completion, and a prompt
    /// that goes into a cache is a prompt.
    pub const fn plain(prompt: u64, cached_prompt: u64, completion: u64) -> Rates {
        Rates {
            prompt_micro_per_mtok: prompt,
            cached_prompt_micro_per_mtok: cached_prompt,
            cache_write_micro_per_mtok: prompt,
            cache_write_hour_micro_per_mtok: prompt,
            completion_micro_per_mtok: completion,
            reasoning_micro_per_mtok: completion,
        }
    }

    /// The dearest that a token of a prompt can be.
    fn dearest_prompt(&self, writes_cache: bool) -> u64 {
        let plain = self
            .prompt_micro_per_mtok
            .max(self.cached_prompt_micro_per_mtok);
        if writes_cache {
            plain
                .max(self.cache_write_micro_per_mtok)
                .max(self.cache_write_hour_micro_per_mtok)
        } else {
            plain
        }
    }

    fn dearest_completion(&self) -> u64 {
        self.completion_micro_per_mtok
            .max(self.reasoning_micro_per_mtok)
    }
}

/// Dearer rates for long prompts. They hold for all of the request's tokens,
/// not only for those beyond the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Long {
    /// Prompts of more tokens than this, cached ones included.
    pub above_prompt_tokens: u32,
    /// What they cost.
    pub rates: Rates,
}

/// What a target charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// For prompts of ordinary length.
    pub rates: Rates,
    /// For long ones, where those are dearer.
    pub long: Option<Long>,
}

/// How large a request is, as far as it is known before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sizes {
    /// Tokens of the prompt, estimated.
    pub prompt: u64,
    /// The most that they may turn out to be at another's tokenizer.
    pub most_prompt: u64,
    /// Tokens of answer that are expected, reasoning included.
    pub completion: u64,
    /// The most that may be written; `None` where nothing bounds it.
    pub most_completion: Option<u64>,
    /// Whether the client asks for parts of the prompt to be written to the
    /// provider's cache.
    pub writes_cache: bool,
}

/// What a request will cost, told before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// In micro-units, for the sizes that are expected.
    pub likely_micro: u64,
    /// In micro-units, for the largest sizes; `None` where the answer has no
    /// bound.
    pub most_micro: Option<u64>,
}

/// Micro-units per million tokens times tokens: exact, until it is rounded once.
fn sum(parts: &[(u64, u64)]) -> u128 {
    parts
        .iter()
        .map(|(tokens, rate)| u128::from(*tokens) * u128::from(*rate))
        .fold(0, u128::saturating_add)
}

/// Rounded up over the sum, so that many small requests do not add up to nothing.
fn micro(sum: u128) -> u64 {
    u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl Price {
    /// A target that costs nothing per token: a model on this device, unless
    /// its energy has a price.
    pub const FREE: Price = Price::plain(0, 0, 0);

    /// See [`Rates::plain`]; the same for prompts of any length.
    pub const fn plain(prompt: u64, cached_prompt: u64, completion: u64) -> Price {
        Price {
            rates: Rates::plain(prompt, cached_prompt, completion),
            long: None,
        }
    }

    /// What holds for a prompt of so many tokens, cached ones included.
    pub fn rates(&self, prompt: u64) -> &Rates {
        match &self.long {
            Some(long) if prompt > u64::from(long.above_prompt_tokens) => &long.rates,
            _ => &self.rates,
        }
    }

    /// Whether it costs nothing whatever is counted.
    pub fn is_free(&self) -> bool {
        *self == Price::FREE
    }

    /// What an answer cost, in micro-units, rounded up once over the sum.
    ///
    /// Parts are capped at their whole, because providers have been seen to
    /// report more. `None` where a count is not known that has a price; which
    /// part of it came from a cache or was reasoning is taken to be none when
    /// nobody says so.
    pub fn cost(&self, usage: &Usage) -> Option<u64> {
        let long = self.long.as_ref().map_or(&self.rates, |long| &long.rates);
        let free = |of: fn(&Rates) -> u64| of(&self.rates) == 0 && of(long) == 0;
        let needed = |count: Option<u64>, free: bool| count.or(free.then_some(0));
        let prompt = needed(usage.prompt, free(|rates| rates.dearest_prompt(true)))?;
        let completion = needed(usage.completion, free(Rates::dearest_completion))?;
        let rates = self.rates(prompt);
        let cached = usage.cached_prompt.unwrap_or(0).min(prompt);
        let written = usage.cache_written.unwrap_or(0).min(prompt - cached);
        let hour = usage.cache_written_hour.unwrap_or(0).min(written);
        let reasoning = usage.reasoning.unwrap_or(0).min(completion);
        Some(micro(sum(&[
            (prompt - cached - written, rates.prompt_micro_per_mtok),
            (cached, rates.cached_prompt_micro_per_mtok),
            (written - hour, rates.cache_write_micro_per_mtok),
            (hour, rates.cache_write_hour_micro_per_mtok),
            (completion - reasoning, rates.completion_micro_per_mtok),
            (reasoning, rates.reasoning_micro_per_mtok),
        ])))
    }

    /// What a request will likely cost, and what it will cost at most.
    ///
    /// Likely is without the provider's cache: what it holds, nobody knows
    /// before. At most is every token at the dearest rate that could hold for it.
    pub fn estimate(&self, sizes: &Sizes) -> Estimate {
        let likely = self.rates(sizes.prompt);
        Estimate {
            likely_micro: micro(sum(&[
                (sizes.prompt, likely.prompt_micro_per_mtok),
                (sizes.completion, likely.completion_micro_per_mtok),
            ])),
            most_micro: match (sizes.most_completion, self.dearest_completion(sizes)) {
                (None, 1..) => None,
                (most, rate) => {
                    let written = sum(&[(most.unwrap_or(0), rate)]);
                    Some(micro(self.most_of_prompt(sizes).saturating_add(written)))
                }
            },
        }
    }

    /// How many tokens of answer so many micro-units pay for, after the prompt
    /// at its dearest. `None` where they do not even pay for the prompt;
    /// `u64::MAX` where tokens of answer cost nothing.
    pub fn affordable(&self, micro: u64, sizes: &Sizes) -> Option<u64> {
        let have = u128::from(micro) * 1_000_000;
        let left = have.checked_sub(self.most_of_prompt(sizes))?;
        let tokens = left.checked_div(u128::from(self.dearest_completion(sizes)));
        Some(tokens.map_or(u64::MAX, |tokens| u64::try_from(tokens).unwrap_or(u64::MAX)))
    }

    /// Rates that may hold for the request: an estimate may be on either side of
    /// the threshold.
    fn possible(&self, sizes: &Sizes) -> impl Iterator<Item = &Rates> {
        let most = sizes.most_prompt.max(sizes.prompt);
        [&self.rates, self.rates(most)].into_iter()
    }

    fn most_of_prompt(&self, sizes: &Sizes) -> u128 {
        let most = sizes.most_prompt.max(sizes.prompt);
        let rates = self.possible(sizes);
        let dearest = rates.map(|rates| rates.dearest_prompt(sizes.writes_cache));
        sum(&[(most, dearest.max().unwrap_or(0))])
    }

    fn dearest_completion(&self, sizes: &Sizes) -> u64 {
        let rates = self.possible(sizes);
        rates.map(Rates::dearest_completion).max().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
