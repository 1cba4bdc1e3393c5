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
        // Column by column, as floats: sums of 16 products of 8 bits each are
        // whole numbers that an `f32` holds exactly, and plain float loops are
        // what every compiler vectorises.
        let mut columns = [[0f32; ROWS]; 32];
        for (group, line) in block.quants.as_chunks::<LINE>().0.iter().enumerate() {
            for column in 0..4 {
                for row in 0..ROWS {
                    columns[group * 4 + column][row] = f32::from(line[row * 4 + column]);
                }
            }
        }
        for (index, sums) in sums.iter_mut().enumerate() {
            let at = (first + index) * rows.blocks + b;
            let (halves, _) = rows.quants[at * 32..][..32].as_chunks::<16>();
            let mut products = [0f32; ROWS];
            for (half, quants) in halves.iter().enumerate() {
                let mut dots = [0f32; ROWS];
                for (weights, x) in columns[half * 16..].iter().zip(quants) {
                    let x = f32::from(*x);
                    for row in 0..ROWS {
                        dots[row] += weights[row] * x;
                    }
                }
                for row in 0..ROWS {
                    products[row] += block.scales[half][row] * dots[row];
                }
            }
            let (scale, scaled_sum) = (rows.scales[at], rows.sums[at]);
            for row in 0..ROWS {
                sums[row] += scale * products[row] - block.minima[row] * scaled_sum;
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
    let size = if kind == Kind::F32 { 64 } else { 32 };
    for (column, tile) in tiles.chunks_exact(size).take(rows.columns).enumerate() {
        let weights: [f32; ROWS] = std::array::from_fn(|row| float(kind, tile, 0, row));
        for (index, sums) in sums.iter_mut().enumerate() {
            let x = rows.floats[(first + index) * rows.columns + column];
            for (sum, weight) in sums.iter_mut().zip(&weights) {
                *sum += x * weight;
            }
        }
    }
}
