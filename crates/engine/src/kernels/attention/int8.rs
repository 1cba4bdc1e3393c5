//! Keys and values in 8 bits.
//!
//! A tile holds what a tile of bf16 does, in the same order, as signed bytes in
//! pairs, and behind them 16 scales of `f32`, one for each token: its largest
//! number over 127. Before tiles are scored their bytes are widened to bf16,
//! which holds integers up to 256 exactly, so that the kernels for bf16 do the
//! rest; scores are then multiplied by the keys' scales, and weights by the
//! values'. Widening is done once for all queries that read a tile together.

use super::{SPAN, SPAN_TILES, TILE_TOKENS, tile_len};
use crate::kernels::Isa;

/// Words of 16 bits in a key tile, and as many in a value tile.
pub(super) const fn len(head_dim: usize) -> usize {
    words(head_dim) + 2 * TILE_TOKENS
}

/// Those of them that hold numbers.
const fn words(head_dim: usize) -> usize {
    tile_len(head_dim) / 2
}

/// [`super::TileForm::put`] of 8 bits.
///
/// # Panics
/// When a tile is not [`len`] long, or a slice is too short.
pub(super) fn put(
    isa: Isa,
    k_tile: &mut [u16],
    v_tile: &mut [u16],
    slot: usize,
    head_dim: usize,
    k: &[f32],
    v: &[f32],
) {
    assert!(slot < TILE_TOKENS && head_dim.is_multiple_of(2));
    assert!(k_tile.len() == len(head_dim) && v_tile.len() == len(head_dim));
    let (k, v) = (&k[..head_dim], &v[..head_dim]);
    isa.compiled(
        #[inline(always)]
        || {
            let (numbers, scales) = k_tile.split_at_mut(words(head_dim));
            let factor = set_scale(scales, slot, k);
            let (lines, _) = numbers.as_chunks_mut::<TILE_TOKENS>();
            for (line, pair) in lines.iter_mut().zip(k.as_chunks::<2>().0) {
                line[slot] = byte(pair[0], factor) | (byte(pair[1], factor) << 8);
            }
            let (numbers, scales) = v_tile.split_at_mut(words(head_dim));
            let factor = set_scale(scales, slot, v);
            let pairs = &mut numbers[slot / 2 * head_dim..][..head_dim];
            if slot.is_multiple_of(2) {
                for (pair, v) in pairs.iter_mut().zip(v) {
                    *pair = byte(*v, factor);
                }
            } else {
                for (pair, v) in pairs.iter_mut().zip(v) {
                    *pair = (*pair & 0xff) | (byte(*v, factor) << 8);
                }
            }
        },
    );
}

/// Writes the scale of `numbers`; returns what turns them into bytes.
#[inline(always)]
fn set_scale(scales: &mut [u16], slot: usize, numbers: &[f32]) -> f32 {
    let mut largest = 0f32;
    let mut sum = 0f32;
    for number in numbers {
        largest = largest.max(number.abs());
        sum += number * 0.0;
    }
    // What is no number must stay none, and a maximum passes over it.
    let scale = largest / 127.0 + sum;
    let bits = scale.to_bits();
    (scales[2 * slot], scales[2 * slot + 1]) = (bits as u16, (bits >> 16) as u16);
    if scale > 0.0 { 127.0 / largest } else { 0.0 }
}

#[inline(always)]
fn byte(number: f32, factor: f32) -> u16 {
    let rounded = (number * factor).round_ties_even() as i8;
    u16::from(rounded.cast_unsigned())
}

/// [`super::TileForm::clear_after`] of 8 bits.
///
/// # Panics
/// When a tile is not [`len`] long.
pub(super) fn clear_after(k_tile: &mut [u16], v_tile: &mut [u16], filled: usize, head_dim: usize) {
    assert!(k_tile.len() == len(head_dim) && v_tile.len() == len(head_dim));
    let filled = filled.min(TILE_TOKENS);
    let (numbers, scales) = k_tile.split_at_mut(words(head_dim));
    for line in numbers.as_chunks_mut::<TILE_TOKENS>().0 {
        line[filled..].fill(0);
    }
    scales[2 * filled..].fill(0);
    let (numbers, scales) = v_tile.split_at_mut(words(head_dim));
    let rest = &mut numbers[filled / 2 * head_dim..];
    if filled.is_multiple_of(2) {
        rest.fill(0);
    } else {
        let (half, rest) = rest.split_at_mut(head_dim);
        half.iter_mut().for_each(|pair| *pair &= 0xff);
        rest.fill(0);
    }
    scales[2 * filled..].fill(0);
}

/// The tiles of a span, widened; kept per thread.
pub(super) struct Wide {
    /// Key tiles, then value tiles.
    tiles: Vec<u16>,
    pub(super) scales: Scales,
}

/// The scales of a span's tokens.
pub(super) struct Scales {
    pub(super) keys: [f32; SPAN],
    pub(super) values: [f32; SPAN],
}

impl Wide {
    pub(super) const fn new() -> Self {
        Self {
            tiles: Vec::new(),
            scales: Scales {
                keys: [0.0; SPAN],
                values: [0.0; SPAN],
            },
        }
    }

    /// Widens the tiles at `index` of the span.
    pub(super) fn take(
        &mut self,
        isa: Isa,
        index: usize,
        (k_tile, v_tile): (&[u16], &[u16]),
        head_dim: usize,
    ) {
        let wide = tile_len(head_dim);
        if self.tiles.len() < 2 * SPAN_TILES * wide {
            self.tiles.resize(2 * SPAN_TILES * wide, 0);
        }
        let Scales { keys, values } = &mut self.scales;
        for (place, from, scales) in [(index, k_tile, keys), (SPAN_TILES + index, v_tile, values)] {
            let (numbers, from_scales) = from.split_at(words(head_dim));
            let to = &mut self.tiles[place * wide..][..wide];
            isa.compiled(
                #[inline(always)]
                || widen(numbers, to),
            );
            let scales = &mut scales[index * TILE_TOKENS..][..TILE_TOKENS];
            for (scale, halves) in scales.iter_mut().zip(from_scales.as_chunks::<2>().0) {
                let bits = u32::from(halves[0]) | (u32::from(halves[1]) << 16);
                *scale = f32::from_bits(bits);
            }
        }
    }

    /// The widened tiles at `index` of the span.
    pub(super) fn pair(&self, index: usize, head_dim: usize) -> (&[u16], &[u16]) {
        let wide = tile_len(head_dim);
        let tile = |place: usize| &self.tiles[place * wide..][..wide];
        (tile(index), tile(SPAN_TILES + index))
    }
}

/// Bytes as bf16: exact.
#[inline(always)]
fn widen(from: &[u16], to: &mut [u16]) {
    let whole = |byte: u16| ((f32::from(byte as u8 as i8).to_bits()) >> 16) as u16;
    for (to, pair) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
        *to = [whole(*pair), whole(*pair >> 8)];
    }
}
