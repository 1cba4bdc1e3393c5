//! Continues token ids greedily and says how long it took and what memory; for
//! comparisons with other engines and for measuring.
//!
//! `cargo run -p nearfar-engine --example greedy -- FILE 1,2,3 COUNT [reference]`
//!
//! `@512` in place of token ids stands for a prompt of 512.

use std::time::Instant;

use nearfar_engine::gguf::Gguf;
use nearfar_engine::model::{Executor, LoadOptions, Model};

const USAGE: &str = "usage: greedy FILE TOKEN,TOKEN,…|@LENGTH COUNT [reference]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or(USAGE)?;
    let prompt = arguments.next().ok_or(USAGE)?;
    let prompt = match prompt.strip_prefix('@') {
        Some(length) => (1..=length.parse()?)
            .map(|i: u32| i * 7919 % 1000)
            .collect(),
        None => prompt
            .split(',')
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()?,
    };
    let count: usize = arguments.next().ok_or(USAGE)?.parse()?;

    let mut options = LoadOptions::default();
    if arguments.next().as_deref() == Some("reference") {
        options.executor = Executor::Reference;
    }

    let started = Instant::now();
    let model = Model::load_with(&Gguf::open(file.as_ref())?, &options)?;
    let load = started.elapsed();
    let mut cache = model.new_cache();
    let started = Instant::now();
    let mut logits = model.forward(&mut cache, &prompt)?;
    let prefill = started.elapsed();
    let started = Instant::now();
    let mut tokens = Vec::new();
    for _ in 0..count {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        let token = best.map_or(0, |(token, _)| token as u32);
        tokens.push(token);
        logits = model.forward(&mut cache, &[token])?;
    }
    let decode = started.elapsed();
    println!(
        "{}",
        serde_json::json!({
            "tokens": tokens,
            "executor": format!("{:?}", model.executor()),
            "weights_mib": model.memory_bytes() >> 20,
            "cache_mib": cache.memory_bytes() >> 20,
            "peak_rss_mib": peak_rss_kib() >> 10,
            "load_ms": load.as_secs_f64() * 1e3,
            "prefill_tokens_per_second": prompt.len() as f64 / prefill.as_secs_f64(),
            "decode_tokens_per_second": count as f64 / decode.as_secs_f64(),
        })
    );
    Ok(())
}

/// The most memory that this process has had, in KiB; 0 where it is not told.
fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0)
}
