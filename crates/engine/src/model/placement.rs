//! Where layers are computed: the processor, or a graphics processor with as
//! many layers as its memory has room for.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use candle_core::Device as Library;

use super::pool::{BLOCK_TOKENS, number_bytes};
use super::{LoadOptions, hyper::Hyper};
use crate::gguf::{Gguf, LoadError};

/// What a graphics processor keeps free for the numbers of a step.
const WORKING_BYTES: u64 = 384 << 20;
/// Room for so many tokens comes before another layer.
const LEAST_TOKENS: usize = 4096;

/// What computes a model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, on the engine's own kernels.
    #[default]
    Cpu,
    /// The first graphics processor that this build can use and that answers;
    /// the processor otherwise.
    Auto,
    /// A graphics processor of NVIDIA's, by its number.
    Cuda(usize),
    /// Apple's graphics processor.
    Metal,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|number| *number < 64);
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            None if text == "metal" => Ok(Self::Metal),
            Some(("cuda", index)) if number(index).is_some() => {
                Ok(Self::Cuda(number(index).unwrap_or(0)))
            }
            _ => Err("must be cpu, auto, cuda, cuda:0 (or another number) or metal".to_owned()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// Which layers of a model are computed where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// What computes.
    pub device: Device,
    /// The most that a model may take of a graphics processor's memory, keys
    /// and values included, in bytes; `None` for nine tenths of what is free.
    pub memory_bytes: Option<u64>,
    /// How many layers it computes, the last ones and the output; `None` for as
    /// many as fit.
    pub layers: Option<usize>,
}

/// A model's layers on a device of the library's.
#[derive(Clone)]
pub(super) struct Split {
    pub(super) device: Library,
    /// The first layers, which the processor computes.
    pub(super) host_layers: usize,
    /// How many blocks of keys and values the device has room for; `None` for
    /// as many as are asked for.
    pub(super) blocks: Option<usize>,
}

impl Split {
    /// What a placement comes to for one file; `None` where the processor
    /// computes everything.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] for a device that was named and is not there.
    pub(super) fn of(
        gguf: &Gguf,
        hyper: &Hyper,
        options: &LoadOptions,
    ) -> Result<Option<Self>, LoadError> {
        let placement = options.placement;
        let Some((device, free)) = open(placement.device)? else {
            return Ok(None);
        };
        let budget = match placement.memory_bytes {
            Some(bytes) => Some(bytes.min(free.unwrap_or(bytes))),
            None => free.map(|free| free / 10 * 9),
        };
        let split = Self::within(gguf, hyper, device, budget, placement.layers);
        if split.is_none() {
            tracing::warn!(
                device = %placement.device,
                "no layer fits into the device's memory; the processor computes the model"
            );
        }
        Ok(split)
    }

    /// As many of the last layers as fit, `budget` bytes or no bound.
    pub(super) fn within(
        gguf: &Gguf,
        hyper: &Hyper,
        device: Library,
        budget: Option<u64>,
        wanted: Option<usize>,
    ) -> Option<Self> {
        let most = wanted.unwrap_or(hyper.layers).min(hyper.layers);
        let token_bytes = (2 * hyper.kv_width()) as u64 * number_bytes();
        let Some(budget) = budget else {
            return (most > 0).then_some(Self {
                device,
                host_layers: hyper.layers - most,
                blocks: None,
            });
        };
        let tokens = hyper.context.min(LEAST_TOKENS) as u64;
        let mut left = budget.checked_sub(WORKING_BYTES + head_bytes(gguf))?;
        let mut layers = 0;
        while layers < most {
            let weights = layer_bytes(gguf, hyper.layers - layers - 1);
            match left.checked_sub(weights + tokens * token_bytes) {
                Some(rest) => left = rest,
                None => break,
            }
            layers += 1;
        }
        if layers == 0 {
            return None;
        }
        // What no layer took makes room for longer and more conversations.
        let per_block = layers as u64 * token_bytes * BLOCK_TOKENS as u64;
        let least = tokens.div_ceil(BLOCK_TOKENS as u64);
        Some(Self {
            device,
            host_layers: hyper.layers - layers,
            blocks: usize::try_from(least + left / per_block).ok(),
        })
    }
}

/// The library multiplies by whole numbers as `f32`.
fn placed_bytes(info: &crate::gguf::TensorInfo) -> u64 {
    match info.dtype.block() {
        Some((1, _)) => info.shape.iter().product::<usize>() as u64 * number_bytes(),
        _ => info.byte_len(),
    }
}

fn layer_bytes(gguf: &Gguf, layer: usize) -> u64 {
    let prefix = format!("blk.{layer}.");
    let tensors = gguf.tensors();
    let own = tensors.filter(|info| info.name.starts_with(&prefix));
    own.map(placed_bytes).sum()
}

