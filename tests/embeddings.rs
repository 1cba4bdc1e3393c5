//! Vectors end to end: a folder becomes a local model, `/v1/embeddings` answers
//! from it or from a provider, and a confined text reaches no provider.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Double;
use super::support::wire::{self, Reply};

const HIDDEN: usize = 8;
const FFN: usize = 16;
const CONTEXT: usize = 32;
const WORDS: [&str; 9] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "query",
];

/// A tiny BERT as Hugging Face saves one.
pub(super) fn folder(place: &Path) {
    let vocabulary: serde_json::Map<String, Value> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
                       "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    let config = json!({
        "model_type": "bert", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "max_position_embeddings": CONTEXT,
    });
    let prompts = json!({"prompts": {"query": "query "}});
    for (name, value) in [
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("config_sentence_transformers.json", prompts),
    ] {
        std::fs::write(place.join(name), value.to_string()).unwrap();
    }
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("word_embeddings.weight".into(), vec![WORDS.len(), HIDDEN]),
        ("token_type_embeddings.weight".into(), vec![2, HIDDEN]),
        ("position_embeddings.weight".into(), vec![CONTEXT, HIDDEN]),
        ("LayerNorm.weight".into(), vec![HIDDEN]),
        ("LayerNorm.bias".into(), vec![HIDDEN]),
    ]
    .into_iter()
    .map(|(name, shape): (String, _)| (format!("embeddings.{name}"), shape))
    .collect();
    for (name, rows, columns) in [
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("attention.output.LayerNorm", HIDDEN, 0),
        ("intermediate.dense", FFN, HIDDEN),
        ("output.dense", HIDDEN, FFN),
        ("output.LayerNorm", HIDDEN, 0),
    ] {
        let shape = if columns == 0 {
            vec![rows]
        } else {
            vec![rows, columns]
        };
        tensors.push((format!("encoder.layer.0.{name}.weight"), shape));
        tensors.push((format!("encoder.layer.0.{name}.bias"), vec![rows]));
    }
    std::fs::write(place.join("model.safetensors"), safetensors(&tensors)).unwrap();
}

/// The format by hand: the header's length, the header, the numbers.
fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    let mut seed = 1u32;
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (seed >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend_from_slice(&number.to_le_bytes());
        }
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

pub(super) fn add(daemon: &Daemon, folder: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_nearfar"))
        .args(["model", "add"])
        .arg(folder)
        .args(["--name", "tiny", "--json", "--state-dir"])
        .arg(daemon.state_dir())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let added: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(added["architecture"], "bert");
    assert_eq!(added["dimensions"], HIDDEN);
}

fn ask(daemon: &Daemon, headers: &[(&str, &str)], body: Value) -> Reply {
    wire::post(
        daemon.address(),
        "/v1/embeddings",
        headers,
        &body.to_string(),
    )
}

fn vectors(reply: &Reply) -> Vec<Vec<f64>> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let data = reply.json()["data"].clone();
    serde_json::from_value::<Vec<Value>>(data)
        .unwrap()
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            assert_eq!(item["index"], index);
            assert_eq!(item["object"], "embedding");
            serde_json::from_value(item["embedding"].clone()).unwrap()
        })
        .collect()
}

