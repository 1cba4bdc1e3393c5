//! Tensors of a file, checked against the shapes that the model must have.

use std::borrow::Cow;
use std::collections::HashSet;

use candle_core::CpuStorage;

use crate::gguf::{Gguf, LoadError, TensorInfo, TensorType, unsupported_type};

/// What makes an executor's matrices out of a file's bytes.
pub(super) trait Make {
    /// A matrix, ready to be multiplied with.
    type Matrix;

    /// Whether nothing is to be read.
    const DRY: bool = false;

    /// A matrix of `rows x columns`, whose rows are the next of `tensor`.
    fn matrix(
        &self,
        rows: usize,
        columns: usize,
        tensor: &mut Tensor<'_>,
    ) -> Result<Self::Matrix, LoadError>;

    /// What that matrix takes in memory, in bytes.
    fn bytes(&self, dtype: TensorType, rows: usize, columns: usize) -> Result<u64, LoadError>;
}

/// A tensor that is read row by row, so that it is never in memory as a whole
/// beside what is made of it.
pub(super) struct Tensor<'a> {
    gguf: &'a Gguf,
    info: &'a TensorInfo,
    /// Bytes of a row.
    row_bytes: usize,
    /// The next row.
    next: usize,
    buffer: &'a mut Vec<u8>,
}

impl Tensor<'_> {
    pub(super) fn dtype(&self) -> TensorType {
        self.info.dtype
    }

    pub(super) fn name(&self) -> &str {
        &self.info.name
    }

    /// Begins again with the first row.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The next `rows` rows, as the file has them.
    pub(super) fn rows(&mut self, rows: usize) -> Result<&[u8], LoadError> {
        let start = self.next * self.row_bytes;
        self.next += rows;
        let range = start..start + rows * self.row_bytes;
        self.gguf.read_part(self.info, range, self.buffer)
    }
}

/// A norm's weight or a bias, as plain numbers.
pub(super) type Vector = Vec<f32>;

/// Takes tensors out of a file and remembers which, so that what is left over
/// can be refused: a tensor that is not used means a model that is not this one.
///
pub(super) struct Loader<'a, M> {
    gguf: &'a Gguf,
    make: M,
    taken: HashSet<String>,
    memory_bytes: u64,
    /// The bytes that were read last.
    buffer: Vec<u8>,
}

impl<'a, M: Make> Loader<'a, M> {
    pub(super) fn new(gguf: &'a Gguf, make: M) -> Self {
        Self {
            gguf,
            make,
            taken: HashSet::new(),
            memory_bytes: 0,
            buffer: Vec::new(),
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
    ) -> Result<M::Matrix, LoadError> {
        let [matrix] = self.fused(name, [rows], columns)?;
        Ok(matrix)
    }

    /// The matrices whose rows lie one after the other in one tensor.
    pub(super) fn fused<const N: usize>(
        &mut self,
        name: &str,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[M::Matrix; N], LoadError> {
        let info = self.take(name, &[rows.iter().sum(), columns])?;
        let mut tensor = Tensor {
            gguf: self.gguf,
            info,
            // The reader has checked that rows are whole blocks.
            row_bytes: info.byte_len() as usize / info.shape[0],
            next: 0,
            buffer: &mut self.buffer,
        };
        let mut matrices = Vec::with_capacity(N);
        for rows in rows {
            self.memory_bytes += self.make.bytes(info.dtype, rows, columns)?;
            matrices.push(self.make.matrix(rows, columns, &mut tensor)?);
        }
        matrices
            .try_into()
            .map_err(|_| LoadError::tensor(name, "could not be taken apart"))
    }

    pub(super) fn opt_matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Option<M::Matrix>, LoadError> {
        self.has(name)
            .then(|| self.matrix(name, rows, columns))
            .transpose()
    }

    pub(super) fn vector(&mut self, name: &str, length: usize) -> Result<Vector, LoadError> {
        let info = self.take(name, &[length])?;
        self.memory_bytes += (length * size_of::<f32>()) as u64;
        if M::DRY {
            return Ok(vec![1.0; length]);
        }
        floats(info, self.gguf.read_tensor(info, &mut self.buffer)?)
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
        if info.dtype.block().is_none() {
            return Err(unsupported_type(info));
        }
        self.taken.insert(name.to_owned());
        Ok(info)
    }
}

/// A tensor of any type that is run, as plain numbers.
pub(super) fn floats(info: &TensorInfo, data: &[u8]) -> Result<Vector, LoadError> {
    let dtype = info.dtype.candle().ok_or_else(|| unsupported_type(info))?;
    let length = info.shape.iter().product();
    let numbers = with_aligned(data, |data| {
        dtype.from_data(Cow::Borrowed(data)).dequantize(length)
    })?;
    match numbers {
        CpuStorage::F32(numbers) => Ok(numbers),
        _ => Err(LoadError::tensor(&info.name, "cannot be read as numbers")),
    }
}

/// The library asserts that data is aligned for its block type; bytes that are
/// part of the binary need not be.
pub(super) fn with_aligned<T>(data: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
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
