//! Tiny models with random weights, one per trait of a family that a decoder
//! can get wrong. The same bytes on every machine: the example that writes
//! them for llama.cpp and the test that compares with its logits share this.

use super::gguf::{GgufWriter, TensorType, Value};

/// What a tiny model is made of.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) name: &'static str,
    pub(crate) family: &'static str,
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) inner: usize,
    pub(crate) vocab: usize,
    /// Stated in the file.
    pub(crate) context: usize,
    /// What to load it with; decides between two sets of rotary factors.
    pub(crate) load_context: usize,
    pub(crate) dtype: TensorType,
    pub(crate) tied: bool,
    /// For families where biases are optional.
    pub(crate) biases: bool,
    pub(crate) rope_dims: usize,
    /// Names of rotary factors to add.
    pub(crate) factors: &'static [&'static str],
    /// Further keys, without the family's name.
    pub(crate) keys: Vec<(&'static str, Value)>,
}

/// Splitmix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A plain model of a family: 3 layers of 64, 4 heads, 2 of them for keys.
pub(crate) fn plain(name: &'static str, family: &'static str) -> Tiny {
    Tiny {
        name,
        family,
        layers: 3,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        inner: 96,
        vocab: 48,
        context: 128,
        load_context: 128,
        dtype: TensorType::F32,
        tied: false,
        biases: false,
        rope_dims: 16,
        factors: &[],
        keys: Vec::new(),
    }
}

/// A qwen3 whose matrices are stored in one type; rows are whole super-blocks.
pub(crate) fn stored(name: &'static str, dtype: TensorType) -> Tiny {
    Tiny {
        layers: 2,
        width: 256,
        head_dim: 64,
        rope_dims: 64,
        inner: 512,
        dtype,
        ..plain(name, "qwen3")
    }
}

/// A granite with all its multipliers, and further keys.
fn granite(name: &'static str, more: &[(&'static str, Value)]) -> Tiny {
    let mut keys = vec![
        ("embedding_scale", Value::Float(3.0)),
        ("attention.scale", Value::Float(0.125)),
        ("residual_scale", Value::Float(0.4)),
        ("logit_scale", Value::Float(2.0)),
    ];
    keys.extend_from_slice(more);
    Tiny {
        keys,
        ..plain(name, "granite")
    }
}

/// All models whose logits are kept.
pub(crate) fn all() -> Vec<Tiny> {
    let long_rope = |name, load_context| Tiny {
        context: 512,
        load_context,
        factors: &["rope_factors_long", "rope_factors_short"],
        keys: vec![
            ("rope.scaling.original_context_length", Value::Unsigned(256)),
            ("rope.scaling.attn_factor", Value::Float(1.25)),
        ],
        ..plain(name, "phi3")
    };
    vec![
        plain("llama", "llama"),
        Tiny {
            tied: true,
            biases: true,
            factors: &["rope_freqs"],
            keys: vec![("rope.freq_base", Value::Float(500_000.0))],
            ..plain("llama-factors-biases-tied", "llama")
        },
        Tiny {
            keys: vec![
                ("rope.scaling.type", Value::Text("linear".into())),
                ("rope.scaling.factor", Value::Float(4.0)),
            ],
            ..plain("llama-linear", "llama")
        },
        plain("qwen2", "qwen2"),
        Tiny {
            head_dim: 24,
            rope_dims: 24,
            // More rows than are computed in one piece.
            vocab: 600,
            tied: true,
            keys: vec![("rope.freq_base", Value::Float(1_000_000.0))],
            ..plain("qwen3", "qwen3")
        },
        Tiny {
            layers: 7,
            tied: true,
            keys: vec![
                ("attention.sliding_window", Value::Unsigned(6)),
                ("rope.freq_base", Value::Float(1_000_000.0)),
                ("rope.scaling.type", Value::Text("linear".into())),
                ("rope.scaling.factor", Value::Float(8.0)),
            ],
            ..plain("gemma3", "gemma3")
        },
        Tiny {
            layers: 4,
            tied: true,
            kv_heads: 1,
            keys: vec![
                ("attention.sliding_window", Value::Unsigned(5)),
                ("attention.sliding_window_pattern", Value::Unsigned(2)),
                ("rope.freq_base_swa", Value::Float(300.0)),
                ("final_logit_softcapping", Value::Float(4.0)),
            ],
            ..plain("gemma3-pattern-softcap", "gemma3")
        },
        Tiny {
            tied: true,
            ..plain("gemma3-no-window", "gemma3")
        },
        Tiny {
            kv_heads: 4,
            ..plain("phi3", "phi3")
        },
        Tiny {
            rope_dims: 12,
            tied: true,
            ..plain("phi3-partial-tied", "phi3")
        },
        Tiny {
            layers: 5,
            tied: true,
            ..plain("smollm3", "smollm3")
        },
        granite("granite", &[]),
        granite(
            "granite-unrotated",
            &[("rope.scaling.finetuned", Value::Bool(false))],
        ),
        long_rope("phi3-short-factors", 256),
        long_rope("phi3-long-factors", 512),
        stored("f16", TensorType::F16),
        stored("q8_0", TensorType::Q8_0),
        stored("q4_0", TensorType::Q4_0),
        stored("q4_k", TensorType::Q4K),
        stored("q5_k", TensorType::Q5K),
        stored("q6_k", TensorType::Q6K),
        stored("bf16", TensorType::BF16),
        stored("q4_1", TensorType::Q4_1),
        stored("q5_0", TensorType::Q5_0),
        stored("q5_1", TensorType::Q5_1),
        stored("q2_k", TensorType::Q2K),
        stored("q3_k", TensorType::Q3K),
    ]
}

