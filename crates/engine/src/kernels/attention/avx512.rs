//! AVX-512 with BF16: a line holds a pair of dimensions of 16 tokens (keys) or
//! a pair of tokens of 16 dimensions (values), which is what `vdpbf16ps` adds.

use std::arch::x86_64::*;

use super::{QUERIES, SPAN, SPAN_TILES, Scratch, Span, TILE_TOKENS};

/// Numbers of bf16 in a line.
const LINE: usize = 32;

/// Whether heads of this size can be read in whole lines.
pub(super) fn fits(head_dim: usize) -> bool {
    head_dim.is_multiple_of(16)
}

#[inline(always)]
unsafe fn line(at: *const u16) -> __m512bh {
    // SAFETY: the caller's pointer is to a line; both types are 64 plain bytes.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast())) }
}

#[inline(always)]
unsafe fn two(at: *const u32) -> __m512bh {
    // SAFETY: the caller's pointer is to a pair; both types are 64 plain bytes.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32((*at).cast_signed())) }
}

/// The scalar product of each query with each key of the span.
///
/// # Safety
/// The processor has AVX-512 F, BW, VL and BF16; `head_dim` fits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn scores(
    scratch: &mut Scratch,
    span: &Span<'_>,
    queries: usize,
    head_dim: usize,
) {
    let half = head_dim / 2;
    assert!(scratch.q_pairs.len() >= queries * half && scratch.scores.len() >= queries * SPAN);
    for keys in &span.keys[..span.count] {
        assert!(keys.len() >= TILE_TOKENS * head_dim);
    }
    let mut query = 0;
    while query < queries {
        let q = scratch.q_pairs[query * half..].as_ptr();
        let out = scratch.scores[query * SPAN..].as_mut_ptr();
        // SAFETY: M queries and their scores lie inside, by the asserts; tiles
        // are whole.
        unsafe {
            query += match queries - query {
                8.. => by_tiles::<8, 2>(q, span, out, half),
                6.. => by_tiles::<6, 2>(q, span, out, half),
                4.. => by_tiles::<4, 4>(q, span, out, half),
                3 => by_tiles::<3, 4>(q, span, out, half),
                2 => by_tiles::<2, 4>(q, span, out, half),
                _ => by_tiles::<1, 4>(q, span, out, half),
            };
        }
    }
}

/// `M` queries against the span, `T` tiles at a time; returns `M`.
///
/// # Safety
/// As [`scores`]; `q` holds M queries and `out` room for M rows of scores.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn by_tiles<const M: usize, const T: usize>(
    q: *const u32,
    span: &Span<'_>,
    out: *mut f32,
    half: usize,
) -> usize {
    let mut tile = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while tile + T <= span.count {
            products::<M, T>(q, span, tile, out, half);
            tile += T;
        }
        while tile < span.count {
            products::<M, 1>(q, span, tile, out, half);
            tile += 1;
        }
    }
    M
}

