//! Answers that must have a form: JSON that fits a schema, a regular
//! expression, a grammar, a tool call.
//!
//! A request's wishes become one grammar in llguidance's Lark dialect
//! ([`lark`]); llguidance tells after each token which tokens may follow. A
//! [`Constraint`] is that for one answer: it knows when the grammar begins
//! (after the reasoning, or where the model opens a tool call by itself) and
//! when nothing may follow. What is not here: reading the answer
//! ([`crate::output`]) and choosing the token ([`crate::sampling`]).
//!
//! Grammars come from outside. Their size, the work to compile one and the
//! work per token are bounded, and what is refused is refused before the
//! answer begins, with the place in the schema.

mod gbnf;
mod lark;
mod live;
mod pattern;
mod schema;
mod tools;
mod vocabulary;

use std::sync::{Mutex, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use nearfar_domain::chat::{Chat, ResponseFormat, ToolChoice};
use nearfar_domain::events::{Failure, FailureKind};

use lark::Spacing;
pub use live::{Constraint, ConstraintError, Mask};

use crate::gguf::LoadError;
use crate::output::ToolFormat;
use crate::tokenizer::Tokenizer;

/// The longest grammar, regular expression or schema, in bytes.
const MAX_SOURCE: usize = 256 << 10;
/// Compiled grammars that are kept: an app sends the same schema each turn.
const KEPT: usize = 16;
/// Kept grammars hold their lexer's states; beyond this one is compiled anew.
const MAX_STATES: usize = 50_000;

/// How an answer's reasoning begins and ends, as far as a constraint must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// There is none: the answer begins at once.
    None,
    /// The model may begin with `open`; the reasoning ends with `end`.
    Possible {
        /// The token `<think>`.
        open: u32,
        /// The token `</think>`.
        end: u32,
    },
    /// The prompt has opened it; it ends with this token, `</think>`.
    Open {
        /// The token `</think>`.
        end: u32,
    },
}

/// What turns a request's wishes into constraints over one model's tokens.
pub struct Grammars {
    factory: ParserFactory,
    /// Line breaks between reasoning and answer.
    gap: Vec<u32>,
    kept: Mutex<Vec<(String, Matcher)>>,
}

