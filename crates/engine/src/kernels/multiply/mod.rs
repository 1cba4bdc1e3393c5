//! Weights times activations.
//!
//! A piece of work is one tile row: 16 outputs, for all rows of activations, a
//! few at a time. Its weights are read from memory once and then from the
//! cache.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod raw;
mod scalar;

use super::activations::Rows;
use super::disjoint::Disjoint;
use super::elementwise::{gelu_tanh, silu};
use super::packed::layout::ROWS;
use super::{Activations, Isa, Packed, Team};

/// The most rows of activations that a kernel takes at once.
const PASS: usize = 10;

/// What a kernel returns: 16 outputs for each row of its pass.
type Sums = [[f32; ROWS]; PASS];

/// About how many multiplications make a piece of work worth fetching.
const PIECE: usize = 1 << 20;

/// The gate's nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x * sigmoid(x)
    Silu,
    /// gelu, tanh form
    GeluTanh,
}

/// One matrix and where its products go.
struct Target<'a> {
    weights: &'a Packed,
    out: Disjoint<'a, f32>,
}

/// `out = acts * weights^T` for each matrix: rows x `weights.rows()`, row-major.
/// With `add`, adds to what is there: the residual. Several matrices share one
/// pass over the threads.
///
/// # Panics
/// When a matrix has other columns than the activations, an `out` is not as
/// long as its product, or the activations of a float matrix kept no floats.
pub(crate) fn multiply(
    team: &Team,
    isa: Isa,
    outs: &mut [(&Packed, &mut [f32])],
    acts: &Activations,
    add: bool,
) {
    let isa = isa.usable();
    let rows = acts.view();
    let targets: Vec<Target<'_>> = outs
        .iter_mut()
        .map(|(weights, out)| {
            check(weights, &rows, out);
            Target {
                weights,
                out: Disjoint::new(out),
            }
        })
        .collect();
    let tiles = targets.iter().map(|t| t.weights.tile_rows()).sum();
    let chunk = chunk(team, tiles, &rows);
    team.share(tiles, chunk, &|tile| {
        let mut tile = tile;
        for target in &targets {
            let own = target.weights.tile_rows();
            if tile >= own {
                tile -= own;
                continue;
            }
            passes(isa, rows.count, |first, count| {
                let mut sums: Sums = [[0.0; ROWS]; PASS];
                kernel(isa, target.weights, tile, &rows, first, &mut sums[..count]);
                // SAFETY: this tile row's outputs belong to this piece of work.
                unsafe { store(target, tile, first, &sums[..count], add) };
            });
            return;
        }
    });
}

/// `out = activation(acts * gate^T) * (acts * up^T)`, rows x `gate.rows()`.
///
/// # Panics
/// As [`multiply`], or when the matrices differ in shape.
pub(crate) fn gate_up(
    team: &Team,
    isa: Isa,
    gate: &Packed,
    up: &Packed,
    acts: &Activations,
    activation: Activation,
    out: &mut [f32],
) {
    let isa = isa.usable();
    let rows = acts.view();
    assert_eq!(gate.rows(), up.rows(), "outputs of gate and up");
    check(gate, &rows, out);
    check(up, &rows, out);
    let target = Target {
        weights: gate,
        out: Disjoint::new(out),
    };
    let tiles = gate.tile_rows();
    team.share(tiles, chunk(team, tiles * 2, &rows).div_ceil(2), &|tile| {
        passes(isa, rows.count, |first, count| {
            let mut gates: Sums = [[0.0; ROWS]; PASS];
            let mut ups: Sums = [[0.0; ROWS]; PASS];
            kernel(isa, gate, tile, &rows, first, &mut gates[..count]);
            kernel(isa, up, tile, &rows, first, &mut ups[..count]);
            isa.compiled(
                #[inline(always)]
                || {
                    for (gate, up) in gates[..count].iter_mut().zip(&ups) {
                        match activation {
                            Activation::Silu => {
                                for (g, u) in gate.iter_mut().zip(up) {
                                    *g = silu(*g) * u;
                                }
                            }
                            Activation::GeluTanh => {
                                for (g, u) in gate.iter_mut().zip(up) {
                                    *g = gelu_tanh(*g) * u;
                                }
                            }
                        }
                    }
                },
            );
            // SAFETY: this tile row's outputs belong to this piece of work.
            unsafe { store(&target, tile, first, &gates[..count], false) };
        });
    });
}

fn check(weights: &Packed, rows: &Rows<'_>, out: &[f32]) {
    assert_eq!(
        weights.columns(),
        rows.columns,
        "columns of weights and activations"
    );
    assert_eq!(
        out.len(),
        rows.count * weights.rows(),
        "length of the product"
    );
    assert!(
        !weights.is_float() || rows.floats.len() == rows.count * rows.columns,
        "activations for a float matrix must keep their floats"
    );
}

/// How many tile rows a thread takes at a time: enough to be worth it, few
/// enough that all threads end together.
fn chunk(team: &Team, tiles: usize, rows: &Rows<'_>) -> usize {
    let each = (ROWS * rows.columns * rows.count).max(1);
    (PIECE / each).clamp(1, (tiles / (team.threads() * 4)).max(1))
}

/// Calls `run(first, count)` for `rows` rows in passes of about equal size.
#[inline]
fn passes(isa: Isa, rows: usize, mut run: impl FnMut(usize, usize)) {
    let most = match isa {
        Isa::Avx512 => PASS,
        Isa::Avx2 => 4,
        Isa::Neon => 8,
        Isa::Scalar => PASS,
    };
    let count = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
    let mut first = 0;
    while first < rows {
        let count = count.min(rows - first);
        run(first, count);
        first += count;
    }
}

/// 16 outputs of `sums.len()` rows, from row `first` on. `isa` is usable.
#[inline]
fn kernel(
    isa: Isa,
    weights: &Packed,
    tile: usize,
    rows: &Rows<'_>,
    first: usize,
    sums: &mut [[f32; ROWS]],
) {
    let (kind, tiles) = (weights.kind(), weights.tile_row(tile));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `isa` is usable on this processor.
        Isa::Avx512 => unsafe { avx512::tile_row(kind, tiles, rows, first, sums) },
        _ => scalar::tile_row(kind, tiles, rows, first, sums),
    }
}

/// Writes or adds the sums of one tile row.
///
/// # Safety
/// No other thread may hold these outputs.
#[inline]
unsafe fn store(target: &Target<'_>, tile: usize, first: usize, sums: &[[f32; ROWS]], add: bool) {
    let width = target.weights.rows();
    let start = tile * ROWS;
    let valid = ROWS.min(width - start);
    for (index, sums) in sums.iter().enumerate() {
        let at = (first + index) * width + start;
        // SAFETY: the caller's promise.
        let out = unsafe { target.out.part(at..at + valid) };
        if add {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out += sum;
            }
        } else {
            out.copy_from_slice(&sums[..valid]);
        }
    }
}
