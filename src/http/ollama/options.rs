//! How the model is to choose its words, in Ollama's names; `format`, `think`
//! and `keep_alive`.
//!
//! Options about loading (`num_ctx`, `num_gpu`, `num_thread`, `use_mmap`, …) say
//! what Ollama is to do with its own memory. They are taken and have no effect:
//! a model here always has its whole context.

use std::time::Duration;

use nearfar_domain::chat::{Params, ResponseFormat};
use serde_json::Value;

use crate::http::fields::{Fields, kind};
use crate::http::openai::params;
use crate::http::problem::Problem;

/// Takes `options`, `think`, `logprobs` and `top_logprobs`.
pub(super) fn params(fields: &mut Fields) -> Result<Params, Problem> {
    let mut params = Params::default();
    if let Some(mut options) = fields.object("options")? {
        // -1 and -2 stand for "without end" and "to the end of the context".
        let most = options.integer("num_predict", -2, i64::from(u32::MAX))?;
        params.max_tokens = most.filter(|n| *n > 0).map(|n| n as u32);
        params.temperature = options.number("temperature", 0.0, 2.0)?;
        params.top_p = options.number("top_p", 0.0, 1.0)?;
        params.min_p = options.number("min_p", 0.0, 1.0)?;
        let top_k = options.integer("top_k", -1, i64::from(u32::MAX))?;
        params.top_k = top_k.map(|n| n.max(0) as u32);
        params.repetition_penalty = options.number("repeat_penalty", 0.01, 10.0)?;
        params.presence_penalty = options.number("presence_penalty", -2.0, 2.0)?;
        params.frequency_penalty = options.number("frequency_penalty", -2.0, 2.0)?;
        let seed = options.integer("seed", i64::MIN, i64::MAX)?;
        params.seed = seed.filter(|seed| *seed != -1);
        params.stop = params::stop(&mut options)?;
    }
    match fields.take("think") {
        None => {}
        Some(Value::Bool(think)) => params.enable_thinking = Some(think),
        Some(Value::String(level)) if matches!(level.as_str(), "low" | "medium" | "high") => {
            params.enable_thinking = Some(true);
            params.reasoning_effort = Some(level);
        }
        Some(_) => {
            return Err(Problem::field(
                "think",
                "think must be true, false, low, medium or high.",
            ));
        }
    }
    let wants_logprobs = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, 20)?.unwrap_or(0);
    params.logprobs = wants_logprobs.then_some(top as u8);
    Ok(params)
}

/// Takes `format`: `json`, or a JSON Schema.
pub(super) fn format(fields: &mut Fields) -> Result<ResponseFormat, Problem> {
    match fields.take("format") {
        None => Ok(ResponseFormat::Text),
        Some(Value::String(word)) if word.is_empty() => Ok(ResponseFormat::Text),
        Some(Value::String(word)) if word == "json" => Ok(ResponseFormat::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(ResponseFormat::JsonSchema {
            name: "answer".to_owned(),
            schema: schema.to_string(),
            strict: None,
        }),
        Some(_) => Err(Problem::field(
            "format",
            "format must be json or a JSON Schema, as an object.",
        )),
    }
}

/// How long a model is to stay in memory after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// Nobody said: `local.keep_alive` decides.
    Unsaid,
    /// Not at all.
    Drop,
    /// So long after its last use.
    For(Duration),
    /// As long as there is room.
    Always,
}

/// Takes `keep_alive`: a number of seconds or a length of time. Anything below
/// nought is for ever.
pub(super) fn keep_alive(fields: &mut Fields) -> Result<KeepAlive, Problem> {
    let seconds = match fields.take("keep_alive") {
        None => return Ok(KeepAlive::Unsaid),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => duration(&text),
        Some(other) => {
            return Err(Problem::field(
                "keep_alive",
                format!("keep_alive must be a number or text, not {}.", kind(&other)),
            ));
        }
    };
    let Some(seconds) = seconds else {
        return Err(Problem::field(
            "keep_alive",
            "keep_alive must be a number of seconds, or a length of time such as 5m or 1h30m.",
        ));
    };
    if seconds == 0.0 {
        return Ok(KeepAlive::Drop);
    }
    // Longer than any clock counts is for ever, too.
    let time = Duration::try_from_secs_f64(seconds).ok();
    let time = time.filter(|time| *time < Duration::from_secs(u64::from(u32::MAX)));
    Ok(time.map_or(KeepAlive::Always, |time| {
        // A moment that rounds to nothing is a moment.
        KeepAlive::For(time.max(Duration::from_millis(1)))
    }))
}

