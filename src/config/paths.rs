//! Where things lie when nobody says. The only part of the configuration that
//! looks at the environment.
#![allow(clippy::disallowed_methods, reason = "where files are by default")]

use std::path::{Path, PathBuf};

/// The state directory: `$NEARFAR_STATE_DIR`, else `$XDG_STATE_HOME/nearfar`,
/// else `~/.local/state/nearfar`; for root `/var/lib/nearfar`.
pub fn default_state_dir() -> PathBuf {
    state_dir_from(&|name| std::env::var_os(name).map(PathBuf::from), is_root())
}

/// The configuration file that is read when none is named: `$NEARFAR_CONFIG`,
/// else `$XDG_CONFIG_HOME/nearfar/nearfar.toml`, else
/// `~/.config/nearfar/nearfar.toml`; for root `/etc/nearfar/nearfar.toml`. It
/// need not exist.
pub fn default_config_path() -> PathBuf {
    config_path_from(&|name| std::env::var_os(name).map(PathBuf::from), is_root())
}

/// The file that holds without `--config`: the default one, where it exists or
/// the environment names it.
pub fn found_config() -> Option<PathBuf> {
    let path = default_config_path();
    (std::env::var_os("NEARFAR_CONFIG").is_some() || path.exists()).then_some(path)
}

/// The virtual key that verbs show where they talk over TCP: `$NEARFAR_KEY`. An
/// argument would be open to all who can list processes.
pub fn api_key() -> Option<String> {
    let key = std::env::var_os("NEARFAR_KEY")?.into_string().ok()?;
    (!key.is_empty()).then_some(key)
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

fn state_dir_from(lookup: Lookup<'_>, root: bool) -> PathBuf {
    if let Some(said) = said(lookup, "NEARFAR_STATE_DIR") {
        return said;
    }
    match said(lookup, "XDG_STATE_HOME").filter(|dir| dir.is_absolute()) {
        Some(dir) if !root => dir.join("nearfar"),
        _ => match said(lookup, "HOME") {
            Some(home) if !root => home.join(".local/state/nearfar"),
            _ => PathBuf::from("/var/lib/nearfar"),
        },
    }
}

fn config_path_from(lookup: Lookup<'_>, root: bool) -> PathBuf {
    if let Some(said) = said(lookup, "NEARFAR_CONFIG") {
        return said;
    }
    match said(lookup, "XDG_CONFIG_HOME").filter(|dir| dir.is_absolute()) {
        Some(dir) if !root => dir.join("nearfar/nearfar.toml"),
        _ => match said(lookup, "HOME") {
            Some(home) if !root => home.join(".config/nearfar/nearfar.toml"),
            _ => PathBuf::from("/etc/nearfar/nearfar.toml"),
        },
    }
}

fn said(lookup: Lookup<'_>, name: &str) -> Option<PathBuf> {
    lookup(name).filter(|value| !value.as_os_str().is_empty())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `path` made absolute against the working directory; unchanged where that
/// cannot be told.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_follows_the_environment() {
        let none = |_: &str| None;
        assert_eq!(state_dir_from(&none, true), Path::new("/var/lib/nearfar"));
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/a"));
        assert_eq!(
            state_dir_from(&home, false),
            Path::new("/home/a/.local/state/nearfar")
        );
        assert_eq!(state_dir_from(&home, true), Path::new("/var/lib/nearfar"));
        let both = |name: &str| match name {
            "NEARFAR_STATE_DIR" => Some(PathBuf::from("/data")),
            _ => Some(PathBuf::from("/other")),
        };
        assert_eq!(state_dir_from(&both, true), Path::new("/data"));
        assert_eq!(
            config_path_from(&home, false),
            Path::new("/home/a/.config/nearfar/nearfar.toml")
        );
    }
}
