//! Text to tokens in the middle of an answer.

use std::sync::Arc;

use super::{Kind, SPM_SPACE, Tokenizer};

/// Encodes text that is in the middle of something: no special tokens in it,
/// none before it. Can outlive its tokenizer.
#[derive(Clone)]
pub struct Plain {
    kind: Arc<Kind>,
}

impl Tokenizer {
    /// Its encoder for the middle of an answer.
    pub fn plain(&self) -> Plain {
        Plain {
            kind: Arc::clone(&self.kind),
        }
    }
}

impl Plain {
    /// The tokens of `text`; `None` when the library refuses it.
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        match &*self.kind {
            Kind::Library(tokenizer) => tokenizer
                .encode_fast(text, false)
                .ok()
                .map(|encoding| encoding.get_ids().to_vec()),
            Kind::Spm(spm) => {
                let mut ids = Vec::new();
                spm.encode(&text.replace(' ', SPM_SPACE), &mut ids);
                Some(ids)
            }
        }
    }
}
