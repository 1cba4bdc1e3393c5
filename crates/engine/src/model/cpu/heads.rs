//! Between the projections and attention: heads are normed and turned, keys and
//! values go to their tiles.

use std::ops::Range;

use super::Run;
use super::scratch::Scratch;
use crate::kernels::{self, Packed, rms_norm, rope, scale};
use crate::model::ModelError;
use crate::model::family::RopeStyle;
use crate::model::layers::Layer;
use crate::model::pool::BLOCK_TOKENS;

/// Rows that one thread takes at a time.
const ROWS: usize = 4;

/// Rows that go to one block.
struct Store<'a> {
    /// The layer's tiles.
    tiles: &'a mut [u16],
    /// The first row's slot.
    slot: usize,
    rows: Range<usize>,
}

impl Run<'_, '_, '_> {
    /// Norms each head of query and key where the family does, and turns it.
    pub(super) fn turn_heads(&mut self, layer: &Layer<Packed>, index: usize, rows: usize) {
        let (hyper, cpu) = (self.hyper, self.cpu);
        let Scratch {
            query, key, angles, ..
        } = &mut *self.buffers;
        let norms = layer.qk_norms.as_ref();
        let rotated = hyper.rotated[index];
        let style = match hyper.family.rope {
            RopeStyle::Interleaved => kernels::RopeStyle::Neighbours,
            RopeStyle::Halves => kernels::RopeStyle::Halves,
        };
        let turn = |row: usize, heads: &mut [f32], norm: Option<&Vec<f32>>| {
            if let Some(norm) = norm {
                rms_norm(cpu.isa, heads, norm, hyper.eps);
            }
            if rotated {
                let (cos, sin) = angles.row(row, hyper.windowed[index]);
                rope(cpu.isa, style, heads, hyper.head_dim, cos, sin);
            }
        };
        let width = hyper.query_width();
        let query = &mut query[..rows * width];
        cpu.team.share_mut(query, width, ROWS, &|row, query| {
            turn(row, query, norms.map(|[query, _]| query));
            scale(cpu.isa, query, hyper.query_scale);
        });
        let width = hyper.kv_width();
        let key = &mut key[..rows * width];
        cpu.team.share_mut(key, width, ROWS, &|row, key| {
            turn(row, key, norms.map(|[_, key]| key));
        });
    }

    /// Writes all rows' keys and values to their sequences' tiles.
    pub(super) fn store(&mut self, index: usize) -> Result<(), ModelError> {
        let (hyper, cpu) = (self.hyper, self.cpu);
        let (head_dim, width) = (hyper.head_dim, hyper.kv_width());
        let form = cpu.form;
        let tile = form.len(head_dim);
        let layer_len = hyper.kv_heads * 2 * tile;
        let mut row = 0;
        let mut stores = Vec::with_capacity(self.segments.len());
        let mut parts = self.parts.iter_mut().enumerate();
        for segment in self.segments.iter() {
            // Segments are in the order of their parts.
            let Some((_, part)) = parts.find(|(index, _)| *index == segment.part) else {
                return Err(ModelError::ForeignCache);
            };
            let mut position = segment.first;
            for tiles in part.cache.tiles_mut(segment.positions())? {
                let slot = position % BLOCK_TOKENS;
                let count = (BLOCK_TOKENS - slot).min(segment.end() - position);
                stores.push(Store {
                    tiles: &mut tiles[index * layer_len..(index + 1) * layer_len],
                    slot,
                    rows: row..row + count,
                });
                position += count;
                row += count;
            }
        }
        let Scratch { key, value, .. } = &*self.buffers;
        cpu.team.share_mut(&mut stores, 1, 1, &|_, stores| {
            for store in stores {
                for (slot, row) in (store.slot..).zip(store.rows.clone()) {
                    let heads = store.tiles.chunks_exact_mut(2 * tile);
                    let keys = key[row * width..(row + 1) * width].chunks_exact(head_dim);
                    let values = value[row * width..(row + 1) * width].chunks_exact(head_dim);
                    for (tiles, (key, value)) in heads.zip(keys.zip(values)) {
                        let (k_tile, v_tile) = tiles.split_at_mut(tile);
                        form.put(cpu.isa, k_tile, v_tile, slot, head_dim, key, value);
                    }
                }
            }
        });
        Ok(())
    }

    /// Leaves only the wanted rows of the residual stream and the queries, at
    /// the front, and says how many they are.
    pub(super) fn keep_wanted(&mut self) -> usize {
        let hyper = self.hyper;
        let Scratch { x, query, .. } = &mut *self.buffers;
        let (mut from, mut to) = (0, 0);
        for segment in self.segments.iter_mut() {
            from += segment.keep_wanted();
            if from != to {
                for (rows, width) in [(&mut *x, hyper.width), (query, hyper.query_width())] {
                    rows.copy_within(from * width..(from + segment.count) * width, to * width);
                }
            }
            from += segment.count;
            to += segment.count;
        }
        to
    }
}
