//! How tiles lie in memory.
//!
//! A *tile row* is 16 rows of the matrix, all columns. It is a sequence of
//! tiles, one per block of 256 columns (the K types) or per pair of blocks of
//! 32 (the others). Inside, quants come in *lines* of 64 bytes: 16 rows, four
//! columns of each. A line meets a broadcast of four activations in one
//! `vpdpbusd`. Lines of 4-bit types hold the next four columns in the high
//! half of their bytes. Every line is aligned to 64 bytes.

use crate::gguf::TensorType;

/// Rows in a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes in a line: 16 rows, four columns.
pub(crate) const LINE: usize = 64;

/// What a tile row is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `d` f16 x 16 of two blocks, then per block 4 lines of two nibbles.
    Q4_0,
    /// `d` f16 x 16 of two blocks, then per block 8 lines; a byte is the
    /// quant plus 128.
    Q8_0,
    /// `d`, `dmin` f16 x 16; scales, minima 8 x 16 bytes; for each 32 columns 4
    /// lines of nibbles.
    Q4K,
    /// As `Q4K`, but each 4 lines of nibbles with a line of high bits behind:
    /// bit `g` belongs to the `g`-th group of four columns of the 32.
    Q5K,
    /// `d` f16 x 16 and 32 bytes of nothing; 16 x 16 signed scales; for each 16
    /// columns 2 lines of nibbles and one of high bits, two for each of four
    /// groups of columns.
    Q6K,
    /// Column by column, 16 IEEE halves.
    F16,
    /// Column by column, 16 bf16.
    BF16,
    /// Column by column, 16 floats.
    F32,
}

/// Offsets inside a tile of `Q4K` and `Q5K`.
pub(crate) mod k45 {
    pub(crate) const MIN: usize = 32;
    pub(crate) const SCALES: usize = 64;
    pub(crate) const MINIMA: usize = 192;
    pub(crate) const LINES: usize = 320;
    /// Bytes of lines for 32 columns: nibbles, and for `Q5K` high bits.
    pub(crate) const SUB4: usize = 256;
    pub(crate) const SUB5: usize = 320;
    /// The high bits among them.
    pub(crate) const HIGH: usize = 256;
    pub(crate) const TILE4: usize = LINES + 8 * SUB4;
    pub(crate) const TILE5: usize = LINES + 8 * SUB5;
}

/// Offsets inside a tile of `Q6K`.
pub(crate) mod k6 {
    pub(crate) const SCALES: usize = 64;
    pub(crate) const LINES: usize = 320;
    /// Bytes of lines for 16 columns: nibbles, then high bits.
    pub(crate) const HALF: usize = 192;
    /// The high bits among them.
    pub(crate) const HIGH: usize = 128;
    pub(crate) const TILE: usize = LINES + 16 * HALF;
}

/// A tile of `Q4_0` or `Q8_0` is two blocks: scales of both, then quants.
pub(crate) mod pair {
    pub(crate) const QUANTS: usize = 64;
    pub(crate) const BLOCK4: usize = 256;
    pub(crate) const BLOCK8: usize = 512;
    pub(crate) const TILE4: usize = 576;
    pub(crate) const TILE8: usize = 1088;

    /// Where in a tile row block `b`'s scales start.
    #[inline(always)]
    pub(crate) const fn scales(tile: usize, b: usize) -> usize {
        (b / 2) * tile + (b % 2) * 32
    }

    /// Where in a tile row block `b`'s quants start.
    #[inline(always)]
    pub(crate) const fn quants(tile: usize, block: usize, b: usize) -> usize {
        (b / 2) * tile + QUANTS + (b % 2) * block
    }
}

impl Kind {
    /// How a tensor's type is packed; `None` for types without a kernel.
    pub(crate) fn of(ty: TensorType) -> Option<Self> {
        Some(match ty {
            TensorType::Q4_0 => Self::Q4_0,
            TensorType::Q8_0 => Self::Q8_0,
            TensorType::Q4K => Self::Q4K,
            TensorType::Q5K => Self::Q5K,
            TensorType::Q6K => Self::Q6K,
            TensorType::F16 => Self::F16,
            TensorType::BF16 => Self::BF16,
            TensorType::F32 => Self::F32,
            _ => return None,
        })
    }

    /// Whether activations stay floats for it.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32)
    }

    /// Bytes of a tile row of `columns`, a multiple of 64.
    pub(crate) fn row_bytes(self, columns: usize) -> usize {
        let bytes = match self {
            Self::Q4_0 => (columns / 32).div_ceil(2) * pair::TILE4,
            Self::Q8_0 => (columns / 32).div_ceil(2) * pair::TILE8,
            Self::Q4K => columns / 256 * k45::TILE4,
            Self::Q5K => columns / 256 * k45::TILE5,
            Self::Q6K => columns / 256 * k6::TILE,
            Self::F16 | Self::BF16 => columns * ROWS * 2,
            Self::F32 => columns * ROWS * 4,
        };
        bytes.next_multiple_of(LINE)
    }
}
