//! A request for vectors in place of words: what goes in, and what is written
//! down about a model that makes them.
//!
//! [`Inputs`] is content, as a conversation is: no `Serialize`, a `Debug` of
//! lengths. It travels as a [`crate::chat::Prompt`], so that a request for
//! vectors is classified, decided and accounted like any other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most texts in one request; OpenAI's own limit.
pub const MAX_INPUTS: usize = 2_048;

/// What is to become vectors, in order.
#[derive(Clone, PartialEq)]
pub struct Inputs {
    /// One vector comes back for each.
    pub items: Vec<Input>,
    /// How long the vectors shall be; `None` for the model's own length.
    pub dimensions: Option<u32>,
    /// What the vectors are for, where the client said so.
    pub purpose: Option<Purpose>,
}

/// One thing to become a vector.
#[derive(Clone, PartialEq)]
pub enum Input {
    /// Text.
    Text(String),
    /// Tokens of the model's own vocabulary, taken as they are.
    Tokens(Vec<u32>),
}

/// What a vector is for. Some models read a query and a document differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Looks for documents.
    Query,
    /// Is looked for.
    Document,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's.
    Cls,
    /// The last one's.
    Last,
}

/// What a manifest says of a model that makes vectors. The file itself says
/// the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingCard {
    /// In place of what the file says.
    #[serde(default)]
    pub pooling: Option<Pooling>,
    /// Put before a text that is a query.
    #[serde(default)]
    pub query_prefix: String,
    /// Put before a text that is a document.
    #[serde(default)]
    pub document_prefix: String,
    /// For models whose vectors may be cut short (trained so, "Matryoshka"):
    /// the least length that is still of use.
    #[serde(default)]
    pub min_dimensions: Option<u32>,
}

impl EmbeddingCard {
    /// What to put before a text.
    pub fn prefix(&self, purpose: Option<Purpose>) -> &str {
        match purpose {
            None => "",
            Some(Purpose::Query) => &self.query_prefix,
            Some(Purpose::Document) => &self.document_prefix,
        }
    }
}

impl Inputs {
    /// Bytes of text; tokens count as four.
    pub fn text_bytes(&self) -> usize {
        let bytes = |input: &Input| match input {
            Input::Text(text) => text.len(),
            Input::Tokens(tokens) => tokens.len().saturating_mul(4),
        };
        self.items.iter().map(bytes).sum()
    }

    /// The longest single input, in bytes as [`Inputs::text_bytes`] counts them.
    pub fn longest_bytes(&self) -> usize {
        let bytes = |input: &Input| match input {
            Input::Text(text) => text.len(),
            Input::Tokens(tokens) => tokens.len().saturating_mul(4),
        };
        self.items.iter().map(bytes).max().unwrap_or(0)
    }
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Inputs({} of {} bytes)",
            self.items.len(),
            self.text_bytes()
        )
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Input::Tokens(tokens) => write!(f, "Tokens({})", tokens.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_content() {
        let inputs = Inputs {
            items: vec![Input::Text("secret".into()), Input::Tokens(vec![31_337])],
            dimensions: None,
            purpose: Some(Purpose::Query),
        };
        let shown = format!("{inputs:?} {:?}", inputs.items);
        assert!(
            !shown.contains("secret") && !shown.contains("31337"),
            "{shown}"
        );
        assert!(shown.contains("2 of 10 bytes"), "{shown}");
    }
}
