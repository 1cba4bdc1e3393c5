//! Weights, repacked once when a model is loaded.

mod blocks;
pub(crate) mod layout;
mod sizes;
pub(crate) mod unpack;

use self::layout::{Kind, ROWS};
use super::Team;
use super::disjoint::Disjoint;
use super::memory::Region;
use crate::gguf::{LoadError, TensorType};

/// A matrix of weights, `rows` outputs by `columns` inputs, in tiles of 16
/// interleaved rows ([`layout`]). Rows are padded with zeros to a multiple of
/// 16.
pub(crate) struct Packed {
    kind: Kind,
    rows: usize,
    columns: usize,
    /// Bytes of a tile row.
    stride: usize,
    region: Region,
}

impl Packed {
    /// Packs a row-major GGUF tensor.
    ///
    /// # Errors
    /// When the type has no kernel, the columns are no whole number of blocks,
    /// the data have another length, or memory runs out.
    pub(crate) fn pack(
        team: &Team,
        ty: TensorType,
        data: &[u8],
        rows: usize,
        columns: usize,
    ) -> Result<Self, LoadError> {
        let unsupported = |what: String| Err(LoadError::Unsupported(what));
        let (Some(kind), Some((width, size))) = (Kind::of(ty), ty.block()) else {
            return unsupported(format!("the CPU kernels do not run {}", ty.name()));
        };
        if rows == 0 || columns == 0 || !columns.is_multiple_of(width) {
            return unsupported(format!(
                "a {} matrix of {rows} rows and {columns} columns: columns must be a multiple of {width}",
                ty.name()
            ));
        }
        let blocks = columns / width;
        let expected = blocks.checked_mul(size).and_then(|n| n.checked_mul(rows));
        if expected != Some(data.len()) {
            return Err(LoadError::damaged(format!(
                "a {} matrix of {rows} rows and {columns} columns has {} bytes",
                ty.name(),
                data.len()
            )));
        }
        let stride = kind.row_bytes(columns);
        let tile_rows = rows.div_ceil(ROWS);
        let Some(bytes) = stride.checked_mul(tile_rows) else {
            return unsupported("a matrix larger than the address space".to_owned());
        };
        let mut region = Region::zeroed(bytes)?;
        let out = Disjoint::new(region.bytes_mut());
        team.share(tile_rows, 4, &|tile| {
            // SAFETY: each tile row is one item, taken by one thread.
            let tiles = unsafe { out.part(tile * stride..(tile + 1) * stride) };
            for row in 0..ROWS.min(rows - tile * ROWS) {
                let from = &data[(tile * ROWS + row) * blocks * size..][..blocks * size];
                for (b, block) in from.chunks_exact(size).enumerate() {
                    blocks::place(kind, tiles, row, b, block);
                }
            }
        });
        Ok(Self {
            kind,
            rows,
            columns,
            stride,
            region,
        })
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.region.bytes().len()
    }

    /// Whether it multiplies floats: its [`super::Activations`] must keep them.
    pub(crate) fn is_float(&self) -> bool {
        self.kind.is_float()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// How many tile rows.
    pub(super) fn tile_rows(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// The bytes of one tile row.
    #[inline]
    pub(super) fn tile_row(&self, tile: usize) -> &[u8] {
        &self.region.bytes()[tile * self.stride..][..self.stride]
    }

    /// One row as floats, for the lookup of an embedding.
    ///
    /// # Panics
    /// When `row` is not one of the matrix or `out` is not `columns` long.
    pub(crate) fn row_into(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let tiles = self.tile_row(row / ROWS);
        let row = row % ROWS;
        if self.is_float() {
            for (column, out) in out.iter_mut().enumerate() {
                *out = unpack::float(self.kind, tiles, column, row);
            }
        } else {
            for (b, out) in out.chunks_exact_mut(32).enumerate() {
                unpack::row32(self.kind, tiles, b, row, out);
            }
        }
    }
}
