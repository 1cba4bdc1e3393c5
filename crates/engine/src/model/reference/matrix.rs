//! Matrices that the inference library multiplies with.

use std::borrow::Cow;

use candle_core::CpuStorage;
use candle_core::quantized::QuantizedType;
use candle_core::utils::barrier_pool;
use rayon::prelude::*;

use crate::gguf::{LoadError, TensorType};
use crate::model::loader::{Make, Tensor, with_aligned};

/// A quantised matrix of `rows x columns`, applied to row vectors.
///
/// It keeps the file's blocks as they are. Activations are quantised to the
/// blocks' partner type for each product, as llama.cpp does; the library's
/// repacked kernels are not used, because they would hold every weight twice.
///
/// Its rows lie in slabs that are computed in parallel on rayon's pool. The
/// library's own pool waits in a spin loop without end, which on a busy device
/// burns the core that the worker needs; with `CANDLE_NUM_THREADS=1` in the
/// environment it has no workers, and computes on the thread that calls.
pub(in crate::model) struct Matrix {
    slabs: Vec<Box<dyn QuantizedType>>,
    /// Rows of every slab but the last, which may have fewer.
    slab_rows: usize,
    rows: usize,
    columns: usize,
}

/// Makes [`Matrix`] values.
pub(in crate::model) struct Slabs;

/// The most slabs of a matrix: enough for any small device's cores.
const MAX_SLABS: usize = 16;
/// Fewer rows do not pay for quantising the activations once more.
const LEAST_SLAB_ROWS: usize = 256;
/// Fewer multiplications than this are done on the calling thread.
const WORTH_SHARING: usize = 1 << 20;

impl Make for Slabs {
    type Matrix = Matrix;

    fn matrix(
        &self,
        rows: usize,
        columns: usize,
        tensor: &mut Tensor<'_>,
    ) -> Result<Matrix, LoadError> {
        let dtype = tensor.dtype();
        let candle = dtype.candle().ok_or_else(|| unknown(dtype))?;
        let slab_rows = rows.div_ceil(MAX_SLABS).max(LEAST_SLAB_ROWS);
        let mut slabs = Vec::new();
        for first in (0..rows).step_by(slab_rows) {
            let data = tensor.rows(slab_rows.min(rows - first))?;
            slabs.push(with_aligned(data, |data| {
                candle.from_data(Cow::Borrowed(data))
            }));
        }
        Ok(Matrix {
            slabs,
            slab_rows,
            rows,
            columns,
        })
    }

    fn bytes(&self, dtype: TensorType, rows: usize, columns: usize) -> Result<u64, LoadError> {
        let (elements, bytes) = dtype.block().ok_or_else(|| unknown(dtype))?;
        Ok((rows * columns / elements * bytes) as u64)
    }
}

fn unknown(dtype: TensorType) -> LoadError {
    LoadError::Unsupported(format!("this engine does not run {}", dtype.name()))
}

impl Matrix {
    /// `out = x * self^T` for `count` rows of `x`. `out` is resized to `count x rows`.
    pub(in crate::model) fn apply(
        &self,
        x: &[f32],
        count: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), candle_core::Error> {
        out.clear();
        out.resize(count * self.rows, 0.0);
        let shared = count * self.rows * self.columns >= WORTH_SHARING && may_share();
        if count == 1 {
            let product = |(slab, out): (&dyn QuantizedType, &mut [f32])| {
                slab.matmul_t((1, self.columns, out.len()), x, out)
            };
            return match shared {
                true => (self.slabs.par_iter().map(|slab| &**slab))
                    .zip(out.par_chunks_mut(self.slab_rows))
                    .try_for_each(product),
                false => (self.slabs.iter().map(|slab| &**slab))
                    .zip(out.chunks_mut(self.slab_rows))
                    .try_for_each(product),
            };
        }
        let product = |index: usize| {
            let rows = self.slab_rows.min(self.rows - index * self.slab_rows);
            let mut part = vec![0.0; count * rows];
            self.slabs[index].matmul_t((count, self.columns, rows), x, &mut part)?;
            Ok::<_, candle_core::Error>(part)
        };
        let parts: Vec<_> = match shared {
            true => (0..self.slabs.len())
                .into_par_iter()
                .map(product)
                .collect::<Result<_, _>>()?,
            false => (0..self.slabs.len())
                .map(product)
                .collect::<Result<_, _>>()?,
        };
        for (index, part) in parts.iter().enumerate() {
            let start = index * self.slab_rows;
            let rows = part.len() / count;
            for (out, part) in out.chunks_exact_mut(self.rows).zip(part.chunks_exact(rows)) {
                out[start..start + rows].copy_from_slice(part);
            }
        }
        Ok(())
    }

    /// The given rows as numbers, one after the other. Every id must be below `rows`.
    pub(in crate::model) fn lookup(&self, ids: &[u32]) -> Result<Vec<f32>, candle_core::Error> {
        let mut numbers = Vec::with_capacity(ids.len() * self.columns);
        for id in ids.iter().map(|id| *id as usize) {
            let slab = id / self.slab_rows;
            let rows = self.slab_rows.min(self.rows - slab * self.slab_rows);
            let row =
                self.slabs[slab].embedding(&[(id % self.slab_rows) as u32], rows, self.columns)?;
            match row {
                CpuStorage::F32(row) => numbers.extend_from_slice(&row),
                _ => candle_core::bail!("the library gave other numbers than f32"),
            }
        }
        Ok(numbers)
    }
}

/// Whether work may be spread over rayon's pool: not while the library has
/// workers of its own, which serve one caller at a time.
pub(in crate::model) fn may_share() -> bool {
    rayon::current_num_threads() > 1 && barrier_pool().n_workers() == 0
}
