//! Bodies of `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! Every error names the field and the mend. Fields that nearfar does not know
//! are kept and passed on to providers that speak the same dialect.

use nearfar_domain::chat::{Chat, Params, ResponseFormat};
use nearfar_domain::events::Failure;
use nearfar_domain::thought::Origin;
use serde_json::{Value, json};

use super::stream::MessageChunks;
use super::{tools, turns, whole};
use crate::http::asked::Understood;
use crate::http::collect::Collected;
use crate::http::dialect::{About, Chunks, Form};
use crate::http::fields::Fields;
use crate::http::problem::Problem;

/// The most stop strings that one request may carry.
const MAX_STOPS: usize = 16;
/// The largest token limit that makes sense to anyone.
const MAX_TOKENS: i64 = 1 << 24;

/// Reads a body. `max_tokens` may be missing, here as for `count_tokens`: the
/// target's default is then the limit.
///
/// # Errors
/// Names the first field that is wrong.
pub(crate) fn message(body: &[u8]) -> Result<Understood, Problem> {
    let mut fields = Fields::read(body)?;
    let model = fields.model()?;
    let messages = turns::turns(&mut fields)?;
    let mut chat = Chat::turns(messages);
    chat.passthrough_of = Origin::Anthropic;
    tools::tools(&mut fields, &mut chat)?;
    chat.params = params(&mut fields)?;
    if let Some(one) = tools::one_at_a_time(&mut fields, &mut chat)? {
        chat.params.parallel_tool_calls = Some(!one);
    }
    let verbatim = output(&mut fields, &mut chat)?;
    thinking(&mut fields, &mut chat.params)?;
    if let Some(config) = verbatim {
        fields.put("output_config", config);
    }
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let tags = fields.object("nearfar")?.map(Fields::rest);
    let rest = fields.rest();
    if !rest.is_empty() {
        chat.passthrough = Value::Object(rest).to_string();
    }
    Ok(Understood {
        model,
        chat,
        stream,
        tags,
        form: Box::new(MessageForm),
    })
}

fn params(fields: &mut Fields) -> Result<Params, Problem> {
    Ok(Params {
        max_tokens: fields
            .integer("max_tokens", 1, MAX_TOKENS)?
            .map(|n| n as u32),
        temperature: fields.number("temperature", 0.0, 2.0)?,
        top_p: fields.number("top_p", 0.0, 1.0)?,
        top_k: fields
            .integer("top_k", 0, i64::from(u32::MAX))?
            .map(|n| n as u32),
        stop: stop(fields)?,
        ..Params::default()
    })
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, Problem> {
    let wrong = || {
        Problem::field(
            "stop_sequences",
            format!("stop_sequences must be an array of at most {MAX_STOPS} strings, none empty."),
        )
    };
    let Some(items) = fields.array("stop_sequences")? else {
        return Ok(Vec::new());
    };
    if items.len() > MAX_STOPS {
        return Err(wrong());
    }
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) if !text.is_empty() => Ok(text),
            _ => Err(wrong()),
        })
        .collect()
}

/// `output_config` and its older name `output_format`. Returns what of it must
/// reach Anthropic's models as it stands.
fn output(fields: &mut Fields, chat: &mut Chat) -> Result<Option<Value>, Problem> {
    let mut format = fields.object("output_format")?;
    let mut rest = None;
    if let Some(mut config) = fields.object("output_config")? {
        format = config.object("format")?.or(format);
        if let Some(effort) = config.string("effort")? {
            if !["low", "medium", "high", "xhigh", "max"].contains(&effort.as_str()) {
                return Err(Problem::field(
                    "output_config.effort",
                    "output_config.effort must be low, medium, high, xhigh or max.",
                ));
            }
            config.put("effort", json!(effort));
            // The highest that others have a word for.
            let effort = if effort == "max" { "xhigh" } else { &effort };
            chat.params.reasoning_effort = Some(effort.to_owned());
        }
        let left = config.rest();
        rest = (!left.is_empty()).then_some(Value::Object(left));
    }
    if let Some(mut format) = format {
        if format.required_string("type")? != "json_schema" {
            return Err(Problem::field(
                format.path_of("type"),
                "The format's type must be json_schema.",
            ));
        }
        let schema = format
            .object("schema")?
            .ok_or_else(|| format.missing("schema", "a JSON Schema"))?;
        chat.response_format = ResponseFormat::JsonSchema {
            name: "answer".to_owned(),
            schema: Value::Object(schema.rest()).to_string(),
            strict: Some(true),
        };
    }
    Ok(rest)
}

/// Thinking by a budget is understood everywhere; other kinds are Anthropic's
/// own and pass through.
fn thinking(fields: &mut Fields, params: &mut Params) -> Result<(), Problem> {
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(());
    };
    let kind = thinking.required_string("type")?;
    match kind.as_str() {
        "enabled" => {
            let budget = thinking.integer("budget_tokens", 1, MAX_TOKENS)?;
            let budget =
                budget.ok_or_else(|| thinking.missing("budget_tokens", "a number of tokens"))?;
            params.enable_thinking = Some(true);
            params.thinking_tokens = Some(budget as u32);
            thinking.put("budget_tokens", json!(budget));
        }
        "disabled" => params.enable_thinking = Some(false),
        _ => {}
    }
    thinking.put("type", json!(kind));
    fields.put("thinking", Value::Object(thinking.rest()));
    Ok(())
}

/// A message.
struct MessageForm;

impl Form for MessageForm {
    fn whole(&self, about: &About, answer: &Collected) -> Result<Value, Failure> {
        Ok(whole::whole(about, answer))
    }

    fn chunks(self: Box<Self>, about: About) -> Box<dyn Chunks> {
        Box::new(MessageChunks::new(about))
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
