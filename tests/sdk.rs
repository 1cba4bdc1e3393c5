//! The real client SDKs, unchanged, against a running daemon, with every kind
//! of target. `scripts/test` installs the SDKs and says where they are;
//! `scripts/matrix` makes docs/matrix.md of what the scripts print.
//!
//! A new SDK is a script in tests/sdk and a row in [`SDKS`]; a new kind of
//! target is one more test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Double;
use super::support::root;

/// A client SDK.
struct Sdk {
    /// In the matrix: the front's endpoint and the package.
    name: &'static str,
    /// In tests/sdk; what runs it follows from its ending.
    script: &'static str,
    /// What of the daemon's URL the SDK wants to be given.
    base: &'static str,
}

const SDKS: [Sdk; 6] = [
    Sdk {
        name: "`/v1/chat/completions`, openai (Python)",
        script: "openai_sdk.py",
        base: "/v1",
    },
    Sdk {
        name: "`/v1/chat/completions`, langchain-openai",
        script: "langchain_sdk.py",
        base: "/v1",
    },
    Sdk {
        name: "`/v1/chat/completions`, Vercel AI SDK (Node)",
        script: "vercel/vercel_sdk.mjs",
        base: "/v1",
    },
    Sdk {
        name: "`/v1/messages`, anthropic (Python)",
        script: "anthropic_sdk.py",
        base: "",
    },
    Sdk {
        name: "`/v1/responses`, openai (Python)",
        script: "responses_sdk.py",
        base: "/v1",
    },
    Sdk {
        name: "`/api/…`, ollama (Python)",
        script: "ollama_sdk.py",
        base: "",
    },
];

/// Where `scripts/test` put something; `None` says that it is skipped.
fn installed(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        println!("SKIPPED: no SDKs; scripts/test sets {variable}");
    }
    path
}

fn command(sdk: &Sdk, side: &str) -> Option<Command> {
    let script = root().join("tests/sdk").join(sdk.script);
    if sdk.script.ends_with(".py") {
        let mut command = Command::new(installed("NEARFAR_TEST_PYTHON")?);
        command.arg(script);
        return Some(command);
    }
    // Node looks for packages from where the script lies.
    let modules = installed("NEARFAR_TEST_NODE")?;
    let copy = modules.join(format!("{side}.mjs"));
    std::fs::copy(script, &copy).unwrap();
    let mut command = Command::new("node");
    command.arg(copy);
    Some(command)
}

/// Runs all SDKs against one target, each with a daemon of its own, so that the
/// errors that one asks for do not shut the target for the next. Fails with
/// what they said.
fn run(start: impl Fn() -> Daemon, target: &str, model: &str, side: &str) {
    let mut wrong = Vec::new();
    for sdk in &SDKS {
        let Some(mut command) = command(sdk, side) else {
            continue;
        };
        let daemon = start();
        daemon.wait_ready();
        let output = command
            .args([&daemon.url(sdk.base), model, side])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        record(sdk, target, &said);
        if !output.status.success() || !said.trim_end().ends_with(" passed") {
            let errors = String::from_utf8_lossy(&output.stderr);
            wrong.push(format!("{} with {side}: {said}\n{errors}", sdk.script));
        }
        assert!(!daemon.log().contains(KEY));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Adds the outcome of each check to the matrix's source, where one is wanted.
fn record(sdk: &Sdk, target: &str, said: &str) {
    let Some(path) = std::env::var_os("NEARFAR_MATRIX") else {
        return;
    };
    let mut lines = String::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [outcome @ ("ok" | "refused" | "n/a" | "FAILED"), feature, ..] = words[..] {
            lines.push_str(&format!("{}\t{target}\t{feature}\t{outcome}\n", sdk.name));
        }
    }
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(Path::new(&path));
    file.unwrap().write_all(lines.as_bytes()).unwrap();
}

/// What the double wants to see, and no log.
const KEY: &str = "sk-for-the-sdk";

/// A daemon that knows one provider, which is the double.
fn with_provider(name: &str, base: impl Fn(&Double) -> String, model: &str, target: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(Double::start());
    let upper = name.to_uppercase();
    double.require_key(KEY);
    let start = || {
        // Errors are asked for on purpose: trying each again would open the breaker.
        let options = DaemonOptions::default()
            .config("[limits]\nretries = 0\n")
            .env(&format!("{upper}_API_KEY"), KEY)
            .env(&format!("{upper}_BASE_URL"), &base(&double));
        Daemon::start(options)
    };
    run(start, target, model, name);
    let asked = double.requests();
    if std::env::var_os("NEARFAR_TEST_PYTHON").is_some() {
        assert!(asked.len() >= 20, "the answers came from the double");
        // Whoever was cancelled by its client was cancelled at the provider.
        runtime.block_on(double.wait_until("a client that went", |double| {
            double.requests().iter().any(|seen| seen.closed_early)
        }));
    }
}

#[test]
fn the_sdks_with_the_device() {
    let start = || Daemon::start(DaemonOptions::default());
    run(start, "local (concierge)", "local/concierge", "local");
}

#[test]
fn the_sdks_with_openais_dialect() {
    with_provider(
        "openai",
        Double::openai_base,
        "openai/gpt-4o-mini",
        "OpenAI-wire",
    );
}

#[test]
fn the_sdks_with_anthropics_dialect() {
    with_provider(
        "anthropic",
        Double::anthropic_base,
        "anthropic/claude-sonnet-4-5",
        "Anthropic-wire",
    );
}

#[test]
fn the_sdks_with_geminis_dialect() {
    with_provider(
        "gemini",
        Double::gemini_base,
        "gemini/gemini-3-pro-preview",
        "Gemini-wire",
    );
}
