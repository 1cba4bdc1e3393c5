//! A model's weights and what computes with them.
//!
//! One description per family ([`family`]), one set of checked figures per file
//! ([`hyper`]), and one decoder ([`decoder`]) that runs every family from the
//! two. The engine has its own model code because the inference library's
//! models can neither truncate nor share a sequence's keys and values.
//!
//! Weights stay quantised; the library multiplies by them ([`weights`]). All
//! the rest (norms, rotary embedding, attention) works on plain `f32` slices.
//! Tokens come from [`crate::tokenizer`]; choosing the next one is not here.

mod attention;
mod cache;
mod decoder;
mod family;
mod hyper;
mod numeric;
mod pool;
mod rope;
mod step;
mod weights;

pub use cache::Cache;
pub use pool::{BLOCK_TOKENS, KvBlock, KvPool};
pub use step::{Part, Wanted};

use nearfar_domain::events::FailureKind;

use crate::gguf::{Gguf, LoadError};
use decoder::Block;
use hyper::Hyper;
use pool::{Form, Layout};
use rope::Ropes;
use weights::{Loader, Matrix, Vector};

/// Sequences of the whole context that a model has room for by default.
const KEPT_CONTEXTS: usize = 4;
/// The least room that a model has by default.
const LEAST_CACHE_BYTES: u64 = 256 << 20;

/// A model in memory, ready to compute. Shared by all sequences that use it.
pub struct Model {
    hyper: Hyper,
    ropes: Ropes,
    /// `vocab x width`; also the output projection where the file has none.
    embedding: Matrix,
    blocks: Vec<Block>,
    output_norm: Vector,
    output: Option<Matrix>,
    memory_bytes: u64,
    pool: KvPool,
}

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The longest sequence, in tokens, at most what the model was trained for;
    /// `None` for what the file states.
    pub context_tokens: Option<usize>,
    /// The most that keys and values of all sequences may take, in bytes;
    /// `None` for four sequences of the whole context, and at least 256 MiB.
    /// [`KvPool::set_budget_bytes`] changes it later.
    pub cache_bytes: Option<u64>,
}

/// What a model's file says that it would be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// See [`Model::architecture`].
    pub architecture: String,
    /// See [`Model::context_tokens`].
    pub context_tokens: usize,
    /// See [`Model::vocab_size`].
    pub vocab_size: usize,
    /// See [`Model::memory_bytes`].
    pub memory_bytes: u64,
    /// See [`Model::cache_bytes_per_token`].
    pub cache_bytes_per_token: u64,
}

/// Why a computation was refused or failed. The texts carry no content.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The sequence would grow past the context.
    #[error("{wanted} tokens do not fit this model's context of {context}")]
    ContextLength {
        /// Length of the sequence with the new tokens.
        wanted: usize,
        /// The most that fits.
        context: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token} is not one of the vocabulary's {vocab}")]
    UnknownToken {
        /// Its id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// No tokens were given.
    #[error("there is nothing to compute: no tokens were given")]
    NoTokens,
    /// The cache was made by another model.
    #[error("the cache belongs to another model")]
    ForeignCache,
    /// The budget for keys and values is used up.
    #[error(
        "no room for more keys and values: {used_bytes} of {budget_bytes} bytes are in use; \
         free a conversation or allow more"
    )]
    NoRoom {
        /// What blocks in use take.
        used_bytes: u64,
        /// What they may take.
        budget_bytes: u64,
    },
    /// Infinite or undefined logits: the weights are damaged.
    #[error("the model computed numbers that are not finite; its file is probably damaged")]
    NotFinite,
    /// The inference library refused.
    #[error("the computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}

impl ModelError {
    /// The kind that decides what may be tried next.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::ContextLength { .. } => FailureKind::ContextLength,
            Self::UnknownToken { .. } | Self::NoTokens => FailureKind::BadRequest,
            Self::NoRoom { .. } => FailureKind::Overloaded,
            Self::NotFinite => FailureKind::ModelBroken,
            Self::ForeignCache | Self::Compute(_) => FailureKind::Internal,
        }
    }
}

