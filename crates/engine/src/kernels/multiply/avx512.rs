//! AVX-512 with VNNI: a line of 64 weights meets a broadcast of four
//! activations in one `vpdpbusd`; each lane is one of the tile's 16 rows.

use std::arch::x86_64::*;

use super::raw::{Pass, for_rows};
use crate::kernels::activations::Rows;
use crate::kernels::packed::layout::{Kind, LINE, ROWS, k6, k45, pair};

/// How far ahead weights are fetched, in bytes.
const AHEAD: usize = 8192;

/// 16 outputs of `sums.len()` rows (at most 8), from row `first` on.
///
/// # Safety
/// The processor has AVX-512 F, BW, VL and VNNI, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
pub(super) unsafe fn tile_row(
    kind: Kind,
    tiles: &[u8],
    rows: &Rows<'_>,
    first: usize,
    sums: &mut [[f32; ROWS]],
) {
    let pass = Pass::new(kind, tiles, rows, first, sums.len());
    // SAFETY: the features are the caller's promise; `pass` has been checked.
    unsafe {
        match kind {
            Kind::Q4_0 => for_rows!(q4_0, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::Q8_0 => for_rows!(q8_0, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::Q4K => for_rows!(q4k, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::Q5K => for_rows!(q5k, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::Q6K => for_rows!(q6k, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::F16 => for_rows!(f16, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::BF16 => for_rows!(bf16, pass, sums, [1 2 3 4 5 6 7 8]),
            Kind::F32 => for_rows!(f32, pass, sums, [1 2 3 4 5 6 7 8]),
        }
    }
}

/// A kernel: `M` rows of activations.
macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident<$m:ident>($pass:ident) -> $sums:ident $body:block) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`tile_row`]; `pass` holds `M` rows.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
        unsafe fn $name<const $m: usize>($pass: Pass, out: &mut [[f32; ROWS]]) {
            // SAFETY: every read is of a line, scale or activation inside the
            // tile row and the rows that `Pass::new` has checked; prefetches
            // behind it touch nothing.
            let $sums: [__m512; $m] = unsafe { $body };
            for (out, sums) in out.iter_mut().zip($sums) {
                // SAFETY: 16 floats each.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
            }
        }
    };
}

/// Four activations in every lane.
#[inline(always)]
unsafe fn four(at: *const i8) -> __m512i {
    // SAFETY: the caller's pointer is to four activations.
    unsafe { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
}

/// 64 bytes, aligned.
#[inline(always)]
unsafe fn line(at: *const u8) -> __m512i {
    // SAFETY: the caller's pointer is to a line.
    unsafe { _mm512_load_si512(at.cast()) }
}

/// 16 halves.
#[inline(always)]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's pointer is to 32 bytes.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
}

/// 16 unsigned bytes.
#[inline(always)]
unsafe fn bytes(at: *const u8) -> __m512 {
    // SAFETY: the caller's pointer is to 16 bytes.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast()))) }
}

/// Fetches `bytes` of weights into the second-level cache, `AHEAD` of `at`. One
/// row reads as fast as the memory delivers, and the processor's own prefetching
/// does best; with several the reads come in bursts, and it falls behind.
#[inline(always)]
unsafe fn fetch<const M: usize>(at: *const u8, bytes: usize) {
    if M > 1 {
        for index in 0..bytes.div_ceil(LINE) {
            // SAFETY: a prefetch never faults, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(AHEAD + index * LINE).cast()) };
        }
    }
}

/// Both halves of a line of nibbles.
#[inline(always)]
unsafe fn nibbles(line: __m512i) -> (__m512i, __m512i) {
    // SAFETY: registers only.
    unsafe {
        let mask = _mm512_set1_epi8(15);
        (
            _mm512_and_si512(line, mask),
            _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask),
        )
    }
}

kernel! {
    /// Q4_0: the quants' offset of 8 is taken off by the scaled sums.
    fn q4_0<M>(pass) -> sums {
        let mut acc = [_mm512_setzero_ps(); M];
        for b in 0..pass.blocks {
            let lines = pass.tiles.add(pair::quants(pair::TILE4, pair::BLOCK4, b));
            fetch::<M>(lines, pair::TILE4 / 2);
            let d = halves(pass.tiles.add(pair::scales(pair::TILE4, b)));
            let d8 = _mm512_mul_ps(d, _mm512_set1_ps(8.0));
            let mut dots = [_mm512_setzero_si512(); M];
            for i in 0..4 {
                let (low, high) = nibbles(line(lines.add(i * LINE)));
                for (m, dot) in dots.iter_mut().enumerate() {
                    let x = pass.quants.add((m * pass.blocks + b) * 32 + i * 8);
                    *dot = _mm512_dpbusd_epi32(*dot, low, four(x));
                }
                for (m, dot) in dots.iter_mut().enumerate() {
                    let x = pass.quants.add((m * pass.blocks + b) * 32 + i * 8 + 4);
                    *dot = _mm512_dpbusd_epi32(*dot, high, four(x));
                }
            }
            for m in 0..M {
                let at = m * pass.blocks + b;
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(*pass.scales.add(at)));
                acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[m]), scale, acc[m]);
                acc[m] = _mm512_fnmadd_ps(d8, _mm512_set1_ps(*pass.sums.add(at)), acc[m]);
            }
        }
        acc
    }
}

