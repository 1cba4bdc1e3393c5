//! `nearfar status`: what the daemon is doing.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::args::Status;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::style::{self, Style, ms};
use crate::config::units;

/// Runs the verb.
///
/// # Errors
/// No daemon.
pub fn run(args: &Status, state_dir: &Path) -> Result<(), Failed> {
    let client = Client::control(state_dir);
    let status = block_on(client.get("/admin/v1/status"))?;
    let text = if args.json {
        format!("{status}\n")
    } else {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        render(&status, now, Style::stdout())
    };
    Ok(style::print(&text)?)
}

/// The status for people. What the daemon does not say is left out, so that a
/// newer or older one can be read too.
pub fn render(status: &Value, now_ms: i64, style: Style) -> String {
    let mut shown = head(status, now_ms, style);
    let sections = [
        ("processes", parts(status, style)),
        ("targets", targets(status)),
        ("providers", providers(status)),
        ("in memory", loaded(status)),
    ];
    for (name, text) in sections {
        if !text.is_empty() {
            shown.push_str(&format!("\n{}\n{text}", style.bold(name)));
        }
    }
    let missing: Vec<String> = list(status, "sandbox")
        .iter()
        .flat_map(|report| {
            let role = text(&report["role"]);
            list(report, "missing")
                .iter()
                .map(move |what| format!("{role}: {}", text(what)))
                .collect::<Vec<_>>()
        })
        .collect();
    if !missing.is_empty() {
        shown.push_str(&format!("\n{}\n", style.yellow("missing from the sandbox")));
        for line in missing {
            shown.push_str(&format!("  {}\n", style::safe(&line)));
        }
    }
    shown
}

fn head(status: &Value, now_ms: i64, style: Style) -> String {
    let state = match (&status["draining"], &status["ready"]) {
        (Value::Bool(true), _) => style.yellow("stopping"),
        (_, Value::Bool(false)) => style.yellow("not ready"),
        _ => style.green("running"),
    };
    let mut line = format!("nearfar {} {state}", style::safe(&text(&status["version"])));
    if let Some(started) = status["started_ms"].as_i64() {
        let up = u64::try_from(now_ms - started).unwrap_or(0) / 1_000 * 1_000;
        let up = std::time::Duration::from_millis(up);
        line.push_str(&format!(" for {}", units::show_duration(up)));
    }
    line.push('\n');
    let listen: Vec<String> = list(status, "listen").iter().map(text).collect();
    for (name, value) in [
        ("state", text(&status["state_dir"])),
        ("config", text(&status["config"])),
        ("listen", listen.join(", ")),
        ("requests", requests(status)),
        ("queue", queue(status)),
    ] {
        if !value.is_empty() {
            line.push_str(&format!("  {name:<9} {}\n", style::safe(&value)));
        }
    }
    line
}

fn requests(status: &Value) -> String {
    let under_way = status["requests"]["under_way"]
        .as_u64()
        .or_else(|| status["in_flight"].as_u64());
    match (under_way, status["requests"]["limit"].as_u64()) {
        (Some(now), Some(limit)) => format!("{now} under way of at most {limit}"),
        (Some(now), None) => format!("{now} under way"),
        (None, _) => String::new(),
    }
}

fn queue(status: &Value) -> String {
    let engine = &status["engine"];
    match (engine["running"].as_u64(), engine["queued"].as_u64()) {
        (Some(running), Some(queued)) => {
            let wait = engine["wait_ms"].as_f64().unwrap_or(0.0);
            format!("{running} running, {queued} waiting, {} to wait", ms(wait))
        }
        _ => String::new(),
    }
}

