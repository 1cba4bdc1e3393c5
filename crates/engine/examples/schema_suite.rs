//! Schemas and texts from standard input, verdicts to standard output; driven
//! by `benches/schema_suite.py`, which knows where they come from.
//!
//! Each line is `{"schema": TEXT, "texts": [TEXT, …], "answers": N}`. The reply
//! is `{"refused": MESSAGE}` where the schema is not followed, or else
//! `{"accepted": [BOOL, …], "answers": [{"text", "finish"}, …]}`: whether the
//! masks let each text through as a whole answer, token by token and split into
//! characters, and answers that concierge gave with random sampling.

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;

use nearfar_domain::chat::{Chat, Message, Params, ResponseFormat, Role};
use nearfar_domain::events::Event;
use nearfar_engine::constrain::{Grammars, Reasoning};
use nearfar_engine::generate::{Generation, Progress, ReadyModel};
use nearfar_engine::gguf::Gguf;
use nearfar_engine::output::ToolFormat;
use nearfar_engine::tokenizer::Tokenizer;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

/// The most tokens of an answer.
const TOKENS: u32 = 120;

fn main() -> Result<(), Box<dyn Error>> {
    let gguf = Gguf::from_static(nearfar_engine::embedded_model())?;
    let ready = Arc::new(ReadyModel::load("concierge", &gguf, None)?);
    // The masks are asked over another model's vocabulary where one is named.
    let named = std::env::args_os().nth(1).map(std::path::PathBuf::from);
    let tokenizer = match &named {
        Some(path) => Tokenizer::from_gguf(&Gguf::open(path)?)?,
        None => Tokenizer::from_gguf(&gguf)?,
    };
    let grammars = Grammars::new(&tokenizer)?;
    let mut source = ChaCha8Rng::seed_from_u64(11);
    let mut random = move |below: u32| source.next_u32() % below.max(1);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let chat = chat(asked["schema"].as_str().ok_or("no schema")?);
        let reply = match begin(&grammars, &chat, &tokenizer) {
            Err(message) => json!({"refused": message}),
            Ok(_) => {
                let texts = asked["texts"].as_array().into_iter().flatten();
                let accepted = texts
                    .filter_map(Value::as_str)
                    .map(|text| accepts(&grammars, &chat, &tokenizer, text))
                    .collect::<Result<Vec<_>, _>>()?;
                let answers = (0..asked["answers"].as_u64().unwrap_or(0))
                    .map(|_| answer(&ready, &chat, &mut random))
                    .collect::<Result<Vec<_>, _>>()?;
                json!({"accepted": accepted, "answers": answers})
            }
        };
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

fn chat(schema: &str) -> Chat {
    Chat {
        response_format: ResponseFormat::JsonSchema {
            name: "answer".to_owned(),
            schema: schema.to_owned(),
            strict: Some(true),
        },
        ..Chat::turns(vec![Message::text(Role::User, "Hello")])
    }
}

fn begin(
    grammars: &Grammars,
    chat: &Chat,
    tokenizer: &Tokenizer,
) -> Result<nearfar_engine::constrain::Constraint, String> {
    grammars
        .constraint(chat, ToolFormat::Hermes, tokenizer, Reasoning::None, "")
        .map_err(|failure| failure.message)?
        .ok_or_else(|| "no constraint".to_owned())
}

/// Whether the text may be the whole answer, in the model's own tokens or in
/// those of its single characters.
fn accepts(
    grammars: &Grammars,
    chat: &Chat,
    tokenizer: &Tokenizer,
    text: &str,
) -> Result<bool, Box<dyn Error>> {
    let plain = tokenizer.plain();
    let encode = |text: &str| plain.encode(text).ok_or("the text is refused");
    let mut characters = Vec::new();
    for character in text.chars() {
        characters.extend(encode(character.encode_utf8(&mut [0; 4]))?);
    }
    for ids in [encode(text)?, characters] {
        let mut constraint = begin(grammars, chat, tokenizer)?;
        let mut fits = true;
        for id in ids {
            if let Some(mask) = constraint.mask()?
                && !mask.allows(id)
            {
                fits = false;
                break;
            }
            constraint.advance(id)?;
        }
        if fits && constraint.may_end() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An answer with any sampling.
fn answer(
    ready: &Arc<ReadyModel>,
    chat: &Chat,
    random: &mut impl FnMut(u32) -> u32,
) -> Result<Value, Box<dyn Error>> {
    let chat = Chat {
        params: Params {
            temperature: Some([0.0, 0.7, 1.5, 5.0][random(4) as usize]),
            top_k: Some([0, 40][random(2) as usize]),
            top_p: Some([1.0, 0.9][random(2) as usize]),
            repetition_penalty: Some([1.0, 1.3, 0.7][random(3) as usize]),
            seed: Some(i64::from(random(1 << 30))),
            max_tokens: Some(if random(5) == 0 {
                random(12) + 1
            } else {
                TOKENS
            }),
            ..Params::default()
        },
        ..chat.clone()
    };
    let prepared = Generation::prepare(ready, &chat, "").map_err(|failure| failure.message)?;
    let mut generation = Generation::new(Arc::clone(ready), prepared);
    let (mut text, mut finish) = (String::new(), "none".to_owned());
    let mut events = Vec::new();
    loop {
        match generation.step(&mut events) {
            Ok(Progress::More) => {}
            Ok(_) => break,
            Err(failure) => {
                finish = format!("failed: {}", failure.message);
                break;
            }
        }
    }
    for event in events {
        match event {
            Event::Content(piece) => text.push_str(&piece),
            Event::Finished { reason, .. } => finish = format!("{reason:?}").to_lowercase(),
            _ => {}
        }
    }
    Ok(json!({"text": text, "finish": finish}))
}
