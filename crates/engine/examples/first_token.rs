//! Loads a model in a fresh process, computes one prompt and prints what it
//! took, as JSON: for `benches/engine/memory`. Memory is what the process has
//! more than before the load.
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
    let before = resident("VmRSS:")?;
    let begun = Instant::now();
    let mut bench = Bench::open(Path::new(&file), threads)?;
    let loaded = begun.elapsed();
    bench.prefill(PROMPT_TOKENS)?;
    let first = begun.elapsed();
    println!(
        "{{\"load_ms\": {:.1}, \"first_token_ms\": {:.1}, \"rss_mib\": {:.1}, \"peak_mib\": {:.1}}}",
        loaded.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        resident("VmRSS:")? - before,
        resident("VmHWM:")? - before,
    );
    Ok(())
}

/// A line of this process's status, in MiB.
fn resident(name: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no such line")?.parse::<f64>()? / 1024.0)
}
