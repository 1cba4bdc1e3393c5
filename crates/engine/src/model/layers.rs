//! What a model is made of, as its family's description says; the same for
//! every executor, which only brings its own kind of matrix.

use super::family::{Bias, Family, Stored};
use super::hyper::Hyper;
use super::loader::{Loader, Make, Vector};
use crate::gguf::LoadError;

/// A whole model's weights.
pub(super) struct Weights<W> {
    /// `vocab x width`; also the output projection where the file has none.
    pub(super) embedding: W,
    pub(super) layers: Vec<Layer<W>>,
    pub(super) output_norm: Vector,
    pub(super) output: Option<W>,
}

/// A projection with its bias.
pub(super) struct Linear<W> {
    pub(super) weight: W,
    pub(super) bias: Option<Vector>,
}

/// One layer's weights.
pub(super) struct Layer<W> {
    pub(super) attention_norm: Vector,
    pub(super) query: Linear<W>,
    pub(super) key: Linear<W>,
    pub(super) value: Linear<W>,
    /// Norms of each head of query and key.
    pub(super) qk_norms: Option<[Vector; 2]>,
    pub(super) attention_out: Linear<W>,
    pub(super) attention_post_norm: Option<Vector>,
    pub(super) feed_forward_norm: Vector,
    pub(super) gate: Linear<W>,
    pub(super) up: Linear<W>,
    pub(super) down: Linear<W>,
    pub(super) feed_forward_post_norm: Option<Vector>,
}

impl<W> Weights<W> {
    pub(super) fn load<M: Make<Matrix = W>>(
        loader: &mut Loader<'_, M>,
        hyper: &Hyper,
    ) -> Result<Self, LoadError> {
        // The largest tensors first: their bytes are beside little else then.
        let embedding = loader.matrix("token_embd.weight", hyper.vocab, hyper.width)?;
        let output = loader.opt_matrix("output.weight", hyper.vocab, hyper.width)?;
        let output_norm = loader.vector("output_norm.weight", hyper.width)?;
        let layers = (0..hyper.layers)
            .map(|index| Layer::load(loader, hyper, index))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            embedding,
            layers,
            output_norm,
            output,
        })
    }

    /// Whether `property` holds for any matrix.
    pub(super) fn any(&self, property: impl Fn(&W) -> bool) -> bool {
        let linears = self.layers.iter().flat_map(|layer| {
            [
                &layer.query,
                &layer.key,
                &layer.value,
                &layer.attention_out,
                &layer.gate,
                &layer.up,
                &layer.down,
            ]
        });
        linears.map(|linear| &linear.weight).any(&property) || property(self.head())
    }

    /// What turns the last layer's output into logits.
    pub(super) fn head(&self) -> &W {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

impl<W> Layer<W> {
    /// The same layer with other matrices.
    pub(super) fn map<V>(
        self,
        f: impl Fn(W) -> Result<V, LoadError>,
    ) -> Result<Layer<V>, LoadError> {
        let linear = |linear: Linear<W>| {
            Ok::<_, LoadError>(Linear {
                weight: f(linear.weight)?,
                bias: linear.bias,
            })
        };
        Ok(Layer {
            attention_norm: self.attention_norm,
            query: linear(self.query)?,
            key: linear(self.key)?,
            value: linear(self.value)?,
            qk_norms: self.qk_norms,
            attention_out: linear(self.attention_out)?,
            attention_post_norm: self.attention_post_norm,
            feed_forward_norm: self.feed_forward_norm,
            gate: linear(self.gate)?,
            up: linear(self.up)?,
            down: linear(self.down)?,
            feed_forward_post_norm: self.feed_forward_post_norm,
        })
    }

    fn load<M: Make<Matrix = W>>(
        loader: &mut Loader<'_, M>,
        hyper: &Hyper,
        index: usize,
    ) -> Result<Self, LoadError> {
        let family = hyper.family;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, query_rows, kv) = (hyper.width, hyper.query_width(), hyper.kv_width());
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
        let plain = |weight| Linear { weight, bias: None };
        // Some converters take the fused tensor apart.
        let [query, key, value] =
            if family.qkv == Stored::Fused && !loader.has(&name("attn_q.weight")) {
                loader
                    .fused(&name("attn_qkv.weight"), [query_rows, kv, kv], width)?
                    .map(plain)
            } else {
                [
                    Linear::load(loader, family, &name("attn_q"), query_rows, width, true)?,
                    Linear::load(loader, family, &name("attn_k"), kv, width, true)?,
                    Linear::load(loader, family, &name("attn_v"), kv, width, true)?,
                ]
            };
        let inner = hyper.feed_forward;
        let [gate, up] = match family.gate_up {
            Stored::Fused => loader
                .fused(&name("ffn_up.weight"), [inner; 2], width)?
                .map(plain),
            Stored::Apart => [
                Linear::load(loader, family, &name("ffn_gate"), inner, width, false)?,
                Linear::load(loader, family, &name("ffn_up"), inner, width, false)?,
            ],
        };
        let attention_out = name("attn_output");
        Ok(Self {
            attention_norm,
            query,
            key,
            value,
            qk_norms,
            attention_out: Linear::load(loader, family, &attention_out, width, query_rows, false)?,
            attention_post_norm,
            feed_forward_norm,
            gate,
            up,
            down: Linear::load(loader, family, &name("ffn_down"), width, inner, false)?,
            feed_forward_post_norm,
        })
    }
}

impl<W> Linear<W> {
    fn load<M: Make<Matrix = W>>(
        loader: &mut Loader<'_, M>,
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
}
