//! A draft changes no answer, only how many steps it takes.

#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::{Params, ResponseFormat};
use proptest::prelude::*;

use super::batch_tests::{begin, chat, finish, make_guesses_pay, plain};
use super::*;
use crate::tiny::{IM_END, ask, chain, ordered, random, ready};

fn drafted(model: Vec<u8>, draft: Vec<u8>) -> Arc<ReadyModel> {
    Arc::new(ready(model).with_draft(ready(draft)).unwrap())
}

/// A text of 200 tokens in which nothing comes twice, or the same backwards:
/// what follows a token in one never follows it in the other.
fn text(backwards: bool) -> Vec<u8> {
    let pieces: Vec<String> = (0..200).map(|n| format!("{n} ")).collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    let mut order: Vec<usize> = (0..200).collect();
    if backwards {
        order.reverse();
    }
    ordered(b'\n', &pieces, &order, true)
}

/// A question whose answer does not repeat itself, so that nothing but the
/// draft guesses.
fn lively(text: &str, max_tokens: u32) -> Chat {
    let mut asked = chat(text, max_tokens);
    asked.params.presence_penalty = Some(2.0);
    asked.params.logit_bias = vec![(IM_END, -100.0)];
    asked
}

/// Steps an answer to its end; returns how many that took.
fn steps(ready: &Arc<ReadyModel>, generation: &mut Generation) -> usize {
    let mut events = Vec::new();
    for step in 1.. {
        make_guesses_pay(ready);
        if generation.step(&mut events).unwrap() == Progress::Finished {
            return step;
        }
    }
    unreachable!()
}

#[test]
fn a_model_accepts_all_that_it_drafts_itself() {
    for (temperature, seed) in [(0.0, 1), (0.7, 2), (1.0, 3), (2.0, 4)] {
        let ready = drafted(random(4), random(4));
        let mut asked = lively("what is new", 80);
        asked.params.temperature = Some(temperature);
        asked.params.seed = Some(seed);
        let mut generation = begin(&ready, &asked);
        let steps = steps(&ready, &mut generation);
        let timings = generation.timings();
        assert!(timings.drafted_tokens > 20, "at {temperature}: {timings:?}");
        assert_eq!(timings.drafted_accepted, timings.drafted_tokens);
        assert!(
            steps < 40,
            "{steps} steps for {} tokens",
            timings.decode_tokens
        );
        let load = ready.draft_load().unwrap();
        assert!(
            load.acceptance.unwrap() > 0.7 && load.gain.unwrap() > 1.0,
            "{load:?}"
        );
        assert_eq!(load.accepted_tokens, u64::from(timings.drafted_accepted));
    }
}

#[test]
fn a_draft_that_is_always_wrong_switches_itself_off_and_is_tried_now_and_then() {
    let ready = drafted(text(false), text(true));
    let asked = chat("hi", 190);
    let mut generation = begin(&ready, &asked);
    steps(&ready, &mut generation);
    assert_eq!(generation.written(), plain(&ready, &asked));
    let timings = generation.timings();
    assert_eq!(timings.drafted_accepted, 0);
    assert!((8..500).contains(&timings.drafted_tokens), "{timings:?}");
    let load = ready.draft_load().unwrap();
    assert_eq!(load.gain, Some(1.0));
    // The next answer begins with what was learned.
    let mut next = begin(&ready, &asked);
    steps(&ready, &mut next);
    assert!(next.timings().drafted_tokens < timings.drafted_tokens);
}

#[test]
fn what_a_draft_has_read_is_kept_for_the_next_answer() {
    let ready = drafted(random(3), random(3));
    let draft = ready.draft().unwrap().ready();
    let long = "a question that takes more than a few steps to read ".repeat(4);
    let asked = lively(&long, 60);
    let (first, _) = finish(&ready, begin(&ready, &asked), true);
    let prompt = begin(&ready, &asked).tokens;
    assert!(draft.known_tokens(&[prompt.clone(), first].concat()) > prompt.len());
    let mut again = begin(&ready, &asked);
    again.step(&mut Vec::new()).unwrap();
    make_guesses_pay(&ready);
    again.step(&mut Vec::new()).unwrap();
    assert!(
        again.timings().drafted_tokens > 0,
        "proposals from the first step on"
    );
}

#[test]
fn a_draft_with_other_tokens_is_refused_with_the_first_difference() {
    let pieces = |second: &'static [u8]| chain(b'\n', &[&b"one"[..], second], false);
    let model = || ready(pieces(b"two"));
    let refused = |draft: Vec<u8>| model().with_draft(ready(draft)).err().unwrap().to_string();
    let told = refused(pieces(b"2"));
    assert!(
        told.contains("token 260 is \"two\"") && told.contains("\"2\""),
        "{told}"
    );
    let told = refused(chain(b'\n', &[b"one"], false));
    assert!(told.contains("missing in the draft's"), "{told}");
    assert!(model().with_draft(ready(pieces(b"two"))).is_ok());
}

