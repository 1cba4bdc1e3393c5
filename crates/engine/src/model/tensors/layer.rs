//! One layer on a device.

use candle_core::quantized::QMatMul;
use candle_core::{Device, Error, Module, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::{rope, rope_i};

use super::store::Store;
use crate::model::family::{Activation, RopeStyle};
use crate::model::hyper::Hyper;
use crate::model::layers::{Layer, Linear};

/// The most scores that are computed at once.
const MAX_SCORES: usize = 1 << 25;

/// A layer's weights on the device.
pub(super) struct Unit {
    attention_norm: Tensor,
    query: Product,
    key: Product,
    value: Product,
    qk_norms: Option<[Tensor; 2]>,
    attention_out: Product,
    attention_post_norm: Option<Tensor>,
    feed_forward_norm: Tensor,
    gate: Product,
    up: Product,
    down: Product,
    feed_forward_post_norm: Option<Tensor>,
}

struct Product {
    weight: QMatMul,
    bias: Option<Tensor>,
}

/// Cosines and sines of a step's rows, `rows x pairs` each.
pub(super) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// One sequence's rows in a step.
pub(super) struct Span {
    /// Its first row in the step.
    pub(super) start: usize,
    pub(super) tokens: usize,
    /// Its length before the step.
    pub(super) first: usize,
    /// Its rows in the store, those of the step included.
    pub(super) rows: Tensor,
    /// Where its new rows go: row of the step, how many, slot, row in the slot.
    pub(super) writes: Vec<(usize, usize, u32, usize)>,
    /// What is added to scores, for layers that see everything and for windowed
    /// ones: `tokens x length`. None where a row sees all there is.
    pub(super) masks: [Option<Tensor>; 2],
}

/// What all layers of a step share.
pub(super) struct Step<'a> {
    pub(super) hyper: &'a Hyper,
    pub(super) store: &'a Store,
    pub(super) spans: &'a [Span],
    /// Of layers that see everything, and of windowed ones.
    pub(super) rotations: &'a [Rotation; 2],
}

pub(super) fn vector(numbers: Vec<f32>, device: &Device) -> Result<Tensor, Error> {
    let length = numbers.len();
    Tensor::from_vec(numbers, length, device)
}

impl Unit {
    pub(super) fn new(layer: Layer<QMatMul>, device: &Device) -> Result<Self, Error> {
        let norm = |numbers| vector(numbers, device);
        let opt = |numbers: Option<Vec<f32>>| numbers.map(norm).transpose();
        let product = |linear: Linear<QMatMul>| {
            Ok::<_, Error>(Product {
                weight: linear.weight,
                bias: opt(linear.bias)?,
            })
        };
        let qk_norms = match layer.qk_norms {
            Some([query, key]) => Some([norm(query)?, norm(key)?]),
            None => None,
        };
        Ok(Self {
            attention_norm: norm(layer.attention_norm)?,
            query: product(layer.query)?,
            key: product(layer.key)?,
            value: product(layer.value)?,
            qk_norms,
            attention_out: product(layer.attention_out)?,
            attention_post_norm: opt(layer.attention_post_norm)?,
            feed_forward_norm: norm(layer.feed_forward_norm)?,
            gate: product(layer.gate)?,
            up: product(layer.up)?,
            down: product(layer.down)?,
            feed_forward_post_norm: opt(layer.feed_forward_post_norm)?,
        })
    }

    /// `x` of all rows (`rows x width`) after this layer. `index` counts all
    /// layers of the model, `own` those on the device.
    pub(super) fn forward(
        &self,
        step: &Step<'_>,
        index: usize,
        own: usize,
        x: &Tensor,
    ) -> Result<Tensor, Error> {
        let hyper = step.hyper;
        let part = self.attention(step, index, own, x)?;
        let x = add(hyper, x, part, self.attention_post_norm.as_ref())?;
        let normed = rms_norm(&x, &self.feed_forward_norm, hyper.eps)?;
        let gate = self.gate.forward(&normed)?;
        let gate = match hyper.family.activation {
            Activation::Silu => silu(&gate)?,
            Activation::Gelu => gate.gelu()?,
        };
        let inner = (gate * self.up.forward(&normed)?)?;
        let part = self.down.forward(&inner)?;
        add(hyper, &x, part, self.feed_forward_post_norm.as_ref())
    }

