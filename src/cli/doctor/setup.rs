//! What people set up: the file, the state directory, keys, ports, the daemon.
#![allow(
    clippy::disallowed_methods,
    reason = "looks whether a port is free and which variables are set"
)]

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nearfar_egress::{KeySource, presets};
use serde_json::Value;

use super::Finding;
use crate::cli::client::{Client, block_on};
use crate::config::{Config, Overrides};

/// The configuration; every error of it is a finding.
pub(super) fn config(
    path: Option<&Path>,
    overrides: &Overrides,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    let text = match path {
        None => {
            findings.push(Finding::ok("config", "no file; the defaults hold"));
            String::new()
        }
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                findings.push(Finding::fail(
                    "config",
                    format!("{} cannot be read: {error}", path.display()),
                    "name a readable file with --config, or leave it out",
                ));
                return None;
            }
        },
    };
    match (Config::parse(&text, path, overrides), path) {
        (Ok(config), Some(path)) => {
            findings.push(Finding::ok(
                "config",
                format!("{} has no errors", path.display()),
            ));
            Some(config)
        }
        (Ok(config), None) => Some(config),
        (Err(errors), _) => {
            let file = errors.file.as_deref().unwrap_or("configuration");
            findings.extend(errors.errors.iter().map(|error| {
                let place = match error.line {
                    0 => error.key.clone(),
                    line => format!("{file}:{line}:{}", error.column),
                };
                Finding::fail(
                    "config",
                    format!("{place}: {}", error.what),
                    error.mend.clone(),
                )
            }));
            None
        }
    }
}

pub(super) fn state_dir(dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "state dir";
    let shown = dir.display();
    let meta = match std::fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![Finding::ok(
                CHECK,
                format!("{shown} will be made at the first start"),
            )];
        }
        Err(error) => {
            return vec![Finding::fail(
                CHECK,
                format!("{shown} cannot be looked at: {error}"),
                "run this as the user that runs nearfar, or name another with --state-dir",
            )];
        }
    };
    if !meta.is_dir() {
        return vec![Finding::fail(
            CHECK,
            format!("{shown} is not a directory"),
            "name another with --state-dir",
        )];
    }
    let user = rustix::process::geteuid();
    let mode = meta.mode() & 0o777;
    if meta.uid() != user.as_raw() && !user.is_root() {
        return vec![Finding::fail(
            CHECK,
            format!("{shown} belongs to another user"),
            "run nearfar as that user, or name another directory with --state-dir",
        )];
    }
    let mend = format!("chmod 700 {shown}");
    if mode & 0o022 != 0 {
        return vec![Finding::fail(
            CHECK,
            format!("{shown} can be changed by others (mode {mode:03o})"),
            mend,
        )];
    }
    if mode & 0o055 != 0 {
        return vec![Finding::warn(
            CHECK,
            format!("{shown} can be read by others (mode {mode:03o}): they see who asked when"),
            mend,
        )];
    }
    vec![Finding::ok(CHECK, format!("{shown} (mode {mode:03o})"))]
}

/// Where each configured provider's key lies, and who could read it.
pub(super) fn keys(config: &Config) -> Vec<Finding> {
    config
        .secrets()
        .map(|(name, key)| {
            let check = format!("key {name}");
            match key {
                KeySource::None => Finding::ok(&check, "none is configured"),
                KeySource::File(path) => key_file(&check, path),
                KeySource::Env(name) if std::env::var_os(name).is_some() => Finding::warn(
                    &check,
                    format!("comes from the environment variable {name}"),
                    "use key_file or key_credential: other programs of this user can read it there",
                ),
                KeySource::Env(name) => Finding::warn(
                    &check,
                    format!("the environment variable {name} is not set here"),
                    "set it where the daemon starts, or use key_file",
                ),
                KeySource::Credential(name) => credential(&check, name, config),
            }
        })
        .collect()
}

fn credential(check: &str, name: &str, config: &Config) -> Finding {
    let from_systemd = std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into);
    match config.credentials_dir.clone().or(from_systemd) {
        Some(dir) => key_file(check, &dir.join(name)),
        None => Finding::warn(
            check,
            format!("the credential {name} can be seen by the daemon's unit alone"),
            "outside systemd set credentials_dir, or use key_file",
        ),
    }
}

