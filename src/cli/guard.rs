//! `nearfar guard check`: tries the guard on a text. Needs no daemon, and sends
//! nothing anywhere.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use nearfar_domain::guard::{Finding, Kind, Kinds, findings};
use nearfar_domain::redact::Vault;
use serde_json::json;

use super::failed::Failed;
use super::style;
use crate::config::guard::Guard as Settings;
use crate::config::{Config, Overrides, paths};
use crate::guard::draw_nonce;

/// A longer text is not read.
const MAX_BYTES: u64 = 64 << 20;
/// Found texts are cut to this many characters in the table.
const MAX_SHOWN: usize = 48;

/// `guard …`.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Show the identifiers in a text, what is done about them, and the text redacted
    #[command(after_help = "Examples:\n  \
        echo 'Write to ana@example.org' | nearfar guard check\n  \
        nearfar guard check letter.txt --kinds card,iban,email\n  \
        nearfar guard check prompt.txt --json | jq .findings\n\n\
        Names and street addresses are not recognised. Nothing is sent anywhere.\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Check {
        /// The text; `-` reads standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Only these kinds: card, iban, email, phone, ssn, national_id, ip, mac, url,
        /// coordinates, secret
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        kinds: Vec<String>,
        /// Configuration whose [guard] says what is done [default: see `nearfar config path`]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: GuardCommand, state_dir: Option<PathBuf>) -> Result<(), Failed> {
    let GuardCommand::Check {
        file,
        kinds,
        config,
        json,
    } = command;
    let kinds = wanted(&kinds)?;
    let settings = settings(config, state_dir)?;
    let text = read(&file)?;
    let found = findings(&text, kinds);
    let mut vault = Vault::new(kinds, draw_nonce());
    let redacted = vault.redact(&text).unwrap_or_else(|| text.clone());
    let out = if json {
        let list: Vec<_> = found
            .iter()
            .map(|finding| entry(&text, finding, &settings))
            .collect();
        format!("{}\n", json!({"findings": list, "redacted": redacted}))
    } else {
        table(&text, &found, &settings, &redacted)
    };
    Ok(style::print(&out)?)
}

fn wanted(names: &[String]) -> Result<Kinds, Failed> {
    if names.is_empty() {
        return Ok(Kinds::ALL);
    }
    let parse = |name: &String| {
        Kind::parse(name.trim()).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::as_str).join(", ");
            Failed::usage(format!(
                "There is no kind of this name. The kinds are {known}."
            ))
        })
    };
    names.iter().map(parse).collect()
}

/// The guard's settings of the configuration, where there is one.
fn settings(config: Option<PathBuf>, state_dir: Option<PathBuf>) -> Result<Settings, Failed> {
    let said = config.is_some();
    let Some(path) = config.or_else(paths::found_config) else {
        return Ok(Settings::default());
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if !said && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let path = path.display();
            return Err(Failed::new(format!("{path} cannot be read: {error}.")));
        }
    };
    let overrides = Overrides {
        state_dir: state_dir.unwrap_or_default(),
        ..Overrides::default()
    };
    let parsed = Config::parse(&text, Some(&path), &overrides);
    let errors = parsed.map(|config| config.guard);
    errors.map_err(|errors| Failed::new(errors.to_string().trim_end().to_owned()))
}

fn read(file: &Path) -> Result<String, Failed> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    let name = if file == Path::new("-") {
        "Standard input".to_owned()
    } else {
        file.display().to_string()
    };
    read.map_err(|error| Failed::new(format!("{name} cannot be read: {error}.")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failed::new(format!(
            "{name} is longer than {} MiB.",
            MAX_BYTES >> 20
        )));
    }
    let not_text = |_| Failed::new(format!("{name} is not UTF-8 text.")).mend("Save it as UTF-8.");
    String::from_utf8(bytes).map_err(not_text)
}

/// Line and column, counted from 1 in characters.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}

fn action(kind: Kind, settings: &Settings) -> &'static str {
    settings
        .actions
        .get(&kind)
        .map_or("off", |action| action.as_str())
}

fn entry(text: &str, finding: &Finding, settings: &Settings) -> serde_json::Value {
    let (line, column) = place(text, finding.start);
    json!({
        "kind": finding.kind.as_str(),
        "score": finding.score,
        "line": line,
        "column": column,
        "start": finding.start,
        "end": finding.end,
        "text": &text[finding.start..finding.end],
        "action": action(finding.kind, settings),
    })
}

fn table(text: &str, found: &[Finding], settings: &Settings, redacted: &str) -> String {
    if found.is_empty() {
        return "nothing found\n".to_owned();
    }
    let rows = found.iter().map(|finding| {
        let (line, column) = place(text, finding.start);
        let said = &text[finding.start..finding.end];
        let shown: String = said.chars().take(MAX_SHOWN).collect();
        let cut = if shown.len() < said.len() { "…" } else { "" };
        vec![
            format!("{line}:{column}"),
            finding.kind.as_str().to_owned(),
            finding.score.to_string(),
            action(finding.kind, settings).to_owned(),
            format!("{shown}{cut}"),
        ]
    });
    let heading = ["place", "kind", "score", "action", "text"];
    let table = style::table(&heading, rows.collect(), &[2]);
    let preview = style::harmless(redacted);
    format!("{table}\nredacted:\n{}\n", preview.trim_end())
}
