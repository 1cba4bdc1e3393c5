//! Which folders each process may reach: the state directory, model files of
//! other programs that were adopted in place, and what holds keys.
#![allow(
    clippy::disallowed_methods,
    reason = "where folders are that a process may read"
)]

use std::path::{Path, PathBuf};

use nearfar_egress::KeySource;
use nearfar_engine::Device;

use super::Places;
use crate::config::Config;
use crate::handover::Role;

/// Where the engine keeps pinned prompts, below the state directory: the one
/// place that it may write to.
pub const PINNED: &str = "models/pinned";

/// A manifest longer than this is none of ours.
const MAX_MANIFEST_BYTES: u64 = 64 << 10;

/// Says where a process of this role may read and write. Looked up at every
/// start of a process, so that what was adopted since is reachable after it.
pub fn of(role: Role, config: &Config, state_dir: &Path) -> Places {
    let models = state_dir.join("models");
    match role {
        // The gate reads models' headers for the catalogue, and adopts files.
        Role::Gate => Places {
            read: adoptable(&models),
            write: vec![state_dir.to_owned()],
            ..Places::default()
        },
        Role::Engine => Places {
            read: [vec![models.clone()], adoptable(&models)].concat(),
            files: vec![state_dir.join(PINNED)],
            devices: match config.local.placement.device {
                Device::Cpu => Vec::new(),
                _ => graphics(Path::new("/dev")),
            },
            ..Places::default()
        },
        Role::Egress => Places {
            read: secrets(config),
            write: vec![models.join("incoming")],
            ..Places::default()
        },
    }
}

/// The device files of NVIDIA's drivers, those of its boards with one memory
/// included: granted only where the configuration names such a device, for a
/// driver is much code in the kernel.
fn graphics(folder: &Path) -> Vec<PathBuf> {
    const PREFIXES: [&str; 4] = ["nvidia", "nvhost-", "nvmap", "nvgpu"];
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_driver = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    };
    entries
        .map(|entry| entry.path())
        .filter(of_driver)
        .collect()
}

/// Where keys and certificates are.
fn secrets(config: &Config) -> Vec<PathBuf> {
    let keys = config.secrets().filter_map(|(_, key)| match key {
        KeySource::File(path) => Some(path.clone()),
        KeySource::None | KeySource::Env(_) | KeySource::Credential(_) => None,
    });
    keys.chain(config.credentials_dir.clone())
        .chain(variable("CREDENTIALS_DIRECTORY"))
        .chain(variable("SSL_CERT_FILE"))
        .chain(variable("SSL_CERT_DIR"))
        .collect()
}

/// Where other programs keep models, and where adopted files are.
fn adoptable(models: &Path) -> Vec<PathBuf> {
    let home = variable("HOME").unwrap_or_default();
    let known = [
        home.join(".ollama/models"),
        home.join(".cache/huggingface"),
        PathBuf::from("/usr/share/ollama/.ollama/models"),
        PathBuf::from("/var/lib/ollama"),
    ];
    known
        .into_iter()
        .chain(variable("OLLAMA_MODELS"))
        .chain(variable("HF_HOME"))
        .chain(variable("HF_HUB_CACHE"))
        .filter(|folder| folder.is_absolute())
        .chain(adopted(&models.join("manifests")))
        .collect()
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Files that manifests name in place. A manifest is written by the gate, so
/// it must not open more than a model: plain files only, and those only that
/// begin as a GGUF does.
fn adopted(manifests: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(manifests).into_iter().flatten();
    entries
        .flatten()
        .filter_map(|entry| adopted_by(&entry.path()))
        .filter(|path| is_gguf(path))
        .collect()
}

fn adopted_by(manifest: &Path) -> Option<PathBuf> {
    let about = std::fs::symlink_metadata(manifest).ok()?;
    if !about.is_file() || about.len() > MAX_MANIFEST_BYTES {
        return None;
    }
    let text = std::fs::read_to_string(manifest).ok()?;
    let manifest: serde_json::Value = serde_json::from_str(&text).ok()?;
    let path = PathBuf::from(manifest.pointer("/adopted/path")?.as_str()?);
    path.is_absolute().then_some(path)
}

fn is_gguf(path: &Path) -> bool {
    use std::io::Read;
    let begins = |path: &Path| -> std::io::Result<bool> {
        // A fifo would make the open wait.
        if !std::fs::metadata(path)?.is_file() {
            return Ok(false);
        }
        let mut magic = [0; 4];
        std::fs::File::open(path)?.read_exact(&mut magic)?;
        Ok(&magic == b"GGUF")
    };
    begins(path).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_adopted_models_are_opened_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let model = file("model.gguf", b"GGUF....");
        let secret = file("secret", b"-----BEGIN");
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        for (name, path) in [
            ("a", model.as_path()),
            ("b", &secret),
            ("c", "/etc".as_ref()),
        ] {
            let text = serde_json::json!({ "name": name, "adopted": { "path": path } });
            std::fs::write(manifests.join(format!("{name}.json")), text.to_string()).unwrap();
        }
        std::fs::write(
            manifests.join("own.json"),
            r#"{"name":"own","adopted":null}"#,
        )
        .unwrap();
        std::fs::write(manifests.join("broken.json"), "{").unwrap();
        assert_eq!(adopted(&manifests), [model]);
    }

    #[test]
    fn a_graphics_processor_is_opened_up_only_where_it_is_configured() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "nvidia0",
            "nvidiactl",
            "nvidia-uvm",
            "nvmap",
            "null",
            "mem",
            "sda",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let mut names: Vec<_> = graphics(folder.path())
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["nvidia-uvm", "nvidia0", "nvidiactl", "nvmap"]);
        let state = folder.path();
        let overrides = crate::config::Overrides {
            state_dir: "/state".into(),
            ..Default::default()
        };
        let mut config = Config::parse("", None, &overrides).unwrap();
        assert!(of(Role::Engine, &config, state).devices.is_empty());
        config.local.placement.device = Device::Auto;
        for role in [Role::Gate, Role::Egress] {
            assert!(of(role, &config, state).devices.is_empty());
        }
    }
}
