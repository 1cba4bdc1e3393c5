//! Encoders of the BERT family on candle tensors: BERT itself (MiniLM, bge, e5)
//! and nomic's, which has rotary positions, a gated FFN and no biases.
//!
//! Texts of different lengths are not padded: every row of the big products is
//! a token of some text, and attention alone looks at one text at a time. So
//! nothing is computed for padding, no mask can be wrong, and a text's vector
//! does not depend on its neighbours.
//!
//! Layout of the tensors: llama.cpp's `convert_hf_to_gguf.py`.

use std::borrow::Cow;

use candle_core::quantized::{QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use crate::gguf::{Gguf, LoadError, unsupported_type};

/// Names in `general.architecture` that are run here.
pub(super) const ARCHITECTURES: [&str; 2] = ["bert", "nomic-bert"];

/// Rows of queries whose scores are in memory at once.
const QUERY_ROWS: usize = 256;
/// No model is larger in any of these; a file that says so is damaged.
const MAX_LAYERS: usize = 256;
const MAX_WIDTH: usize = 1 << 16;
const MAX_CONTEXT: usize = 1 << 16;

/// What a file says of its model.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) architecture: String,
    pub(super) layers: usize,
    /// Numbers in a token's state, and in a vector.
    pub(super) hidden: usize,
    heads: usize,
    ffn: usize,
    /// Longest input in tokens.
    pub(super) context: usize,
    pub(super) vocabulary: usize,
    epsilon: f32,
    /// Base of the rotary positions; `None` for learned ones.
    rope: Option<f32>,
}

