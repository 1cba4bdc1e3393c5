//! A model's tokens as llguidance wants them: a trie of bytes, in which tokens
//! that steer the conversation carry a mark and are never part of a text.

use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::output::MARKS;
use crate::tokenizer::{Plain, Tokenizer};

struct Vocabulary {
    trie: TokTrie,
    plain: Plain,
}

/// Builds the trie; once per model.
pub(super) fn environment(tokenizer: &Tokenizer) -> TokEnv {
    let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32)
        .map(|id| word(tokenizer, id))
        .collect();
    let ends: Vec<TokenId> = (0..words.len() as u32)
        .filter(|id| tokenizer.ends_generation(*id))
        .collect();
    let size = u32::try_from(words.len()).unwrap_or(u32::MAX);
    // A model without an end token ends where the grammar does.
    let end = ends
        .first()
        .copied()
        .unwrap_or(llguidance::toktrie::INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
    if !ends.is_empty() {
        trie = trie.with_eos_tokens(&ends);
    }
    Arc::new(Vocabulary {
        trie,
        plain: tokenizer.plain(),
    })
}

/// What a token stands for; behind the mark when it is no text of its own.
/// The markers of reasoning and tool calls are none, even where the file calls
/// them text: inside a JSON string they would end the call.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    let marker = MARKS.iter().any(|mark| mark.as_bytes() == bytes);
    if marker || tokenizer.is_control(id) || tokenizer.ends_generation(id) {
        let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        word.extend_from_slice(bytes);
        return word;
    }
    bytes.to_vec()
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let ids = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| self.plain.encode(text));
        match ids {
            // Only what stands for exactly these bytes may be forced.
            Some(ids) if self.trie.decode_raw(&ids) == bytes => ids,
            _ => self.trie.greedy_tokenize(bytes),
        }
    }

    fn tokenize_is_canonical(&self) -> bool {
        true
    }
}