kernel! {
    /// Q8_0: stored with 128 added, which the offsets take off.
    fn q8_0<M>(pass) -> sums {
        let mut acc = [_mm512_setzero_ps(); M];
        for b in 0..pass.blocks {
            let lines = pass.tiles.add(pair::quants(pair::TILE8, pair::BLOCK8, b));
            fetch::<M>(lines, pair::TILE8 / 2);
            let d = halves(pass.tiles.add(pair::scales(pair::TILE8, b)));
            let mut dots = [_mm512_setzero_si512(); M];
            for (m, dot) in dots.iter_mut().enumerate() {
                let at = (m * pass.blocks + b) * 2;
                *dot = _mm512_set1_epi32(4 * (*pass.offsets.add(at) + *pass.offsets.add(at + 1)));
            }
            for i in 0..8 {
                let weights = line(lines.add(i * LINE));
                for (m, dot) in dots.iter_mut().enumerate() {
                    let x = pass.quants.add((m * pass.blocks + b) * 32 + i * 4);
                    *dot = _mm512_dpbusd_epi32(*dot, weights, four(x));
                }
            }
            for m in 0..M {
                let scale = _mm512_set1_ps(*pass.scales.add(m * pass.blocks + b));
                let scale = _mm512_mul_ps(d, scale);
                acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[m]), scale, acc[m]);
            }
        }
        acc
    }
}

kernel! {
    /// Q4_K
    fn q4k<M>(pass) -> sums {
        k45_sums::<M, false>(pass)
    }
}

kernel! {
    /// Q5_K
    fn q5k<M>(pass) -> sums {
        k45_sums::<M, true>(pass)
    }
}

/// Q4_K and, with `HIGH` bits, Q5_K.
///
/// # Safety
/// As the kernels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn k45_sums<const M: usize, const HIGH: bool>(pass: Pass) -> [__m512; M] {
    let size = if HIGH { k45::TILE5 } else { k45::TILE4 };
    let mut acc = [_mm512_setzero_ps(); M];
    // SAFETY: as in the kernels.
    unsafe {
        let bit = _mm512_set1_epi8(16);
        for t in 0..pass.blocks / 8 {
            let tile = pass.tiles.add(t * size);
            let d = halves(tile);
            let min = halves(tile.add(k45::MIN));
            for sub in 0..8 {
                fetch::<M>(tile.add(sub * size / 8), size / 8);
                let scales = _mm512_mul_ps(d, bytes(tile.add(k45::SCALES + sub * ROWS)));
                let minima = _mm512_mul_ps(min, bytes(tile.add(k45::MINIMA + sub * ROWS)));
                let mut weights = [_mm512_setzero_si512(); 8];
                let lines = tile.add(k45::LINES + sub * if HIGH { k45::SUB5 } else { k45::SUB4 });
                for i in 0..4 {
                    (weights[i * 2], weights[i * 2 + 1]) = nibbles(line(lines.add(i * LINE)));
                }
                if HIGH {
                    let h = line(lines.add(k45::HIGH));
                    let bits = [
                        _mm512_slli_epi16::<4>(h),
                        _mm512_slli_epi16::<3>(h),
                        _mm512_slli_epi16::<2>(h),
                        _mm512_slli_epi16::<1>(h),
                        h,
                        _mm512_srli_epi16::<1>(h),
                        _mm512_srli_epi16::<2>(h),
                        _mm512_srli_epi16::<3>(h),
                    ];
                    for (weights, bits) in weights.iter_mut().zip(bits) {
                        *weights = _mm512_or_si512(*weights, _mm512_and_si512(bits, bit));
                    }
                }
                let b = t * 8 + sub;
                let mut dots = [_mm512_setzero_si512(); M];
                for (i, weights) in weights.into_iter().enumerate() {
                    for (m, dot) in dots.iter_mut().enumerate() {
                        let x = pass.quants.add((m * pass.blocks + b) * 32 + i * 4);
                        *dot = _mm512_dpbusd_epi32(*dot, weights, four(x));
                    }
                }
                for m in 0..M {
                    let at = m * pass.blocks + b;
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(*pass.scales.add(at)));
                    acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[m]), scale, acc[m]);
                    acc[m] = _mm512_fnmadd_ps(minima, _mm512_set1_ps(*pass.sums.add(at)), acc[m]);
                }
            }
        }
    }
    acc
}

