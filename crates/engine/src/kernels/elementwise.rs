//! Norms, rotary embedding, gates: loops over `f32` slices, written so that the
//! compiler vectorises them for each instruction set.

use super::Isa;

const LANES: usize = 16;

/// The sum of squares.
#[inline(always)]
fn squares(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += chunk[lane] * chunk[lane];
        }
    }
    sums.iter().sum::<f32>() + tail.iter().map(|x| x * x).sum::<f32>()
}

/// What the RMS norm multiplies a row with, before its weight.
#[inline(always)]
pub(super) fn norm_factor(x: &[f32], eps: f32) -> f32 {
    1.0 / (squares(x) / x.len() as f32 + eps).sqrt()
}

/// Root-mean-square norm of each row of `weight.len()` numbers, in place.
pub(crate) fn rms_norm(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    isa.compiled(
        #[inline(always)]
        || {
            for row in x.chunks_exact_mut(weight.len()) {
                let factor = norm_factor(row, eps);
                for (x, w) in row.iter_mut().zip(weight) {
                    *x *= factor * w;
                }
            }
        },
    );
}

/// Which numbers of a head the rotary embedding turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeStyle {
    /// 2i and 2i + 1 (llama's GGUF files).
    Neighbours,
    /// i and i + n/2 (the NeoX style).
    Halves,
}

/// Turns the first `2 * cos.len()` numbers of each head of one token's `x`.
/// `cos` and `sin` are the table's row for the token's position, scaled as the
/// model wants it.
pub(crate) fn rope(
    isa: Isa,
    style: RopeStyle,
    x: &mut [f32],
    head_dim: usize,
    cos: &[f32],
    sin: &[f32],
) {
    let half = cos.len();
    assert!(sin.len() == half && half * 2 <= head_dim && head_dim > 0);
    isa.compiled(
        #[inline(always)]
        || {
            for head in x.chunks_exact_mut(head_dim) {
                match style {
                    RopeStyle::Neighbours => {
                        let (pairs, _) = head[..half * 2].as_chunks_mut::<2>();
                        for (pair, (c, s)) in pairs.iter_mut().zip(cos.iter().zip(sin)) {
                            let [a, b] = *pair;
                            *pair = [a * c - b * s, a * s + b * c];
                        }
                    }
                    RopeStyle::Halves => {
                        let (first, second) = head[..half * 2].split_at_mut(half);
                        for i in 0..half {
                            let (a, b) = (first[i], second[i]);
                            first[i] = a * cos[i] - b * sin[i];
                            second[i] = a * sin[i] + b * cos[i];
                        }
                    }
                }
            }
        },
    );
}

/// `out += x`
pub(crate) fn add(isa: Isa, out: &mut [f32], x: &[f32]) {
    isa.compiled(
        #[inline(always)]
        || {
            for (out, x) in out.iter_mut().zip(x) {
                *out += x;
            }
        },
    );
}

/// Adds one row to each row of `out`: a bias.
pub(crate) fn add_row(isa: Isa, out: &mut [f32], row: &[f32]) {
    for out in out.chunks_exact_mut(row.len().max(1)) {
        add(isa, out, row);
    }
}

/// `x *= factor`
pub(crate) fn scale(isa: Isa, x: &mut [f32], factor: f32) {
    if factor != 1.0 {
        isa.compiled(
            #[inline(always)]
            || x.iter_mut().for_each(|x| *x *= factor),
        );
    }
}

/// `x = cap * tanh(x / cap)`: no number's size exceeds `cap`.
pub(crate) fn softcap(isa: Isa, x: &mut [f32], cap: f32) {
    isa.compiled(
        #[inline(always)]
        || {
            for x in x.iter_mut() {
                *x = cap * tanh(*x / cap);
            }
        },
    );
}

/// e^x within 2 units in the last place, without a call, so that loops over it
/// vectorise. Cephes' reduction to [-ln2/2, ln2/2] and polynomial.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Below, the result is 0 or denormal; above, infinite.
    let x = x.clamp(-87.3, 88.3);
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let y = p * r * r + r + 1.0;
    // 2^n, its exponent from the low bits of the rounded number.
    let exponent = rounded
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    y * f32::from_bits(exponent << 23)
}

#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // 1 - 2 / (e^2x + 1): exact at both ends, no overflow.
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The tanh form of gelu: 0.5 x (1 + tanh(y)) = x / (1 + e^-2y).
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let y = SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x);
    x / (1.0 + exp(-2.0 * y))
}
