//! A file's figures, read and checked once.
//!
//! Nothing downstream checks them again: every figure here is within bounds
//! that keep products of any two of them far from overflow, and divisions whole.

use super::family::{Family, Windowed};
use crate::gguf::{Gguf, LoadError, Value};

const MAX_LAYERS: u32 = 512;
const MAX_WIDTH: u32 = 1 << 16;
const MAX_HEADS: u32 = 1 << 10;
const MAX_HEAD_DIM: u32 = 1 << 10;
const MAX_FEED_FORWARD: u32 = 1 << 20;
const MAX_VOCAB: usize = 1 << 21;
const MAX_CONTEXT: u32 = 1 << 26;

/// What the decoder needs to know beside the weights.
#[derive(Debug)]
pub(super) struct Hyper {
    pub(super) family: &'static Family,
    pub(super) layers: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) feed_forward: usize,
    pub(super) vocab: usize,
    /// The longest sequence, in tokens.
    pub(super) context: usize,
    pub(super) eps: f32,
    pub(super) embedding_scale: f32,
    pub(super) query_scale: f32,
    /// What each part's output is multiplied with before it is added.
    pub(super) residual_scale: f32,
    /// What the logits are multiplied with.
    pub(super) logit_scale: f32,
    /// `cap * tanh(x / cap)` on the logits.
    pub(super) final_softcap: Option<f32>,
    pub(super) rope: RopeFigures,
    /// How many tokens, itself included, a windowed layer sees.
    pub(super) window: Option<usize>,
    /// Per layer: whether it is windowed.
    pub(super) windowed: Vec<bool>,
    /// Per layer: whether it has rotary positions.
    pub(super) rotated: Vec<bool>,
}

/// The rotary embedding's figures.
#[derive(Debug)]
pub(super) struct RopeFigures {
    /// The first so many numbers of a head are rotated; even.
    pub(super) dims: usize,
    pub(super) theta: f32,
    /// Positions are multiplied by this (linear scaling).
    pub(super) position_scale: f32,
    /// Sines and cosines are multiplied by this.
    pub(super) magnitude: f32,
    /// Base of the windowed layers.
    pub(super) window_theta: f32,
    /// Whether the long set of factors is to be used.
    pub(super) long: bool,
}

impl Hyper {
    pub(super) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(super) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Reads a file's figures. `context`: what the caller wants, at most.
    pub(super) fn read(gguf: &Gguf, context: Option<usize>) -> Result<Self, LoadError> {
        let name = gguf.str("general.architecture")?;
        let Some(family) = Family::named(name) else {
            return Err(LoadError::Unsupported(format!(
                "models of the architecture '{name}' are not supported; this engine runs {}",
                Family::names()
            )));
        };
        let keys = Keys { gguf, family };
        keys.refuse_what_is_not_run()?;

        let layers = keys.bounded("block_count", 1, MAX_LAYERS)?;
        let width = keys.bounded("embedding_length", 1, MAX_WIDTH)?;
        let heads = keys.per_layer("attention.head_count", layers, MAX_HEADS)?;
        let kv_heads = match keys.value("attention.head_count_kv") {
            None => heads,
            Some(_) => keys.per_layer("attention.head_count_kv", layers, MAX_HEADS)?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.wrong(
                "attention.head_count_kv",
                format!("does not divide the {heads} heads"),
            ));
        }
        let head_dim = match keys.value("attention.key_length") {
            Some(_) => keys.bounded("attention.key_length", 2, MAX_HEAD_DIM)?,
            None if width.is_multiple_of(heads) && width / heads <= MAX_HEAD_DIM as usize => {
                width / heads
            }
            None => {
                return Err(keys.wrong(
                    "attention.head_count",
                    format!("does not divide the width {width}"),
                ));
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(keys.wrong(
                "attention.key_length",
                format!("is {head_dim}; it must be even"),
            ));
        }
        if heads * head_dim > MAX_WIDTH as usize {
            // A small file could otherwise ask for megabytes of cache per token.
            return Err(keys.wrong(
                "attention.key_length",
                format!("is {head_dim}, too much for {heads} heads"),
            ));
        }
        if let Some(value_length) = keys.optional("attention.value_length")?
            && value_length as usize != head_dim
        {
            return Err(keys.wrong(
                "attention.value_length",
                format!("must equal the key length {head_dim}"),
            ));
        }
        let trained = keys.bounded("context_length", 1, MAX_CONTEXT)?;
        let (context, long) = keys.context(trained, context)?;
        let windowed = keys.windows(layers)?;
        let factors = keys.factors()?;
        let query_width = match family.wide_query_layers {
            Some(wide) if wide == layers => width / heads,
            _ => head_dim,
        };
        Ok(Self {
            family,
            layers,
            width,
            heads,
            kv_heads,
            head_dim,
            feed_forward: keys.per_layer("feed_forward_length", layers, MAX_FEED_FORWARD)?,
            vocab: vocabulary(gguf)?,
            context,
            eps: keys.positive("attention.layer_norm_rms_epsilon", 1.0)?,
            embedding_scale: if family.scaled_embedding {
                (width as f32).sqrt()
            } else {
                factors.embedding
            },
            query_scale: factors
                .attention
                .unwrap_or(1.0 / (query_width.max(1) as f32).sqrt()),
            residual_scale: factors.residual,
            logit_scale: factors.logits,
            final_softcap: keys.opt_positive("final_logit_softcapping", 1e6)?,
            rope: keys.rope(head_dim, long)?,
            window: windowed.0,
            windowed: windowed.1,
            rotated: keys.rotated(layers)?,
        })
    }
}

