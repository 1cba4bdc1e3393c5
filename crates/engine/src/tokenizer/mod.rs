//! Text to token ids and back, as the model file's own metadata says.
//!
//! Byte-level BPE and WordPiece run on the `tokenizers` crate, SentencePiece on
//! [`spm`]. Special tokens are cut out first, by us, so that the caller decides
//! whether text such as `<|im_end|>` is a token or just text.

mod detokenizer;
mod plain;
mod pre;
mod same;
mod specials;
mod spm;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

pub use detokenizer::Detokenizer;
pub use plain::Plain;

use crate::gguf::{Gguf, LoadError};
use crate::template::{Rendered, SENTINEL};
use specials::Specials;

/// Token types as GGUF numbers them.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// `▁`, SentencePiece's space.
const SPM_SPACE: &str = "\u{2581}";

/// A model's tokenizer.
pub struct Tokenizer {
    kind: Arc<Kind>,
    /// What each id stands for.
    bytes: Vec<Vec<u8>>,
    specials: Specials,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_space_prefix: bool,
    end_of_generation: Vec<u32>,
    vocab: HashMap<String, u32>,
    /// Ids from here on fill the weights up and stand for nothing.
    used: usize,
}

enum Kind {
    /// Byte-level BPE, WordPiece or a whole `tokenizer.json`.
    Library(Box<tokenizers::Tokenizer>),
    Spm(Box<spm::Spm>),
}

/// Names by which models end a turn beside their declared end token.
const TURN_ENDS: [&str; 12] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

