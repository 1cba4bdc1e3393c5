//! What a constraint costs per token: `cargo run --release --example mask_cost
//! -p nearfar-engine -- VOCABULARY.gguf`. Writes three answers token by token,
//! as a model would, and prints the time of the masks. Takes the tokenizer of
//! any model file; `../shared/data/vocab/ggml-vocab-qwen2.gguf` has 151,936.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nearfar_domain::chat::{Chat, Message, ResponseFormat, Role, Tool, ToolChoice};
use nearfar_engine::constrain::{Grammars, Reasoning};
use nearfar_engine::gguf::Gguf;
use nearfar_engine::output::ToolFormat;
use nearfar_engine::tokenizer::Tokenizer;

/// A booking as a voice app would ask for it: texts, enums, bounds, nesting.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 80},
        "email": {"type": "string", "format": "email"},
        "date": {"type": "string", "format": "date"},
        "guests": {"type": "integer", "minimum": 1, "maximum": 20},
        "room": {"enum": ["single", "double", "suite"]},
        "wishes": {"type": "array", "items": {"type": "string"}, "maxItems": 8},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["street", "zip"]
        },
        "note": {"type": ["string", "null"]}
    },
    "required": ["name", "email", "date", "guests", "room", "wishes", "address", "note"]
}"#;

const ANSWER: &str = r#"{"name": "Ada Lovelace", "email": "ada@example.com", "date": "2026-11-24", "guests": 2, "room": "suite", "wishes": ["a quiet room on the garden side", "breakfast at seven", "two pillows, please"], "address": {"street": "St James's Square 12", "zip": "10115"}, "note": "Arrives late; the key should be left at the desk. She said \"before midnight\" – thank you."}"#;

const OPENER: &str = "<tool_call>";
const CALL: &str = "\n{\"name\": \"book\", \"arguments\": ";
const END: &str = "}\n</tool_call>";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("name a GGUF file")?;
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path)?)?;
    let begun = Instant::now();
    let grammars = Grammars::new(&tokenizer)?;
    println!(
        "{} tokens; prepared in {:.0} ms",
        tokenizer.vocab_size(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    let schema = Chat {
        response_format: ResponseFormat::JsonSchema {
            name: "booking".to_owned(),
            schema: SCHEMA.to_owned(),
            strict: Some(true),
        },
        ..Chat::turns(vec![Message::text(Role::User, "Book a room")])
    };
    let object = Chat {
        response_format: ResponseFormat::JsonObject,
        ..schema.clone()
    };
    let call = Chat {
        response_format: ResponseFormat::Text,
        tools: vec![Tool {
            name: "book".to_owned(),
            description: None,
            parameters: Some(SCHEMA.to_owned()),
            strict: None,
        }],
        tool_choice: ToolChoice::Required,
        ..schema.clone()
    };
    for (what, chat, before) in [
        ("json_schema", &schema, ["", "", ""]),
        ("json_object", &object, ["", "", ""]),
        ("tool call", &call, [OPENER, CALL, END]),
    ] {
        let [opener, begin, end] = before;
        // Where the opener is no token, its text runs into what follows.
        let (mut ids, opener) = match tokenizer.id_of(opener) {
            Some(id) => (vec![id], ""),
            None => (Vec::new(), opener),
        };
        let text = format!("{opener}{begin}{ANSWER}{end}");
        ids.extend(
            tokenizer
                .plain()
                .encode(&text)
                .ok_or("the text is refused")?,
        );
        for round in ["first", "again"] {
            measure(what, round, &grammars, &tokenizer, chat, &ids)?;
        }
    }
    Ok(())
}

fn measure(
    what: &str,
    round: &str,
    grammars: &Grammars,
    tokenizer: &Tokenizer,
    chat: &Chat,
    ids: &[u32],
) -> Result<(), Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let constraint = grammars
        .constraint(chat, ToolFormat::Hermes, tokenizer, Reasoning::None, "")
        .map_err(|failure| failure.message)?;
    let compiled = begun.elapsed();
    let mut constraint = constraint.ok_or("no constraint")?;
    let mut logits = vec![0.0f32; tokenizer.vocab_size()];
    let (mut masks, mut apply, mut advance) = (Vec::new(), Vec::new(), Vec::new());
    for (index, id) in ids.iter().enumerate() {
        let begun = Instant::now();
        let mask = constraint.mask()?;
        masks.push(begun.elapsed());
        let begun = Instant::now();
        if let Some(mask) = &mask {
            if !mask.allows(*id) {
                return Err(format!("token {index} is not allowed").into());
            }
            mask.apply(&mut logits);
        }
        apply.push(begun.elapsed());
        let begun = Instant::now();
        constraint.advance(*id)?;
        advance.push(begun.elapsed());
    }
    println!(
        "{what:<12} {round}: compile {:>6.1} ms; {} tokens; mask median {:>5.1} µs, p90 {:>6.1}, p99 {:>6.1}; apply {:>4.1}; advance {:>4.1}",
        compiled.as_secs_f64() * 1e3,
        ids.len(),
        quantile(&mut masks, 0.5),
        quantile(&mut masks, 0.9),
        quantile(&mut masks, 0.99),
        quantile(&mut apply, 0.5),
        quantile(&mut advance, 0.5),
    );
    Ok(())
}

/// In microseconds.
fn quantile(times: &mut [Duration], at: f64) -> f64 {
    times.sort_unstable();
    let index = ((times.len() as f64 - 1.0) * at).round() as usize;
    times
        .get(index)
        .map_or(0.0, |time| time.as_secs_f64() * 1e6)
}
