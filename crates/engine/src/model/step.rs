//! One step of one or more sequences.

use super::cache::Cache;
use super::{Model, ModelError};

/// Which logits of a [`Part`] are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None: the tokens only go into the cache.
    None,
    /// Those after the last token.
    #[default]
    Last,
    /// Those after each of so many tokens, which are the last ones.
    Tail(usize),
    /// Those after each token.
    All,
}

impl Wanted {
    /// How many of `tokens` rows are wanted; they are the last ones.
    pub(super) fn rows(self, tokens: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Last => tokens.min(1),
            Self::Tail(rows) => tokens.min(rows),
            Self::All => tokens,
        }
    }
}

/// What one sequence has computed in a step.
pub struct Part<'a> {
    /// The sequence, which `tokens` are appended to.
    pub cache: &'a mut Cache,
    /// At least one.
    pub tokens: &'a [u32],
    /// Which logits come back.
    pub logits: Wanted,
}

impl Model {
    /// Appends each part's tokens to its sequence and computes all together:
    /// weights are read once for all parts. Gives the wanted rows of logits, in
    /// the order of the parts, `vocab_size` numbers each, not normalised.
    ///
    /// A row depends on its own sequence alone: the parts beside it, how a
    /// prompt is cut, and the number of threads change no bit of it (on
    /// [`super::Executor::Reference`], they change its rounding).
    ///
    /// Time and memory grow with the tokens of all parts; cut long prompts.
    ///
    /// # Errors
    /// [`ModelError`]; all sequences are then what they were before.
    pub fn step(&self, parts: &mut [Part<'_>]) -> Result<Vec<Vec<f32>>, ModelError> {
        for part in parts.iter() {
            self.accept(part)?;
        }
        let result = self
            .reserve(parts)
            .and_then(|()| self.run.compute(&self.hyper, &self.ropes, parts));
        for part in parts.iter_mut() {
            match &result {
                Ok(_) => part.cache.commit(part.tokens.len()),
                Err(_) => part.cache.truncate(part.cache.len()),
            }
        }
        result
    }

    /// Appends `tokens` to the sequence and computes the logits after the last
    /// of them: `vocab_size` numbers, not normalised.
    ///
    /// # Errors
    /// As [`Model::step`].
    pub fn forward(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let logits = self.one(cache, tokens, Wanted::Last)?;
        logits.into_iter().next().ok_or(ModelError::NoTokens)
    }

    /// Appends `tokens` and computes the logits after each of them.
    ///
    /// # Errors
    /// As [`Model::step`].
    pub fn forward_all(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        self.one(cache, tokens, Wanted::All)
    }

    fn one(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
        logits: Wanted,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        self.step(&mut [Part {
            cache,
            tokens,
            logits,
        }])
    }

    fn accept(&self, part: &Part<'_>) -> Result<(), ModelError> {
        if !part.cache.is_of(&self.pool) {
            return Err(ModelError::ForeignCache);
        }
        if part.tokens.is_empty() {
            return Err(ModelError::NoTokens);
        }
        let length = part.cache.len().saturating_add(part.tokens.len());
        if length > self.hyper.context {
            return Err(ModelError::ContextLength {
                wanted: length,
                context: self.hyper.context,
            });
        }
        let vocab = self.hyper.vocab;
        match part.tokens.iter().find(|token| **token as usize >= vocab) {
            Some(token) => Err(ModelError::UnknownToken {
                token: *token,
                vocab,
            }),
            None => Ok(()),
        }
    }

    fn reserve(&self, parts: &mut [Part<'_>]) -> Result<(), ModelError> {
        parts
            .iter_mut()
            .try_for_each(|part| part.cache.reserve(part.tokens.len()))
    }
}