/// The tokens that every model is given.
pub(crate) fn prompt(vocab: usize) -> Vec<u32> {
    let mut random = Random(7);
    (0..24)
        .map(|_| (random.bits() % vocab as u64) as u32)
        .collect()
}

impl Tiny {
    /// The model as a GGUF file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A vector never refuses to be written to.
        let _ = self.writer().write(&mut bytes);
        bytes
    }

    /// The model before it is written.
    pub(crate) fn writer(&self) -> GgufWriter {
        let mut writer = GgufWriter::default();
        let number = |n: usize| Value::Unsigned(n as u64);
        writer.set("general.architecture", Value::Text(self.family.into()));
        // llama.cpp's name for a model that is only given token ids.
        writer.set("tokenizer.ggml.model", Value::Text("no_vocab".into()));
        for (key, value) in [
            ("vocab_size", number(self.vocab)),
            ("context_length", number(self.context)),
            ("block_count", number(self.layers)),
            ("embedding_length", number(self.width)),
            ("feed_forward_length", number(self.inner)),
            ("attention.head_count", number(self.heads)),
            ("attention.head_count_kv", number(self.kv_heads)),
            ("attention.key_length", number(self.head_dim)),
            ("attention.value_length", number(self.head_dim)),
            ("attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
            ("rope.dimension_count", number(self.rope_dims)),
        ] {
            writer.set(&format!("{}.{key}", self.family), value);
        }
        for (key, value) in &self.keys {
            writer.set(&format!("{}.{key}", self.family), value.clone());
        }
        Tensors {
            tiny: self,
            random: Random(self.name.bytes().map(u64::from).sum()),
            writer: &mut writer,
        }
        .write();
        writer
    }
}

struct Tensors<'a> {
    tiny: &'a Tiny,
    random: Random,
    writer: &'a mut GgufWriter,
}

