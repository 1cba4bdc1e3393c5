//! AVX2: half a line, 8 of the tile's 16 rows, at a time. Four products are
//! added by `vpdpbusd` where the processor has it, else by `vpmaddubsw`, which
//! adds two in 16 bits: the comments say why that never saturates.

use std::arch::x86_64::*;

use super::raw::Pass;
use crate::kernels::activations::Rows;
use crate::kernels::packed::layout::{Kind, LINE, ROWS, k6, k45, pair};

/// Multiplications in 16 bits.
const PLAIN: u8 = 0;
/// `vpdpbusd` of AVX-VNNI.
const AVX_VNNI: u8 = 1;
/// `vpdpbusd` of AVX-512 VNNI, at 256 bits.
const VL_VNNI: u8 = 2;

/// 16 outputs of `sums.len()` rows (at most 4), from row `first` on, without
/// dot products.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile_row(
    kind: Kind,
    tiles: &[u8],
    rows: &Rows<'_>,
    first: usize,
    sums: &mut [[f32; ROWS]],
) {
    let pass = Pass::new(kind, tiles, rows, first, sums.len());
    // SAFETY: the features are the caller's promise; `pass` has been checked.
    unsafe { run::<PLAIN>(kind, pass, sums) };
}

/// As [`tile_row`], with dot products.
///
/// # Safety
/// The processor has AVX2, FMA, F16C, and AVX-VNNI or AVX-512 VL and VNNI.
pub(super) unsafe fn tile_row_vnni(
    kind: Kind,
    tiles: &[u8],
    rows: &Rows<'_>,
    first: usize,
    sums: &mut [[f32; ROWS]],
) {
    let pass = Pass::new(kind, tiles, rows, first, sums.len());
    // SAFETY: the features are the caller's promise; `pass` has been checked.
    unsafe {
        if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
            with_vl_vnni(kind, pass, sums);
        } else {
            with_avx_vnni(kind, pass, sums);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512vnni,avx512vl")]
unsafe fn with_vl_vnni(kind: Kind, pass: Pass, sums: &mut [[f32; ROWS]]) {
    // SAFETY: the caller's promise.
    unsafe { run::<VL_VNNI>(kind, pass, sums) };
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn with_avx_vnni(kind: Kind, pass: Pass, sums: &mut [[f32; ROWS]]) {
    // SAFETY: the caller's promise.
    unsafe { run::<AVX_VNNI>(kind, pass, sums) };
}

/// # Safety
/// The processor has what `V` needs; `pass` holds `sums.len()` rows. The same
/// goes for every function below: what they read lies in the tile row and in
/// the rows that [`Pass::new`] has checked.
#[inline(always)]
unsafe fn run<const V: u8>(kind: Kind, pass: Pass, sums: &mut [[f32; ROWS]]) {
    // One or two rows leave registers for both halves of the lines.
    // SAFETY: the caller's promise; the halves are 0 and 1.
    unsafe {
        match sums.len() {
            1 => by_kind::<1, 2, V>(kind, pass, 0, sums),
            2 => by_kind::<2, 2, V>(kind, pass, 0, sums),
            3 => {
                by_kind::<3, 1, V>(kind, pass, 0, sums);
                by_kind::<3, 1, V>(kind, pass, 1, sums);
            }
            4 => {
                by_kind::<4, 1, V>(kind, pass, 0, sums);
                by_kind::<4, 1, V>(kind, pass, 1, sums);
            }
            other => unreachable!("a pass of {other} rows"),
        }
    }
}

/// `M` rows, `H` halves of the lines from half `half` on.
#[inline(always)]
unsafe fn by_kind<const M: usize, const H: usize, const V: u8>(
    kind: Kind,
    pass: Pass,
    half: usize,
    out: &mut [[f32; ROWS]],
) {
    // SAFETY: as said at `run`.
    unsafe {
        let sums = match kind {
            Kind::Q4_0 => q4_0::<M, H, V>(pass, half),
            Kind::Q8_0 => q8_0::<M, H, V>(pass, half),
            Kind::Q4K => k45_sums::<M, H, V, false>(pass, half),
            Kind::Q5K => k45_sums::<M, H, V, true>(pass, half),
            Kind::Q6K => q6k::<M, H, V>(pass, half),
            Kind::F16 => floats::<M, H>(pass, half, 2, |at| halves(at)),
            Kind::BF16 => floats::<M, H>(pass, half, 2, |at| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }),
            Kind::F32 => floats::<M, H>(pass, half, 4, |at| _mm256_loadu_ps(at.cast())),
        };
        for (out, sums) in out.iter_mut().zip(sums) {
            for (h, sums) in sums.into_iter().enumerate() {
                _mm256_storeu_ps(out[(half + h) * 8..].as_mut_ptr(), sums);
            }
        }
    }
}

/// How far ahead weights are fetched, in bytes.
const AHEAD: usize = 8192;

/// Fetches `bytes` of weights into the second-level cache, `AHEAD` of `at`: once,
/// with the first half of the lines, and not for one row, where the processor's
/// own prefetching does best.
#[inline(always)]
unsafe fn fetch<const M: usize>(half: usize, at: *const u8, bytes: usize) {
    if M > 1 && half == 0 {
        for index in 0..bytes.div_ceil(LINE) {
            // SAFETY: a prefetch never faults, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(AHEAD + index * LINE).cast()) };
        }
    }
}

/// Half a line.
#[inline(always)]
unsafe fn line(at: *const u8) -> __m256i {
    // SAFETY: as said at `run`.
    unsafe { _mm256_load_si256(at.cast()) }
}

/// Four activations in every lane.
#[inline(always)]
unsafe fn four(at: *const i8) -> __m256i {
    // SAFETY: as said at `run`.
    unsafe { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
}

/// 8 halves.
#[inline(always)]
unsafe fn halves(at: *const u8) -> __m256 {
    // SAFETY: as said at `run`.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// 8 unsigned bytes.
#[inline(always)]
unsafe fn bytes(at: *const u8) -> __m256 {
    // SAFETY: as said at `run`.
    unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()))) }
}

