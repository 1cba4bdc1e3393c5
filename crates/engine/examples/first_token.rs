//! Loads a model in a fresh process, computes one prompt and prints what it
//! took, as JSON: for `benches/engine_memory.py`.
//!
//!     cargo run -p nearfar-engine --example first_token -- MODEL.gguf [THREADS]

use std::path::Path;
use std::time::Instant;

use nearfar_engine::bench::Bench;

const PROMPT_TOKENS: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("give a model file")?;
    let threads = arguments.next().map(|text| text.parse()).transpose()?;
    let begun = Instant::now();
    let mut bench = Bench::open(Path::new(&file), threads)?;
    let loaded = begun.elapsed();
    bench.prefill(PROMPT_TOKENS)?;
    let first = begun.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.map(|line| line.trim().trim_end_matches(" kB").to_owned());
        number.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    println!(
        "{{\"load_ms\": {:.1}, \"first_token_ms\": {:.1}, \"rss_mib\": {}, \"peak_mib\": {}}}",
        loaded.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        kib("VmRSS:") / 1024,
        kib("VmHWM:") / 1024,
    );
    Ok(())
}