impl Shape {
    pub(super) fn read(gguf: &Gguf) -> Result<Self, LoadError> {
        let architecture = gguf.str("general.architecture")?.to_owned();
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(LoadError::Unsupported(format!(
                "the architecture '{architecture}' makes no vectors here ({} do)",
                ARCHITECTURES.join(" and ")
            )));
        }
        let number = |name: &str, most: usize| {
            let key = format!("{architecture}.{name}");
            let number = gguf.u32(&key)? as usize;
            if number == 0 || number > most {
                return Err(LoadError::key(&key, format!("is {number}")));
            }
            Ok(number)
        };
        let hidden = number("embedding_length", MAX_WIDTH)?;
        let heads = number("attention.head_count", MAX_WIDTH)?;
        if hidden % heads != 0 || (hidden / heads) % 2 != 0 {
            return Err(LoadError::key(
                &format!("{architecture}.attention.head_count"),
                format!("does not divide {hidden} into even heads"),
            ));
        }
        if gguf.opt_bool(&format!("{architecture}.attention.causal"))? == Some(true) {
            return Err(LoadError::key(
                &format!("{architecture}.attention.causal"),
                "must be false for an encoder",
            ));
        }
        let rope = match architecture.as_str() {
            "nomic-bert" => Some(
                gguf.opt_f32("nomic-bert.rope.freq_base")?
                    .unwrap_or(10_000.0),
            ),
            _ => None,
        };
        let vocabulary = gguf
            .tensor_info("token_embd.weight")
            .and_then(|info| info.shape.first().copied())
            .ok_or_else(|| LoadError::tensor("token_embd.weight", "is missing"))?;
        Ok(Self {
            layers: number("block_count", MAX_LAYERS)?,
            ffn: number("feed_forward_length", MAX_WIDTH)?,
            context: number("context_length", MAX_CONTEXT)?,
            epsilon: gguf.f32(&format!("{architecture}.attention.layer_norm_epsilon"))?,
            hidden,
            heads,
            vocabulary,
            rope,
            architecture,
        })
    }

    /// Every tensor with the shape that it must have.
    fn tensors(&self, gguf: &Gguf) -> Vec<(String, Vec<usize>)> {
        let (hidden, ffn) = (self.hidden, self.ffn);
        let mut all = vec![
            (
                "token_embd.weight".to_owned(),
                vec![self.vocabulary, hidden],
            ),
            ("token_embd_norm.weight".to_owned(), vec![hidden]),
            ("token_embd_norm.bias".to_owned(), vec![hidden]),
        ];
        if let Some(types) = gguf.tensor_info("token_types.weight") {
            // Some files hold the first row alone.
            let rows = types.shape.first().copied().unwrap_or(0);
            let shape = match types.shape.len() {
                1 => vec![hidden],
                _ => vec![rows, hidden],
            };
            all.push(("token_types.weight".to_owned(), shape));
        }
        if self.rope.is_none() {
            all.push((
                "position_embd.weight".to_owned(),
                vec![self.context, hidden],
            ));
        }
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: Vec<usize>| {
                all.push((format!("blk.{layer}.{name}"), shape));
            };
            if gguf
                .tensor_info(&format!("blk.{layer}.attn_qkv.weight"))
                .is_some()
            {
                add("attn_qkv.weight", vec![3 * hidden, hidden]);
            } else {
                for part in ["attn_q", "attn_k", "attn_v"] {
                    add(&format!("{part}.weight"), vec![hidden, hidden]);
                }
            }
            add("attn_output.weight", vec![hidden, hidden]);
            add("ffn_up.weight", vec![ffn, hidden]);
            add("ffn_down.weight", vec![hidden, ffn]);
            if self.rope.is_some() {
                add("ffn_gate.weight", vec![ffn, hidden]);
            }
            for norm in ["attn_output_norm", "layer_output_norm"] {
                add(&format!("{norm}.weight"), vec![hidden]);
                add(&format!("{norm}.bias"), vec![hidden]);
            }
        }
        all
    }

    /// Refuses a file that lacks a tensor, or has one of another shape or type,
    /// and one that holds tensors which this model does not use: then it is
    /// another model.
    pub(super) fn check_tensors(&self, gguf: &Gguf) -> Result<(), LoadError> {
        let all = self.tensors(gguf);
        for (name, shape) in &all {
            let info = gguf
                .tensor_info(name)
                .ok_or_else(|| LoadError::tensor(name, "is missing"))?;
            if info.dtype.candle().is_none() {
                return Err(unsupported_type(info));
            }
            if info.shape != *shape {
                return Err(LoadError::tensor(
                    name,
                    format!("has the shape {:?}, not {shape:?}", info.shape),
                ));
            }
        }
        let known = |name: &str| {
            all.iter().any(|(known, shape)| {
                known == name
                    || (shape.len() == 2
                        && known.strip_suffix(".weight") == name.strip_suffix(".bias"))
            })
        };
        // The head of masked language modelling, which some files keep.
        let unused = |name: &str| name.starts_with("cls") || name.starts_with("pooler");
        match gguf
            .tensors()
            .find(|info| !known(&info.name) && !unused(&info.name))
        {
            None => Ok(()),
            Some(other) => Err(LoadError::tensor(
                &other.name,
                format!("is not part of a '{}' model", self.architecture),
            )),
        }
    }

    /// Weights in memory: they are computed as 32-bit numbers.
    pub(super) fn memory_bytes(&self, gguf: &Gguf) -> u64 {
        self.tensors(gguf)
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>() as u64 * 4)
            .sum()
    }
}

struct Linear {
    /// Transposed, so that rows of states are multiplied as they lie.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Result<Tensor, candle_core::Error> {
        let product = x.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor, candle_core::Error> {
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.epsilon)
    }
}

struct Layer {
    /// Query, key and value side by side.
    qkv: Linear,
    output: Linear,
    output_norm: Norm,
    up: Linear,
    gate: Option<Linear>,
    down: Linear,
    norm: Norm,
}

/// A model in memory.
pub(super) struct Bert {
    shape: Shape,
    tokens: Tensor,
    /// Added to every token: the type of a single text.
    token_type: Option<Tensor>,
    positions: Option<Tensor>,
    /// Cosines and sines of every position, `context x head / 2`.
    rope: Option<(Tensor, Tensor)>,
    norm: Norm,
    layers: Vec<Layer>,
    memory_bytes: u64,
}

