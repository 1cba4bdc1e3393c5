//! The real client SDKs against a running daemon, with a local and with a
//! remote target. `scripts/test` installs the SDKs and names their Python.

use std::path::PathBuf;
use std::process::Command;

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Double;
use super::support::root;

fn python() -> Option<PathBuf> {
    let python = std::env::var_os("NEARFAR_TEST_PYTHON").map(PathBuf::from);
    if python.is_none() {
        println!("SKIPPED: no SDKs; scripts/test sets NEARFAR_TEST_PYTHON");
    }
    python
}

fn run(python: &PathBuf, daemon: &Daemon, model: &str, side: &str) {
    let output = Command::new(python)
        .arg(root().join("tests/sdk/openai_sdk.py"))
        .args([&daemon.url("/v1"), model, side])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim_end().ends_with(" passed"),
        "{side}: {said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_openai_sdk_with_the_device() {
    let Some(python) = python() else { return };
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    run(&python, &daemon, "local/concierge", "local");
}

#[test]
fn the_openai_sdk_with_a_provider() {
    let Some(python) = python() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start());
    double.require_key("sk-for-the-sdk");
    let daemon = Daemon::start(
        DaemonOptions::default()
            .env("OPENAI_API_KEY", "sk-for-the-sdk")
            .env("OPENAI_BASE_URL", &double.openai_base()),
    );
    daemon.wait_ready();
    run(&python, &daemon, "openai/gpt-4o-mini", "remote");
    let asked = double.requests();
    assert!(asked.len() >= 9, "the answers came from the double");
    assert!(!daemon.log().contains("sk-for-the-sdk"));
}
