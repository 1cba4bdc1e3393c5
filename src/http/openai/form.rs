//! The form that the answer must have: OpenAI's `response_format`, and the
//! names that vLLM and llama.cpp have for what OpenAI's dialect lacks.

use nearfar_domain::chat::ResponseFormat;
use serde_json::Value;

use crate::http::fields::{Fields, kind};
use crate::http::problem::Problem;

/// The most texts of a `guided_choice`.
const MAX_CHOICES: usize = 1024;

/// Takes every field that says something about the answer's form; one may.
pub(super) fn form(fields: &mut Fields) -> Result<ResponseFormat, Problem> {
    let mut found: Vec<(String, ResponseFormat)> = Vec::new();
    let format = response_format(fields)?;
    if format != ResponseFormat::Text {
        found.push(("response_format".to_owned(), format));
    }
    // vLLM's older names, and llama.cpp's two.
    for (name, read) in [
        ("guided_json", schema as Reader),
        ("json_schema", schema),
        ("guided_regex", regex),
        ("guided_choice", choice),
        ("guided_grammar", grammar),
        ("grammar", grammar),
    ] {
        if let Some(value) = fields.take(name) {
            found.push((name.to_owned(), read(name, value)?));
        }
    }
    // vLLM's newer object, with the same in it.
    if let Some(mut inner) = fields.object("structured_outputs")? {
        for (name, read) in [
            ("json", schema as Reader),
            ("regex", regex),
            ("choice", choice),
            ("grammar", grammar),
        ] {
            if let Some(value) = inner.take(name) {
                let path = inner.path_of(name);
                let format = read(&path, value)?;
                found.push((path, format));
            }
        }
        if let Some((name, _)) = inner.rest().into_iter().next() {
            let path = format!("structured_outputs.{name}");
            return Err(Problem::field(
                &path,
                format!("{path} is not supported. Send json, regex, choice or grammar."),
            ));
        }
    }
    let mut found = found.into_iter();
    let Some((first, format)) = found.next() else {
        return Ok(ResponseFormat::Text);
    };
    // A server between may write the same under two names.
    match found.find(|(_, other)| *other != format) {
        None => Ok(format),
        Some((second, _)) => Err(Problem::field(
            &second,
            format!("The answer cannot follow both {first} and {second}. Send one of them."),
        )),
    }
}

type Reader = fn(&str, Value) -> Result<ResponseFormat, Problem>;

fn response_format(fields: &mut Fields) -> Result<ResponseFormat, Problem> {
    let Some(mut format) = fields.object("response_format")? else {
        return Ok(ResponseFormat::Text);
    };
    let kind = format.required_string("type")?;
    match kind.as_str() {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => {
            let mut named = format
                .object("json_schema")?
                .ok_or_else(|| format.missing("json_schema", "an object with name and schema"))?;
            let schema = named
                .object("schema")?
                .ok_or_else(|| named.missing("schema", "a JSON Schema"))?;
            Ok(ResponseFormat::JsonSchema {
                name: named.string("name")?.unwrap_or_else(|| "answer".to_owned()),
                schema: Value::Object(schema.rest()).to_string(),
                strict: named.boolean("strict")?,
            })
        }
        _ => Err(Problem::field(
            "response_format.type",
            "response_format.type must be text, json_object or json_schema.",
        )),
    }
}

/// A schema, or the text of one.
fn schema(path: &str, value: Value) -> Result<ResponseFormat, Problem> {
    let schema = match value {
        Value::Object(_) => Some(value),
        Value::String(text) => serde_json::from_str(&text).ok().filter(Value::is_object),
        _ => None,
    };
    let schema = schema.ok_or_else(|| {
        Problem::field(path, format!("{path} must be a JSON Schema, as an object."))
    })?;
    Ok(ResponseFormat::JsonSchema {
        name: "answer".to_owned(),
        schema: schema.to_string(),
        strict: None,
    })
}

fn regex(path: &str, value: Value) -> Result<ResponseFormat, Problem> {
    text(path, value).map(ResponseFormat::Regex)
}

fn grammar(path: &str, value: Value) -> Result<ResponseFormat, Problem> {
    text(path, value).map(ResponseFormat::Grammar)
}

fn text(path: &str, value: Value) -> Result<String, Problem> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text),
        Value::String(_) => Err(Problem::field(path, format!("{path} must not be empty."))),
        other => Err(Problem::field(
            path,
            format!("{path} must be a string, not {}.", kind(&other)),
        )),
    }
}

fn choice(path: &str, value: Value) -> Result<ResponseFormat, Problem> {
    let texts = match value {
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) if !text.is_empty() => Some(text),
                _ => None,
            })
            .collect::<Option<Vec<String>>>(),
        _ => None,
    };
    texts
        .filter(|texts| (1..=MAX_CHOICES).contains(&texts.len()))
        .map(ResponseFormat::Choice)
        .ok_or_else(|| {
            Problem::field(
                path,
                format!("{path} must be an array of 1 to {MAX_CHOICES} strings, none empty."),
            )
        })
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
