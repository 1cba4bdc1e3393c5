//! The portable kernel.

use super::{SPAN, Scratch, Span, TILE_TOKENS};
use crate::kernels::float16::from_bf16;

/// The scalar product of each query with each key of the span.
pub(super) fn scores(scratch: &mut Scratch, span: &Span<'_>, queries: usize, head_dim: usize) {
    for query in 0..queries {
        let (pairs, _) = scratch.q[query * head_dim..][..head_dim].as_chunks::<2>();
        let scores = &mut scratch.scores[query * SPAN..][..SPAN];
        for (keys, scores) in span.keys[..span.count]
            .iter()
            .zip(scores.as_chunks_mut::<TILE_TOKENS>().0)
        {
            *scores = [0.0; TILE_TOKENS];
            let (lines, _) = keys.as_chunks::<{ TILE_TOKENS * 2 }>();
            for (line, pair) in lines.iter().zip(pairs) {
                for token in 0..TILE_TOKENS {
                    scores[token] += pair[0] * from_bf16(line[token * 2])
                        + pair[1] * from_bf16(line[token * 2 + 1]);
                }
            }
        }
    }
}

/// Adds the weighted values of the span.
pub(super) fn accumulate(scratch: &mut Scratch, span: &Span<'_>, queries: usize, head_dim: usize) {
    for query in 0..queries {
        let acc = &mut scratch.acc[query * head_dim..][..head_dim];
        let weights = &scratch.scores[query * SPAN..][..SPAN];
        for pair in 0..span.tokens.div_ceil(2) {
            let [first, second] = [weights[pair * 2], weights[pair * 2 + 1]];
            let values = &span.values[pair / 8][pair % 8 * 2 * head_dim..][..2 * head_dim];
            for (acc, value) in acc.iter_mut().zip(values.as_chunks::<2>().0) {
                *acc += first * from_bf16(value[0]) + second * from_bf16(value[1]);
            }
        }
    }
}
