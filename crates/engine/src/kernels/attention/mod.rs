//! Attention over the KV cache.
//!
//! Flash style: keys are scored a span of tiles at a time, with the running
//! maximum and sum of each query, so that no buffer grows with the context
//! (Dao et al. 2022, "FlashAttention"; Milakov & Gimelshein 2018, "Online
//! normalizer calculation for softmax"). The query heads that share a KV head,
//! and several rows, read each tile together.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod int8;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod tiles;

pub(crate) use tiles::{TILE_TOKENS, TileForm, Tiles, tile_len};

use std::cell::RefCell;

use super::disjoint::Disjoint;
use super::elementwise::{exp, tanh};
#[cfg(target_arch = "x86_64")]
use super::float16::to_bf16;
use super::{Isa, Team};
use int8::{Scales, Wide};

/// The most queries that read a tile together.
const QUERIES: usize = 16;
/// Tiles scored at once.
const SPAN_TILES: usize = 4;
/// Tokens scored at once.
const SPAN: usize = SPAN_TILES * TILE_TOKENS;

/// The attention of one sequence's new rows in one layer.
pub(crate) struct AttendJob<'a> {
    /// rows x heads x head_dim, already scaled.
    pub(crate) queries: &'a [f32],
    /// As `queries`.
    pub(crate) out: &'a mut [f32],
    /// Query heads.
    pub(crate) heads: usize,
    /// KV heads; they divide the heads.
    pub(crate) kv_heads: usize,
    /// The position of the first row. Row r sees the tokens up to `first + r`.
    pub(crate) first: usize,
    /// How many tokens back a row sees, itself included; `None`: all.
    pub(crate) window: Option<usize>,
    /// Scores are squashed to ± this.
    pub(crate) softcap: Option<f32>,
    /// The keys and values, the new rows' among them.
    pub(crate) tiles: Tiles<'a>,
}

/// A job as the threads see it.
struct Work<'a> {
    queries: &'a [f32],
    out: Disjoint<'a, f32>,
    heads: usize,
    kv_heads: usize,
    rows: usize,
    first: usize,
    window: usize,
    softcap: Option<f32>,
    tiles: Tiles<'a>,
    /// Query heads read together.
    group: usize,
    /// Groups per KV head.
    groups: usize,
    /// Rows read together.
    block: usize,
    /// Pieces of work in all jobs before this one.
    before: usize,
}

