//! The local engine: model files, tokenizers, chat templates, and answers.
//!
//! This crate runs in a process without a network. Nothing here opens a
//! socket, and no network crate is in its dependency tree.
//!
//! In reading order: [`gguf`] reads a model file, [`tokenizer`] and
//! [`template`] turn a conversation into tokens, [`model`] turns tokens into
//! logits, [`sampling`] into the next token, [`output`] into content, reasoning
//! and tool calls; [`generate`] runs the loop and [`worker`] serves the gate.

pub mod generate;
pub mod gguf;
pub mod model;
pub mod output;
pub mod sampling;
pub mod template;
pub mod tokenizer;
pub mod worker;

mod inspect;
#[cfg(test)]
mod tiny;

pub use inspect::{ModelInfo, inspect, inspect_with_sidecar};
pub use worker::{Options, serve};

/// The model that ships inside the binary.
///
/// # Errors
/// When this build has none.
pub(crate) fn embedded() -> Result<gguf::Gguf, gguf::LoadError> {
    Err(gguf::LoadError::Unsupported(
        "this build ships no model; install one with 'nearfar model add'".to_owned(),
    ))
}