/// The size of the vocabulary is the number of rows of the embedding.
fn vocabulary(gguf: &Gguf) -> Result<usize, LoadError> {
    const NAME: &str = "token_embd.weight";
    let info = gguf
        .tensor_info(NAME)
        .ok_or_else(|| LoadError::tensor(NAME, "is missing"))?;
    match info.shape.as_slice() {
        [vocab, _] if *vocab <= MAX_VOCAB => Ok(*vocab),
        shape => Err(LoadError::tensor(NAME, format!("has the shape {shape:?}"))),
    }
}

/// Multipliers beside the weights.
struct Factors {
    embedding: f32,
    /// Of the queries, in place of the usual one.
    attention: Option<f32>,
    residual: f32,
    logits: f32,
}

struct Keys<'a> {
    gguf: &'a Gguf,
    family: &'static Family,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.gguf.value(&self.full(key))
    }

    fn wrong(&self, key: &str, problem: impl Into<String>) -> LoadError {
        LoadError::key(&self.full(key), problem)
    }

    fn optional(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.gguf.opt_u32(&self.full(key))
    }

    fn within(&self, key: &str, number: u32, least: u32, most: u32) -> Result<usize, LoadError> {
        if (least..=most).contains(&number) {
            Ok(number as usize)
        } else {
            Err(self.wrong(
                key,
                format!("is {number}; it must be from {least} to {most}"),
            ))
        }
    }

    fn bounded(&self, key: &str, least: u32, most: u32) -> Result<usize, LoadError> {
        let number = self.gguf.u32(&self.full(key))?;
        self.within(key, number, least, most)
    }

    /// A figure that may be given per layer, where all layers must agree.
    fn per_layer(&self, key: &str, layers: usize, most: u32) -> Result<usize, LoadError> {
        let Some(numbers) = self.gguf.opt_integers(&self.full(key)) else {
            return self.bounded(key, 1, most);
        };
        match numbers {
            [first, rest @ ..] if numbers.len() >= layers && rest.iter().all(|n| n == first) => {
                let number = u32::try_from(*first).unwrap_or(u32::MAX);
                self.within(key, number, 1, most)
            }
            _ => Err(self.wrong(key, "differs between layers, which is not supported")),
        }
    }

    fn positive(&self, key: &str, most: f32) -> Result<f32, LoadError> {
        let number = self.gguf.f32(&self.full(key))?;
        if number > 0.0 && number <= most {
            Ok(number)
        } else {
            Err(self.wrong(
                key,
                format!("is {number}; it must be above 0 and at most {most}"),
            ))
        }
    }

    /// A number where 0 means that there is none.
    fn opt_positive(&self, key: &str, most: f32) -> Result<Option<f32>, LoadError> {
        match self.gguf.opt_f32(&self.full(key))? {
            None | Some(0.0) => Ok(None),
            Some(_) => self.positive(key, most).map(Some),
        }
    }

    /// The multipliers of families that have them.
    fn factors(&self) -> Result<Factors, LoadError> {
        let mut factors = Factors {
            embedding: 1.0,
            attention: None,
            residual: 1.0,
            logits: 1.0,
        };
        if self.family.multipliers {
            let read = |key| self.opt_positive(key, 1e6);
            factors = Factors {
                embedding: read("embedding_scale")?.unwrap_or(1.0),
                attention: read("attention.scale")?,
                residual: read("residual_scale")?.unwrap_or(1.0),
                // The file says what to divide by.
                logits: 1.0 / read("logit_scale")?.unwrap_or(1.0).max(1e-6),
            };
        }
        Ok(factors)
    }

    /// Which layers have rotary positions.
    fn rotated(&self, layers: usize) -> Result<Vec<bool>, LoadError> {
        // Granite's files say with this key whether there are any.
        let any = match self.family.multipliers {
            true => self.gguf.opt_bool(&self.full("rope.scaling.finetuned"))?,
            false => None,
        };
        let rotated = |layer: usize| match self.family.unrotated_step {
            Some(step) => !layer.is_multiple_of(step),
            None => any.unwrap_or(true),
        };
        Ok((1..=layers).map(rotated).collect())
    }

    fn refuse_what_is_not_run(&self) -> Result<(), LoadError> {
        if self.optional("expert_count")?.unwrap_or(0) > 0 {
            return Err(LoadError::Unsupported(
                "mixture-of-experts models are not supported; use a dense one".to_owned(),
            ));
        }
        if self.opt_positive("attn_logit_softcapping", 1e6)?.is_some() {
            return Err(self.wrong(
                "attn_logit_softcapping",
                "is set, which this family is not run with",
            ));
        }
        match self.gguf.opt_str(&self.full("rope.scaling.type")) {
            None | Some("none" | "linear") => Ok(()),
            Some("longrope") if self.family.long_rope => Ok(()),
            Some(other) => Err(LoadError::Unsupported(format!(
                "the rotary scaling '{other}' is not supported; use the model's file without an extended context"
            ))),
        }
    }

    /// The context, and whether it needs the long rotary factors.
    fn context(&self, trained: usize, wanted: Option<usize>) -> Result<(usize, bool), LoadError> {
        let original = match self.optional("rope.scaling.original_context_length")? {
            Some(_) if self.family.long_rope => self
                .bounded("rope.scaling.original_context_length", 1, MAX_CONTEXT)?
                .min(trained),
            _ => trained,
        };
        if wanted == Some(0) {
            return Err(LoadError::Unsupported(
                "a context of 0 tokens was asked for".to_owned(),
            ));
        }
        let context = wanted.unwrap_or(original).min(trained);
        Ok((context, context > original))
    }

    fn rope(&self, head_dim: usize, long: bool) -> Result<RopeFigures, LoadError> {
        let dims = match self.value("rope.dimension_count") {
            None => head_dim,
            Some(_) => self.bounded("rope.dimension_count", 2, head_dim as u32)?,
        };
        if !dims.is_multiple_of(2) {
            return Err(self.wrong(
                "rope.dimension_count",
                format!("is {dims}; it must be even"),
            ));
        }
        let theta = self
            .opt_positive("rope.freq_base", 1e12)?
            .unwrap_or(10_000.0);
        let factor = match self.opt_positive("rope.scaling.factor", 1e6)? {
            Some(factor) => Some(factor),
            None => self.opt_positive("rope.scale_linear", 1e6)?,
        };
        let unscaled = self.gguf.opt_str(&self.full("rope.scaling.type")) == Some("none");
        let factor = factor.filter(|_| !unscaled).unwrap_or(1.0);
        if factor < 1e-6 {
            return Err(self.wrong("rope.scaling.factor", format!("is {factor}")));
        }
        let window_theta = match self.family.windowed {
            None => theta,
            Some(Windowed { theta, .. }) => self
                .opt_positive("rope.freq_base_swa", 1e12)?
                .unwrap_or(theta),
        };
        if theta < 1.0 || window_theta < 1.0 {
            return Err(self.wrong("rope.freq_base", "is below 1"));
        }
        Ok(RopeFigures {
            dims,
            theta,
            position_scale: 1.0 / factor,
            magnitude: self
                .opt_positive("rope.scaling.attn_factor", 1e3)?
                .unwrap_or(1.0),
            window_theta,
            long,
        })
    }

    /// The window, and which layers have it.
    fn windows(&self, layers: usize) -> Result<(Option<usize>, Vec<bool>), LoadError> {
        let none = (None, vec![false; layers]);
        let Some(Windowed { pattern, .. }) = self.family.windowed else {
            return Ok(none);
        };
        let window = match self.optional("attention.sliding_window")? {
            None | Some(0) => return Ok(none),
            Some(_) => self.bounded("attention.sliding_window", 1, MAX_CONTEXT)?,
        };
        const KEY: &str = "attention.sliding_window_pattern";
        let windowed = match self.value(KEY) {
            Some(Value::Bools(each)) if each.len() == layers => each.clone(),
            Some(Value::Bools(each)) => {
                return Err(self.wrong(
                    KEY,
                    format!("has {} values for {layers} layers", each.len()),
                ));
            }
            given => {
                let pattern = match given {
                    Some(_) => self.bounded(KEY, 0, MAX_LAYERS)?,
                    None => pattern as usize,
                };
                (0..layers)
                    .map(|layer| pattern == 0 || layer % pattern < pattern - 1)
                    .collect()
            }
        };
        Ok((Some(window), windowed))
    }
}
