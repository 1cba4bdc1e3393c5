//! The engine's promise, kept by its dependency tree: no crate in it can reach
//! a network.

#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Crates that open sockets, speak HTTP or drive either.
const NETWORK: [&str; 30] = [
    "async-std",
    "attohttpc",
    "curl",
    "curl-sys",
    "h2",
    "hf-hub",
    "hyper",
    "hyper-util",
    "isahc",
    "libp2p",
    "mio",
    "native-tls",
    "openssl",
    "quinn",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "surf",
    "tokio",
    "tokio-tungstenite",
    "tonic",
    "trust-dns-resolver",
    "hickory-resolver",
    "tungstenite",
    "ureq",
    "async-io",
    "ureq-proto",
    "minreq",
    "zbus",
];

#[test]
fn no_network_crate_is_in_the_dependency_tree() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "nearfar-engine",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    // The positive control: the tree was really listed.
    assert!(
        crates.contains(&"candle-core") && crates.contains(&"tokenizers"),
        "{tree}"
    );
    let found: Vec<&&str> = crates
        .iter()
        .filter(|name| NETWORK.contains(name))
        .collect();
    assert!(found.is_empty(), "network crates in the engine: {found:?}");
}
