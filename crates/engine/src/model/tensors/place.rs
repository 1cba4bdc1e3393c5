//! A file's matrices where they are multiplied: the first layers' and the
//! embedding in the processor's memory, the other layers' and the output's on
//! the device.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::{QMatMul, QStorage, QTensor};

use crate::gguf::{LoadError, TensorType};
use crate::model::loader::{Make, Tensor, with_aligned};
use crate::model::reference::{Matrix, Slabs};

/// A matrix, wherever it is.
pub(in crate::model) enum Placed {
    Host(Matrix),
    Device(QMatMul),
    /// An embedding that is the output's matrix too.
    Both(Matrix, QMatMul),
}

/// Makes [`Placed`] values.
pub(in crate::model) struct Placer<'a> {
    pub(in crate::model) device: &'a Device,
    pub(in crate::model) host_layers: usize,
    /// Whether the output has no matrix of its own.
    pub(in crate::model) tied: bool,
}

impl Placer<'_> {
    fn is_of_host(&self, name: &str) -> bool {
        let layer = name.strip_prefix("blk.").and_then(|rest| {
            let (index, _) = rest.split_once('.')?;
            index.parse::<usize>().ok()
        });
        layer.is_some_and(|layer| layer < self.host_layers)
    }

    fn on_device(
        &self,
        rows: usize,
        columns: usize,
        tensor: &mut Tensor<'_>,
    ) -> Result<QMatMul, LoadError> {
        let dtype = tensor.dtype();
        let candle = dtype.candle().ok_or_else(|| {
            LoadError::Unsupported(format!("this engine does not run {}", dtype.name()))
        })?;
        let name = tensor.name().to_owned();
        let data = tensor.rows(rows)?;
        let made = with_aligned(data, |data| {
            let storage = QStorage::from_data(Cow::Borrowed(data), self.device, candle)?;
            QMatMul::from_arc(Arc::new(QTensor::new(storage, (rows, columns))?))
        });
        made.map_err(|error| {
            LoadError::Unsupported(format!(
                "the tensor '{name}' cannot be put on the device: {error}; set local.device_layers to fewer layers, or local.device to cpu"
            ))
        })
    }
}

impl Make for Placer<'_> {
    type Matrix = Placed;

    fn matrix(
        &self,
        rows: usize,
        columns: usize,
        tensor: &mut Tensor<'_>,
    ) -> Result<Placed, LoadError> {
        let name = tensor.name();
        if self.is_of_host(name) {
            return Slabs.matrix(rows, columns, tensor).map(Placed::Host);
        }
        if name != "token_embd.weight" {
            return self.on_device(rows, columns, tensor).map(Placed::Device);
        }
        let host = Slabs.matrix(rows, columns, tensor)?;
        if !self.tied {
            return Ok(Placed::Host(host));
        }
        tensor.rewind();
        let device = self.on_device(rows, columns, tensor)?;
        Ok(Placed::Both(host, device))
    }

    fn bytes(&self, dtype: TensorType, rows: usize, columns: usize) -> Result<u64, LoadError> {
        Slabs.bytes(dtype, rows, columns)
    }
}

impl Placed {
    pub(super) fn host(self) -> Result<Matrix, LoadError> {
        match self {
            Self::Host(matrix) | Self::Both(matrix, _) => Ok(matrix),
            Self::Device(_) => Err(misplaced()),
        }
    }

    pub(super) fn device(self) -> Result<QMatMul, LoadError> {
        match self {
            Self::Device(matrix) | Self::Both(_, matrix) => Ok(matrix),
            Self::Host(_) => Err(misplaced()),
        }
    }
}

/// A mistake of ours: [`Placer`] and the executor disagree.
fn misplaced() -> LoadError {
    LoadError::Unsupported("a matrix was put where nothing computes with it".to_owned())
}
