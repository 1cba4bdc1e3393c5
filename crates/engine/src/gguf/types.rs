//! Tensor types: their numbers in the file, block sizes, and which we run.

use candle_core::quantized::GgmlDType;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// Brain float.
    BF16,
    /// Blocks of 32, 4 bits, one scale.
    Q4_0,
    /// Blocks of 32, 4 bits, scale and minimum.
    Q4_1,
    /// Blocks of 32, 5 bits, one scale.
    Q5_0,
    /// Blocks of 32, 5 bits, scale and minimum.
    Q5_1,
    /// Blocks of 32, 8 bits, one scale.
    Q8_0,
    /// Super-blocks of 256, 2 bits.
    Q2K,
    /// Super-blocks of 256, 3 bits.
    Q3K,
    /// Super-blocks of 256, 4 bits.
    Q4K,
    /// Super-blocks of 256, 5 bits.
    Q5K,
    /// Super-blocks of 256, 6 bits.
    Q6K,
    /// A number that this engine does not run; the refusal names it.
    Other(u32),
}

impl TensorType {
    /// From the number in the file.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::BF16,
            other => Self::Other(other),
        }
    }

    /// The number in the file.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
            Self::Other(other) => other,
        }
    }

    /// The name that people know it by.
    pub fn name(self) -> String {
        let known = [
            (16, "IQ2_XXS"),
            (17, "IQ2_XS"),
            (18, "IQ3_XXS"),
            (19, "IQ1_S"),
            (20, "IQ4_NL"),
            (21, "IQ3_S"),
            (22, "IQ2_S"),
            (23, "IQ4_XS"),
            (24, "I8"),
            (25, "I16"),
            (26, "I32"),
            (27, "I64"),
            (28, "F64"),
            (29, "IQ1_M"),
            (34, "TQ1_0"),
            (35, "TQ2_0"),
            (39, "MXFP4"),
        ];
        match self {
            Self::Q2K => "Q2_K".to_owned(),
            Self::Q3K => "Q3_K".to_owned(),
            Self::Q4K => "Q4_K".to_owned(),
            Self::Q5K => "Q5_K".to_owned(),
            Self::Q6K => "Q6_K".to_owned(),
            Self::Other(number) => known
                .iter()
                .find(|(n, _)| *n == number)
                .map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned()),
            named => format!("{named:?}"),
        }
    }

    /// (elements, bytes) of one block; `None` for types that we do not run.
    pub fn block(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Other(_) => return None,
        })
    }

    /// Candle's name for it.
    pub(crate) fn candle(self) -> Option<GgmlDType> {
        Some(match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::BF16 => GgmlDType::BF16,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            Self::Other(_) => return None,
        })
    }
}