fn refused(reply: &Reply, status: u16, param: Option<&str>) -> String {
    assert_eq!(reply.status, status, "{}", reply.body);
    let error = &reply.json()["error"];
    if let Some(param) = param {
        assert_eq!(error["param"], param, "{error}");
    }
    error["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_become_vectors_here_or_at_a_provider_within_the_ceiling() {
    let double = Double::start().await;
    let config = format!(
        "[providers.openai]\nbase_url = \"{}\"\n",
        double.openai_base()
    );
    let options = DaemonOptions::default()
        .env("OPENAI_API_KEY", "sk-test")
        .config(&config);
    tokio::task::block_in_place(|| {
        let daemon = Daemon::start(options);
        daemon.wait_ready();
        // Before there is one: said so, with the reason.
        let reply = ask(&daemon, &[], json!({"model": "auto", "input": "hello"}));
        let message = refused(&reply, 503, None);
        assert!(message.contains("cannot do embeddings"), "{message}");

        let place = tempfile::tempdir().unwrap();
        folder(place.path());
        add(&daemon, place.path());
        here(&daemon);
        wrong(&daemon);
        at_a_provider(&daemon, &double);
    });
}

fn here(daemon: &Daemon) {
    let two = json!({"model": "local/tiny", "input": ["hello worlds", "world"]});
    let reply = ask(daemon, &[], two);
    let made = vectors(&reply);
    assert_eq!(made.len(), 2);
    assert_eq!(reply.json()["model"], "local/tiny");
    // [CLS] hello world ##s [SEP], [CLS] world [SEP].
    assert_eq!(reply.json()["usage"]["prompt_tokens"], 8);
    assert_eq!(reply.header("x-nearfar-zone"), Some("device"));
    for vector in &made {
        assert_eq!(vector.len(), HIDDEN);
        let norm: f64 = vector.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    // The only one is the one for `auto`, and for a confined text.
    let confined = [("x-nearfar-privacy", "device")];
    let alone = ask(daemon, &confined, json!({"input": "world"}));
    assert_eq!(vectors(&alone)[0], made[1]);
    // Tokens, and the prefix that the folder names for queries.
    let tokens = ask(daemon, &[], json!({"model": "tiny", "input": [2, 8, 6, 3]}));
    let query = json!({"model": "tiny", "input": "world", "input_type": "query"});
    assert_eq!(vectors(&tokens), vectors(&ask(daemon, &[], query)));
    let packed = json!({"model": "tiny", "input": "world", "encoding_format": "base64"});
    let text = ask(daemon, &[], packed).json()["data"][0]["embedding"].clone();
    assert_eq!(text.as_str().unwrap().len(), (4 * HIDDEN).div_ceil(3) * 4);
    // A conversation goes to the other model, and not to this one.
    let chat = json!({"model": "auto", "max_tokens": 1, "nearfar": {"route": "local"},
                      "messages": [{"role": "user", "content": "hi"}]});
    let (status, answer) = daemon.post("/v1/chat/completions", &chat.to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("local/concierge"), "{answer}");
}

fn wrong(daemon: &Daemon) {
    let long = json!({"model": "tiny", "input": ["hello", "hello ".repeat(CONTEXT)]});
    let message = refused(&ask(daemon, &[], long), 400, Some("input[1]"));
    assert!(message.contains("reads 32 tokens"), "{message}");
    let short = json!({"model": "tiny", "input": "hello", "dimensions": 4});
    let message = refused(&ask(daemon, &[], short), 400, Some("dimensions"));
    assert!(message.contains("8 dimensions"), "{message}");
    let beyond = json!({"model": "tiny", "input": [99]});
    refused(&ask(daemon, &[], beyond), 400, Some("input[0]"));
    refused(
        &ask(daemon, &[], json!({"model": "tiny"})),
        400,
        Some("input"),
    );
    let words = json!({"model": "local/concierge", "input": "hello"});
    refused(&ask(daemon, &[], words), 503, None);
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    let (status, answer) = daemon.post("/v1/chat/completions", &chat.to_string());
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("cannot do answers in words"), "{answer}");
}

fn at_a_provider(daemon: &Daemon, double: &Double) {
    let body = json!({"model": "openai/text-embedding-3-small", "input": ["hello", "worlds"],
                      "user": "u"});
    let confined = ask(daemon, &[("x-nearfar-privacy", "device")], body.clone());
    let code = confined.json()["error"]["code"].clone();
    assert_eq!((confined.status, &code), (503, &json!("privacy_ceiling")));
    assert!(double.requests().is_empty(), "nothing left the device");
    let reply = ask(daemon, &[], body);
    assert_eq!(vectors(&reply), [[5.0, 0.5], [6.0, 0.5]]);
    assert_eq!(reply.header("x-nearfar-zone"), Some("cloud"));
    let seen = double.requests()[0].json();
    assert_eq!(seen["input"], json!(["hello", "worlds"]));
    assert_eq!(seen["user"], "u");
    assert!(seen.get("stream").is_none(), "{seen}");
    // The ledger has a row for each, the refused ones among them.
    daemon.until("the ledger's row", || {
        let (_, usage) = daemon.control("/admin/v1/usage?by=target");
        let both = ["openai/text-embedding-3-small", "local/tiny"];
        both.iter().all(|name| usage.contains(name)).then_some(())
    });
}
