//! An encoder against its definition, and what it must refuse.

#![allow(clippy::unwrap_used)]

use nearfar_domain::embed::{EmbeddingCard, Input, Inputs, Pooling, Purpose};
use nearfar_domain::events::FailureKind;
use proptest::prelude::*;

use super::*;
use crate::gguf::{GgufWriter, TensorType, Value};

const HIDDEN: usize = 8;
const FFN: usize = 16;
const CONTEXT: usize = 600;
const TOKENS: [&str; 10] = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "\u{2581}one",
    "\u{2581}two",
    "s",
    "\u{2581}.",
    "\u{2581}a",
    "\u{2581}b",
];

/// A tiny model of either kind; weights from a small generator.
fn file(architecture: &str) -> GgufWriter {
    let mut seed = 7u32;
    let mut numbers = |count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((seed >> 8) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes()
            })
            .collect()
    };
    let mut file = GgufWriter::default();
    let key = |name: &str| format!("{architecture}.{name}");
    file.set("general.architecture", Value::Text(architecture.into()))
        .set(&key("block_count"), Value::Unsigned(2))
        .set(&key("context_length"), Value::Unsigned(CONTEXT as u64))
        .set(&key("embedding_length"), Value::Unsigned(HIDDEN as u64))
        .set(&key("feed_forward_length"), Value::Unsigned(FFN as u64))
        .set(&key("attention.head_count"), Value::Unsigned(2))
        .set(&key("attention.layer_norm_epsilon"), Value::Float(1e-12))
        .set(&key("pooling_type"), Value::Unsigned(1))
        .set("tokenizer.ggml.model", Value::Text("bert".into()))
        .set(
            "tokenizer.ggml.tokens",
            Value::Texts(TOKENS.map(str::to_owned).to_vec()),
        );
    let mut add = |name: &str, shape: &[usize]| {
        file.tensor(
            name,
            shape,
            TensorType::F32,
            numbers(shape.iter().product()),
        );
    };
    let nomic = architecture == "nomic-bert";
    add("token_embd.weight", &[TOKENS.len(), HIDDEN]);
    add("token_types.weight", &[2, HIDDEN]);
    add("token_embd_norm.weight", &[HIDDEN]);
    add("token_embd_norm.bias", &[HIDDEN]);
    if !nomic {
        add("position_embd.weight", &[CONTEXT, HIDDEN]);
    }
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| add(&format!("blk.{layer}.{name}"), shape);
        if nomic {
            add("attn_qkv.weight", &[3 * HIDDEN, HIDDEN]);
            add("ffn_gate.weight", &[FFN, HIDDEN]);
        } else {
            for part in ["attn_q", "attn_k", "attn_v"] {
                add(&format!("{part}.weight"), &[HIDDEN, HIDDEN]);
                add(&format!("{part}.bias"), &[HIDDEN]);
            }
            add("ffn_up.bias", &[FFN]);
            add("ffn_down.bias", &[HIDDEN]);
            add("attn_output.bias", &[HIDDEN]);
        }
        add("attn_output.weight", &[HIDDEN, HIDDEN]);
        add("ffn_up.weight", &[FFN, HIDDEN]);
        add("ffn_down.weight", &[HIDDEN, FFN]);
        for norm in ["attn_output_norm", "layer_output_norm"] {
            add(&format!("{norm}.weight"), &[HIDDEN]);
            add(&format!("{norm}.bias"), &[HIDDEN]);
        }
    }
    file
}

/// A tiny encoder's file, for tests elsewhere.
pub(crate) fn tiny_encoder() -> Vec<u8> {
    let mut bytes = Vec::new();
    file("bert").write(&mut bytes).unwrap();
    bytes
}

fn open(file: &GgufWriter) -> Gguf {
    let mut bytes = Vec::new();
    file.write(&mut bytes).unwrap();
    Gguf::from_static(bytes.leak()).unwrap()
}

fn load(architecture: &str) -> Embedder {
    Embedder::load("tiny", &open(&file(architecture)), None).unwrap()
}