struct Loader<'a> {
    gguf: &'a Gguf,
    epsilon: f32,
}

impl Loader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        let info = self
            .gguf
            .tensor_info(name)
            .ok_or_else(|| LoadError::tensor(name, "is missing"))?;
        let dtype = info.dtype.candle().ok_or_else(|| unsupported_type(info))?;
        let mut buffer = Vec::new();
        let data = Cow::Borrowed(self.gguf.read_tensor(info, &mut buffer)?);
        let storage = QStorage::from_data(data, &Device::Cpu, dtype)?;
        let tensor = QTensor::new(storage, info.shape.as_slice())?;
        Ok(tensor.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?)
    }

    fn maybe(&self, name: &str) -> Result<Option<Tensor>, LoadError> {
        let there = self.gguf.tensor_info(name).is_some();
        there.then(|| self.tensor(name)).transpose()
    }

    fn linear(&self, name: &str) -> Result<Linear, LoadError> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"))?.t()?,
            bias: self.maybe(&format!("{name}.bias"))?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
            epsilon: self.epsilon,
        })
    }

    fn qkv(&self, layer: &str) -> Result<Linear, LoadError> {
        if self
            .gguf
            .tensor_info(&format!("{layer}.attn_qkv.weight"))
            .is_some()
        {
            return self.linear(&format!("{layer}.attn_qkv"));
        }
        let parts = ["attn_q", "attn_k", "attn_v"].map(|part| format!("{layer}.{part}"));
        let weights = parts
            .iter()
            .map(|part| self.tensor(&format!("{part}.weight")))
            .collect::<Result<Vec<_>, _>>()?;
        let biases = parts
            .iter()
            .map(|part| self.maybe(&format!("{part}.bias")))
            .collect::<Result<Option<Vec<_>>, _>>();
        let bias = match biases? {
            Some(biases) => Some(Tensor::cat(&biases, 0)?),
            None => None,
        };
        Ok(Linear {
            weight: Tensor::cat(&weights, 0)?.t()?,
            bias,
        })
    }
}

