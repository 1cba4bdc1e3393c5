//! The decoder that runs every family.

use super::attention::{Shape, attend};
use super::cache::Cache;
use super::family::{Activation, Bias, Family, Stored};
use super::hyper::Hyper;
use super::numeric::{add, add_row, gelu_gate, rms_norm, rms_norm_into, scale, silu_gate};
use super::rope::Angles;
use super::weights::{Loader, Matrix, Vector};
use super::{Model, ModelError, Wanted};
use crate::gguf::LoadError;

/// A projection with its bias.
struct Linear {
    weight: Matrix,
    bias: Option<Vector>,
}

/// Projections of one input.
enum Projections<const N: usize> {
    Apart([Linear; N]),
    /// The rows of all, one after the other, with the number of each.
    Fused(Matrix, [usize; N]),
}

/// One layer's weights.
pub(super) struct Block {
    attention_norm: Vector,
    qkv: Projections<3>,
    /// Norms of each head of query and key.
    qk_norms: Option<[Vector; 2]>,
    attention_out: Linear,
    attention_post_norm: Option<Vector>,
    feed_forward_norm: Vector,
    gate_up: Projections<2>,
    down: Linear,
    feed_forward_post_norm: Option<Vector>,
    windowed: bool,
}

impl Block {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        hyper: &Hyper,
        index: usize,
    ) -> Result<Self, LoadError> {
        let family = hyper.family;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, query, kv) = (hyper.width, hyper.query_width(), hyper.kv_width());
        let mut norm = |part: &str, length| loader.vector(&name(part), length);
        let attention_norm = norm("attn_norm.weight", width)?;
        let feed_forward_norm = norm("ffn_norm.weight", width)?;
        let qk_norms = match family.qk_norm {
            true => Some([
                norm("attn_q_norm.weight", hyper.head_dim)?,
                norm("attn_k_norm.weight", hyper.head_dim)?,
            ]),
            false => None,
        };
        let (attention_post_norm, feed_forward_post_norm) = match family.sandwich {
            true => (
                Some(norm("post_attention_norm.weight", width)?),
                Some(norm("post_ffw_norm.weight", width)?),
            ),
            false => (None, None),
        };
        // Some converters take the fused tensor apart.
        let qkv = if family.qkv == Stored::Fused && !loader.has(&name("attn_q.weight")) {
            let rows = [query, kv, kv];
            let matrix = loader.matrix(&name("attn_qkv.weight"), rows.iter().sum(), width)?;
            Projections::Fused(matrix, rows)
        } else {
            Projections::Apart([
                Linear::load(loader, family, &name("attn_q"), query, width, true)?,
                Linear::load(loader, family, &name("attn_k"), kv, width, true)?,
                Linear::load(loader, family, &name("attn_v"), kv, width, true)?,
            ])
        };
        let inner = hyper.feed_forward;
        let gate_up = match family.gate_up {
            Stored::Fused => Projections::Fused(
                loader.matrix(&name("ffn_up.weight"), 2 * inner, width)?,
                [inner; 2],
            ),
            Stored::Apart => Projections::Apart([
                Linear::load(loader, family, &name("ffn_gate"), inner, width, false)?,
                Linear::load(loader, family, &name("ffn_up"), inner, width, false)?,
            ]),
        };
        Ok(Self {
            attention_norm,
            qkv,
            qk_norms,
            attention_out: Linear::load(loader, family, &name("attn_output"), width, query, false)?,
            attention_post_norm,
            feed_forward_norm,
            gate_up,
            down: Linear::load(loader, family, &name("ffn_down"), width, inner, false)?,
            feed_forward_post_norm,
            windowed: hyper.windowed[index],
        })
    }
}

impl Linear {
    fn load(
        loader: &mut Loader<'_>,
        family: &Family,
        name: &str,
        rows: usize,
        columns: usize,
        is_qkv: bool,
    ) -> Result<Self, LoadError> {
        let weight = loader.matrix(&format!("{name}.weight"), rows, columns)?;
        let bias = format!("{name}.bias");
        let bias = match family.bias {
            Bias::Qkv if is_qkv => Some(loader.vector(&bias, rows)?),
            Bias::Optional => loader.opt_vector(&bias, rows)?,
            Bias::Qkv | Bias::Never => None,
        };
        Ok(Self { weight, bias })
    }

    fn apply(&self, x: &[f32], count: usize, out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.weight.apply(x, count, out)?;
        if let Some(bias) = &self.bias {
            add_row(out, bias);
        }
        Ok(())
    }
}

