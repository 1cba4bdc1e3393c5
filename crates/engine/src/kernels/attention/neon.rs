//! NEON: bf16 widened to floats in registers. Of a pair the low number becomes
//! a float by a shift, the high one by a mask.

use std::arch::aarch64::*;

use super::{SPAN, Scratch, Span, TILE_TOKENS};

/// Whether heads of this size can be read in whole vectors.
pub(super) fn fits(head_dim: usize) -> bool {
    head_dim.is_multiple_of(4)
}

/// 4 pairs: the low numbers, the high numbers.
#[inline(always)]
unsafe fn pairs(at: *const u16) -> (float32x4_t, float32x4_t) {
    // SAFETY: the caller's pointer is to 8 numbers.
    unsafe {
        let both = vreinterpretq_u32_u16(vld1q_u16(at));
        (
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(both)),
            vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff_0000))),
        )
    }
}

/// The scalar product of each query with each key of the span.
///
/// # Safety
/// The processor has NEON; `head_dim` fits.
#[target_feature(enable = "neon")]
pub(super) unsafe fn scores(
    scratch: &mut Scratch,
    span: &Span<'_>,
    queries: usize,
    head_dim: usize,
) {
    assert!(scratch.q.len() >= queries * head_dim && scratch.scores.len() >= queries * SPAN);
    for (tile, keys) in span.keys[..span.count].iter().enumerate() {
        assert!(keys.len() >= TILE_TOKENS * head_dim);
        let mut query = 0;
        while query < queries {
            let q = scratch.q[query * head_dim..].as_ptr();
            let out = scratch.scores[query * SPAN + tile * TILE_TOKENS..].as_mut_ptr();
            // SAFETY: M queries and their scores lie inside, by the asserts,
            // and so does the tile.
            unsafe {
                query += match queries - query {
                    4.. => products::<4>(q, keys.as_ptr(), out, head_dim),
                    2.. => products::<2>(q, keys.as_ptr(), out, head_dim),
                    _ => products::<1>(q, keys.as_ptr(), out, head_dim),
                };
            }
        }
    }
}

/// `M` queries against a tile; returns `M`.
///
/// # Safety
/// As [`scores`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn products<const M: usize>(
    q: *const f32,
    keys: *const u16,
    out: *mut f32,
    head_dim: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); 4]; M];
        for i in 0..head_dim / 2 {
            let line = keys.add(i * 2 * TILE_TOKENS);
            for part in 0..4 {
                let (low, high) = pairs(line.add(part * 8));
                for (m, acc) in acc.iter_mut().enumerate() {
                    let at = q.add(m * head_dim + i * 2);
                    acc[part] = vfmaq_n_f32(acc[part], low, *at);
                    acc[part] = vfmaq_n_f32(acc[part], high, *at.add(1));
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            for (part, acc) in acc.into_iter().enumerate() {
                vst1q_f32(out.add(m * SPAN + part * 4), acc);
            }
        }
    }
    M
}

/// Adds the weighted values of the span.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn accumulate(
    scratch: &mut Scratch,
    span: &Span<'_>,
    queries: usize,
    head_dim: usize,
) {
    assert!(scratch.acc.len() >= queries * head_dim && scratch.scores.len() >= queries * SPAN);
    assert!(span.tokens <= span.count * TILE_TOKENS);
    for values in &span.values[..span.count] {
        assert!(values.len() >= TILE_TOKENS * head_dim);
    }
    let mut query = 0;
    while query < queries {
        let p = scratch.scores[query * SPAN..].as_ptr();
        let acc = scratch.acc[query * head_dim..].as_mut_ptr();
        let mut d = 0;
        let left = queries - query;
        // SAFETY: M queries lie inside, by the asserts, and D * 4 dimensions
        // from d on.
        unsafe {
            while d < head_dim {
                d += match (left, head_dim - d) {
                    (2.., 32..) => values::<2, 8>(p, span, acc, head_dim, d),
                    (2.., _) => values::<2, 1>(p, span, acc, head_dim, d),
                    (_, 32..) => values::<1, 8>(p, span, acc, head_dim, d),
                    _ => values::<1, 1>(p, span, acc, head_dim, d),
                };
            }
        }
        query += left.min(2);
    }
}

/// `M` queries, `D` vectors of 4 dimensions from dimension `d` on; returns how
/// many dimensions.
///
/// # Safety
/// As [`scores`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn values<const M: usize, const D: usize>(
    weights: *const f32,
    span: &Span<'_>,
    acc: *mut f32,
    head_dim: usize,
    d: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |m: usize, i: usize| acc.add(m * head_dim + d + i * 4);
        let mut sums: [[float32x4_t; D]; M] =
            std::array::from_fn(|m| std::array::from_fn(|i| vld1q_f32(at(m, i))));
        for pair in 0..span.tokens.div_ceil(2) {
            let from = span.values[pair / 8].as_ptr();
            let from = from.add(pair % 8 * 2 * head_dim + d * 2);
            for i in 0..D {
                let (low, high) = pairs(from.add(i * 8));
                for (m, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.add(m * SPAN + pair * 2);
                    sums[i] = vfmaq_n_f32(sums[i], low, *weight);
                    sums[i] = vfmaq_n_f32(sums[i], high, *weight.add(1));
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (i, sums) in sums.into_iter().enumerate() {
                vst1q_f32(at(m, i), sums);
            }
        }
    }
    D * 4
}