impl Grammars {
    /// Prepares a model's vocabulary: about 0.3 s for 150,000 tokens.
    ///
    /// # Errors
    /// When the vocabulary cannot be used, in public words.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, LoadError> {
        let environment: TokEnv = vocabulary::environment(tokenizer);
        let refuse = |_| {
            LoadError::Unsupported(
                "the model's vocabulary cannot be used with grammars; its tokens are damaged"
                    .to_owned(),
            )
        };
        let capabilities = InferenceCapabilities {
            ff_tokens: environment.tokenize_is_canonical(),
            ..InferenceCapabilities::default()
        };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let gap = environment.tokenize("\n\n");
        let mut factory =
            ParserFactory::new(&environment, capabilities, &slices).map_err(refuse)?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_grammar_size: 200_000,
            max_lexer_states: 2 * MAX_STATES,
            // Errors must not quote the grammar, which is content.
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            factory,
            gap,
            kept: Mutex::new(Vec::new()),
        })
    }

    /// The constraint that a request asks for; `None` when it asks for none.
    /// `begun` is the part of the answer that was written elsewhere: it counts
    /// as written by the grammar, in whatever spacing its JSON came.
    ///
    /// # Errors
    /// `BadRequest` or `Unsupported` with the field, the place in the schema and
    /// the mend. `Unsupported` when what has begun does not fit the form.
    pub fn constraint(
        &self,
        chat: &Chat,
        format: ToolFormat,
        tokenizer: &Tokenizer,
        reasoning: Reasoning,
        begun: &str,
    ) -> Result<Option<Constraint>, Failure> {
        if begun.is_empty() {
            return self.fresh(chat, format, tokenizer, reasoning, Spacing::Ours);
        }
        for spacing in [Spacing::Ours, Spacing::Any] {
            let fresh = self.fresh(chat, format, tokenizer, Reasoning::None, spacing)?;
            let Some(mut constraint) = fresh else {
                return Ok(None);
            };
            if constraint.resume(begun) {
                return Ok(Some(constraint));
            }
        }
        Err(unable(
            "response_format",
            "the answer that broke off does not fit the form that was asked for, so it cannot be gone on with",
        ))
    }

    fn fresh(
        &self,
        chat: &Chat,
        format: ToolFormat,
        tokenizer: &Tokenizer,
        reasoning: Reasoning,
        spacing: Spacing,
    ) -> Result<Option<Constraint>, Failure> {
        let marks = tools::Marks::of(format, tokenizer);
        let offered = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
        let forced = matches!(
            chat.tool_choice,
            ToolChoice::Required | ToolChoice::Named(_)
        );
        if forced {
            let Some(marks) = marks.filter(|_| offered) else {
                return Err(unable(
                    "tool_choice",
                    "this model's template offers no tools in a form that can be demanded; use tool_choice \"auto\" or another model",
                ));
            };
            let source = tools::demanded(chat, &marks)?;
            let matcher = self.compile(&source)?;
            return Ok(Some(Constraint::whole(matcher, reasoning, &self.gap)));
        }
        if chat.response_format != ResponseFormat::Text {
            let mut source = lark::response(&chat.response_format, spacing)?;
            if let Some(marks) = marks.filter(|_| offered) {
                source.or(tools::calls(chat, &marks, false)?)?;
            }
            let matcher = self.compile(&source)?;
            return Ok(Some(Constraint::whole(matcher, reasoning, &self.gap)));
        }
        if let Some(marks) = marks.filter(|_| offered)
            && let Some(opener) = marks.token()
        {
            let strict = chat.tools.iter().any(|tool| tool.strict == Some(true));
            let source = tools::begun(chat, &marks)?;
            match self.compile(&source) {
                Ok(matcher) => return Ok(Some(Constraint::lazy(matcher, opener, reasoning))),
                // Nobody asked for a promise: the model does its best alone.
                Err(failure) if strict => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Compiles a grammar, or takes a copy of a kept one.
    fn compile(&self, source: &lark::Source) -> Result<Matcher, Failure> {
        let text = source.text();
        if let Some(matcher) = self.kept(&text) {
            return Ok(matcher);
        }
        let matcher = self
            .try_compile(&text)
            .map_err(|problem| source.refuse(self, &problem))?;
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((text, matcher.deep_clone()));
        Ok(matcher)
    }

    /// Compiles a grammar and looks whether anything can be written by it.
    fn try_compile(&self, source: &str) -> Result<Matcher, lark::Problem> {
        if source.len() > 4 * MAX_SOURCE {
            return Err(lark::Problem::TooLarge);
        }
        let grammar = TopLevelGrammar::from_lark(source.to_owned());
        let parser = self
            .factory
            .create_parser(grammar)
            .map_err(|error| lark::Problem::of(&error.to_string()))?;
        let mut matcher = Matcher::new(Ok(parser));
        match matcher.compute_mask() {
            Ok(mask) if !mask.is_zero() => Ok(matcher),
            Ok(_) => Err(lark::Problem::Nothing),
            Err(error) => Err(lark::Problem::of(&error.to_string())),
        }
    }

    fn kept(&self, source: &str) -> Option<Matcher> {
        let mut kept = self.lock();
        let index = kept.iter().position(|(known, _)| known == source)?;
        // The one that is used moves to the end: the first one makes room.
        let entry = kept.remove(index);
        // Each answer has its own lexer, so that answers do not wait for one
        // another and what one of them learns is dropped with it.
        let matcher = entry.1.deep_clone();
        kept.push(entry);
        Some(matcher)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, Matcher)>> {
        // A panic elsewhere cannot leave the list half-changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This model cannot do it; another may.
fn unable(field: &str, message: &str) -> Failure {
    Failure {
        kind: FailureKind::Unsupported,
        ..wrong(field, message)
    }
}

fn wrong(field: &str, message: &str) -> Failure {
    Failure {
        field: Some(field.to_owned()),
        ..Failure::new(FailureKind::BadRequest, message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod judge;
#[cfg(test)]
mod tests;
