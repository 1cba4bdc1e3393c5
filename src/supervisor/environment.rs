//! Which variables each child gets. Everything else stays behind: above all,
//! keys reach egress and nothing but egress.
#![allow(
    clippy::disallowed_methods,
    reason = "makes each process's environment"
)]

use std::ffi::OsString;

use crate::handover::Role;

/// For every child.
const COMMON: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "RUST_LOG", "RUST_BACKTRACE"];

/// For egress: certificates, proxies, model downloads, credentials.
const OUTBOUND: [&str; 15] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HOME",
    "CREDENTIALS_DIRECTORY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "RES_OPTIONS",
];

/// For the engine: which graphics processors its driver shows.
const DRIVER: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"];

/// For the engine: the inference library's own pool waits in a spin loop without
/// end, so it gets no workers; the engine spreads the work itself.
const ENGINE: [(&str, &str); 1] = [("CANDLE_NUM_THREADS", "1")];

/// What one child's environment is made of. `keys` are the variables that the
/// providers name; their values are read here, at the moment they are handed on.
pub(super) fn of(role: Role, keys: &[String]) -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| {
            let Some(name) = name.to_str() else {
                return false;
            };
            allowed(role, name, keys)
        })
        .chain(own(role))
        .collect()
}

/// What a role gets whatever our own environment says.
fn own(role: Role) -> impl Iterator<Item = (OsString, OsString)> {
    let engine = ENGINE.iter().filter(move |_| role == Role::Engine);
    engine.map(|(name, value)| (name.into(), value.into()))
}

fn allowed(role: Role, name: &str, keys: &[String]) -> bool {
    let key = keys.iter().any(|key| key == name);
    if role == Role::Egress {
        return key
            || COMMON.contains(&name)
            || OUTBOUND.contains(&name)
            || name.starts_with("NEARFAR_");
    }
    // A provider's variable stays out even where its name looks like ours.
    !key && (COMMON.contains(&name)
        || (role == Role::Engine && DRIVER.contains(&name))
        || (name.starts_with("NEARFAR_") && !looks_secret(name)))
}

/// A last guard for our own prefix: settings are not secret, keys are.
fn looks_secret(name: &str) -> bool {
    ["KEY", "TOKEN", "SECRET", "PASSWORD"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_reach_egress_alone() {
        let keys = ["OPENAI_API_KEY".to_owned(), "NEARFAR_X".to_owned()];
        for name in ["OPENAI_API_KEY", "NEARFAR_X", "HF_TOKEN", "HTTPS_PROXY"] {
            assert!(allowed(Role::Egress, name, &keys), "{name}");
            assert!(!allowed(Role::Gate, name, &keys), "{name}");
            assert!(!allowed(Role::Engine, name, &keys), "{name}");
        }
        assert!(!allowed(Role::Gate, "NEARFAR_API_KEY", &[]));
        assert!(!allowed(Role::Egress, "AWS_SECRET_ACCESS_KEY", &keys));
        assert!(!allowed(Role::Egress, "LD_PRELOAD", &keys));
        for role in Role::ALL {
            assert!(allowed(role, "RUST_LOG", &keys));
            assert!(allowed(role, "NEARFAR_LOG", &keys));
        }
    }
}
