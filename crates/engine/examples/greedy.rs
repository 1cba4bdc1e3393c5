//! Continues token ids greedily and says how long it took; for comparisons
//! with other engines and for measuring.
//!
//! `cargo run -p nearfar-engine --example greedy -- FILE 1,2,3 COUNT`

use std::time::Instant;

use nearfar_engine::gguf::Gguf;
use nearfar_engine::model::Model;

const USAGE: &str = "usage: greedy FILE TOKEN,TOKEN,… COUNT";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or(USAGE)?;
    let prompt = arguments.next().ok_or(USAGE)?;
    let prompt = prompt
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<u32>, _>>()?;
    let count: usize = arguments.next().ok_or(USAGE)?.parse()?;

    let started = Instant::now();
    let model = Model::load(&Gguf::open(file.as_ref())?)?;
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
            "load_ms": load.as_secs_f64() * 1e3,
            "prefill_tokens_per_second": prompt.len() as f64 / prefill.as_secs_f64(),
            "decode_tokens_per_second": count as f64 / decode.as_secs_f64(),
        })
    );
    Ok(())
}
