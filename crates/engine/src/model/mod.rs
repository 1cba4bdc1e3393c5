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
mod rope;
mod weights;

pub use cache::Cache;

use nearfar_domain::events::FailureKind;

use crate::gguf::{Gguf, LoadError};
use decoder::{Block, Wanted};
use hyper::Hyper;
use rope::Ropes;
use weights::{Loader, Matrix, Vector};

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
    /// The cache was made by a model of another shape.
    #[error("the cache belongs to another model")]
    ForeignCache,
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
    /// on every short prompt. [`Model::load_for`] chooses otherwise.
    ///
    /// # Errors
    /// [`LoadError`] names the key or tensor that is missing, wrong or not
    /// supported. Nothing larger than the file's own tensors is allocated.
    pub fn load(gguf: &Gguf) -> Result<Self, LoadError> {
        Self::build(Loader::new(gguf), Hyper::read(gguf, None)?)
    }

    /// Checks a file as [`Model::load`] would, without reading its weights.
    ///
    /// # Errors
    /// As [`Model::load`]; weights that are nonsense are not noticed.
    pub fn check(gguf: &Gguf) -> Result<Figures, LoadError> {
        let hollow = Self::build(Loader::dry(gguf), Hyper::read(gguf, None)?)?;
        Ok(Figures {
            architecture: hollow.architecture().to_owned(),
            context_tokens: hollow.context_tokens(),
            vocab_size: hollow.vocab_size(),
            memory_bytes: hollow.memory_bytes(),
            cache_bytes_per_token: hollow.cache_bytes_per_token(),
        })
    }

    /// Loads a model for a context of `context_tokens`, at most the one that
    /// its file was trained for.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_for(gguf: &Gguf, context_tokens: usize) -> Result<Self, LoadError> {
        Self::build(Loader::new(gguf), Hyper::read(gguf, Some(context_tokens))?)
    }

    fn build(mut loader: Loader<'_>, hyper: Hyper) -> Result<Self, LoadError> {
        let embedding = loader.matrix("token_embd.weight", hyper.vocab, hyper.width)?;
        let output_norm = loader.vector("output_norm.weight", hyper.width)?;
        let output = loader.opt_matrix("output.weight", hyper.vocab, hyper.width)?;
        let ropes = Ropes::load(&mut loader, &hyper)?;
        let blocks = (0..hyper.layers)
            .map(|index| Block::load(&mut loader, &hyper, index))
            .collect::<Result<Vec<_>, _>>()?;
        let memory_bytes = loader.finish()?;
        Ok(Self {
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

    /// What one token takes in a [`Cache`], in bytes.
    pub fn cache_bytes_per_token(&self) -> u64 {
        (self.hyper.layers * self.hyper.kv_width() * 2 * size_of::<f32>()) as u64
    }

    /// An empty sequence.
    pub fn new_cache(&self) -> Cache {
        Cache::new(self.hyper.layers, self.hyper.kv_width())
    }

    /// Appends `tokens` to the sequence and computes the logits after the last
    /// of them: `vocab_size` numbers, not normalised.
    ///
    /// Time and memory grow with `tokens`; cut long prompts into pieces, which
    /// gives the same result.
    ///
    /// # Errors
    /// [`ModelError`]; the sequence is then what it was before.
    pub fn forward(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.run(cache, tokens, Wanted::Last)
    }

    /// Appends `tokens` and computes the logits after each of them.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_all(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let logits = self.run(cache, tokens, Wanted::All)?;
        Ok(logits
            .chunks_exact(self.hyper.vocab)
            .map(<[f32]>::to_vec)
            .collect())
    }

    fn run(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
        wanted: Wanted,
    ) -> Result<Vec<f32>, ModelError> {
        if !cache.fits(self.hyper.layers, self.hyper.kv_width()) {
            return Err(ModelError::ForeignCache);
        }
        if tokens.is_empty() {
            return Err(ModelError::NoTokens);
        }
        let before = cache.len();
        let length = before.saturating_add(tokens.len());
        if length > self.hyper.context {
            return Err(ModelError::ContextLength {
                wanted: length,
                context: self.hyper.context,
            });
        }
        if let Some(token) = tokens
            .iter()
            .find(|token| **token as usize >= self.hyper.vocab)
        {
            return Err(ModelError::UnknownToken {
                token: *token,
                vocab: self.hyper.vocab,
            });
        }
        // Once inside the pool, its threads share work without a wake-up each time.
        let result = match weights::may_share() {
            true => rayon::scope(|_| self.compute(cache, tokens, wanted)),
            false => self.compute(cache, tokens, wanted),
        };
        match &result {
            Ok(_) => cache.commit(tokens.len()),
            Err(_) => cache.truncate(before),
        }
        result
    }
}

#[cfg(test)]
mod tests;