fn head_bytes(gguf: &Gguf) -> u64 {
    let head = gguf
        .tensor_info("output.weight")
        .or_else(|| gguf.tensor_info("token_embd.weight"));
    head.map_or(0, placed_bytes)
}

/// A device that is open, and what is free there where that is known; `None`
/// for the processor.
type Opened = Option<(Library, Option<u64>)>;

fn open(device: Device) -> Result<Opened, LoadError> {
    match device {
        Device::Cpu => Ok(None),
        Device::Auto => {
            for device in [Device::Cuda(0), Device::Metal] {
                if !is_built(device) {
                    continue;
                }
                match opened(device) {
                    Ok(found) => return Ok(Some(found)),
                    Err(error) => tracing::warn!(%device, %error, "this device cannot be used"),
                }
            }
            Ok(None)
        }
        Device::Cuda(_) | Device::Metal if !is_built(device) => {
            Err(LoadError::Unsupported(format!(
                "local.device is {device}, which this build cannot use; build with `--features {}`, or set it to cpu",
                if device == Device::Metal {
                    "metal"
                } else {
                    "cuda"
                }
            )))
        }
        Device::Cuda(_) | Device::Metal => opened(device).map(Some).map_err(|error| {
            LoadError::Unsupported(format!(
                "local.device is {device}, which cannot be used ({error}); set it to cpu or auto"
            ))
        }),
    }
}

fn is_built(device: Device) -> bool {
    match device {
        Device::Cuda(_) => candle_core::utils::cuda_is_available(),
        Device::Metal => candle_core::utils::metal_is_available(),
        Device::Cpu | Device::Auto => true,
    }
}

/// Opens a device once: its compiled kernels and handles serve all models.
fn opened(device: Device) -> Result<(Library, Option<u64>), candle_core::Error> {
    static OPEN: Mutex<Vec<(Device, Library)>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = open.iter().find(|(known, _)| *known == device);
    let found = match known {
        Some((_, found)) => found.clone(),
        None => {
            let found = match device {
                Device::Cuda(index) => Library::new_cuda(index)?,
                Device::Metal => Library::new_metal(0)?,
                Device::Cpu | Device::Auto => Library::Cpu,
            };
            open.push((device, found.clone()));
            found
        }
    };
    let free = free_bytes(&found)?;
    Ok((found, free))
}

/// What is free on the device, in bytes. Metal does not say: there it is the
/// machine's own memory.
fn free_bytes(device: &Library) -> Result<Option<u64>, candle_core::Error> {
    #[cfg(feature = "cuda")]
    if let Library::Cuda(device) = device {
        use candle_core::cuda_backend::WrapErr;
        let stream = device.cuda_stream();
        let (free, _) = stream.context().mem_get_info().w()?;
        return Ok(Some(free as u64));
    }
    let _ = device;
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_written() {
        for text in ["cpu", "auto", "cuda:0", "cuda:3", "metal"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:64", "metal:0", "CPU"] {
            assert!(text.parse::<Device>().unwrap_err().contains("cuda:0"));
        }
    }

    #[test]
    fn as_many_layers_are_placed_as_fit() {
        let gguf = crate::embedded().unwrap();
        let hyper = Hyper::read(&gguf, None).unwrap();
        let within = |budget, wanted| Split::within(&gguf, &hyper, Library::Cpu, budget, wanted);
        assert!(within(Some(1 << 20), None).is_none(), "no room to work in");
        assert!(within(None, Some(0)).is_none());
        assert_eq!(within(None, Some(2)).unwrap().host_layers, hyper.layers - 2);
        let all = within(Some(64 << 30), None).unwrap();
        assert_eq!(all.host_layers, 0);

        let token = (2 * hyper.kv_width()) as u64 * number_bytes();
        let tokens = hyper.context.min(LEAST_TOKENS) as u64;
        let one = layer_bytes(&gguf, hyper.layers - 1) + tokens * token;
        let budget = WORKING_BYTES + head_bytes(&gguf) + one;
        assert!(within(Some(budget - 1), None).is_none());
        let split = within(Some(budget), None).unwrap();
        assert_eq!(split.host_layers, hyper.layers - 1);
        assert_eq!(split.blocks, Some(tokens.div_ceil(16) as usize));
        let roomy = within(Some(budget + 10 * 16 * token), Some(1)).unwrap();
        assert_eq!(roomy.blocks, split.blocks.map(|blocks| blocks + 10));
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_by_name() {
        if is_built(Device::Cuda(9)) || is_built(Device::Metal) {
            println!("SKIPPED: this build has devices of its own");
            return;
        }
        let error = open(Device::Cuda(9)).err().unwrap().to_string();
        assert!(error.contains("cuda:9") && error.contains("--features cuda"));
        let error = open(Device::Metal).err().unwrap().to_string();
        assert!(error.contains("--features metal"));
        assert!(open(Device::Auto).unwrap().is_none());
    }
}
