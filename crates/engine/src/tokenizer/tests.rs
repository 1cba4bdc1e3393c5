//! Real vocabularies against their expected ids, and what must be refused.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::gguf::{GgufWriter, Value};

fn shared(folder: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    #[allow(clippy::disallowed_methods)] // the one place that tests look for foreign data
    let data =
        std::env::var_os("NEARFAR_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let path = data.join("data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no data at {}", path.display());
    None
}

fn matches_expected_ids(name: &str) {
    let Some(folder) = shared("vocab") else {
        return;
    };
    let file = folder.join(format!("ggml-vocab-{name}.gguf"));
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&file).unwrap()).unwrap();
    let inputs =
        std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.inp"))).unwrap();
    let expected =
        std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.out"))).unwrap();
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let mut compared = 0;
    for (text, ids) in inputs.iter().zip(expected.lines()) {
        let ids: Vec<u32> = ids
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| tokenizer.token_bytes(*id).to_vec())
            .collect();
        let back = String::from_utf8(bytes).unwrap();
        assert!(
            back == *text || back == format!(" {text}"),
            "{text:?} came back as {back:?}"
        );
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
    tokens.extend([
        "hi".to_owned(),
        "<|im_end|>".to_owned(),
        "<tool>".to_owned(),
    ]);
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
    let message = Tokenizer::from_gguf(&tiny(Some("brand-new")))
        .err()
        .unwrap()
        .to_string();
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
        let tokenizer =
            Tokenizer::from_gguf(&tiny(Some(name))).unwrap_or_else(|e| panic!("{name}: {e}"));
        let text = "Hi there, 1234 déjà-vu!\n\n  日本語 😀 it's";
        let ids = tokenizer.encode(text, false).unwrap();
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| tokenizer.token_bytes(*id).to_vec())
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text, "{name}");
    }
}

/// A WordPiece vocabulary as GGUF stores it: `▁` begins a word.
fn word_pieces() -> Gguf {
    let texts = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u{2581}the",
        "\u{2581}play",
        "ing",
        "ed",
        "\u{2581}cafe",
        "\u{2581},",
        "\u{2581}!",
    ];
    let mut types = vec![CONTROL; 4];
    types.extend([1; 7]);
    let mut writer = GgufWriter::default();
    writer
        .set("tokenizer.ggml.model", Value::Text("bert".into()))
        .set(
            "tokenizer.ggml.tokens",
            Value::Texts(texts.map(str::to_owned).to_vec()),
        )
        .set("tokenizer.ggml.token_type", Value::Integers(types))
        .set("tokenizer.ggml.bos_token_id", Value::Unsigned(2))
        .set("tokenizer.ggml.eos_token_id", Value::Unsigned(3));
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Gguf::from_static(bytes.leak()).unwrap()
}

#[test]
fn word_pieces_are_cut_as_bert_does() {
    let tokenizer = Tokenizer::from_gguf(&word_pieces()).unwrap();
    let ids = |text: &str| tokenizer.encode(text, false).unwrap();
    // Lower case, accents off, punctuation apart, the longest piece first.
    assert_eq!(ids("The playing"), [4, 5, 6]);
    assert_eq!(ids("Played, café!"), [5, 7, 9, 8, 10]);
    assert_eq!(ids("the zebra"), [4, 1], "a word without pieces is unknown");
    assert_eq!(
        tokenizer.encode_prompt("the").unwrap(),
        [2, 4],
        "begins with its own mark"
    );
}

#[test]
fn a_tokenizer_json_stands_in_for_an_unknown_pre_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    // The same vocabulary, in the library's own form.
    let known = Tokenizer::from_gguf(&tiny(Some("qwen2"))).unwrap();
    let Kind::Library(library) = &*known.kind else {
        panic!("byte-level BPE runs on the library")
    };
    library.save(&path, false).unwrap();
    let unknown = tiny(Some("brand-new"));
    assert!(Tokenizer::from_gguf(&unknown).is_err());
    let sidecar = Tokenizer::with_sidecar(&unknown, &path).unwrap();
    let text = "hi there, hi<|im_end|> 12 déjà";
    assert_eq!(
        sidecar.encode(text, true).unwrap(),
        known.encode(text, true).unwrap()
    );
    std::fs::write(&path, "{}").unwrap();
    let message = Tokenizer::with_sidecar(&unknown, &path)
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
}

#[test]
fn a_rendered_prompt_has_the_template_s_control_tokens_alone() {
    let tokenizer = Tokenizer::from_gguf(&tiny(Some("qwen2"))).unwrap();
    let end = tokenizer.id_of("<|im_end|>").unwrap();
    let source = "{{ messages[0].content }}<|im_end|>";
    let template = crate::template::ChatTemplate::new(source, "", "").unwrap();
    let chat = crate::tiny::ask("hi<|im_end|>");
    let rendered = template
        .render(&chat, tokenizer.control_texts(), "")
        .unwrap();
    let ids = tokenizer.encode_rendered(&rendered).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == end).count(), 1);
    assert_eq!(ids.last(), Some(&end));
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|id| tokenizer.token_bytes(*id).to_vec())
        .collect();
    assert_eq!(
        bytes, b"hi<|im_end|><|im_end|>",
        "the model still reads what was written"
    );
}
