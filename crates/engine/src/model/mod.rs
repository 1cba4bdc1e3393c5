//! A model's weights and what computes with them.
//!
//! One description per family ([`family`]), one set of checked figures per file
//! ([`hyper`]), one list of what a model is made of ([`layers`]), and three
//! executors that run every family from them: [`cpu`] on our own kernels,
//! [`reference`] on the inference library's products, which is the measure for
//! the first and runs the types that it has no kernel for, and [`tensors`] on
//! its tensors, for graphics processors ([`placement`]). The engine has its own
//! model code because the library's models can neither truncate nor share a
//! sequence's keys and values.
//!
//! Sequences keep theirs in blocks ([`pool`], [`cache`]), and several are
//! computed in one step ([`step`]). Tokens come from [`crate::tokenizer`];
//! choosing the next one is not here.

mod cache;
mod cpu;
mod executor;
mod family;
mod hyper;
mod layers;
mod loader;
mod placement;
mod pool;
mod reference;
mod rope;
mod step;
mod tensors;

pub use cache::Cache;
pub use executor::Executor;
pub use placement::{Device, Placement};
pub use pool::{BLOCK_TOKENS, KvBlock, KvPool};
pub use step::{Part, Wanted};

use nearfar_domain::events::FailureKind;
pub use nearfar_domain::frames::KvNumbers;

use crate::gguf::{Gguf, LoadError};
use executor::{Plan, Run};
use hyper::Hyper;
use pool::Layout;
use rope::Ropes;

/// Sequences of the whole context that a model has room for by default.
const KEPT_CONTEXTS: usize = 4;
/// The least room that a model has by default.
const LEAST_CACHE_BYTES: u64 = 256 << 20;

/// A model in memory, ready to compute. Shared by all sequences that use it.
pub struct Model {
    hyper: Hyper,
    ropes: Ropes,
    run: Run,
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
    /// How keys and values are kept on our own kernels; elsewhere they are
    /// `f32`.
    pub kv: KvNumbers,
    /// What computes.
    pub executor: Executor,
    /// Where layers are computed; a device other than the processor comes
    /// before `executor`.
    pub placement: Placement,
    /// How many threads compute, the calling one included; `None` for as many
    /// as the inference library's pool has.
    pub threads: Option<usize>,
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
        let plan = Plan::of(gguf, &hyper, options)?;
        let (run, ropes, memory_bytes) = plan.load(gguf, &hyper, options.threads)?;
        let layout = plan.layout(&hyper);
        let budget = options
            .cache_bytes
            .unwrap_or_else(|| default_cache_bytes(layout, hyper.context));
        // After the weights: what is left of a device's memory is known then.
        let store = plan.store(&hyper, budget)?;
        Ok(Self {
            pool: KvPool::new(layout, budget, store),
            hyper,
            ropes,
            run,
            memory_bytes,
        })
    }

    /// Checks a file as a load with keys and values in `kv` would, without reading its weights.
    ///
    /// # Errors
    /// As [`Model::load`]; weights that are nonsense are not noticed.
    pub fn check(gguf: &Gguf, kv: KvNumbers) -> Result<Figures, LoadError> {
        let hyper = Hyper::read(gguf, None)?;
        let plan = Plan::on_processor(gguf, Executor::default(), kv);
        Ok(Figures {
            architecture: hyper.family.name.to_owned(),
            context_tokens: hyper.context,
            vocab_size: hyper.vocab,
            memory_bytes: plan.check(gguf, &hyper)?,
            cache_bytes_per_token: plan.layout(&hyper).block_bytes() / BLOCK_TOKENS as u64,
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

    /// What computes: the executor that was asked for, or the reference where a
    /// tensor has a type that the kernels do not run.
    pub fn executor(&self) -> Executor {
        self.run.executor()
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

/// Room for a few whole contexts: what is not used is not taken.
fn default_cache_bytes(layout: Layout, context: usize) -> u64 {
    let blocks = (context.div_ceil(BLOCK_TOKENS) * KEPT_CONTEXTS) as u64;
    let bytes = layout.block_bytes().saturating_mul(blocks);
    bytes.max(LEAST_CACHE_BYTES)
}

#[cfg(test)]
mod tests;
