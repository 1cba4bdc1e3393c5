//! AArch64 with dot products: a quarter of a line, 4 of the tile's 16 rows, at a
//! time. `sdot` multiplies it with four activations, one lane of a vector of 16.
//!
//! The dot products and the widening of halves are written in assembly: their
//! intrinsics are not stable in Rust yet.

use std::arch::aarch64::*;
use std::arch::asm;

use super::raw::Pass;
use crate::kernels::activations::Rows;
use crate::kernels::packed::layout::{Kind, LINE, ROWS, k6, k45, pair};

/// 16 outputs of `sums.len()` rows (at most 8), from row `first` on.
///
/// # Safety
/// The processor has NEON and the dot products.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn tile_row(
    kind: Kind,
    tiles: &[u8],
    rows: &Rows<'_>,
    first: usize,
    sums: &mut [[f32; ROWS]],
) {
    let pass = Pass::new(kind, tiles, rows, first, sums.len());
    // The more rows, the fewer quarters fit the registers together.
    // SAFETY: the features are the caller's promise; `pass` has been checked;
    // the quarters are 0 to 3.
    unsafe {
        match sums.len() {
            1 => quarters::<1, 4>(kind, pass, sums),
            2 => quarters::<2, 4>(kind, pass, sums),
            3 => quarters::<3, 2>(kind, pass, sums),
            4 => quarters::<4, 2>(kind, pass, sums),
            5 => quarters::<5, 1>(kind, pass, sums),
            6 => quarters::<6, 1>(kind, pass, sums),
            7 => quarters::<7, 1>(kind, pass, sums),
            8 => quarters::<8, 1>(kind, pass, sums),
            other => unreachable!("a pass of {other} rows"),
        }
    }
}

/// `M` rows, `Q` quarters at a time.
///
/// # Safety
/// As [`tile_row`]; `pass` holds `M` rows. The same goes for every function
/// below: what they read lies in the tile row and in the rows that
/// [`Pass::new`] has checked.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn quarters<const M: usize, const Q: usize>(
    kind: Kind,
    pass: Pass,
    out: &mut [[f32; ROWS]],
) {
    // SAFETY: as said above.
    unsafe {
        for quarter in (0..4).step_by(Q) {
            let sums = match kind {
                Kind::Q4_0 => q4_0::<M, Q>(pass, quarter),
                Kind::Q8_0 => q8_0::<M, Q>(pass, quarter),
                Kind::Q4K => k45_sums::<M, Q, false>(pass, quarter),
                Kind::Q5K => k45_sums::<M, Q, true>(pass, quarter),
                Kind::Q6K => q6k::<M, Q>(pass, quarter),
                Kind::F16 => floats::<M, Q>(pass, quarter, 2, |at| halves(at)),
                Kind::BF16 => floats::<M, Q>(pass, quarter, 2, |at| {
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(at.cast())))
                }),
                Kind::F32 => floats::<M, Q>(pass, quarter, 4, |at| vld1q_f32(at.cast())),
            };
            for (out, sums) in out.iter_mut().zip(sums) {
                for (q, sums) in sums.into_iter().enumerate() {
                    vst1q_f32(out[(quarter + q) * 4..].as_mut_ptr(), sums);
                }
            }
        }
    }
}

/// Adds the products of a quarter of a line with lane `LANE` of 16 activations.
#[inline(always)]
unsafe fn dot<const LANE: usize>(sum: int32x4_t, weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    macro_rules! sdot {
        ($lane:literal) => {
            // SAFETY: registers only; the processor has the instruction.
            unsafe {
                asm!(
                    concat!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[", $lane, "]"),
                    inout(vreg) sum,
                    in(vreg) weights,
                    in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                )
            }
        };
    }
    match LANE {
        0 => sdot!("0"),
        1 => sdot!("1"),
        2 => sdot!("2"),
        _ => sdot!("3"),
    }
    sum
}

/// Four quarters against 16 activations.
#[inline(always)]
unsafe fn four(sum: int32x4_t, weights: [uint8x16_t; 4], x: int8x16_t) -> int32x4_t {
    // SAFETY: registers only.
    unsafe {
        let sum = dot::<0>(sum, weights[0], x);
        let sum = dot::<1>(sum, weights[1], x);
        let sum = dot::<2>(sum, weights[2], x);
        dot::<3>(sum, weights[3], x)
    }
}

/// 4 halves.
#[inline(always)]
unsafe fn halves(at: *const u8) -> float32x4_t {
    // SAFETY: as said at `quarters`; the conversion is part of AArch64.
    unsafe {
        let narrow = vld1_u16(at.cast());
        let wide: float32x4_t;
        asm!(
            "fcvtl {0:v}.4s, {1:v}.4h",
            out(vreg) wide,
            in(vreg) narrow,
            options(pure, nomem, nostack, preserves_flags),
        );
        wide
    }
}

