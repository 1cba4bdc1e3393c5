//! The executor on the inference library's tensors, for devices that our own
//! kernels do not run on: CUDA and Metal behind cargo's features, and the
//! processor, where tests hold it against the other two.
//!
//! Layers that do not fit the device are computed by [`super::reference`]
//! first; the embedding is looked up there, too. Linear layers take all
//! sequences of a step together, attention each by itself. Keys and values of
//! the device's layers stay there ([`store`]).

mod layer;
mod place;
mod store;

use candle_core::quantized::QMatMul;
use candle_core::{Device, Error, Module, Tensor};
use candle_nn::ops::rms_norm;

use super::cache::Cache;
use super::hyper::Hyper;
use super::layers::{Layer, Weights};
use super::pool::BLOCK_TOKENS;
use super::reference::{Matrix, first_layers};
use super::rope::{Angles, Ropes};
use super::{ModelError, Part};
use crate::gguf::LoadError;
use layer::{Rotation, Span, Step, Unit, vector};
pub(super) use place::{Placed, Placer};
pub(super) use store::{Slot, Store, slot_bytes};

/// A model's weights, on the device and beside it.
pub(super) struct Tensors {
    device: Device,
    embedding: Matrix,
    /// The first layers, which the processor computes.
    host: Vec<Layer<Matrix>>,
    layers: Vec<Unit>,
    output_norm: Tensor,
    head: QMatMul,
}

impl Tensors {
    pub(super) fn new(
        weights: Weights<Placed>,
        device: Device,
        host_layers: usize,
    ) -> Result<Self, LoadError> {
        let (mut host, mut layers) = (Vec::new(), Vec::new());
        for (index, layer) in weights.layers.into_iter().enumerate() {
            if index < host_layers {
                host.push(layer.map(Placed::host)?);
            } else {
                layers.push(Unit::new(layer.map(Placed::device)?, &device)?);
            }
        }
        let (embedding, head) = match (weights.embedding, weights.output) {
            (Placed::Both(matrix, head), None) => (matrix, head),
            (embedding, Some(output)) => (embedding.host()?, output.device()?),
            (embedding, None) => return embedding.device().and(Err(no_output())),
        };
        Ok(Self {
            output_norm: vector(weights.output_norm, &device)?,
            device,
            embedding,
            host,
            layers,
            head,
        })
    }

