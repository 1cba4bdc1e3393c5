//! From a file's tensors to packed matrices.

use std::borrow::Cow;

use crate::gguf::{LoadError, TensorType};
use crate::kernels::{Packed, Team};
use crate::model::loader::{Make, Tensor};

/// About how many bytes of a tensor are read and packed at a time: enough for
/// all threads, little beside the weights.
const PIECE_BYTES: usize = 4 << 20;
/// Pieces are whole tiles.
const TILE_ROWS: usize = 16;

/// Packs matrices, on all threads.
pub(in crate::model) struct Packer<'a> {
    pub(in crate::model) team: &'a Team,
}

/// The type that a tensor is packed as; `None` for types without a kernel.
///
/// Two types without one are subsets of types with one, so that their numbers
/// are kept exactly: Q5_0 of Q8_0, Q3_K of Q6_K.
pub(in crate::model) fn packed_type(dtype: TensorType) -> Option<TensorType> {
    match dtype {
        TensorType::Q5_0 => Some(TensorType::Q8_0),
        TensorType::Q3K => Some(TensorType::Q6K),
        other => Packed::runs(other).then_some(other),
    }
}

impl Make for Packer<'_> {
    type Matrix = Packed;

    fn matrix(
        &self,
        rows: usize,
        columns: usize,
        tensor: &mut Tensor<'_>,
    ) -> Result<Packed, LoadError> {
        let dtype = tensor.dtype();
        let packed_type = packed_type(dtype).ok_or_else(|| unknown(dtype))?;
        let mut packed = Packed::zeroed(packed_type, rows, columns)?;
        let piece = (PIECE_BYTES / tensor.row_bytes().max(1)).max(1);
        let piece = piece.next_multiple_of(TILE_ROWS);
        for first in (0..rows).step_by(piece) {
            let count = piece.min(rows - first);
            let data = tensor.rows(count)?;
            let data = match dtype {
                TensorType::Q5_0 => Cow::Owned(blocks(data, q5_0_as_q8_0)),
                TensorType::Q3K => Cow::Owned(blocks(data, q3k_as_q6k)),
                _ => Cow::Borrowed(data),
            };
            packed.fill(self.team, first, count, &data)?;
        }
        Ok(packed)
    }

    fn bytes(&self, dtype: TensorType, rows: usize, columns: usize) -> Result<u64, LoadError> {
        packed_bytes(dtype, rows, columns)
    }
}

/// What a packed matrix takes in memory, in bytes.
pub(in crate::model) fn packed_bytes(
    dtype: TensorType,
    rows: usize,
    columns: usize,
) -> Result<u64, LoadError> {
    packed_type(dtype)
        .and_then(|dtype| Packed::bytes_of(dtype, rows, columns))
        .map(|bytes| bytes as u64)
        .ok_or_else(|| unknown(dtype))
}

fn unknown(dtype: TensorType) -> LoadError {
    LoadError::Unsupported(format!("the CPU kernels do not run {}", dtype.name()))
}

/// Translates block by block; what is left over is not a whole block.
fn blocks<const N: usize, const M: usize>(
    data: &[u8],
    translate: impl Fn(&[u8; N]) -> [u8; M],
) -> Vec<u8> {
    let (blocks, _) = data.as_chunks::<N>();
    let mut out = Vec::with_capacity(blocks.len() * M);
    for block in blocks {
        out.extend_from_slice(&translate(block));
    }
    out
}

/// Q5_0: a scale, 32 high bits, 16 bytes of two low nibbles; a number is the
/// scale times its quant less 16. Q8_0: a scale and 32 signed quants.
fn q5_0_as_q8_0(block: &[u8; 22]) -> [u8; 34] {
    let mut out = [0; 34];
    out[..2].copy_from_slice(&block[..2]);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (index, byte) in block[6..].iter().enumerate() {
        for (index, low) in [(index, byte & 15), (index + 16, byte >> 4)] {
            let quant = low | (((high >> index) & 1) as u8) << 4;
            out[2 + index] = quant.wrapping_sub(16);
        }
    }
    out
}

/// Q3_K: 32 bytes of high bits (bit `i` of byte `l` is number `32 i + l`), 64
/// bytes of two low bits, 16 scales of 6 bits less 32, and the scale of all. A
/// number's quant is its low bits, less 4 where the high bit is not set. Q6_K
/// has the same 16 groups, signed scales, and quants less 32.
fn q3k_as_q6k(block: &[u8; 110]) -> [u8; 210] {
    let (high, rest) = block.split_at(32);
    let (low, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(12);
    let mut out = [0; 210];
    for group in 0..16 {
        let four = match group {
            0..8 => scales[group] & 15,
            _ => scales[group - 8] >> 4,
        };
        let two = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
        out[192 + group] = (four | (two << 4)).wrapping_sub(32);
    }
    out[208..].copy_from_slice(d);
    for index in 0..256 {
        // Runs of 32 numbers share a bit of `high`, and two bits of half of `low`.
        let (run, byte) = (index / 32, index % 32);
        let two = (low[run / 4 * 32 + byte] >> (2 * (run % 4))) & 3;
        let set = (high[byte] >> run) & 1;
        // Less 4 unless set, plus 32.
        let quant = 28 + two + 4 * set;
        // Q6_K: halves of 128; in each, four runs of 32: the first two in the
        // low nibbles of 64 bytes, the last two in the high ones; upper bits of
        // all four in 32 bytes.
        let (half, run) = (run / 4, run % 4);
        out[half * 64 + run % 2 * 32 + byte] |= (quant & 15) << (run / 2 * 4);
        out[128 + half * 32 + byte] |= (quant >> 4) << (2 * run);
    }
    out
}
