//! Inputs to tokens, with the model's own tokens around each text.

use std::path::Path;

use nearfar_domain::embed::Input;
use nearfar_domain::events::{Failure, FailureKind};

use super::wrong;
use crate::gguf::{Gguf, LoadError};
use crate::tokenizer::Tokenizer;

/// The key under which a file may carry its whole `tokenizer.json`.
pub(super) const HUGGING_FACE_KEY: &str = "tokenizer.huggingface.json";

/// No token stands for more bytes: longer text cannot fit and is refused
/// before it is cut into tokens.
const MOST_BYTES_PER_TOKEN: usize = 256;

/// Reads texts as the model was trained to.
pub(super) enum Reader {
    /// A whole `tokenizer.json`, which knows what to put around a text.
    Library(Box<tokenizers::Tokenizer>),
    /// The file's own vocabulary.
    Own {
        tokenizer: Box<Tokenizer>,
        first: u32,
        last: u32,
    },
}

impl Reader {
    pub(super) fn new(gguf: &Gguf, sidecar: Option<&Path>) -> Result<Self, LoadError> {
        if let Some(path) = sidecar {
            let json = std::fs::read(path)?;
            return Self::library(&json, "the tokenizer.json beside the model");
        }
        if let Some(json) = gguf.opt_str(HUGGING_FACE_KEY) {
            return Self::library(json.as_bytes(), "the tokenizer.json inside the model file");
        }
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let id = |keys: [&str; 2], text: &str| {
            for key in keys {
                let key = format!("tokenizer.ggml.{key}");
                if let Some(id) = gguf.opt_u32(&key)?.filter(|id| *id != u32::MAX) {
                    if (id as usize) < tokenizer.vocab_size() {
                        return Ok(id);
                    }
                    return Err(LoadError::key(&key, "is not in the vocabulary"));
                }
            }
            tokenizer.id_of(text).ok_or_else(|| {
                LoadError::key(
                    "tokenizer.ggml.tokens",
                    format!("has no {text}, which an encoder needs"),
                )
            })
        };
        Ok(Self::Own {
            first: id(["cls_token_id", "bos_token_id"], "[CLS]")?,
            // llama.cpp's files spell it so.
            last: id(["seperator_token_id", "eos_token_id"], "[SEP]")?,
            tokenizer: Box::new(tokenizer),
        })
    }

    fn library(json: &[u8], what: &str) -> Result<Self, LoadError> {
        let unusable = |error| LoadError::Unsupported(format!("{what} cannot be used: {error}"));
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(unusable)?;
        // Files carry the settings of the run that saved them. A text is never
        // cut short unseen, and nothing is padded.
        tokenizer.with_truncation(None).map_err(unusable)?;
        tokenizer.with_padding(None);
        Ok(Self::Library(Box::new(tokenizer)))
    }

    /// A tokenizer may know fewer tokens than the model, never more.
    pub(super) fn check_vocabulary(&self, model: usize) -> Result<(), LoadError> {
        let tokens = match self {
            Self::Library(tokenizer) => tokenizer.get_vocab_size(true),
            Self::Own { tokenizer, .. } => tokenizer.vocab_size(),
        };
        crate::inspect::fits(tokens, model)
    }

    fn vocabulary(&self) -> usize {
        match self {
            Self::Library(tokenizer) => tokenizer.get_vocab_size(true),
            Self::Own { tokenizer, .. } => tokenizer.vocab_size(),
        }
    }

    /// The tokens of one input: 1 to `context` of them.
    pub(super) fn read(
        &self,
        input: &Input,
        prefix: &str,
        index: usize,
        context: usize,
    ) -> Result<Vec<u32>, Failure> {
        let field = format!("input[{index}]");
        let tokens = match input {
            Input::Tokens(tokens) => {
                let vocabulary = self.vocabulary();
                if tokens.is_empty() {
                    return Err(wrong(&field, "an input must have at least one token"));
                }
                if tokens.iter().any(|id| *id as usize >= vocabulary) {
                    return Err(wrong(
                        &field,
                        &format!("this model's token ids go from 0 to {}", vocabulary - 1),
                    ));
                }
                tokens.clone()
            }
            Input::Text(text) => {
                if text.len() / MOST_BYTES_PER_TOKEN >= context {
                    let least = text.len() / MOST_BYTES_PER_TOKEN;
                    return Err(too_long(&field, &format!("at least {least}"), context));
                }
                match prefix {
                    "" => self.encode(text),
                    prefix => self.encode(&format!("{prefix}{text}")),
                }
                .map_err(|error| {
                    Failure::new(
                        FailureKind::Internal,
                        format!("the text cannot be turned into tokens: {error}"),
                    )
                })?
            }
        };
        if tokens.len() > context {
            return Err(too_long(&field, &tokens.len().to_string(), context));
        }
        if tokens.is_empty() {
            return Err(wrong(&field, "an input must have at least one token"));
        }
        Ok(tokens)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, LoadError> {
        match self {
            Self::Library(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, true).map_err(|error| {
                    LoadError::Unsupported(format!("the tokenizer refuses it: {error}"))
                })?;
                Ok(encoding.get_ids().to_vec())
            }
            Self::Own {
                tokenizer,
                first,
                last,
            } => {
                let mut ids = vec![*first];
                ids.extend(tokenizer.encode(text, false)?);
                ids.push(*last);
                Ok(ids)
            }
        }
    }
}

fn too_long(field: &str, used: &str, context: usize) -> Failure {
    Failure {
        field: Some(field.to_owned()),
        ..Failure::new(
            FailureKind::ContextLength,
            format!(
                "this model reads {context} tokens at once and this text takes {used}; send it in parts"
            ),
        )
    }
}
