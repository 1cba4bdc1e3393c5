//! llama.cpp's logits for the tiny models, kept in `golden/logits.json`;
//! `golden/make_logits.py` makes them anew.

use serde::Deserialize;

use super::*;
use crate::gguf::TensorType;

#[derive(Deserialize)]
struct Golden {
    name: String,
    /// Which positions of the prompt `logits` belong to.
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

/// How far the logits after the first token, and after later ones, may be from
/// llama.cpp's, in units of their own spread.
///
/// With F32 weights nothing but the order of additions differs, and the golden
/// file's five digits (3e-5). llama.cpp's gelu (gemma3) goes through a table of
/// half-precision numbers, and F16 weights round activations to such: 5e-4 each.
///
/// Stored types quantise activations to 8 bits (BF16: to its own 8). A number
/// that lies on a rounding edge may fall to either side, and then moves all
/// that follows by the rounding's own size: changing nothing but the norms'
/// epsilon by 2e-6 moves these models' logits by 0.02 to 0.08. The first token
/// crosses few edges, so it is compared strictly; only in Q4_1 and Q5_1 the
/// library rounds the blocks' sums otherwise from the start.
fn tolerance(tiny: &Tiny, executor: Executor) -> (f32, f32) {
    if executor != Executor::Reference {
        return (0.02, 0.1);
    }
    match tiny.dtype {
        TensorType::F32 if tiny.family == "gemma3" => (3e-3, 3e-3),
        TensorType::F32 => (2e-4, 2e-4),
        TensorType::F16 => (5e-3, 5e-3),
        TensorType::Q4_1 | TensorType::Q5_1 => (0.15, 0.15),
        _ => (2e-4, 0.1),
    }
}

fn spread(logits: &[f32]) -> f32 {
    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
    (logits.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / logits.len() as f32).sqrt()
}

#[test]
fn logits_are_llama_cpps() {
    let all: Vec<Golden> =
        serde_json::from_str(include_str!("../../../golden/logits.json")).unwrap();
    let mut far = Vec::new();
    let cases = tiny::all().into_iter().flat_map(|tiny| {
        executors()
            .into_iter()
            .map(move |executor| (tiny.clone(), executor))
    });
    for (tiny, executor) in cases {
        let golden = all.iter().find(|golden| golden.name == tiny.name).unwrap();
        let model = load_on(&tiny, executor);
        let mine = model
            .forward_all(&mut model.new_cache(), &tiny::prompt(tiny.vocab))
            .unwrap();
        let (first, later) = tolerance(&tiny, model.executor());
        for (position, theirs) in golden.positions.iter().zip(&golden.logits) {
            let off = distance(&mine[*position], theirs) / spread(theirs);
            let bound = if *position == 0 { first } else { later };
            println!("{} {executor:?} {position} {off:.5}", tiny.name);
            if off.is_nan() || off > bound {
                far.push((tiny.name, executor, *position, off));
            }
        }
    }
    assert!(far.is_empty(), "{far:?}");
}

/// The comparison would not see a trait that changes nothing.
#[test]
fn every_trait_changes_the_logits() {
    use crate::gguf::Value;
    let last = |tiny: &Tiny| {
        let model = load_on(tiny, Executor::Reference);
        model
            .forward(&mut model.new_cache(), &tiny::prompt(tiny.vocab))
            .unwrap()
    };
    let of = |name: &str| {
        tiny::all()
            .into_iter()
            .find(|tiny| tiny.name == name)
            .unwrap()
    };
    let set = |tiny: &mut Tiny, key: &str, value: Value| {
        let entry = tiny.keys.iter_mut().find(|(name, _)| *name == key).unwrap();
        entry.1 = value;
    };
    let mut pairs = Vec::new();
    let mut other = of("llama-factors-biases-tied");
    set(&mut other, "rope.freq_base", Value::Float(10_000.0));
    pairs.push((of("llama-factors-biases-tied"), other));
    let mut other = of("llama-linear");
    set(&mut other, "rope.scaling.factor", Value::Float(1.0));
    pairs.push((of("llama-linear"), other));
    let mut other = of("gemma3");
    set(&mut other, "attention.sliding_window", Value::Unsigned(7));
    pairs.push((of("gemma3"), other));
    let mut other = of("gemma3-pattern-softcap");
    set(&mut other, "rope.freq_base_swa", Value::Float(10_000.0));
    pairs.push((of("gemma3-pattern-softcap"), other));
    let mut other = of("gemma3-pattern-softcap");
    set(
        &mut other,
        "attention.sliding_window_pattern",
        Value::Unsigned(3),
    );
    pairs.push((of("gemma3-pattern-softcap"), other));
    let mut other = of("phi3-short-factors");
    other.load_context = 512;
    pairs.push((of("phi3-short-factors"), other));
    let mut other = of("phi3-long-factors");
    set(&mut other, "rope.scaling.attn_factor", Value::Float(1.0));
    pairs.push((of("phi3-long-factors"), other));
    let mut other = of("phi3-partial-tied");
    other.rope_dims = 16;
    pairs.push((of("phi3-partial-tied"), other));
    for (tiny, other) in pairs {
        let (a, b) = (last(&tiny), last(&other));
        let off = distance(&a, &b) / spread(&a);
        assert!(
            off > 4.0 * tolerance(&tiny, Executor::Reference).1,
            "{}: {off}",
            tiny.name
        );
    }
}
