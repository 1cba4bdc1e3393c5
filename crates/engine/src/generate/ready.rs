//! A loaded model with everything that turns requests into answers.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nearfar_domain::chat::{Chat, ResponseFormat, ToolChoice};
use nearfar_domain::events::{Failure, FailureKind, TokenLogprob};
use nearfar_domain::frames::DraftLoad;

use super::draft::Draft;
use super::kept::{Kept, Restore};
use super::pace::Pace;
use crate::constrain::{Constraint, Grammars, Reasoning};
use crate::gguf::{Gguf, LoadError};
use crate::inspect::{fits, offers_tools};
use crate::model::{Cache, LoadOptions, Model};
use crate::output::{MARKS, ToolFormat};
use crate::pinned::Shelf;
use crate::sampling::{Choice, Defaults};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A model in memory with its tokenizer, its template and its last conversations.
pub struct ReadyModel {
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
    pub(super) defaults: Defaults,
    pub(super) longest_token: usize,
    marks: Vec<u32>,
    /// Made when a request first asks for a form.
    grammars: OnceLock<Grammars>,
    kept: Arc<Kept>,
    draft: Option<Draft>,
    pace: Mutex<Pace>,
}

impl ReadyModel {
    /// Loads a model, with a `tokenizer.json` where the file's own tokenizer is
    /// not to be used. `name` is what answers call it.
    ///
    /// # Errors
    /// [`LoadError`], in public words.
    pub fn load(name: &str, gguf: &Gguf, sidecar: Option<&Path>) -> Result<Self, LoadError> {
        Self::load_with(name, gguf, sidecar, &LoadOptions::default())
    }

    /// Loads a model otherwise than by default.
    ///
    /// # Errors
    /// As [`ReadyModel::load`].
    pub fn load_with(
        name: &str,
        gguf: &Gguf,
        sidecar: Option<&Path>,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        let tokenizer = match sidecar {
            None => Tokenizer::from_gguf(gguf)?,
            Some(path) => Tokenizer::with_sidecar(gguf, path)?,
        };
        let template = gguf
            .opt_str("tokenizer.chat_template")
            .map(|source| ChatTemplate::new(source, &tokenizer.bos_text(), &tokenizer.eos_text()))
            .transpose()?;
        let model = Model::load_with(gguf, options)?;
        fits(tokenizer.vocab_size(), model.vocab_size())?;
        let marks = MARKS
            .iter()
            .filter_map(|mark| tokenizer.id_of(mark))
            .collect();
        Ok(Self {
            name: name.to_owned(),
            defaults: Defaults::of(gguf),
            longest_token: tokenizer.longest_token().max(1),
            model,
            tokenizer,
            template,
            marks,
            grammars: OnceLock::new(),
            kept: Arc::default(),
            draft: None,
            pace: Mutex::default(),
        })
    }

    /// Answers greedily unless a request says otherwise: for models that repeat
    /// facts, where every other choice is a mistake.
    pub fn greedy_by_default(self) -> Self {
        Self {
            defaults: Defaults {
                temperature: 0.0,
                ..self.defaults
            },
            ..self
        }
    }

    /// With a smaller model that guesses ahead of it.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] when their tokens are not the same: names the
    /// first difference.
    pub fn with_draft(self, draft: Self) -> Result<Self, LoadError> {
        let draft = Draft::new(draft, &self)?;
        Ok(Self {
            draft: Some(draft),
            ..self
        })
    }

    pub(super) fn draft(&self) -> Option<&Draft> {
        self.draft.as_ref()
    }

    /// How its draft fares, where it has one.
    pub fn draft_load(&self) -> Option<DraftLoad> {
        self.draft.as_ref().map(Draft::load)
    }

    /// This model, and its draft where it has one.
    fn parts(&self) -> impl Iterator<Item = &Model> {
        let draft = self.draft.as_ref().map(|draft| &draft.ready().model);
        std::iter::once(&self.model).chain(draft)
    }

