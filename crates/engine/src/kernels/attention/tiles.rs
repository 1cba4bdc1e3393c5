//! The KV cache's layout, and writing into it.
//!
//! A tile holds 16 tokens of one KV head, as bf16. Keys: `[head_dim/2][16
//! tokens][2]`: a pair of dimensions of all tokens is one line for `vdpbf16ps`.
//! Values: `[8 pairs of tokens][head_dim][2]`. A block is, for each layer and
//! each KV head, the key tile and then the value tile. Tiles of 8 bits are
//! [`super::int8`]'s.

use super::int8;
use crate::kernels::Isa;
use crate::kernels::float16::to_bf16;

/// Tokens in a tile.
pub(crate) const TILE_TOKENS: usize = 16;

/// Numbers in a key tile, and as many in a value tile.
pub(crate) const fn tile_len(head_dim: usize) -> usize {
    TILE_TOKENS * head_dim
}

/// What the numbers of a tile are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileForm {
    /// 16 bits each.
    Bf16,
    /// 8 bits each, and a scale for each token.
    Int8,
}

impl TileForm {
    /// Words of 16 bits in a key tile, and as many in a value tile.
    pub(crate) const fn len(self, head_dim: usize) -> usize {
        match self {
            Self::Bf16 => tile_len(head_dim),
            Self::Int8 => int8::len(head_dim),
        }
    }

    /// Writes one token's key and value (`head_dim` numbers each) to `slot` (of
    /// 16) of its head's tiles. Slots are filled in order.
    ///
    /// # Panics
    /// When a tile has another length, or a slice is too short.
    #[inline]
    #[allow(
        clippy::too_many_arguments,
        reason = "two tiles and their two rows, where they go, and for which processor"
    )]
    pub(crate) fn put(
        self,
        isa: Isa,
        k_tile: &mut [u16],
        v_tile: &mut [u16],
        slot: usize,
        head_dim: usize,
        k: &[f32],
        v: &[f32],
    ) {
        match self {
            Self::Bf16 => put(isa, k_tile, v_tile, slot, head_dim, k, v),
            Self::Int8 => int8::put(isa, k_tile, v_tile, slot, head_dim, k, v),
        }
    }

    /// Zeroes all slots of one head's tiles from `filled` on.
    ///
    /// # Panics
    /// When a tile has another length.
    pub(crate) fn clear_after(
        self,
        k_tile: &mut [u16],
        v_tile: &mut [u16],
        filled: usize,
        head_dim: usize,
    ) {
        match self {
            Self::Bf16 => clear_after(k_tile, v_tile, filled, head_dim),
            Self::Int8 => int8::clear_after(k_tile, v_tile, filled, head_dim),
        }
    }
}

/// The tiles of one sequence in one layer: the sequence's blocks in order, and
/// where in each the layer starts. KV head `h` has its key tile at `offset +
/// 2 * h * len`, its value tile right behind.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<'a> {
    blocks: &'a [&'a [u16]],
    offset: usize,
    head_dim: usize,
    form: TileForm,
}

impl<'a> Tiles<'a> {
    /// The layer that starts at `offset` of each block, in bf16.
    pub(crate) fn new(blocks: &'a [&'a [u16]], offset: usize, head_dim: usize) -> Self {
        Self::of(TileForm::Bf16, blocks, offset, head_dim)
    }

    /// The layer that starts at `offset` of each block.
    pub(crate) fn of(
        form: TileForm,
        blocks: &'a [&'a [u16]],
        offset: usize,
        head_dim: usize,
    ) -> Self {
        Self {
            blocks,
            offset,
            head_dim,
            form,
        }
    }

    pub(super) fn form(&self) -> TileForm {
        self.form
    }

    /// How many tokens there is room for.
    pub(super) fn tokens(&self) -> usize {
        self.blocks.len() * TILE_TOKENS
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The key tile and the value tile of tokens `16 * index..`.
    ///
    /// # Panics
    /// When a block is too short to hold them.
    #[inline]
    pub(super) fn pair(&self, kv_head: usize, index: usize) -> (&'a [u16], &'a [u16]) {
        let len = self.form.len(self.head_dim);
        self.blocks[index][self.offset + 2 * kv_head * len..][..2 * len].split_at(len)
    }
}

/// [`TileForm::put`] of bf16.
fn put(
    isa: Isa,
    k_tile: &mut [u16],
    v_tile: &mut [u16],
    slot: usize,
    head_dim: usize,
    k: &[f32],
    v: &[f32],
) {
    assert!(slot < TILE_TOKENS && head_dim.is_multiple_of(2));
    assert!(k_tile.len() == tile_len(head_dim) && v_tile.len() == tile_len(head_dim));
    let (k, v) = (&k[..head_dim], &v[..head_dim]);
    isa.compiled(
        #[inline(always)]
        || {
            let (lines, _) = k_tile.as_chunks_mut::<{ TILE_TOKENS * 2 }>();
            let (pairs, _) = k.as_chunks::<2>();
            for (line, pair) in lines.iter_mut().zip(pairs) {
                line[slot * 2] = to_bf16(pair[0]);
                line[slot * 2 + 1] = to_bf16(pair[1]);
            }
            let (pairs, _) = v_tile[slot / 2 * 2 * head_dim..][..2 * head_dim].as_chunks_mut::<2>();
            if slot.is_multiple_of(2) {
                // The partner is read with weight zero until it is written, and
                // what a recycled block holds there may not be a number.
                for (pair, v) in pairs.iter_mut().zip(v) {
                    *pair = [to_bf16(*v), 0];
                }
            } else {
                for (pair, v) in pairs.iter_mut().zip(v) {
                    pair[1] = to_bf16(*v);
                }
            }
        },
    );
}

/// [`TileForm::clear_after`] of bf16.
fn clear_after(k_tile: &mut [u16], v_tile: &mut [u16], filled: usize, head_dim: usize) {
    assert!(k_tile.len() == tile_len(head_dim) && v_tile.len() == tile_len(head_dim));
    let filled = filled.min(TILE_TOKENS);
    for line in k_tile.as_chunks_mut::<{ TILE_TOKENS * 2 }>().0 {
        line[filled * 2..].fill(0);
    }
    let whole = filled / 2 * 2 * head_dim;
    let rest = &mut v_tile[whole..];
    if filled.is_multiple_of(2) {
        rest.fill(0);
    } else {
        let (half, rest) = rest.split_at_mut(2 * head_dim);
        half.as_chunks_mut::<2>()
            .0
            .iter_mut()
            .for_each(|pair| pair[1] = 0);
        rest.fill(0);
    }
}