impl Tensors<'_> {
    fn write(mut self) {
        let tiny = self.tiny;
        let (width, query, kv) = (
            tiny.width,
            tiny.heads * tiny.head_dim,
            tiny.kv_heads * tiny.head_dim,
        );
        self.matrix("token_embd.weight", tiny.vocab, width);
        self.vector("output_norm.weight", width, 1.0, 0.3);
        if !tiny.tied {
            self.matrix("output.weight", tiny.vocab, width);
        }
        for name in tiny.factors {
            // From 1 to 5, and other ones for each set.
            self.vector(&format!("{name}.weight"), tiny.rope_dims / 2, 3.0, 2.0);
        }
        let fused = tiny.family == "phi3";
        let gemma = tiny.family == "gemma3";
        for layer in 0..tiny.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            self.vector(&name("attn_norm"), width, 1.0, 0.3);
            self.vector(&name("ffn_norm"), width, 1.0, 0.3);
            if gemma || tiny.family == "qwen3" {
                self.vector(&name("attn_q_norm"), tiny.head_dim, 1.5, 0.5);
                self.vector(&name("attn_k_norm"), tiny.head_dim, 1.5, 0.5);
            }
            if gemma {
                self.vector(&name("post_attention_norm"), width, 0.8, 0.3);
                self.vector(&name("post_ffw_norm"), width, 0.8, 0.3);
            }
            if fused {
                self.matrix(&name("attn_qkv"), query + 2 * kv, width);
                self.matrix(&name("ffn_up"), 2 * tiny.inner, width);
            } else {
                self.matrix(&name("attn_q"), query, width);
                self.matrix(&name("attn_k"), kv, width);
                self.matrix(&name("attn_v"), kv, width);
                self.matrix(&name("ffn_gate"), tiny.inner, width);
                self.matrix(&name("ffn_up"), tiny.inner, width);
            }
            self.matrix(&name("attn_output"), width, query);
            self.matrix(&name("ffn_down"), width, tiny.inner);
            let bias = |part: &str| format!("blk.{layer}.{part}.bias");
            if tiny.biases || tiny.family == "qwen2" {
                self.vector(&bias("attn_q"), query, 0.0, 0.7);
                self.vector(&bias("attn_k"), kv, 0.0, 0.7);
                self.vector(&bias("attn_v"), kv, 0.0, 0.7);
            }
            if tiny.biases {
                self.vector(&bias("attn_output"), width, 0.0, 0.3);
                self.vector(&bias("ffn_gate"), tiny.inner, 0.0, 0.3);
                self.vector(&bias("ffn_up"), tiny.inner, 0.0, 0.3);
                self.vector(&bias("ffn_down"), width, 0.0, 0.3);
            }
        }
    }

    fn vector(&mut self, name: &str, length: usize, middle: f32, spread: f32) {
        let data = (0..length)
            .flat_map(|_| (middle + spread * self.random.number()).to_le_bytes())
            .collect();
        self.writer.tensor(name, &[length], TensorType::F32, data);
    }

    /// Values with a standard deviation of about 1.5 / sqrt(columns).
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) {
        let size = 2.6 / (columns as f32).sqrt();
        let random = &mut self.random;
        let count = rows * columns;
        let mut data = Vec::new();
        match self.tiny.dtype {
            TensorType::F32 => {
                (0..count).for_each(|_| data.extend((size * random.number()).to_le_bytes()))
            }
            TensorType::F16 => (0..count).for_each(|_| data.extend(half(size * random.number()))),
            TensorType::BF16 => {
                (0..count).for_each(|_| data.extend(&(size * random.number()).to_le_bytes()[2..]));
            }
            blocks => blocks_of(blocks, count, size, random, &mut data),
        }
        self.writer
            .tensor(name, &[rows, columns], self.tiny.dtype, data);
    }
}

/// Random blocks: any quants with scales that keep the values near `size`.
fn blocks_of(dtype: TensorType, count: usize, size: f32, random: &mut Random, data: &mut Vec<u8>) {
    let (elements, bytes) = dtype.block().unwrap_or((1, 1));
    // Where the half-precision scales lie in a block, and their values.
    let (scale, minimum) = match dtype {
        TensorType::Q8_0 => ((0, size / 127.0), None),
        TensorType::Q4_0 => ((0, size / 8.0), None),
        TensorType::Q5_0 => ((0, size / 16.0), None),
        TensorType::Q4_1 => ((0, size / 7.5), Some((2, -size))),
        TensorType::Q5_1 => ((0, size / 15.5), Some((2, -size))),
        TensorType::Q2K => ((80, size / 15.0), Some((82, size / 10.0))),
        TensorType::Q3K => ((108, size / 70.0), None),
        TensorType::Q4K => ((0, size / 400.0), Some((2, size / 50.0))),
        TensorType::Q5K => ((0, size / 800.0), Some((2, size / 50.0))),
        _ => ((208, size / 2500.0), None),
    };
    for _ in 0..count / elements {
        let start = data.len();
        // -128 is outside of what Q8_0 means; the kernels differ there.
        data.extend((0..bytes).map(|_| match random.bits() as u8 {
            0x80 if dtype == TensorType::Q8_0 => 0x81,
            byte => byte,
        }));
        for (at, value) in std::iter::once(scale).chain(minimum) {
            let wobble = 1.0 + 0.3 * random.number();
            data[start + at..start + at + 2].copy_from_slice(&half(value * wobble));
        }
    }
}

/// A number as half-precision bytes, cut rather than rounded.
fn half(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
    let half = match exponent {
        31.. => sign | 0x7bff,
        1..=30 => sign | ((exponent as u32) << 10) | ((bits >> 13) & 0x3ff),
        // Denormal: the hidden bit is written out.
        _ => sign | (((bits & 0x7f_ffff) | 0x80_0000) >> (14 - exponent).min(31)),
    };
    (half as u16).to_le_bytes()
}
