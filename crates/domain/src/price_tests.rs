#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// 0.15 for a million of prompt, 0.075 from the cache, 0.60 written.
const PLAIN: Price = Price::plain(150_000, 75_000, 600_000);

/// Anthropic's form: writes are dearer, reads are a tenth, long prompts double.
const TIERED: Price = Price {
    rates: Rates {
        prompt_micro_per_mtok: 3_000_000,
        cached_prompt_micro_per_mtok: 300_000,
        cache_write_micro_per_mtok: 3_750_000,
        cache_write_hour_micro_per_mtok: 6_000_000,
        completion_micro_per_mtok: 15_000_000,
        reasoning_micro_per_mtok: 15_000_000,
    },
    long: Some(Long {
        above_prompt_tokens: 200_000,
        rates: Rates {
            prompt_micro_per_mtok: 6_000_000,
            cached_prompt_micro_per_mtok: 600_000,
            cache_write_micro_per_mtok: 7_500_000,
            cache_write_hour_micro_per_mtok: 12_000_000,
            completion_micro_per_mtok: 22_500_000,
            reasoning_micro_per_mtok: 22_500_000,
        },
    }),
};

fn used(prompt: u64, cached: u64, completion: u64) -> Usage {
    Usage {
        prompt: Some(prompt),
        cached_prompt: Some(cached),
        completion: Some(completion),
        ..Usage::default()
    }
}

#[test]
fn cost_counts_cached_tokens_once() {
    let cost = |usage| PLAIN.cost(&usage).unwrap();
    assert_eq!(cost(used(1_000_000, 400_000, 0)), 90_000 + 30_000);
    assert_eq!(cost(used(10, 20, 0)), 1, "more cached than sent");
}

/// 2,006 prompt tokens of which 1,920 were cached, 300 written of which 200
/// were reasoning: 86 × 0.15 + 1,920 × 0.075 + 300 × 0.60, per million.
#[test]
fn a_worked_example_where_the_cached_part_is_inside_the_prompt() {
    let usage = Usage {
        reasoning: Some(200),
        ..used(2_006, 1_920, 300)
    };
    // 12.9 + 144 + 180 micro-units.
    assert_eq!(PLAIN.cost(&usage), Some(337));
}

/// Anthropic reports 50 of input, 100,000 read from the cache and 248 written
/// to it beside them; in our form the prompt is the sum of the three.
#[test]
fn a_worked_example_where_the_cached_part_is_beside_the_prompt() {
    let usage = Usage {
        cache_written: Some(248),
        ..used(50 + 100_000 + 248, 100_000, 503)
    };
    // 150 + 30,000 + 930 + 7,545 micro-units.
    assert_eq!(TIERED.cost(&usage), Some(38_625));
    let hour = Usage {
        cache_written_hour: Some(200),
        ..usage
    };
    // 48 at 3.75 and 200 at 6.00 instead of 248 at 3.75.
    assert_eq!(TIERED.cost(&hour), Some(38_625 + 200 * 9 / 4));
}

#[test]
fn a_long_prompt_makes_every_token_dearer_and_the_threshold_itself_does_not() {
    assert_eq!(
        TIERED.cost(&used(200_000, 0, 1_000)),
        Some(600_000 + 15_000)
    );
    assert_eq!(
        TIERED.cost(&used(200_001, 200_000, 1_000)),
        Some(6 + 120_000 + 22_500),
        "cached tokens count towards the length"
    );
}

#[test]
fn reasoning_that_is_priced_apart_is_counted_apart() {
    let mut price = PLAIN;
    price.rates.reasoning_micro_per_mtok = 1_200_000;
    let usage = Usage {
        reasoning: Some(400_000),
        ..used(0, 0, 1_000_000)
    };
    assert_eq!(price.cost(&usage), Some(360_000 + 480_000));
}

#[test]
fn one_token_is_not_free_and_what_is_free_needs_no_count() {
    assert_eq!(PLAIN.cost(&used(1, 0, 0)), Some(1));
    assert_eq!(Price::FREE.cost(&used(1_000, 0, 1_000)), Some(0));
    assert_eq!(Price::FREE.cost(&Usage::default()), Some(0));
    assert_eq!(PLAIN.cost(&Usage::default()), None);
    // Vectors: nothing is written, so nobody needs to say how much.
    let vectors = Price::plain(20_000, 20_000, 0);
    let usage = Usage {
        prompt: Some(1_000_000),
        ..Usage::default()
    };
    assert_eq!(vectors.cost(&usage), Some(20_000));
    assert_eq!(PLAIN.cost(&usage), None);
}

