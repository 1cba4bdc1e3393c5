//! Which executor runs a model, and loading for it.

use nearfar_domain::frames::KvNumbers;
use std::sync::Arc;

use candle_core::Device as Library;

use super::cpu::{Cpu, Packer, packed_bytes, packed_type};
use super::hyper::Hyper;
use super::layers::Weights;
use super::loader::{Loader, Make, Tensor};
use super::placement::Split;
use super::pool::{Form, Layout};
use super::reference::{Reference, Slabs};
use super::rope::Ropes;
use super::tensors::{Placer, Store, Tensors};
use super::{LoadOptions, ModelError, Part};
use crate::gguf::{Gguf, LoadError, TensorType};
use crate::kernels::{Isa, Team, TileForm};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// Our own kernels, for the instructions of a processor.
    Kernels(Isa),
    /// The inference library's products. Slower; the measure for the other, and
    /// what runs the types that the kernels do not.
    Reference,
    /// The inference library's tensors, on the device of
    /// [`super::Placement`]: what a placement other than `cpu` chooses.
    Tensors,
}

impl Default for Executor {
    /// The fastest that this processor has.
    fn default() -> Self {
        Self::Kernels(Isa::best())
    }
}

/// A loaded executor.
pub(super) enum Run {
    Kernels(Box<Cpu>),
    Reference(Reference),
    Tensors(Box<Tensors>),
}

impl Run {
    pub(super) fn executor(&self) -> Executor {
        match self {
            Self::Kernels(cpu) => Executor::Kernels(cpu.isa()),
            Self::Reference(_) => Executor::Reference,
            Self::Tensors(_) => Executor::Tensors,
        }
    }

    /// The wanted rows of logits, in the order of the parts. Keys and values
    /// are written to the caches, which have room for them, but not committed.
    pub(super) fn compute(
        &self,
        hyper: &Hyper,
        ropes: &Ropes,
        parts: &mut [Part<'_>],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        match self {
            Self::Kernels(cpu) => cpu.compute(hyper, ropes, parts),
            Self::Reference(reference) => reference.compute(hyper, ropes, parts),
            Self::Tensors(tensors) => tensors.compute(hyper, ropes, parts),
        }
    }
}

/// The executor that will run a file.
pub(super) struct Plan {
    executor: Executor,
    split: Option<Split>,
    form: TileForm,
}

impl Plan {
    /// What the options come to for one file.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] for a device that is not there.
    pub(super) fn of(gguf: &Gguf, hyper: &Hyper, options: &LoadOptions) -> Result<Self, LoadError> {
        let mut split = Split::of(gguf, hyper, options)?;
        if split.is_none() && options.executor == Executor::Tensors {
            let layers = options.placement.layers;
            split = Split::within(gguf, hyper, Library::Cpu, None, layers);
        }
        Ok(match split {
            Some(_) => Self {
                executor: Executor::Tensors,
                split,
                form: form(options.kv),
            },
            None => Self::on_processor(gguf, options.executor, options.kv),
        })
    }

    /// The reference stands in where some matrix has a type without a kernel.
    pub(super) fn on_processor(gguf: &Gguf, wanted: Executor, kv: KvNumbers) -> Self {
        let runs = gguf
            .tensors()
            .filter(|info| info.shape.len() == 2)
            // A type that nothing runs is refused when its tensor is read.
            .all(|info| info.dtype.block().is_none() || packed_type(info.dtype).is_some());
        let executor = match wanted {
            Executor::Kernels(_) if !runs => Executor::Reference,
            // Nothing was placed on a device.
            Executor::Tensors => Executor::Reference,
            _ => wanted,
        };
        Self {
            executor,
            split: None,
            form: form(kv),
        }
    }

    pub(super) fn layout(&self, hyper: &Hyper) -> Layout {
        let layers = match &self.split {
            Some(split) => split.host_layers,
            None => hyper.layers,
        };
        Layout {
            layers,
            device_layers: hyper.layers - layers,
            kv_heads: hyper.kv_heads,
            head_dim: hyper.head_dim,
            form: match self.executor {
                Executor::Kernels(_) => Form::Tiles(self.form),
                Executor::Reference | Executor::Tensors => Form::Rows,
            },
        }
    }

