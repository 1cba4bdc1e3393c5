//! Files that lie: each is refused with a reason, none makes the engine panic,
//! hang or fill the memory.

use super::*;
use crate::gguf::{GgufWriter, TensorType, Value};

fn refusal(bytes: Vec<u8>) -> String {
    match open(bytes).and_then(|gguf| Model::load(&gguf)) {
        Ok(_) => panic!("was loaded"),
        Err(error) => error.to_string(),
    }
}

/// The file of a model with one key changed to another value.
fn with_key(family: &'static str, key: &'static str, value: Value) -> Vec<u8> {
    let tiny = tiny::plain("hostile", family);
    let mut writer = tiny.writer();
    writer.replace(&format!("{family}.{key}"), value);
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn impossible_figures_are_refused_by_name() {
    let number = Value::Unsigned;
    let cases = [
        ("block_count", number(0)),
        ("block_count", number(4_000_000_000)),
        ("block_count", Value::Signed(-1)),
        ("block_count", Value::Text("3".into())),
        ("embedding_length", number(0)),
        ("embedding_length", number(u64::from(u32::MAX))),
        ("feed_forward_length", number(0)),
        ("feed_forward_length", number(1 << 31)),
        ("attention.head_count", number(0)),
        ("attention.head_count", number(1 << 30)),
        ("attention.head_count_kv", number(0)),
        ("attention.head_count_kv", number(3)),
        ("attention.head_count_kv", Value::Integers(vec![2, 1, 2])),
        ("attention.head_count_kv", Value::Integers(vec![2])),
        ("attention.key_length", number(0)),
        ("attention.key_length", number(15)),
        ("attention.key_length", number(1 << 20)),
        ("attention.value_length", number(8)),
        ("attention.layer_norm_rms_epsilon", Value::Float(0.0)),
        ("attention.layer_norm_rms_epsilon", Value::Float(f64::NAN)),
        ("context_length", number(0)),
        ("context_length", number(u64::from(u32::MAX))),
        ("rope.dimension_count", number(0)),
        ("rope.dimension_count", number(7)),
        ("rope.dimension_count", number(18)),
        ("rope.freq_base", Value::Float(-1.0)),
        ("rope.freq_base", Value::Float(f64::INFINITY)),
        ("rope.scaling.factor", Value::Float(-4.0)),
        ("rope.scaling.factor", Value::Float(1e-30)),
        ("attn_logit_softcapping", Value::Float(50.0)),
    ];
    for (key, value) in cases {
        let message = refusal(with_key("llama", key, value.clone()));
        assert!(
            message.contains(&format!("llama.{key}")),
            "{key} = {value:?}: {message}"
        );
    }
    // Each within its bounds, and together too much.
    let mut writer = tiny::plain("hostile", "llama").writer();
    writer.replace("llama.attention.head_count", number(1 << 10));
    writer.replace("llama.attention.key_length", number(1 << 10));
    writer.replace("llama.attention.value_length", number(1 << 10));
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    assert!(refusal(bytes).contains("1024 heads"));
    for (key, value) in [
        ("attention.sliding_window_pattern", Value::Bools(vec![true])),
        ("attention.sliding_window_pattern", number(100_000)),
        ("attention.sliding_window", number(u64::from(u32::MAX))),
        ("final_logit_softcapping", Value::Float(-3.0)),
    ] {
        let mut tiny = tiny::plain("hostile", "gemma3");
        tiny.keys = vec![("attention.sliding_window", number(4))];
        let mut writer = tiny.writer();
        writer.replace(&format!("gemma3.{key}"), value);
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        let message = refusal(bytes);
        assert!(
            message.contains(&format!("gemma3.{key}")),
            "{key}: {message}"
        );
    }
}

#[test]
fn what_is_not_run_is_refused_in_words() {
    let message = refusal(with_key(
        "llama",
        "rope.scaling.type",
        Value::Text("yarn".into()),
    ));
    assert!(message.contains("yarn"), "{message}");
    let message = refusal(with_key("llama", "expert_count", Value::Unsigned(8)));
    assert!(message.contains("mixture-of-experts"), "{message}");
    let mut tiny = tiny::plain("x", "llama");
    tiny.family = "mamba";
    let message = refusal(tiny.file());
    assert!(
        message.contains("'mamba'") && message.contains("qwen3"),
        "{message}"
    );
    assert!(
        refusal(with_key("llama", "context_length", Value::Bool(true))).contains("context_length")
    );
}

/// Every tensor of a valid file, in turn: missing, of another shape, or of a
/// type that is not run.
#[test]
fn every_tensor_is_checked() {
    for family in [
        "llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3", "granite",
    ] {
        let mut tiny = tiny::plain("tensors", family);
        tiny.layers = 1;
        let names: Vec<String> = {
            let gguf = open(tiny.file()).unwrap();
            gguf.tensors().map(|info| info.name.clone()).collect()
        };
        for name in names {
            let changed = |change: fn(&mut GgufWriter, &str)| {
                let mut writer = tiny.writer();
                change(&mut writer, &name);
                let mut bytes = Vec::new();
                writer.write(&mut bytes).unwrap();
                bytes
            };
            let message = refusal(changed(|writer, name| {
                writer.replace_tensor(name, &[3, 5], TensorType::F32, vec![0; 60]);
            }));
            // The embedding's rows are the vocabulary: its shape decides others'.
            assert!(message.contains("shape"), "{name}: {message}");
            let message = refusal(changed(|writer, name| {
                let shape = writer.shape_of(name);
                writer.replace_tensor(name, &shape, TensorType::Other(23), vec![0; 64]);
            }));
            assert!(
                message.contains(&name) && message.contains("IQ4_XS"),
                "{name}: {message}"
            );
            if name != "output.weight" {
                let message = refusal(changed(|writer, name| {
                    writer.rename_tensor(name, "unused");
                }));
                assert!(
                    message.contains(&name) && message.contains("missing"),
                    "{name}: {message}"
                );
            }
        }
    }
}

#[test]
fn a_tensor_that_nobody_uses_is_a_model_that_is_not_this_one() {
    let tiny = tiny::plain("extra", "llama");
    let mut writer = tiny.writer();
    writer.tensor(
        "blk.0.attn_sinks.weight",
        &[4],
        TensorType::F32,
        vec![0; 16],
    );
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    assert!(refusal(bytes).contains("attn_sinks"));
}

#[test]
fn rotary_factors_must_be_positive() {
    for bad in [0f32, -1.0, f32::NAN] {
        let tiny = tiny::plain("factors", "llama");
        let mut writer = tiny.writer();
        let data = [1.0f32, 1.0, bad, 1.0, 1.0, 1.0, 1.0, 1.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        writer.tensor("rope_freqs.weight", &[8], TensorType::F32, data);
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        assert!(refusal(bytes).contains("rotary factors"));
    }
}

#[test]
fn a_file_that_shrinks_under_us_is_an_error() {
    use std::io::Write;
    let bytes = tiny::plain("shrinks", "llama").file();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let gguf = Gguf::open(file.path()).unwrap();
    let whole = Model::load(&gguf).unwrap();
    assert!(whole.forward(&mut whole.new_cache(), &[1]).is_ok());
    file.as_file().set_len(bytes.len() as u64 - 64).unwrap();
    for executor in [Executor::default(), Executor::Reference] {
        let options = LoadOptions {
            executor,
            ..LoadOptions::default()
        };
        let error = Model::load_with(&gguf, &options).err().unwrap();
        assert!(
            error.to_string().contains("the file has changed"),
            "{error}"
        );
    }
}

/// Hundreds of damaged files: loaded or refused, and where loaded, run.
#[test]
fn damage_does_no_harm() {
    let mut random = tiny::Random(11);
    for family in ["llama", "gemma3", "phi3", "qwen3"] {
        let mut tiny = tiny::plain("damage", family);
        tiny.layers = 1;
        let whole = tiny.file();
        let header = whole.len() - super::sequence::tiny_data_len(&open(whole.clone()).unwrap());
        for round in 0..150 {
            let mut bytes = whole.clone();
            match round % 3 {
                0 => bytes.truncate(random.bits() as usize % whole.len()),
                1 => bytes[random.bits() as usize % header] ^= 1 << (random.bits() % 8),
                _ => {
                    let at = random.bits() as usize % (header - 8);
                    let absurd = [u64::MAX, 1 << 40, 0, 1 << 31][random.bits() as usize % 4];
                    bytes[at..at + 8].copy_from_slice(&absurd.to_le_bytes());
                }
            }
            let Ok(gguf) = open(bytes) else { continue };
            let Ok(model) = Model::load(&gguf) else {
                continue;
            };
            assert!(
                model.memory_bytes() <= 2 * whole.len() as u64,
                "{family}, round {round}"
            );
            let _ = model.forward(&mut model.new_cache(), &[0, 1]);
        }
    }
}
