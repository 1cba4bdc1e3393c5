//! Pointers for the vector kernels, checked once per pass.

use crate::kernels::activations::Rows;
use crate::kernels::packed::layout::Kind;

/// A tile row and the activations from the pass's first row on. Whatever a
/// kernel reads of its pass's rows and blocks lies inside: `new` has checked.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    pub(super) tiles: *const u8,
    /// Blocks of 32 columns.
    pub(super) blocks: usize,
    pub(super) columns: usize,
    /// Row m, block b: 32 bytes at `(m * blocks + b) * 32`.
    pub(super) quants: *const i8,
    /// Row m, block b: `m * blocks + b`.
    pub(super) scales: *const f32,
    /// As `scales`.
    pub(super) sums: *const f32,
    /// Row m, half block h: `m * 2 * blocks + h`.
    pub(super) offsets: *const i32,
    /// Row m, column c: `m * columns + c`. Valid for float kinds.
    pub(super) floats: *const f32,
}

impl Pass {
    /// Rows `first..first + count`.
    ///
    /// # Panics
    /// When the tile row or the activations are shorter than the shape says.
    #[inline]
    pub(super) fn new(
        kind: Kind,
        tiles: &[u8],
        rows: &Rows<'_>,
        first: usize,
        count: usize,
    ) -> Self {
        let (blocks, columns) = (rows.blocks, rows.columns);
        let end = (first + count) * blocks;
        assert!(tiles.len() >= kind.row_bytes(columns));
        let floats = if kind.is_float() {
            rows.floats[first * columns..(first + count) * columns].as_ptr()
        } else {
            rows.floats.as_ptr()
        };
        Self {
            tiles: tiles.as_ptr(),
            blocks,
            columns,
            quants: rows.quants[first * blocks * 32..end * 32].as_ptr(),
            scales: rows.scales[first * blocks..end].as_ptr(),
            sums: rows.sums[first * blocks..end].as_ptr(),
            offsets: rows.offsets[first * blocks * 2..end * 2].as_ptr(),
            floats,
        }
    }
}

#[cfg(target_arch = "x86_64")]
/// Calls `$kernel::<M>($pass, $sums)` with M the number of sums.
macro_rules! for_rows {
    ($kernel:ident, $pass:expr, $sums:expr, [$($m:literal)*]) => {
        match $sums.len() {
            $($m => $kernel::<$m>($pass, $sums),)*
            other => unreachable!("a pass of {other} rows"),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use for_rows;
