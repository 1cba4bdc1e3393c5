//! Special tokens: found in a text before the rest of it is cut.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{CONTROL, UNKNOWN, USER_DEFINED};
use crate::gguf::LoadError;

/// Tokens that are cut out of the text before anything else.
pub(super) struct Specials {
    /// Control tokens and user-defined ones.
    pub(super) all: Option<AhoCorasick>,
    pub(super) all_ids: Vec<u32>,
    /// User-defined ones alone: part of the text, whoever wrote it.
    pub(super) plain: Option<AhoCorasick>,
    pub(super) plain_ids: Vec<u32>,
    pub(super) control_texts: Vec<String>,
    /// Ids of the control tokens, ascending.
    pub(super) control_ids: Vec<u32>,
}

impl Specials {
    pub(super) fn new(
        tokens: &[String],
        type_of: &impl Fn(usize) -> i64,
    ) -> Result<Self, LoadError> {
        let of = |wanted: &[i64]| -> (Vec<&String>, Vec<u32>) {
            tokens
                .iter()
                .enumerate()
                .filter(|(id, token)| !token.is_empty() && wanted.contains(&type_of(*id)))
                .map(|(id, token)| (token, id as u32))
                .unzip()
        };
        let finder = |texts: &[&String]| -> Result<Option<AhoCorasick>, LoadError> {
            if texts.is_empty() {
                return Ok(None);
            }
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(texts)
                .map(Some)
                .map_err(|error| {
                    LoadError::key(
                        "tokenizer.ggml.token_type",
                        format!("has too many special tokens: {error}"),
                    )
                })
        };
        let (all, all_ids) = of(&[CONTROL, USER_DEFINED, UNKNOWN]);
        let (plain, plain_ids) = of(&[USER_DEFINED]);
        let (control, control_ids) = of(&[CONTROL, UNKNOWN]);
        Ok(Self {
            all: finder(&all)?,
            all_ids,
            plain: finder(&plain)?,
            plain_ids,
            control_texts: control.into_iter().cloned().collect(),
            control_ids,
        })
    }
}
