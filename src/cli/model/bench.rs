//! `nearfar model bench`: how fast a model runs on this machine. No daemon, no
//! network: the engine runs in this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nearfar_engine::bench::{Bench, median};
use serde_json::json;

use super::show::{print_json, size};
use crate::catalog::{EMBEDDED, ModelStore};
use crate::cli::failed::Failed;
use crate::cli::style;

/// Lengths of prompts, and depths to decode at, where the context has room.
const PREFILL: [usize; 3] = [32, 512, 2_048];
const DEPTHS: [usize; 3] = [0, 2_048, 4_096];
/// Tokens per round of decoding.
const STEPS: usize = 16;

pub(super) struct Wanted {
    pub(super) threads: Option<usize>,
    pub(super) rounds: usize,
    pub(super) json: bool,
}

/// One line of the table.
struct Cell {
    what: &'static str,
    tokens: usize,
    /// Tokens a second, of the median round.
    rate: f64,
}

pub(super) fn run(store: &ModelStore, model: &str, wanted: &Wanted) -> Result<(), Failed> {
    let say = |what: &str| {
        if !wanted.json {
            style::note(what);
        }
    };
    let threads = wanted.threads.unwrap_or_else(nearfar_engine::usable_cores);
    say(&format!("measuring memory with {threads} threads"));
    let bandwidth = nearfar_engine::measure::read_bandwidth(threads)
        .map_err(|error| Failed::new(error.to_string()))?;
    say("loading the model");
    let mut bench = open(store, model, wanted.threads)?;
    let context = bench.context_tokens();
    let wrong = |error: nearfar_engine::model::ModelError| Failed::new(error.to_string());
    let mut cells = Vec::new();
    for tokens in PREFILL.into_iter().filter(|tokens| *tokens <= context) {
        say(&format!("prefill of {tokens} tokens"));
        let times = (0..wanted.rounds).map(|_| bench.prefill(tokens));
        let mut times = times.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        cells.push(Cell {
            what: "prefill",
            tokens,
            rate: rate(tokens, median(&mut times)),
        });
    }
    for depth in DEPTHS.into_iter().filter(|depth| depth + STEPS <= context) {
        say(&format!("decode at depth {depth}"));
        let mut times = Vec::new();
        for _ in 0..wanted.rounds {
            times.extend(bench.decode(depth, STEPS).map_err(wrong)?);
        }
        cells.push(Cell {
            what: "decode",
            tokens: depth,
            rate: rate(1, median(&mut times)),
        });
    }
    let limit = bandwidth / bench.bytes_per_token().max(1) as f64;
    if wanted.json {
        let cells: Vec<_> = cells
            .iter()
            .map(
                |cell| json!({"what": cell.what, "tokens": cell.tokens, "tokens_per_s": cell.rate}),
            )
            .collect();
        return print_json(&json!({
            "model": model,
            "threads": threads,
            "rounds": wanted.rounds,
            "load_ms": bench.load_time().as_secs_f64() * 1e3,
            "memory_bytes": bench.memory_bytes(),
            "bytes_per_token": bench.bytes_per_token(),
            "read_bandwidth_bytes_per_s": bandwidth,
            "decode_limit_tokens_per_s": limit,
            "results": cells,
        }));
    }
    let rows = cells
        .iter()
        .map(|cell| {
            let of_limit = match cell.what {
                "decode" => format!("{:.0} %", 100.0 * cell.rate / limit),
                _ => String::new(),
            };
            let rate = format!("{:.1}", cell.rate);
            vec![
                cell.what.to_owned(),
                cell.tokens.to_string(),
                rate,
                of_limit,
            ]
        })
        .collect();
    let heading = ["", "TOKENS", "TOKENS/S", "OF LIMIT"];
    style::print(&style::table(&heading, rows, &[1, 2, 3]))?;
    let passed = cells
        .iter()
        .any(|cell| cell.what == "decode" && cell.rate > limit);
    let but = match passed {
        true => " from memory (these weights stay in the processor's caches)",
        false => "",
    };
    style::note(&format!(
        "Loaded in {:.0} ms. Memory is read with {:.1} GB/s by {threads} threads; a token reads {} \
         of weights, so decoding cannot pass {limit:.1} tokens/s{but}. Medians of {} rounds.",
        bench.load_time().as_secs_f64() * 1e3,
        bandwidth / 1e9,
        size(bench.bytes_per_token()),
        wanted.rounds,
    ));
    Ok(())
}

/// A file, an installed model's name, or the model in the binary.
fn open(store: &ModelStore, model: &str, threads: Option<usize>) -> Result<Bench, Failed> {
    let path = PathBuf::from(model);
    let opened = if path.exists() {
        Bench::open(&path, threads)
    } else if model == EMBEDDED {
        Bench::embedded(threads)
    } else if model.contains('/') || model.ends_with(".gguf") {
        return Err(Failed::new(format!(
            "{} is not there.",
            Path::new(model).display()
        )));
    } else {
        Bench::open(&store.weights(&store.get(model)?), threads)
    };
    opened.map_err(|error| Failed::new(error.to_string()))
}

fn rate(tokens: usize, took: Duration) -> f64 {
    tokens as f64 / took.as_secs_f64().max(1e-9)
}
