//! Blocks of keys and values: shared, copied before they are written to, within
//! a budget, and used again.

use super::*;

/// The logits after each token of `prompt`, in a sequence of its own.
fn alone(model: &Model, prompt: &[u32]) -> Vec<Vec<f32>> {
    model.forward_all(&mut model.new_cache(), prompt).unwrap()
}

#[test]
fn forks_share_blocks_and_do_not_see_each_other() {
    for executor in executors() {
        forks(executor);
    }
}

fn forks(executor: Executor) {
    let tiny = tiny::plain("fork", "qwen3");
    let model = load_on(&tiny, executor);
    let prompt: Vec<u32> = (0..40).map(|i| i * 7 % tiny.vocab as u32).collect();
    let other: Vec<u32> = prompt.iter().map(|id| (id + 1) % 48).collect();
    for at in [1, 15, 16, 17, 32, 39] {
        let mut first = model.new_cache();
        model.forward(&mut first, &prompt).unwrap();
        let used = model.kv_pool().used_bytes();
        let mut second = first.fork(at);
        assert_eq!(second.len(), at);
        assert_eq!(model.kv_pool().used_bytes(), used, "a fork costs nothing");

        let mut mixed = prompt[..at].to_vec();
        mixed.extend(&other[at..]);
        let logits = model.forward(&mut second, &other[at..]).unwrap();
        assert_eq!(&logits, alone(&model, &mixed).last().unwrap(), "at {at}");

        // Nothing of the first sequence has changed.
        first.truncate(39);
        let logits = model.forward(&mut first, &prompt[39..]).unwrap();
        assert_eq!(&logits, alone(&model, &prompt).last().unwrap(), "at {at}");
    }
    assert_eq!(model.kv_pool().used_bytes(), 0);
}

fn load_int8(tiny: &Tiny, executor: Executor) -> Model {
    let options = LoadOptions {
        context_tokens: Some(tiny.load_context),
        executor,
        kv: KvNumbers::Int8,
        threads: Some(1),
        ..LoadOptions::default()
    };
    Model::load_with(&open(tiny.file()).unwrap(), &options).unwrap()
}

/// Keys and values of 8 bits: half the memory, the same bits however a prompt is
/// cut and shared, logits close to those of 16 bits, and blocks that come back
/// from disk as they were.
#[test]
fn bytes_hold_a_conversation_too() {
    for tiny in tiny::all() {
        for executor in executors() {
            let (model, whole) = (load_int8(&tiny, executor), load_on(&tiny, executor));
            let Executor::Kernels(_) = model.executor() else {
                assert_eq!(model.cache_bytes_per_token(), whole.cache_bytes_per_token());
                continue;
            };
            let (less, more) = (model.cache_bytes_per_token(), whole.cache_bytes_per_token());
            // 16 numbers of a head, as in tiny models, have a scale of 4 bytes.
            assert!(less * 8 <= more * 5, "{less} of {more} bytes");
            assert_ne!(model.kv_pool().layout_text(), whole.kv_pool().layout_text());
            let prompt = tiny::prompt(tiny.vocab);
            let expected = alone(&model, &prompt);
            let exact = alone(&whole, &prompt);
            let spread = exact
                .iter()
                .flatten()
                .fold(0f32, |most, x| most.max(x.abs()));
            for (a, b) in expected.iter().zip(&exact) {
                let off = distance(a, b);
                assert!(
                    off < 0.08 * spread,
                    "{} {executor:?}: {off} of {spread}",
                    tiny.name
                );
            }
            let mut first = model.new_cache();
            model.forward(&mut first, &prompt[..17]).unwrap();
            let mut fork = first.fork(9);
            model.forward(&mut fork, &prompt[10..13]).unwrap();
            let last = model.forward(&mut first, &prompt[17..]).unwrap();
            assert_eq!(
                &last,
                expected.last().unwrap(),
                "{} {executor:?}",
                tiny.name
            );
            first.truncate(11);
            let blocks: Vec<KvBlock> = first
                .blocks()
                .iter()
                .map(|block| {
                    model
                        .kv_pool()
                        .block_from_bytes(&block.to_bytes(11))
                        .unwrap()
                })
                .collect();
            let mut read = model.kv_pool().cache_of(&blocks, 11).unwrap();
            let last = model.forward(&mut read, &prompt[11..]).unwrap();
            assert_eq!(
                &last,
                expected.last().unwrap(),
                "{} {executor:?}",
                tiny.name
            );
        }
    }
}

#[test]
fn a_step_of_many_sequences_is_each_ones_own_step() {
    let cases = tiny::all().into_iter().flat_map(|tiny| {
        [Executor::Reference, Executor::default()]
            .into_iter()
            .map(move |executor| (tiny.clone(), executor))
    });
    for (tiny, executor) in cases {
        let model = load_on(&tiny, executor);
        let prompt = tiny::prompt(tiny.vocab);
        let expected = alone(&model, &prompt);
        let mut caches: Vec<Cache> = (0..3).map(|_| model.new_cache()).collect();
        model.forward(&mut caches[1], &prompt[..9]).unwrap();
        model.forward(&mut caches[2], &prompt[..20]).unwrap();
        let [a, b, c] = caches.as_mut_slice() else {
            unreachable!()
        };
        let part = |cache, from: usize, to: usize, logits| Part {
            cache,
            tokens: &prompt[from..to],
            logits,
        };
        let logits = model
            .step(&mut [
                part(a, 0, 5, Wanted::None),
                part(b, 9, 24, Wanted::All),
                part(c, 20, 21, Wanted::Last),
            ])
            .unwrap();
        assert_eq!(logits.len(), 16);
        assert_eq!(logits[..15], expected[9..24], "{} {executor:?}", tiny.name);
        assert_eq!(logits[15], expected[20], "{} {executor:?}", tiny.name);
        let last = model.forward(&mut caches[0], &prompt[5..]).unwrap();
        assert_eq!(last, expected[23], "{} {executor:?}", tiny.name);
    }
}