impl Model {
    /// Loads a model for the context that its file states.
    ///
    /// A file with two sets of rotary factors (phi3's "longrope") is loaded
    /// with the short set and its original context: the long set costs quality
    /// on every short prompt. [`LoadOptions::context_tokens`] chooses otherwise.
    ///
    /// # Errors
    /// [`LoadError`] names the key or tensor that is missing, wrong or not
    /// supported. Nothing larger than the file's own tensors is allocated.
    pub fn load(gguf: &Gguf) -> Result<Self, LoadError> {
        Self::load_with(gguf, &LoadOptions::default())
    }

    /// Loads a model otherwise than by default.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(gguf: &Gguf, options: &LoadOptions) -> Result<Self, LoadError> {
        let hyper = Hyper::read(gguf, options.context_tokens)?;
        Self::build(Loader::new(gguf), hyper, options)
    }

    /// Checks a file as [`Model::load`] would, without reading its weights.
    ///
    /// # Errors
    /// As [`Model::load`]; weights that are nonsense are not noticed.
    pub fn check(gguf: &Gguf) -> Result<Figures, LoadError> {
        let hollow = Self::build(
            Loader::dry(gguf),
            Hyper::read(gguf, None)?,
            &LoadOptions::default(),
        )?;
        Ok(Figures {
            architecture: hollow.architecture().to_owned(),
            context_tokens: hollow.context_tokens(),
            vocab_size: hollow.vocab_size(),
            memory_bytes: hollow.memory_bytes(),
            cache_bytes_per_token: hollow.cache_bytes_per_token(),
        })
    }

    fn build(
        mut loader: Loader<'_>,
        hyper: Hyper,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        let embedding = loader.matrix("token_embd.weight", hyper.vocab, hyper.width)?;
        let output_norm = loader.vector("output_norm.weight", hyper.width)?;
        let output = loader.opt_matrix("output.weight", hyper.vocab, hyper.width)?;
        let ropes = Ropes::load(&mut loader, &hyper)?;
        let blocks = (0..hyper.layers)
            .map(|index| Block::load(&mut loader, &hyper, index))
            .collect::<Result<Vec<_>, _>>()?;
        let memory_bytes = loader.finish()?;
        let layout = Layout {
            layers: hyper.layers,
            kv_heads: hyper.kv_heads,
            head_dim: hyper.head_dim,
            form: Form::Rows,
        };
        let budget = options.cache_bytes.unwrap_or_else(|| {
            let blocks = (hyper.context.div_ceil(BLOCK_TOKENS) * KEPT_CONTEXTS) as u64;
            layout
                .block_bytes()
                .saturating_mul(blocks)
                .max(LEAST_CACHE_BYTES)
        });
        Ok(Self {
            pool: KvPool::new(layout, budget),
            hyper,
            ropes,
            embedding,
            blocks,
            output_norm,
            output,
            memory_bytes,
        })
    }

    /// The file's `general.architecture`.
    pub fn architecture(&self) -> &str {
        self.hyper.family.name
    }

    /// The longest sequence, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.hyper.context
    }

    /// How many tokens the vocabulary has.
    pub fn vocab_size(&self) -> usize {
        self.hyper.vocab
    }

    /// What the weights take in memory, in bytes; caches come on top.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// What one token takes in a [`Cache`], in bytes; a cache grows by
    /// [`BLOCK_TOKENS`] at once.
    pub fn cache_bytes_per_token(&self) -> u64 {
        self.pool.block_bytes() / BLOCK_TOKENS as u64
    }

    /// Where its sequences' keys and values lie.
    pub fn kv_pool(&self) -> &KvPool {
        &self.pool
    }

    /// An empty sequence.
    pub fn new_cache(&self) -> Cache {
        self.pool.new_cache()
    }
}

#[cfg(test)]
mod tests;
