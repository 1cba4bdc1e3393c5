//! The local engine: model files, tokenizers, chat templates, and answers.
//!
//! This crate runs in a process without a network. Nothing here opens a
//! socket, and no network crate is in its dependency tree.
//!
//! In reading order: [`gguf`] reads a model file, [`tokenizer`] and
//! [`template`] turn a conversation into tokens, [`model`] turns tokens into
//! logits, [`sampling`] into the next token
//! within what [`constrain`] allows, [`output`] into content, reasoning and tool
//! calls; [`generate`] runs the loop and [`worker`] serves the gate.
//! Beside that road, [`embed`] turns texts into vectors, and [`bench`] measures.
// Tests open sockets and start tasks as they like.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod bench;
pub mod constrain;
pub mod embed;
pub mod generate;
pub mod gguf;
pub mod model;
pub mod output;
pub mod sampling;
pub mod template;
pub mod tokenizer;
pub mod worker;

mod inspect;
pub(crate) mod kernels;
mod pinned;
#[cfg(test)]
mod tiny;

pub use inspect::{ModelInfo, inspect, inspect_with_sidecar, token_difference};
pub use kernels::{Isa, measure};
pub use model::{Device, Placement};
pub use pinned::PinnedOnDisk;
pub use worker::{Options, default_memory_budget, serve, usable_cores};

/// The GGUF file of the model that ships inside the binary.
pub fn embedded_model() -> &'static [u8] {
    include_bytes!("../../../models/concierge/concierge.gguf")
}

/// Its SHA-256 in hexadecimal, written down beside it: a process that only lists
/// models would keep all of the weights in its memory after hashing them.
pub fn embedded_model_sha256() -> &'static str {
    let line = include_str!("../../../models/concierge/concierge.gguf.sha256");
    line.split_whitespace().next().unwrap_or_default()
}

/// The model that ships inside the binary, opened.
///
/// # Errors
/// When the build was made with a broken one.
pub(crate) fn embedded() -> Result<gguf::Gguf, gguf::LoadError> {
    gguf::Gguf::from_static(embedded_model())
}
