//! One answer on the command line, for comparing with other engines:
//!
//! `complete MODEL.gguf PROMPT [--raw] [--greedy] [--tokens N] [--json] [--system TEXT]`
//!
//! The prompt is a user's turn, or with `--raw` the text that the model goes on
//! from, control tokens included. `--json` prints one object: the prompt's ids,
//! the answer's ids and text, and the log-probability of each token.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use nearfar_domain::chat::{Chat, Message, Params, Role};
use nearfar_domain::events::Event;
use nearfar_engine::generate::{Generation, Progress, ReadyModel};
use nearfar_engine::gguf::Gguf;

struct Asked {
    model: String,
    prompt: String,
    system: Option<String>,
    raw: bool,
    greedy: bool,
    tokens: u32,
    json: bool,
}

fn arguments() -> Result<Asked, Box<dyn Error>> {
    let mut plain = Vec::new();
    let (mut raw, mut greedy, mut json, mut tokens, mut system) = (false, false, false, 64, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--raw" => raw = true,
            "--greedy" => greedy = true,
            "--json" => json = true,
            "--tokens" => tokens = arguments.next().ok_or("--tokens needs a number")?.parse()?,
            "--system" => system = Some(arguments.next().ok_or("--system needs a text")?),
            _ => plain.push(argument),
        }
    }
    let [model, prompt] = <[String; 2]>::try_from(plain).map_err(|_| {
        "usage: complete MODEL.gguf PROMPT [--raw] [--greedy] [--tokens N] [--json] [--system TEXT]"
    })?;
    Ok(Asked {
        model,
        prompt,
        system,
        raw,
        greedy,
        tokens,
        json,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = arguments()?;
    let gguf = Gguf::open(Path::new(&asked.model))?;
    let ready = Arc::new(ReadyModel::load("model", &gguf, None)?);
    let mut chat = if asked.raw {
        Chat::text(asked.prompt)
    } else {
        let system = asked.system.map(|text| Message::text(Role::System, text));
        let user = Message::text(Role::User, asked.prompt);
        Chat::turns(system.into_iter().chain([user]).collect())
    };
    chat.params = Params {
        temperature: asked.greedy.then_some(0.0),
        logprobs: asked.json.then_some(5),
        // What the context leaves, if that is less.
        max_tokens: None,
        ..Params::default()
    };
    let prepared = Generation::prepare(&ready, &chat, "").map_err(|failure| failure.message)?;
    let prompt_ids = prepared.tokens().to_vec();
    let mut generation = Generation::new(Arc::clone(&ready), prepared);
    let (mut text, mut logprobs, mut finish) = (String::new(), Vec::new(), "length".to_owned());
    let mut progress = Progress::More;
    while progress == Progress::More && (generation.written().len() as u32) < asked.tokens {
        let mut events = Vec::new();
        progress = generation
            .step(&mut events)
            .map_err(|failure| failure.message)?;
        for event in events {
            match event {
                Event::Content(piece) | Event::Reasoning(piece) => {
                    if !asked.json {
                        print!("{piece}");
                        std::io::stdout().flush()?;
                    }
                    text.push_str(&piece);
                }
                Event::Logprobs(tokens) => logprobs.extend(tokens),
                Event::Finished { reason, .. } => finish = format!("{reason:?}").to_lowercase(),
                _ => {}
            }
        }
    }
    if asked.json {
        let logprobs: Vec<_> = logprobs
            .iter()
            .map(|token| {
                let top: Vec<_> = token
                    .top
                    .iter()
                    .map(|(text, _, logprob)| (text, logprob))
                    .collect();
                serde_json::json!({"token": token.token, "logprob": token.logprob, "top": top})
            })
            .collect();
        let out = serde_json::json!({
            "prompt_ids": prompt_ids,
            "ids": generation.written(),
            "text": text,
            "finish": finish,
            "logprobs": logprobs,
        });
        println!("{out}");
    } else {
        let timings = generation.timings();
        println!();
        eprintln!(
            "{} prompt tokens in {:.0} ms, {} tokens in {:.0} ms, ended by {finish}",
            timings.prefill_tokens, timings.prefill_ms, timings.decode_tokens, timings.decode_ms
        );
    }
    Ok(())
}