impl Tokenizer {
    /// Rebuilds the tokenizer from a model file.
    ///
    /// # Errors
    /// Names the key; a pre-tokenizer or tokenizer model that is not known is refused.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, LoadError> {
        Self::build(gguf, None)
    }

    /// Takes the way text is cut from a `tokenizer.json` that lies beside the
    /// model. Ids, special tokens and ends stay the file's own. This is how a
    /// file with an unknown pre-tokenizer can be run.
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub fn with_sidecar(gguf: &Gguf, path: &Path) -> Result<Self, LoadError> {
        let sidecar = tokenizers::Tokenizer::from_file(path).map_err(|error| {
            LoadError::Unsupported(format!(
                "the tokenizer.json beside the model cannot be used: {error}"
            ))
        })?;
        Self::build(gguf, Some(sidecar))
    }

    fn build(gguf: &Gguf, sidecar: Option<tokenizers::Tokenizer>) -> Result<Self, LoadError> {
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        if tokens.is_empty() {
            return Err(LoadError::key("tokenizer.ggml.tokens", "is empty"));
        }
        let types = gguf
            .opt_integers("tokenizer.ggml.token_type")
            .unwrap_or(&[]);
        if !types.is_empty() && types.len() != tokens.len() {
            return Err(LoadError::key(
                "tokenizer.ggml.token_type",
                format!("has {} elements for {} tokens", types.len(), tokens.len()),
            ));
        }
        let type_of = |id: usize| types.get(id).copied().unwrap_or(1);
        let id_key = |key: &str| -> Result<Option<u32>, LoadError> {
            let full = format!("tokenizer.ggml.{key}");
            let id = gguf.opt_u32(&full)?;
            match id {
                // Some files say "none" with all bits set.
                Some(u32::MAX) => Ok(None),
                Some(id) if id as usize >= tokens.len() => {
                    Err(LoadError::key(&full, "is not in the vocabulary"))
                }
                other => Ok(other),
            }
        };
        let (bos, eos) = (id_key("bos_token_id")?, id_key("eos_token_id")?);
        let add_bos = gguf.opt_bool("tokenizer.ggml.add_bos_token")?;
        let space_prefix = gguf.opt_bool("tokenizer.ggml.add_space_prefix")?;
        let model = gguf.str("tokenizer.ggml.model")?;
        let (own, bytes, default_bos, add_space_prefix): (Option<Kind>, Vec<Vec<u8>>, bool, bool) =
            match model {
                "gpt2" => {
                    let (own, add_bos) = match sidecar {
                        None => {
                            let (tokenizer, pre) = byte_level_bpe(gguf, tokens)?;
                            (Some(Kind::Library(Box::new(tokenizer))), pre.add_bos)
                        }
                        Some(_) => {
                            let known = gguf.opt_str("tokenizer.ggml.pre").and_then(pre::by_name);
                            (None, known.is_some_and(|pre| pre.add_bos))
                        }
                    };
                    let decode = byte_alphabet();
                    let bytes = tokens
                        .iter()
                        .enumerate()
                        .map(|(id, token)| match type_of(id) {
                            CONTROL | USER_DEFINED | UNKNOWN => token.as_bytes().to_vec(),
                            _ => decode_bytes(token, &decode),
                        })
                        .collect();
                    (own, bytes, add_bos, false)
                }
                "llama" => {
                    let scores = gguf
                        .opt_floats("tokenizer.ggml.scores")
                        .unwrap_or(&[])
                        .to_vec();
                    if scores.len() != tokens.len() {
                        return Err(LoadError::key(
                            "tokenizer.ggml.scores",
                            format!("has {} elements for {} tokens", scores.len(), tokens.len()),
                        ));
                    }
                    let unknown = id_key("unknown_token_id")?;
                    let bytes = tokens
                        .iter()
                        .enumerate()
                        .map(|(id, token)| spm_bytes(token, type_of(id)))
                        .collect();
                    (
                        Some(Kind::Spm(Box::new(spm::Spm::new(tokens, scores, unknown)))),
                        bytes,
                        true,
                        true,
                    )
                }
                "bert" => {
                    let bytes = tokens
                        .iter()
                        .map(|token| token.replace(SPM_SPACE, " ").into_bytes())
                        .collect();
                    (
                        Some(Kind::Library(Box::new(wordpiece(tokens)?))),
                        bytes,
                        true,
                        false,
                    )
                }
                other => {
                    return Err(LoadError::Unsupported(format!(
                        "the tokenizer model '{other}' is not supported (gpt2, llama and bert are)"
                    )));
                }
            };
        let kind = match (sidecar, own) {
            (None, Some(own)) => own,
            (None, None) => {
                return Err(LoadError::key("tokenizer.ggml.model", "gives no tokenizer"));
            }
            (Some(sidecar), _) => {
                let (theirs, ours) = (sidecar.get_vocab_size(true), tokens.len());
                if theirs > ours {
                    return Err(LoadError::Unsupported(format!(
                        "the tokenizer.json has {theirs} tokens, the model has {ours}; it belongs to another model"
                    )));
                }
                Kind::Library(Box::new(sidecar))
            }
        };
        let specials = Specials::new(tokens, &type_of)?;
        let mut end_of_generation: Vec<u32> =
            eos.into_iter().chain(id_key("eot_token_id")?).collect();
        for (id, token) in tokens.iter().enumerate() {
            if matches!(type_of(id), CONTROL | USER_DEFINED) && TURN_ENDS.contains(&token.as_str())
            {
                end_of_generation.push(id as u32);
            }
        }
        end_of_generation.sort_unstable();
        end_of_generation.dedup();
        Ok(Self {
            kind: Arc::new(kind),
            bytes,
            specials,
            bos,
            eos,
            add_bos: add_bos.unwrap_or(default_bos) && bos.is_some(),
            add_space_prefix: space_prefix.unwrap_or(add_space_prefix),
            end_of_generation,
            used: (0..tokens.len())
                .rev()
                .find(|id| type_of(*id) != UNUSED)
                .map_or(0, |last| last + 1),
            vocab: tokens
                .iter()
                .enumerate()
                .map(|(id, t)| (t.clone(), id as u32))
                .collect(),
        })
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The id of a token by its text in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.vocab.get(token).copied()
    }

    /// What a token stands for. Empty for an id that is not in the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The token that prompts begin with, where the model wants one.
    pub fn prompt_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The beginning-of-text token, as text.
    pub fn bos_text(&self) -> String {
        self.bos.map(|id| self.text_of(id)).unwrap_or_default()
    }

    /// The end-of-text token, as text.
    pub fn eos_text(&self) -> String {
        self.eos.map(|id| self.text_of(id)).unwrap_or_default()
    }

    fn text_of(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// Whether this token ends an answer.
    pub fn ends_generation(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }

    /// Texts of control tokens: what content from outside must not be able to say.
    pub fn control_texts(&self) -> &[String] {
        &self.specials.control_texts
    }

    /// Whether this token steers the conversation and is no text of its own.
    pub fn is_control(&self, id: u32) -> bool {
        self.specials.control_ids.binary_search(&id).is_ok()
    }

    /// The most bytes that one token stands for.
    pub fn longest_token(&self) -> usize {
        self.bytes.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Encodes a rendered conversation: control tokens are recognised where the
    /// template wrote them, and nowhere else.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_prompt`].
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, LoadError> {
        self.encode_whole(rendered.marked(), Some(SENTINEL))
    }

    /// Encodes a whole prompt: control tokens are recognised, and the
    /// beginning-of-text token is put first where the model wants it and the
    /// text does not already begin with it.
    ///
    /// # Errors
    /// Whatever the tokenizer library says; none for valid vocabularies.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, LoadError> {
        self.encode_whole(text, None)
    }

    fn encode_whole(&self, text: &str, sentinel: Option<char>) -> Result<Vec<u32>, LoadError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        let bos = self.prompt_bos();
        if let Some(bos) = bos {
            ids.push(bos);
        }
        self.encode_into(text, true, sentinel, &mut ids)?;
        if bos.is_some() && ids.get(1) == bos.as_ref() {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// Encodes text. `parse_special`: whether the texts of control tokens are
    /// those tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_prompt`].
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, LoadError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, parse_special, None, &mut ids)?;
        Ok(ids)
    }

    /// Special tokens are found in `text` as it is; a `sentinel` is taken out of
    /// what lies between them.
    fn encode_into(
        &self,
        text: &str,
        parse_special: bool,
        sentinel: Option<char>,
        ids: &mut Vec<u32>,
    ) -> Result<(), LoadError> {
        let (finder, special_ids) = if parse_special {
            (&self.specials.all, &self.specials.all_ids)
        } else {
            (&self.specials.plain, &self.specials.plain_ids)
        };
        let mut at = 0;
        let mut after_special = true;
        for found in finder.iter().flat_map(|finder| finder.find_iter(text)) {
            if found.start() > at {
                self.encode_piece(
                    &without(&text[at..found.start()], sentinel),
                    after_special,
                    ids,
                )?;
            }
            ids.push(special_ids[found.pattern().as_usize()]);
            at = found.end();
            after_special = true;
        }
        if at < text.len() {
            self.encode_piece(&without(&text[at..], sentinel), after_special, ids)?;
        }
        Ok(())
    }

    fn encode_piece(
        &self,
        text: &str,
        after_special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), LoadError> {
        match &*self.kind {
            Kind::Library(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false).map_err(|error| {
                    LoadError::Unsupported(format!("the text cannot be tokenised: {error}"))
                })?;
                ids.extend_from_slice(encoding.get_ids());
            }
            Kind::Spm(spm) => {
                let mut escaped = String::with_capacity(text.len() + 3);
                if self.add_space_prefix && after_special {
                    escaped.push_str(SPM_SPACE);
                }
                escaped.push_str(&text.replace(' ', SPM_SPACE));
                spm.encode(&escaped, ids);
            }
        }
        Ok(())
    }
}