/// Runs all jobs.
///
/// # Panics
/// When a job's heads, lengths and tiles do not fit each other.
pub(crate) fn attend(team: &Team, isa: Isa, jobs: &mut [AttendJob<'_>]) {
    let isa = isa.usable();
    let mut pieces = 0;
    let works: Vec<Work<'_>> = jobs
        .iter_mut()
        .map(|job| {
            let work = Work::new(job, pieces);
            pieces += work.pieces();
            work
        })
        .collect();
    team.share(pieces, 1, &|piece| {
        let index = works.partition_point(|work| work.before <= piece) - 1;
        works[index].run(isa, piece - works[index].before);
    });
}

impl<'a> Work<'a> {
    fn new<'j: 'a>(job: &'a mut AttendJob<'j>, before: usize) -> Self {
        let head_dim = job.tiles.head_dim();
        assert!(job.kv_heads > 0 && job.heads.is_multiple_of(job.kv_heads) && job.heads > 0);
        assert!(head_dim > 0 && head_dim.is_multiple_of(2));
        let width = job.heads * head_dim;
        let rows = job.queries.len() / width;
        assert!(job.queries.len() == rows * width && job.out.len() == rows * width);
        assert!(job.first + rows <= job.tiles.tokens());
        let shared = job.heads / job.kv_heads;
        // The largest divisor that fits, so that all groups are alike.
        let group = (1..=shared.min(QUERIES))
            .rev()
            .find(|n| shared.is_multiple_of(*n))
            .unwrap_or(1);
        Self {
            queries: job.queries,
            out: Disjoint::new(job.out),
            heads: job.heads,
            kv_heads: job.kv_heads,
            rows,
            first: job.first,
            window: job.window.unwrap_or(usize::MAX).max(1),
            softcap: job.softcap,
            tiles: job.tiles,
            group,
            groups: shared / group,
            block: QUERIES / group,
            before,
        }
    }

    fn pieces(&self) -> usize {
        self.kv_heads * self.groups * self.rows.div_ceil(self.block)
    }

    /// One group of heads, one block of rows. The last rows see most and come
    /// first, so that the threads end together.
    fn run(&self, isa: Isa, piece: usize) {
        let all_groups = self.kv_heads * self.groups;
        let group = piece % all_groups;
        let block = self.rows.div_ceil(self.block) - 1 - piece / all_groups;
        let row = block * self.block;
        let rows = self.block.min(self.rows - row);
        SCRATCH.with_borrow_mut(|scratch| {
            WIDE.with_borrow_mut(|wide| self.block(isa, scratch, wide, group, row, rows));
        });
    }

    fn block(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        wide: &mut Wide,
        group: usize,
        row: usize,
        rows: usize,
    ) {
        let form = self.tiles.form();
        let head_dim = self.tiles.head_dim();
        let width = self.heads * head_dim;
        let group_width = self.group * head_dim;
        let queries = rows * self.group;
        let at = |index: usize| (row + index) * width + group * group_width;
        scratch.start(queries, head_dim);
        for index in 0..rows {
            scratch.q[index * group_width..][..group_width]
                .copy_from_slice(&self.queries[at(index)..][..group_width]);
        }
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 {
            scratch.pair_queries(isa, queries * head_dim);
        }

        let kv_head = group / self.groups;
        // Tokens that some row of the block sees.
        let start = (self.first + row + 1).saturating_sub(self.window);
        let end = self.first + row + rows;
        let last_tile = end.div_ceil(TILE_TOKENS);
        // Spans begin at the same tiles whatever rows stand in the block, so
        // that a row's sums have one order.
        let mut tile = start / SPAN * SPAN_TILES;
        while tile < last_tile {
            let count = SPAN_TILES.min(last_tile - tile);
            let mut span = Span {
                keys: [&[]; SPAN_TILES],
                values: [&[]; SPAN_TILES],
                count,
                tokens: (end - tile * TILE_TOKENS).min(count * TILE_TOKENS),
            };
            let mut scales = None;
            if form == TileForm::Int8 {
                for index in 0..count {
                    let pair = self.tiles.pair(kv_head, tile + index);
                    wide.take(isa, index, pair, head_dim);
                }
                scales = Some(&wide.scales);
            }
            for index in 0..count {
                (span.keys[index], span.values[index]) = match form {
                    TileForm::Bf16 => self.tiles.pair(kv_head, tile + index),
                    TileForm::Int8 => wide.pair(index, head_dim),
                };
            }
            self.span(
                isa,
                scratch,
                &span,
                scales,
                tile * TILE_TOKENS,
                row,
                queries,
            );
            tile += count;
        }

        for index in 0..rows {
            // SAFETY: this block of rows and group of heads is one piece.
            let out = unsafe { self.out.part(at(index)..at(index) + group_width) };
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let query = index * self.group + head;
                let factor = 1.0 / scratch.sum[query];
                let acc = &scratch.acc[query * head_dim..][..head_dim];
                for (out, acc) in out.iter_mut().zip(acc) {
                    *out = acc * factor;
                }
            }
        }
    }

    /// Scores one span, whose first token is `token`, and adds its values.
    #[allow(
        clippy::too_many_arguments,
        reason = "one step of a loop; the values have no meaning of their own together"
    )]
    fn span(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        span: &Span<'_>,
        scales: Option<&Scales>,
        token: usize,
        row: usize,
        queries: usize,
    ) {
        let head_dim = self.tiles.head_dim();
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` is usable on this processor; the heads fit.
            Isa::Avx512 if avx512::fits(head_dim) => unsafe {
                avx512::scores(scratch, span, queries, head_dim);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 | Isa::Avx2Vnni if avx2::fits(head_dim) => unsafe {
                avx2::scores(scratch, span, queries, head_dim);
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `isa` is usable on this processor; the heads fit.
            Isa::Neon if neon::fits(head_dim) => unsafe {
                neon::scores(scratch, span, queries, head_dim);
            },
            _ => scalar::scores(scratch, span, queries, head_dim),
        }
        isa.compiled(
            #[inline(always)]
            || {
                for query in 0..queries {
                    if let Some(scales) = scales {
                        let scores = &mut scratch.scores[query * SPAN..][..SPAN];
                        for (score, scale) in scores.iter_mut().zip(&scales.keys) {
                            *score *= scale;
                        }
                    }
                    let position = self.first + row + query / self.group;
                    // The tokens of the span that this query sees.
                    let from = (position + 1)
                        .saturating_sub(self.window)
                        .saturating_sub(token);
                    let to = (position + 1 - token.min(position + 1)).min(SPAN);
                    let from = from.min(to);
                    scratch.weigh(query, from, to, self.softcap, head_dim);
                    if let Some(scales) = scales {
                        // Behind the sequence's end a scale may be anything.
                        let weights = &mut scratch.scores[query * SPAN..][from..to];
                        for (weight, scale) in weights.iter_mut().zip(&scales.values[from..to]) {
                            *weight *= scale;
                        }
                    }
                }
            },
        );
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 if avx512::fits(head_dim) => unsafe {
                avx512::accumulate(scratch, span, queries, head_dim);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 | Isa::Avx2Vnni if avx2::fits(head_dim) => unsafe {
                avx2::accumulate(scratch, span, queries, head_dim);
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon if neon::fits(head_dim) => unsafe {
                neon::accumulate(scratch, span, queries, head_dim);
            },
            _ => scalar::accumulate(scratch, span, queries, head_dim),
        }
    }
}

/// Up to [`SPAN_TILES`] consecutive tiles of one KV head.
struct Span<'a> {
    keys: [&'a [u16]; SPAN_TILES],
    values: [&'a [u16]; SPAN_TILES],
    count: usize,
    /// Tokens in them that are written.
    tokens: usize,
}

/// What one piece of work needs; kept per thread.
struct Scratch {
    /// queries x head_dim.
    q: Vec<f32>,
    /// queries x head_dim, as pairs of bf16.
    #[cfg(target_arch = "x86_64")]
    q_pairs: Vec<u32>,
    /// queries x head_dim: the weighted sum of values so far.
    acc: Vec<f32>,
    /// queries x span: scores, then weights.
    scores: Vec<f32>,
    max: [f32; QUERIES],
    sum: [f32; QUERIES],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch {
            q: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            q_pairs: Vec::new(),
            acc: Vec::new(),
            scores: Vec::new(),
            max: [0.0; QUERIES],
            sum: [0.0; QUERIES],
        })
    };
}

thread_local! {
    static WIDE: RefCell<Wide> = const { RefCell::new(Wide::new()) };
}

impl Scratch {
    fn start(&mut self, queries: usize, head_dim: usize) {
        let len = queries * head_dim;
        if self.q.len() < len {
            self.q.resize(len, 0.0);
            self.acc.resize(len, 0.0);
        }
        if self.scores.len() < QUERIES * SPAN {
            self.scores.resize(QUERIES * SPAN, 0.0);
        }
        self.acc[..len].fill(0.0);
        self.max = [f32::NEG_INFINITY; QUERIES];
        self.sum = [0.0; QUERIES];
    }

    /// The queries as pairs of bf16, the first in the low half.
    #[cfg(target_arch = "x86_64")]
    fn pair_queries(&mut self, isa: Isa, len: usize) {
        if self.q_pairs.len() < len / 2 {
            self.q_pairs.resize(len / 2, 0);
        }
        isa.compiled(
            #[inline(always)]
            || {
                for (to, from) in self
                    .q_pairs
                    .iter_mut()
                    .zip(self.q[..len].as_chunks::<2>().0)
                {
                    *to = u32::from(to_bf16(from[0])) | (u32::from(to_bf16(from[1])) << 16);
                }
            },
        );
    }

    /// Turns one query's scores of tokens `from..to` into weights, the others
    /// into zero, and keeps maximum, sum and the sum of values in step.
    #[inline(always)]
    fn weigh(
        &mut self,
        query: usize,
        from: usize,
        to: usize,
        softcap: Option<f32>,
        head_dim: usize,
    ) {
        let Some((scores, _)) = self.scores[query * SPAN..].split_first_chunk_mut::<SPAN>() else {
            return;
        };
        if from >= to {
            scores.fill(0.0);
            return;
        }
        if let Some(cap) = softcap {
            for score in scores.iter_mut() {
                *score = cap * tanh(*score / cap);
            }
        }
        // What lies outside may not even be a number.
        scores[..from].fill(f32::NEG_INFINITY);
        scores[to..].fill(f32::NEG_INFINITY);
        let mut lanes = [f32::NEG_INFINITY; 16];
        for scores in scores.as_chunks::<16>().0 {
            for lane in 0..16 {
                lanes[lane] = lanes[lane].max(scores[lane]);
            }
        }
        let before = self.max[query];
        let max = lanes.iter().copied().fold(before, f32::max);
        if max > before {
            self.max[query] = max;
            let factor = exp(before - max);
            self.sum[query] *= factor;
            if before != f32::NEG_INFINITY {
                let acc = &mut self.acc[query * head_dim..][..head_dim];
                acc.iter_mut().for_each(|x| *x *= factor);
            }
        }
        let mut lanes = [0f32; 16];
        for scores in scores.as_chunks_mut::<16>().0 {
            for lane in 0..16 {
                scores[lane] = exp(scores[lane] - max);
                lanes[lane] += scores[lane];
            }
        }
        if from > 0 || to < SPAN {
            // e^-inf came out as a very small number, not as nothing.
            scores[..from].fill(0.0);
            scores[to..].fill(0.0);
        }
        self.sum[query] += lanes.iter().sum::<f32>();
    }
}