fn ask(items: Vec<Input>) -> Inputs {
    Inputs {
        items,
        dimensions: None,
        purpose: None,
    }
}

fn all(model: &Embedder, inputs: &Inputs, card: &EmbeddingCard) -> Vec<Vec<f32>> {
    let mut work = model.prepare(inputs, card).unwrap();
    let mut vectors = Vec::new();
    while !work.is_done() {
        let some = model.step(&mut work).unwrap();
        assert!(!some.is_empty(), "every step gets on");
        vectors.extend(some);
    }
    assert_eq!(vectors.len(), inputs.items.len());
    vectors
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_vector_does_not_depend_on_its_neighbours(
        texts in proptest::collection::vec(
            proptest::collection::vec(0u32..TOKENS.len() as u32, 1..300), 1..6),
        nomic in any::<bool>(),
    ) {
        let model = load(if nomic { "nomic-bert" } else { "bert" });
        let card = EmbeddingCard::default();
        let items: Vec<Input> = texts.iter().cloned().map(Input::Tokens).collect();
        let together = all(&model, &ask(items.clone()), &card);
        for (item, vector) in items.into_iter().zip(&together) {
            let alone = all(&model, &ask(vec![item]), &card);
            prop_assert!(near(&alone[0], vector));
            let norm: f32 = vector.iter().map(|x| x * x).sum();
            prop_assert!((norm - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn long_texts_attend_to_all_of_themselves() {
    // Longer than a block of queries: the last token must reach the first's vector.
    for architecture in ["bert", "nomic-bert"] {
        let model = load(architecture);
        let card = EmbeddingCard {
            pooling: Some(Pooling::Cls),
            ..EmbeddingCard::default()
        };
        let mut text = vec![4u32; 500];
        let before = all(&model, &ask(vec![Input::Tokens(text.clone())]), &card);
        text[499] = 9;
        let after = all(&model, &ask(vec![Input::Tokens(text)]), &card);
        assert!(before[0] != after[0], "{architecture}");
    }
}

#[test]
fn places_count() {
    for architecture in ["bert", "nomic-bert"] {
        let model = load(architecture);
        let card = EmbeddingCard::default();
        let ask = |tokens: &[u32]| ask(vec![Input::Tokens(tokens.to_vec())]);
        let one = all(&model, &ask(&[4, 5, 8]), &card);
        let other = all(&model, &ask(&[8, 5, 4]), &card);
        assert!(!near(&one[0], &other[0]), "{architecture}");
    }
}

#[test]
fn text_gets_the_models_own_tokens_and_the_manifests_prefix() {
    let model = load("bert");
    let card = EmbeddingCard {
        query_prefix: "a ".into(),
        ..EmbeddingCard::default()
    };
    let text = all(&model, &ask(vec![Input::Text("One twos.".into())]), &card);
    let tokens = ask(vec![Input::Tokens(vec![2, 4, 5, 6, 7, 3])]);
    assert!(near(&text[0], &all(&model, &tokens, &card)[0]));
    let query = Inputs {
        purpose: Some(Purpose::Query),
        ..ask(vec![Input::Text("one".into())])
    };
    let tokens = ask(vec![Input::Tokens(vec![2, 8, 4, 3])]);
    assert!(near(
        &all(&model, &query, &card)[0],
        &all(&model, &tokens, &card)[0]
    ));
    // The text of a special token is text: content cannot speak for the model.
    let work = model
        .prepare(&ask(vec![Input::Text("[SEP]".into())]), &card)
        .unwrap();
    assert!(work.prompt_tokens > 3);
}

#[test]
fn shorter_vectors_are_cut_and_scaled_where_the_manifest_allows_it() {
    let model = load("bert");
    let inputs = |dimensions| Inputs {
        dimensions: Some(dimensions),
        ..ask(vec![Input::Text("one".into())])
    };
    let none = EmbeddingCard::default();
    assert_eq!(all(&model, &inputs(HIDDEN as u32), &none)[0].len(), HIDDEN);
    let refused = model.prepare(&inputs(4), &none).err().unwrap();
    assert_eq!(refused.field.as_deref(), Some("dimensions"));
    let card = EmbeddingCard {
        min_dimensions: Some(3),
        ..none
    };
    let full = &all(&model, &inputs(HIDDEN as u32), &card)[0];
    let short = &all(&model, &inputs(4), &card)[0];
    assert_eq!(short.len(), 4);
    assert!(near(short, &unit(full.clone(), 4)));
    for wrong in [2, HIDDEN as u32 + 1] {
        let refused = model.prepare(&inputs(wrong), &card).err().unwrap();
        assert!(refused.message.contains("3 to 8"), "{}", refused.message);
    }
}

#[test]
fn wrong_inputs_are_refused_with_their_place() {
    let model = load("bert");
    let card = EmbeddingCard::default();
    let refuse = |items: Vec<Input>| model.prepare(&ask(items), &card).err().unwrap();
    let good = Input::Text("one".into());
    let failure = refuse(vec![good.clone(), Input::Tokens(vec![10])]);
    assert_eq!(failure.field.as_deref(), Some("input[1]"));
    assert!(failure.message.contains("0 to 9"), "{}", failure.message);
    let failure = refuse(vec![Input::Tokens(vec![])]);
    assert_eq!(failure.kind, FailureKind::BadRequest);
    let failure = refuse(vec![good, Input::Text("one ".repeat(CONTEXT))]);
    assert_eq!(failure.kind, FailureKind::ContextLength);
    assert!(failure.message.contains("602"), "{}", failure.message);
    let failure = refuse(vec![Input::Text("x".repeat(1 << 20))]);
    assert_eq!(failure.kind, FailureKind::ContextLength);
    assert!(refuse(vec![]).field.is_some());
}

#[test]
fn files_that_are_not_such_a_model_are_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut GgufWriter)| {
        let mut broken = file("bert");
        change(&mut broken);
        let gguf = open(&broken);
        let checked = check(&gguf, None).err().unwrap().to_string();
        let loaded = Embedder::load("tiny", &gguf, None).err().unwrap();
        assert_eq!(checked, loaded.to_string(), "a check says what a load does");
        checked
    };
    let set = |key: &'static str, value: Value| {
        refuse(&move |file: &mut GgufWriter| {
            file.replace(key, value.clone());
        })
    };
    for (key, value) in [
        ("bert.attention.head_count", Value::Unsigned(3)),
        ("bert.attention.head_count", Value::Unsigned(0)),
        ("bert.block_count", Value::Unsigned(1 << 20)),
        ("bert.attention.causal", Value::Bool(true)),
        ("bert.pooling_type", Value::Unsigned(9)),
        ("tokenizer.ggml.cls_token_id", Value::Unsigned(99)),
    ] {
        let text = set(key, value);
        assert!(text.contains(key), "{text}");
    }
    assert!(set("bert.pooling_type", Value::Unsigned(4)).contains("rank"));
    let text = set("bert.context_length", Value::Unsigned(512));
    assert!(text.contains("position_embd.weight"), "{text}");
    let text = refuse(&|file: &mut GgufWriter| {
        file.tensor("blk.0.extra.weight", &[1], TensorType::F32, vec![0; 4]);
    });
    assert!(text.contains("extra"), "{text}");
    let text = refuse(&|file: &mut GgufWriter| {
        file.rename_tensor("blk.1.ffn_up.weight", "blk.1.gone");
    });
    assert!(text.contains("blk.1.ffn_up.weight"), "{text}");
}

#[test]
fn a_check_gives_the_figures_of_a_load() {
    for architecture in ["bert", "nomic-bert"] {
        let gguf = open(&file(architecture));
        assert!(is_embedding_model(&gguf));
        let figures = check(&gguf, None).unwrap();
        let model = Embedder::load("tiny", &gguf, None).unwrap();
        assert_eq!(figures.dimensions, model.dimensions());
        assert_eq!(figures.context_tokens, model.context_tokens());
        assert_eq!(figures.memory_bytes, model.memory_bytes());
        assert_eq!(figures.architecture, model.architecture());
    }
}
