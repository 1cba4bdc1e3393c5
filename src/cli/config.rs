//! `nearfar config check|example|path|fleet-ledger-sql`.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::ConfigCommand;
use super::failed::Failed;
use super::style;
use crate::config::{Config, ConfigErrors, EXAMPLE, Overrides, paths};

pub(super) fn run(command: ConfigCommand, state_dir: Option<PathBuf>) -> Result<(), Failed> {
    match command {
        ConfigCommand::Check { file, json } => check(file, json, state_dir),
        ConfigCommand::Example => Ok(style::print(EXAMPLE)?),
        ConfigCommand::FleetLedgerSql => Ok(style::print(nearfar_egress::LEDGER_SQL)?),
        ConfigCommand::Path { json } => path(json, state_dir),
    }
}

fn check(file: Option<PathBuf>, json: bool, state_dir: Option<PathBuf>) -> Result<(), Failed> {
    let path = file.unwrap_or_else(paths::default_config_path);
    let text = read(&path)?;
    let overrides = Overrides {
        state_dir: state_dir.unwrap_or_default(),
        ..Overrides::default()
    };
    let from = (path != Path::new("-")).then_some(path.as_path());
    match Config::parse(&text, from, &overrides) {
        Ok(config) => {
            let text = if json {
                format!("{}\n", json!({"ok": true, "file": from, "errors": []}))
            } else {
                summary(&path, &config)
            };
            Ok(style::print(&text)?)
        }
        Err(errors) => {
            report(&errors, json)?;
            Err(Failed::silent())
        }
    }
}

fn report(errors: &ConfigErrors, json: bool) -> std::io::Result<()> {
    if json {
        let list = json!({"ok": false, "file": errors.file, "errors": errors.errors});
        return style::print(&format!("{list}\n"));
    }
    style::note(errors.to_string().trim_end());
    style::note(&format!(
        "\n{}",
        match errors.errors.len() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        }
    ));
    Ok(())
}

fn read(path: &Path) -> Result<String, Failed> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .take(2 << 20)
            .read_to_end(&mut bytes)
            .map_err(|error| Failed::new(format!("Standard input cannot be read: {error}.")))?;
        bytes
    } else {
        std::fs::read(path).map_err(|error| {
            Failed::new(format!("{} cannot be read: {error}.", path.display())).mend(
                "Name a file, or write one: nearfar config example > nearfar.toml. nearfar also \
                 runs without.",
            )
        })?
    };
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Failed::new(format!(
            "{}:{line}: the file is not UTF-8 text.",
            path.display()
        ))
        .mend("Save it as UTF-8.")
    })
}

fn summary(path: &Path, config: &Config) -> String {
    let mut text = format!("{}: no errors\n", path.display());
    let listen: Vec<String> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("  {name:<10} {}\n", style::safe(&value)));
    };
    line(
        "listen",
        if listen.is_empty() {
            "unix socket alone".to_owned()
        } else {
            listen.join(", ")
        },
    );
    line("state", config.state_dir.display().to_string());
    line("ceiling", config.privacy.default.to_string());
    for provider in &config.providers {
        line(
            "provider",
            format!(
                "{} ({}, {}, {} models), key: {}",
                provider.name,
                provider.dialect.as_str(),
                nearfar_domain::privacy::Zone::from(provider.zone),
                provider.models.len(),
                provider.key.describe()
            ),
        );
    }
    text
}

fn path(json: bool, state_dir: Option<PathBuf>) -> Result<(), Failed> {
    let file = paths::default_config_path();
    let exists = file.exists();
    let state_dir = state_dir.unwrap_or_else(paths::default_state_dir);
    let text = if json {
        format!(
            "{}\n",
            json!({"config": file, "exists": exists, "state_dir": state_dir})
        )
    } else {
        format!(
            "configuration  {}{}\nstate          {}\n",
            file.display(),
            if exists {
                ""
            } else {
                "  (not there; the defaults hold)"
            },
            state_dir.display()
        )
    };
    Ok(style::print(&text)?)
}
