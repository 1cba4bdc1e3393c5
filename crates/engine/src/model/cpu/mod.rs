//! The executor on our own kernels.
//!
//! All sequences of a step go through the matrices together, in passes of at
//! most [`PASS_ROWS`] rows; each row attends to its own sequence. Per layer:
//! norm and quantise; query, key and value in one pass over the weights; head
//! norms and rotation; keys and values into the sequence's tiles; attention;
//! the output projection, added to the residual stream in place; norm and
//! quantise; gate and up in one pass; down, added in place. Of the last layer
//! only the wanted rows go on.
//!
//! What a row becomes depends on its own sequence alone: every sum has one
//! order, which neither the rows beside it nor the threads change.

mod heads;
mod load;
mod pass;
mod scratch;

use std::sync::{Mutex, PoisonError};

use self::pass::{Segment, passes};
use self::scratch::Scratch;
use super::family::Activation as Gate;
use super::hyper::Hyper;
use super::layers::{Layer, Linear, Weights};
use super::rope::Ropes;
use super::{ModelError, Part};
use crate::kernels::{
    Activation, AttendJob, Isa, Packed, Team, TileForm, Tiles, add, add_row, attend, gate, gate_up,
    multiply, rms_norm, scale, softcap,
};
pub(super) use load::{Packer, packed_bytes, packed_type};

/// Rows that are computed together. More make a prompt no faster, only the
/// buffers larger.
const PASS_ROWS: usize = 256;

/// A model's weights in tiles, the threads and the buffers to compute with.
pub(super) struct Cpu {
    weights: Weights<Packed>,
    team: Team,
    isa: Isa,
    /// Of keys and values.
    form: TileForm,
    /// Whether some matrix multiplies floats.
    floats: bool,
    scratch: Mutex<Scratch>,
}

/// One pass, as its layers see it.
struct Run<'a, 'p, 'c> {
    cpu: &'a Cpu,
    hyper: &'a Hyper,
    parts: &'p mut [Part<'c>],
    segments: &'p mut [Segment],
    buffers: &'p mut Scratch,
}

