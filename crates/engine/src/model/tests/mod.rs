//! Tiny models of every family: the same result however a prompt is cut, the
//! same logits as llama.cpp, and a refusal for whatever is hostile.

#![allow(clippy::unwrap_used)]

mod batch;
mod golden;
mod hostile;
mod placed;
mod pool;
mod products;
mod sequence;

use super::*;
use crate::gguf;

#[path = "../../../golden/tiny.rs"]
mod tiny;

use tiny::Tiny;

fn open(bytes: Vec<u8>) -> Result<Gguf, LoadError> {
    Gguf::from_static(bytes.leak())
}

/// Every executor that this machine has, the reference first; that on tensors
/// rounds as its batches lie and is tried apart.
fn executors() -> Vec<Executor> {
    let kernels = crate::kernels::Isa::available()
        .into_iter()
        .map(Executor::Kernels);
    std::iter::once(Executor::Reference)
        .chain(kernels)
        .collect()
}

fn load_on(tiny: &Tiny, executor: Executor) -> Model {
    let options = LoadOptions {
        context_tokens: Some(tiny.load_context),
        executor,
        threads: Some(1),
        ..LoadOptions::default()
    };
    Model::load_with(&open(tiny.file()).unwrap(), &options).unwrap()
}

fn load(tiny: &Tiny) -> Model {
    load_on(tiny, Executor::default())
}

/// The largest difference between two runs of logits.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
