//! A small file is read back, and some thousands of damaged ones are refused
//! or read, never trusted.

#![allow(clippy::unwrap_used)]

use super::*;

fn small() -> Vec<u8> {
    let mut writer = GgufWriter::default();
    writer
        .set("general.architecture", Value::Text("llama".into()))
        .set("llama.block_count", Value::Unsigned(2))
        .set("llama.rope.freq_base", Value::Float(10000.0))
        .set(
            "tokenizer.ggml.tokens",
            Value::Texts(vec!["a".into(), "b".into(), "ab".into()]),
        )
        .set("tokenizer.ggml.token_type", Value::Integers(vec![1, 1, 3]))
        .set("tokenizer.ggml.scores", Value::Floats(vec![0.0, -1.0, 2.5]))
        .set("tokenizer.ggml.add_bos_token", Value::Bool(true))
        .tensor("token_embd.weight", &[3, 8], TensorType::F32, vec![7; 96])
        .tensor(
            "blk.0.attn_q.weight",
            &[2, 32],
            TensorType::Q8_0,
            vec![1; 68],
        );
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

fn parse(bytes: &[u8]) -> Result<Gguf, LoadError> {
    Gguf::from_static(bytes.to_vec().leak())
}

#[test]
fn what_is_written_is_read() {
    let gguf = parse(&small()).unwrap();
    assert_eq!(gguf.str("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.u32("llama.block_count").unwrap(), 2);
    assert_eq!(gguf.f32("llama.rope.freq_base").unwrap(), 10000.0);
    assert_eq!(
        gguf.strings("tokenizer.ggml.tokens").unwrap(),
        ["a", "b", "ab"]
    );
    assert_eq!(
        gguf.opt_integers("tokenizer.ggml.token_type").unwrap(),
        [1, 1, 3]
    );
    assert_eq!(
        gguf.opt_bool("tokenizer.ggml.add_bos_token").unwrap(),
        Some(true)
    );
    let info = gguf.tensor_info("blk.0.attn_q.weight").unwrap();
    assert_eq!(info.shape, [2, 32]);
    assert_eq!(gguf.read_tensor(info, &mut Vec::new()).unwrap(), [1; 68]);
}

#[test]
fn a_missing_or_wrong_key_is_named() {
    let gguf = parse(&small()).unwrap();
    let message = gguf.u32("llama.context_length").unwrap_err().to_string();
    assert!(
        message.contains("llama.context_length") && message.contains("missing"),
        "{message}"
    );
    let message = gguf.u32("general.architecture").unwrap_err().to_string();
    assert!(message.contains("not a string"), "{message}");
}

#[test]
fn every_truncation_is_refused() {
    let whole = small();
    for length in 0..whole.len() {
        let cut = &whole[..length];
        if let Ok(gguf) = parse(cut) {
            // Only padding may be missing.
            for info in gguf.tensors() {
                assert!(
                    gguf.read_tensor(info, &mut Vec::new()).is_ok(),
                    "cut at {length}"
                );
            }
            assert!(whole.len() - length < 32, "cut at {length} was accepted");
        }
    }
}

#[test]
fn no_flipped_bit_does_harm() {
    let whole = small();
    for index in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[index] ^= 1 << bit;
            if let Ok(gguf) = parse(&bytes) {
                for info in gguf.tensors() {
                    let _ = gguf.read_tensor(info, &mut Vec::new());
                }
            }
        }
    }
}

#[test]
fn absurd_lengths_are_refused_before_they_are_allocated() {
    let whole = small();
    // Every aligned-or-not position is overwritten by lengths that would take
    // all memory if they were believed.
    for index in 4..whole.len() - 8 {
        for absurd in [u64::MAX, u64::MAX / 8, 1 << 40, 1 << 33, i64::MAX as u64] {
            let mut bytes = whole.clone();
            bytes[index..index + 8].copy_from_slice(&absurd.to_le_bytes());
            let _ = parse(&bytes);
        }
    }
}

#[test]
fn an_unknown_tensor_type_is_refused_by_name() {
    let mut writer = GgufWriter::default();
    writer.tensor("x", &[1, 256], TensorType::Other(17), vec![0; 74]);
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let gguf = parse(&bytes).unwrap();
    let message = gguf
        .read_tensor(gguf.tensor_info("x").unwrap(), &mut Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("IQ2_XS") && message.contains("Q4_K_M"),
        "{message}"
    );
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let eight = |data: fn(usize) -> Vec<u8>| {
        let mut writer = GgufWriter::default();
        for index in 0..8 {
            writer.tensor(
                &format!("t{index}"),
                &[32, 32],
                TensorType::F32,
                data(index),
            );
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        parse(&bytes)
    };
    assert!(eight(|_| vec![0; 4096]).is_ok());
    // Only the last one's bytes are there, and all eight point at them.
    let message = eight(|index| vec![0; index / 7 * 4096])
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("larger than the file"), "{message}");
}