fn byte_level_bpe(
    gguf: &Gguf,
    tokens: &[String],
) -> Result<(tokenizers::Tokenizer, pre::Pre), LoadError> {
    let name = gguf.str("tokenizer.ggml.pre").map_err(|_| {
        LoadError::key(
            "tokenizer.ggml.pre",
            "is missing, so that its tokens cannot be known; convert the model again with a current llama.cpp",
        )
    })?;
    let pre = pre::by_name(name).ok_or_else(|| {
        LoadError::Unsupported(format!(
            "the pre-tokenizer '{name}' is not known; put the model's tokenizer.json beside it"
        ))
    })?;
    let merges = gguf
        .strings("tokenizer.ggml.merges")?
        .iter()
        .map(|merge| {
            // A merge's first half may itself begin with a space character.
            let at = merge
                .char_indices()
                .skip(1)
                .find(|(_, c)| *c == ' ')
                .map(|(at, _)| at);
            at.map(|at| (merge[..at].to_owned(), merge[at + 1..].to_owned()))
                .ok_or_else(|| {
                    LoadError::key("tokenizer.ggml.merges", "has an entry without a space")
                })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let vocab: ahash::AHashMap<String, u32> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), id as u32))
        .collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(|error| {
            LoadError::key(
                "tokenizer.ggml.merges",
                format!("does not fit the vocabulary: {error}"),
            )
        })?;
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in pre.patterns {
        let split = Split::new(
            SplitPattern::Regex((*pattern).to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(|error| {
            LoadError::Unsupported(format!(
                "the pre-tokenizer '{name}' does not compile: {error}"
            ))
        })?;
        steps.push(split.into());
    }
    steps.push(ByteLevel::new(false, true, false).into());
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok((tokenizer, pre))
}

/// GGUF stores WordPiece tokens with `▁` for a word's beginning where the
/// original has `##` for its continuation.
fn wordpiece(tokens: &[String]) -> Result<tokenizers::Tokenizer, LoadError> {
    let vocab: ahash::AHashMap<String, u32> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| {
            let original = match token.strip_prefix(SPM_SPACE) {
                Some(beginning) => beginning.to_owned(),
                None if token.starts_with('[') && token.ends_with(']') => token.clone(),
                None => format!("##{token}"),
            };
            (original, id as u32)
        })
        .collect();
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token("[UNK]".to_owned())
        .build()
        .map_err(|error| {
            LoadError::key(
                "tokenizer.ggml.tokens",
                format!("is no WordPiece vocabulary: {error}"),
            )
        })?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(BertNormalizer::default()))
        .map_err(|error| {
            LoadError::Unsupported(format!("the text normaliser cannot be built: {error}"))
        })?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

