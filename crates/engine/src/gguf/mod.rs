//! The GGUF file format: a hardened reader and a small writer.
//!
//! A model file is foreign input. Every count and length in it is checked
//! against the file's size before anything is allocated, and whatever does not
//! fit is refused with the place and the reason. Tensors are read on demand.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod reader;
mod types;
mod value;
mod write;

pub(crate) use reader::unsupported_type;
pub use reader::{Gguf, TensorInfo};
pub use types::TensorType;
pub use value::Value;
pub use write::GgufWriter;

/// Why a model cannot be loaded. The texts are public: they name the file's
/// part that is at fault and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the model file: {0}")]
    Io(#[from] std::io::Error),
    /// Not a GGUF file, or damaged.
    #[error("the model file is damaged or not GGUF: {0}")]
    Damaged(String),
    /// A key is missing or has the wrong type.
    #[error("the model file's key '{key}' {problem}")]
    Key {
        /// The metadata key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Well-formed, but not something that this engine runs.
    #[error("{0}")]
    Unsupported(String),
    /// A tensor is missing or has the wrong shape.
    #[error("the model file's tensor '{name}' {problem}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The inference library refused.
    #[error("the model cannot be built: {0}")]
    Compute(#[from] candle_core::Error),
}

impl LoadError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub(crate) fn key(key: &str, problem: impl Into<String>) -> Self {
        Self::Key {
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn tensor(name: &str, problem: impl Into<String>) -> Self {
        Self::Tensor {
            name: name.to_owned(),
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests;