kernel! {
    /// Q6_K: stored with 32 added, which the offsets take off. The two halves
    /// of a block of 32 are scaled as integers, so that they share a
    /// conversion.
    fn q6k<M>(pass) -> sums {
        let mut acc = [_mm512_setzero_ps(); M];
        let two = _mm512_set1_epi8(0x30);
        for t in 0..pass.blocks / 8 {
            let tile = pass.tiles.add(t * k6::TILE);
            let d = halves(tile);
            for sub in 0..8 {
                fetch::<M>(tile.add(sub * k6::TILE / 8), k6::TILE / 8);
                let b = t * 8 + sub;
                let mut totals = [_mm512_setzero_si512(); M];
                for half in sub * 2..sub * 2 + 2 {
                    let scales = _mm_loadu_si128(tile.add(k6::SCALES + half * ROWS).cast());
                    let scales = _mm512_cvtepi8_epi32(scales);
                    let lines = tile.add(k6::LINES + half * k6::HALF);
                    let h = line(lines.add(k6::HIGH));
                    let (a, b0) = nibbles(line(lines));
                    let (c, d0) = nibbles(line(lines.add(LINE)));
                    let weights = [
                        _mm512_or_si512(a, _mm512_and_si512(_mm512_slli_epi16::<4>(h), two)),
                        _mm512_or_si512(b0, _mm512_and_si512(_mm512_slli_epi16::<2>(h), two)),
                        _mm512_or_si512(c, _mm512_and_si512(h, two)),
                        _mm512_or_si512(d0, _mm512_and_si512(_mm512_srli_epi16::<2>(h), two)),
                    ];
                    let mut dots = [_mm512_setzero_si512(); M];
                    for (m, dot) in dots.iter_mut().enumerate() {
                        let at = m * 2 * pass.blocks + t * 16 + half;
                        *dot = _mm512_set1_epi32(*pass.offsets.add(at));
                    }
                    for (i, weights) in weights.into_iter().enumerate() {
                        for (m, dot) in dots.iter_mut().enumerate() {
                            let x = (m * pass.blocks + b) * 32 + half % 2 * 16 + i * 4;
                            *dot = _mm512_dpbusd_epi32(*dot, weights, four(pass.quants.add(x)));
                        }
                    }
                    for (total, dot) in totals.iter_mut().zip(dots) {
                        *total = _mm512_add_epi32(*total, _mm512_mullo_epi32(dot, scales));
                    }
                }
                for m in 0..M {
                    let scale = _mm512_set1_ps(*pass.scales.add(m * pass.blocks + b));
                    let scale = _mm512_mul_ps(d, scale);
                    acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[m]), scale, acc[m]);
                }
            }
        }
        acc
    }
}

/// A kernel of floats: `$load` reads column c of the tile row.
macro_rules! float_kernel {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $load:expr) => {
        kernel! {
            $(#[$doc])*
            fn $name<M>(pass) -> sums {
                // Two sums each, or the additions wait for each other.
                let mut acc = [[_mm512_setzero_ps(); 2]; M];
                let column = |c: usize| pass.tiles.add(c * $bytes);
                let load = $load;
                let mut c = 0;
                while c + 2 <= pass.columns {
                    fetch::<M>(column(c), 2 * $bytes);
                    for i in 0..2 {
                        let weights = load(column(c + i));
                        for (m, acc) in acc.iter_mut().enumerate() {
                            let x = _mm512_set1_ps(*pass.floats.add(m * pass.columns + c + i));
                            acc[i] = _mm512_fmadd_ps(weights, x, acc[i]);
                        }
                    }
                    c += 2;
                }
                if c < pass.columns {
                    let weights = load(column(c));
                    for (m, acc) in acc.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*pass.floats.add(m * pass.columns + c));
                        acc[0] = _mm512_fmadd_ps(weights, x, acc[0]);
                    }
                }
                acc.map(|[a, b]| _mm512_add_ps(a, b))
            }
        }
    };
}

float_kernel! {
    /// Halves, widened as they are read.
    f16, 32, |at: *const u8| halves(at)
}
float_kernel! {
    /// bf16, widened by a shift.
    bf16, 32, |at: *const u8| {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
}
float_kernel! {
    /// Floats.
    f32, 64, |at: *const u8| _mm512_loadu_ps(at.cast())
}
