//! How the model is to choose its words: sampling, limits and stop strings.

use nearfar_domain::chat::Params;
use serde_json::Value;

use crate::http::fields::Fields;
use crate::http::problem::Problem;

/// The most stop strings that one request may carry.
const MAX_STOPS: usize = 16;
/// The largest token limit that makes sense to anyone.
const MAX_TOKENS: i64 = 1 << 24;

/// Takes the parameters that both endpoints share. Log-probabilities are not
/// among them: each endpoint has its own form.
pub(crate) fn params(fields: &mut Fields) -> Result<Params, Problem> {
    let max_completion = fields.integer("max_completion_tokens", 1, MAX_TOKENS)?;
    let max = fields.integer("max_tokens", 1, MAX_TOKENS)?;
    let mut enable_thinking = fields.boolean("enable_thinking")?;
    if let Some(mut kwargs) = fields.object("chat_template_kwargs")? {
        enable_thinking = kwargs.boolean("enable_thinking")?.or(enable_thinking);
    }
    Ok(Params {
        temperature: fields.number("temperature", 0.0, 2.0)?,
        top_p: fields.number("top_p", 0.0, 1.0)?,
        top_k: fields
            .integer("top_k", 0, i64::from(u32::MAX))?
            .map(|n| n as u32),
        min_p: fields.number("min_p", 0.0, 1.0)?,
        repetition_penalty: fields.number("repetition_penalty", 0.01, 10.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?,
        seed: fields.integer("seed", i64::MIN, i64::MAX)?,
        logit_bias: logit_bias(fields)?,
        logprobs: None,
        max_tokens: max_completion.or(max).map(|n| n as u32),
        stop: stop(fields)?,
        parallel_tool_calls: fields.boolean("parallel_tool_calls")?,
        reasoning_effort: fields.string("reasoning_effort")?,
        enable_thinking,
        thinking_tokens: None,
    })
}

pub(crate) fn stop(fields: &mut Fields) -> Result<Vec<String>, Problem> {
    let wrong = || {
        Problem::field(
            "stop",
            format!(
                "stop must be a string or an array of at most {MAX_STOPS} strings, none empty."
            ),
        )
    };
    let stops = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    if stops.len() > MAX_STOPS || stops.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(stops)
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, Problem> {
    let Some(object) = fields.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    object
        .rest()
        .into_iter()
        .map(|(token, bias)| {
            let id = token.parse().ok();
            let bias = bias.as_f64().filter(|b| (-100.0..=100.0).contains(b));
            match (id, bias) {
                (Some(id), Some(bias)) => Ok((id, bias as f32)),
                _ => Err(Problem::field(
                    "logit_bias",
                    "logit_bias maps token ids to numbers from -100 to 100.",
                )),
            }
        })
        .collect()
}
