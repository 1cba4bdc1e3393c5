//! Tensors of a file, checked against the shapes that the model must have.

use std::borrow::Cow;
use std::collections::HashSet;

use candle_core::CpuStorage;
use candle_core::quantized::QuantizedType;

use crate::gguf::{Gguf, LoadError, TensorInfo, unsupported_type};

/// A quantised matrix of `rows x columns`, applied to row vectors.
///
/// It keeps the file's blocks as they are. Activations are quantised to the
/// blocks' partner type for each product, as llama.cpp does; the library's
/// repacked kernels are not used, because they would hold every weight twice.
pub(super) struct Matrix {
    blocks: Box<dyn QuantizedType>,
    rows: usize,
    columns: usize,
}

/// A norm's weight or a bias, as plain numbers.
pub(super) type Vector = Vec<f32>;

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
        self.blocks
            .matmul_t((count, self.columns, self.rows), x, out)
    }

    /// The given rows as numbers, one after the other. Every id must be below `rows`.
    pub(super) fn lookup(&self, ids: &[u32]) -> Result<Vec<f32>, candle_core::Error> {
        floats(self.blocks.embedding(ids, self.rows, self.columns)?)
    }
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
        let blocks = self.blocks(info)?;
        self.memory_bytes += info.byte_len();
        Ok(Matrix {
            blocks,
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
        let numbers = if self.dry {
            self.blocks(info)?;
            vec![1.0; length]
        } else {
            floats(self.blocks(info)?.dequantize(length)?)?
        };
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

    fn blocks(&self, info: &TensorInfo) -> Result<Box<dyn QuantizedType>, LoadError> {
        let dtype = info.dtype.candle().ok_or_else(|| unsupported_type(info))?;
        if self.dry {
            return Ok(with_aligned(&[], |none| {
                dtype.from_data(Cow::Borrowed(none))
            }));
        }
        let data = self.gguf.tensor_data(info)?;
        let elements: usize = info.shape.iter().product();
        if data.len() != elements / dtype.block_size() * dtype.type_size() {
            return Err(LoadError::tensor(
                &info.name,
                "is not as long as its shape says",
            ));
        }
        Ok(with_aligned(&data, |data| {
            dtype.from_data(Cow::Borrowed(data))
        }))
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
