//! What a model file says of itself, and whether the engine can run it.

use std::collections::HashMap;
use std::path::Path;

use nearfar_engine::gguf::{Gguf, LoadError};
use nearfar_engine::template::ChatTemplate;
use nearfar_engine::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::{CatalogError, LocalModel};

/// Architectures that the engine has model code for.
const ARCHITECTURES: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma3", "phi3"];

/// Facts that are read from a model's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// The architecture, as the file calls it.
    pub architecture: String,
    /// The longest context, in tokens.
    pub context_tokens: u32,
    /// The type that most weights have: `Q8_0`, `Q4_K`, …
    pub quantisation: String,
    /// Weights, counted over all tensors.
    pub parameters: u64,
    /// The licence, where the file names one.
    pub licence: Option<String>,
    /// Whether its chat template offers tools.
    pub tools: bool,
}

/// Opens a file as the engine would, short of loading its weights.
pub(super) fn inspect(path: &Path) -> Result<FileFacts, CatalogError> {
    Gguf::open(path)
        .and_then(|gguf| facts(&gguf))
        .map_err(|error| CatalogError::Unusable {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

/// The model in the binary. A broken one would be a broken build: it is left
/// out, loudly.
pub(super) fn embedded() -> Option<LocalModel> {
    None
}

fn facts(gguf: &Gguf) -> Result<FileFacts, LoadError> {
    let architecture = gguf.str("general.architecture")?.to_owned();
    if !ARCHITECTURES.contains(&architecture.as_str()) {
        let shown: String = architecture.chars().take(64).collect();
        return Err(LoadError::Unsupported(format!(
            "the architecture '{shown}' is not one that this engine runs: {}",
            ARCHITECTURES.join(", ")
        )));
    }
    let context_tokens = gguf.u32(&format!("{architecture}.context_length"))?;
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let tools = match gguf.opt_str("tokenizer.chat_template") {
        Some(source) => {
            ChatTemplate::new(source, &tokenizer.bos_text(), &tokenizer.eos_text())?.knows_tools()
        }
        None => false,
    };
    let mut by_type: HashMap<String, u64> = HashMap::new();
    let mut parameters = 0u64;
    for tensor in gguf.tensors() {
        if tensor.dtype.block().is_none() {
            return Err(LoadError::Unsupported(format!(
                "the tensor '{}' has the type {}, which this engine does not run",
                tensor.name,
                tensor.dtype.name()
            )));
        }
        let count = tensor
            .shape
            .iter()
            .fold(1u64, |product, side| product.saturating_mul(*side as u64));
        parameters = parameters.saturating_add(count);
        *by_type.entry(tensor.dtype.name()).or_default() += count;
    }
    let quantisation = by_type
        .into_iter()
        .max_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)))
        .map(|(name, _)| name)
        .ok_or_else(|| LoadError::Damaged("it holds no tensors".to_owned()))?;
    Ok(FileFacts {
        architecture,
        context_tokens,
        quantisation,
        parameters,
        licence: gguf
            .opt_str("general.license")
            .map(|licence| licence.chars().take(64).collect()),
        tools,
    })
}
