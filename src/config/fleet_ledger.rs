//! `[fleet_ledger]`: the Postgres database that this device's ledger goes to.

use std::path::Path;

use nearfar_egress::{KeySource, LedgerOptions};
use toml::Spanned;

use super::errors::Notes;
use super::provider;
use super::reader::Section;

const FORM: &str = "write it like \"postgres://nearfar@db.example/fleet\"";

/// `[fleet_ledger]` as typed.
#[derive(Debug)]
pub(super) struct Low {
    span: std::ops::Range<usize>,
    url: Option<Spanned<String>>,
    device: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
    password_env: Option<Spanned<String>>,
    password_credential: Option<Spanned<String>>,
}

pub(super) fn low(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Low {
    let low = Low {
        span: section.span.clone(),
        url: section.text("url", notes),
        device: section.text("device", notes),
        password_file: section.text("password_file", notes),
        password_env: section.text("password_env", notes),
        password_credential: section.text("password_credential", notes),
    };
    section.finish(notes);
    low
}

/// What it means.
pub(super) fn high(low: &Low, base: Option<&Path>, notes: &mut Notes<'_>) -> Option<LedgerOptions> {
    let password = provider::secret(
        "fleet_ledger",
        "password",
        [
            &low.password_file,
            &low.password_env,
            &low.password_credential,
        ],
        base,
        notes,
    );
    let device = match &low.device {
        None => String::new(),
        Some(said) => {
            let name = said.get_ref();
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                notes.at(
                    said.span(),
                    "fleet_ledger.device",
                    "a device's name must have 1 to 128 printable characters",
                    "shorten the name, or leave it out: then it is the host's name",
                );
            }
            name.clone()
        }
    };
    let Some(url) = &low.url else {
        notes.absent(
            low.span.clone(),
            "fleet_ledger.url",
            "the fleet's ledger has no address",
            FORM,
        );
        return None;
    };
    if let Err((what, mend)) = check(url.get_ref(), &["postgres://", "postgresql://"], FORM) {
        notes.at(url.span(), "fleet_ledger.url", what, mend);
        return None;
    }
    Some(LedgerOptions {
        url: url.get_ref().clone(),
        password: password.unwrap_or(KeySource::None),
        device,
    })
}

/// Checks `scheme://[user@]host[:port]…` as far as mistakes are likely; the
/// process that connects reads the rest.
pub(super) fn check(
    text: &str,
    schemes: &[&str],
    form: &'static str,
) -> Result<(), (&'static str, &'static str)> {
    let Some(rest) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        return Err(("this is not the address of such a server", form));
    };
    if text.len() > 1_024 || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("an address has no spaces and at most 1024 bytes", form));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') || rest.to_ascii_lowercase().contains("password=") {
        return Err((
            "an address with a password in it",
            "put the password into a file that only nearfar may read, and name the file with \
             password_file",
        ));
    }
    if host.is_empty() || host.starts_with(':') {
        return Err(("this address names no host", form));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::{Config, Overrides};
    use nearfar_egress::KeySource;

    fn parse(text: &str) -> Result<Config, String> {
        let overrides = Overrides {
            state_dir: "/state".into(),
            ..Overrides::default()
        };
        Config::parse(text, None, &overrides).map_err(|errors| errors.to_string())
    }

    #[test]
    fn one_line_is_enough() {
        let config = parse("fleet_ledger.url = \"postgres://nearfar@db.example/fleet\"").unwrap();
        let ledger = config.fleet_ledger.unwrap();
        assert_eq!(ledger.url, "postgres://nearfar@db.example/fleet");
        assert_eq!(ledger.password, KeySource::None);
        assert_eq!(ledger.device, "");
        assert!(parse("").unwrap().fleet_ledger.is_none());
    }

    #[test]
    fn the_password_stands_elsewhere() {
        let config = parse(
            "[fleet_ledger]\nurl = \"postgres://a@b/c\"\ndevice = \"kiosk-17\"\n\
             password_credential = \"fleet\"",
        );
        let ledger = config.unwrap().fleet_ledger.unwrap();
        assert_eq!(ledger.password, KeySource::Credential("fleet".into()));
        assert_eq!(ledger.device, "kiosk-17");
        for url in ["postgres://a:hush@b/c", "postgres://b/c?password=hush"] {
            let errors = parse(&format!("fleet_ledger.url = \"{url}\"")).unwrap_err();
            assert!(errors.contains("password in it"), "{errors}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_place() {
        for (text, part) in [
            ("[fleet_ledger]\n", "has no address"),
            ("fleet_ledger.url = \"mysql://a/b\"", "not the address"),
            ("fleet_ledger.url = \"postgres://\"", "names no host"),
            ("fleet_ledger.url = \"postgres://a b/c\"", "no spaces"),
            (
                "fleet_ledger.url = \"postgres://a/b\"\nfleet_ledger.device = \"\"",
                "is empty",
            ),
            (
                "fleet_ledger.url = \"postgres://a/b\"\nfleet_ledger.password_env = \"1x\"",
                "environment variable",
            ),
        ] {
            let errors = parse(text).unwrap_err();
            assert!(errors.contains(part), "{text}: {errors}");
        }
    }
}
