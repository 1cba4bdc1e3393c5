//! The portable kernel.

use crate::kernels::activations::Rows;
use crate::kernels::packed::layout::{Kind, LINE, ROWS};
use crate::kernels::packed::unpack::{block32, float};

/// 16 outputs of `sums.len()` rows, from row `first` on.
pub(super) fn tile_row(
    kind: Kind,
    tiles: &[u8],
    rows: &Rows<'_>,
    first: usize,
    sums: &mut [[f32; ROWS]],
) {
    if kind.is_float() {
        return floats(kind, tiles, rows, first, sums);
    }
    for b in 0..rows.blocks {
        let block = block32(kind, tiles, b);
        let (lines, _) = block.quants.as_chunks::<LINE>();
        for (index, sums) in sums.iter_mut().enumerate() {
            let at = (first + index) * rows.blocks + b;
            let (quads, _) = rows.quants[at * 32..][..32].as_chunks::<4>();
            let mut halves = [[0i32; ROWS]; 2];
            for (group, (line, quad)) in lines.iter().zip(quads).enumerate() {
                let half = &mut halves[group / 4];
                for row in 0..ROWS {
                    let mut sum = 0i32;
                    for column in 0..4 {
                        sum += i32::from(line[row * 4 + column]) * i32::from(quad[column]);
                    }
                    half[row] += sum;
                }
            }
            let (scale, scaled_sum) = (rows.scales[at], rows.sums[at]);
            for row in 0..ROWS {
                let product = block.scales[0][row] * halves[0][row] as f32
                    + block.scales[1][row] * halves[1][row] as f32;
                sums[row] += scale * product - block.minima[row] * scaled_sum;
            }
        }
    }
}

fn floats(kind: Kind, tiles: &[u8], rows: &Rows<'_>, first: usize, sums: &mut [[f32; ROWS]]) {
    match kind {
        Kind::F16 => float_loop(Kind::F16, tiles, rows, first, sums),
        Kind::BF16 => float_loop(Kind::BF16, tiles, rows, first, sums),
        _ => float_loop(Kind::F32, tiles, rows, first, sums),
    }
}

#[inline(always)]
fn float_loop(kind: Kind, tiles: &[u8], rows: &Rows<'_>, first: usize, sums: &mut [[f32; ROWS]]) {
    for column in 0..rows.columns {
        let weights: [f32; ROWS] = std::array::from_fn(|row| float(kind, tiles, column, row));
        for (index, sums) in sums.iter_mut().enumerate() {
            let x = rows.floats[(first + index) * rows.columns + column];
            for (sum, weight) in sums.iter_mut().zip(&weights) {
                *sum += x * weight;
            }
        }
    }
}
