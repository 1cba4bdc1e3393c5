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
    /// Columns and bytes of a block in the file.
    block: (usize, usize),
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
        let mut packed = Self::zeroed(ty, rows, columns)?;
        packed.fill(team, 0, rows, data)?;
        Ok(packed)
    }

    /// A matrix of zeros, to be filled.
    ///
    /// # Errors
    /// When the type has no kernel, the columns are no whole number of blocks,
    /// or memory runs out.
    pub(crate) fn zeroed(ty: TensorType, rows: usize, columns: usize) -> Result<Self, LoadError> {
        let unsupported = |what: String| Err(LoadError::Unsupported(what));
        let (Some(kind), Some(block)) = (Kind::of(ty), ty.block()) else {
            return unsupported(format!("the CPU kernels do not run {}", ty.name()));
        };
        if rows == 0 || columns == 0 || !columns.is_multiple_of(block.0) {
            return unsupported(format!(
                "a {} matrix of {rows} rows and {columns} columns: columns must be a multiple of {}",
                ty.name(),
                block.0
            ));
        }
        // No packed row is larger than a row of floats.
        let stride = columns
            .checked_mul(ROWS * size_of::<f32>())
            .map(|_| kind.row_bytes(columns));
        let bytes = stride.and_then(|stride| stride.checked_mul(rows.div_ceil(ROWS)));
        let (Some(stride), Some(bytes)) = (stride, bytes) else {
            return unsupported("a matrix larger than the address space".to_owned());
        };
        Ok(Self {
            kind,
            rows,
            columns,
            stride,
            block,
            region: Region::zeroed(bytes)?,
        })
    }

    /// Packs `rows` rows from `first` on, a multiple of 16, so that a tensor
    /// need not be in memory as a whole beside its tiles. All pieces but the
    /// last must have a multiple of 16 rows.
    ///
    /// # Errors
    /// When the data have another length, or the rows are not the matrix's.
    pub(crate) fn fill(
        &mut self,
        team: &Team,
        first: usize,
        rows: usize,
        data: &[u8],
    ) -> Result<(), LoadError> {
        let (width, size) = self.block;
        let blocks = self.columns / width;
        let end = first.checked_add(rows).filter(|end| *end <= self.rows);
        let expected = blocks.checked_mul(size).and_then(|n| n.checked_mul(rows));
        let whole =
            first.is_multiple_of(ROWS) && (rows.is_multiple_of(ROWS) || end == Some(self.rows));
        if end.is_none() || expected != Some(data.len()) || !whole {
            return Err(LoadError::damaged(format!(
                "{rows} rows of {} columns from row {first} on have {} bytes",
                self.columns,
                data.len()
            )));
        }
        let (kind, stride) = (self.kind, self.stride);
        let start = first / ROWS * stride;
        let out = Disjoint::new(&mut self.region.bytes_mut()[start..]);
        team.share(rows.div_ceil(ROWS), 4, &|tile| {
            // SAFETY: each tile row is one item, taken by one thread.
            let tiles = unsafe { out.part(tile * stride..(tile + 1) * stride) };
            for row in 0..ROWS.min(rows - tile * ROWS) {
                let from = &data[(tile * ROWS + row) * blocks * size..][..blocks * size];
                for (b, block) in from.chunks_exact(size).enumerate() {
                    blocks::place(kind, tiles, row, b, block);
                }
            }
        });
        Ok(())
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
