//! What a model file says of itself, and whether the engine can run it.

use std::path::Path;

use nearfar_domain::frames::ModelSource;
use nearfar_engine::gguf::{Gguf, LoadError};
use serde::{Deserialize, Serialize};

use super::store::capabilities;
use super::{CatalogError, EMBEDDED, LocalModel};

/// Facts that are read from a model's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// The architecture, as the file calls it.
    pub architecture: String,
    /// The longest context, in tokens.
    pub context_tokens: u32,
    /// The name that people know the quantisation by: `Q8_0`, `Q4_K_M`, …
    pub quantisation: String,
    /// Weights, counted over all tensors.
    pub parameters: u64,
    /// Weights and a cache of 4,096 tokens in memory, in bytes: an estimate.
    pub memory_bytes: u64,
    /// The licence, where the file names one.
    pub licence: Option<String>,
    /// Whether its chat template offers tools.
    pub tools: bool,
    /// Numbers in a vector, for a model that makes vectors and no words.
    #[serde(default)]
    pub dimensions: Option<u32>,
}

/// Opens a file as the engine would, short of loading its weights; with a
/// `tokenizer.json` in place of its own tokenizer where one is given.
pub(super) fn inspect(path: &Path, sidecar: Option<&Path>) -> Result<FileFacts, CatalogError> {
    Gguf::open(path)
        .and_then(|gguf| facts(&gguf, sidecar))
        .map_err(|error| CatalogError::Unusable {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

/// The model in the binary, with its file's facts. A broken one would be a
/// broken build: it is left out, loudly.
pub fn embedded() -> Option<(LocalModel, FileFacts)> {
    let bytes = nearfar_engine::embedded_model();
    let facts = match Gguf::from_static(bytes).and_then(|gguf| facts(&gguf, None)) {
        Ok(facts) => facts,
        Err(error) => {
            tracing::error!("the model in the binary is left out: {error}");
            return None;
        }
    };
    let model = LocalModel {
        name: EMBEDDED.to_owned(),
        source: ModelSource::Embedded,
        capabilities: capabilities(&facts),
        architecture: facts.architecture.clone(),
        file_bytes: bytes.len() as u64,
        sha256: nearfar_engine::embedded_model_sha256().to_owned(),
        embedding: None,
    };
    Some((model, facts))
}

fn facts(gguf: &Gguf, sidecar: Option<&Path>) -> Result<FileFacts, LoadError> {
    let info = match sidecar {
        Some(sidecar) => nearfar_engine::inspect_with_sidecar(gguf, sidecar)?,
        None => nearfar_engine::inspect(gguf)?,
    };
    Ok(FileFacts {
        architecture: info.architecture,
        context_tokens: info.context_tokens,
        quantisation: info.quantisation,
        parameters: info.parameters,
        memory_bytes: info.memory_bytes,
        licence: gguf
            .opt_str("general.license")
            .map(|licence| licence.chars().take(64).collect()),
        tools: info.tools,
        dimensions: info.dimensions,
    })
}