#[test]
fn a_draft_without_room_costs_nothing_but_itself() {
    let ready = drafted(random(5), random(5));
    let pool = ready.draft().unwrap().ready().model.kv_pool().clone();
    pool.set_budget_bytes(2 * pool.block_bytes());
    let asked = chat(&"a long question ".repeat(5), 30);
    let (told, timings) = finish(&ready, begin(&ready, &asked), true);
    assert_eq!(told, plain(&ready, &asked));
    assert_eq!(timings.drafted_tokens, 0);
}

/// A JSON object under a schema, by models that would rather write anything else.
fn formed(max_tokens: u32, temperature: f32, seed: i64) -> Chat {
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
        "on": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
        "required": ["name", "on", "level"], "additionalProperties": false}"#;
    Chat {
        response_format: ResponseFormat::JsonSchema {
            name: "a".into(),
            schema: schema.into(),
            strict: None,
        },
        params: Params {
            max_tokens: Some(max_tokens),
            temperature: Some(temperature),
            seed: Some(seed),
            ..Params::default()
        },
        ..ask("fill it in")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With a seed, no draft changes a token, in free text or under a schema.
    #[test]
    fn a_draft_changes_no_draw(
        (model, draft) in (0u64..4, 0u64..8),
        seed in any::<i64>(),
        temperature in prop_oneof![Just(0.0f32), 0.2f32..1.5],
        limit in 1u32..60,
        form in any::<bool>(),
        logprobs in any::<bool>(),
    ) {
        let mut asked = match form {
            true => formed(limit, temperature, seed),
            false => chat("tell me", limit),
        };
        asked.params.temperature = Some(temperature);
        asked.params.seed = Some(seed);
        asked.params.repetition_penalty = Some(1.1);
        asked.params.logprobs = logprobs.then_some(1);
        let alone = Arc::new(ready(random(model)));
        let with = drafted(random(model), random(draft));
        let (expected, _) = finish(&alone, begin(&alone, &asked), false);
        let (told, _) = finish(&with, begin(&with, &asked), true);
        prop_assert_eq!(told, expected);
    }
}

#[test]
fn a_schema_is_drafted_too() {
    let ready = drafted(random(2), random(2));
    let (_, timings) = finish(&ready, begin(&ready, &formed(80, 0.0, 0)), true);
    assert!(timings.drafted_tokens > 0, "{timings:?}");
    assert_eq!(timings.drafted_accepted, timings.drafted_tokens);
}

/// Pearson's test over all beginnings of three tokens out of three: with a draft of
/// other weights, and so with proposals right and wrong, the answers' shares
/// are the model's probabilities.
#[test]
fn the_distribution_is_the_model_s_own() {
    const ANSWERS: i64 = 1_200;
    let choices = [u32::from(b'a'), u32::from(b'b'), u32::from(b'c')];
    let ready = drafted(random(1), random(2));
    let mut asked = chat("which", 4);
    asked.params.temperature = Some(1.0);
    asked.params.top_k = Some(0);
    asked.params.top_p = Some(1.0);
    asked.params.min_p = Some(0.0);
    asked.params.logit_bias = choices.map(|id| (id, 100.0)).to_vec();
    let prompt = begin(&ready, &asked).tokens;
    // Probabilities by the definition.
    let mut expected = std::collections::BTreeMap::new();
    for text in 0..27usize {
        let text = [text / 9, text / 3 % 3, text % 3].map(|place| choices[place]);
        let mut cache = ready.model.new_cache();
        let mut feed = prompt.clone();
        let mut probability = 1.0f64;
        for id in text {
            let logits = ready.model.forward(&mut cache, &feed).unwrap();
            let weight = |id: u32| f64::from(logits[id as usize]).exp();
            probability *= weight(id) / choices.iter().map(|id| weight(*id)).sum::<f64>();
            feed = vec![id];
        }
        expected.insert(text.to_vec(), probability);
    }
    let mut counts = std::collections::BTreeMap::new();
    let (mut proposed, mut accepted) = (0, 0);
    for seed in 0..ANSWERS {
        asked.params.seed = Some(seed);
        let (told, timings) = finish(&ready, begin(&ready, &asked), true);
        proposed += timings.drafted_tokens;
        accepted += timings.drafted_accepted;
        *counts.entry(told[..3].to_vec()).or_insert(0u32) += 1;
    }
    assert!(
        accepted > 200 && proposed - accepted > 200,
        "{accepted} of {proposed}"
    );
    let statistic: f64 = expected
        .iter()
        .map(|(text, probability)| {
            let wanted = probability * ANSWERS as f64;
            let count = f64::from(counts.get(text).copied().unwrap_or(0));
            (count - wanted) * (count - wanted) / wanted
        })
        .sum();
    assert_eq!(counts.values().sum::<u32>() as i64, ANSWERS);
    assert!(counts.keys().all(|text| expected.contains_key(text)));
    // 26 degrees of freedom: more than this comes once in ten thousand.
    assert!(statistic < 61.7, "{statistic}");
}