/// 4 unsigned bytes.
#[inline(always)]
unsafe fn bytes(at: *const u8) -> float32x4_t {
    // SAFETY: as said at `quarters`.
    unsafe {
        let bytes = vcreate_u8(u64::from(at.cast::<u32>().read_unaligned()));
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
    }
}

/// 4 signed bytes.
#[inline(always)]
unsafe fn signed_bytes(at: *const u8) -> int32x4_t {
    // SAFETY: as said at `quarters`.
    unsafe {
        let bytes = vcreate_s8(u64::from(at.cast::<u32>().read_unaligned()));
        vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
    }
}

/// Two lines of nibbles: the quarters of 16 columns.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> [uint8x16_t; 4] {
    // SAFETY: as said at `quarters`.
    unsafe {
        let (first, second) = (vld1q_u8(at), vld1q_u8(at.add(LINE)));
        let mask = vdupq_n_u8(15);
        [
            vandq_u8(first, mask),
            vshrq_n_u8::<4>(first),
            vandq_u8(second, mask),
            vshrq_n_u8::<4>(second),
        ]
    }
}

/// Row `m`'s 16 activations number `part` of block `b`.
#[inline(always)]
unsafe fn sixteen(pass: Pass, m: usize, b: usize, part: usize) -> int8x16_t {
    // SAFETY: as said at `quarters`.
    unsafe { vld1q_s8(pass.quants.add((m * pass.blocks + b) * 32 + part * 16)) }
}

/// Q4_0: the quants' offset of 8 is taken off by the scaled sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q4_0<const M: usize, const Q: usize>(
    pass: Pass,
    quarter: usize,
) -> [[float32x4_t; Q]; M] {
    // SAFETY: as said at `quarters`.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); Q]; M];
        for b in 0..pass.blocks {
            let lines = pass.tiles.add(pair::quants(pair::TILE4, pair::BLOCK4, b));
            let scales = pass.tiles.add(pair::scales(pair::TILE4, b));
            for q in 0..Q {
                let row = (quarter + q) * 4;
                let d = halves(scales.add(row * 2));
                let d8 = vmulq_n_f32(d, 8.0);
                let mut dots = [vdupq_n_s32(0); M];
                for part in 0..2 {
                    let weights = nibbles(lines.add(part * 2 * LINE + row * 4));
                    for (m, dot) in dots.iter_mut().enumerate() {
                        *dot = four(*dot, weights, sixteen(pass, m, b, part));
                    }
                }
                for m in 0..M {
                    let at = m * pass.blocks + b;
                    let scale = vmulq_n_f32(d, *pass.scales.add(at));
                    acc[m][q] = vfmaq_f32(acc[m][q], vcvtq_f32_s32(dots[m]), scale);
                    acc[m][q] = vfmsq_n_f32(acc[m][q], d8, *pass.sums.add(at));
                }
            }
        }
        acc
    }
}

/// Q8_0: the stored 128 is taken off at once.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q8_0<const M: usize, const Q: usize>(
    pass: Pass,
    quarter: usize,
) -> [[float32x4_t; Q]; M] {
    // SAFETY: as said at `quarters`.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); Q]; M];
        for b in 0..pass.blocks {
            let lines = pass.tiles.add(pair::quants(pair::TILE8, pair::BLOCK8, b));
            let scales = pass.tiles.add(pair::scales(pair::TILE8, b));
            for q in 0..Q {
                let row = (quarter + q) * 4;
                let d = halves(scales.add(row * 2));
                let mut dots = [vdupq_n_s32(0); M];
                for part in 0..2 {
                    let weights: [uint8x16_t; 4] = std::array::from_fn(|i| {
                        let line = vld1q_u8(lines.add((part * 4 + i) * LINE + row * 4));
                        veorq_u8(line, vdupq_n_u8(0x80))
                    });
                    for (m, dot) in dots.iter_mut().enumerate() {
                        *dot = four(*dot, weights, sixteen(pass, m, b, part));
                    }
                }
                for m in 0..M {
                    let scale = vmulq_n_f32(d, *pass.scales.add(m * pass.blocks + b));
                    acc[m][q] = vfmaq_f32(acc[m][q], vcvtq_f32_s32(dots[m]), scale);
                }
            }
        }
        acc
    }
}