#[inline(always)]
unsafe fn nibbles(line: __m256i) -> (__m256i, __m256i) {
    // SAFETY: registers only.
    unsafe {
        let mask = _mm256_set1_epi8(15);
        (
            _mm256_and_si256(line, mask),
            _mm256_and_si256(_mm256_srli_epi16::<4>(line), mask),
        )
    }
}

#[inline(always)]
unsafe fn dpbusd<const V: u8>(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
    // SAFETY: registers only; the processor has what `V` needs.
    unsafe {
        if V == VL_VNNI {
            _mm256_dpbusd_epi32(sum, weights, x)
        } else {
            _mm256_dpbusd_avx_epi32(sum, weights, x)
        }
    }
}

/// Adds the products of `N` quarters of a line each with four activations from
/// `x` on. Without dot products, sums of `2 N` products must fit 16 bits, of
/// weights up to `w`: 254 N w <= 32767.
#[inline(always)]
unsafe fn dot<const N: usize, const V: u8>(
    mut sum: __m256i,
    weights: [__m256i; N],
    x: *const i8,
) -> __m256i {
    // SAFETY: as said at `run`.
    unsafe {
        if V == PLAIN {
            let mut pairs = _mm256_maddubs_epi16(weights[0], four(x));
            for i in 1..N {
                let more = _mm256_maddubs_epi16(weights[i], four(x.add(i * 4)));
                pairs = _mm256_add_epi16(pairs, more);
            }
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        } else {
            for (i, weights) in weights.into_iter().enumerate() {
                sum = dpbusd::<V>(sum, weights, four(x.add(i * 4)));
            }
            sum
        }
    }
}

/// Q4_0: the quants' offset of 8 is taken off by the scaled sums. Weights up to
/// 15: four at a time fit.
#[inline(always)]
unsafe fn q4_0<const M: usize, const H: usize, const V: u8>(
    pass: Pass,
    half: usize,
) -> [[__m256; H]; M] {
    // SAFETY: as said at `run`.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); H]; M];
        for b in 0..pass.blocks {
            let lines = pass.tiles.add(pair::quants(pair::TILE4, pair::BLOCK4, b));
            fetch::<M>(half, lines, pair::TILE4 / 2);
            for h in 0..H {
                let from = lines.add((half + h) * 32);
                let scales = pass.tiles.add(pair::scales(pair::TILE4, b));
                let d = halves(scales.add((half + h) * 16));
                let d8 = _mm256_mul_ps(d, _mm256_set1_ps(8.0));
                let mut dots = [_mm256_setzero_si256(); M];
                for i in 0..2 {
                    let (w0, w1) = nibbles(line(from.add(i * 2 * LINE)));
                    let (w2, w3) = nibbles(line(from.add((i * 2 + 1) * LINE)));
                    for (m, sum) in dots.iter_mut().enumerate() {
                        let x = pass.quants.add((m * pass.blocks + b) * 32 + i * 16);
                        *sum = dot::<4, V>(*sum, [w0, w1, w2, w3], x);
                    }
                }
                for m in 0..M {
                    let at = m * pass.blocks + b;
                    let scale = _mm256_mul_ps(d, _mm256_set1_ps(*pass.scales.add(at)));
                    let sum = _mm256_set1_ps(*pass.sums.add(at));
                    acc[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[m]), scale, acc[m][h]);
                    acc[m][h] = _mm256_fnmadd_ps(d8, sum, acc[m][h]);
                }
            }
        }
        acc
    }
}