#[test]
fn absurd_counts_saturate() {
    let dear = Price::plain(u64::MAX, 75_000, u64::MAX);
    assert_eq!(dear.cost(&used(u64::MAX, 0, u64::MAX)), Some(u64::MAX));
}

#[test]
fn an_estimate_has_a_likely_and_a_highest_cost() {
    let sizes = Sizes {
        prompt: 1_000,
        most_prompt: 2_000,
        completion: 100,
        most_completion: Some(1_000),
        writes_cache: false,
    };
    let estimate = TIERED.estimate(&sizes);
    assert_eq!(estimate.likely_micro, 3_000 + 1_500);
    assert_eq!(estimate.most_micro, Some(6_000 + 15_000));
    let marked = Sizes {
        writes_cache: true,
        ..sizes
    };
    assert_eq!(TIERED.estimate(&marked).most_micro, Some(12_000 + 15_000));
    let open = Sizes {
        most_completion: None,
        ..sizes
    };
    assert_eq!(TIERED.estimate(&open).most_micro, None);
    assert_eq!(Price::FREE.estimate(&open).most_micro, Some(0));
}

#[test]
fn money_pays_for_so_many_tokens_behind_the_prompt() {
    let sizes = Sizes {
        prompt: 1_000,
        most_prompt: 2_000,
        ..Sizes::default()
    };
    assert_eq!(TIERED.affordable(6_000 + 15, &sizes), Some(1));
    assert_eq!(TIERED.affordable(6_000 + 29, &sizes), Some(1));
    assert_eq!(TIERED.affordable(5_999, &sizes), None);
    assert_eq!(Price::FREE.affordable(0, &sizes), Some(u64::MAX));
}

fn prices() -> impl Strategy<Value = Price> {
    let rates = || {
        proptest::array::uniform6(0u64..90_000_000).prop_map(
            |[prompt, cached, write, hour, completion, reasoning]| Rates {
                prompt_micro_per_mtok: prompt,
                cached_prompt_micro_per_mtok: cached,
                cache_write_micro_per_mtok: write,
                cache_write_hour_micro_per_mtok: hour,
                completion_micro_per_mtok: completion,
                reasoning_micro_per_mtok: reasoning,
            },
        )
    };
    let long = (0u32..400_000, rates()).prop_map(|(above_prompt_tokens, rates)| Long {
        above_prompt_tokens,
        rates,
    });
    (rates(), proptest::option::of(long)).prop_map(|(rates, long)| Price { rates, long })
}

proptest! {
    /// Whatever is counted within the sizes costs no more than was said.
    #[test]
    fn nothing_within_the_sizes_costs_more_than_the_most(
        price in prices(),
        most_prompt in 0u64..500_000,
        most_completion in 0u64..100_000,
        parts in proptest::array::uniform6(0.0..1.0f64),
    ) {
        let share = |whole: u64, part: f64| (whole as f64 * part) as u64;
        let prompt = share(most_prompt, parts[0]);
        let completion = share(most_completion, parts[1]);
        let cached = share(prompt, parts[2]);
        let written = share(prompt - cached, parts[3]);
        let usage = Usage {
            prompt: Some(prompt),
            cached_prompt: Some(cached),
            cache_written: Some(written),
            cache_written_hour: Some(share(written, parts[4])),
            completion: Some(completion),
            reasoning: Some(share(completion, parts[5])),
        };
        let sizes = Sizes {
            prompt,
            most_prompt,
            completion,
            most_completion: Some(most_completion),
            writes_cache: true,
        };
        let most = price.estimate(&sizes).most_micro.unwrap();
        prop_assert!(price.cost(&usage).unwrap() <= most);
        // What is paid for is enough for at least as long an answer.
        let tokens = price.affordable(most, &sizes).unwrap();
        prop_assert!(tokens >= most_completion);
        let tokens = tokens.min(1 << 40);
        let there = Sizes { most_completion: Some(tokens), ..sizes };
        if tokens < 1 << 40 {
            prop_assert!(price.estimate(&there).most_micro.unwrap() <= most);
        }
    }
}
