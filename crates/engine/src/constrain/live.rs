//! One answer's constraint: which tokens may come next.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::Reasoning;

/// Tokens that are forced at once are written without being sampled; more than
/// this many wait for the next turn, so that a cancel is heard in between.
const MAX_FORCED: usize = 32;

/// The constraint can no longer be followed. The text is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The work per token or the memory for the grammar is used up.
    #[error(
        "the answer's schema or grammar is too complex to be followed any further; simplify it"
    )]
    TooComplex,
    /// The model's tokens can write nothing that the grammar allows.
    #[error("this model's tokens cannot write what the schema or grammar demands here")]
    DeadEnd,
}

/// The tokens that may come next.
pub struct Mask(SimpleVob);

impl Mask {
    /// Whether this token may.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }

    /// Makes all other tokens impossible.
    pub fn apply(&self, logits: &mut [f32]) {
        let words = self.0.as_slice();
        for (index, chunk) in logits.chunks_mut(32).enumerate() {
            match words.get(index).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => chunk.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in chunk.iter_mut().enumerate() {
                        if word & (1 << bit) == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Phase {
    /// The model reasons, until this token.
    Reasoning { end: u32 },
    /// The answer's first token: the grammar's, or the one that opens reasoning.
    First { open: u32, end: u32 },
    /// Free text, until the token that opens a tool call.
    Free,
    /// The grammar holds.
    Held,
}

/// The constraint of one answer.
#[derive(Clone)]
pub struct Constraint {
    /// As it is before the first token.
    fresh: Matcher,
    matcher: Matcher,
    phase: Phase,
    /// For tool calls that the model begins by itself.
    opener: Option<u32>,
    reasoning: Reasoning,
    /// Tokens between reasoning and answer.
    gap: Vec<u32>,
    gap_due: bool,
}

impl Constraint {
    /// The whole answer, after its reasoning, follows the grammar.
    pub(super) fn whole(fresh: Matcher, reasoning: Reasoning, gap: &[u32]) -> Self {
        let phase = match reasoning {
            Reasoning::None => Phase::Held,
            Reasoning::Possible { open, end } => Phase::First { open, end },
            Reasoning::Open { end } => Phase::Reasoning { end },
        };
        Self {
            matcher: fresh.clone(),
            fresh,
            phase,
            opener: None,
            reasoning,
            gap: gap.to_vec(),
            gap_due: false,
        }
    }

    /// The grammar holds from each `opener` to the end of that call.
    pub(super) fn lazy(fresh: Matcher, opener: u32, reasoning: Reasoning) -> Self {
        let phase = match reasoning {
            Reasoning::Open { end } => Phase::Reasoning { end },
            Reasoning::None | Reasoning::Possible { .. } => Phase::Free,
        };
        Self {
            matcher: fresh.clone(),
            fresh,
            phase,
            opener: Some(opener),
            reasoning,
            gap: Vec::new(),
            gap_due: false,
        }
    }

    /// Takes what was written elsewhere as written. Returns whether it fits.
    pub(super) fn resume(&mut self, text: &str) -> bool {
        match self.phase {
            // Calls that were begun are not resumed; what was shown is text.
            Phase::Free | Phase::Reasoning { .. } => true,
            Phase::First { .. } | Phase::Held => {
                self.phase = Phase::Held;
                let Ok(environment) = self.matcher.tok_env() else {
                    return false;
                };
                // The grammar reads bytes: any tokens that spell them will do.
                let tokens = environment.tok_trie().greedy_tokenize(text.as_bytes());
                let taken = self.matcher.try_consume_tokens(&tokens);
                taken.is_ok_and(|taken| taken == tokens.len())
            }
        }
    }

    /// The tokens that may come next; `None` when all may.
    ///
    /// # Errors
    /// [`ConstraintError`]; the answer cannot go on.
    pub fn mask(&mut self) -> Result<Option<Mask>, ConstraintError> {
        match self.phase {
            Phase::Reasoning { .. } | Phase::Free => Ok(None),
            Phase::First { open, .. } => {
                let mut mask = self.grammar_mask()?;
                mask.allow_token(open);
                Ok(Some(Mask(mask)))
            }
            Phase::Held => Ok(Some(Mask(self.grammar_mask()?))),
        }
    }

    fn grammar_mask(&mut self) -> Result<SimpleVob, ConstraintError> {
        let mask = self.matcher.compute_mask_or_eos();
        mask.map_err(|_| self.problem())
    }

    /// Tokens that must follow, already taken into account: they are written
    /// without being sampled. Mostly none.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn forced(&mut self) -> Result<Vec<u32>, ConstraintError> {
        if std::mem::take(&mut self.gap_due) {
            return Ok(self.gap.clone());
        }
        if !matches!(self.phase, Phase::Held) || self.matcher.is_stopped() {
            return Ok(Vec::new());
        }
        let mut ids = self.matcher.compute_ff_tokens();
        ids.truncate(MAX_FORCED);
        if !ids.is_empty() {
            self.matcher
                .consume_tokens(&ids)
                .map_err(|_| self.problem())?;
            self.close_if_over();
        }
        Ok(ids)
    }

    /// Takes a chosen token into account.
    ///
    /// # Errors
    /// [`ConstraintError`] for a token that the mask did not allow, too.
    pub fn advance(&mut self, id: u32) -> Result<(), ConstraintError> {
        match self.phase {
            Phase::Reasoning { end } => {
                if id == end {
                    if self.opener.is_some() {
                        self.phase = Phase::Free;
                    } else {
                        self.phase = Phase::Held;
                        self.gap_due = true;
                    }
                }
                Ok(())
            }
            Phase::First { open, end } if id == open => {
                self.phase = Phase::Reasoning { end };
                Ok(())
            }
            Phase::Free => {
                match self.reasoning {
                    Reasoning::Possible { open, end } if id == open => {
                        self.phase = Phase::Reasoning { end };
                    }
                    _ if Some(id) == self.opener => {
                        self.matcher = self.fresh.clone();
                        self.phase = Phase::Held;
                    }
                    _ => {}
                }
                Ok(())
            }
            Phase::First { .. } | Phase::Held => {
                self.phase = Phase::Held;
                self.matcher.consume_token(id).map_err(|_| self.problem())?;
                self.close_if_over();
                Ok(())
            }
        }
    }

    /// After a call that the model began by itself, it may go on as it likes.
    fn close_if_over(&mut self) {
        if self.opener.is_some() && self.matcher.is_stopped() && !self.matcher.is_error() {
            self.phase = Phase::Free;
        }
    }

    /// The token that ends the reasoning, when an answer must still follow: for
    /// a model that would end its turn there.
    pub fn end_of_reasoning(&self) -> Option<u32> {
        match self.phase {
            Phase::Reasoning { end } if self.opener.is_none() => Some(end),
            _ => None,
        }
    }

    /// Whether nothing may follow: the answer is whole.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Held) && self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Whether what is written so far may be the whole answer.
    pub fn may_end(&mut self) -> bool {
        match self.phase {
            Phase::Free => true,
            Phase::Reasoning { .. } => self.opener.is_some(),
            Phase::First { .. } | Phase::Held => {
                self.matcher.is_stopped() && !self.matcher.is_error()
                    || self.matcher.is_accepting().unwrap_or(false)
            }
        }
    }

    fn problem(&self) -> ConstraintError {
        use llguidance::api::StopReason;
        let text = self.matcher.get_error().unwrap_or_default();
        match self.matcher.stop_reason() {
            StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
                ConstraintError::TooComplex
            }
            _ if ["too complex", "Too many", "limit", "fuel"]
                .iter()
                .any(|word| text.contains(word)) =>
            {
                ConstraintError::TooComplex
            }
            _ => ConstraintError::DeadEnd,
        }
    }
}
