//! The executor on the inference library's products: the measure for the other.
//!
//! Weights stay as they are in the file and the library multiplies by them
//! ([`matrix`]). All the rest works on plain `f32` slices, keys and values
//! included. It computes sequences one after the other.

mod attention;
mod matrix;
mod numeric;

use super::cache::Cache;
use super::family::{Activation, RopeStyle};
use super::hyper::Hyper;
use super::layers::{Layer, Linear, Weights};
use super::rope::{Angles, Ropes};
use super::{ModelError, Part};
use attention::{Shape, attend};
pub(super) use matrix::{Matrix, Slabs};
use numeric::{add, add_row, gelu_gate, rms_norm, rms_norm_into, scale, silu_gate};

/// A model's weights as the library has them.
pub(super) struct Reference {
    weights: Weights<Matrix>,
}

/// Buffers that all layers of one computation share.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    part: Vec<f32>,
    angles: Angles,
}

/// What one sequence computes with.
struct Run<'a> {
    hyper: &'a Hyper,
    cache: &'a mut Cache,
    scratch: Scratch,
}

impl Reference {
    pub(super) fn new(weights: Weights<Matrix>) -> Self {
        Self { weights }
    }

    /// The wanted rows of logits. Keys and values are appended to the caches,
    /// which have room for them, but not committed.
    pub(super) fn compute(
        &self,
        hyper: &Hyper,
        ropes: &Ropes,
        parts: &mut [Part<'_>],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut logits = Vec::new();
        for part in parts {
            let mut run = Run {
                hyper,
                cache: part.cache,
                scratch: Scratch::default(),
            };
            let wanted = part.logits.rows(part.tokens.len());
            // Once inside the pool, its threads share work without a wake-up each time.
            let rows = match matrix::may_share() {
                true => rayon::scope(|_| run.logits(&self.weights, ropes, part.tokens, wanted))?,
                false => run.logits(&self.weights, ropes, part.tokens, wanted)?,
            };
            logits.extend(rows.chunks_exact(hyper.vocab).map(<[f32]>::to_vec));
        }
        Ok(logits)
    }
}

/// Computes a model's first layers over rows of embeddings, for an executor that
/// does the others: `x` is a sequence's new rows before them, and after.
pub(super) fn first_layers(
    layers: &[Layer<Matrix>],
    hyper: &Hyper,
    ropes: &Ropes,
    cache: &mut Cache,
    x: &mut Vec<f32>,
) -> Result<(), ModelError> {
    if layers.is_empty() {
        return Ok(());
    }
    let rows = x.len() / hyper.width;
    let mut run = Run {
        hyper,
        cache,
        scratch: Scratch::default(),
    };
    let first = run.cache.len();
    ropes.fill(first..first + rows, &mut run.scratch.angles);
    let mut compute = || {
        for (index, layer) in layers.iter().enumerate() {
            run.attention(layer, index, rows, x)?;
            run.feed_forward(layer, x)?;
        }
        Ok(())
    };
    match matrix::may_share() {
        true => rayon::scope(|_| compute()),
        false => compute(),
    }
}

impl Linear<Matrix> {
    fn apply(&self, x: &[f32], count: usize, out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.weight.apply(x, count, out)?;
        if let Some(bias) = &self.bias {
            add_row(out, bias);
        }
        Ok(())
    }
}

impl Run<'_> {
    fn logits(
        &mut self,
        weights: &Weights<Matrix>,
        ropes: &Ropes,
        tokens: &[u32],
        wanted: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let hyper = self.hyper;
        let mut x = weights.embedding.lookup(tokens)?;
        scale(&mut x, hyper.embedding_scale);
        let first = self.cache.len();
        ropes.fill(first..first + tokens.len(), &mut self.scratch.angles);
        for (index, layer) in weights.layers.iter().enumerate() {
            // Of the last layer only the wanted rows matter.
            let kept = match index + 1 < hyper.layers {
                true => tokens.len(),
                false => wanted,
            };
            self.attention(layer, index, kept, &mut x)?;
            if kept == 0 {
                return Ok(Vec::new());
            }
            self.feed_forward(layer, &mut x)?;
        }
        rms_norm(&mut x, &weights.output_norm, hyper.eps);
        let mut logits = Vec::new();
        weights.head().apply(&x, wanted, &mut logits)?;
        scale(&mut logits, hyper.logit_scale);
        if let Some(cap) = hyper.final_softcap {
            logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
        if logits.iter().all(|x| x.is_finite()) {
            Ok(logits)
        } else {
            Err(ModelError::NotFinite)
        }
    }

    fn attention(
        &mut self,
        layer: &Layer<Matrix>,
        index: usize,
        kept: usize,
        x: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let hyper = self.hyper;
        let rows = x.len() / hyper.width;
        let Scratch {
            normed,
            query,
            key,
            value,
            attended,
            part,
            angles,
            ..
        } = &mut self.scratch;
        rms_norm_into(x, &layer.attention_norm, hyper.eps, normed);
        layer.query.apply(normed, rows, query)?;
        layer.key.apply(normed, rows, key)?;
        layer.value.apply(normed, rows, value)?;
        if let Some([query_norm, key_norm]) = &layer.qk_norms {
            rms_norm(query, query_norm, hyper.eps);
            rms_norm(key, key_norm, hyper.eps);
        }
        let windowed = hyper.windowed[index];
        if hyper.rotated[index] {
            rotate(hyper, query, hyper.heads, angles, windowed);
            rotate(hyper, key, hyper.kv_heads, angles, windowed);
        }
        scale(query, hyper.query_scale);
        self.cache.append(index, key, value)?;
        if kept == 0 {
            return Ok(());
        }
        let dropped = rows - kept;
        query.drain(..dropped * hyper.query_width());
        x.drain(..dropped * hyper.width);
        let shape = Shape {
            heads: hyper.heads,
            kv_heads: hyper.kv_heads,
            head_dim: hyper.head_dim,
            first: self.cache.len() + dropped,
            window: hyper.window.filter(|_| windowed),
        };
        attend(shape, query, &self.cache.layer(index), attended);
        layer.attention_out.apply(attended, kept, part)?;
        if let Some(norm) = &layer.attention_post_norm {
            rms_norm(part, norm, hyper.eps);
        }
        scale(part, hyper.residual_scale);
        add(x, part);
        Ok(())
    }

    fn feed_forward(&mut self, layer: &Layer<Matrix>, x: &mut [f32]) -> Result<(), ModelError> {
        let hyper = self.hyper;
        let rows = x.len() / hyper.width;
        let Scratch {
            normed,
            gate,
            up,
            part,
            ..
        } = &mut self.scratch;
        rms_norm_into(x, &layer.feed_forward_norm, hyper.eps, normed);
        layer.gate.apply(normed, rows, gate)?;
        layer.up.apply(normed, rows, up)?;
        match hyper.family.activation {
            Activation::Silu => silu_gate(gate, up),
            Activation::Gelu => gelu_gate(gate, up),
        }
        layer.down.apply(gate, rows, part)?;
        if let Some(norm) = &layer.feed_forward_post_norm {
            rms_norm(part, norm, hyper.eps);
        }
        scale(part, hyper.residual_scale);
        add(x, part);
        Ok(())
    }
}

/// Rotates `rows x heads x head_dim` numbers in place; one row per position.
fn rotate(hyper: &Hyper, x: &mut [f32], heads: usize, angles: &Angles, windowed: bool) {
    for (row, x) in x.chunks_exact_mut(heads * hyper.head_dim).enumerate() {
        let (cos, sin) = angles.row(row, windowed);
        for head in x.chunks_exact_mut(hyper.head_dim) {
            for (pair, (cos, sin)) in cos.iter().zip(sin).enumerate() {
                let (a, b) = match hyper.family.rope {
                    RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                    RopeStyle::Halves => (pair, pair + hyper.rope.dims / 2),
                };
                let (x, y) = (head[a], head[b]);
                (head[a], head[b]) = (x * cos - y * sin, x * sin + y * cos);
            }
        }
    }
}
