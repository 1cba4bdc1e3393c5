//! The local engine: model files, tokenizers, chat templates, and answers.
//!
//! This crate runs in a process without a network. Nothing here opens a
//! socket, and no network crate is in its dependency tree.
//!
//! In reading order: [`gguf`] reads a model file, [`tokenizer`] and
//! [`template`] turn a conversation into tokens, [`model`] turns tokens into
//! logits, [`sampling`] into the next token, [`output`] into content, reasoning
//! and tool calls; [`generate`] runs the loop and [`worker`] serves the gate.

pub mod gguf;
pub mod model;
pub mod tokenizer;
pub mod template;
pub mod output;
pub mod sampling;

mod inspect;

pub use inspect::{ModelInfo, inspect};
