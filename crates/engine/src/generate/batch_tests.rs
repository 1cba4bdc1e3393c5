//! Answers that share steps are what each would have been alone.

#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::Params;
use proptest::prelude::*;

use super::*;
use crate::tiny::{ask, chain, random, ready};

pub(super) const SHARED: &str = "Answer in few words. The house has three rooms and a garden. ";

pub(super) fn chat(text: &str, max_tokens: u32) -> Chat {
    Chat {
        params: Params {
            max_tokens: Some(max_tokens),
            ..Params::default()
        },
        ..ask(text)
    }
}

/// The likeliest tokens, by the plainest loop there is.
pub(super) fn plain(ready: &ReadyModel, chat: &Chat) -> Vec<u32> {
    let prepared = Generation::prepare(ready, chat, "").unwrap();
    let mut cache = ready.model.new_cache();
    let mut logits = ready.model.forward(&mut cache, &prepared.tokens).unwrap();
    let mut written = Vec::new();
    loop {
        logits.truncate(ready.tokenizer.vocab_size());
        let best = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
        let id = (0..logits.len()).fold(0, best) as u32;
        if ready.tokenizer.ends_generation(id) {
            return written;
        }
        written.push(id);
        if written.len() >= prepared.limit {
            return written;
        }
        logits = ready.model.forward(&mut cache, &[id]).unwrap();
    }
}

/// Makes the model believe that a step's time hardly grows with its tokens, so
/// that every guess is checked.
pub(super) fn make_guesses_pay(ready: &ReadyModel) {
    for _ in 0..3 {
        if let Some(draft) = ready.draft() {
            draft.ready().measured(1, Duration::from_millis(1));
            draft.ready().measured(64, Duration::from_millis(2));
        }
        ready.measured(1, Duration::from_secs(20));
        ready.measured(64, Duration::from_millis(20_001));
    }
}

pub(super) fn begin(ready: &Arc<ReadyModel>, chat: &Chat) -> Generation {
    let prepared = Generation::prepare(ready, chat, "").unwrap();
    Generation::new(Arc::clone(ready), prepared)
}

/// Steps one answer alone to its end.
pub(super) fn finish(
    ready: &Arc<ReadyModel>,
    mut generation: Generation,
    guesses: bool,
) -> (Vec<u32>, Timings) {
    let mut events = Vec::new();
    loop {
        if guesses {
            make_guesses_pay(ready);
        }
        if generation.step(&mut events).unwrap() == Progress::Finished {
            let told = (generation.written().to_vec(), generation.timings());
            generation.keep();
            return told;
        }
    }
}

#[derive(Debug, Clone)]
struct Case {
    model: u64,
    /// Random weights of a draft; the model's own are the best there is.
    draft: Option<u64>,
    /// Text and limit of each answer.
    asked: Vec<(String, u32)>,
    guesses: bool,
    /// Room for keys and values, in blocks; each prompt fits alone.
    room: u64,
    /// Per step: pieces of prompts, who takes part, who is cancelled.
    steps: Vec<(usize, u32, Option<usize>)>,
}