/// Q8_0: stored with 128 added. `vpdpbusd` takes that off by the offsets. In 16
/// bits two products of up to 255 * 127 do not fit: there the weight's sign goes
/// to the activation, and 2 * 128 * 127 do.
#[inline(always)]
unsafe fn q8_0<const M: usize, const H: usize, const V: u8>(
    pass: Pass,
    half: usize,
) -> [[__m256; H]; M] {
    // SAFETY: as said at `run`.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); H]; M];
        for b in 0..pass.blocks {
            let lines = pass.tiles.add(pair::quants(pair::TILE8, pair::BLOCK8, b));
            fetch::<M>(half, lines, pair::TILE8 / 2);
            for h in 0..H {
                let from = lines.add((half + h) * 32);
                let scales = pass.tiles.add(pair::scales(pair::TILE8, b));
                let d = halves(scales.add((half + h) * 16));
                let mut dots = [_mm256_setzero_si256(); M];
                if V != PLAIN {
                    for (m, dot) in dots.iter_mut().enumerate() {
                        let at = pass.offsets.add((m * pass.blocks + b) * 2);
                        *dot = _mm256_set1_epi32(4 * (*at + *at.add(1)));
                    }
                }
                for i in 0..8 {
                    let weights = line(from.add(i * LINE));
                    let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
                    let size = _mm256_abs_epi8(signed);
                    for (m, dot) in dots.iter_mut().enumerate() {
                        let x = four(pass.quants.add((m * pass.blocks + b) * 32 + i * 4));
                        if V == PLAIN {
                            let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, signed));
                            let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                            *dot = _mm256_add_epi32(*dot, sums);
                        } else {
                            *dot = dpbusd::<V>(*dot, weights, x);
                        }
                    }
                }
                for m in 0..M {
                    let scale = _mm256_set1_ps(*pass.scales.add(m * pass.blocks + b));
                    let scale = _mm256_mul_ps(d, scale);
                    acc[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[m]), scale, acc[m][h]);
                }
            }
        }
        acc
    }
}

/// Q4_K and, with `HIGH` bits, Q5_K. Weights up to 31: four at a time fit.
#[inline(always)]
unsafe fn k45_sums<const M: usize, const H: usize, const V: u8, const HIGH: bool>(
    pass: Pass,
    half: usize,
) -> [[__m256; H]; M] {
    let (size, step) = if HIGH {
        (k45::TILE5, k45::SUB5)
    } else {
        (k45::TILE4, k45::SUB4)
    };
    // SAFETY: as said at `run`.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); H]; M];
        for b in 0..pass.blocks {
            let (tile, sub) = (pass.tiles.add(b / 8 * size), b % 8);
            fetch::<M>(half, tile.add(sub * size / 8), size / 8);
            for h in 0..H {
                let row = (half + h) * 8;
                let scales = bytes(tile.add(k45::SCALES + sub * ROWS + row));
                let scales = _mm256_mul_ps(halves(tile.add(row * 2)), scales);
                let minima = bytes(tile.add(k45::MINIMA + sub * ROWS + row));
                let minima = _mm256_mul_ps(halves(tile.add(k45::MIN + row * 2)), minima);
                let from = tile.add(k45::LINES + sub * step + row * 4);
                let mut dots = [_mm256_setzero_si256(); M];
                for i in 0..2 {
                    let (w0, w1) = nibbles(line(from.add(i * 2 * LINE)));
                    let (w2, w3) = nibbles(line(from.add((i * 2 + 1) * LINE)));
                    let mut weights = [w0, w1, w2, w3];
                    if HIGH {
                        let bits = line(from.add(k45::HIGH));
                        // The bits of the groups 4i.. in place 4, 5, 6, 7.
                        let bits = if i == 0 {
                            _mm256_slli_epi16::<4>(bits)
                        } else {
                            bits
                        };
                        let bits = [
                            bits,
                            _mm256_srli_epi16::<1>(bits),
                            _mm256_srli_epi16::<2>(bits),
                            _mm256_srli_epi16::<3>(bits),
                        ];
                        for (weights, bits) in weights.iter_mut().zip(bits) {
                            let bit = _mm256_and_si256(bits, _mm256_set1_epi8(16));
                            *weights = _mm256_or_si256(*weights, bit);
                        }
                    }
                    for (m, sum) in dots.iter_mut().enumerate() {
                        let x = pass.quants.add((m * pass.blocks + b) * 32 + i * 16);
                        *sum = dot::<4, V>(*sum, weights, x);
                    }
                }
                for m in 0..M {
                    let at = m * pass.blocks + b;
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(*pass.scales.add(at)));
                    let sum = _mm256_set1_ps(*pass.sums.add(at));
                    acc[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[m]), scale, acc[m][h]);
                    acc[m][h] = _mm256_fnmadd_ps(minima, sum, acc[m][h]);
                }
            }
        }
        acc
    }
}