impl Cpu {
    pub(super) fn new(weights: Weights<Packed>, team: Team, isa: Isa, form: TileForm) -> Self {
        let floats = weights.any(Packed::is_float);
        Self {
            weights,
            team,
            isa,
            form,
            floats,
            scratch: Mutex::new(Scratch::new()),
        }
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// The wanted rows of logits. Keys and values are written to the caches,
    /// which have room for them, but not committed.
    pub(super) fn compute(
        &self,
        hyper: &Hyper,
        ropes: &Ropes,
        parts: &mut [Part<'_>],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        // Whatever a computation left behind is overwritten by the next.
        let mut buffers = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut logits = Vec::new();
        for mut segments in passes(parts, PASS_ROWS) {
            let rows = segments.iter().map(|segment| segment.count).sum();
            buffers.fit(hyper, rows, self);
            let mut run = Run {
                cpu: self,
                hyper,
                parts,
                segments: &mut segments,
                buffers: &mut buffers,
            };
            run.embed(rows);
            ropes.fill(
                run.segments.iter().flat_map(Segment::positions),
                &mut run.buffers.angles,
            );
            run.layers(rows)?;
            run.logits(&mut logits)?;
        }
        Ok(logits)
    }
}

impl Run<'_, '_, '_> {
    fn embed(&mut self, rows: usize) {
        let (cpu, hyper) = (self.cpu, self.hyper);
        let mut tokens = std::mem::take(&mut self.buffers.tokens);
        tokens.clear();
        for segment in self.segments.iter() {
            tokens.extend_from_slice(&self.parts[segment.part].tokens[segment.tokens()]);
        }
        let x = &mut self.buffers.x[..rows * hyper.width];
        cpu.team.share_mut(x, hyper.width, 4, &|row, x| {
            cpu.weights.embedding.row_into(tokens[row] as usize, x);
            scale(cpu.isa, x, hyper.embedding_scale);
        });
        self.buffers.tokens = tokens;
    }

    fn layers(&mut self, rows: usize) -> Result<(), ModelError> {
        let mut rows = rows;
        for (index, layer) in self.cpu.weights.layers.iter().enumerate() {
            self.keys_and_values(layer, index, rows)?;
            if index + 1 == self.hyper.layers {
                rows = self.keep_wanted();
                if rows == 0 {
                    return Ok(());
                }
            }
            self.attention(layer, index, rows);
            self.feed_forward(layer, rows);
        }
        Ok(())
    }

    /// Queries of all rows, and their keys and values, which go to the tiles.
    fn keys_and_values(
        &mut self,
        layer: &Layer<Packed>,
        index: usize,
        rows: usize,
    ) -> Result<(), ModelError> {
        let (hyper, Cpu { team, isa, .. }) = (self.hyper, self.cpu);
        let Scratch {
            x,
            query,
            key,
            value,
            acts,
            ..
        } = &mut *self.buffers;
        let x = &x[..rows * hyper.width];
        let query = &mut query[..rows * hyper.query_width()];
        let key = &mut key[..rows * hyper.kv_width()];
        let value = &mut value[..rows * hyper.kv_width()];
        acts.norm_quantise(team, *isa, x, &layer.attention_norm, hyper.eps, rows);
        let mut outs = [
            (&layer.query.weight, &mut *query),
            (&layer.key.weight, &mut *key),
            (&layer.value.weight, &mut *value),
        ];
        multiply(team, *isa, &mut outs, acts, false);
        for (linear, out) in [
            (&layer.query, query),
            (&layer.key, key),
            (&layer.value, value),
        ] {
            if let Some(bias) = &linear.bias {
                add_row(*isa, out, bias);
            }
        }
        self.turn_heads(layer, index, rows);
        self.store(index)
    }

    /// Attention of `rows` rows, added to the residual stream.
    fn attention(&mut self, layer: &Layer<Packed>, index: usize, rows: usize) {
        let hyper = self.hyper;
        let width = hyper.query_width();
        let Scratch {
            query, attended, ..
        } = &mut *self.buffers;
        let mut queries = &query[..rows * width];
        let mut out = &mut attended[..rows * width];
        let tables: Vec<Vec<&[u16]>> = self
            .segments
            .iter()
            .map(|segment| self.parts[segment.part].cache.tiles(segment.end()))
            .collect();
        let form = self.cpu.form;
        let layer_len = hyper.kv_heads * 2 * form.len(hyper.head_dim);
        let mut jobs = Vec::with_capacity(tables.len());
        for (segment, table) in self.segments.iter().zip(&tables) {
            if segment.count == 0 {
                continue;
            }
            let (own, rest) = queries.split_at(segment.count * width);
            queries = rest;
            let (own_out, rest) = out.split_at_mut(segment.count * width);
            out = rest;
            jobs.push(AttendJob {
                queries: own,
                out: own_out,
                heads: hyper.heads,
                kv_heads: hyper.kv_heads,
                first: segment.first,
                window: hyper.window.filter(|_| hyper.windowed[index]),
                softcap: None,
                tiles: Tiles::of(form, table, index * layer_len, hyper.head_dim),
            });
        }
        attend(&self.cpu.team, self.cpu.isa, &mut jobs);
        let Scratch { attended, acts, .. } = &mut *self.buffers;
        let attended = &attended[..rows * width];
        acts.quantise(&self.cpu.team, self.cpu.isa, attended, rows, width);
        self.add(
            &layer.attention_out,
            layer.attention_post_norm.as_deref(),
            rows,
        );
    }

    /// The feed-forward part of `rows` rows, added to the residual stream.
    fn feed_forward(&mut self, layer: &Layer<Packed>, rows: usize) {
        let (hyper, Cpu { team, isa, .. }) = (self.hyper, self.cpu);
        let Scratch {
            x, inner, up, acts, ..
        } = &mut *self.buffers;
        let x = &x[..rows * hyper.width];
        let inner = &mut inner[..rows * hyper.feed_forward];
        let activation = match hyper.family.activation {
            Gate::Silu => Activation::Silu,
            Gate::Gelu => Activation::GeluTanh,
        };
        acts.norm_quantise(team, *isa, x, &layer.feed_forward_norm, hyper.eps, rows);
        if layer.gate.bias.is_none() && layer.up.bias.is_none() {
            let (gate, up) = (&layer.gate.weight, &layer.up.weight);
            gate_up(team, *isa, gate, up, acts, activation, inner);
        } else {
            up.resize(inner.len(), 0.0);
            let mut outs = [
                (&layer.gate.weight, &mut *inner),
                (&layer.up.weight, up.as_mut_slice()),
            ];
            multiply(team, *isa, &mut outs, acts, false);
            if let Some(bias) = &layer.gate.bias {
                add_row(*isa, inner, bias);
            }
            if let Some(bias) = &layer.up.bias {
                add_row(*isa, up, bias);
            }
            gate(*isa, activation, inner, up);
        }
        acts.quantise(team, *isa, inner, rows, hyper.feed_forward);
        self.add(&layer.down, layer.feed_forward_post_norm.as_deref(), rows);
    }

    /// Adds the product of what was quantised to the residual stream.
    fn add(&mut self, linear: &Linear<Packed>, norm: Option<&[f32]>, rows: usize) {
        let (hyper, Cpu { team, isa, .. }) = (self.hyper, self.cpu);
        let Scratch { x, part, acts, .. } = &mut *self.buffers;
        let x = &mut x[..rows * hyper.width];
        if norm.is_none() && hyper.residual_scale == 1.0 {
            multiply(team, *isa, &mut [(&linear.weight, x)], acts, true);
            if let Some(bias) = &linear.bias {
                add_row(*isa, &mut self.buffers.x[..rows * hyper.width], bias);
            }
            return;
        }
        part.resize(x.len(), 0.0);
        multiply(team, *isa, &mut [(&linear.weight, part)], acts, false);
        if let Some(bias) = &linear.bias {
            add_row(*isa, part, bias);
        }
        if let Some(norm) = norm {
            rms_norm(*isa, part, norm, hyper.eps);
        }
        scale(*isa, part, hyper.residual_scale);
        add(*isa, x, part);
    }

    /// The logits of the rows that are left, each added to `logits`.
    fn logits(&mut self, logits: &mut Vec<Vec<f32>>) -> Result<(), ModelError> {
        let (hyper, cpu) = (self.hyper, self.cpu);
        let rows: usize = self.segments.iter().map(|segment| segment.count).sum();
        let wanted: usize = self.segments.iter().map(|segment| segment.wanted).sum();
        if wanted == 0 {
            return Ok(());
        }
        debug_assert_eq!(rows, wanted);
        let Scratch { x, acts, .. } = &mut *self.buffers;
        let x = &x[..wanted * hyper.width];
        let norm = &cpu.weights.output_norm;
        acts.norm_quantise(&cpu.team, cpu.isa, x, norm, hyper.eps, wanted);
        let mut all = vec![0.0; wanted * hyper.vocab];
        let head = cpu.weights.head();
        multiply(&cpu.team, cpu.isa, &mut [(head, &mut all)], acts, false);
        scale(cpu.isa, &mut all, hyper.logit_scale);
        if let Some(cap) = hyper.final_softcap {
            softcap(cpu.isa, &mut all, cap);
        }
        if !finite(&all) {
            return Err(ModelError::NotFinite);
        }
        if wanted == 1 {
            logits.push(all);
        } else {
            logits.extend(all.chunks_exact(hyper.vocab).map(<[f32]>::to_vec));
        }
        Ok(())
    }
}

/// Whether all numbers are finite; a run at a time, so that it vectorises.
fn finite(x: &[f32]) -> bool {
    x.chunks(256)
        .all(|run| run.iter().fold(true, |all, x| all & x.is_finite()))
}
