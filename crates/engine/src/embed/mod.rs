//! Texts to vectors: encoders of the BERT family.
//!
//! [`text`] turns inputs into tokens, [`bert`] computes them, and
//! [`Embedder`] does both in pieces that can be stopped in between. [`folder`]
//! makes one model file of a Hugging Face folder. What is not here: queues and
//! cancellation ([`crate::worker`]), prefixes by purpose (the job says them).

mod bert;
mod folder;
mod text;

use std::path::Path;

use candle_core::Tensor;
use nearfar_domain::embed::{EmbeddingCard, Inputs, Pooling};
use nearfar_domain::events::{Failure, FailureKind};

use crate::gguf::{Gguf, LoadError};
use bert::Bert;
pub use folder::{Converted, convert_folder};
use text::Reader;

/// Tokens that are computed at once. More make it no faster, and a cancelled
/// request waits for them.
const PIECE_TOKENS: usize = 512;

/// A model that makes vectors, in memory.
pub struct Embedder {
    name: String,
    architecture: String,
    model: Bert,
    reader: Reader,
    pooling: Pooling,
}

/// A model's figures, without its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) architecture: String,
    pub(crate) context_tokens: usize,
    /// Numbers in a vector.
    pub(crate) dimensions: usize,
    pub(crate) memory_bytes: u64,
}

/// Whether this file holds an encoder of the family that is run here.
pub fn is_embedding_model(gguf: &Gguf) -> bool {
    gguf.opt_str("general.architecture")
        .is_some_and(|name| bert::ARCHITECTURES.contains(&name))
}

/// Checks what a load would, and reads no weight.
///
/// # Errors
/// As [`Embedder::load`].
pub(crate) fn check(gguf: &Gguf, sidecar: Option<&Path>) -> Result<Figures, LoadError> {
    let shape = bert::Shape::read(gguf)?;
    shape.check_tensors(gguf)?;
    let reader = Reader::new(gguf, sidecar)?;
    reader.check_vocabulary(shape.vocabulary)?;
    pooling_of(gguf)?;
    Ok(Figures {
        architecture: shape.architecture.clone(),
        context_tokens: shape.context,
        dimensions: shape.hidden,
        memory_bytes: shape.memory_bytes(gguf),
    })
}

/// What a load will take in memory, in bytes.
///
/// # Errors
/// As [`Embedder::load`].
pub(crate) fn needed_bytes(gguf: &Gguf) -> Result<u64, LoadError> {
    Ok(bert::Shape::read(gguf)?.memory_bytes(gguf))
}

impl Embedder {
    /// Loads a model; `name` is what answers call it. With a `tokenizer.json`
    /// beside it, texts are read as that says.
    ///
    /// # Errors
    /// [`LoadError`], in public words.
    pub fn load(name: &str, gguf: &Gguf, sidecar: Option<&Path>) -> Result<Self, LoadError> {
        let shape = bert::Shape::read(gguf)?;
        let reader = Reader::new(gguf, sidecar)?;
        reader.check_vocabulary(shape.vocabulary)?;
        let pooling = pooling_of(gguf)?;
        let model = Bert::load(gguf, shape)?;
        Ok(Self {
            name: name.to_owned(),
            architecture: model.shape().architecture.clone(),
            model,
            reader,
            pooling,
        })
    }