/// Looks at a key's file, never into it.
fn key_file(check: &str, path: &Path) -> Finding {
    let shown = path.display();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => {
            return Finding::fail(
                check,
                format!("{shown} cannot be looked at: {error}"),
                format!("write the key into it: umask 077; cat > {shown}"),
            );
        }
    };
    let mode = meta.mode() & 0o777;
    if !meta.is_file() || meta.len() == 0 {
        Finding::fail(
            check,
            format!("{shown} is empty or not a file"),
            format!("write the key into it: umask 077; cat > {shown}"),
        )
    } else if mode & 0o077 != 0 {
        Finding::fail(
            check,
            format!("{shown} can be read or changed by others (mode {mode:03o})"),
            format!("chmod 600 {shown}"),
        )
    } else {
        Finding::ok(check, format!("{shown} (mode {mode:03o})"))
    }
}

/// Keys that lie about in the environment.
pub(super) fn environment() -> Finding {
    let mut found: Vec<String> = presets()
        .into_iter()
        .filter_map(|preset| match preset.key {
            KeySource::Env(name) => std::env::var_os(&name).map(|_| name),
            _ => None,
        })
        .collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Finding::ok("environment", "no provider's key lies in it");
    }
    Finding::warn(
        "environment",
        format!("keys lie in {}", found.join(", ")),
        "fine for development; otherwise put each into a file of mode 600 and name it with key_file",
    )
}

/// Whether the addresses can be had. Only asked when no daemon runs.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    config
        .server
        .listen
        .iter()
        .map(|address| match TcpListener::bind(address) {
            Ok(_) => Finding::ok("port", format!("{address} is free")),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::fail(
                "port",
                format!("another program listens on {address}"),
                "stop it, or give nearfar another address with --listen",
            ),
            Err(error) => Finding::fail(
                "port",
                format!("{address} cannot be had: {error}"),
                "give nearfar another address with --listen",
            ),
        })
        .collect()
}

/// Whether a daemon runs, and what it says of itself.
pub(super) fn daemon(state_dir: &Path) -> (bool, Vec<Finding>) {
    let client = Client::control(state_dir);
    let status = match block_on(client.get("/admin/v1/status")) {
        Ok(status) => status,
        Err(failed) => {
            let running = !failed.what.contains("is not running");
            let mend = failed.mend.unwrap_or_else(|| "see its log".to_owned());
            let finding = match running {
                true => Finding::fail("daemon", failed.what, mend),
                false => Finding::warn("daemon", failed.what, mend),
            };
            return (running, vec![finding]);
        }
    };
    let mut findings = vec![Finding::ok("daemon", "it runs and answers")];
    for role in ["engine", "egress"] {
        if status[role]["state"] != "up" {
            findings.push(Finding::fail(
                "daemon",
                format!("its {role} is not up"),
                "it is started again by itself; if that lasts, see the log",
            ));
        }
    }
    if let Some(problem) = status["engine"]["model_problem"].as_str() {
        findings.push(Finding::fail(
            "daemon",
            format!("its model cannot be used: {problem}"),
            "see `nearfar model verify`, or set local.default_model to another",
        ));
    }
    let dropped = status["ledger"]["dropped_rows"].as_u64().unwrap_or(0);
    if dropped > 0 {
        findings.push(Finding::fail(
            "ledger",
            format!("{dropped} rows could not be written"),
            "make room on the disk, then restart nearfar",
        ));
    }
    if let Some(error) = status["shared_limits"]["error"].as_str() {
        findings.push(Finding::fail(
            "shared limits",
            format!("they are counted on this device alone: {error}"),
            "they are counted together once the server is back; see shared in the configuration",
        ));
    }
    if let Some(error) = status["fleet_ledger"]["error"].as_str() {
        let behind = status["fleet_ledger"]["behind_rows"].as_u64().unwrap_or(0);
        findings.push(Finding::fail(
            "fleet ledger",
            format!("it takes no rows, {behind} wait on this device: {error}"),
            "rows are sent once the server is back; see fleet_ledger in the configuration",
        ));
    }
    let reports = status["sandbox"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for report in reports {
        let role = report["role"].as_str().unwrap_or("part");
        let missing = report["missing"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        findings.extend(missing.iter().filter_map(Value::as_str).map(|missing| {
            Finding::warn(
                "sandbox",
                format!("{}: {missing}", role.to_lowercase()),
                "see what the kernel offers, above",
            )
        }));
    }
    (true, findings)
}
