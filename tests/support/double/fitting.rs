//! An answer that follows from the request, in whatever dialect it came: what
//! the unchanged client SDKs are tested against.
//!
//! The user's last words steer it. Tools whose names they hold are called, each
//! once, with arguments that fit their schemas; `slowly` makes a long answer
//! with pauses; `fail with 503` an error. A schema for the answer is followed,
//! thinking that is asked for is shown, anything else is echoed.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::script::Answer;

/// Nested no deeper; schemas may refer to themselves.
const MAX_DEPTH: usize = 8;

/// The answer.
pub fn fitting(request: &Value) -> Answer {
    let last = request["messages"].as_array().and_then(|all| all.last());
    let said = said(request);
    let mut answer = match calls(request, &said) {
        calls if !calls.is_empty() => Answer {
            calls,
            ..Answer::default()
        },
        _ => match schema(request) {
            Some(schema) => Answer::text(&example(schema, schema, 0).to_string()),
            None if request["response_format"]["type"] == "json_object" => {
                Answer::text(&json!({"said": said}).to_string())
            }
            None => text(request, last, &said),
        },
    };
    if thinks(request) {
        answer = answer.after_thinking("Let me think.");
    }
    answer
}

/// The pause before each event that the user's words ask for.
pub fn wanted_gap(request: &Value) -> Duration {
    match said(request).contains("slowly") {
        true => Duration::from_millis(25),
        false => Duration::ZERO,
    }
}

/// The status that the user's words ask for.
pub fn wanted_status(request: &Value) -> Option<u16> {
    let said = said(request);
    let (_, rest) = said.split_once("fail with ")?;
    rest.get(..3)?.parse().ok()
}

/// The last message's text, or the prompt.
fn said(request: &Value) -> String {
    let last = request["messages"].as_array().and_then(|all| all.last());
    last.map(|last| text_of(&last["content"]))
        .or_else(|| request["prompt"].as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Text of a content field, tool results included.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .map(|part| match part["text"].as_str() {
                Some(text) => text.to_owned(),
                None => text_of(&part["content"]),
            })
            .collect(),
        _ => String::new(),
    }
}

fn text(request: &Value, last: Option<&Value>, said: &str) -> Answer {
    if let Some(answer) = super::bill::wanted(said) {
        return answer;
    }
    if said.contains("slowly") {
        return Answer::text(&"tick ".repeat(400));
    }
    let parts = last.and_then(|last| last["content"].as_array());
    let pictures = parts.into_iter().flatten().filter(|part| {
        let kind = part["type"].as_str().unwrap_or_default();
        kind.starts_with("image")
    });
    let shown = match pictures.count() {
        0 => String::new(),
        count => format!(" [{count} pictures]"),
    };
    let whole = format!("You said: {said}{shown}");
    let stops = [&request["stop"], &request["stop_sequences"]];
    let stops = stops.into_iter().filter_map(Value::as_array).flatten();
    let stop = stops
        .filter_map(Value::as_str)
        .find_map(|stop| whole.find(stop).map(|at| (at, stop)));
    match stop {
        Some((at, stop)) => Answer {
            stopped_by: Some(stop.to_owned()),
            ..Answer::text(&whole[..at])
        },
        None => Answer::text(&whole),
    }
}

/// Name and schema of each tool.
fn tools(request: &Value) -> Vec<(&str, &Value)> {
    let tools = request["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| match tool["function"]["name"].as_str() {
            Some(name) => Some((name, &tool["function"]["parameters"])),
            None => Some((tool["name"].as_str()?, &tool["input_schema"])),
        })
        .collect()
}

fn calls(request: &Value, said: &str) -> Vec<(String, String)> {
    let choice = &request["tool_choice"];
    if *choice == "none" || choice["type"] == "none" {
        return Vec::new();
    }
    let tools = tools(request);
    let forced = choice["function"]["name"]
        .as_str()
        .or(choice["name"].as_str());
    let must = *choice == "required" || choice["type"] == "any";
    let mut called: Vec<_> = match forced {
        Some(forced) => tools.iter().filter(|(name, _)| *name == forced).collect(),
        None => tools
            .iter()
            .filter(|(name, _)| said.contains(name))
            .collect(),
    };
    if called.is_empty() && must {
        called.extend(tools.first());
    }
    if request["parallel_tool_calls"] == false || choice["disable_parallel_tool_use"] == true {
        called.truncate(1);
    }
    let call = |(name, schema): &(&str, &Value)| {
        let arguments = match schema["required"].as_array() {
            Some(_) => example(schema, schema, 0),
            None => json!({}),
        };
        ((*name).to_owned(), arguments.to_string())
    };
    called.into_iter().map(call).collect()
}

fn thinks(request: &Value) -> bool {
    let kind = request["thinking"]["type"].as_str();
    let effort = request["reasoning_effort"].as_str();
    kind.is_some_and(|kind| kind != "disabled")
        || effort.is_some_and(|effort| effort != "none" && effort != "minimal")
}

/// The schema that the answer must fit.
fn schema(request: &Value) -> Option<&Value> {
    let places = [
        &request["response_format"]["json_schema"]["schema"],
        &request["output_config"]["format"]["schema"],
        &request["output_format"]["schema"],
    ];
    places.into_iter().find(|schema| schema.is_object())
}

/// A value that fits a schema of the plain kinds.
fn example(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(place) = schema["$ref"].as_str() {
        let there = place.strip_prefix('#').and_then(|at| root.pointer(at));
        return there.map_or(Value::Null, |there| example(there, root, depth + 1));
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    for list in ["enum", "anyOf", "oneOf", "allOf"] {
        match schema[list].as_array().and_then(|list| list.first()) {
            Some(first) if list == "enum" => return first.clone(),
            Some(first) => return example(first, root, depth + 1),
            None => {}
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str(),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => json!("text"),
        Some("integer" | "number") => match &schema["minimum"] {
            Value::Null => json!(1),
            least => least.clone(),
        },
        Some("boolean") => json!(true),
        Some("array") => json!([example(&schema["items"], root, depth + 1)]),
        Some("null") => Value::Null,
        _ => {
            let properties = schema["properties"].as_object();
            let filled = properties
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), example(property, root, depth + 1)));
            Value::Object(filled.collect::<Map<_, _>>())
        }
    }
}