/// A length of time as Go writes it, in seconds: `1h30m`, `-1m`, `1.5s`, `300`.
fn duration(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let length = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let unit = match &after[..length] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &after[length..];
    }
    (!text.is_empty()).then_some(sign * seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of("", value).unwrap()
    }

    fn param(problem: &Problem) -> String {
        problem.openai_body()["error"]["param"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn options_have_their_own_names() {
        let read = params(&mut fields(json!({
            "options": {"num_predict": 7, "temperature": 0, "top_k": -1, "top_p": 0.5, "min_p": 0.1,
                        "repeat_penalty": 1.5, "seed": 3, "stop": ["a", "b"], "num_ctx": 2048,
                        "presence_penalty": 1, "frequency_penalty": -1, "mirostat": 0},
            "think": "low", "logprobs": true, "top_logprobs": 2,
        })))
        .unwrap();
        assert_eq!(read.max_tokens, Some(7));
        assert_eq!(read.temperature, Some(0.0));
        assert_eq!((read.top_k, read.top_p), (Some(0), Some(0.5)));
        assert_eq!(
            (read.min_p, read.repetition_penalty),
            (Some(0.1), Some(1.5))
        );
        assert_eq!(
            (read.presence_penalty, read.frequency_penalty),
            (Some(1.0), Some(-1.0))
        );
        assert_eq!((read.seed, read.logprobs), (Some(3), Some(2)));
        assert_eq!(read.stop, ["a", "b"]);
        assert_eq!(read.enable_thinking, Some(true));
        assert_eq!(read.reasoning_effort.as_deref(), Some("low"));
    }

    #[test]
    fn without_end_and_any_seed_are_no_limits() {
        for num_predict in [-1, -2, 0] {
            let options = json!({"options": {"num_predict": num_predict, "seed": -1}});
            let read = params(&mut fields(options)).unwrap();
            assert_eq!((read.max_tokens, read.seed), (None, None));
        }
        assert!(
            params(&mut fields(json!({"top_logprobs": 3})))
                .unwrap()
                .logprobs
                .is_none()
        );
    }

    #[test]
    fn wrong_options_name_their_place() {
        for (body, expected) in [
            (
                json!({"options": {"temperature": 9}}),
                "options.temperature",
            ),
            (
                json!({"options": {"num_predict": "x"}}),
                "options.num_predict",
            ),
            (json!({"options": 3}), "options"),
            (json!({"think": "very"}), "think"),
        ] {
            assert_eq!(param(&params(&mut fields(body)).unwrap_err()), expected);
        }
    }

    #[test]
    fn formats_are_json_or_a_schema() {
        let read = |value: Value| format(&mut fields(json!({"format": value})));
        assert!(matches!(read(json!("")), Ok(ResponseFormat::Text)));
        assert!(matches!(
            read(json!("json")),
            Ok(ResponseFormat::JsonObject)
        ));
        let schema = read(json!({"type": "object"})).unwrap();
        assert!(
            matches!(schema, ResponseFormat::JsonSchema { schema, .. } if schema == r#"{"type":"object"}"#)
        );
        assert_eq!(param(&read(json!("xml")).unwrap_err()), "format");
    }

    #[test]
    fn times_are_numbers_or_gos_durations() {
        let read = |value: Value| keep_alive(&mut fields(json!({"keep_alive": value})));
        for zero in [json!(0), json!("0"), json!("0s"), json!("0h0m"), json!(0.0)] {
            assert_eq!(read(zero).unwrap(), KeepAlive::Drop);
        }
        for (value, seconds) in [
            (json!(300), 300.0),
            (json!("5"), 5.0),
            (json!("5m"), 300.0),
            (json!("1h30m"), 5_400.0),
            (json!("1.5s"), 1.5),
            (json!("250ms"), 0.25),
            (json!("1ns"), 0.001),
        ] {
            let expected = KeepAlive::For(Duration::from_secs_f64(seconds));
            assert_eq!(read(value.clone()).unwrap(), expected, "{value}");
        }
        for ever in [json!(-1), json!("-1m"), json!("-1"), json!(1e30)] {
            assert_eq!(read(ever).unwrap(), KeepAlive::Always);
        }
        assert_eq!(read(Value::Null).unwrap(), KeepAlive::Unsaid);
        for wrong in [
            json!("soon"),
            json!(""),
            json!("5 minutes"),
            json!([]),
            json!("inf"),
        ] {
            let problem = read(wrong.clone()).unwrap_err();
            assert_eq!(param(&problem), "keep_alive", "{wrong}");
        }
    }
}
