//! Layers on a device: the library's own processor device everywhere, and a
//! graphics processor where this build has one and it answers.

use super::*;

/// Ways to place a model: all layers on the device, and only the last one.
fn placements() -> Vec<LoadOptions> {
    let mut devices = vec![LoadOptions {
        executor: Executor::Tensors,
        ..LoadOptions::default()
    }];
    let auto = LoadOptions {
        placement: Placement {
            device: Device::Auto,
            ..Placement::default()
        },
        ..LoadOptions::default()
    };
    let gguf = open(tiny::plain("probe", "llama").file()).unwrap();
    if Model::load_with(&gguf, &auto).unwrap().executor() == Executor::Tensors {
        devices.push(auto);
    } else {
        println!("SKIPPED: no graphics processor here; tensors are tried on the processor alone");
    }
    let layers = [None, Some(1)];
    let split = |options: LoadOptions| {
        layers.map(|layers| LoadOptions {
            placement: Placement {
                layers,
                ..options.placement
            },
            threads: Some(1),
            ..options.clone()
        })
    };
    devices.into_iter().flat_map(split).collect()
}

fn placed(tiny: &Tiny, options: &LoadOptions) -> Model {
    let options = LoadOptions {
        context_tokens: Some(tiny.load_context),
        ..options.clone()
    };
    let model = Model::load_with(&open(tiny.file()).unwrap(), &options).unwrap();
    assert_eq!(model.executor(), Executor::Tensors);
    model
}

const FAMILIES: [&str; 7] = [
    "llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3", "granite",
];
/// What the order of additions may change in plain numbers.
const ROUNDING: f32 = 2e-3;

#[track_caller]
fn close(a: &[f32], b: &[f32], what: &str) {
    let off = distance(a, b);
    assert!(off <= ROUNDING, "{what}: {off}");
}

#[test]
fn placed_layers_compute_what_the_others_do() {
    for options in placements() {
        for family in FAMILIES {
            let tiny = tiny::plain("placed", family);
            let prompt = tiny::prompt(tiny.vocab);
            let expected = load_on(&tiny, Executor::Reference);
            let expected = expected
                .forward_all(&mut expected.new_cache(), &prompt)
                .unwrap();
            let model = placed(&tiny, &options);
            for size in [1, 7, prompt.len()] {
                let mut cache = model.new_cache();
                let mut rows = Vec::new();
                for piece in prompt.chunks(size) {
                    rows.extend(model.forward_all(&mut cache, piece).unwrap());
                }
                let what = format!("{family} {:?} in pieces of {size}", options.placement);
                assert_eq!(rows.len(), expected.len());
                for (row, expected) in rows.iter().zip(&expected) {
                    close(row, expected, &what);
                }
            }
        }
    }
}

#[test]
fn placed_sequences_fork_share_steps_and_keep_their_budget() {
    let tiny = tiny::plain("placed", "qwen3");
    let prompt: Vec<u32> = (0..40).map(|i| i * 7 % tiny.vocab as u32).collect();
    for options in placements() {
        let model = placed(&tiny, &options);
        let pool = model.kv_pool();
        let alone = |prompt: &[u32]| model.forward(&mut model.new_cache(), prompt).unwrap();
        let mut first = model.new_cache();
        model.forward(&mut first, &prompt).unwrap();
        let used = pool.used_bytes();
        let mut second = first.fork(20);
        assert_eq!(pool.used_bytes(), used, "a fork costs nothing");
        let mut mixed = prompt[..20].to_vec();
        mixed.extend([3, 1, 4]);
        // Writes to a shared block, with another sequence in the same step.
        first.truncate(39);
        let logits = model
            .step(&mut [
                Part {
                    cache: &mut second,
                    tokens: &mixed[20..],
                    logits: Wanted::Last,
                },
                Part {
                    cache: &mut first,
                    tokens: &prompt[39..],
                    logits: Wanted::Last,
                },
            ])
            .unwrap();
        close(&logits[0], &alone(&mixed), "the fork");
        close(&logits[1], &alone(&prompt), "what it was forked from");

        // Written out and read back.
        let filled = [16, 16, 8];
        let blocks = first.blocks().iter().zip(filled);
        let bytes: Vec<Vec<u8>> = blocks
            .map(|(block, filled)| block.to_bytes(filled))
            .collect();
        assert_eq!(bytes.len(), 3);
        assert!(bytes.iter().all(|b| b.len() as u64 == pool.block_bytes()));
        let read: Vec<KvBlock> = bytes
            .iter()
            .map(|bytes| pool.block_from_bytes(bytes).unwrap())
            .collect();
        let mut again = pool.cache_of(&read, 40).unwrap();
        let expected = model.forward(&mut first, &[5]).unwrap();
        assert_eq!(model.forward(&mut again, &[5]).unwrap(), expected);
        drop((first, second, again, read));
        assert_eq!(pool.used_bytes(), 0);

        // Room for two blocks is room for two, whatever the budget is set to.
        let small = LoadOptions {
            cache_bytes: Some(2 * pool.block_bytes()),
            ..options
        };
        let model = placed(&tiny, &small);
        model.kv_pool().set_budget_bytes(u64::MAX);
        let mut cache = model.new_cache();
        model.forward(&mut cache, &prompt[..32]).unwrap();
        let error = model.forward(&mut cache, &[1]).unwrap_err();
        assert!(matches!(error, ModelError::NoRoom { .. }), "{error}");
        assert_eq!(cache.len(), 32);
        drop(cache);
        model
            .forward(&mut model.new_cache(), &prompt[..32])
            .unwrap();
        // Slots come back when blocks are given back.
        model.kv_pool().release();
        model
            .forward(&mut model.new_cache(), &prompt[..32])
            .unwrap();
    }
}
