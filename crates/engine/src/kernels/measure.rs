//! How fast the kernels are on this machine, and how fast its memory is.

use std::time::{Duration, Instant};

use super::memory::Region;
use super::{
    Activations, AttendJob, Isa, Packed, TILE_TOKENS, Team, Tiles, attend, multiply, tile_len,
};
use crate::gguf::{LoadError, TensorType};

/// More memory than the caches of a small device's processor hold, in bytes.
pub const BEYOND_CACHES: usize = 300 << 20;

/// The speed of one product of weights and activations.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Time of one product: the fastest of seven tries, what the machine can
    /// when nothing disturbs.
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
    let mut times: Vec<Duration> = (0..7)
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
    let seconds = times[0].as_secs_f64();
    Ok(Speed {
        time: times[0],
        gigabytes: matrices[0].bytes() as f64 / seconds / 1e9,
        gigaops: work / seconds / 1e9,
    })
}

/// Time, the fastest of seven tries, of the attention of `rows` rows behind a context of `depth`
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
    let mut times: Vec<Duration> = (0..7)
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
    times[0]
}

/// Bytes per second that `threads` threads read from memory together: the
/// fastest of five passes over [`BEYOND_CACHES`].
///
/// # Errors
/// When there is not so much memory.
pub fn read_bandwidth(threads: usize) -> Result<f64, LoadError> {
    let team = Team::new(threads);
    let mut region = Region::zeroed(BEYOND_CACHES)?;
    region.bytes_mut().fill(1);
    let bytes = region.bytes();
    let piece = 1 << 20;
    let fastest = (0..5).map(|_| {
        let started = Instant::now();
        team.share(bytes.len().div_ceil(piece), 1, &|index| {
            let bytes = &bytes[index * piece..((index + 1) * piece).min(bytes.len())];
            let sum = Isa::best().compiled(
                #[inline(always)]
                || {
                    let words = bytes.as_chunks::<8>().0.iter();
                    words.fold(0, |sum: u64, word| sum ^ u64::from_le_bytes(*word))
                },
            );
            std::hint::black_box(sum);
        });
        bytes.len() as f64 / started.elapsed().as_secs_f64()
    });
    Ok(fastest.fold(0.0, f64::max))
}
