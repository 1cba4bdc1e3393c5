//! The fast ways give what the plain definitions give, and bad numbers are errors.

#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::Params;
use proptest::prelude::*;

use super::*;

fn plain() -> Settings {
    Settings {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition: 1.0,
        presence: 0.0,
        frequency: 0.0,
        bias: Vec::new(),
        seed: 7,
        logprobs: None,
    }
}

/// The ids that may be drawn, by the definitions and a whole sort.
fn allowed(logits: &[f32], settings: &Settings) -> Vec<u32> {
    let mut all: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    if settings.top_k > 0 {
        all.truncate(settings.top_k);
    }
    let mass: f64 = all.iter().map(|(l, _)| f64::from(l - all[0].0).exp()).sum();
    let mut so_far = 0.0;
    let mut keep = Vec::new();
    for (logit, id) in &all {
        let p = f64::from(logit - all[0].0).exp() / mass;
        let reached = so_far >= f64::from(settings.top_p) - 1e-12;
        if !keep.is_empty() && (reached || *logit < all[0].0 + settings.min_p.ln()) {
            break;
        }
        so_far += p;
        keep.push(*id);
    }
    keep
}

proptest! {
    #[test]
    fn only_what_the_definitions_allow_is_drawn(
        logits in proptest::collection::vec(-8.0f32..8.0, 1..400),
        top_k in 0..40usize,
        top_p in 0.0f32..=1.0,
        min_p in 0.0f32..=1.0,
        temperature in 0.01f32..3.0,
        seed in any::<u64>(),
    ) {
        let settings = Settings { top_k, top_p, min_p, temperature, seed, ..plain() };
        let allowed = allowed(&logits, &settings);
        let mut sampler = Sampler::new(settings, &[]);
        for _ in 0..8 {
            let id = sampler.sample(&mut logits.clone()).unwrap().id;
            prop_assert!(allowed.contains(&id), "{} is not in {:?}", id, allowed);
        }
    }

    #[test]
    fn greedy_is_the_lowest_of_the_best(logits in proptest::collection::vec((-5i8..5).prop_map(f32::from), 1..200)) {
        let settings = Settings { temperature: 0.0, ..plain() };
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let expected = logits.iter().position(|l| *l == best).unwrap() as u32;
        prop_assert_eq!(Sampler::new(settings, &[]).sample(&mut logits.clone()).unwrap().id, expected);
    }

    #[test]
    fn one_seed_one_answer(logits in proptest::collection::vec(-3.0f32..3.0, 2..100), seed in any::<u64>()) {
        let run = || {
            let mut sampler = Sampler::new(Settings { seed, ..plain() }, &[]);
            (0..20).map(|_| sampler.sample(&mut logits.clone()).unwrap().id).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn no_numbers_panic(bits in proptest::collection::vec(any::<u32>(), 0..50), temperature in 0.0f32..2.0) {
        let mut logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let bad = logits.iter().any(|l| l.is_nan() || *l == f32::INFINITY);
        let result = Sampler::new(Settings { temperature, ..plain() }, &[]).sample(&mut logits);
        prop_assert!(!bad || result == Err(SampleError::NotANumber));
    }

    #[test]
    fn logprobs_are_the_model_s_own(logits in proptest::collection::vec(-5.0f32..5.0, 5..80), bias in -100.0f32..100.0) {
        let settings = Settings { logprobs: Some(3), bias: vec![(2, bias)], temperature: 0.3, top_k: 4, repetition: 1.5, ..plain() };
        let mut sampler = Sampler::new(settings, &[1, 2]);
        let choice = sampler.sample(&mut logits.clone()).unwrap();
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let expected = f64::from(logits[choice.id as usize]) - total.ln();
        prop_assert!((f64::from(choice.logprob.unwrap()) - expected).abs() < 1e-4);
        prop_assert_eq!(choice.top.len(), 3);
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        prop_assert!(logits[choice.top[0].0 as usize] == best);
        prop_assert!(choice.top[0].1 >= choice.top[1].1 && choice.top[1].1 >= choice.top[2].1);
    }
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.0f32, 1.0, 2.0];
    let mut counts = [0u32; 3];
    let mut sampler = Sampler::new(plain(), &[]);
    for _ in 0..20_000 {
        counts[sampler.sample(&mut logits.to_vec()).unwrap().id as usize] += 1;
    }
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    for (count, logit) in counts.iter().zip(logits) {
        let expected = f64::from(logit).exp() / total;
        assert!(
            (f64::from(*count) / 20_000.0 - expected).abs() < 0.02,
            "{counts:?}"
        );
    }
}

#[test]
fn each_penalty_lowers_what_was_written() {
    let logits = [2.0f32, 1.9, -1.0];
    for settings in [
        Settings {
            repetition: 2.0,
            ..plain()
        },
        Settings {
            presence: 0.5,
            ..plain()
        },
        Settings {
            frequency: 0.5,
            ..plain()
        },
    ] {
        let mut sampler = Sampler::new(
            Settings {
                temperature: 0.0,
                ..settings
            },
            &[],
        );
        assert_eq!(sampler.sample(&mut logits.to_vec()).unwrap().id, 0);
        assert_eq!(sampler.sample(&mut logits.to_vec()).unwrap().id, 1);
    }
    // The repetition penalty sees the prompt too, the other two do not.
    let repetition = Settings {
        repetition: 2.0,
        temperature: 0.0,
        ..plain()
    };
    assert_eq!(
        Sampler::new(repetition, &[0])
            .sample(&mut logits.to_vec())
            .unwrap()
            .id,
        1
    );
    let presence = Settings {
        presence: 2.0,
        temperature: 0.0,
        ..plain()
    };
    assert_eq!(
        Sampler::new(presence, &[0])
            .sample(&mut logits.to_vec())
            .unwrap()
            .id,
        0
    );
    // A negative logit gets lower, not higher.
    let repetition = Settings {
        repetition: 2.0,
        temperature: 0.0,
        ..plain()
    };
    assert_eq!(
        Sampler::new(repetition, &[0])
            .sample(&mut [-1.0, -1.5])
            .unwrap()
            .id,
        1
    );
}

#[test]
fn a_bias_can_ban_and_force() {
    let logits = [3.0f32, 2.0, 1.0];
    for (bias, expected) in [((0, -100.0), 1), ((2, 100.0), 2)] {
        let settings = Settings {
            bias: vec![bias],
            ..plain()
        };
        assert_eq!(
            Sampler::new(settings, &[])
                .sample(&mut logits.to_vec())
                .unwrap()
                .id,
            expected
        );
    }
}

#[test]
fn out_of_range_names_the_field() {
    let cases: [(&str, Params); 7] = [
        (
            "temperature",
            Params {
                temperature: Some(f32::NAN),
                ..Params::default()
            },
        ),
        (
            "top_p",
            Params {
                top_p: Some(1.5),
                ..Params::default()
            },
        ),
        (
            "min_p",
            Params {
                min_p: Some(-0.1),
                ..Params::default()
            },
        ),
        (
            "repetition_penalty",
            Params {
                repetition_penalty: Some(0.0),
                ..Params::default()
            },
        ),
        (
            "presence_penalty",
            Params {
                presence_penalty: Some(3.0),
                ..Params::default()
            },
        ),
        (
            "logit_bias",
            Params {
                logit_bias: vec![(10, 1.0)],
                ..Params::default()
            },
        ),
        (
            "top_logprobs",
            Params {
                logprobs: Some(99),
                ..Params::default()
            },
        ),
    ];
    for (field, params) in cases {
        let failure = Settings::resolve(&params, &Defaults::default(), 10).unwrap_err();
        assert_eq!(failure.field.as_deref(), Some(field));
        assert!(failure.message.contains(field), "{}", failure.message);
    }
}

#[test]
fn the_gaps_are_filled_from_the_file_s_recommendation() {
    let defaults = Defaults {
        temperature: 0.0,
        top_k: 3,
        ..Defaults::default()
    };
    let own = Params {
        top_k: Some(0),
        ..Params::default()
    };
    let settings = Settings::resolve(&own, &defaults, 10).unwrap();
    assert_eq!(
        (settings.temperature, settings.top_k, settings.top_p),
        (0.0, 0, 0.95)
    );
}
