//! The answer of `/embeddings` as [`Event`]s.

use nearfar_domain::events::{Event, Failure, FinishReason, Usage};
use serde::Deserialize;
use serde_json::Value;

use crate::codec::{cut, malformed};
use crate::upstream::Said;

/// No model's vectors are longer.
const MAX_DIMENSIONS: usize = 1 << 16;
/// Vectors in one event, so that each stays far below a frame's bound.
const VECTORS_PER_EVENT: usize = 32;

/// Reads one answer, whole.
pub struct Embeddings {
    provider: String,
    model: String,
    inputs: usize,
    complete: bool,
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    data: Option<Vec<Item>>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

impl Embeddings {
    /// See [`crate::codec::Decoder::embeddings`].
    pub fn new(provider: &str, model: &str, inputs: usize) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            inputs,
            complete: false,
        }
    }

    /// Whether `Finished` was given out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Nothing follows a body.
    ///
    /// # Errors
    /// [`nearfar_domain::events::FailureKind::Cut`] when there was none.
    pub fn end(&self) -> Result<(), Failure> {
        match self.complete {
            true => Ok(()),
            false => Err(cut(&self.provider)),
        }
    }

    /// See [`crate::codec::Decoder::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Failure> {
        let wrong = |what: &str| malformed(&self.provider, what);
        let read = serde_json::from_slice::<Body>(body).ok();
        let Some((data, read)) = read.and_then(|mut body| Some((body.data.take()?, body))) else {
            let said = Said::of(&serde_json::from_slice(body).unwrap_or(Value::Null));
            return Err(match said.message {
                Some(_) => said.failure(&self.provider, None, None),
                None => wrong("it has no vectors"),
            });
        };
        if data.len() != self.inputs {
            let (has, asked) = (data.len(), self.inputs);
            return Err(wrong(&format!("it has {has} vectors for {asked} inputs")));
        }
        let length = data.first().map_or(0, |item| item.embedding.len());
        if length == 0 || length > MAX_DIMENSIONS {
            return Err(wrong(&format!("its vectors have {length} numbers")));
        }
        let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); self.inputs];
        for (place, item) in data.into_iter().enumerate() {
            if item.embedding.len() != length {
                return Err(wrong("its vectors differ in length"));
            }
            if !item.embedding.iter().all(|number| number.is_finite()) {
                return Err(wrong("a vector has a number that is none"));
            }
            match vectors.get_mut(item.index.unwrap_or(place)) {
                Some(slot) if slot.is_empty() => *slot = item.embedding,
                _ => return Err(wrong("its vectors are numbered wrongly")),
            }
        }
        let model = read.model.unwrap_or_else(|| self.model.clone());
        out.push(Event::Started { model });
        while !vectors.is_empty() {
            let rest = vectors.split_off(vectors.len().min(VECTORS_PER_EVENT));
            out.push(Event::Vectors(std::mem::replace(&mut vectors, rest)));
        }
        let prompt = read
            .usage
            .and_then(|counts| counts.prompt_tokens.or(counts.total_tokens));
        out.push(Event::Finished {
            reason: FinishReason::Stop,
            usage: Usage {
                prompt,
                // Not None: the price of no tokens is known.
                completion: prompt.map(|_| 0),
                ..Usage::default()
            },
        });
        self.complete = true;
        Ok(())
    }
}
