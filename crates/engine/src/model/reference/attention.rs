//! Causal grouped-query attention over a sequence's cache.

use rayon::prelude::*;

use super::matrix::may_share;
use super::numeric::{add_scaled, dot, softmax};
use crate::model::cache::Layer;

/// Fewer multiplications than this are done on the calling thread.
const WORTH_SHARING: usize = 1 << 16;

/// The shape of one attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Position of the first query; each later row is one position on.
    pub(super) first: usize,
    /// How many positions, its own included, a query sees; all when `None`.
    pub(super) window: Option<usize>,
}

/// `out[row, head] = softmax(query . keys) values`, where a query at position p
/// sees the positions up to p. Queries (`rows x heads x head_dim`) are scaled
/// already; `cache` holds every position up to the last query's.
pub(super) fn attend(shape: Shape, queries: &[f32], cache: &Layer<'_>, out: &mut Vec<f32>) {
    out.clear();
    out.resize(queries.len(), 0.0);
    let group = shape.heads / shape.kv_heads * shape.head_dim;
    let rows = queries.len() / (shape.heads * shape.head_dim);
    let work = queries.len() * (shape.first + rows).min(shape.window.unwrap_or(usize::MAX));
    let unit = |scores: &mut Vec<f32>, (unit, (out, query)): (usize, (&mut [f32], &[f32]))| {
        attend_group(shape, unit, query, cache, scores, out);
    };
    if work >= WORTH_SHARING && may_share() {
        out.par_chunks_exact_mut(group)
            .zip(queries.par_chunks_exact(group))
            .enumerate()
            .for_each_init(Vec::new, unit);
    } else {
        let mut scores = Vec::new();
        out.chunks_exact_mut(group)
            .zip(queries.chunks_exact(group))
            .enumerate()
            .for_each(|item| unit(&mut scores, item));
    }
}

/// The heads of one query that share one head of keys and values.
fn attend_group(
    shape: Shape,
    unit: usize,
    query: &[f32],
    cache: &Layer<'_>,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let Shape {
        kv_heads, head_dim, ..
    } = shape;
    let (row, kv_head) = (unit / kv_heads, unit % kv_heads);
    let end = shape.first + row + 1;
    let start = end - shape.window.map_or(end, |window| window.min(end));
    let columns = kv_head * head_dim..(kv_head + 1) * head_dim;
    let length = end - start;

    scores.clear();
    scores.resize(query.len() / head_dim * length, 0.0);
    for position in 0..length {
        let key = &cache.key(start + position)[columns.clone()];
        for (head, query) in query.chunks_exact(head_dim).enumerate() {
            scores[head * length + position] = dot(query, key);
        }
    }
    scores.chunks_exact_mut(length).for_each(softmax);
    for position in 0..length {
        let value = &cache.value(start + position)[columns.clone()];
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            add_scaled(out, scores[head * length + position], value);
        }
    }
}