fn without(text: &str, sentinel: Option<char>) -> Cow<'_, str> {
    match sentinel {
        Some(sentinel) if text.contains(sentinel) => Cow::Owned(text.replace(sentinel, "")),
        _ => Cow::Borrowed(text),
    }
}

/// GPT-2's printable stand-ins for bytes, reversed.
fn byte_alphabet() -> HashMap<char, u8> {
    let direct = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 256u32;
    (0..=255u8)
        .filter_map(|byte| {
            let code = if direct(&byte) {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            // Every code below 512 is a character.
            char::from_u32(code).map(|c| (c, byte))
        })
        .collect()
}

fn decode_bytes(token: &str, alphabet: &HashMap<char, u8>) -> Vec<u8> {
    let decoded: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
    // A token outside of the alphabet is stored as plain text.
    decoded.unwrap_or_else(|| token.as_bytes().to_vec())
}

fn spm_bytes(token: &str, kind: i64) -> Vec<u8> {
    if kind == BYTE
        && let Some(hex) = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'))
        && let Ok(byte) = u8::from_str_radix(hex, 16)
    {
        return vec![byte];
    }
    match kind {
        CONTROL | UNKNOWN => token.as_bytes().to_vec(),
        _ => token.replace(SPM_SPACE, " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests;
