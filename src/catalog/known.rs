//! Small models that people use: facts for choosing and fetching one. A fact
//! that could not be checked is left out of the file, never guessed.

use std::sync::OnceLock;

use nearfar_domain::embed::EmbeddingCard;
use serde::{Deserialize, Serialize};

use super::{HfFile, Origin};

/// A model that `nearfar model add NAME` can fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its name here.
    pub name: String,
    /// Its makers' name for it.
    pub title: String,
    /// Who made it.
    pub maker: String,
    /// What it is good for, in one sentence.
    pub summary: String,
    /// The architecture, as its file calls it.
    pub architecture: String,
    /// Whether this engine runs it.
    pub runs: bool,
    /// If it does not: why.
    pub why_not: Option<String>,
    /// The licence: an SPDX identifier, or the makers' own name for it.
    pub licence: String,
    /// Weights, as its makers count them.
    pub parameters: u64,
    /// The longest context that it was made for, in tokens.
    pub context_tokens: u32,
    /// Where the file is.
    pub source: Source,
    /// What it can do.
    pub capabilities: Abilities,
    /// What it takes to run.
    pub memory: Memory,
    /// For a model that makes vectors: what its file has no place for.
    #[serde(default)]
    pub embedding: Option<EmbeddingCard>,
}

/// Where a known model's file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Hugging Face repository, `owner/name`.
    pub repository: String,
    /// The file inside it.
    pub file: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The type that most weights have.
    pub quantisation: String,
    /// The file's length, where it was checked.
    pub bytes: Option<u64>,
    /// The file's SHA-256, where it was checked; without it, pinned at the first pull.
    pub sha256: Option<String>,
}

/// What a known model can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abilities {
    /// Answers in conversations.
    pub chat: bool,
    /// Calls tools.
    pub tools: bool,
    /// Reasons before it answers.
    pub reasoning: bool,
    /// Turns text into vectors.
    pub embeddings: bool,
}

/// An estimate: the file, and the KV cache of one conversation of this length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// In MiB.
    pub estimate_mib: u32,
    /// With so many tokens in the cache.
    pub at_context: u32,
}

impl Known {
    /// Its file.
    pub fn hf_file(&self) -> HfFile {
        HfFile {
            repo: self.source.repository.clone(),
            file: self.source.file.clone(),
            revision: self.source.revision.clone(),
        }
    }
}

/// The files behind the list.
const TEXTS: &[(&str, &str)] = &[
    (
        "all-minilm-l6-v2.toml",
        include_str!("../../models/all-minilm-l6-v2.toml"),
    ),
    (
        "bge-small-en-v1.5.toml",
        include_str!("../../models/bge-small-en-v1.5.toml"),
    ),
    (
        "e5-small-v2.toml",
        include_str!("../../models/e5-small-v2.toml"),
    ),
    (
        "nomic-embed-text-v1.5.toml",
        include_str!("../../models/nomic-embed-text-v1.5.toml"),
    ),
    (
        "gemma-3-1b.toml",
        include_str!("../../models/gemma-3-1b.toml"),
    ),
    (
        "gemma-3-270m.toml",
        include_str!("../../models/gemma-3-270m.toml"),
    ),
    (
        "gemma-3-4b.toml",
        include_str!("../../models/gemma-3-4b.toml"),
    ),
    (
        "granite-4.0-micro.toml",
        include_str!("../../models/granite-4.0-micro.toml"),
    ),
    (
        "lfm2-1.2b.toml",
        include_str!("../../models/lfm2-1.2b.toml"),
    ),
    (
        "llama-3.2-1b.toml",
        include_str!("../../models/llama-3.2-1b.toml"),
    ),
    (
        "llama-3.2-3b.toml",
        include_str!("../../models/llama-3.2-3b.toml"),
    ),
    (
        "phi-4-mini.toml",
        include_str!("../../models/phi-4-mini.toml"),
    ),
    (
        "qwen3-0.6b.toml",
        include_str!("../../models/qwen3-0.6b.toml"),
    ),
    (
        "qwen3-1.7b.toml",
        include_str!("../../models/qwen3-1.7b.toml"),
    ),
    ("qwen3-4b.toml", include_str!("../../models/qwen3-4b.toml")),
    (
        "qwen3-embedding-0.6b.toml",
        include_str!("../../models/qwen3-embedding-0.6b.toml"),
    ),
    (
        "smollm2-1.7b.toml",
        include_str!("../../models/smollm2-1.7b.toml"),
    ),
    (
        "smollm2-360m.toml",
        include_str!("../../models/smollm2-360m.toml"),
    ),
    (
        "smollm3-3b.toml",
        include_str!("../../models/smollm3-3b.toml"),
    ),
];

/// All of them, by name.
pub fn all() -> &'static [Known] {
    static ALL: OnceLock<Vec<Known>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut models: Vec<Known> = Vec::with_capacity(TEXTS.len());
        for (file, text) in TEXTS {
            match toml::from_str(text) {
                Ok(model) => models.push(model),
                // A test parses every file, so this is a broken build.
                Err(error) => tracing::error!(file, "a known model is left out: {error}"),
            }
        }
        models.sort_by(|a: &Known, b: &Known| a.name.cmp(&b.name));
        models
    })
}

/// What is known of the vectors of the model that comes from there.
pub(super) fn embedding_of(origin: &Origin) -> Option<EmbeddingCard> {
    let Origin::HuggingFace { repo, file, .. } = origin else {
        return None;
    };
    let from = |known: &&Known| known.source.repository == *repo && known.source.file == *file;
    all().iter().find(from)?.embedding.clone()
}

/// One of them.
pub fn find(name: &str) -> Option<&'static Known> {
    all().iter().find(|model| model.name == name)
}
