//! What packing takes, without packing.

use super::Packed;
use super::layout::{Kind, ROWS};
use crate::gguf::TensorType;

impl Packed {
    /// Whether matrices of this type have a kernel.
    pub(crate) fn runs(ty: TensorType) -> bool {
        Kind::of(ty).is_some()
    }

    /// The [`Packed::bytes`] of a matrix; `None` for types without a kernel.
    pub(crate) fn bytes_of(ty: TensorType, rows: usize, columns: usize) -> Option<usize> {
        let row = Kind::of(ty)?.row_bytes(columns);
        row.checked_mul(rows.div_ceil(ROWS))
    }
}