fn parts(status: &Value, style: Style) -> String {
    let rows: Vec<Vec<String>> = list(status, "parts")
        .iter()
        .map(|part| {
            let role = text(&part["role"]).to_lowercase();
            let report = list(status, "sandbox")
                .iter()
                .find(|report| text(&report["role"]).to_lowercase() == role);
            vec![
                format!("  {role}"),
                state_word(&part["state"]),
                part["pid"]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                report.map_or_else(|| "-".to_owned(), sandbox_word),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let table = style::table(&["  PROCESS", "STATE", "PID", "SANDBOX"], rows, &[2]);
    // Painted afterwards: colours would count as width.
    let mut shown = String::new();
    for line in table.lines() {
        let line = match line.split_once(" up ") {
            Some((before, after)) => format!("{before} {} {after}", style.green("up")),
            None => line.replacen("down", &style.yellow("down"), 1),
        };
        shown.push_str(&line);
        shown.push('\n');
    }
    shown
}

/// `up`, `starting`, or `down, again in 2.0 s`.
fn state_word(state: &Value) -> String {
    if let Some(down) = state.get("down") {
        return match down["restart_in_ms"].as_f64() {
            Some(wait) => format!("down, again in {}", ms(wait)),
            None => "down".to_owned(),
        };
    }
    match text(state) {
        word if word.is_empty() => "unknown".to_owned(),
        word => word,
    }
}

fn sandbox_word(report: &Value) -> String {
    let mut layers = Vec::new();
    if report["seccomp"] == true {
        layers.push("seccomp".to_owned());
    }
    if let Some(abi) = report["landlock_abi"].as_u64() {
        layers.push(format!("Landlock {abi}"));
    }
    if layers.is_empty() {
        "none".to_owned()
    } else {
        layers.join(", ")
    }
}

fn targets(status: &Value) -> String {
    let rows: Vec<Vec<String>> = list(status, "targets")
        .iter()
        .map(|target| {
            vec![
                format!("  {}", text(&target["target"])),
                text(&target["zone"]),
                text(&target["health"]),
                if target["auto"] == true { "yes" } else { "no" }.to_owned(),
                target["wait_ms"]
                    .as_f64()
                    .map_or_else(|| "-".to_owned(), ms),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    style::table(&["  TARGET", "ZONE", "HEALTH", "AUTO", "WAIT"], rows, &[4])
}

fn providers(status: &Value) -> String {
    let rows: Vec<Vec<String>> = list(status, "providers")
        .iter()
        .map(|provider| {
            vec![
                format!("  {}", text(&provider["name"])),
                text(&provider["dialect"]),
                text(&provider["zone"]),
                if provider["ready"] == true {
                    "there"
                } else {
                    "missing"
                }
                .to_owned(),
                match &provider["models"] {
                    Value::Array(models) => models.len().to_string(),
                    Value::Number(count) => count.to_string(),
                    _ => "-".to_owned(),
                },
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    style::table(
        &["  PROVIDER", "DIALECT", "ZONE", "KEY", "MODELS"],
        rows,
        &[4],
    )
}

fn loaded(status: &Value) -> String {
    let rows: Vec<Vec<String>> = list(&status["engine"], "models")
        .iter()
        .map(|model| {
            vec![
                format!("  {}", text(&model["name"])),
                text(&model["architecture"]),
                model["memory_bytes"]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), units::show_size),
                model["context_tokens"]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), |n| n.to_string()),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    style::table(
        &["  MODEL", "ARCHITECTURE", "MEMORY", "CONTEXT"],
        rows,
        &[2, 3],
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_shown_by_sections() {
        let status = json!({
            "version": "0.1.0", "ready": true, "draining": false, "started_ms": 1_000,
            "state_dir": "/var/lib/nearfar", "listen": ["127.0.0.1:4141"],
            "requests": {"under_way": 1, "limit": 64},
            "parts": [
                {"role": "engine", "state": "up", "pid": 41},
                {"role": "egress", "state": {"down": {"restart_in_ms": 2000}}, "pid": null}
            ],
            "sandbox": [
                {"role": "engine", "seccomp": true, "landlock_abi": 6, "missing": []},
                {"role": "egress", "seccomp": true, "landlock_abi": null,
                 "missing": ["Landlock: use a newer kernel"]}
            ],
            "targets": [{"target": "local/concierge", "zone": "device", "health": "up",
                         "auto": true, "wait_ms": 0.0}],
            "providers": [{"name": "openai", "dialect": "openai", "zone": "cloud",
                           "ready": false, "models": []}],
            "engine": {"running": 1, "queued": 0, "wait_ms": 12.0, "models": [
                {"name": "concierge", "architecture": "qwen3", "memory_bytes": 8_388_608,
                 "context_tokens": 1024}]}
        });
        let expected = "\
nearfar 0.1.0 running for 1m30s
  state     /var/lib/nearfar
  listen    127.0.0.1:4141
  requests  1 under way of at most 64
  queue     1 running, 0 waiting, 12 ms to wait

processes
  PROCESS  STATE                 PID  SANDBOX
  engine   up                     41  seccomp, Landlock 6
  egress   down, again in 2.0 s    -  seccomp

targets
  TARGET           ZONE    HEALTH  AUTO  WAIT
  local/concierge  device  up      yes   0 ms

providers
  PROVIDER  DIALECT  ZONE   KEY      MODELS
  openai    openai   cloud  missing       0

in memory
  MODEL      ARCHITECTURE   MEMORY  CONTEXT
  concierge  qwen3         8.0 MiB     1024

missing from the sandbox
  egress: Landlock: use a newer kernel
";
        let shown = render(&status, 91_500, Style::PLAIN);
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn what_is_not_said_is_left_out() {
        let shown = render(&json!({"version": "9"}), 0, Style::PLAIN);
        assert_eq!(shown, "nearfar 9 running\n");
    }
}
