//! Money, in integer micro-units of one currency (1 unit = 1,000,000 micro).
//!
//! An unknown price is `None` everywhere, never zero: a free model and a model
//! whose price nobody entered are different things.

use serde::{Deserialize, Serialize};

/// What a target charges, in micro-units per million tokens.
///
/// 150,000 means 0.15 currency units per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Per million prompt tokens that the provider computes.
    pub prompt_micro_per_mtok: u64,
    /// Per million prompt tokens read from the provider's cache.
    pub cached_prompt_micro_per_mtok: u64,
    /// Per million tokens written, reasoning included.
    pub completion_micro_per_mtok: u64,
}

impl Price {
    /// A target that costs nothing per token: a model on this device.
    pub const FREE: Price = Price {
        prompt_micro_per_mtok: 0,
        cached_prompt_micro_per_mtok: 0,
        completion_micro_per_mtok: 0,
    };

    /// Cost in micro-units, rounded up once over the sum so that many small
    /// requests cannot add up to nothing.
    ///
    /// `cached` is the part of `prompt` that came from a cache; it is capped at
    /// `prompt` because providers have been seen to report more.
    pub fn cost_micro(&self, prompt: u64, cached: u64, completion: u64) -> u64 {
        let cached = cached.min(prompt);
        let micro_per_m = [
            (prompt - cached, self.prompt_micro_per_mtok),
            (cached, self.cached_prompt_micro_per_mtok),
            (completion, self.completion_micro_per_mtok),
        ]
        .into_iter()
        .map(|(tokens, price)| u128::from(tokens) * u128::from(price))
        .fold(0u128, u128::saturating_add);
        u64::try_from(micro_per_m.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price {
        prompt_micro_per_mtok: 150_000,
        cached_prompt_micro_per_mtok: 75_000,
        completion_micro_per_mtok: 600_000,
    };

    #[test]
    fn cost_counts_cached_tokens_once() {
        assert_eq!(PRICE.cost_micro(1_000_000, 400_000, 0), 90_000 + 30_000);
        assert_eq!(PRICE.cost_micro(10, 20, 0), 1, "more cached than sent");
    }

    #[test]
    fn one_token_is_not_free() {
        assert_eq!(PRICE.cost_micro(1, 0, 0), 1);
        assert_eq!(Price::FREE.cost_micro(1_000, 0, 1_000), 0);
    }

    #[test]
    fn absurd_counts_saturate() {
        let dear = Price {
            completion_micro_per_mtok: u64::MAX,
            ..PRICE
        };
        assert_eq!(dear.cost_micro(u64::MAX, 0, u64::MAX), u64::MAX);
    }
}
