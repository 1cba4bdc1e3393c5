//! Whether two models read and write the same tokens.

use super::Tokenizer;

/// The most of a token's text that an error shows.
const SHOWN: usize = 40;

impl Tokenizer {
    /// What is different first, in words that call this tokenizer the model's
    /// and `other` the draft's; `None` where every id stands for the same bytes
    /// in both. Ids that only fill the weights up do not count.
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let shown = |tokenizer: &Self, id: usize| match tokenizer.bytes.get(id) {
            None => "missing".to_owned(),
            Some(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let text: String = text.chars().take(SHOWN).collect();
                format!("\"{}\"", text.escape_debug())
            }
        };
        let id = (0..self.used.max(other.used))
            .find(|id| self.bytes.get(*id) != other.bytes.get(*id))?;
        Some(format!(
            "token {id} is {} in the model's tokenizer and {} in the draft's",
            shown(self, id),
            shown(other, id)
        ))
    }
}