#[test]
fn a_budget_is_kept_and_its_refusal_leaves_all_sequences_alone() {
    let tiny = tiny::plain("budget", "llama");
    let gguf = open(tiny.file()).unwrap();
    let options = |blocks: u64, bytes: u64| LoadOptions {
        cache_bytes: Some(blocks * bytes),
        ..LoadOptions::default()
    };
    let bytes = Model::load(&gguf).unwrap().kv_pool().block_bytes();
    let model = Model::load_with(&gguf, &options(3, bytes)).unwrap();
    let mut first = model.new_cache();
    let mut second = model.new_cache();
    model.forward(&mut first, &[1; 20]).unwrap();
    model.forward(&mut second, &[2; 10]).unwrap();
    let error = model
        .step(&mut [
            Part {
                cache: &mut first,
                tokens: &[3; 4],
                logits: Wanted::Last,
            },
            Part {
                cache: &mut second,
                tokens: &[3; 10],
                logits: Wanted::Last,
            },
        ])
        .unwrap_err();
    assert_eq!(error.kind(), FailureKind::Overloaded);
    assert!(
        error.to_string().contains(&(3 * bytes).to_string()),
        "{error}"
    );
    assert_eq!((first.len(), second.len()), (20, 10));
    assert_eq!(model.kv_pool().used_bytes(), 3 * bytes);

    // What is dropped makes room, and is used again.
    drop(first);
    assert_eq!(model.kv_pool().used_bytes(), bytes);
    assert_eq!(model.kv_pool().memory_bytes(), 3 * bytes);
    model.forward(&mut second, &[3; 20]).unwrap();
    assert_eq!(model.kv_pool().memory_bytes(), 3 * bytes);
    let fresh = Model::load(&gguf).unwrap();
    let prompt: Vec<u32> = [2; 10].into_iter().chain([3; 20]).collect();
    second.truncate(29);
    assert_eq!(
        &model.forward(&mut second, &[3]).unwrap(),
        alone(&fresh, &prompt).last().unwrap()
    );

    drop(second);
    model.kv_pool().release();
    assert_eq!(model.kv_pool().memory_bytes(), 0);
    model.kv_pool().set_budget_bytes(0);
    let error = model.forward(&mut model.new_cache(), &[1]).unwrap_err();
    assert!(matches!(error, ModelError::NoRoom { used_bytes: 0, .. }));
}

#[test]
fn blocks_can_be_held_and_written_out() {
    for executor in executors() {
        written_out(executor);
    }
}

fn written_out(executor: Executor) {
    let tiny = tiny::plain("blocks", "gemma3");
    let model = load_on(&tiny, executor);
    let prompt: Vec<u32> = (0..32).map(|i| i * 5 % 48).collect();
    let mut cache = model.new_cache();
    model.forward(&mut cache, &prompt).unwrap();
    let expected = model.forward(&mut cache.fork(32), &[7]).unwrap();
    let held = cache.blocks().to_vec();
    let bytes: Vec<Vec<u8>> = held.iter().map(|block| block.to_bytes(16)).collect();
    drop(cache);
    assert_eq!(held[0].holders(), 1);

    let pool = model.kv_pool();
    let mut again = pool.cache_of(&held, 32).unwrap();
    assert_eq!(model.forward(&mut again, &[7]).unwrap(), expected);
    drop((again, held));
    let read: Vec<KvBlock> = bytes
        .iter()
        .map(|bytes| pool.block_from_bytes(bytes).unwrap())
        .collect();
    let mut again = pool.cache_of(&read, 32).unwrap();
    assert_eq!(model.forward(&mut again, &[7]).unwrap(), expected);

    assert!(pool.block_from_bytes(&bytes[0][1..]).is_err());
    assert!(pool.cache_of(&read, 33).is_err());
    assert!(load(&tiny).kv_pool().cache_of(&read, 32).is_err());
}

/// What lies behind a sequence's end in its last block is somebody else's.
#[test]
fn a_block_is_written_out_up_to_its_sequences_end() {
    for executor in executors() {
        let tiny = tiny::plain("parts", "qwen3");
        let model = load_on(&tiny, executor);
        let prompt: Vec<u32> = (0..16).map(|i| i * 5 % 48).collect();
        let mut whole = model.new_cache();
        model.forward(&mut whole, &prompt).unwrap();
        let pool = model.kv_pool();
        for filled in 1..16 {
            let bytes = whole.blocks()[0].to_bytes(filled);
            // The same as that of a sequence that never was longer.
            let mut short = model.new_cache();
            model.forward(&mut short, &prompt[..filled]).unwrap();
            assert_eq!(
                bytes,
                short.blocks()[0].to_bytes(16),
                "{filled} {executor:?}"
            );
            let block = pool.block_from_bytes(&bytes).unwrap();
            let mut again = pool.cache_of(&[block], filled).unwrap();
            let expected = model.forward(&mut short, &[7]).unwrap();
            assert_eq!(model.forward(&mut again, &[7]).unwrap(), expected);
        }
        assert_eq!(whole.blocks()[0].to_bytes(0), vec![0; bytes_of(pool)]);
    }
}

fn bytes_of(pool: &KvPool) -> usize {
    usize::try_from(pool.block_bytes()).unwrap()
}
