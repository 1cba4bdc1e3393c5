//! `nearfar status`: what the daemon is doing.

use std::path::Path;
use std::time::Duration;

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
        render(&status, Style::stdout())
    };
    Ok(style::print(&text)?)
}

/// The status for people. What the daemon does not say is left out, so that a
/// newer or older one can be read too.
pub fn render(status: &Value, style: Style) -> String {
    let mut shown = head(status, style);
    let sections = [
        ("processes", parts(status, style)),
        ("targets", targets(status)),
        ("providers", providers(&status["egress"])),
        ("in memory", loaded(status)),
        ("drafts", drafts(status)),
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

fn head(status: &Value, style: Style) -> String {
    let state = if status["gate"]["state"] == "draining" {
        style.yellow("stopping")
    } else if status["ready"] == false {
        style.yellow("not ready")
    } else {
        style.green("running")
    };
    let mut line = format!("nearfar {} {state}", style::safe(&text(&status["version"])));
    if let Some(up) = status["uptime_ms"].as_u64() {
        let up = Duration::from_secs(up / 1_000);
        line.push_str(&format!(" for {}", units::show_duration(up)));
    }
    line.push('\n');
    let listen: Vec<String> = list(status, "listen").iter().map(text).collect();
    for (name, value) in [
        ("state", text(&status["state_dir"])),
        ("config", text(&status["config_path"])),
        ("listen", listen.join(", ")),
        ("requests", requests(&status["requests"])),
        ("queue", queue(&status["engine"])),
        ("ledger", ledger(&status["ledger"])),
        ("fleet", fleet_ledger(&status["fleet_ledger"])),
        ("shared", sharing(&status["shared_limits"])),
        ("model", model(&status["engine"])),
    ] {
        if !value.is_empty() {
            line.push_str(&format!("  {name:<9} {}\n", style::safe(&value)));
        }
    }
    line
}

fn requests(requests: &Value) -> String {
    match (requests["under_way"].as_u64(), requests["limit"].as_u64()) {
        (Some(now), Some(limit)) => format!("{now} under way of at most {limit}"),
        _ => String::new(),
    }
}

fn queue(engine: &Value) -> String {
    match (engine["running"].as_u64(), engine["queued"].as_u64()) {
        (Some(running), Some(queued)) => format!("{running} running, {queued} waiting"),
        _ => String::new(),
    }
}

/// Only what is wrong with it.
fn ledger(ledger: &Value) -> String {
    match ledger["dropped_rows"].as_u64() {
        None | Some(0) => String::new(),
        Some(dropped) => format!("{dropped} rows could not be written; is the disk full?"),
    }
}

/// How limits are counted.
fn sharing(sharing: &Value) -> String {
    match (sharing["up"].as_bool(), sharing["error"].as_str()) {
        (None, _) => String::new(),
        (Some(true), _) => "limits are counted together".to_owned(),
        (_, error) => format!(
            "limits are counted on this device alone: {}",
            error.unwrap_or("the server was not asked yet")
        ),
    }
}

/// How the sending to the fleet's ledger goes.
fn fleet_ledger(fleet: &Value) -> String {
    let Some(behind) = fleet["behind_rows"].as_u64() else {
        return String::new();
    };
    match (fleet["error"].as_str(), behind) {
        (Some(error), _) => format!("ledger {behind} rows behind: {error}"),
        (None, 0) => "ledger has every row".to_owned(),
        (None, _) => format!("ledger {behind} rows behind"),
    }
}

/// The model that `auto` uses here.
fn model(engine: &Value) -> String {
    let name = text(&engine["model"]);
    match engine["model_problem"].as_str() {
        Some(problem) => format!("{name}: {problem}"),
        None if name.is_empty() => String::new(),
        None if engine["model_ready"] == true => name,
        None => format!("{name}, being loaded"),
    }
}

fn parts(status: &Value, style: Style) -> String {
    let rows: Vec<Vec<String>> = ["gate", "engine", "egress"]
        .iter()
        .filter(|role| status[**role].is_object())
        .map(|role| {
            let part = &status[*role];
            let report = list(status, "sandbox")
                .iter()
                .find(|report| text(&report["role"]).eq_ignore_ascii_case(role));
            vec![
                format!("  {role}"),
                state_words(part),
                part["pid"]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                report.map_or_else(|| "-".to_owned(), sandbox_words),
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
fn state_words(part: &Value) -> String {
    let state = text(&part["state"]);
    match part["restart_in_ms"].as_f64() {
        Some(wait) => format!("{state}, again in {}", ms(wait)),
        None => state,
    }
}

fn sandbox_words(report: &Value) -> String {
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

fn providers(egress: &Value) -> String {
    let rows: Vec<Vec<String>> = list(egress, "providers")
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

/// Models with a draft, where there are any.
fn drafts(status: &Value) -> String {
    let rows: Vec<Vec<String>> = list(&status["engine"], "drafts")
        .iter()
        .map(|entry| {
            let draft = &entry["draft"];
            let gain = draft["gain"].as_f64();
            vec![
                format!("  {}", text(&entry["model"])),
                text(&draft["name"]),
                draft["acceptance"]
                    .as_f64()
                    .map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0)),
                draft["proposed_tokens"]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), |n| n.to_string()),
                match gain {
                    Some(gain) if gain > 1.0 => format!("{gain:.2} times as fast"),
                    Some(_) => "does not pay, rests".to_owned(),
                    None => "not measured yet".to_owned(),
                },
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    style::table(
        &["  MODEL", "DRAFT", "ACCEPTED", "PROPOSED", "SPEED"],
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
            "version": "0.1.0", "ready": true, "started_ms": 1_000, "uptime_ms": 90_500,
            "state_dir": "/var/lib/nearfar", "config_path": null,
            "listen": ["127.0.0.1:4141"], "requests": {"under_way": 1, "limit": 64},
            "ledger": {"path": "/var/lib/nearfar/ledger.sqlite", "dropped_rows": 2},
            "gate": {"state": "up", "pid": 40},
            "engine": {"state": "up", "pid": 41, "model": "concierge", "model_ready": true,
                "model_problem": null, "running": 1, "queued": 0, "models": [
                {"name": "concierge", "architecture": "qwen3", "memory_bytes": 8_388_608,
                 "context_tokens": 1024}], "drafts": [
                {"model": "big", "draft": {"name": "small", "acceptance": 0.81, "gain": 1.42,
                 "proposed_tokens": 900, "accepted_tokens": 729}},
                {"model": "other", "draft": {"name": "small", "acceptance": null, "gain": 1.0,
                 "proposed_tokens": 0, "accepted_tokens": 0}}]},
            "egress": {"state": "down", "restart_in_ms": 2000, "pid": null, "providers": [
                {"name": "openai", "dialect": "openai", "zone": "cloud", "ready": false,
                 "models": 9, "open_list": true}]},
            "sandbox": [
                {"role": "engine", "seccomp": true, "landlock_abi": 6, "missing": []},
                {"role": "egress", "seccomp": true, "landlock_abi": null,
                 "missing": ["Landlock: use a newer kernel"]}
            ],
            "targets": [{"target": "local/concierge", "zone": "device", "health": "up",
                         "auto": true, "wait_ms": 0.0}],
        });
        let expected = "\
nearfar 0.1.0 running for 1m30s
  state     /var/lib/nearfar
  listen    127.0.0.1:4141
  requests  1 under way of at most 64
  queue     1 running, 0 waiting
  ledger    2 rows could not be written; is the disk full?
  model     concierge

processes
  PROCESS  STATE                 PID  SANDBOX
  gate     up                     40  -
  engine   up                     41  seccomp, Landlock 6
  egress   down, again in 2.0 s    -  seccomp

targets
  TARGET           ZONE    HEALTH  AUTO  WAIT
  local/concierge  device  up      yes   0 ms

providers
  PROVIDER  DIALECT  ZONE   KEY      MODELS
  openai    openai   cloud  missing       9

in memory
  MODEL      ARCHITECTURE   MEMORY  CONTEXT
  concierge  qwen3         8.0 MiB     1024

drafts
  MODEL  DRAFT  ACCEPTED  PROPOSED  SPEED
  big    small      81 %       900  1.42 times as fast
  other  small         -         0  does not pay, rests

missing from the sandbox
  egress: Landlock: use a newer kernel
";
        let shown = render(&status, Style::PLAIN);
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn what_is_not_said_is_left_out() {
        let shown = render(&json!({"version": "9"}), Style::PLAIN);
        assert_eq!(shown, "nearfar 9 running\n");
    }
}