/// Q4_K and, with `HIGH` bits, Q5_K.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn k45_sums<const M: usize, const Q: usize, const HIGH: bool>(
    pass: Pass,
    quarter: usize,
) -> [[float32x4_t; Q]; M] {
    let (size, step) = if HIGH {
        (k45::TILE5, k45::SUB5)
    } else {
        (k45::TILE4, k45::SUB4)
    };
    // SAFETY: as said at `quarters`.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); Q]; M];
        for b in 0..pass.blocks {
            let (tile, sub) = (pass.tiles.add(b / 8 * size), b % 8);
            for q in 0..Q {
                let row = (quarter + q) * 4;
                let scales = bytes(tile.add(k45::SCALES + sub * ROWS + row));
                let scales = vmulq_f32(halves(tile.add(row * 2)), scales);
                let minima = bytes(tile.add(k45::MINIMA + sub * ROWS + row));
                let minima = vmulq_f32(halves(tile.add(k45::MIN + row * 2)), minima);
                let lines = tile.add(k45::LINES + sub * step + row * 4);
                let mut dots = [vdupq_n_s32(0); M];
                for part in 0..2 {
                    let mut weights = nibbles(lines.add(part * 2 * LINE));
                    if HIGH {
                        let bits = vld1q_u8(lines.add(k45::HIGH));
                        // The bits of the groups 4 part.. in place 4, 5, 6, 7.
                        let bits = if part == 0 {
                            vshlq_n_u8::<4>(bits)
                        } else {
                            bits
                        };
                        let bits = [
                            bits,
                            vshrq_n_u8::<1>(bits),
                            vshrq_n_u8::<2>(bits),
                            vshrq_n_u8::<3>(bits),
                        ];
                        for (weights, bits) in weights.iter_mut().zip(bits) {
                            *weights = vorrq_u8(*weights, vandq_u8(bits, vdupq_n_u8(16)));
                        }
                    }
                    for (m, dot) in dots.iter_mut().enumerate() {
                        *dot = four(*dot, weights, sixteen(pass, m, b, part));
                    }
                }
                for m in 0..M {
                    let at = m * pass.blocks + b;
                    let scale = vmulq_n_f32(scales, *pass.scales.add(at));
                    acc[m][q] = vfmaq_f32(acc[m][q], vcvtq_f32_s32(dots[m]), scale);
                    acc[m][q] = vfmsq_n_f32(acc[m][q], minima, *pass.sums.add(at));
                }
            }
        }
        acc
    }
}

/// Q6_K: stored with 32 added, which the offsets take off.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn q6k<const M: usize, const Q: usize>(pass: Pass, quarter: usize) -> [[float32x4_t; Q]; M] {
    // SAFETY: as said at `quarters`.
    unsafe {
        let two = vdupq_n_u8(0x30);
        let mut acc = [[vdupq_n_f32(0.0); Q]; M];
        for b in 0..pass.blocks {
            let (tile, sub) = (pass.tiles.add(b / 8 * k6::TILE), b % 8);
            for q in 0..Q {
                let row = (quarter + q) * 4;
                let mut totals = [vdupq_n_s32(0); M];
                for part in 0..2 {
                    let scales = tile.add(k6::SCALES + (sub * 2 + part) * ROWS + row);
                    let scales = signed_bytes(scales);
                    let lines = tile.add(k6::LINES + (sub * 2 + part) * k6::HALF + row * 4);
                    let bits = vld1q_u8(lines.add(k6::HIGH));
                    let mut weights = nibbles(lines);
                    let bits = [
                        vshlq_n_u8::<4>(bits),
                        vshlq_n_u8::<2>(bits),
                        bits,
                        vshrq_n_u8::<2>(bits),
                    ];
                    for (weights, bits) in weights.iter_mut().zip(bits) {
                        *weights = vorrq_u8(*weights, vandq_u8(bits, two));
                    }
                    for (m, total) in totals.iter_mut().enumerate() {
                        let offset = *pass.offsets.add((m * pass.blocks + b) * 2 + part);
                        let dot = four(vdupq_n_s32(offset), weights, sixteen(pass, m, b, part));
                        *total = vmlaq_s32(*total, dot, scales);
                    }
                }
                let d = halves(tile.add(row * 2));
                for m in 0..M {
                    let scale = vmulq_n_f32(d, *pass.scales.add(m * pass.blocks + b));
                    acc[m][q] = vfmaq_f32(acc[m][q], vcvtq_f32_s32(totals[m]), scale);
                }
            }
        }
        acc
    }
}

/// Floats of `bytes` each; `load` widens 4 of them.
#[inline(always)]
unsafe fn floats<const M: usize, const Q: usize>(
    pass: Pass,
    quarter: usize,
    bytes: usize,
    load: impl Fn(*const u8) -> float32x4_t,
) -> [[float32x4_t; Q]; M] {
    // SAFETY: as said at `quarters`.
    unsafe {
        // Two sums each, or the additions wait for each other.
        let mut acc = [[[vdupq_n_f32(0.0); Q]; M]; 2];
        for column in 0..pass.columns {
            let acc = &mut acc[column % 2];
            for q in 0..Q {
                let at = column * ROWS + (quarter + q) * 4;
                let weights = load(pass.tiles.add(at * bytes));
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = *pass.floats.add(m * pass.columns + column);
                    acc[q] = vfmaq_n_f32(acc[q], weights, x);
                }
            }
        }
        let [mut sums, others] = acc;
        for (sums, others) in sums.iter_mut().zip(others) {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum = vaddq_f32(*sum, other);
            }
        }
        sums
    }
}