fn cases() -> impl Strategy<Value = Case> {
    let text = prop_oneof![
        "[a-z ]{0,40}".prop_map(|text| text),
        "[a-z ]{0,40}".prop_map(|text| format!("{SHARED}{text}")),
        Just(SHARED.repeat(3)),
    ];
    let cancel = prop_oneof![9 => Just(None), 1 => (0usize..6).prop_map(Some)];
    (
        (0u64..4, prop::option::of(0u64..8)),
        prop::collection::vec((text, 1u32..30), 1..6),
        any::<bool>(),
        prop_oneof![Just(1_000u64), 24u64..40],
        prop::collection::vec((1usize..48, any::<u32>(), cancel), 1..60),
    )
        .prop_map(|((model, draft), asked, guesses, room, steps)| Case {
            model,
            draft,
            asked,
            guesses,
            room,
            steps,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Batches, pieces of any size, kept prefixes, guesses, drafts and
    /// cancellations change no greedy token.
    #[test]
    fn company_changes_no_token(case in cases()) {
        let model = ready(random(case.model));
        let ready = Arc::new(match case.draft {
            Some(seed) => model.with_draft(ready(random(seed))).unwrap(),
            None => model,
        });
        let chats: Vec<Chat> = case.asked.iter().map(|(text, limit)| chat(text, *limit)).collect();
        let expected: Vec<Vec<u32>> = chats.iter().map(|chat| plain(&ready, chat)).collect();
        let pool = ready.model.kv_pool().clone();
        pool.set_budget_bytes(case.room * pool.block_bytes());
        let mut running: Vec<Option<Generation>> =
            chats.iter().map(|chat| Some(begin(&ready, chat))).collect();
        let last = case.steps.last().copied().unwrap();
        let mut steps = case.steps.iter().copied().chain(std::iter::repeat((last.0, u32::MAX, None)));
        while running.iter().any(Option::is_some) {
            let (piece, mask, cancelled) = steps.next().unwrap();
            if let Some(generation) = cancelled.and_then(|index| running.get_mut(index)).and_then(Option::take) {
                let index = cancelled.unwrap();
                prop_assert!(expected[index].starts_with(generation.written()));
                generation.keep();
            }
            if case.guesses {
                make_guesses_pay(&ready);
            }
            let mut indexes = Vec::new();
            let mut turns: Vec<Turn<'_>> = Vec::new();
            for (index, generation) in running.iter_mut().enumerate() {
                if let Some(generation) = generation.as_mut() {
                    indexes.push(index);
                    let piece = if mask >> index & 1 == 1 { piece } else { 0 };
                    turns.push(Turn::new(generation, piece));
                }
            }
            step(&ready, &mut turns);
            let outcomes: Vec<_> = turns.into_iter().map(|turn| turn.outcome.unwrap()).collect();
            for (index, outcome) in indexes.into_iter().zip(outcomes) {
                if outcome == Progress::Finished {
                    let generation = running[index].take().unwrap();
                    prop_assert_eq!(generation.written(), expected[index].as_slice());
                    generation.keep();
                }
            }
        }
        prop_assert!(pool.used_bytes() <= pool.budget_bytes());
        // What was kept is as good as new.
        for (chat, expected) in chats.iter().zip(&expected) {
            let (told, _) = finish(&ready, begin(&ready, chat), case.guesses);
            prop_assert_eq!(&told, expected);
        }
        // Nothing but what is kept takes room.
        prop_assert!(ready.make_room(pool.budget_bytes()));
        prop_assert_eq!(pool.used_bytes(), 0);
    }

    /// With a seed, guesses change no sampled token either.
    #[test]
    fn guesses_change_no_draw(model in 0u64..4, seed in any::<i64>(), text in "[a-c ]{0,60}") {
        let ready = Arc::new(ready(random(model)));
        let mut asked = chat(&text, 40);
        asked.params.seed = Some(seed);
        asked.params.temperature = Some(0.3);
        asked.params.repetition_penalty = Some(1.1);
        let (without, _) = finish(&ready, begin(&ready, &asked), false);
        let (with, _) = finish(&ready, begin(&ready, &asked), true);
        prop_assert_eq!(with, without);
    }
}

#[test]
fn guesses_save_steps_where_an_answer_repeats() {
    let pieces: [&[u8]; 5] = [b"one ", b"two ", b"three ", b"four ", b"five "];
    let ready = Arc::new(ready(chain(b'\n', &pieces, true)));
    let asked = chat("hi", 100);
    let mut generation = begin(&ready, &asked);
    let (mut steps, mut events) = (0, Vec::new());
    loop {
        make_guesses_pay(&ready);
        steps += 1;
        if generation.step(&mut events).unwrap() == Progress::Finished {
            break;
        }
    }
    let timings = generation.timings();
    assert_eq!(timings.decode_tokens, 100);
    assert!(steps < 45, "{steps} steps for 100 tokens");
    assert!(timings.accepted_tokens >= 60 && timings.accepted_tokens <= timings.guessed_tokens);
    assert_eq!(generation.written(), plain(&ready, &asked));
}

#[test]
fn an_answer_says_how_sure_the_model_was() {
    let ready = Arc::new(ready(chain(b'\n', &[b"Hel", b"lo."], false)));
    let (_, timings) = finish(&ready, begin(&ready, &ask("hi")), false);
    let confidence = timings.confidence;
    assert_eq!(
        confidence.tokens, 3,
        "the end of the answer is a choice, too"
    );
    assert!(confidence.min_margin > 0.0 && confidence.min_margin <= confidence.mean_margin);
    assert!(confidence.mean_entropy > 0.0);
}

#[test]
fn a_prompt_computed_ahead_is_found_by_its_answer() {
    let ready = Arc::new(ready(random(5)));
    let asked = chat(&SHARED.repeat(2), 10);
    let expected = plain(&ready, &asked);
    let prefill = |ready: &Arc<ReadyModel>| {
        let prepared = Generation::prepare(ready, &asked, "").unwrap();
        Generation::with(Arc::clone(ready), prepared, Purpose::Prefill { pin: false })
    };
    let (written, timings) = finish(&ready, prefill(&ready), false);
    assert!(written.is_empty() && timings.cached_tokens == 0 && timings.prefill_tokens > 100);
    // Once more: there is nothing left to compute.
    let (_, again) = finish(&ready, prefill(&ready), false);
    assert_eq!(
        (again.prefill_tokens, again.cached_tokens),
        (0, timings.prefill_tokens)
    );
    let (written, answered) = finish(&ready, begin(&ready, &asked), false);
    assert_eq!((written, answered.prefill_tokens), (expected, 1));
}

#[test]
fn what_others_are_computing_is_not_computed_twice() {
    let ready = Arc::new(ready(random(6)));
    let texts: Vec<Chat> = (0..4)
        .map(|n| chat(&format!("{}question {n}", SHARED.repeat(3)), 8))
        .collect();
    let expected: Vec<Vec<u32>> = texts.iter().map(|chat| plain(&ready, chat)).collect();
    let mut running: Vec<Generation> = texts.iter().map(|chat| begin(&ready, chat)).collect();
    let mut done = vec![false; 4];
    while done.iter().any(|done| !done) {
        let mut turns: Vec<Turn<'_>> = running
            .iter_mut()
            .zip(&done)
            .map(|(generation, done)| Turn::new(generation, if *done { 0 } else { 32 }))
            .collect();
        step(&ready, &mut turns);
        for (turn, done) in turns.into_iter().zip(&mut done) {
            *done |= turn.outcome.unwrap() == Progress::Finished;
        }
    }
    for (generation, expected) in running.iter().zip(&expected) {
        assert_eq!(generation.written(), expected.as_slice());
    }
    let computed: u32 = running.iter().map(|g| g.timings().prefill_tokens).sum();
    let once = running[0].prompt_tokens as u32;
    assert!(
        computed < once + 4 * 64,
        "{computed} tokens for 4 prompts of {once}"
    );
}

#[test]
fn a_conversation_that_does_not_fit_at_all_is_refused_with_figures() {
    let ready = Arc::new(ready(random(6)));
    let pool = ready.model.kv_pool();
    pool.set_budget_bytes(4 * pool.block_bytes());
    let mut generation = begin(&ready, &chat(&SHARED.repeat(3), 8));
    let failure = generation.step(&mut Vec::new()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Overloaded);
    assert!(
        failure.message.contains("bytes are in use"),
        "{}",
        failure.message
    );
}

/// Many answers, most of them dropped somewhere on their way: no block is lost.
#[test]
fn the_blocks_are_back_when_all_have_ended() {
    let ready = Arc::new(ready(random(6)));
    let pool = ready.model.kv_pool();
    pool.set_budget_bytes(100 * pool.block_bytes());
    let mut state = 3u32;
    let mut next = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let mut running: Vec<Generation> = Vec::new();
    let mut begun = 0;
    while begun < 2_000 || !running.is_empty() {
        while begun < 2_000 && running.len() < 6 {
            let text = &SHARED[..next(SHARED.len() as u32) as usize];
            running.push(begin(
                &ready,
                &chat(&format!("{text}{}", next(9)), 1 + next(8)),
            ));
            begun += 1;
        }
        if next(2) == 0 {
            running
                .swap_remove(next(running.len() as u32) as usize)
                .keep();
        }
        let mut turns: Vec<Turn<'_>> = running
            .iter_mut()
            .map(|generation| Turn::new(generation, next(40) as usize))
            .collect();
        step(&ready, &mut turns);
        let outcomes: Vec<_> = turns
            .into_iter()
            .map(|turn| turn.outcome.unwrap())
            .collect();
        for (index, outcome) in outcomes.into_iter().enumerate().rev() {
            if outcome == Progress::Finished {
                running.swap_remove(index).keep();
            }
        }
    }
    assert!(pool.used_bytes() > 0, "prompts are kept");
    assert!(ready.make_room(pool.budget_bytes()));
    assert_eq!(pool.used_bytes(), 0);
}