impl<const N: usize> Projections<N> {
    fn apply(&self, x: &[f32], count: usize, outs: [&mut Vec<f32>; N]) -> Result<(), ModelError> {
        match self {
            Self::Apart(linears) => {
                for (linear, out) in linears.iter().zip(outs) {
                    linear.apply(x, count, out)?;
                }
            }
            Self::Fused(matrix, rows) => {
                let mut all = Vec::new();
                matrix.apply(x, count, &mut all)?;
                let mut start = 0;
                for (rows, out) in rows.iter().zip(outs) {
                    out.clear();
                    for line in all.chunks_exact(matrix.rows()) {
                        out.extend_from_slice(&line[start..start + rows]);
                    }
                    start += rows;
                }
            }
        }
        Ok(())
    }
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
}

impl Model {
    /// The logits of the wanted rows, one after the other. Keys and values are
    /// appended to `cache`, which has room for them, but not committed.
    pub(super) fn run(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
        wanted: Wanted,
    ) -> Result<Vec<f32>, ModelError> {
        let mut x = self.embedding.lookup(tokens)?;
        scale(&mut x, self.hyper.embedding_scale);
        let (angles, windowed_angles) = self.ropes.angles(cache.len(), tokens.len());
        let mut scratch = Scratch::default();
        for (index, block) in self.blocks.iter().enumerate() {
            let angles = match &windowed_angles {
                Some(windowed) if block.windowed => windowed,
                _ => &angles,
            };
            // Of the last layer only the wanted rows matter.
            let kept = match index + 1 < self.blocks.len() {
                true => tokens.len(),
                false => wanted.rows(tokens.len()),
            };
            self.attention(block, index, cache, angles, kept, &mut x, &mut scratch)?;
            if kept == 0 {
                return Ok(Vec::new());
            }
            self.feed_forward(block, &mut x, &mut scratch)?;
        }
        rms_norm(&mut x, &self.output_norm, self.hyper.eps);
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        let mut logits = Vec::new();
        output.apply(&x, x.len() / self.hyper.width, &mut logits)?;
        if let Some(cap) = self.hyper.final_softcap {
            logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
        if logits.iter().all(|x| x.is_finite()) {
            Ok(logits)
        } else {
            Err(ModelError::NotFinite)
        }
    }

    #[allow(clippy::too_many_arguments)] // one call site; a struct would only rename them
    fn attention(
        &self,
        block: &Block,
        index: usize,
        cache: &mut Cache,
        angles: &Angles,
        kept: usize,
        x: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) -> Result<(), ModelError> {
        let hyper = &self.hyper;
        let rows = x.len() / hyper.width;
        let Scratch {
            normed,
            query,
            key,
            value,
            attended,
            part,
            ..
        } = scratch;
        rms_norm_into(x, &block.attention_norm, hyper.eps, normed);
        block.qkv.apply(normed, rows, [query, key, value])?;
        if let Some([query_norm, key_norm]) = &block.qk_norms {
            rms_norm(query, query_norm, hyper.eps);
            rms_norm(key, key_norm, hyper.eps);
        }
        self.ropes
            .rotate(query, hyper.heads, hyper.head_dim, angles);
        self.ropes
            .rotate(key, hyper.kv_heads, hyper.head_dim, angles);
        scale(query, hyper.query_scale);
        cache.append(index, key, value)?;
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
            first: cache.len() + dropped,
            window: hyper.window.filter(|_| block.windowed),
        };
        attend(shape, query, &cache.layer(index), attended);
        block.attention_out.apply(attended, kept, part)?;
        if let Some(norm) = &block.attention_post_norm {
            rms_norm(part, norm, hyper.eps);
        }
        add(x, part);
        Ok(())
    }

    fn feed_forward(
        &self,
        block: &Block,
        x: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), ModelError> {
        let rows = x.len() / self.hyper.width;
        let Scratch {
            normed,
            gate,
            up,
            part,
            ..
        } = scratch;
        rms_norm_into(x, &block.feed_forward_norm, self.hyper.eps, normed);
        block.gate_up.apply(normed, rows, [gate, up])?;
        match self.hyper.family.activation {
            Activation::Silu => silu_gate(gate, up),
            Activation::Gelu => gelu_gate(gate, up),
        }
        block.down.apply(gate, rows, part)?;
        if let Some(norm) = &block.feed_forward_post_norm {
            rms_norm(part, norm, self.hyper.eps);
        }
        add(x, part);
        Ok(())
    }
}
