//! Perplexity of a text, by the definition of llama.cpp's `llama-perplexity`:
//!
//! `perplexity MODEL.gguf FILE [--context N] [--kv bf16|int8]`
//!
//! The text is tokenised as a whole and cut into pieces of N tokens (512 unless
//! told); what does not fill a piece is left out. Each piece is computed by
//! itself, its first token replaced by the beginning-of-text token where the
//! model wants one, and only the second half of its tokens is scored. The
//! result is exp of the mean negative log-likelihood.

use std::error::Error;
use std::path::Path;

use nearfar_engine::gguf::Gguf;
use nearfar_engine::model::{LoadOptions, Model};
use nearfar_engine::tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut plain = Vec::new();
    let mut context = 512usize;
    let mut options = LoadOptions::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--context" => {
                context = arguments
                    .next()
                    .ok_or("--context needs a number")?
                    .parse()?
            }
            "--kv" => options.kv = arguments.next().ok_or("--kv needs bf16 or int8")?.parse()?,
            _ => plain.push(argument),
        }
    }
    let [model, file] = plain.as_slice() else {
        return Err("usage: perplexity MODEL.gguf FILE [--context N] [--kv bf16|int8]".into());
    };
    let gguf = Gguf::open(Path::new(model))?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let model = Model::load_with(&gguf, &options)?;
    let context = context.min(model.context_tokens());
    let tokens = tokenizer.encode_prompt(&std::fs::read_to_string(file)?)?;
    if context < 4 || tokens.len() < context {
        return Err(format!(
            "the text has {} tokens; at least one piece of {context} is needed",
            tokens.len()
        )
        .into());
    }
    let (mut sum, mut squares, mut count) = (0.0f64, 0.0f64, 0u64);
    for piece in tokens.chunks_exact(context) {
        let mut piece = piece.to_vec();
        if let Some(bos) = tokenizer.prompt_bos() {
            piece[0] = bos;
        }
        let mut cache = model.new_cache();
        let first = context / 2;
        let mut at = 0;
        for part in piece.chunks(64) {
            for logits in model.forward_all(&mut cache, part)? {
                if at >= first && at + 1 < context {
                    let nll = -log_probability(&logits, piece[at + 1]);
                    sum += nll;
                    squares += nll * nll;
                    count += 1;
                }
                at += 1;
            }
        }
        println!(
            "{count} tokens scored, perplexity so far {:.4}",
            (sum / count as f64).exp()
        );
    }
    let mean = sum / count as f64;
    let variance = (squares / count as f64 - mean * mean).max(0.0);
    let error = (variance / (count.max(2) - 1) as f64).sqrt() * mean.exp();
    println!(
        "perplexity {:.4} +/- {error:.4} (mean negative log-likelihood {mean:.6})",
        mean.exp()
    );
    Ok(())
}

fn log_probability(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    f64::from(logits[token as usize] - most) - sum.ln()
}