/// # Safety
/// As [`by_tiles`]; the span has `T` tiles from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn products<const M: usize, const T: usize>(
    q: *const u32,
    span: &Span<'_>,
    first: usize,
    out: *mut f32,
    half: usize,
) {
    let keys: [*const u16; T] = std::array::from_fn(|t| span.keys[first + t].as_ptr());
    let mut acc = [[_mm512_setzero_ps(); T]; M];
    // SAFETY: a tile has a line for each of `half` pairs of dimensions; the
    // rest is the caller's promise.
    unsafe {
        for i in 0..half {
            let lines: [__m512bh; T] = std::array::from_fn(|t| line(keys[t].add(i * LINE)));
            for (m, acc) in acc.iter_mut().enumerate() {
                let pair = two(q.add(m * half + i));
                for t in 0..T {
                    acc[t] = _mm512_dpbf16_ps(acc[t], lines[t], pair);
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            for (t, acc) in acc.into_iter().enumerate() {
                _mm512_storeu_ps(out.add(m * SPAN + (first + t) * TILE_TOKENS), acc);
            }
        }
    }
}

/// Adds the weighted values of the span.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn accumulate(
    scratch: &mut Scratch,
    span: &Span<'_>,
    queries: usize,
    head_dim: usize,
) {
    assert!(queries <= QUERIES && scratch.scores.len() >= queries * SPAN);
    assert!(scratch.acc.len() >= queries * head_dim);
    for values in &span.values[..span.count] {
        assert!(values.len() >= TILE_TOKENS * head_dim);
    }
    assert!(span.tokens <= span.count * TILE_TOKENS);
    let mut weights = [[0u32; SPAN / 2]; QUERIES];
    for (query, weights) in weights[..queries].iter_mut().enumerate() {
        for tile in 0..SPAN_TILES {
            // SAFETY: SPAN scores of each query lie inside, by the assert;
            // 16 bf16 fill 8 of the SPAN / 2 words.
            unsafe {
                let from = scratch
                    .scores
                    .as_ptr()
                    .add(query * SPAN + tile * TILE_TOKENS);
                let pairs = _mm512_cvtneps_pbh(_mm512_loadu_ps(from));
                let pairs = std::mem::transmute::<__m256bh, __m256i>(pairs);
                _mm256_storeu_si256(weights[tile * 8..].as_mut_ptr().cast(), pairs);
            }
        }
    }
    let lines = head_dim / 16;
    let mut query = 0;
    while query < queries {
        let p = &weights[query..];
        let acc = scratch.acc[query * head_dim..].as_mut_ptr();
        let left = queries - query;
        let mut d = 0;
        // SAFETY: M queries lie inside, by the asserts, and D lines from d on.
        unsafe {
            while d < lines {
                d += match (left, lines - d) {
                    (4.., 4..) => values::<4, 4>(p, span, acc, head_dim, d),
                    (4.., _) => values::<4, 1>(p, span, acc, head_dim, d),
                    (2.., 8..) => values::<2, 8>(p, span, acc, head_dim, d),
                    (2.., 4..) => values::<2, 4>(p, span, acc, head_dim, d),
                    (2.., _) => values::<2, 1>(p, span, acc, head_dim, d),
                    (_, 8..) => values::<1, 8>(p, span, acc, head_dim, d),
                    (_, 4..) => values::<1, 4>(p, span, acc, head_dim, d),
                    _ => values::<1, 1>(p, span, acc, head_dim, d),
                };
            }
        }
        query += match left {
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
    }
}

/// `M` queries, `D` lines of 16 dimensions from line `d` on; returns `D`.
///
/// # Safety
/// As [`scores`]; `acc` holds M rows of `head_dim`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn values<const M: usize, const D: usize>(
    weights: &[[u32; SPAN / 2]],
    span: &Span<'_>,
    acc: *mut f32,
    head_dim: usize,
    d: usize,
) -> usize {
    let weights: [*const u32; M] = std::array::from_fn(|m| weights[m].as_ptr());
    // SAFETY: the pairs of a tile are 2 * head_dim numbers each; the rest is
    // the caller's promise.
    unsafe {
        let at = |m: usize, i: usize| acc.add(m * head_dim + (d + i) * 16);
        let mut sums: [[__m512; D]; M] =
            std::array::from_fn(|m| std::array::from_fn(|i| _mm512_loadu_ps(at(m, i))));
        let pairs = span.tokens.div_ceil(2);
        for (tile, values) in span.values[..span.count].iter().enumerate() {
            let from = values.as_ptr().add(d * LINE);
            for pair in tile * 8..pairs.min(tile * 8 + 8) {
                let from = from.add(pair % 8 * 2 * head_dim);
                let lines: [__m512bh; D] = std::array::from_fn(|i| line(from.add(i * LINE)));
                for (m, sums) in sums.iter_mut().enumerate() {
                    let weight = two(weights[m].add(pair));
                    for i in 0..D {
                        sums[i] = _mm512_dpbf16_ps(sums[i], lines[i], weight);
                    }
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (i, sums) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(at(m, i), sums);
            }
        }
    }
    D
}
