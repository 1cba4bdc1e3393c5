//! How fast the kernels are on this machine, and how fast its memory is.

use std::time::{Duration, Instant};

use super::{
    Activations, AttendJob, Isa, Packed, TILE_TOKENS, Team, Tiles, attend, multiply, tile_len,
};
use crate::gguf::{LoadError, TensorType};

/// The speed of one product of weights and activations.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Median time of one product.
    pub time: Duration,
    /// Bytes of packed weights per second, in 10^9.
    pub gigabytes: f64,
    /// Multiplications and additions per second, in 10^9.
    pub gigaops: f64,
}

/// Measures products of a matrix of `outputs` x `inputs` with `rows` rows of
/// activations, on `threads` threads. With few rows, as many copies of the
/// matrix as fill `memory` bytes take turns, so that none is in a cache.
///
/// # Errors
/// When the matrix cannot be packed.
pub fn product(
    threads: usize,
    isa: Isa,
    ty: TensorType,
    (outputs, inputs): (usize, usize),
    rows: usize,
    memory: usize,
) -> Result<Speed, LoadError> {
    let team = Team::new(threads);
    let unsupported = || LoadError::Unsupported(format!("no kernel for {}", ty.name()));
    let (width, size) = ty.block().ok_or_else(unsupported)?;
    // As floats, halves and bf16, small normal numbers: nothing slow.
    let data = vec![0x11; outputs * (inputs / width) * size];
    let first = Packed::pack(&team, ty, &data, outputs, inputs)?;
    let copies = if rows <= 16 {
        memory / first.bytes()
    } else {
        1
    };
    let mut matrices = vec![first];
    for _ in 1..copies {
        matrices.push(Packed::pack(&team, ty, &data, outputs, inputs)?);
    }
    let x: Vec<f32> = (0..rows * inputs)
        .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
        .collect();
    let mut acts = Activations::new(rows, inputs, matrices[0].is_float());
    acts.quantise(&team, isa, &x, rows, inputs);
    let mut out = vec![0.0; rows * outputs];
    let work = 2.0 * (rows * outputs * inputs) as f64;
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let started = Instant::now();
            let mut count = 0;
            // All copies once, and at least 20 ms.
            while count < matrices.len() || started.elapsed() < Duration::from_millis(20) {
                let weights = &matrices[count % matrices.len()];
                multiply(&team, isa, &mut [(weights, &mut out)], &acts, false);
                count += 1;
            }
            started.elapsed() / count.max(1) as u32
        })
        .collect();
    times.sort_unstable();
    let seconds = times[2].as_secs_f64();
    Ok(Speed {
        time: times[2],
        gigabytes: matrices[0].bytes() as f64 / seconds / 1e9,
        gigaops: work / seconds / 1e9,
    })
}

/// Median time of the attention of `rows` rows behind a context of `depth`
/// tokens, in a layer of `heads` query heads over `kv_heads`.
pub fn attention(
    threads: usize,
    isa: Isa,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    depth: usize,
    rows: usize,
) -> Duration {
    let team = Team::new(threads);
    let len = tile_len(head_dim) * 2 * kv_heads;
    // bf16 of about 0.1.
    let blocks = vec![vec![0x3dcc_u16; len]; (depth + rows).div_ceil(TILE_TOKENS)];
    let blocks: Vec<&[u16]> = blocks.iter().map(Vec::as_slice).collect();
    let queries = vec![0.1; rows * heads * head_dim];
    let mut out = vec![0.0; queries.len()];
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let started = Instant::now();
            let mut count = 0;
            while count == 0 || started.elapsed() < Duration::from_millis(10) {
                attend(
                    &team,
                    isa,
                    &mut [AttendJob {
                        queries: &queries,
                        out: &mut out,
                        heads,
                        kv_heads,
                        first: depth,
                        window: None,
                        softcap: None,
                        tiles: Tiles::new(&blocks, 0, head_dim),
                    }],
                );
                count += 1;
            }
            started.elapsed() / count.max(1)
        })
        .collect();
    times.sort_unstable();
    times[2]
}

/// Bytes per second that `threads` threads read from memory: the median of
/// five passes over `memory` bytes, in 10^9.
pub fn read_bandwidth(threads: usize, memory: usize) -> f64 {
    let team = Team::new(threads);
    let words = vec![1u64; memory / 8];
    let piece = 1 << 17;
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let started = Instant::now();
            team.share(words.len().div_ceil(piece), 1, &|index| {
                let words = &words[index * piece..((index + 1) * piece).min(words.len())];
                let sum = Isa::best().compiled(
                    #[inline(always)]
                    || {
                        let mut sums = [0u64; 32];
                        for words in words.as_chunks::<32>().0 {
                            for (sum, word) in sums.iter_mut().zip(words) {
                                *sum = sum.wrapping_add(*word);
                            }
                        }
                        sums.into_iter().fold(0, u64::wrapping_add)
                    },
                );
                std::hint::black_box(sum);
            });
            (words.len() * 8) as f64 / started.elapsed().as_secs_f64() / 1e9
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[2]
}