impl Bert {
    pub(super) fn load(gguf: &Gguf, shape: Shape) -> Result<Self, LoadError> {
        shape.check_tensors(gguf)?;
        let from = Loader {
            gguf,
            epsilon: shape.epsilon,
        };
        let token_type = from.maybe("token_types.weight")?;
        let token_type = match token_type {
            Some(types) if types.rank() == 2 => Some(types.get(0)?),
            one => one,
        };
        let layers = (0..shape.layers)
            .map(|layer| {
                let name = format!("blk.{layer}");
                let gate = shape
                    .rope
                    .is_some()
                    .then(|| from.linear(&format!("{name}.ffn_gate")))
                    .transpose()?;
                Ok(Layer {
                    qkv: from.qkv(&name)?,
                    output: from.linear(&format!("{name}.attn_output"))?,
                    output_norm: from.norm(&format!("{name}.attn_output_norm"))?,
                    up: from.linear(&format!("{name}.ffn_up"))?,
                    gate,
                    down: from.linear(&format!("{name}.ffn_down"))?,
                    norm: from.norm(&format!("{name}.layer_output_norm"))?,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        let positions = match shape.rope {
            None => Some(from.tensor("position_embd.weight")?),
            Some(_) => None,
        };
        let rope = shape.rope.map(|base| rope(&shape, base)).transpose()?;
        Ok(Self {
            tokens: from.tensor("token_embd.weight")?,
            norm: from.norm("token_embd_norm")?,
            memory_bytes: shape.memory_bytes(gguf),
            token_type,
            positions,
            rope,
            layers,
            shape,
        })
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The last states of the texts' tokens, `all tokens x hidden`, one text
    /// after the other. Every text has 1 to `context` tokens below `vocabulary`.
    pub(super) fn forward(&self, texts: &[Vec<u32>]) -> Result<Tensor, candle_core::Error> {
        let ids: Vec<u32> = texts.iter().flatten().copied().collect();
        let ids = Tensor::from_vec(ids, texts.iter().map(Vec::len).sum::<usize>(), &Device::Cpu)?;
        let mut x = self.tokens.index_select(&ids, 0)?;
        if let Some(kind) = &self.token_type {
            x = x.broadcast_add(kind)?;
        }
        if let Some(positions) = &self.positions {
            let places: Vec<u32> = texts.iter().flat_map(|t| 0..t.len() as u32).collect();
            let count = places.len();
            let places = Tensor::from_vec(places, count, &Device::Cpu)?;
            x = (x + positions.index_select(&places, 0)?)?;
        }
        x = self.norm.apply(&x)?;
        for layer in &self.layers {
            let attended = layer.output.apply(&self.attend(layer, &x, texts)?)?;
            x = layer.output_norm.apply(&(x + attended)?)?;
            let up = layer.up.apply(&x)?;
            let inner = match &layer.gate {
                // The exact form with the error function, as in training.
                None => up.gelu_erf()?,
                Some(gate) => (gate.apply(&x)?.silu()? * up)?,
            };
            x = layer.norm.apply(&(x + layer.down.apply(&inner)?)?)?;
        }
        Ok(x)
    }

    /// Attention of each text to itself, in both directions.
    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        texts: &[Vec<u32>],
    ) -> Result<Tensor, candle_core::Error> {
        let (hidden, heads) = (self.shape.hidden, self.shape.heads);
        let size = hidden / heads;
        let scale = 1.0 / (size as f64).sqrt();
        let qkv = layer.qkv.apply(x)?;
        let mut start = 0;
        let mut parts = Vec::with_capacity(texts.len());
        for text in texts {
            let length = text.len();
            let rows = qkv.narrow(0, start, length)?;
            start += length;
            let part = |index: usize| {
                rows.narrow(1, index * hidden, hidden)?
                    .reshape((length, heads, size))?
                    .transpose(0, 1)?
                    .contiguous()
            };
            let (q, k, v) = (self.rotate(part(0)?)?, self.rotate(part(1)?)?, part(2)?);
            let q = (q * scale)?;
            let k = k.transpose(1, 2)?.contiguous()?;
            let mut at = 0;
            while at < length {
                let count = QUERY_ROWS.min(length - at);
                let scores = q.narrow(1, at, count)?.contiguous()?.matmul(&k)?;
                let weights = candle_nn::ops::softmax_last_dim(&scores)?;
                let mixed = weights.matmul(&v)?.transpose(0, 1)?;
                parts.push(mixed.reshape((count, hidden))?);
                at += count;
            }
        }
        Tensor::cat(&parts, 0)
    }

    /// Rotary positions, for models that have them: `heads x length x size`.
    fn rotate(&self, x: Tensor) -> Result<Tensor, candle_core::Error> {
        let Some((cos, sin)) = &self.rope else {
            return Ok(x);
        };
        let length = x.dim(1)?;
        let (cos, sin) = (cos.narrow(0, 0, length)?, sin.narrow(0, 0, length)?);
        candle_nn::rotary_emb::rope(&x.unsqueeze(0)?, &cos, &sin)?.squeeze(0)
    }
}

/// Tables of the rotary positions (Su et al. 2021), halves turned against each
/// other as in GPT-NeoX.
fn rope(shape: &Shape, base: f32) -> Result<(Tensor, Tensor), candle_core::Error> {
    let half = shape.hidden / shape.heads / 2;
    let angles = (0..shape.context).flat_map(|place| {
        (0..half).map(move |pair| {
            let frequency = f64::from(base).powf(-(pair as f64) / half as f64);
            place as f64 * frequency
        })
    });
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles
        .map(|angle| (angle.cos() as f32, angle.sin() as f32))
        .unzip();
    let table = |numbers| Tensor::from_vec(numbers, (shape.context, half), &Device::Cpu);
    Ok((table(cos)?, table(sin)?))
}
