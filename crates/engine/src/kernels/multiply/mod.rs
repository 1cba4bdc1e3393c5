//! Weights times activations.
//!
//! A kernel makes 16 outputs (a tile row of weights) for a few rows of
//! activations. What is read again lies in the first cache: a tile row's weights
//! or a few rows' activations.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod raw;
mod scalar;

use super::activations::Rows;
use super::disjoint::Disjoint;
use super::elementwise::{gelu_tanh, silu};
use super::packed::layout::ROWS;
use super::{Activations, Isa, Packed, Team};

/// The most rows of activations that a kernel takes at once.
const PASS: usize = 8;

/// Bytes of quantised activations that stay cached while tile rows pass by.
const CACHED: usize = 64 << 10;

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
    Plan::new(team, isa, &rows, tiles).share(team, &|tile, first, count| {
        let mut tile = tile;
        for target in &targets {
            let own = target.weights.tile_rows();
            if tile >= own {
                tile -= own;
                continue;
            }
            fetch(target, tile, first, count);
            let mut sums: Sums = [[0.0; ROWS]; PASS];
            kernel(isa, target.weights, tile, &rows, first, &mut sums[..count]);
            // SAFETY: these rows of this tile row belong to this call.
            unsafe { store(target, tile, first, &sums[..count], add) };
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
    let plan = Plan::new(team, isa, &rows, gate.tile_rows());
    plan.share(team, &|tile, first, count| {
        fetch(&target, tile, first, count);
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
        // SAFETY: these rows of this tile row belong to this call.
        unsafe { store(&target, tile, first, &gates[..count], false) };
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

/// How the rows of activations are divided. A kernel takes a pass of rows; the
/// passes whose activations stay in the cache together are a block. Pieces of
/// work go through all tile rows for one block, then for the next.
#[derive(Clone, Copy)]
struct Plan {
    rows: usize,
    pass: usize,
    block: usize,
    tiles: usize,
    chunk: usize,
}

impl Plan {
    fn new(team: &Team, isa: Isa, rows: &Rows<'_>, tiles: usize) -> Self {
        let most = match isa {
            Isa::Avx2 | Isa::Avx2Vnni => 4,
            Isa::Avx512 | Isa::Neon | Isa::Scalar => PASS,
        };
        // Passes of about one size.
        let passes = rows.count.div_ceil(most).max(1);
        let pass = rows.count.div_ceil(passes).max(1);
        let block = (CACHED / rows.columns.max(1) / pass).max(1) * pass;
        let pieces = tiles * rows.count.div_ceil(block);
        let each = (ROWS * rows.columns * block.min(rows.count)).max(1);
        Self {
            rows: rows.count,
            pass,
            block,
            tiles,
            chunk: (PIECE / each).clamp(1, (pieces / (team.threads() * 4)).max(1)),
        }
    }

    /// Calls `run(tile, first row, rows)` for each pass of each tile row.
    fn share(&self, team: &Team, run: &(dyn Fn(usize, usize, usize) + Sync)) {
        let pieces = self.tiles * self.rows.div_ceil(self.block);
        team.share(pieces, self.chunk, &|piece| {
            let mut first = piece / self.tiles * self.block;
            let end = (first + self.block).min(self.rows);
            while first < end {
                let count = self.pass.min(end - first);
                run(piece % self.tiles, first, count);
                first += count;
            }
        });
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
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::tile_row(kind, tiles, rows, first, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2Vnni => unsafe { avx2::tile_row_vnni(kind, tiles, rows, first, sums) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: `isa` is usable on this processor.
        Isa::Neon => unsafe { neon::tile_row(kind, tiles, rows, first, sums) },
        _ => scalar::tile_row(kind, tiles, rows, first, sums),
    }
}

/// Fetches the lines that [`store`] is going to write. They lie far apart, so
/// that the processor does not foresee them, and a row of misses at the end of
/// each pass holds up the next.
#[inline]
fn fetch(target: &Target<'_>, tile: usize, first: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for row in first..first + count {
        let at = target.out.at(row * target.weights.rows() + tile * ROWS);
        // SAFETY: a prefetch never faults, wherever it points.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (target, tile, first, count);
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
