//! A sequence gives the same logits however it was cut, and after going back.

use super::*;

/// What the way a prompt is cut may change: nothing on our kernels, where every
/// sum has one order; the library's products differ by rounding.
fn rounding(executor: Executor) -> f32 {
    match executor {
        Executor::Kernels(_) => 0.0,
        Executor::Reference | Executor::Tensors => 1e-3,
    }
}

#[test]
fn a_prompt_may_be_cut_anywhere() {
    let cases = tiny::all().into_iter().flat_map(|tiny| {
        [Executor::Reference, Executor::default()]
            .into_iter()
            .map(move |executor| (tiny.clone(), executor))
    });
    for (tiny, executor) in cases {
        let model = load_on(&tiny, executor);
        let rounding = rounding(model.executor());
        let prompt = tiny::prompt(tiny.vocab);
        let whole = model.forward_all(&mut model.new_cache(), &prompt).unwrap();
        assert_eq!(whole.len(), prompt.len());
        for size in [1, 5, 7, 23] {
            let mut cache = model.new_cache();
            let mut position = 0;
            for piece in prompt.chunks(size) {
                let last = model.forward(&mut cache, piece).unwrap();
                position += piece.len();
                assert_eq!(cache.len(), position);
                let off = distance(&last, &whole[position - 1]);
                assert!(
                    off <= rounding,
                    "{} {executor:?} in pieces of {size}, position {position}: {off}",
                    tiny.name
                );
            }
        }
    }
}

#[test]
fn going_back_is_as_if_the_rest_had_never_been() {
    for family in [
        "llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3", "granite",
    ] {
        let tiny = tiny::plain("truncated", family);
        going_back(&tiny, Executor::Reference);
        going_back(&tiny, Executor::default());
    }
}

fn going_back(tiny: &Tiny, executor: Executor) {
    let family = tiny.family;
    let model = load_on(tiny, executor);
    let rounding = rounding(executor);
    let prompt = tiny::prompt(tiny.vocab);
    let mut cache = model.new_cache();
    let first = model.forward(&mut cache, &prompt).unwrap();
    let reversed: Vec<u32> = prompt.iter().rev().copied().collect();
    cache.truncate(10);
    assert_eq!(cache.len(), 10);
    let other = model.forward(&mut cache, &reversed).unwrap();
    assert!(
        distance(&first, &other) > 0.01,
        "{family}: other tokens gave the same logits"
    );
    cache.truncate(10);
    let again = model.forward(&mut cache, &prompt[10..]).unwrap();
    assert!(distance(&first, &again) <= rounding, "{family}");
    cache.truncate(1000);
    assert_eq!(cache.len(), prompt.len());
    cache.truncate(0);
    assert!(cache.is_empty());
    assert!(
        distance(&first, &model.forward(&mut cache, &prompt).unwrap()) <= rounding,
        "{family}"
    );
}

