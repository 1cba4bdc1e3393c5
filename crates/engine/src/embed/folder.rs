//! A Hugging Face folder (`config.json`, `model.safetensors`,
//! `tokenizer.json`) as one model file, in the layout that llama.cpp's
//! converter writes, so that the engine has one way to load a model and the
//! store one file to verify.
//!
//! The whole `tokenizer.json` goes into the file, and vectors are read off as
//! the folder's `sentence-transformers` settings say. What cannot be carried
//! over (another layer on top, another activation) is refused.

use std::path::Path;

use candle_core::safetensors::BufferedSafetensors;
use nearfar_domain::embed::EmbeddingCard;
use serde_json::Value as Json;

use super::text::HUGGING_FACE_KEY;
use crate::gguf::{GgufWriter, LoadError, TensorType, Value};

/// Larger weights are no encoder for a small device, and are read whole here.
const MAX_WEIGHTS_BYTES: u64 = 4 << 30;
/// No honest description is longer.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// What came out of a folder.
pub struct Converted {
    /// The model file, to be written.
    pub file: GgufWriter,
    /// What the folder says that a model file has no place for.
    pub card: EmbeddingCard,
}

/// Reads a folder.
///
/// # Errors
/// What is missing, or cannot be carried over.
pub fn convert_folder(folder: &Path) -> Result<Converted, LoadError> {
    let config = json(&folder.join("config.json"))?
        .ok_or_else(|| unsupported("the folder has no config.json"))?;
    let kind = config["model_type"].as_str().unwrap_or_default();
    // What XLM-RoBERTa's positions begin with; they are never used.
    let skipped = match kind {
        "bert" => 0,
        "xlm-roberta" | "roberta" => config["pad_token_id"].as_u64().unwrap_or(1) as usize + 1,
        other => {
            return Err(unsupported(format!(
                "config.json describes a '{other}' model; bert and xlm-roberta can be taken from \
                 a folder, others from a GGUF file"
            )));
        }
    };
    let activation = config["hidden_act"].as_str().unwrap_or("gelu");
    if activation != "gelu" {
        return Err(unsupported(format!(
            "config.json asks for the activation '{activation}'; this engine runs gelu"
        )));
    }
    let positions = config["position_embedding_type"].as_str();
    if positions.is_some_and(|kind| kind != "absolute") {
        return Err(unsupported("config.json asks for relative positions"));
    }
    let tokenizer = read(&folder.join("tokenizer.json"), MAX_JSON_BYTES)?
        .ok_or_else(|| unsupported("the folder has no tokenizer.json"))?;
    let tokenizer = String::from_utf8(tokenizer)
        .map_err(|_| LoadError::damaged("tokenizer.json is not UTF-8"))?;
    let weights = read(&folder.join("model.safetensors"), MAX_WEIGHTS_BYTES)?
        .ok_or_else(|| unsupported("the folder has no model.safetensors"))?;
    let weights = BufferedSafetensors::new(weights)?;

    let number = |name: &str| {
        config[name]
            .as_u64()
            .filter(|n| (1..1 << 24).contains(n))
            .ok_or_else(|| LoadError::damaged(format!("config.json has no usable '{name}'")))
    };
    let layers = number("num_hidden_layers")?;
    let positions = (number("max_position_embeddings")? as usize).saturating_sub(skipped);
    let pooling = pooling(folder)?;

    let mut file = GgufWriter::default();
    let unsigned = |n: usize| Value::Unsigned(n as u64);
    let named = folder.file_name().unwrap_or_default().to_string_lossy();
    file.set("general.architecture", Value::Text("bert".to_owned()))
        .set("general.name", Value::Text(named.into_owned()))
        .set("bert.block_count", Value::Unsigned(layers))
        .set("bert.context_length", unsigned(positions))
        .set(
            "bert.embedding_length",
            Value::Unsigned(number("hidden_size")?),
        )
        .set(
            "bert.feed_forward_length",
            Value::Unsigned(number("intermediate_size")?),
        )
        .set(
            "bert.attention.head_count",
            Value::Unsigned(number("num_attention_heads")?),
        )
        .set(
            "bert.attention.layer_norm_epsilon",
            Value::Float(config["layer_norm_eps"].as_f64().unwrap_or(1e-12)),
        )
        .set("bert.attention.causal", Value::Bool(false))
        .set("bert.pooling_type", Value::Unsigned(pooling));
    vocabulary(&mut file, &tokenizer)?;
    file.set(HUGGING_FACE_KEY, Value::Text(tokenizer));
    tensors(&mut file, &weights, layers, skipped)?;
    Ok(Converted {
        file,
        card: prompts(folder)?,
    })
}

/// The vocabulary as llama.cpp reads it, where it is WordPiece.
fn vocabulary(file: &mut GgufWriter, tokenizer: &str) -> Result<(), LoadError> {
    let tokenizer: Json = serde_json::from_str(tokenizer)
        .map_err(|error| LoadError::damaged(format!("tokenizer.json: {error}")))?;
    let model = &tokenizer["model"];
    let Some(vocabulary) = model["vocab"].as_object().filter(|_| {
        model["type"]
            .as_str()
            .is_none_or(|kind| kind == "WordPiece")
    }) else {
        return Ok(());
    };
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (token, id) in vocabulary {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(id as usize));
        let slot =
            slot.ok_or_else(|| LoadError::damaged("tokenizer.json numbers its tokens with gaps"))?;
        *slot = match token.strip_prefix("##") {
            Some(rest) => rest.to_owned(),
            None if token.starts_with('[') && token.ends_with(']') => token.clone(),
            None => format!("\u{2581}{token}"),
        };
    }
    let special = |token: &str| vocabulary.get(token).and_then(Json::as_u64);
    for (key, token) in [
        ("cls_token_id", "[CLS]"),
        ("seperator_token_id", "[SEP]"),
        ("unknown_token_id", "[UNK]"),
        ("padding_token_id", "[PAD]"),
    ] {
        if let Some(id) = special(token) {
            file.set(&format!("tokenizer.ggml.{key}"), Value::Unsigned(id));
        }
    }
    file.set("tokenizer.ggml.model", Value::Text("bert".to_owned()))
        .set("tokenizer.ggml.tokens", Value::Texts(tokens));
    Ok(())
}

