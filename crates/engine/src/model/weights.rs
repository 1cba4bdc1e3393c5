//! Tensors of a file, checked against the shapes that the model must have.

use std::borrow::Cow;
use std::collections::HashSet;

use candle_core::CpuStorage;
use candle_core::quantized::QuantizedType;
use candle_core::utils::barrier_pool;
use rayon::prelude::*;

use crate::gguf::{Gguf, LoadError, TensorInfo, unsupported_type};

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
pub(super) struct Matrix {
    slabs: Vec<Box<dyn QuantizedType>>,
    /// Rows of every slab but the last, which may have fewer.
    slab_rows: usize,
    rows: usize,
    columns: usize,
}

/// A norm's weight or a bias, as plain numbers.
pub(super) type Vector = Vec<f32>;

/// The most slabs of a matrix: enough for any small device's cores.
const MAX_SLABS: usize = 16;
/// Fewer rows do not pay for quantising the activations once more.
const LEAST_SLAB_ROWS: usize = 256;
/// Fewer multiplications than this are done on the calling thread.
const WORTH_SHARING: usize = 1 << 20;

impl Matrix {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// `out = x * self^T` for `count` rows of `x`. `out` is resized to `count x rows`.
    pub(super) fn apply(
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
    pub(super) fn lookup(&self, ids: &[u32]) -> Result<Vec<f32>, candle_core::Error> {
        let mut numbers = Vec::with_capacity(ids.len() * self.columns);
        for id in ids.iter().map(|id| *id as usize) {
            let slab = id / self.slab_rows;
            let rows = self.slab_rows.min(self.rows - slab * self.slab_rows);
            let row =
                self.slabs[slab].embedding(&[(id % self.slab_rows) as u32], rows, self.columns)?;
            numbers.extend_from_slice(&floats(row)?);
        }
        Ok(numbers)
    }
}

/// Whether work may be spread over rayon's pool: not while the library has
/// workers of its own, which serve one caller at a time.
pub(super) fn may_share() -> bool {
    rayon::current_num_threads() > 1 && barrier_pool().n_workers() == 0
}

fn floats(storage: CpuStorage) -> Result<Vec<f32>, candle_core::Error> {
    match storage {
        CpuStorage::F32(numbers) => Ok(numbers),
        _ => candle_core::bail!("the library gave other numbers than f32"),
    }
}

/// Takes tensors out of a file and remembers which, so that what is left over
/// can be refused: a tensor that is not used means a model that is not this one.
pub(super) struct Loader<'a> {
    gguf: &'a Gguf,
    taken: HashSet<String>,
    memory_bytes: u64,
    /// Checks everything and reads no weight.
    dry: bool,
}

impl<'a> Loader<'a> {
    pub(super) fn new(gguf: &'a Gguf) -> Self {
        Self {
            gguf,
            taken: HashSet::new(),
            memory_bytes: 0,
            dry: false,
        }
    }

    /// A loader that only checks: what it gives is hollow and not to be run.
    pub(super) fn dry(gguf: &'a Gguf) -> Self {
        Self {
            dry: true,
            ..Self::new(gguf)
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.gguf.tensor_info(name).is_some()
    }

    pub(super) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Matrix, LoadError> {
        let info = self.take(name, &[rows, columns])?;
        let slab_rows = rows.div_ceil(MAX_SLABS).max(LEAST_SLAB_ROWS);
        let slabs = self.blocks(info, slab_rows * columns)?;
        self.memory_bytes += info.byte_len();
        Ok(Matrix {
            slabs,
            slab_rows,
            rows,
            columns,
        })
    }

    pub(super) fn opt_matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Option<Matrix>, LoadError> {
        self.has(name)
            .then(|| self.matrix(name, rows, columns))
            .transpose()
    }

    pub(super) fn vector(&mut self, name: &str, length: usize) -> Result<Vector, LoadError> {
        let info = self.take(name, &[length])?;
        let mut numbers = Vec::with_capacity(length);
        for piece in self.blocks(info, length)? {
            numbers.extend(floats(piece.dequantize(length)?)?);
        }
        if self.dry {
            numbers = vec![1.0; length];
        }
        self.memory_bytes += (length * size_of::<f32>()) as u64;
        Ok(numbers)
    }

    pub(super) fn opt_vector(
        &mut self,
        name: &str,
        length: usize,
    ) -> Result<Option<Vector>, LoadError> {
        self.has(name)
            .then(|| self.vector(name, length))
            .transpose()
    }

    /// Bytes of all weights in memory, or the refusal of a tensor that nobody took.
    pub(super) fn finish(self) -> Result<u64, LoadError> {
        let left = self.gguf.tensors().filter(|info| {
            // Old converters left these behind; they repeat what the keys say.
            !self.taken.contains(&info.name) && !info.name.ends_with(".attn_rot_embd.weight")
        });
        match left.min_by(|a, b| a.name.cmp(&b.name)) {
            None => Ok(self.memory_bytes),
            Some(info) => Err(LoadError::Unsupported(format!(
                "the model has a tensor '{}' that models of its architecture do not have here; \
                 this variant is not supported",
                info.name
            ))),
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo, LoadError> {
        let info = self
            .gguf
            .tensor_info(name)
            .ok_or_else(|| LoadError::tensor(name, "is missing"))?;
        if info.shape != shape {
            return Err(LoadError::tensor(
                name,
                format!("has the shape {:?}, not {shape:?}", info.shape),
            ));
        }
        self.taken.insert(name.to_owned());
        Ok(info)
    }

    /// A tensor's blocks, in pieces of `elements` (whole blocks), the last one shorter.
    fn blocks(
        &self,
        info: &TensorInfo,
        elements: usize,
    ) -> Result<Vec<Box<dyn QuantizedType>>, LoadError> {
        let dtype = info.dtype.candle().ok_or_else(|| unsupported_type(info))?;
        if self.dry {
            return Ok(Vec::new());
        }
        let data = self.gguf.tensor_data(info)?;
        let bytes_of = |elements: usize| elements / dtype.block_size() * dtype.type_size();
        if data.len() != bytes_of(info.shape.iter().product()) {
            return Err(LoadError::tensor(
                &info.name,
                "is not as long as its shape says",
            ));
        }
        let piece = |data: &[u8]| with_aligned(data, |data| dtype.from_data(Cow::Borrowed(data)));
        Ok(data.chunks(bytes_of(elements)).map(piece).collect())
    }
}

/// The library asserts that data is aligned for its block type; bytes that are
/// part of the binary need not be.
fn with_aligned<T>(data: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
    const ALIGNMENT: usize = 16;
    if data.as_ptr().align_offset(ALIGNMENT) == 0 {
        return f(data);
    }
    let mut copy = vec![0u8; data.len() + ALIGNMENT];
    let start = copy.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let aligned = &mut copy[start..start + data.len()];
    aligned.copy_from_slice(data);
    f(aligned)
}
