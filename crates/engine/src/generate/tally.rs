//! How sure the model was, over a whole answer.

use nearfar_domain::frames::Confidence;

use crate::sampling::Certainty;

/// The certainty of each token of an answer, in order, and sums over them.
#[derive(Default)]
pub(super) struct Tally {
    tokens: Vec<Certainty>,
}

impl Tally {
    /// Adds the next token's, where there is one.
    pub(super) fn extend(&mut self, certainty: Option<Certainty>) {
        self.tokens.extend(certainty);
    }

    /// Per token, in order.
    pub(super) fn tokens(&self) -> &[Certainty] {
        &self.tokens
    }

    /// The figures over all tokens so far.
    pub(super) fn confidence(&self) -> Confidence {
        if self.tokens.is_empty() {
            return Confidence::default();
        }
        let count = self.tokens.len() as f64;
        let mean = |sum: f64| (sum / count) as f32;
        Confidence {
            tokens: u32::try_from(self.tokens.len()).unwrap_or(u32::MAX),
            min_margin: self.tokens.iter().fold(1.0, |least, c| least.min(c.margin)),
            mean_margin: mean(self.tokens.iter().map(|c| f64::from(c.margin)).sum()),
            mean_entropy: mean(self.tokens.iter().map(|c| f64::from(c.entropy)).sum()),
        }
    }
}