    /// Weights of the model and its draft, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.parts().map(Model::memory_bytes).sum()
    }

    /// The most that keys and values of both may take now, in bytes.
    pub fn cache_budget(&self) -> u64 {
        self.parts().map(|part| part.kv_pool().budget_bytes()).sum()
    }

    /// Keys and values of both that are in use, in bytes.
    pub fn cache_used(&self) -> u64 {
        self.parts().map(|part| part.kv_pool().used_bytes()).sum()
    }

    /// Sets the most that keys and values of both may take: each gets its part
    /// by what a token takes there. What is in use already is not taken back.
    pub fn set_cache_budget(&self, bytes: u64) {
        let all: u64 = self.parts().map(Model::cache_bytes_per_token).sum();
        for part in self.parts() {
            let share = u128::from(bytes) * u128::from(part.cache_bytes_per_token())
                / u128::from(all.max(1));
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            let pool = part.kv_pool();
            pool.set_budget_bytes(share.max(pool.used_bytes()));
        }
    }

    /// What answers call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The weights.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether its template offers tools in a form that is read back.
    pub fn offers_tools(&self) -> bool {
        self.template.as_ref().is_some_and(offers_tools)
    }

    /// Weights, and keys and values of all that is under way or kept, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let of = |part: &Model| part.memory_bytes() + part.kv_pool().memory_bytes();
        self.parts().map(of).sum()
    }

    pub(super) fn tool_format(&self) -> ToolFormat {
        self.template.as_ref().map_or(ToolFormat::None, |template| {
            ToolFormat::of_template(template.source())
        })
    }

    /// The constraint that a request asks for.
    ///
    /// # Errors
    /// As [`Grammars::constraint`].
    pub(super) fn constraint(
        &self,
        chat: &Chat,
        format: ToolFormat,
        reasoning: Reasoning,
        begun: &str,
    ) -> Result<Option<Constraint>, Failure> {
        let wanted = chat.response_format != ResponseFormat::Text || format != ToolFormat::None;
        if !wanted
            && !matches!(
                chat.tool_choice,
                ToolChoice::Required | ToolChoice::Named(_)
            )
        {
            return Ok(None);
        }
        let grammars = match self.grammars.get() {
            Some(grammars) => grammars,
            None => {
                // Two requests may both make them; one of the two is kept.
                let made = Grammars::new(&self.tokenizer)
                    .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
                self.grammars.get_or_init(|| made)
            }
        };
        grammars.constraint(chat, format, &self.tokenizer, reasoning, begun)
    }

    /// Whether a token's text belongs to the answer.
    pub(super) fn is_visible(&self, id: u32) -> bool {
        !self.tokenizer.is_control(id) || self.marks.contains(&id)
    }

    /// How many tokens a step may compute to last `time`.
    pub fn piece_tokens(&self, time: Duration) -> usize {
        // Before the first measurement. Big models begin with one token; others
        // with a few, which cost little more than one and tell more.
        self.with_pace(|pace| pace.tokens_within(time))
            .unwrap_or_else(|| {
                usize::try_from((2 << 30) / self.model.memory_bytes().max(1))
                    .unwrap_or(1)
                    .clamp(1, 16)
            })
    }

    /// Remembers how long a step of `tokens` took.
    pub(super) fn measured(&self, tokens: usize, took: Duration) {
        locked(&self.pace).measured(tokens, took);
    }

    /// Looks at the measured speed.
    pub fn with_pace<T>(&self, look: impl FnOnce(&Pace) -> T) -> T {
        look(&locked(&self.pace))
    }

    /// A chosen token as a client sees it, with the alternatives.
    pub(super) fn told(&self, choice: &Choice, logprob: f32) -> TokenLogprob {
        let text = |id: u32| {
            let bytes = self.tokenizer.token_bytes(id);
            (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec())
        };
        let (token, bytes) = text(choice.id);
        TokenLogprob {
            token,
            bytes,
            logprob,
            top: choice
                .top
                .iter()
                .map(|(id, logprob)| {
                    let (token, bytes) = text(*id);
                    (token, bytes, *logprob)
                })
                .collect(),
        }
    }

    /// A sequence that holds as much of `prompt` as is known.
    pub(super) fn take_cache(&self, prompt: &[u32]) -> Cache {
        self.kept
            .prefixes()
            .take(prompt)
            .unwrap_or_else(|| self.model.new_cache())
    }

    /// How many tokens of a prompt need not be computed.
    pub fn known_tokens(&self, prompt: &[u32]) -> usize {
        self.kept.prefixes().known(prompt)
    }

    /// Keeps what was computed of `tokens` for prompts that begin alike; a
    /// pinned one until the model is dropped, as far as there is room, and on
    /// disk where there is a shelf.
    pub(super) fn keep_cache(&self, tokens: &[u32], cache: &Cache, pin: bool) {
        self.kept.keep(tokens, cache, pin);
    }

    /// Pins a prompt of exactly these tokens no longer, in memory and on disk;
    /// says whether it was pinned. What was computed of it stays in memory as
    /// that of any other prompt, until there is no room.
    pub(crate) fn unpin(&self, prompt: &[u32]) -> bool {
        self.kept.unpin(prompt)
    }

    /// Keeps pinned prompts on disk from now on. What is there already comes
    /// back when the returned work is done, or when a prompt needs it first.
    pub(crate) fn use_shelf(&self, shelf: Shelf) -> Restore {
        self.kept.use_shelf(shelf);
        Restore::from(&self.kept)
    }

    /// Reads what the disk has of a prompt and memory has not. Takes as long as
    /// the disk does.
    pub(super) fn bring(&self, prompt: &[u32]) {
        self.kept.bring(prompt);
    }

    /// Makes room for `bytes` more keys and values: what is kept and was unused
    /// for the longest time goes first, pinned prompts last. Returns whether
    /// there is as much room now.
    pub(super) fn make_room(&self, bytes: u64) -> bool {
        let pool = self.model.kv_pool();
        let mut prefixes = self.kept.prefixes();
        loop {
            if pool.used_bytes().saturating_add(bytes) <= pool.budget_bytes() {
                return true;
            }
            if !prefixes.evict() && !prefixes.unpin_oldest() {
                return false;
            }
        }
    }
}

/// Locks. A panic elsewhere cannot leave what is behind these locks half-changed.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
