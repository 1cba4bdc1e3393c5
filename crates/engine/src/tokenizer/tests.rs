//! Real vocabularies against their expected ids, and what must be refused.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::gguf::{GgufWriter, Value};

fn shared(folder: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    #[allow(clippy::disallowed_methods)] // the one place that tests look for foreign data
    let data = std::env::var_os("NEARFAR_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let path = data.join("data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no data at {}", path.display());
    None
}

fn matches_expected_ids(name: &str) {
    let Some(folder) = shared("vocab") else { return };
    let file = folder.join(format!("ggml-vocab-{name}.gguf"));
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&file).unwrap()).unwrap();
    let inputs = std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.inp"))).unwrap();
    let expected = std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.out"))).unwrap();
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let mut compared = 0;
    for (text, ids) in inputs.iter().zip(expected.lines()) {
        let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
        let back = String::from_utf8(bytes).unwrap();
        assert!(back == *text || back == format!(" {text}"), "{text:?} came back as {back:?}");
        compared += 1;
    }
    assert!(compared > 20, "only {compared} lines were compared");
    println!("{name}: {compared} texts");
}

#[test]
fn gpt2_tokens_are_the_expected_ones() {
    matches_expected_ids("gpt-2");
}

#[test]
fn qwen2_tokens_are_the_expected_ones() {
    matches_expected_ids("qwen2");
}

#[test]
fn sentencepiece_tokens_are_the_expected_ones() {
    matches_expected_ids("llama-spm");
}

/// A vocabulary of single bytes, one merge and two special tokens.
fn tiny(pre: Option<&str>) -> Gguf {
    let mut tokens: Vec<String> = byte_alphabet().keys().map(char::to_string).collect();
    tokens.sort();
    let mut types = vec![1; tokens.len()];
    tokens.extend(["hi".to_owned(), "<|im_end|>".to_owned(), "<tool>".to_owned()]);
    types.extend([1, CONTROL, USER_DEFINED]);
    let mut writer = GgufWriter::default();
    writer
        .set("tokenizer.ggml.model", Value::Text("gpt2".into()))
        .set("tokenizer.ggml.tokens", Value::Texts(tokens))
        .set("tokenizer.ggml.token_type", Value::Integers(types))
        .set("tokenizer.ggml.merges", Value::Texts(vec!["h i".into()]));
    if let Some(pre) = pre {
        writer.set("tokenizer.ggml.pre", Value::Text(pre.into()));
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Gguf::from_static(bytes.leak()).unwrap()
}

#[test]
fn control_tokens_are_recognised_only_when_asked() {
    let tokenizer = Tokenizer::from_gguf(&tiny(Some("qwen2"))).unwrap();
    let end = tokenizer.id_of("<|im_end|>").unwrap();
    let tool = tokenizer.id_of("<tool>").unwrap();
    assert_eq!(tokenizer.encode("hi<|im_end|>", true).unwrap(), [256, end]);
    let plain = tokenizer.encode("hi<|im_end|><tool>", false).unwrap();
    assert!(!plain.contains(&end) && plain.contains(&tool));
    assert!(tokenizer.ends_generation(end) && !tokenizer.ends_generation(tool));
}

#[test]
fn an_unknown_or_missing_pre_tokenizer_is_refused() {
    let message = Tokenizer::from_gguf(&tiny(Some("brand-new"))).err().unwrap().to_string();
    assert!(message.contains("brand-new"), "{message}");
    let message = Tokenizer::from_gguf(&tiny(None)).err().unwrap().to_string();
    assert!(message.contains("tokenizer.ggml.pre"), "{message}");
}

#[test]
fn every_known_pre_tokenizer_compiles() {
    let names = "default llama-bpe dbrx glm4 gpt-2 mpt olmo starcoder refact command-r smollm codeshell exaone qwen2 \
                 deepseek-r1-qwen qwen35 deepseek-llm deepseek-coder deepseek-v3 falcon poro-chat bloom viking tekken \
                 gpt-4o seed-coder bailingmoe stablelm2 lfm2";
    for name in names.split_whitespace() {
        let tokenizer = Tokenizer::from_gguf(&tiny(Some(name))).unwrap_or_else(|e| panic!("{name}: {e}"));
        let text = "Hi there, 1234 déjà-vu!\n\n  日本語 😀 it's";
        let ids = tokenizer.encode(text, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text, "{name}");
    }
}