/// Q6_K: stored with 32 added, which the offsets take off. Weights up to 63: two
/// at a time fit.
#[inline(always)]
unsafe fn q6k<const M: usize, const H: usize, const V: u8>(
    pass: Pass,
    half: usize,
) -> [[__m256; H]; M] {
    // SAFETY: as said at `run`.
    unsafe {
        let two = _mm256_set1_epi8(0x30);
        let mut acc = [[_mm256_setzero_ps(); H]; M];
        for b in 0..pass.blocks {
            let (tile, sub) = (pass.tiles.add(b / 8 * k6::TILE), b % 8);
            fetch::<M>(half, tile.add(sub * k6::TILE / 8), k6::TILE / 8);
            for h in 0..H {
                let row = (half + h) * 8;
                let mut totals = [_mm256_setzero_si256(); M];
                for part in 0..2 {
                    let scales = tile.add(k6::SCALES + (sub * 2 + part) * ROWS + row);
                    let scales = _mm256_cvtepi8_epi32(_mm_loadl_epi64(scales.cast()));
                    let from = tile.add(k6::LINES + (sub * 2 + part) * k6::HALF + row * 4);
                    let bits = line(from.add(k6::HIGH));
                    let (w0, w1) = nibbles(line(from));
                    let (w2, w3) = nibbles(line(from.add(LINE)));
                    let high = |bits| _mm256_and_si256(bits, two);
                    let w0 = _mm256_or_si256(w0, high(_mm256_slli_epi16::<4>(bits)));
                    let w1 = _mm256_or_si256(w1, high(_mm256_slli_epi16::<2>(bits)));
                    let w2 = _mm256_or_si256(w2, high(bits));
                    let w3 = _mm256_or_si256(w3, high(_mm256_srli_epi16::<2>(bits)));
                    for (m, total) in totals.iter_mut().enumerate() {
                        let at = (m * pass.blocks + b) * 2 + part;
                        let x = pass.quants.add(at * 16);
                        let mut sum = _mm256_set1_epi32(*pass.offsets.add(at));
                        sum = dot::<2, V>(sum, [w0, w1], x);
                        sum = dot::<2, V>(sum, [w2, w3], x.add(8));
                        *total = _mm256_add_epi32(*total, _mm256_mullo_epi32(sum, scales));
                    }
                }
                let d = halves(tile.add(row * 2));
                for m in 0..M {
                    let scale = _mm256_set1_ps(*pass.scales.add(m * pass.blocks + b));
                    let scale = _mm256_mul_ps(d, scale);
                    acc[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[m]), scale, acc[m][h]);
                }
            }
        }
        acc
    }
}

/// Floats of `bytes` each; `load` widens 8 of them.
#[inline(always)]
unsafe fn floats<const M: usize, const H: usize>(
    pass: Pass,
    half: usize,
    bytes: usize,
    load: impl Fn(*const u8) -> __m256,
) -> [[__m256; H]; M] {
    // SAFETY: as said at `run`.
    unsafe {
        // Two sums each, or the additions wait for each other.
        let mut acc = [[[_mm256_setzero_ps(); H]; M]; 2];
        for column in 0..pass.columns {
            let acc = &mut acc[column % 2];
            for h in 0..H {
                let at = column * ROWS + (half + h) * 8;
                let weights = load(pass.tiles.add(at * bytes));
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*pass.floats.add(m * pass.columns + column));
                    acc[h] = _mm256_fmadd_ps(weights, x, acc[h]);
                }
            }
        }
        let [mut sums, others] = acc;
        for (sums, others) in sums.iter_mut().zip(others) {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum = _mm256_add_ps(*sum, other);
            }
        }
        sums
    }
}
