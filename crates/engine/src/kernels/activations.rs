//! Rows of activations, quantised for the integer kernels.

use super::disjoint::Disjoint;
use super::elementwise::norm_factor;
use super::{Isa, Team};

/// Columns that share a scale.
const BLOCK: usize = 32;

/// Up to `max_rows` rows: per 32 columns an `f32` scale and signed bytes within
/// ±127, so that `x ≈ scale * quant`. Allocated once and refilled.
pub(crate) struct Activations {
    max_rows: usize,
    max_columns: usize,
    rows: usize,
    columns: usize,
    /// rows x columns rounded up to 32; the padding is zero.
    quants: Vec<i8>,
    /// rows x blocks.
    scales: Vec<f32>,
    /// rows x blocks: scale times the sum of the quants.
    sums: Vec<f32>,
    /// rows x 2 blocks: -32 times the sum of 16 quants, what a quant stored
    /// with 32 added is too much.
    offsets: Vec<i32>,
    /// rows x columns, if kept.
    floats: Option<Vec<f32>>,
}

/// What the kernels read: `rows` rows of `blocks` blocks.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) count: usize,
    pub(super) columns: usize,
    pub(super) blocks: usize,
    pub(super) quants: &'a [i8],
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [f32],
    pub(super) offsets: &'a [i32],
    /// Empty unless kept.
    pub(super) floats: &'a [f32],
}

impl Activations {
    /// Room for `max_rows` rows of `max_columns`. `floats` keeps the numbers
    /// themselves too: needed where one of the weights is of a float type.
    pub(crate) fn new(max_rows: usize, max_columns: usize, floats: bool) -> Self {
        let blocks = max_rows * max_columns.div_ceil(BLOCK);
        Self {
            max_rows,
            max_columns,
            rows: 0,
            columns: 0,
            quants: vec![0; blocks * BLOCK],
            scales: vec![0.0; blocks],
            sums: vec![0.0; blocks],
            offsets: vec![0; blocks * 2],
            floats: floats.then(|| vec![0.0; max_rows * max_columns]),
        }
    }

    /// Fills it with `x`, `rows` x `columns`, row-major.
    ///
    /// # Panics
    /// When there is no room for so many, or `x` has another length.
    pub(crate) fn quantise(
        &mut self,
        team: &Team,
        isa: Isa,
        x: &[f32],
        rows: usize,
        columns: usize,
    ) {
        self.fill(team, isa, x, rows, columns, None);
    }

    /// As [`Self::quantise`], of the RMS norm of each row of `x`: one pass less
    /// than norm and quantise. The columns are those of `weight`.
    ///
    /// # Panics
    /// As [`Self::quantise`].
    pub(crate) fn norm_quantise(
        &mut self,
        team: &Team,
        isa: Isa,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        rows: usize,
    ) {
        self.fill(team, isa, x, rows, weight.len(), Some((weight, eps)));
    }

    fn fill(
        &mut self,
        team: &Team,
        isa: Isa,
        x: &[f32],
        rows: usize,
        columns: usize,
        norm: Option<(&[f32], f32)>,
    ) {
        assert!(rows <= self.max_rows && columns <= self.max_columns && columns > 0);
        assert_eq!(x.len(), rows * columns, "rows x columns numbers");
        self.rows = rows;
        self.columns = columns;
        let blocks = columns.div_ceil(BLOCK);
        let quants = Disjoint::new(&mut self.quants);
        let scales = Disjoint::new(&mut self.scales);
        let sums = Disjoint::new(&mut self.sums);
        let offsets = Disjoint::new(&mut self.offsets);
        let floats = self.floats.as_deref_mut().map(Disjoint::new);
        // A row of a few thousand numbers takes about a microsecond.
        team.share(rows, 4, &|row| {
            let x = &x[row * columns..][..columns];
            let of = |width: usize| row * width..(row + 1) * width;
            // SAFETY: each row is one item, taken by one thread.
            let (mut out, floats) = unsafe {
                (
                    QuantisedRow {
                        quants: quants.part(of(blocks * BLOCK)),
                        scales: scales.part(of(blocks)),
                        sums: sums.part(of(blocks)),
                        offsets: offsets.part(of(blocks * 2)),
                    },
                    floats.as_ref().map(|floats| floats.part(of(columns))),
                )
            };
            isa.compiled(
                #[inline(always)]
                || out.fill(x, norm, floats),
            );
        });
    }

    #[inline]
    pub(super) fn view(&self) -> Rows<'_> {
        let blocks = self.columns.div_ceil(BLOCK);
        let all = self.rows * blocks;
        Rows {
            count: self.rows,
            columns: self.columns,
            blocks,
            quants: &self.quants[..all * BLOCK],
            scales: &self.scales[..all],
            sums: &self.sums[..all],
            offsets: &self.offsets[..all * 2],
            floats: self
                .floats
                .as_deref()
                .map_or(&[], |floats| &floats[..self.rows * self.columns]),
        }
    }
}

struct QuantisedRow<'a> {
    quants: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    offsets: &'a mut [i32],
}

impl QuantisedRow<'_> {
    #[inline(always)]
    fn fill(&mut self, x: &[f32], norm: Option<(&[f32], f32)>, mut floats: Option<&mut [f32]>) {
        let factor = norm.map_or(1.0, |(_, eps)| norm_factor(x, eps));
        for b in 0..self.scales.len() {
            let start = b * BLOCK;
            let end = (start + BLOCK).min(x.len());
            let mut block = [0f32; BLOCK];
            block[..end - start].copy_from_slice(&x[start..end]);
            if let Some((weight, _)) = norm {
                for (x, w) in block.iter_mut().zip(&weight[start..end]) {
                    *x *= factor * w;
                }
            }
            if let Some(floats) = &mut floats {
                floats[start..end].copy_from_slice(&block[..end - start]);
            }
            self.block(b, &block);
        }
    }

    #[inline(always)]
    fn block(&mut self, b: usize, x: &[f32; BLOCK]) {
        // As whole numbers the sizes are in the same order, with what is not
        // finite above all others, so that it is not lost.
        let size = |x: f32| x.abs().to_bits();
        let mut lanes = [0u32; 16];
        for lane in 0..16 {
            lanes[lane] = size(x[lane]).max(size(x[lane + 16]));
        }
        let mut width = 16;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] = lanes[lane].max(lanes[lane + width]);
            }
        }
        let largest = f32::from_bits(lanes[0]);
        // Numbers so small that 127 / x is infinite are nothing.
        let inverse = if largest > 1e-35 {
            127.0 / largest
        } else {
            0.0
        };
        // Not a number where `x` has one that is none: damage shows in the end.
        let scale = if largest <= 1e-35 {
            0.0
        } else {
            largest / 127.0
        };
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let mut quants = [0i32; BLOCK];
        for (q, x) in quants.iter_mut().zip(x) {
            // The low byte is the whole of it, unless `x` is no number.
            *q = i32::from((x * inverse + ROUND).to_bits() as i8);
        }
        let out = &mut self.quants[b * BLOCK..][..BLOCK];
        for (out, q) in out.iter_mut().zip(&quants) {
            *out = *q as i8;
        }
        let first: i32 = quants[..16].iter().sum();
        let second: i32 = quants[16..].iter().sum();
        self.scales[b] = scale;
        self.sums[b] = scale * (first + second) as f32;
        self.offsets[b * 2] = -32 * first;
        self.offsets[b * 2 + 1] = -32 * second;
    }
}
