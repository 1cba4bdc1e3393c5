//! Tiles read element by element: the definition that the kernels speed up.

use super::layout::{Kind, LINE, ROWS, k6, k45, pair};
use crate::kernels::float16::{from_bf16, from_f16};

/// 32 columns of 16 rows. A weight is `scale * quant - minimum`.
pub(crate) struct Block32 {
    /// In the order of lines: four columns of each row, then the next four.
    pub(crate) quants: [i8; 32 * ROWS],
    /// Per half of 16 columns, per row.
    pub(crate) scales: [[f32; ROWS]; 2],
    /// Per row; zero for types without.
    pub(crate) minima: [f32; ROWS],
}

/// The lines with the low and the high bits of column group `group` (of 8) in
/// the 32 columns number `b` of a tile row; one line twice for types without
/// high bits.
#[inline(always)]
fn lines(kind: Kind, tiles: &[u8], b: usize, group: usize) -> (&[u8], &[u8]) {
    let (tile, sub) = (b / 8, b % 8);
    let at = |start: usize| &tiles[start..start + LINE];
    match kind {
        Kind::Q4_0 => {
            let start = pair::quants(pair::TILE4, pair::BLOCK4, b) + group / 2 * LINE;
            (at(start), at(start))
        }
        Kind::Q4K => {
            let start = tile * k45::TILE4 + k45::LINES + sub * k45::SUB4 + group / 2 * LINE;
            (at(start), at(start))
        }
        Kind::Q5K => {
            let start = tile * k45::TILE5 + k45::LINES + sub * k45::SUB5;
            (at(start + group / 2 * LINE), at(start + k45::HIGH))
        }
        Kind::Q6K => {
            let start = tile * k6::TILE + k6::LINES + (sub * 2 + group / 4) * k6::HALF;
            (at(start + group % 4 / 2 * LINE), at(start + k6::HIGH))
        }
        _ => {
            let start = pair::quants(pair::TILE8, pair::BLOCK8, b) + group * LINE;
            (at(start), at(start))
        }
    }
}

/// The quant in a byte of the low line and one of the high line.
#[inline(always)]
fn quant(kind: Kind, low: u8, high: u8, group: usize) -> i8 {
    let nibble = ((low >> (group % 2 * 4)) & 15).cast_signed();
    match kind {
        Kind::Q4_0 => nibble - 8,
        Kind::Q4K => nibble,
        Kind::Q5K => nibble | (((high >> group) & 1) << 4).cast_signed(),
        Kind::Q6K => (nibble | (((high >> (group % 4 * 2)) & 3) << 4).cast_signed()) - 32,
        _ => (low ^ 0x80).cast_signed(),
    }
}

#[inline(always)]
fn half_at(tiles: &[u8], start: usize, row: usize) -> f32 {
    from_f16(u16::from_le_bytes([
        tiles[start + row * 2],
        tiles[start + row * 2 + 1],
    ]))
}

/// (scales of both halves, minimum) of `row` in the 32 columns number `b`.
#[inline(always)]
fn scale(kind: Kind, tiles: &[u8], b: usize, row: usize) -> ([f32; 2], f32) {
    let (tile, sub) = (b / 8, b % 8);
    match kind {
        Kind::Q4_0 => {
            let d = half_at(tiles, pair::scales(pair::TILE4, b), row);
            ([d, d], 0.0)
        }
        Kind::Q8_0 => {
            let d = half_at(tiles, pair::scales(pair::TILE8, b), row);
            ([d, d], 0.0)
        }
        Kind::Q4K | Kind::Q5K => {
            let size = if kind == Kind::Q4K {
                k45::TILE4
            } else {
                k45::TILE5
            };
            let tile = &tiles[tile * size..];
            let d = half_at(tile, 0, row) * f32::from(tile[k45::SCALES + sub * ROWS + row]);
            let minimum =
                half_at(tile, k45::MIN, row) * f32::from(tile[k45::MINIMA + sub * ROWS + row]);
            ([d, d], minimum)
        }
        Kind::Q6K => {
            let tile = &tiles[tile * k6::TILE..];
            let d = half_at(tile, 0, row);
            let scale =
                |half: usize| f32::from(tile[k6::SCALES + (sub * 2 + half) * ROWS + row] as i8);
            ([d * scale(0), d * scale(1)], 0.0)
        }
        Kind::F16 | Kind::BF16 | Kind::F32 => ([0.0; 2], 0.0),
    }
}

/// Reads the 32 columns number `b` of a tile row of integers.
pub(crate) fn block32(kind: Kind, tiles: &[u8], b: usize) -> Block32 {
    // One copy of the loops per type, so that each is vectorised.
    match kind {
        Kind::Q4_0 => read(Kind::Q4_0, tiles, b),
        Kind::Q8_0 => read(Kind::Q8_0, tiles, b),
        Kind::Q4K => read(Kind::Q4K, tiles, b),
        Kind::Q5K => read(Kind::Q5K, tiles, b),
        _ => read(Kind::Q6K, tiles, b),
    }
}

#[inline(always)]
fn read(kind: Kind, tiles: &[u8], b: usize) -> Block32 {
    let mut out = Block32 {
        quants: [0; 32 * ROWS],
        scales: [[0.0; ROWS]; 2],
        minima: [0.0; ROWS],
    };
    for (group, quants) in out.quants.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
        let (low, high) = lines(kind, tiles, b, group);
        for (q, (low, high)) in quants.iter_mut().zip(low.iter().zip(high)) {
            *q = quant(kind, *low, *high, group);
        }
    }
    for row in 0..ROWS {
        let ([first, second], minimum) = scale(kind, tiles, b, row);
        out.scales[0][row] = first;
        out.scales[1][row] = second;
        out.minima[row] = minimum;
    }
    out
}

/// One row's weights of the 32 columns number `b`.
pub(super) fn row32(kind: Kind, tiles: &[u8], b: usize, row: usize, out: &mut [f32]) {
    let (scales, minimum) = scale(kind, tiles, b, row);
    for (group, out) in out.chunks_exact_mut(4).enumerate() {
        let scale = scales[group / 4];
        let (low, high) = lines(kind, tiles, b, group);
        for (column, out) in out.iter_mut().enumerate() {
            let at = row * 4 + column;
            *out = scale * f32::from(quant(kind, low[at], high[at], group)) - minimum;
        }
    }
}

/// The weight of one row and column of a tile row of floats.
#[inline(always)]
pub(crate) fn float(kind: Kind, tiles: &[u8], column: usize, row: usize) -> f32 {
    let at = column * ROWS + row;
    match kind {
        Kind::F16 => half_at(tiles, 0, at),
        Kind::BF16 => from_bf16(u16::from_le_bytes([tiles[at * 2], tiles[at * 2 + 1]])),
        _ => f32::from_le_bytes([
            tiles[at * 4],
            tiles[at * 4 + 1],
            tiles[at * 4 + 2],
            tiles[at * 4 + 3],
        ]),
    }
}
