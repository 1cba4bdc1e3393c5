//! Virtual keys: whether they can be read, whether those who need one have it,
//! and which will soon be of no use.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::admission::DEFAULT_TENANT;
use crate::config::Config;
use crate::store::{Key, KeyStore};

const CHECK: &str = "virtual keys";
/// A key that ends within this time is told of.
const SOON_MS: i64 = 7 * 24 * 3_600_000;
/// Names that a finding lists at most.
const MAX_LISTED: usize = 5;

/// What is to be said of a configuration's keys; nothing, where there are none
/// and none is needed.
pub(super) fn keys(config: &Config) -> Vec<Finding> {
    let all = match KeyStore::new(&config.state_dir).all() {
        Ok(all) => all,
        Err(error) => {
            return vec![Finding::fail(
                CHECK,
                error.to_string(),
                "every key is refused until then: restore the file, or move it away and make the \
                 keys anew with `nearfar key create`",
            )];
        }
    };
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let good: Vec<&Key> = all
        .iter()
        .filter(|key| key.revoked_ms.is_none() && key.expires_ms.is_none_or(|end| end > now_ms))
        .collect();
    let mut findings = Vec::new();
    let reached = config.server.listen.iter().find(|a| !a.ip().is_loopback());
    match reached {
        Some(address) if good.is_empty() => findings.push(Finding::fail(
            CHECK,
            format!("other machines reach {address}, and there is no key that is good"),
            "make one with `nearfar key create NAME`; until then nearfar does not start",
        )),
        Some(address) => findings.push(Finding::warn(
            CHECK,
            format!("other machines reach {address}, over plain HTTP: keys and content are open"),
            "use a network that you trust, or a proxy with TLS before nearfar",
        )),
        None if config.access.requires_key(None) && good.is_empty() => {
            findings.push(Finding::warn(
                CHECK,
                "every request needs a key, and there is none that is good",
                "make one with `nearfar key create NAME`",
            ));
        }
        None if good.is_empty() => {}
        None => findings.push(Finding::ok(CHECK, format!("{} good", good.len()))),
    }
    let soon = |key: &Key| key.expires_ms.is_some_and(|end| end <= now_ms + SOON_MS);
    if let Some(names) = named(&good, soon) {
        findings.push(Finding::warn(
            CHECK,
            format!("expire within a week: {names}"),
            "make others in their place with `nearfar key create`",
        ));
    }
    let orphaned =
        |key: &Key| key.tenant != DEFAULT_TENANT && !config.tenants.contains_key(&key.tenant);
    if let Some(names) = named(&good, orphaned) {
        findings.push(Finding::warn(
            CHECK,
            format!("of tenants that the configuration does not know, so refused: {names}"),
            "put their sections [tenants.NAME] back, or revoke the keys",
        ));
    }
    findings
}

/// The names of the keys of a kind; `None` where there are none.
fn named(keys: &[&Key], of_kind: impl Fn(&Key) -> bool) -> Option<String> {
    let found: Vec<&str> = keys
        .iter()
        .filter(|key| of_kind(key))
        .map(|key| key.name.as_str())
        .collect();
    let (first, more) = (found.len().min(MAX_LISTED), found.len() > MAX_LISTED);
    let names = found[..first].join(", ");
    (!found.is_empty()).then(|| if more { format!("{names}, …") } else { names })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Level;
    use super::*;
    use crate::admission::{Keys, NewKey};
    use crate::config::Overrides;

    fn config(dir: &std::path::Path, text: &str) -> Config {
        let overrides = Overrides {
            state_dir: dir.to_owned(),
            ..Overrides::default()
        };
        Config::parse(text, None, &overrides).unwrap()
    }

    #[test]
    fn keys_that_are_missing_ending_or_orphaned_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let levels = |text: &str| -> Vec<Level> {
            let findings = keys(&config(dir.path(), text));
            findings.iter().map(|finding| finding.level).collect()
        };
        let lan = "[server]\nlisten = [\"0.0.0.0:4141\"]\n";
        assert_eq!(levels(""), []);
        assert_eq!(levels(lan), [Level::Fail]);
        assert_eq!(levels("[access]\nrequire_key = true\n"), [Level::Warn]);
        let with_tenant = "[tenants.acme]\n";
        let book = Keys::open(&config(dir.path(), with_tenant));
        let new = NewKey {
            name: "a".into(),
            tenant: Some("acme".into()),
            expires_in_s: Some(3_600),
            ..NewKey::default()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        book.create(&new, now.as_millis() as i64).unwrap();
        assert_eq!(levels(with_tenant), [Level::Ok, Level::Warn]);
        assert_eq!(levels(""), [Level::Ok, Level::Warn, Level::Warn]);
        assert_eq!(levels(&format!("{lan}{with_tenant}")), [Level::Warn; 2]);
        std::fs::write(dir.path().join(crate::store::KEYS_FILE), "none at all").unwrap();
        assert_eq!(levels(""), [Level::Fail]);
    }
}
