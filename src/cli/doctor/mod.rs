//! `nearfar doctor`: what is missing or unsafe here, and the mend. Looks, and
//! changes nothing; works with and without a running daemon.

mod access;
mod machine;
mod money;
mod setup;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use super::args::Doctor;
use super::failed::Failed;
use super::style::{self, Style};
use crate::config::{Config, Overrides, paths};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not as well or as safely as it could.
    Warn,
    /// Does not work, or is unsafe.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, in one word or two.
    pub check: String,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &str, what: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            check: check.to_owned(),
            what: what.into(),
            mend: None,
        }
    }

    fn warn(check: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            mend: Some(mend.into()),
            ..Self::ok(check, what)
        }
    }

    fn fail(check: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, what, mend)
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// Something fails; it was told then.
pub fn run(args: &Doctor, state_dir: Option<PathBuf>) -> Result<(), Failed> {
    let findings = examine(args.config.clone(), state_dir);
    let failing = findings.iter().any(|finding| finding.level == Level::Fail);
    let text = if args.json {
        format!("{}\n", json!({"ok": !failing, "findings": findings}))
    } else {
        render(&findings, Style::stdout())
    };
    style::print(&text)?;
    if failing {
        Err(Failed::silent())
    } else {
        Ok(())
    }
}

fn examine(config: Option<PathBuf>, state_dir: Option<PathBuf>) -> Vec<Finding> {
    let path = config.or_else(paths::found_config);
    let overrides = Overrides {
        state_dir: state_dir.clone().unwrap_or_default(),
        ..Overrides::default()
    };
    let mut findings = Vec::new();
    let config = setup::config(path.as_deref(), &overrides, &mut findings);
    // With a broken file, look at what the defaults would use.
    let config = config.or_else(|| Config::parse("", None, &overrides).ok());
    findings.extend(machine::kernel());
    findings.push(machine::clock());
    findings.push(machine::cpu());
    if let Some(config) = &config {
        findings.extend(setup::state_dir(&config.state_dir));
        findings.push(machine::disk(&config.state_dir));
        findings.extend(machine::memory(&config.state_dir));
        findings.extend(setup::keys(config));
        findings.extend(access::keys(config));
        findings.extend(money::prices(config));
        findings.push(setup::environment());
        let (running, daemon) = setup::daemon(&config.state_dir);
        findings.extend(daemon);
        if !running {
            findings.extend(setup::ports(config));
        }
    }
    findings
}

/// Findings for people, the worst last, where the eye is.
pub fn render(findings: &[Finding], style: Style) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.level);
    let width = findings
        .iter()
        .map(|finding| finding.check.chars().count())
        .max()
        .unwrap_or(0);
    let mut shown = String::new();
    for finding in sorted {
        let level = match finding.level {
            Level::Ok => style.green("ok  "),
            Level::Warn => style.yellow("warn"),
            Level::Fail => style.red("FAIL"),
        };
        shown.push_str(&format!(
            "{level}  {:<width$}  {}\n",
            finding.check,
            style::safe(&finding.what)
        ));
        if let Some(mend) = &finding.mend {
            let indent = " ".repeat(width + 8);
            shown.push_str(&format!("{indent}{}\n", style.dim(&style::safe(mend))));
        }
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    shown.push_str(&format!(
        "\n{} ok, {} warnings, {} failing\n",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    ));
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn levels(findings: &[Finding], check: &str) -> Vec<Level> {
        findings
            .iter()
            .filter(|finding| finding.check == check)
            .map(|finding| finding.level)
            .collect()
    }

    #[test]
    fn open_keys_a_broken_file_and_an_open_state_directory_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "sk-secret-secret").unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        let file = dir.path().join("nearfar.toml");
        std::fs::write(&file, "[providers.openai]\nkey_file = \"key\"\n").unwrap();
        let findings = examine(Some(file.clone()), Some(state.clone()));
        assert_eq!(levels(&findings, "config"), [Level::Ok]);
        assert_eq!(levels(&findings, "state dir"), [Level::Fail]);
        assert_eq!(levels(&findings, "key openai"), [Level::Fail]);
        assert_eq!(levels(&findings, "daemon"), [Level::Warn]);
        let shown = render(&findings, Style::PLAIN);
        assert!(!shown.contains("sk-secret"), "{shown}");
        assert!(shown.contains("chmod 600"), "{shown}");

        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let findings = examine(Some(file.clone()), Some(state.clone()));
        assert_eq!(levels(&findings, "state dir"), [Level::Ok]);
        assert_eq!(levels(&findings, "key openai"), [Level::Ok]);

        std::fs::write(&file, "[servr]\n[lokal]\n").unwrap();
        let findings = examine(Some(file), Some(state));
        assert_eq!(levels(&findings, "config"), [Level::Fail, Level::Fail]);
    }

    #[test]
    fn a_port_in_use_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let file = dir.path().join("nearfar.toml");
        std::fs::write(&file, format!("[server]\nlisten = [\"{address}\"]\n")).unwrap();
        let look = || {
            levels(
                &examine(Some(file.clone()), Some(dir.path().to_owned())),
                "port",
            )
        };
        assert_eq!(look(), [Level::Fail]);
        drop(taken);
        assert_eq!(look(), [Level::Ok]);
    }
}
