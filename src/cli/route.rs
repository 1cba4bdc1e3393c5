//! `nearfar route`: the decision for a request, without its answer.

use std::io::Read;
use std::path::Path;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::args::Route;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::style::{self, Style, ms};

/// Runs the verb.
///
/// # Errors
/// No daemon, a wrong request, or nobody who may and can answer.
pub fn run(args: Route, state_dir: &Path) -> Result<(), Failed> {
    let client = super::client_for(args.reach.url.as_deref(), state_dir)?;
    let (headers, body) = request(&args)?;
    let explanation = block_on(decide(&client, &headers, &body))?;
    let text = if args.json {
        format!("{explanation}\n")
    } else {
        render(&explanation, Style::stdout())
    };
    style::print(&text)?;
    if explanation["verdict"] == "go" {
        Ok(())
    } else {
        Err(Failed::silent())
    }
}

/// Asks for a decision. A refusal is one too, whatever its status.
pub(super) async fn decide(
    client: &Client,
    headers: &[(&'static str, String)],
    body: &Value,
) -> Result<Value, Failed> {
    let reply = client
        .open_any(Method::POST, "/v1/route", headers, Some(body))
        .await?;
    if reply.status.is_success() {
        return reply.json().await;
    }
    let refusals = [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if !refusals.contains(&reply.status) {
        return Err(reply.into_error().await);
    }
    let body = reply.json().await?;
    match body.get("nearfar").filter(|value| value.is_object()) {
        Some(explanation) => Ok(explanation.clone()),
        None => Err(super::client::error_of(&body)
            .unwrap_or_else(|| Failed::new("nearfar answered without a decision."))),
    }
}

type Headers = Vec<(&'static str, String)>;

fn request(args: &Route) -> Result<(Headers, Value), Failed> {
    let text = match args.text.as_str() {
        "-" => super::chat::read_stdin()?,
        text => text.to_owned(),
    };
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": text}));
    let mut body = json!({"model": args.model, "messages": messages});
    if let Some(limit) = args.max_tokens {
        body["max_completion_tokens"] = json!(limit);
    }
    if let Some(path) = &args.tools {
        body["tools"] = tools(path)?;
    }
    let tags = [
        ("x-nearfar-privacy", args.privacy.clone()),
        (
            "x-nearfar-deadline-ms",
            args.deadline_ms.map(|n| n.to_string()),
        ),
        ("x-nearfar-ttft-ms", args.ttft_ms.map(|n| n.to_string())),
        ("x-nearfar-max-cost", args.max_cost.map(|n| n.to_string())),
        ("x-nearfar-feature", args.feature.clone()),
    ];
    let headers = tags
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    Ok((headers, body))
}

/// A file with a list of tools, or an object that holds one as `tools`.
fn tools(path: &Path) -> Result<Value, Failed> {
    let wrong = |what: String| {
        Failed::usage(format!("--tools {}: {what}.", path.display()))
            .mend("The file holds a JSON list of tools, as OpenAI's API takes them.")
    };
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    file.take(8 << 20)
        .read_to_string(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    let mut value: Value = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("not JSON at line {}", error.line())))?;
    if let Some(inner) = value.get_mut("tools") {
        value = inner.take();
    }
    if value.is_array() {
        Ok(value)
    } else {
        Err(wrong("there is no list in it".to_owned()))
    }
}

/// A decision for people: its candidates in the order of trying, then the verdict.
pub fn render(explanation: &Value, style: Style) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut candidates: Vec<&Value> = explanation["candidates"]
        .as_array()
        .map(|list| list.iter().collect())
        .unwrap_or_default();
    candidates.sort_by_key(|candidate| candidate["rank"].as_u64().unwrap_or(u64::MAX));
    let rows: Vec<Vec<String>> = candidates
        .iter()
        .map(|candidate| {
            let forecast = &candidate["forecast"];
            let is_leg = candidate["outcome"] == "leg";
            let cell = |cell: Option<String>| match cell {
                Some(cell) => cell,
                None if is_leg => "unknown".to_owned(),
                None => String::new(),
            };
            vec![
                match candidate["rank"].as_u64() {
                    Some(rank) => (rank + 1).to_string(),
                    None => "-".to_owned(),
                },
                text(&candidate["target"]),
                text(&candidate["zone"]),
                cell(forecast["ttft_ms"].as_f64().map(ms)),
                cell(forecast["total_ms"].as_f64().map(ms)),
                cell(
                    forecast["p_meets"]
                        .as_f64()
                        .map(|p| format!("{:.0} %", p * 100.0)),
                ),
                money(&candidate["cost"]["likely_micro"], is_leg),
                money(&most(candidate), is_leg),
                text(&candidate["why"]),
            ]
        })
        .collect();
    let mut shown = if rows.is_empty() {
        String::new()
    } else {
        let heading = [
            "#",
            "TARGET",
            "ZONE",
            "FIRST TOKEN",
            "ANSWER",
            "IN TIME",
            "LIKELY",
            "AT MOST",
            "OUT OR BEHIND BECAUSE",
        ];
        style::table(&heading, rows, &[3, 4, 5, 6, 7])
    };
    let first = candidates
        .iter()
        .find(|candidate| candidate["rank"].as_u64() == Some(0));
    let reason = text(&explanation["reason"]);
    let verdict = match first {
        Some(first) if explanation["verdict"] == "go" => format!(
            "{} {} in zone {} answers: {}",
            style.green("go"),
            style.bold(&style::safe(&text(&first["target"]))),
            style.zone(&style::safe(&text(&first["zone"]))),
            words(&reason)
        ),
        _ => format!(
            "{} nobody answers: {}",
            style.red("refused"),
            words(&reason)
        ),
    };
    let ceiling = &explanation["ceiling"];
    shown.push_str(&format!(
        "\n{verdict}\n{}\n",
        style.dim(&style::safe(&format!(
            "ceiling {} (set by {}), decision {}",
            text(&ceiling["zone"]),
            text(&ceiling["source"]),
            text(&explanation["decision"])
        )))
    ));
    shown
}

/// The most that a candidate's answer can cost: the forecast knows a limit of the
/// request's.
fn most(candidate: &Value) -> Value {
    match &candidate["forecast"]["most_cost_micro"] {
        Value::Null => candidate["cost"]["most_micro"].clone(),
        most => most.clone(),
    }
}

fn money(micro: &Value, is_leg: bool) -> String {
    match micro.as_u64() {
        Some(micro) => style::money(micro),
        None if is_leg => "unknown".to_owned(),
        None => String::new(),
    }
}

/// A reason's word, in a clause.
fn words(reason: &str) -> String {
    let clause = match reason {
        "named" => "the request names it",
        "confined" => "the request must stay on this device",
        "near" => "this device can do it in time",
        "asked_remote" => "the request asks for a remote target",
        "capability" => "of those allowed, none is able to do what is asked, or no nearer one is",
        "health" => "of those allowed, the others are down",
        "deadline" => "a nearer one would miss the deadline",
        "cost" => "cost decides",
        "no_targets" => "there is no model at all",
        "privacy" => "every target lies beyond the privacy ceiling",
        "route" => "the request's own routing wish leaves nobody",
        other => return style::safe(other),
    };
    format!("{clause} ({reason})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_a_table_and_a_verdict() {
        let explanation = json!({
            "decision": "dec_1", "ceiling": {"zone": "cloud", "source": "default"},
            "verdict": "go", "reason": "near",
            "candidates": [
                {"target": "openai/big", "zone": "cloud",
                 "cost": {"likely_micro": 12, "most_micro": null}, "outcome": "excluded",
                 "exclusion": "not_asked", "why": "not the model asked for"},
                {"target": "openai/mini", "zone": "cloud", "cost": null,
                 "outcome": "leg", "rank": 1,
                 "forecast": {"ttft_ms": 600.0, "total_ms": 2400.0, "p_meets": 0.5,
                              "cost_micro": null, "score": 0.1}},
                {"target": "local/concierge", "zone": "device",
                 "cost": {"likely_micro": 0, "most_micro": 7},
                 "outcome": "leg", "rank": 0,
                 "forecast": {"ttft_ms": 40.4, "total_ms": 900.0, "p_meets": 1.0,
                              "cost_micro": 0, "score": 0.9}}
            ]
        });
        let expected = "\
#  TARGET           ZONE    FIRST TOKEN  ANSWER  IN TIME    LIKELY   AT MOST  OUT OR BEHIND BECAUSE
1  local/concierge  device        40 ms  900 ms    100 %  0.000000  0.000007
2  openai/mini      cloud        600 ms   2.4 s     50 %   unknown   unknown
-  openai/big       cloud                                 0.000012            not the model asked for

go local/concierge in zone device answers: this device can do it in time (near)
ceiling cloud (set by default), decision dec_1
";
        let shown = render(&explanation, Style::PLAIN);
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn a_refusal_and_a_strange_answer_are_told() {
        let refusal = json!({"verdict": "refuse", "reason": "privacy", "candidates": [],
            "ceiling": {"zone": "device", "source": "tag"}, "decision": "dec_2"});
        let shown = render(&refusal, Style::PLAIN);
        assert!(
            shown.contains("refused nobody answers: every target lies beyond"),
            "{shown}"
        );
        assert!(render(&json!(null), Style::PLAIN).contains("refused"));
    }
}