#[test]
fn a_window_hides_what_is_behind_it_and_nothing_else() {
    // One windowed layer, so that nothing reaches past the window.
    let mut tiny = tiny::plain("window", "gemma3");
    tiny.layers = 1;
    tiny.keys = vec![("attention.sliding_window", gguf::Value::Unsigned(4))];
    let model = load(&tiny);
    let prompt = tiny::prompt(tiny.vocab);
    let last = |prompt: &[u32]| model.forward(&mut model.new_cache(), prompt).unwrap();
    let reference = last(&prompt);
    let changed = |at: usize| {
        let mut prompt = prompt.clone();
        prompt[at] = (prompt[at] + 1) % tiny.vocab as u32;
        distance(&reference, &last(&prompt))
    };
    assert_eq!(changed(prompt.len() - 5), 0.0);
    assert!(changed(prompt.len() - 4) > 1e-4);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_sequence_alone() {
    let mut tiny = tiny::plain("errors", "qwen3");
    (tiny.context, tiny.load_context) = (16, 16);
    let model = load(&tiny);
    let mut cache = model.new_cache();
    let twelve = [1; 12];
    let reference = model.forward(&mut cache, &twelve).unwrap();

    let error = model.forward(&mut cache, &[1; 5]).unwrap_err();
    assert_eq!(error.kind(), FailureKind::ContextLength);
    assert!(
        error.to_string().contains("17 tokens") && error.to_string().contains("16"),
        "{error}"
    );
    let error = model
        .forward(&mut cache, &[1, tiny.vocab as u32])
        .unwrap_err();
    assert!(matches!(
        error,
        ModelError::UnknownToken {
            token: 48,
            vocab: 48
        }
    ));
    assert!(matches!(
        model.forward(&mut cache, &[]),
        Err(ModelError::NoTokens)
    ));
    let stranger = load(&tiny::plain("x", "gemma3"));
    let mut small = tiny::plain("y", "llama");
    small.kv_heads = 1;
    assert!(matches!(
        load(&small).forward(&mut stranger.new_cache(), &[1]),
        Err(ModelError::ForeignCache)
    ));

    assert_eq!(cache.len(), 12);
    model.forward(&mut cache, &[1; 4]).unwrap();
    assert_eq!(cache.len(), 16);
    cache.truncate(11);
    assert!(distance(&reference, &model.forward(&mut cache, &[1]).unwrap()) < 1e-3);
}

#[test]
fn damaged_weights_are_an_error_and_not_an_answer() {
    let tiny = tiny::plain("nan", "llama");
    let mut bytes = tiny.file();
    // The tensors' data begins with the embedding.
    let end = bytes.len();
    let data = end - tiny_data_len(&open(bytes.clone()).unwrap());
    for number in bytes[data..data + tiny.vocab * tiny.width * 4]
        .as_chunks_mut::<4>()
        .0
    {
        *number = f32::NAN.to_le_bytes();
    }
    let model = Model::load(&open(bytes).unwrap()).unwrap();
    let mut cache = model.new_cache();
    let error = model.forward(&mut cache, &[1, 2, 3]).unwrap_err();
    assert_eq!(error.kind(), FailureKind::ModelBroken);
    assert!(cache.is_empty());
}

pub(super) fn tiny_data_len(gguf: &Gguf) -> usize {
    gguf.tensors()
        .map(|info| (info.byte_len() as usize).next_multiple_of(32))
        .sum()
}

#[test]
fn memory_is_what_the_file_holds() {
    let tiny = tiny::stored("memory", gguf::TensorType::Q4K);
    let bytes = tiny.file();
    let model = load(&tiny);
    let size = bytes.len() as u64;
    assert!(model.memory_bytes() <= size * 21 / 20 && model.memory_bytes() > size / 2);
    let figures = Model::check(&open(bytes).unwrap(), KvNumbers::default()).unwrap();
    assert_eq!(figures.memory_bytes, model.memory_bytes());
    assert_eq!(figures.cache_bytes_per_token, model.cache_bytes_per_token());
    let mut cache = model.new_cache();
    model
        .forward(&mut cache, &tiny::prompt(tiny.vocab))
        .unwrap();
    // Two layers, two heads, keys and values, 64 numbers of two bytes.
    assert_eq!(model.cache_bytes_per_token(), 2 * 2 * 2 * 64 * 2);
    assert!(cache.memory_bytes() >= 24 * model.cache_bytes_per_token());
    assert!(cache.memory_bytes() <= 32 * model.cache_bytes_per_token());
}

#[test]
fn a_matrix_of_several_pieces_is_one_matrix() {
    // 9001 rows of 1 KiB: two whole pieces and an odd one.
    let tiny = Tiny {
        width: 256,
        layers: 1,
        vocab: 9001,
        ..tiny::plain("pieces", "llama")
    };
    let prompt = [0, 4095, 4096, 4097, 8191, 8192, 9000];
    let run = |executor| {
        let model = load_on(&tiny, executor);
        model.forward_all(&mut model.new_cache(), &prompt).unwrap()
    };
    let expected = run(Executor::Reference);
    for (mine, expected) in run(Executor::default()).iter().zip(&expected) {
        assert!(distance(mine, expected) < 0.2);
    }
}
