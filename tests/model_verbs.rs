//! `nearfar model …`, the real binary on real files: with and without a daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::root;

/// The model that ships with nearfar, as a file to be added under other names.
fn weights() -> Vec<u8> {
    std::fs::read(root().join("models/concierge/concierge.gguf")).unwrap()
}

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Home { dir }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self, args: &[&str]) -> Output {
        model(&self.state(), self.dir.path(), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.model(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let models = self.json(&["list"]);
        let models = models.as_array().unwrap().iter();
        models
            .map(|m| m["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn model(state: &Path, home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nearfar"))
        .arg("model")
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_model_is_added_listed_shown_verified_and_removed() {
    let home = Home::new();
    let bytes = weights();
    let file = home.file("front desk.gguf", &bytes);
    let file = file.to_str().unwrap();
    assert_eq!(home.names(), ["concierge"]);
    let output = home.model(&["add", file]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("local/front-desk"));
    // Not a terminal: progress in plain lines, no control characters.
    assert!(!said(&output).contains('\u{1b}') && !said(&output).contains('\r'));
    assert_eq!(home.names(), ["concierge", "front-desk"]);
    let shown = home.json(&["show", "front-desk"]);
    assert_eq!(shown["sha256"], hex(&bytes));
    assert_eq!(shown["architecture"], "qwen3");
    assert_eq!(shown["tools"], true);
    assert!(home.model(&["show", "concierge"]).status.success());
    assert!(home.model(&["verify"]).status.success());

    let blob = PathBuf::from(shown["file"].as_str().unwrap());
    let mut rotten = bytes.clone();
    *rotten.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, &rotten).unwrap();
    let output = home.model(&["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("BROKEN"), "{}", said(&output));
    let findings: Value =
        serde_json::from_slice(&home.model(&["verify", "--json"]).stdout).unwrap();
    assert_eq!(findings[0]["verdict"], "changed");

    assert!(home.model(&["rm", "front-desk"]).status.success());
    assert_eq!(home.names(), ["concierge"]);
    assert!(!blob.exists());
    let output = home.model(&["rm", "front-desk"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nearfar model list"));
}

#[test]
fn what_cannot_be_added_is_refused_with_the_mend() {
    let home = Home::new();
    let junk = home.file("junk.gguf", b"GGUF but not really");
    let good = home.file("good.gguf", &weights());
    let (junk, good) = (junk.to_str().unwrap(), good.to_str().unwrap());
    let wrong = "0".repeat(64);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["add", junk], 1, "cannot be used"),
        (&["add", "/nonexistent/x.gguf"], 1, "/nonexistent/x.gguf"),
        (&["add", good, "--name", "../x"], 2, "--name"),
        (&["add", good, "--name", "concierge"], 1, "--name"),
        (&["add", good, "--sha256", &wrong], 1, "SHA-256"),
        (&["add", "hf:o/r/x.gguf"], 1, "nearfar serve"),
        (&["add", "ollama:absent"], 1, "OLLAMA_MODELS"),
        (&["add", "lfm2-1.2b"], 1, "cannot run"),
    ];
    for (args, code, mend) in cases {
        let output = home.model(args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            said(&output)
        );
        assert!(said(&output).contains(mend), "{args:?}: {}", said(&output));
    }
    assert_eq!(home.names(), ["concierge"]);
    let incoming = home.state().join("models/incoming");
    assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
}

#[test]
fn other_programs_files_are_used_without_a_copy() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let bytes = weights();
    let digest = hex(&bytes);
    let blob = home.file(&format!(".ollama/models/blobs/sha256-{digest}"), &bytes);
    let manifest = format!(
        r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}"}}]}}"#
    );
    home.file(
        ".ollama/models/manifests/registry.ollama.ai/library/desk/latest",
        manifest.as_bytes(),
    );
    let added = home.json(&["add", "ollama:desk"]);
    assert_eq!(
        (&added["name"], &added["adopted"]),
        (&"desk".into(), &true.into())
    );
    let ours = std::fs::metadata(added["file"].as_str().unwrap()).unwrap();
    assert_eq!(ours.ino(), std::fs::metadata(&blob).unwrap().ino());

    let repo = ".cache/huggingface/hub/models--o--r";
    home.file(&format!("{repo}/refs/main"), b"abc");
    home.file(&format!("{repo}/snapshots/abc/Desk.gguf"), &bytes);
    let added = home.json(&["add", "hf:o/r/Desk.gguf", "--name", "other"]);
    assert_eq!(
        (&added["name"], &added["adopted"]),
        (&"other".into(), &true.into())
    );
    assert_eq!(home.names(), ["concierge", "desk", "other"]);
}

#[test]
fn the_catalogue_lists_what_people_use() {
    let home = Home::new();
    let models = home.json(&["catalogue"]);
    assert!(models.as_array().unwrap().len() >= 10);
    let table = said(&home.model(&["catalogue"]));
    assert!(
        table.contains("qwen3-0.6b") && table.contains("no: "),
        "{table}"
    );
}

#[test]
fn a_running_daemon_is_told() {
    let daemon = Daemon::start(DaemonOptions::default());
    let home = Home::new();
    let file = home.file("desk.gguf", &weights());
    let listed = || {
        let (_, body) = daemon.get("/v1/models");
        body.contains("local/desk")
    };
    assert!(!listed());
    let output = model(
        daemon.state_dir(),
        home.dir.path(),
        &["add", file.to_str().unwrap()],
    );
    assert!(output.status.success(), "{}", said(&output));
    assert!(listed());
    let output = model(daemon.state_dir(), home.dir.path(), &["rm", "desk"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!listed());
}