    /// The wanted rows of logits. Keys and values are written to the caches,
    /// which have room for them, but not committed.
    pub(super) fn compute(
        &self,
        hyper: &Hyper,
        ropes: &Ropes,
        parts: &mut [Part<'_>],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut numbers = Vec::new();
        for part in parts.iter_mut() {
            let mut x = self.embedding.lookup(part.tokens)?;
            x.iter_mut().for_each(|x| *x *= hyper.embedding_scale);
            first_layers(&self.host, hyper, ropes, part.cache, &mut x)?;
            numbers.extend(x);
        }
        let rows = numbers.len() / hyper.width;
        let mut x = Tensor::from_vec(numbers, (rows, hyper.width), &self.device)?;
        let Some(store) = parts.first().and_then(|part| part.cache.store()).cloned() else {
            return Err(ModelError::ForeignCache);
        };
        let spans = self.spans(hyper, parts)?;
        let positions = spans
            .iter()
            .flat_map(|span| span.first..span.first + span.tokens);
        let mut angles = Angles::default();
        ropes.fill(positions, &mut angles);
        let step = Step {
            hyper,
            store: &store,
            spans: &spans,
            rotations: &[
                self.rotation(&angles, rows, false)?,
                self.rotation(&angles, rows, true)?,
            ],
        };
        for (own, unit) in self.layers.iter().enumerate() {
            x = unit.forward(&step, self.host.len() + own, own, &x)?;
        }
        self.logits(hyper, parts, &spans, &x)
    }

    fn logits(
        &self,
        hyper: &Hyper,
        parts: &[Part<'_>],
        spans: &[Span],
        x: &Tensor,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let wanted: Vec<u32> = parts
            .iter()
            .zip(spans)
            .flat_map(|(part, span)| {
                let end = span.start + span.tokens;
                (end - part.logits.rows(span.tokens)..end).map(|row| row as u32)
            })
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let count = wanted.len();
        let wanted = Tensor::from_vec(wanted, count, &self.device)?;
        let x = rms_norm(&x.index_select(&wanted, 0)?, &self.output_norm, hyper.eps)?;
        let mut logits = self.head.forward(&x)?.to_vec2::<f32>()?;
        for x in logits.iter_mut().flatten() {
            *x *= hyper.logit_scale;
            if let Some(cap) = hyper.final_softcap {
                *x = cap * (*x / cap).tanh();
            }
            if !x.is_finite() {
                return Err(ModelError::NotFinite);
            }
        }
        Ok(logits)
    }

    fn rotation(&self, angles: &Angles, rows: usize, windowed: bool) -> Result<Rotation, Error> {
        let (cos, sin) = angles.tables(windowed);
        let shape = (rows, cos.len() / rows);
        Ok(Rotation {
            cos: Tensor::from_slice(cos, shape, &self.device)?,
            sin: Tensor::from_slice(sin, shape, &self.device)?,
        })
    }

    fn spans(&self, hyper: &Hyper, parts: &[Part<'_>]) -> Result<Vec<Span>, Error> {
        let mut start = 0;
        let mut spans = Vec::with_capacity(parts.len());
        for part in parts {
            let (first, tokens) = (part.cache.len(), part.tokens.len());
            let slots = part.cache.slots();
            let place = |position: usize| (slots[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
            let rows: Vec<u32> = (0..first + tokens)
                .map(|position| {
                    let (slot, at) = place(position);
                    slot * BLOCK_TOKENS as u32 + at as u32
                })
                .collect();
            let mut writes = Vec::new();
            let mut done = 0;
            while done < tokens {
                let (slot, at) = place(first + done);
                let count = (BLOCK_TOKENS - at).min(tokens - done);
                writes.push((start + done, count, slot, at));
                done += count;
            }
            let length = rows.len();
            let all = self.mask(first, tokens, None)?;
            let windowed = match hyper.window {
                Some(_) => self.mask(first, tokens, hyper.window)?,
                None => all.clone(),
            };
            spans.push(Span {
                start,
                tokens,
                first,
                rows: Tensor::from_vec(rows, length, &self.device)?,
                writes,
                masks: [all, windowed],
            });
            start += tokens;
        }
        Ok(spans)
    }

    /// 0 where the row sees the position, else minus infinity.
    fn mask(
        &self,
        first: usize,
        tokens: usize,
        window: Option<usize>,
    ) -> Result<Option<Tensor>, Error> {
        let length = first + tokens;
        let window = window.unwrap_or(usize::MAX);
        if tokens == 1 && window >= length {
            return Ok(None);
        }
        let mut mask = Vec::with_capacity(tokens * length);
        for row in first..length {
            let seen = |position: usize| position <= row && row - position < window;
            mask.extend((0..length).map(|position| match seen(position) {
                true => 0.0,
                false => f32::NEG_INFINITY,
            }));
        }
        Tensor::from_vec(mask, (tokens, length), &self.device).map(Some)
    }
}

/// A mistake of ours: a tied output was not put on the device.
fn no_output() -> LoadError {
    LoadError::Unsupported("the output's matrix is not on the device".to_owned())
}

impl Cache {
    /// Where its blocks' slots are.
    fn store(&self) -> Option<&std::sync::Arc<Store>> {
        self.blocks().first()?.slot().map(Slot::store)
    }

    /// The slots of its blocks, in order.
    fn slots(&self) -> Vec<u32> {
        let slots = self.blocks().iter().filter_map(|block| block.slot());
        slots.map(Slot::index).collect()
    }
}