fn tensors(
    file: &mut GgufWriter,
    weights: &BufferedSafetensors,
    layers: u64,
    skipped: usize,
) -> Result<(), LoadError> {
    // `BertModel` saves bare names, models with a head a prefix.
    let prefix = ["", "bert.", "roberta."]
        .into_iter()
        .find(|prefix| {
            weights
                .get(&format!("{prefix}embeddings.word_embeddings.weight"))
                .is_ok()
        })
        .ok_or_else(|| unsupported("model.safetensors has no word embeddings of a BERT model"))?;
    let mut add = |theirs: &str, ours: &str, skip: usize| {
        let theirs = format!("{prefix}{theirs}");
        let view = weights
            .get(&theirs)
            .map_err(|_| unsupported(format!("model.safetensors has no '{theirs}'")))?;
        let dtype = match format!("{:?}", view.dtype()).as_str() {
            "F32" => TensorType::F32,
            "F16" => TensorType::F16,
            "BF16" => TensorType::BF16,
            other => {
                return Err(unsupported(format!(
                    "'{theirs}' is stored as {other}; F32, F16 and BF16 can be read"
                )));
            }
        };
        let mut shape = view.shape().to_vec();
        let mut data = view.data();
        if skip > 0 {
            let row = data.len() / shape[0].max(1);
            data = data.get(row * skip..).unwrap_or_default();
            shape[0] = shape[0].saturating_sub(skip);
        }
        file.tensor(ours, &shape, dtype, data.to_vec());
        Ok(())
    };
    add("embeddings.word_embeddings.weight", "token_embd.weight", 0)?;
    add(
        "embeddings.token_type_embeddings.weight",
        "token_types.weight",
        0,
    )?;
    add(
        "embeddings.position_embeddings.weight",
        "position_embd.weight",
        skipped,
    )?;
    let pairs = [
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ];
    for end in ["weight", "bias"] {
        add(
            &format!("embeddings.LayerNorm.{end}"),
            &format!("token_embd_norm.{end}"),
            0,
        )?;
        for layer in 0..layers {
            for (theirs, ours) in pairs {
                add(
                    &format!("encoder.layer.{layer}.{theirs}.{end}"),
                    &format!("blk.{layer}.{ours}.{end}"),
                    0,
                )?;
            }
        }
    }
    Ok(())
}

/// llama.cpp's number of the pooling that `modules.json` names.
fn pooling(folder: &Path) -> Result<u64, LoadError> {
    const MEAN: u64 = 1;
    let Some(modules) = json(&folder.join("modules.json"))? else {
        return Ok(MEAN);
    };
    let mut number = MEAN;
    for module in modules.as_array().into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" => {
                let path = module["path"].as_str().unwrap_or("1_Pooling");
                // A name of one folder inside this one, and nothing else.
                if path.contains(['/', '\\']) || path.starts_with('.') {
                    return Err(LoadError::damaged("modules.json names a path outside"));
                }
                let config = json(&folder.join(path).join("config.json"))?.unwrap_or_default();
                number = pooling_number(&config)?;
            }
            other => {
                return Err(unsupported(format!(
                    "modules.json puts a '{other}' layer on top, which this engine does not run"
                )));
            }
        }
    }
    Ok(number)
}

fn pooling_number(config: &Json) -> Result<u64, LoadError> {
    let names: Vec<&str> = match config["pooling_mode"].as_str() {
        // The newer form.
        Some(name) => vec![name],
        None => config
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, on)| **on == Json::Bool(true))
            .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
            .collect(),
    };
    match names.as_slice() {
        ["mean" | "mean_tokens"] => Ok(1),
        ["cls" | "cls_token"] => Ok(2),
        ["lasttoken"] => Ok(3),
        other => Err(unsupported(format!(
            "the folder asks for the pooling {other:?}; mean, cls and lasttoken are run"
        ))),
    }
}

/// Prefixes by purpose, under the names that models use.
fn prompts(folder: &Path) -> Result<EmbeddingCard, LoadError> {
    let config = json(&folder.join("config_sentence_transformers.json"))?.unwrap_or_default();
    let prompt = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| config["prompts"][name].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    Ok(EmbeddingCard {
        query_prefix: prompt(&["query", "search_query"]),
        document_prefix: prompt(&["document", "passage", "search_document"]),
        ..EmbeddingCard::default()
    })
}

fn json(path: &Path) -> Result<Option<Json>, LoadError> {
    let Some(bytes) = read(path, MAX_JSON_BYTES)? else {
        return Ok(None);
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| LoadError::damaged(format!("{name}: {error}")))
}

/// A file's bytes; `None` when there is no such file.
fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, LoadError> {
    let length = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if length > most {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return Err(unsupported(format!(
            "{name} has {} MiB, more than the {} MiB that are read",
            length >> 20,
            most >> 20
        )));
    }
    Ok(Some(std::fs::read(path)?))
}

fn unsupported(what: impl Into<String>) -> LoadError {
    LoadError::Unsupported(what.into())
}
