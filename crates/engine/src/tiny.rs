//! Models of a few kilobytes for tests, as whole GGUF files: real weights that
//! go the whole way through the engine.

use nearfar_domain::chat::{Chat, Message, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::generate::ReadyModel;
use crate::gguf::{Gguf, GgufWriter, TensorType, Value};

pub(crate) const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
     {% if tools %}<tool_call>{{ tools | tojson }}\n{% endif %}\
     {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// What follows the 256 bytes in every tiny vocabulary.
const SPECIALS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|hidden|>"];
pub(crate) const IM_END: u32 = 257;

struct Shape {
    width: usize,
    layers: usize,
    context: usize,
}

/// A model that writes exactly `pieces`, one token each, after a prompt that
/// ends with `start`, and then ends its turn, or begins again if `forever`.
pub(crate) fn chain(start: u8, pieces: &[&[u8]], forever: bool) -> Vec<u8> {
    let order: Vec<usize> = (0..pieces.len()).collect();
    ordered(start, pieces, &order, forever)
}

/// As [`chain`], with the pieces in this order.
pub(crate) fn ordered(start: u8, pieces: &[&[u8]], order: &[usize], forever: bool) -> Vec<u8> {
    let first = 256 + SPECIALS.len();
    let vocabulary = first + pieces.len();
    // One dimension per token: the attention and feed-forward weights are 0, so
    // the output matrix alone says what follows a token.
    let width = vocabulary.next_multiple_of(32);
    let mut embedding = vec![0.0f32; vocabulary * width];
    let mut output = vec![0.0f32; vocabulary * width];
    for id in 0..vocabulary {
        embedding[id * width + id] = 1.0;
    }
    let mut follow = |from: usize, to: usize| output[to * width + from] = 1.0;
    follow(byte_id(start) as usize, first + order[0]);
    for (index, piece) in order.iter().enumerate() {
        let next = match order.get(index + 1) {
            Some(next) => first + next,
            None if forever => first + order[0],
            None => IM_END as usize,
        };
        follow(first + piece, next);
    }
    let shape = Shape {
        width,
        layers: 1,
        context: 512,
    };
    write(&shape, pieces, embedding, output, |length| {
        vec![0.0; length]
    })
}

/// A model with random weights; what it says has no meaning, but depends on
/// every token before.
pub(crate) fn random(seed: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut numbers = move |length: usize| -> Vec<f32> {
        (0..length)
            .map(|_| (random.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.6)
            .collect()
    };
    let shape = Shape {
        width: 64,
        layers: 2,
        context: 512,
    };
    let vocabulary = 256 + SPECIALS.len();
    let embedding = numbers(vocabulary * shape.width);
    let output = numbers(vocabulary * shape.width);
    write(&shape, &[], embedding, output, numbers)
}

fn write(
    shape: &Shape,
    pieces: &[&[u8]],
    embedding: Vec<f32>,
    output: Vec<f32>,
    mut numbers: impl FnMut(usize) -> Vec<f32>,
) -> Vec<u8> {
    const HEADS: usize = 4;
    const HEAD: usize = 16;
    let (width, feed_forward) = (shape.width, 64);
    let mut writer = GgufWriter::default();
    let number = |n: usize| Value::Unsigned(n as u64);
    writer
        .set("general.architecture", Value::Text("qwen3".into()))
        .set("general.name", Value::Text("tiny".into()))
        .set("general.sampling.temp", Value::Float(0.0))
        .set("qwen3.context_length", number(shape.context))
        .set("qwen3.embedding_length", number(width))
        .set("qwen3.block_count", number(shape.layers))
        .set("qwen3.feed_forward_length", number(feed_forward))
        .set("qwen3.attention.head_count", number(HEADS))
        .set("qwen3.attention.head_count_kv", number(2))
        .set("qwen3.attention.key_length", number(HEAD))
        .set("qwen3.attention.value_length", number(HEAD))
        .set("qwen3.attention.layer_norm_rms_epsilon", Value::Float(1e-6))
        .set("qwen3.rope.freq_base", Value::Float(10_000.0));
    let mut tokens: Vec<String> = (0..=255u8).map(stand_in).collect();
    tokens.extend(SPECIALS.map(str::to_owned));
    let mut types = vec![1; 256];
    types.extend([3; SPECIALS.len()]);
    for piece in pieces {
        tokens.push(piece.iter().map(|byte| stand_in(*byte)).collect());
        types.push(1);
    }
    writer
        .set("tokenizer.ggml.model", Value::Text("gpt2".into()))
        .set("tokenizer.ggml.pre", Value::Text("qwen2".into()))
        .set("tokenizer.ggml.tokens", Value::Texts(tokens))
        .set("tokenizer.ggml.token_type", Value::Integers(types))
        .set("tokenizer.ggml.merges", Value::Texts(Vec::new()))
        .set("tokenizer.ggml.eos_token_id", number(IM_END as usize))
        .set("tokenizer.chat_template", Value::Text(TEMPLATE.into()));
    let vocabulary = embedding.len() / width;
    let mut tensor = |name: &str, rows: usize, columns: usize, data: Vec<f32>| {
        assert_eq!(data.len(), rows * columns, "{name}");
        let shape: &[usize] = if rows == 1 {
            &[columns]
        } else {
            &[rows, columns]
        };
        let bytes = data
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        writer.tensor(name, shape, TensorType::F32, bytes);
    };
    tensor("token_embd.weight", vocabulary, width, embedding);
    tensor("output.weight", vocabulary, width, output);
    tensor("output_norm.weight", 1, width, vec![1.0; width]);
    for layer in 0..shape.layers {
        for (name, rows, columns) in [
            ("attn_q", HEADS * HEAD, width),
            ("attn_k", 2 * HEAD, width),
            ("attn_v", 2 * HEAD, width),
            ("attn_output", width, HEADS * HEAD),
            ("ffn_gate", feed_forward, width),
            ("ffn_up", feed_forward, width),
            ("ffn_down", width, feed_forward),
        ] {
            let data = numbers(rows * columns);
            tensor(&format!("blk.{layer}.{name}.weight"), rows, columns, data);
        }
        for (name, length) in [
            ("attn_norm", width),
            ("ffn_norm", width),
            ("attn_q_norm", HEAD),
            ("attn_k_norm", HEAD),
        ] {
            tensor(
                &format!("blk.{layer}.{name}.weight"),
                1,
                length,
                vec![1.0; length],
            );
        }
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("a vector takes all bytes");
    bytes
}

/// GPT-2's printable stand-in for a byte.
fn stand_in(byte: u8) -> String {
    let direct = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = if direct(byte) {
        u32::from(byte)
    } else {
        256 + (0..byte).filter(|b| !direct(*b)).count() as u32
    };
    char::from_u32(code).expect("below 512").to_string()
}

/// The token of a byte: in tiny vocabularies they are the same number.
pub(crate) fn byte_id(byte: u8) -> u32 {
    u32::from(byte)
}

pub(crate) fn gguf(bytes: Vec<u8>) -> Gguf {
    Gguf::from_static(bytes.leak()).expect("tiny models are whole")
}

pub(crate) fn ready(bytes: Vec<u8>) -> ReadyModel {
    ReadyModel::load("tiny", &gguf(bytes), None).expect("tiny models load")
}

/// A conversation of one question.
pub(crate) fn ask(text: &str) -> Chat {
    Chat::turns(vec![Message::text(Role::User, text)])
}