    fn attention(
        &self,
        step: &Step<'_>,
        index: usize,
        own: usize,
        x: &Tensor,
    ) -> Result<Tensor, Error> {
        let hyper = step.hyper;
        let rows = x.dim(0)?;
        let windowed = usize::from(hyper.windowed[index]);
        let normed = rms_norm(x, &self.attention_norm, hyper.eps)?;
        let heads = |product: &Product, heads: usize| {
            product
                .forward(&normed)?
                .reshape((rows, heads, hyper.head_dim))
        };
        let mut query = heads(&self.query, hyper.heads)?;
        let mut key = heads(&self.key, hyper.kv_heads)?;
        let value = heads(&self.value, hyper.kv_heads)?;
        if let Some([query_norm, key_norm]) = &self.qk_norms {
            query = rms_norm(&query, query_norm, hyper.eps)?;
            key = rms_norm(&key, key_norm, hyper.eps)?;
        }
        // heads x rows x head_dim
        query = query.transpose(0, 1)?.contiguous()?;
        if hyper.rotated[index] {
            let rotation = &step.rotations[windowed];
            query = rotated(hyper, &query, rotation)?;
            let turned = rotated(hyper, &key.transpose(0, 1)?.contiguous()?, rotation)?;
            key = turned.transpose(0, 1)?.contiguous()?;
        }
        query = (query * f64::from(hyper.query_scale))?;
        let key = key.reshape((rows, hyper.kv_width()))?;
        let value = value.reshape((rows, hyper.kv_width()))?;
        let mut parts = Vec::with_capacity(step.spans.len());
        for span in step.spans {
            for (row, count, slot, at) in &span.writes {
                let new = [key.narrow(0, *row, *count)?, value.narrow(0, *row, *count)?];
                step.store.write(own, *slot, *at, [&new[0], &new[1]])?;
            }
            let query = query.narrow(1, span.start, span.tokens)?;
            let known = step.store.read(own, &span.rows)?;
            let mask = span.masks[windowed].as_ref();
            parts.push(attend(hyper, &query, known, mask)?);
        }
        self.attention_out.forward(&Tensor::cat(&parts, 0)?)
    }
}

impl Product {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let out = self.weight.forward(x)?;
        match &self.bias {
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }
}

/// `x + part`, after the part's own norm and scale.
fn add(hyper: &Hyper, x: &Tensor, part: Tensor, norm: Option<&Tensor>) -> Result<Tensor, Error> {
    let part = match norm {
        Some(norm) => rms_norm(&part, norm, hyper.eps)?,
        None => part,
    };
    match hyper.residual_scale {
        1.0 => x + part,
        scale => x + (part * f64::from(scale))?,
    }
}

/// Rotates `heads x rows x head_dim` numbers.
fn rotated(hyper: &Hyper, x: &Tensor, by: &Rotation) -> Result<Tensor, Error> {
    let turn = |x: &Tensor| {
        let x = x.unsqueeze(0)?;
        let turned = match hyper.family.rope {
            RopeStyle::Interleaved => rope_i(&x, &by.cos, &by.sin)?,
            RopeStyle::Halves => rope(&x, &by.cos, &by.sin)?,
        };
        turned.squeeze(0)
    };
    let (dims, all) = (hyper.rope.dims, hyper.head_dim);
    if dims == all {
        return turn(x);
    }
    let head = turn(&x.narrow(2, 0, dims)?.contiguous()?)?;
    let rest = x.narrow(2, dims, all - dims)?.contiguous()?;
    Tensor::cat(&[head, rest], 2)
}

/// Causal grouped-query attention of `heads x tokens x head_dim` queries over a
/// sequence's keys and values; gives `tokens x query_width`.
fn attend(
    hyper: &Hyper,
    query: &Tensor,
    [keys, values]: [Tensor; 2],
    mask: Option<&Tensor>,
) -> Result<Tensor, Error> {
    let (heads, kv, dim) = (hyper.heads, hyper.kv_heads, hyper.head_dim);
    let (tokens, length) = (query.dim(1)?, keys.dim(0)?);
    let by_head = |x: Tensor| x.reshape((length, kv, dim))?.transpose(0, 1)?.contiguous();
    let (keys, values) = (by_head(keys)?, by_head(values)?);
    let keys = keys.transpose(1, 2)?;
    let piece = (MAX_SCORES / (heads * length)).clamp(1, tokens);
    let mut out = Vec::new();
    for start in (0..tokens).step_by(piece) {
        let count = piece.min(tokens - start);
        let rows = heads / kv * count;
        let query = query.narrow(1, start, count)?.contiguous()?;
        let scores = query.reshape((kv, rows, dim))?.matmul(&keys)?;
        let scores = scores.reshape((heads, count, length))?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(&mask.narrow(0, start, count)?)?,
            None => scores,
        };
        let weights = softmax_last_dim(&scores)?.reshape((kv, rows, length))?;
        let seen = weights.matmul(&values)?.reshape((heads, count, dim))?;
        out.push(
            seen.transpose(0, 1)?
                .contiguous()?
                .reshape((count, heads * dim))?,
        );
    }
    Tensor::cat(&out, 0)
}
