//! Which executor runs a model, and loading for it.

use super::cpu::{Cpu, Packer, packed_bytes, packed_type};
use super::hyper::Hyper;
use super::layers::Weights;
use super::loader::{Loader, Make, Tensor};
use super::pool::{Form, Layout};
use super::reference::{Reference, Slabs};
use super::rope::Ropes;
use super::{ModelError, Part};
use crate::gguf::{Gguf, LoadError, TensorType};
use crate::kernels::{Isa, Team};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// Our own kernels, for the instructions of a processor.
    Kernels(Isa),
    /// The inference library's products. Slower; the measure for the other, and
    /// what runs the types that the kernels do not.
    Reference,
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
}

impl Run {
    pub(super) fn executor(&self) -> Executor {
        match self {
            Self::Kernels(cpu) => Executor::Kernels(cpu.isa()),
            Self::Reference(_) => Executor::Reference,
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
        }
    }
}

/// The executor that will run a file.
#[derive(Clone, Copy)]
pub(super) struct Plan(Executor);

impl Plan {
    /// The reference stands in where some matrix has a type without a kernel.
    pub(super) fn of(gguf: &Gguf, wanted: Executor) -> Self {
        let runs = gguf
            .tensors()
            .filter(|info| info.shape.len() == 2)
            // A type that nothing runs is refused when its tensor is read.
            .all(|info| info.dtype.block().is_none() || packed_type(info.dtype).is_some());
        match wanted {
            Executor::Kernels(_) if !runs => Self(Executor::Reference),
            _ => Self(wanted),
        }
    }

    pub(super) fn layout(self, hyper: &Hyper) -> Layout {
        Layout {
            layers: hyper.layers,
            kv_heads: hyper.kv_heads,
            head_dim: hyper.head_dim,
            form: match self.0 {
                Executor::Kernels(_) => Form::Tiles,
                Executor::Reference => Form::Rows,
            },
        }
    }

    /// Loads all weights; gives what they take in memory, in bytes, too.
    pub(super) fn load(
        self,
        gguf: &Gguf,
        hyper: &Hyper,
        threads: Option<usize>,
    ) -> Result<(Run, Ropes, u64), LoadError> {
        match self.0 {
            Executor::Kernels(isa) => {
                let threads = threads.unwrap_or_else(rayon::current_num_threads);
                let team = Team::new(threads);
                let (weights, ropes, bytes) = read(gguf, hyper, Packer { team: &team })?;
                let cpu = Cpu::new(weights, team, isa);
                Ok((Run::Kernels(Box::new(cpu)), ropes, bytes))
            }
            Executor::Reference => {
                let (weights, ropes, bytes) = read(gguf, hyper, Slabs)?;
                Ok((Run::Reference(Reference::new(weights)), ropes, bytes))
            }
        }
    }

    /// Checks all tensors and reads none; gives what they would take in memory.
    pub(super) fn check(self, gguf: &Gguf, hyper: &Hyper) -> Result<u64, LoadError> {
        let (_, _, bytes) = read(gguf, hyper, Hollow(self.0))?;
        Ok(bytes)
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
            Executor::Reference => Slabs.bytes(dtype, rows, columns),
        }
    }
}
