//! `nearfar model load | unload | ps`: models in the engine's memory. The
//! daemon's engine holds them, so it must be running.

use serde_json::{Value, json};

use super::meter::Meter;
use super::show::{print_json, size};
use crate::cli::client::{Client, block_on, error_of};
use crate::cli::failed::Failed;
use crate::cli::style;

pub(super) fn load(state_dir: &std::path::Path, name: &str, json: bool) -> Result<(), Failed> {
    let mut meter = Meter::new(json, &format!("loading {name}"));
    let path = format!("/admin/v1/models/{name}/load");
    let result = block_on(async {
        let client = Client::control(state_dir);
        let mut reply = client
            .open(hyper::Method::POST, &path, &[], Some(&json!({})))
            .await?;
        while let Some(line) = reply.next_line().await? {
            if let Some(failed) = error_of(&line) {
                return Err(failed);
            }
            let number = |field: &str| line[field].as_u64().unwrap_or(0);
            match line["event"].as_str() {
                Some("progress") => meter.at(number("have"), Some(number("total"))),
                Some("loaded") => return Ok(line["model"].clone()),
                _ => {
                    let message = line["message"].as_str().unwrap_or("it was not loaded");
                    return Err(Failed::new(style::safe(message)));
                }
            }
        }
        Err(Failed::new("The daemon ended the load without a word.").mend("See its log."))
    });
    meter.end();
    let model = result?;
    if json {
        return print_json(&model);
    }
    let bytes = model["memory_bytes"].as_u64().unwrap_or(0);
    let took = model["load_ms"].as_f64().unwrap_or(0.0);
    let text = format!(
        "{name} is in memory ({}, loaded in {took:.0} ms)\n",
        size(bytes)
    );
    Ok(style::print(&text)?)
}

pub(super) fn unload(state_dir: &std::path::Path, name: &str, json: bool) -> Result<(), Failed> {
    let path = format!("/admin/v1/models/{name}/unload");
    let answer = block_on(async { Client::control(state_dir).post(&path, &json!({})).await })?;
    if json {
        return print_json(&answer);
    }
    let text = match answer["in_memory"].as_bool() {
        Some(false) => format!("{name} was not in memory\n"),
        _ => format!("{name} leaves memory as soon as no request uses it\n"),
    };
    Ok(style::print(&text)?)
}

pub(super) fn ps(state_dir: &std::path::Path, json: bool) -> Result<(), Failed> {
    let answer = block_on(async {
        Client::control(state_dir)
            .get("/admin/v1/models/memory")
            .await
    })?;
    if json {
        return print_json(&answer);
    }
    let text = |value: &Value| style::safe(value.as_str().unwrap_or_default());
    let bytes = |value: &Value| value.as_u64().unwrap_or(0);
    let models = answer["models"].as_array().cloned().unwrap_or_default();
    let taken: u64 = models
        .iter()
        .map(|model| bytes(&model["memory_bytes"]))
        .sum();
    let mut rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            vec![
                text(&model["name"]),
                text(&model["architecture"]),
                size(bytes(&model["memory_bytes"])),
                bytes(&model["context_tokens"]).to_string(),
                "ready".to_owned(),
            ]
        })
        .collect();
    if let Some(loading) = answer["loading"].as_object() {
        let (done, total) = (
            bytes(&loading["read_bytes"]),
            bytes(&loading["total_bytes"]),
        );
        rows.push(vec![
            text(&loading["name"]),
            String::new(),
            size(total),
            String::new(),
            format!("loading, {} %", done.saturating_mul(100) / total.max(1)),
        ]);
    }
    let heading = ["NAME", "KIND", "MEMORY", "CONTEXT", "STATE"];
    style::print(&style::table(&heading, rows, &[2, 3]))?;
    style::note(&format!(
        "Models take {} of the {} that they may take together (local.memory_budget).",
        size(taken),
        size(bytes(&answer["memory_budget"])),
    ));
    Ok(())
}