    /// What answers call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The architecture, as the file calls it.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The longest input, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.model.shape().context
    }

    /// Numbers in a vector.
    pub fn dimensions(&self) -> usize {
        self.model.shape().hidden
    }

    /// Weights in memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }

    /// Turns a request into tokens, checked.
    ///
    /// # Errors
    /// Names the request's field and the mend.
    pub fn prepare(&self, inputs: &Inputs, card: &EmbeddingCard) -> Result<Work, Failure> {
        if inputs.items.is_empty() {
            return Err(wrong("input", "there is nothing to make a vector of"));
        }
        let length = self.length(inputs.dimensions, card)?;
        let prefix = card.prefix(inputs.purpose);
        let context = self.context_tokens();
        let tokens = inputs
            .items
            .iter()
            .enumerate()
            .map(|(index, input)| self.reader.read(input, prefix, index, context))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Work {
            prompt_tokens: tokens.iter().map(|tokens| tokens.len() as u64).sum(),
            tokens,
            next: 0,
            length,
            pooling: card.pooling.unwrap_or(self.pooling),
        })
    }

    fn length(&self, asked: Option<u32>, card: &EmbeddingCard) -> Result<usize, Failure> {
        let own = self.dimensions();
        let Some(asked) = asked.map(|asked| asked as usize).filter(|n| *n != own) else {
            return Ok(own);
        };
        match card.min_dimensions.map(|least| least as usize) {
            Some(least) if (least..=own).contains(&asked) => Ok(asked),
            Some(least) => Err(wrong(
                "dimensions",
                &format!("this model's vectors can have {least} to {own} dimensions"),
            )),
            None => Err(wrong(
                "dimensions",
                &format!(
                    "this model's vectors have {own} dimensions and may not be cut short; leave dimensions out"
                ),
            )),
        }
    }

    /// Computes the next piece of the work: the vectors of its next inputs, in
    /// order, each of length 1; none when all are done.
    ///
    /// # Errors
    /// The inference library's. None for work that was prepared by this model.
    pub fn step(&self, work: &mut Work) -> Result<Vec<Vec<f32>>, Failure> {
        let mut sum = 0;
        let rest = &work.tokens[work.next..];
        let count = rest
            .iter()
            .take_while(|tokens| {
                sum += tokens.len();
                sum <= PIECE_TOKENS
            })
            .count()
            // One that is longer than a piece is a piece of its own.
            .max(usize::from(!rest.is_empty()));
        let piece = &rest[..count];
        let vectors = self.vectors(piece, work.pooling, work.length);
        let vectors = vectors.map_err(|error| {
            // The library's words speak of shapes, not of text.
            Failure::new(
                FailureKind::Internal,
                format!("the vectors cannot be computed: {error}"),
            )
        })?;
        work.next += count;
        Ok(vectors)
    }

    fn vectors(
        &self,
        piece: &[Vec<u32>],
        pooling: Pooling,
        length: usize,
    ) -> Result<Vec<Vec<f32>>, candle_core::Error> {
        if piece.is_empty() {
            return Ok(Vec::new());
        }
        let states = self.model.forward(piece)?;
        let mut start = 0;
        let mut vectors = Vec::with_capacity(piece.len());
        for tokens in piece {
            let rows = states.narrow(0, start, tokens.len())?;
            start += tokens.len();
            vectors.push(unit(pool(&rows, pooling)?.to_vec1::<f32>()?, length));
        }
        Ok(vectors)
    }
}

/// A request's tokens, and how far it is.
pub struct Work {
    tokens: Vec<Vec<u32>>,
    next: usize,
    length: usize,
    pooling: Pooling,
    /// All tokens, those that the model itself puts around a text included.
    pub prompt_tokens: u64,
}

impl Work {
    /// Whether every vector was computed.
    pub fn is_done(&self) -> bool {
        self.next == self.tokens.len()
    }
}

fn pool(rows: &Tensor, pooling: Pooling) -> Result<Tensor, candle_core::Error> {
    match pooling {
        Pooling::Mean => rows.mean(0),
        Pooling::Cls => rows.get(0),
        Pooling::Last => rows.get(rows.dim(0)?.saturating_sub(1)),
    }
}

/// The first `length` numbers, scaled to length 1. A vector of zeros stays one.
fn unit(mut vector: Vec<f32>, length: usize) -> Vec<f32> {
    vector.truncate(length);
    let norm: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let norm = norm.sqrt();
    if norm > 0.0 {
        for x in &mut vector {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
    vector
}

/// llama.cpp's numbers: 0 none, 1 mean, 2 cls, 3 last, 4 rank.
fn pooling_of(gguf: &Gguf) -> Result<Pooling, LoadError> {
    let architecture = gguf.str("general.architecture")?;
    let key = format!("{architecture}.pooling_type");
    match gguf.opt_u32(&key)? {
        // Most of the family were made for the mean.
        None | Some(1) => Ok(Pooling::Mean),
        Some(2) => Ok(Pooling::Cls),
        Some(3) => Ok(Pooling::Last),
        Some(4) => Err(LoadError::Unsupported(
            "this model ranks texts and makes no vectors; rerankers are not supported".to_owned(),
        )),
        Some(other) => Err(LoadError::key(
            &key,
            format!("is {other}; 1 (mean), 2 (cls) and 3 (last) are known"),
        )),
    }
}

fn wrong(field: &str, message: &str) -> Failure {
    Failure {
        field: Some(field.to_owned()),
        ..Failure::new(FailureKind::BadRequest, message)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::tiny_encoder;
