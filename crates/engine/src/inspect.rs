//! What a model file is, without loading it: for the catalogue.

use std::path::Path;

use crate::embed;
use crate::gguf::{Gguf, LoadError};
use crate::model::{KvNumbers, Model};
use crate::output::ToolFormat;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A cache for this many tokens is part of the memory estimate; a longer
/// conversation takes more.
const ESTIMATE_TOKENS: u64 = 4096;

/// A model file in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name that the file gives itself.
    pub name: Option<String>,
    /// The architecture, as the file calls it.
    pub architecture: String,
    /// The longest context, in tokens.
    pub context_tokens: u32,
    /// Number of weights.
    pub parameters: u64,
    /// The name that people know the quantisation by, such as `Q4_K_M`.
    pub quantisation: String,
    /// Whether its template offers tools in a form that the engine reads back.
    pub tools: bool,
    /// Weights and a cache of 4,096 tokens, in bytes.
    pub memory_bytes: u64,
    /// Numbers in a vector, for a model that makes vectors and no words.
    pub dimensions: Option<u32>,
}

/// Describes a model file and refuses, in the words of a load, what the engine
/// could not run. Reads the header alone; its weights may still be nonsense.
///
/// # Errors
/// [`LoadError`], as a load would give it.
pub fn inspect(gguf: &Gguf) -> Result<ModelInfo, LoadError> {
    if embed::is_embedding_model(gguf) {
        return describe_embedder(gguf, None);
    }
    describe(gguf, Tokenizer::from_gguf)
}

/// As [`inspect`], for a model that is run with a `tokenizer.json` beside it.
///
/// # Errors
/// [`LoadError`], as a load would give it.
pub fn inspect_with_sidecar(gguf: &Gguf, sidecar: &Path) -> Result<ModelInfo, LoadError> {
    if embed::is_embedding_model(gguf) {
        return describe_embedder(gguf, Some(sidecar));
    }
    describe(gguf, |gguf| Tokenizer::with_sidecar(gguf, sidecar))
}

fn describe_embedder(gguf: &Gguf, sidecar: Option<&Path>) -> Result<ModelInfo, LoadError> {
    let figures = embed::check(gguf, sidecar)?;
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(ModelInfo {
        name: own_name(gguf),
        architecture: figures.architecture,
        context_tokens: short(figures.context_tokens),
        parameters: parameters(gguf),
        quantisation: quantisation(gguf),
        tools: false,
        memory_bytes: figures.memory_bytes,
        dimensions: Some(short(figures.dimensions)),
    })
}

fn own_name(gguf: &Gguf) -> Option<String> {
    let name = gguf.opt_str("general.name")?;
    Some(name.chars().take(200).collect())
}

fn describe(
    gguf: &Gguf,
    tokenizer: impl FnOnce(&Gguf) -> Result<Tokenizer, LoadError>,
) -> Result<ModelInfo, LoadError> {
    let figures = Model::check(gguf, KvNumbers::default())?;
    let tokenizer = tokenizer(gguf)?;
    fits(tokenizer.vocab_size(), figures.vocab_size)?;
    let tools = match gguf.opt_str("tokenizer.chat_template") {
        None => false,
        Some(source) => {
            let template = ChatTemplate::new(source, &tokenizer.bos_text(), &tokenizer.eos_text())?;
            offers_tools(&template)
        }
    };
    let cached = ESTIMATE_TOKENS.min(figures.context_tokens as u64);
    Ok(ModelInfo {
        name: own_name(gguf),
        architecture: figures.architecture,
        context_tokens: u32::try_from(figures.context_tokens).unwrap_or(u32::MAX),
        parameters: parameters(gguf),
        quantisation: quantisation(gguf),
        tools,
        memory_bytes: figures
            .memory_bytes
            .saturating_add(cached.saturating_mul(figures.cache_bytes_per_token)),
        dimensions: None,
    })
}

/// What a load will take in memory, in bytes, with a cache of 4,096 tokens.
///
/// # Errors
/// As a load would give it.
pub(crate) fn needed_bytes(gguf: &Gguf, kv: KvNumbers) -> Result<u64, LoadError> {
    if embed::is_embedding_model(gguf) {
        return embed::needed_bytes(gguf);
    }
    let figures = Model::check(gguf, kv)?;
    let cached = ESTIMATE_TOKENS.min(figures.context_tokens as u64);
    Ok(figures
        .memory_bytes
        .saturating_add(cached.saturating_mul(figures.cache_bytes_per_token)))
}

/// Whether a template offers tools in a form that the engine reads back.
pub(crate) fn offers_tools(template: &ChatTemplate) -> bool {
    template.knows_tools() && ToolFormat::of_template(template.source()) != ToolFormat::None
}

/// What is different first between the tokens of two model files, each with a
/// `tokenizer.json` beside it or none, in words that call the second one the
/// draft's; `None` where the second model can guess ahead of the first.
///
/// # Errors
/// [`LoadError`] when one of the tokenizers cannot be read.
pub fn token_difference(
    model: (&Path, Option<&Path>),
    draft: (&Path, Option<&Path>),
) -> Result<Option<String>, LoadError> {
    let read = |(file, sidecar): (&Path, Option<&Path>)| {
        let gguf = Gguf::open(file)?;
        match sidecar {
            None => Tokenizer::from_gguf(&gguf),
            Some(sidecar) => Tokenizer::with_sidecar(&gguf, sidecar),
        }
    };
    Ok(read(model)?.first_difference(&read(draft)?))
}

/// A tokenizer may know fewer tokens than the model (padding), never more.
pub(crate) fn fits(tokenizer: usize, model: usize) -> Result<(), LoadError> {
    if tokenizer > model {
        return Err(LoadError::key(
            "tokenizer.ggml.tokens",
            format!("has {tokenizer} tokens, but the weights know {model}"),
        ));
    }
    Ok(())
}

fn parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().fold(0u64, |sum, tensor| {
        let elements = tensor
            .shape
            .iter()
            .fold(1u64, |product, size| product.saturating_mul(*size as u64));
        sum.saturating_add(elements)
    })
}

/// llama.cpp's `general.file_type`, else the type that most bytes have.
fn quantisation(gguf: &Gguf) -> String {
    let named = [
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (21, "Q2_K_S"),
        (32, "BF16"),
    ];
    if let Ok(number) = gguf.u32("general.file_type")
        && let Some((_, name)) = named.iter().find(|(n, _)| *n == number)
    {
        return (*name).to_owned();
    }
    let mut bytes: Vec<(u64, String)> = Vec::new();
    for tensor in gguf.tensors() {
        let name = tensor.dtype.name();
        match bytes.iter_mut().find(|(_, known)| *known == name) {
            Some((sum, _)) => *sum = sum.saturating_add(tensor.byte_len()),
            None => bytes.push((tensor.byte_len(), name)),
        }
    }
    bytes
        .into_iter()
        .max()
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name)
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
