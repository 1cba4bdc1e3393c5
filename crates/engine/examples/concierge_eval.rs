//! Asks a model the held-out cases of models/concierge, greedily, and prints
//! how many it gets right.
//!
//! ```text
//! concierge_eval MODEL.gguf CASES.jsonl [--json] [--wrong N]
//! ```
//!
//! `models/concierge/evaluate` makes the cases and calls this. `--wrong N` shows
//! N wrong answers of each kind. Exits with 1 when a bound is missed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use nearfar_domain::chat::{Chat, Message, Params, Role, Tool, ToolCall};
use nearfar_domain::events::Event;
use nearfar_engine::generate::{Generation, Progress, ReadyModel};
use nearfar_engine::gguf::Gguf;
use serde_json::{Value, json};

/// What a kind of case must reach, in per cent.
const BOUNDS: [(&str, f64); 4] = [
    ("fact", 90.0),
    ("phrasing", 80.0),
    ("not in the facts", 90.0),
    ("tool call", 95.0),
];
/// What every refusal of the recipe says.
const UNKNOWN: &str = "don't have that information";

#[derive(Default)]
struct Answer {
    text: String,
    calls: Vec<(String, String)>,
}

#[derive(Default)]
struct Tally {
    cases: u32,
    right: u32,
    shown: u32,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("concierge_eval: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, cases, options @ ..] = args.as_slice() else {
        return Err("usage: concierge_eval MODEL.gguf CASES.jsonl [--json] [--wrong N]".into());
    };
    let as_json = options.iter().any(|o| o == "--json");
    let wrong: u32 = match options.iter().position(|o| o == "--wrong") {
        Some(at) => options
            .get(at + 1)
            .ok_or("--wrong needs a number")?
            .parse()?,
        None => 0,
    };
    let gguf = Gguf::open(Path::new(model))?;
    let ready = Arc::new(ReadyModel::load("concierge", &gguf, None)?);
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for line in std::fs::read_to_string(cases)?.lines() {
        let case: Value = serde_json::from_str(line)?;
        let kind = case["kind"].as_str().ok_or("a case has no kind")?;
        let answer = ask(&ready, &case)?;
        let tally = tallies.entry(kind.to_owned()).or_default();
        tally.cases += 1;
        if is_right(&case, &answer) {
            tally.right += 1;
        } else if tally.shown < wrong {
            tally.shown += 1;
            show(kind, &case, &answer);
        }
    }
    Ok(report(&tallies, as_json))
}

/// The model's greedy answer to one case.
fn ask(ready: &Arc<ReadyModel>, case: &Value) -> Result<Answer, Box<dyn std::error::Error>> {
    let messages = case["messages"]
        .as_array()
        .ok_or("a case has no messages")?;
    let mut chat = Chat::turns(messages.iter().map(message).collect());
    for tool in case["tools"].as_array().into_iter().flatten() {
        let function = &tool["function"];
        chat.tools.push(Tool {
            name: text(&function["name"]),
            description: function["description"].as_str().map(str::to_owned),
            parameters: Some(function["parameters"].to_string()),
            strict: None,
        });
    }
    chat.params = Params {
        temperature: Some(0.0),
        max_tokens: Some(120),
        ..Params::default()
    };
    let prepared =
        Generation::prepare(ready, &chat, "").map_err(|failure| failure.message.clone())?;
    let mut generation = Generation::new(Arc::clone(ready), prepared);
    let mut events = Vec::new();
    while matches!(
        generation
            .step(&mut events)
            .map_err(|failure| failure.message)?,
        Progress::More
    ) {}
    generation.keep();
    let mut answer = Answer::default();
    for event in events {
        match event {
            Event::Content(more) => answer.text.push_str(&more),
            Event::ToolCall(delta) => {
                let index = delta.index as usize;
                answer
                    .calls
                    .resize_with(answer.calls.len().max(index + 1), Default::default);
                let call = &mut answer.calls[index];
                call.0.push_str(delta.name.as_deref().unwrap_or_default());
                call.1.push_str(&delta.arguments);
            }
            _ => {}
        }
    }
    Ok(answer)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn message(value: &Value) -> Message {
    let role = match value["role"].as_str() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => Role::User,
    };
    let mut message = Message::text(role, text(&value["content"]));
    message.tool_call_id = value["tool_call_id"].as_str().map(str::to_owned);
    for call in value["tool_calls"].as_array().into_iter().flatten() {
        message.tool_calls.push(ToolCall {
            id: text(&call["id"]),
            name: text(&call["function"]["name"]),
            arguments: call["function"]["arguments"].to_string(),
            signature: None,
        });
    }
    message
}

fn is_right(case: &Value, answer: &Answer) -> bool {
    if let Some(call) = case.get("call") {
        // Name and arguments equal as JSON: the right call, not merely a well-formed one.
        let [(name, arguments)] = answer.calls.as_slice() else {
            return false;
        };
        return Some(name.as_str()) == call["name"].as_str()
            && serde_json::from_str::<Value>(arguments).is_ok_and(|a| a == call["arguments"]);
    }
    if !answer.calls.is_empty() {
        return false;
    }
    let unknown = answer.text.contains(UNKNOWN);
    if case.get("unknown").is_some() {
        unknown
    } else if let Some(value) = case["value"].as_str() {
        // The first letter of a sentence may be raised.
        answer.text.to_lowercase().contains(&value.to_lowercase())
    } else {
        !answer.text.trim().is_empty() && !unknown
    }
}

fn show(kind: &str, case: &Value, answer: &Answer) {
    let last = case["messages"].as_array().and_then(|m| m.last());
    let wanted = ["value", "call", "unknown"]
        .iter()
        .find_map(|key| case.get(*key))
        .map_or_else(|| "small talk".to_owned(), Value::to_string);
    eprintln!(
        "[{kind}] {}\n  wanted {wanted}\n  got    {:?} {:?}",
        last.map(|m| text(&m["content"])).unwrap_or_default(),
        answer.text,
        answer.calls
    );
}

fn report(tallies: &BTreeMap<String, Tally>, as_json: bool) -> bool {
    let mut good = true;
    let mut rows = Vec::new();
    if !as_json {
        println!(
            "{:<26} {:>6} {:>6} {:>8} {:>8}",
            "kind", "cases", "right", "share", "bound"
        );
    }
    for (kind, tally) in tallies {
        let share = 100.0 * f64::from(tally.right) / f64::from(tally.cases);
        let bound = BOUNDS
            .iter()
            .find(|(name, _)| name == kind)
            .map(|(_, bound)| *bound);
        good &= bound.is_none_or(|bound| share >= bound);
        if as_json {
            rows.push(
                json!({"kind": kind, "cases": tally.cases, "right": tally.right,
                "share_percent": share, "bound_percent": bound}),
            );
        } else {
            let bound = bound.map_or_else(String::new, |b| format!("{b:.0} %"));
            println!(
                "{kind:<26} {:>6} {:>6} {share:>6.1} % {bound:>8}",
                tally.cases, tally.right
            );
        }
    }
    if as_json {
        println!("{}", json!({"kinds": rows, "all_bounds_met": good}));
    }
    good
}
