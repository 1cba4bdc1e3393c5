//! Measures the speed of one model, told by lines on standard input; the side
//! of `benches/engine` that is ours.
//!
//! `cargo run --release -p nearfar-engine --example speed -- FILE [--threads N] [--context N] [--isa NAME] [--kv bf16|int8]`
//!
//! Prints one line of JSON when the model is loaded, then one per line read:
//! `prefill SIZE _ SEED` and `decode DEPTH COUNT SEED` give `{"seconds": …}`,
//! `memory` gives the machine's read bandwidth.

use std::io::{BufRead, Write};
use std::time::Instant;

use nearfar_engine::bench::bytes_per_token;
use nearfar_engine::gguf::Gguf;
use nearfar_engine::model::{Cache, Executor, LoadOptions, Model, ModelError};
use nearfar_engine::{Isa, measure};
use serde_json::json;

/// Random ids stay away from the ends of the vocabulary, where specials are.
const SPARED: u32 = 64;
/// Prompts are computed in pieces of this many tokens, as the worker does.
const PIECE: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .ok_or("usage: speed FILE [--threads N] [--context N] [--isa NAME] [--kv bf16|int8]")?;
    let mut options = LoadOptions::default();
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--threads" => options.threads = Some(value.parse()?),
            "--context" => options.context_tokens = Some(value.parse()?),
            "--kv" => options.kv = value.parse()?,
            "--isa" => options.executor = Executor::Kernels(isa(&value)?),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    let gguf = Gguf::open(file.as_ref())?;
    let model = Model::load_with(&gguf, &options)?;
    let threads = options.threads.unwrap_or(1);
    let bytes_per_token = bytes_per_token(&gguf);
    drop(gguf);
    tell(&json!({ "bytes_per_token": bytes_per_token }))?;

    let mut cache = model.new_cache();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["prefill", size, _, seed] => {
                cache.truncate(0);
                let ids = ids(&model, size.parse()?, seed.parse()?);
                let begun = Instant::now();
                run(&model, &mut cache, &ids)?;
                tell(&json!({ "seconds": begun.elapsed().as_secs_f64() }))?;
            }
            ["decode", depth, count, seed] => {
                let depth: usize = depth.parse()?;
                // What the tokens before are makes no difference; they are
                // computed only where they are not there yet.
                let held = cache.len();
                if held < depth {
                    run(&model, &mut cache, &ids(&model, depth - held, 1))?;
                }
                cache.truncate(depth);
                let ids = ids(&model, count.parse()?, seed.parse()?);
                let begun = Instant::now();
                for id in ids {
                    model.forward(&mut cache, &[id])?;
                }
                tell(&json!({ "seconds": begun.elapsed().as_secs_f64() }))?;
            }
            ["memory"] => tell(&json!({
                "bandwidth_bytes_per_second": measure::read_bandwidth(threads)?,
            }))?,
            _ => return Err(format!("not understood: {line}").into()),
        }
    }
    Ok(())
}

/// An instruction set by its name in lower case.
fn isa(name: &str) -> Result<Isa, String> {
    let named = |isa: &Isa| format!("{isa:?}").to_lowercase() == name;
    let all = Isa::available();
    let found = all.iter().copied().find(named);
    found.ok_or_else(|| format!("this processor has no '{name}', but {all:?}"))
}

fn tell(value: &serde_json::Value) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{value}")?;
    out.flush()
}

fn run(model: &Model, cache: &mut Cache, ids: &[u32]) -> Result<(), ModelError> {
    for piece in ids.chunks(PIECE) {
        model.forward(cache, piece)?;
    }
    Ok(())
}

/// Token ids from a seed (the constants are Knuth's for a linear congruential generator).
fn ids(model: &Model, count: usize, seed: u64) -> Vec<u32> {
    let range = u32::try_from(model.vocab_size()).unwrap_or(u32::MAX) - 2 * SPARED;
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            SPARED + (state >> 33) as u32 % range
        })
        .collect()
}
