//! Every instruction set against the portable code, the portable code against
//! plain `f64`.
#![allow(clippy::unwrap_used)]

mod attention;
mod elementwise;
mod multiply;
mod reference;
mod team;

use self::reference::dequantised;
use super::{Isa, Packed, Team};
use crate::gguf::TensorType;

const TYPES: [TensorType; 8] = [
    TensorType::Q4_0,
    TensorType::Q8_0,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::F16,
    TensorType::BF16,
    TensorType::F32,
];

/// Small, seeded random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// About normal, variance 1.
    fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12)
            .map(|_| (self.bits() & 0xffff) as f32 / 65535.0)
            .sum();
        sum - 6.0
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Random blocks of a type: any bits, but for scales of a sensible size.
fn random_blocks(random: &mut Random, ty: TensorType, rows: usize, columns: usize) -> Vec<u8> {
    let (width, size) = ty.block().unwrap();
    let mut data = Vec::with_capacity(rows * columns / width * size);
    // The high byte of a positive half between 2^-9 and 2^-5.
    let half = |random: &mut Random| 0x18 + random.below(16) as u8;
    for _ in 0..rows * columns / width {
        let start = data.len();
        data.extend((0..size).map(|_| random.bits() as u8));
        let block = &mut data[start..];
        match ty {
            TensorType::Q4_0 | TensorType::Q8_0 => block[1] = half(random),
            TensorType::Q4K | TensorType::Q5K => {
                block[1] = half(random);
                block[3] = half(random);
            }
            TensorType::Q6K => block[209] = half(random),
            TensorType::F16 => block[1] = (block[1] & 0x80) | (0x30 + random.below(12) as u8),
            TensorType::BF16 => {
                block.copy_from_slice(&super::float16::to_bf16(random.normal()).to_le_bytes())
            }
            _ => block.copy_from_slice(&random.normal().to_le_bytes()),
        }
    }
    data
}

/// A matrix, packed and plain.
fn matrix(
    random: &mut Random,
    team: &Team,
    ty: TensorType,
    rows: usize,
    columns: usize,
) -> (Packed, Vec<f32>) {
    let data = random_blocks(random, ty, rows, columns);
    let packed = Packed::pack(team, ty, &data, rows, columns).unwrap();
    (packed, dequantised(ty, &data))
}

/// The root of the mean square difference, by that of `exact`.
fn relative_error(exact: &[f64], got: &[f32]) -> f64 {
    assert_eq!(exact.len(), got.len());
    let difference: f64 = exact
        .iter()
        .zip(got)
        .map(|(e, g)| (e - f64::from(*g)).powi(2))
        .sum();
    let size: f64 = exact.iter().map(|e| e * e).sum();
    (difference / size.max(f64::MIN_POSITIVE)).sqrt()
}

fn vector_isas() -> impl Iterator<Item = Isa> {
    Isa::available()
        .into_iter()
        .filter(|isa| *isa != Isa::Scalar)
}
