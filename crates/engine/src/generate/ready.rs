//! A loaded model with everything that turns requests into answers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use nearfar_domain::chat::{Chat, ResponseFormat, ToolChoice};
use nearfar_domain::events::{Failure, FailureKind};

use crate::constrain::{Constraint, Grammars, Reasoning};
use crate::gguf::{Gguf, LoadError};
use crate::inspect::{fits, offers_tools};
use crate::model::{Cache, Model};
use crate::output::{MARKS, ToolFormat};
use crate::sampling::Defaults;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A piece of the prompt should take this long: a cancelled answer gives the
/// processor back within 50 ms.
const CHUNK_TIME: Duration = Duration::from_millis(30);
/// Longer pieces make the prompt no faster and take more memory.
const MAX_CHUNK: usize = 256;
/// Conversations whose keys and values stay in memory, per model.
const KEPT: usize = 2;

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
    kept: Mutex<Vec<Kept>>,
    /// Nanoseconds per token of the prompt; 0 until measured.
    prefill_ns: AtomicU64,
}

/// The keys and values of `tokens`.
struct Kept {
    tokens: Vec<u32>,
    cache: Cache,
}

impl ReadyModel {
    /// Loads a model, with a `tokenizer.json` where the file's own tokenizer is
    /// not to be used. `name` is what answers call it.
    ///
    /// # Errors
    /// [`LoadError`], in public words.
    pub fn load(name: &str, gguf: &Gguf, sidecar: Option<&Path>) -> Result<Self, LoadError> {
        let tokenizer = match sidecar {
            None => Tokenizer::from_gguf(gguf)?,
            Some(path) => Tokenizer::with_sidecar(gguf, path)?,
        };
        let template = gguf
            .opt_str("tokenizer.chat_template")
            .map(|source| ChatTemplate::new(source, &tokenizer.bos_text(), &tokenizer.eos_text()))
            .transpose()?;
        let model = Model::load(gguf)?;
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
            kept: Mutex::new(Vec::new()),
            prefill_ns: AtomicU64::new(0),
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

    /// Weights and kept caches, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let caches: u64 = self
            .lock_kept()
            .iter()
            .map(|kept| kept.cache.memory_bytes())
            .sum();
        self.model.memory_bytes() + caches
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
        grammars.constraint(chat, format, &self.tokenizer, reasoning)
    }

    /// Whether a token's text belongs to the answer.
    pub(super) fn is_visible(&self, id: u32) -> bool {
        !self.tokenizer.is_control(id) || self.marks.contains(&id)
    }

    /// How many tokens of a prompt to compute at once.
    pub(super) fn chunk_tokens(&self) -> usize {
        match self.prefill_ns.load(Ordering::Relaxed) {
            // Before the first measurement: big models begin with one token.
            0 => usize::try_from((256 << 20) / self.model.memory_bytes().max(1))
                .unwrap_or(1)
                .clamp(1, 16),
            ns => usize::try_from(CHUNK_TIME.as_nanos() as u64 / ns)
                .unwrap_or(1)
                .clamp(1, MAX_CHUNK),
        }
    }

    /// Remembers how fast a piece of a prompt was. A slower one counts at once,
    /// a faster one by half: cancelling in time matters more than throughput.
    pub(super) fn measured_prefill(&self, tokens: usize, took: Duration) {
        let ns = (took.as_nanos() as u64 / tokens.max(1) as u64).max(1);
        let before = self.prefill_ns.load(Ordering::Relaxed);
        let now = if before == 0 || ns >= before {
            ns
        } else {
            before.midpoint(ns)
        };
        self.prefill_ns.store(now, Ordering::Relaxed);
    }

    /// A cache that holds as much of `prompt` as any kept one does, and how much.
    pub(super) fn take_cache(&self, prompt: &[u32]) -> (Cache, usize) {
        let mut kept = self.lock_kept();
        let best = kept
            .iter()
            .enumerate()
            .map(|(index, kept)| (common_prefix(&kept.tokens, prompt), index))
            .max();
        let Some((common @ 1.., index)) = best else {
            return (self.model.new_cache(), 0);
        };
        let mut cache = kept.remove(index).cache;
        cache.truncate(common);
        let held = cache.len();
        (cache, held)
    }

    /// Keeps a conversation's keys and values; the oldest one makes room.
    pub(super) fn keep_cache(&self, tokens: Vec<u32>, cache: Cache) {
        let mut kept = self.lock_kept();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(Kept { tokens, cache });
    }

    fn lock_kept(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        // A panic elsewhere cannot leave the list half-changed.
        self.kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
