//! What the catalogue is told is what a load would find.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::generate::ReadyModel;
use crate::gguf::{GgufWriter, TensorType, Value};
use crate::tiny::{gguf, random};

#[test]
fn a_tiny_model_is_described() {
    let file = gguf(random(1));
    let info = inspect(&file).unwrap();
    let ready = ReadyModel::load("tiny", &file, None).unwrap();
    assert_eq!(info.name.as_deref(), Some("tiny"));
    assert_eq!(
        (info.architecture.as_str(), info.context_tokens),
        ("qwen3", 512)
    );
    assert_eq!(info.tools, ready.offers_tools());
    assert_eq!(info.quantisation, "F32");
    let weights = ready.model().memory_bytes();
    // All of them are F32. Embedding and output have 259 rows of 64, which are
    // padded to 272.
    assert_eq!(info.parameters * 4 + 2 * 13 * 64 * 4, weights);
    assert_eq!(
        info.memory_bytes,
        weights + 512 * ready.model().cache_bytes_per_token()
    );
}

#[test]
fn what_a_load_refuses_is_refused_in_the_same_words() {
    let mut bare = GgufWriter::default();
    bare.set("general.architecture", Value::Text("mamba".into()));
    let mut odd = GgufWriter::default();
    odd.set("general.architecture", Value::Text("llama".into()));
    odd.tensor("token_embd.weight", &[1, 32], TensorType::Other(39), vec![]);
    for writer in [bare, odd] {
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        let file = gguf(bytes);
        let words = inspect(&file).unwrap_err().to_string();
        let load = crate::model::Model::load(&file).err().unwrap().to_string();
        assert_eq!(words, load);
    }
    // Missing tensors are noticed without reading any.
    let mut whole = random(1);
    let name = b"blk.1.ffn_up.weight";
    let at = whole.windows(name.len()).position(|w| w == name).unwrap();
    whole[at + 4] = b'7';
    let words = inspect(&gguf(whole)).unwrap_err().to_string();
    assert!(words.contains("blk.1.ffn_up.weight"), "{words}");
}

#[test]
fn damaged_files_are_errors_not_panics() {
    let whole = random(1);
    for seed in 0..300usize {
        let mut bytes = whole.clone();
        // Most of the damage goes where the header is.
        let span = if seed % 3 == 0 { bytes.len() } else { 6000 };
        let at = seed.wrapping_mul(2_654_435_761) % span;
        bytes[at] ^= 1 << (seed % 8);
        if seed % 5 == 0 {
            bytes.truncate(seed.wrapping_mul(40_503) % whole.len());
        }
        if let Ok(file) = Gguf::from_static(bytes.leak()) {
            let _ = inspect(&file);
        }
    }
}
