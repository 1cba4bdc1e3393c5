//! What the compiler does not check: that files stay readable and that each
//! module looks only downwards.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// No file is longer than this, in lines.
const MAX_LINES: usize = 600;

/// Modules of `src/` from the ground up. A module may use those on lower floors
/// and itself; modules of one floor are strangers.
const FLOORS: [&[&str]; 11] = [
    &[
        "config",
        "store",
        "catalog",
        "handover",
        "conversations",
        "prices",
    ],
    &["telemetry", "health", "links", "guard", "limits", "cache"],
    &["snapshot"],
    &["admission", "account", "export"],
    &["execute"],
    &["road"],
    &["gate"],
    &["http"],
    &["app"],
    &["supervisor"],
    &["cli"],
];

/// Exceptions, each with its reason.
const ALLOWED: [(&str, &str, &str); 0] = [];

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in folders {
        let folder = root().join(folder);
        if folder.is_dir() {
            rust_files(&folder, &mut files);
        }
    }
    assert!(!files.is_empty());
    files
}

#[test]
fn no_file_passes_600_lines() {
    let long: Vec<String> = sources(&["src", "crates", "tests", "benches", "examples"])
        .into_iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            (lines > MAX_LINES).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split by subject:\n{}", long.join("\n"));
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The top-level modules that a source text names after `crate::`.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        for (at, _) in line.match_indices("crate::") {
            // `nearfar_crate::` is not `crate::`.
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let inner = group.split('}').next().unwrap_or_default();
                used.extend(inner.split(',').map(|item| first_word(item.trim())));
            } else {
                used.push(first_word(rest));
            }
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn every_module_looks_only_downwards() {
    let mut wrong = Vec::new();
    for path in sources(&["src"]) {
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let first = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy()
            .into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        // Tests may wire more than what they test.
        if module == "main" || module == "lib" || inside.to_string_lossy().contains("tests") {
            continue;
        }
        let Some(floor) = floor_of(&module) else {
            wrong.push(format!("{module} has no floor: add it to FLOORS"));
            continue;
        };
        for used in used_modules(&fs::read_to_string(&path).unwrap()) {
            let Some(below) = floor_of(&used) else {
                continue;
            };
            let allowed = used == module
                || below < floor
                || ALLOWED
                    .iter()
                    .any(|(from, to, _)| *from == module && *to == used);
            if !allowed {
                wrong.push(format!("{} uses {used}", inside.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "these look up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_floor_check_sees_what_it_should() {
    assert_eq!(used_modules("use crate::road::Asked;"), ["road"]);
    assert_eq!(
        used_modules("use crate::{app::Gate, store};"),
        ["app", "store"]
    );
    assert_eq!(used_modules("    let x = crate::http::y();"), ["http"]);
    assert!(used_modules("// crate::http is above").is_empty());
    assert!(used_modules("use nearfar_crate::x;").is_empty());
}
