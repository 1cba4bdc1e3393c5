//! How fast a model file runs here, and the limit that memory sets to it.
//!
//! Decoding reads every weight once per token, so a device cannot decode faster
//! than its memory can be read: [`crate::measure::read_bandwidth`] measures that,
//! [`Bench`] measures the model.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::gguf::{Gguf, LoadError};
use crate::model::{Cache, LoadOptions, Model, ModelError};

/// Tokens of a prompt that are computed at once, as the worker does at most.
const CHUNK: usize = 256;

/// A loaded model to be measured.
pub struct Bench {
    model: Model,
    cache: Cache,
    /// Bytes of weights that one token reads.
    bytes_per_token: u64,
    load: Duration,
}

impl Bench {
    /// Loads a model file. `threads` as in [`crate::Options`]; the first call
    /// of a process counts.
    ///
    /// # Errors
    /// [`LoadError`], in public words.
    pub fn open(path: &Path, threads: Option<usize>) -> Result<Self, LoadError> {
        Self::load(|| Gguf::open(path), threads)
    }

    /// As [`Bench::open`], for the model that ships inside the binary.
    ///
    /// # Errors
    /// As [`Bench::open`].
    pub fn embedded(threads: Option<usize>) -> Result<Self, LoadError> {
        Self::load(crate::embedded, threads)
    }

    fn load(
        open: impl FnOnce() -> Result<Gguf, LoadError>,
        threads: Option<usize>,
    ) -> Result<Self, LoadError> {
        crate::worker::use_threads(threads);
        let begun = Instant::now();
        let gguf = open()?;
        if crate::embed::is_embedding_model(&gguf) {
            return Err(LoadError::Unsupported(
                "this model makes vectors; only models that answer in words are measured"
                    .to_owned(),
            ));
        }
        let options = LoadOptions {
            threads,
            ..LoadOptions::default()
        };
        let model = Model::load_with(&gguf, &options)?;
        Ok(Self {
            load: begun.elapsed(),
            cache: model.new_cache(),
            bytes_per_token: bytes_per_token(&gguf),
            model,
        })
    }

    /// How long the load took.
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// The longest sequence, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.model.context_tokens()
    }

    /// Weights in memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.bytes_per_token
    }

    /// Computes a prompt of so many tokens from nothing.
    ///
    /// # Errors
    /// It does not fit the context.
    pub fn prefill(&mut self, tokens: usize) -> Result<Duration, ModelError> {
        self.cache = self.model.new_cache();
        let prompt = self.tokens(0, tokens);
        let begun = Instant::now();
        for piece in prompt.chunks(CHUNK) {
            self.model.forward(&mut self.cache, piece)?;
        }
        Ok(begun.elapsed())
    }

    /// Decodes `steps` tokens after a prompt of `depth`, and returns what each
    /// took. The prompt is computed only where the last call had another.
    ///
    /// # Errors
    /// It does not fit the context.
    pub fn decode(&mut self, depth: usize, steps: usize) -> Result<Vec<Duration>, ModelError> {
        if depth == 0 || self.cache.len() < depth {
            self.cache = self.model.new_cache();
            for piece in self.tokens(0, depth).chunks(CHUNK) {
                self.model.forward(&mut self.cache, piece)?;
            }
        }
        self.cache.truncate(depth);
        let mut times = Vec::with_capacity(steps);
        for token in self.tokens(depth, steps) {
            let begun = Instant::now();
            self.model.forward(&mut self.cache, &[token])?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }

    /// Tokens of no meaning, spread over the vocabulary.
    fn tokens(&self, from: usize, count: usize) -> Vec<u32> {
        let vocabulary = self.model.vocab_size().max(1) as u64;
        let at = |place: usize| (place as u64 * 7_919 + 13) % vocabulary;
        (from..from + count).map(|place| at(place) as u32).collect()
    }
}

/// Bytes of a file that decoding one token reads: every weight but the
/// embedding, of which one row is read; a file without an output matrix
/// multiplies with the embedding instead.
pub fn bytes_per_token(gguf: &Gguf) -> u64 {
    let tied = gguf.tensor_info("output.weight").is_none();
    gguf.tensors()
        .filter(|info| tied || info.name != "token_embd.weight")
        .map(|info| info.byte_len())
        .sum()
}

/// The middle one; of an even number the later of the two.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_embedded_model_is_measured_at_every_depth() {
        let mut bench = Bench::embedded(Some(1)).unwrap();
        assert!(bench.bytes_per_token() > 0);
        assert!(bench.bytes_per_token() <= bench.memory_bytes());
        assert!(bench.prefill(40).unwrap() > Duration::ZERO);
        for depth in [0, 20, 20, 64] {
            let mut times = bench.decode(depth, 3).unwrap();
            assert_eq!(times.len(), 3);
            assert!(median(&mut times) > Duration::ZERO);
        }
        let beyond = bench.context_tokens();
        assert!(bench.decode(beyond, 1).is_err());
    }
}
