//! `/v1/embeddings`: requests for vectors and their answers.
//!
//! OpenAI's shape, and one field more: `input_type`, which some models need to
//! tell a query from a document (as NVIDIA's and Cohere's servers have it).

use nearfar_domain::chat::Chat;
use nearfar_domain::embed::{Input, Inputs, MAX_INPUTS, Purpose};
use serde_json::{Value, json};

use super::request::OpenaiRequest;
use super::shape::Head;
use crate::http::collect::Collected;
use crate::http::fields::{Fields, kind};
use crate::http::problem::Problem;

/// The longest vectors that anybody could ask for.
const MAX_DIMENSIONS: i64 = 1 << 16;

const WANTED: &str = "a string, an array of strings, or an array of token ids or of such arrays";

/// Reads the body.
///
/// # Errors
/// Names the first field that is wrong.
pub(crate) fn request(body: &[u8]) -> Result<OpenaiRequest, Problem> {
    let mut fields = Fields::read(body)?;
    let model = fields.model()?;
    let items = match fields.take("input") {
        None => return Err(fields.missing("input", WANTED)),
        Some(value) => items(value)?,
    };
    let base64 = match fields.string("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(Problem::field(
                "encoding_format",
                "encoding_format must be float or base64.",
            ));
        }
    };
    let purpose = match fields.string("input_type")?.as_deref() {
        None => None,
        Some("query" | "search_query") => Some(Purpose::Query),
        Some("document" | "passage" | "search_document") => Some(Purpose::Document),
        Some(_) => {
            return Err(Problem::field(
                "input_type",
                "input_type must be query or document; leave it out to send the text as it is.",
            ));
        }
    };
    let dimensions = fields
        .integer("dimensions", 1, MAX_DIMENSIONS)?
        .map(|n| n as u32);
    let tags = fields.object("nearfar")?.map(Fields::rest);
    let mut chat = Chat::inputs(Inputs {
        items,
        dimensions,
        purpose,
    });
    let rest = fields.rest();
    if !rest.is_empty() {
        chat.passthrough = Value::Object(rest).to_string();
    }
    Ok(OpenaiRequest {
        model,
        chat,
        stream: false,
        include_usage: false,
        echo: false,
        base64,
        tags,
    })
}

fn items(value: Value) -> Result<Vec<Input>, Problem> {
    let list = match value {
        Value::String(text) => return Ok(vec![text_input("input", text)?]),
        Value::Array(list) => list,
        other => {
            return Err(Problem::field(
                "input",
                format!("input must be {WANTED}, not {}.", kind(&other)),
            ));
        }
    };
    if list.first().is_some_and(Value::is_number) {
        return Ok(vec![tokens("input", list)?]);
    }
    if list.is_empty() || list.len() > MAX_INPUTS {
        return Err(Problem::field(
            "input",
            format!("input must hold 1 to {MAX_INPUTS} texts. Send more in several requests."),
        ));
    }
    let inputs = list.into_iter().enumerate().map(|(index, value)| {
        let path = format!("input[{index}]");
        match value {
            Value::String(text) => text_input(&path, text),
            Value::Array(ids) => tokens(&path, ids),
            other => Err(Problem::field(
                &path,
                format!(
                    "{path} must be a string or an array of token ids, not {}.",
                    kind(&other)
                ),
            )),
        }
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let texts = inputs
        .iter()
        .filter(|input| matches!(input, Input::Text(_)));
    match texts.count() {
        0 => Ok(inputs),
        texts if texts == inputs.len() => Ok(inputs),
        _ => Err(Problem::field(
            "input",
            "input mixes strings and token ids. Send them in two requests.",
        )),
    }
}

fn text_input(path: &str, text: String) -> Result<Input, Problem> {
    match text.is_empty() {
        true => Err(Problem::field(path, format!("{path} is empty."))),
        false => Ok(Input::Text(text)),
    }
}

fn tokens(path: &str, ids: Vec<Value>) -> Result<Input, Problem> {
    let wrong = || {
        let text = format!("{path} must hold at least one token id, a whole number each.");
        Problem::field(path, text)
    };
    if ids.is_empty() {
        return Err(wrong());
    }
    let ids = ids
        .iter()
        .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
        .collect::<Option<Vec<u32>>>();
    ids.map(Input::Tokens).ok_or_else(wrong)
}

/// A whole answer as one object.
pub(crate) fn whole(head: &Head, answer: &Collected, base64: bool) -> Value {
    let data: Vec<Value> = answer
        .vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = match base64 {
                true => Value::String(as_base64(vector)),
                false => vector.iter().map(|x| number(*x)).collect(),
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let usage = match answer.usage.prompt {
        Some(tokens) => json!({"prompt_tokens": tokens, "total_tokens": tokens}),
        None => Value::Null,
    };
    json!({"object": "list", "data": data, "model": head.model, "usage": usage})
}

/// By way of its shortest text, or 0.1 would become 0.10000000149.
fn number(x: f32) -> Value {
    json!(x.to_string().parse::<f64>().unwrap_or(f64::from(x)))
}

/// Little-endian floats in base64 (RFC 4648), as OpenAI packs them.
fn as_base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(match place > chunk.len() {
                true => '=',
                false => char::from(ALPHABET[six]),
            });
        }
    }
    text
}

#[cfg(test)]
#[path = "embeddings_tests.rs"]
mod tests;