    /// Room on the device for the keys and values of `budget` bytes of blocks,
    /// and how many blocks that is.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] when the device does not give it.
    pub(super) fn store(
        &self,
        hyper: &Hyper,
        budget: u64,
    ) -> Result<Option<(Arc<Store>, usize)>, LoadError> {
        let Some(split) = &self.split else {
            return Ok(None);
        };
        let layout = self.layout(hyper);
        let asked = budget / layout.block_bytes().max(1);
        // Slots are counted in 32 bits, and so are their rows.
        let asked = usize::try_from(asked).unwrap_or(usize::MAX).min(1 << 26);
        let blocks = asked.min(split.blocks.unwrap_or(usize::MAX));
        let store = Store::new(
            &split.device,
            layout.device_layers,
            hyper.kv_width(),
            blocks,
        );
        let store = store.map_err(|error| {
            LoadError::Unsupported(format!(
                "the device gives no room for keys and values: {error}; set local.device_memory lower, or local.device to cpu"
            ))
        })?;
        Ok(Some((store, blocks)))
    }

    /// Loads all weights; gives what they take in memory, in bytes, too.
    pub(super) fn load(
        &self,
        gguf: &Gguf,
        hyper: &Hyper,
        threads: Option<usize>,
    ) -> Result<(Run, Ropes, u64), LoadError> {
        match (self.executor, &self.split) {
            (Executor::Kernels(isa), _) => {
                let threads = threads.unwrap_or_else(rayon::current_num_threads);
                let team = Team::new(threads);
                let (weights, ropes, bytes) = read(gguf, hyper, Packer { team: &team })?;
                let cpu = Cpu::new(weights, team, isa, self.form);
                Ok((Run::Kernels(Box::new(cpu)), ropes, bytes))
            }
            (_, Some(split)) => {
                let place = Placer {
                    device: &split.device,
                    host_layers: split.host_layers,
                    tied: gguf.tensor_info("output.weight").is_none(),
                };
                let (weights, ropes, bytes) = read(gguf, hyper, place)?;
                let made = Tensors::new(weights, split.device.clone(), split.host_layers)?;
                tracing::info!(
                    layers = hyper.layers - split.host_layers,
                    of = hyper.layers,
                    "layers are on the device"
                );
                Ok((Run::Tensors(Box::new(made)), ropes, bytes))
            }
            (_, None) => {
                let (weights, ropes, bytes) = read(gguf, hyper, Slabs)?;
                Ok((Run::Reference(Reference::new(weights)), ropes, bytes))
            }
        }
    }

    /// Checks all tensors and reads none; gives what they would take in memory.
    pub(super) fn check(&self, gguf: &Gguf, hyper: &Hyper) -> Result<u64, LoadError> {
        let (_, _, bytes) = read(gguf, hyper, Hollow(self.executor))?;
        Ok(bytes)
    }
}

fn form(kv: KvNumbers) -> TileForm {
    match kv {
        KvNumbers::Bf16 => TileForm::Bf16,
        KvNumbers::Int8 => TileForm::Int8,
    }
}

fn read<M: Make>(
    gguf: &Gguf,
    hyper: &Hyper,
    make: M,
) -> Result<(Weights<M::Matrix>, Ropes, u64), LoadError> {
    let mut loader = Loader::new(gguf, make);
    let weights = Weights::load(&mut loader, hyper)?;
    let ropes = Ropes::load(&mut loader, hyper)?;
    Ok((weights, ropes, loader.finish()?))
}

/// Counts what an executor would take, and makes nothing.
struct Hollow(Executor);

impl Make for Hollow {
    type Matrix = ();

    const DRY: bool = true;

    fn matrix(&self, _: usize, _: usize, _: &mut Tensor<'_>) -> Result<(), LoadError> {
        Ok(())
    }

    fn bytes(&self, dtype: TensorType, rows: usize, columns: usize) -> Result<u64, LoadError> {
        match self.0 {
            Executor::Kernels(_) => packed_bytes(dtype, rows, columns),
            Executor::Reference | Executor::Tensors => Slabs.bytes(dtype, rows, columns),
        }
    }
}
