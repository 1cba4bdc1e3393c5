//! Writes what this engine makes of a model, for comparison with another
//! engine on the same file: `benches/llama_parity.py` calls it.
//!
//! ```text
//! parity MODEL.gguf REQUESTS.jsonl [--tokens N] [--kv bf16|int8]
//! ```
//!
//! A request is `{"messages": […], "tools": […]}`. For each one a line of JSON:
//! the rendered prompt, its token ids, the greedy continuation, the gap between
//! the best two logits at each of its tokens, and the negative log-likelihood
//! (nats) of the prompt's tokens after the first.

use std::path::Path;
use std::process::ExitCode;

use nearfar_domain::chat::{Chat, Message, Role, Tool};
use nearfar_engine::generate::{Generation, ReadyModel};
use nearfar_engine::gguf::Gguf;
use nearfar_engine::model::LoadOptions;
use serde_json::{Value, json};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parity: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, requests, options @ ..] = args.as_slice() else {
        return Err("usage: parity MODEL.gguf REQUESTS.jsonl [--tokens N] [--kv bf16|int8]".into());
    };
    let (mut limit, mut load) = (64usize, LoadOptions::default());
    for option in options.chunks(2) {
        match option {
            [flag, number] if flag == "--tokens" => limit = number.parse()?,
            [flag, kv] if flag == "--kv" => load.kv = kv.parse()?,
            other => return Err(format!("unknown option {}", other.join(" ")).into()),
        }
    }
    let gguf = Gguf::open(Path::new(path))?;
    let ready = ReadyModel::load_with("parity", &gguf, None, &load)?;
    for line in std::fs::read_to_string(requests)?.lines() {
        let request: Value = serde_json::from_str(line)?;
        println!("{}", one(&ready, &request, limit)?);
    }
    Ok(())
}

fn one(
    ready: &ReadyModel,
    request: &Value,
    limit: usize,
) -> Result<Value, Box<dyn std::error::Error>> {
    let chat = chat(request);
    let prepared = Generation::prepare(ready, &chat, "").map_err(|failure| failure.message)?;
    let prompt = prepared.tokens();
    // Byte-level tokens are the text, in pieces.
    let bytes: Vec<u8> = prompt
        .iter()
        .flat_map(|id| ready.tokenizer().token_bytes(*id))
        .copied()
        .collect();
    let rendered = String::from_utf8(bytes)?;
    let model = ready.model();
    let mut cache = model.new_cache();
    let all = model.forward_all(&mut cache, prompt)?;
    let nll: f64 = prompt[1..]
        .iter()
        .zip(&all)
        .map(|(token, logits)| log_sum_exp(logits) - f64::from(logits[*token as usize]))
        .sum();
    let mut logits = all.into_iter().next_back().ok_or("an empty prompt")?;
    let (mut written, mut gaps) = (Vec::new(), Vec::new());
    while written.len() < limit {
        let (best, gap) = best_of(&logits);
        written.push(best);
        gaps.push(gap);
        if ready.tokenizer().ends_generation(best) {
            break;
        }
        logits = model.forward(&mut cache, &[best])?;
    }
    Ok(
        json!({"prompt": rendered, "prompt_ids": prompt, "ids": written, "gaps": gaps,
        "nll": nll, "nll_tokens": prompt.len() - 1}),
    )
}

fn chat(request: &Value) -> Chat {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let turns = request["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| {
            let role = match m["role"].as_str() {
                Some("system") => Role::System,
                Some("assistant") => Role::Assistant,
                _ => Role::User,
            };
            Message::text(role, text(&m["content"]))
        });
    let mut chat = Chat::turns(turns.collect());
    chat.tools = request["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|tool| Tool {
            name: text(&tool["function"]["name"]),
            description: tool["function"]["description"].as_str().map(str::to_owned),
            parameters: Some(tool["function"]["parameters"].to_string()),
            strict: None,
        })
        .collect();
    chat
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    f64::from(top) + sum.ln()
}

/// The most likely token (the lowest id among equals) and its lead over the second.
fn best_of(logits: &[f32]) -> (u32, f32) {
    let (mut best, mut second) = ((0, f32::NEG_INFINITY), f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            second = best.1;
            best = (id as u32, *logit);
        } else if *logit > second {
            second = *logit;
        }
    }
    (best.0, best.1 - second)
}
