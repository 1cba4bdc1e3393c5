//! `[shared]`: the Valkey or Redis server in which daemons count limits together.

use std::path::Path;
use std::time::Duration;

use nearfar_egress::{KeySource, SharedOptions};
use toml::Spanned;

use super::errors::Notes;
use super::reader::Section;
use super::{fleet_ledger, provider};

const FORM: &str = "write it like \"redis://valkey.example:6379\", or rediss:// for TLS";
const WAIT: Duration = Duration::from_millis(20);

/// Where limits are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The server.
    pub server: SharedOptions,
    /// How long a request waits for it before this daemon counts alone.
    pub wait: Duration,
}

/// `[shared]` as typed.
#[derive(Debug)]
pub(super) struct Low {
    span: std::ops::Range<usize>,
    valkey: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
    wait: Option<Duration>,
    password_file: Option<Spanned<String>>,
    password_env: Option<Spanned<String>>,
    password_credential: Option<Spanned<String>>,
}

pub(super) fn low(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Low {
    let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(60));
    let low = Low {
        span: section.span.clone(),
        valkey: section.text("valkey", notes),
        group: section.text("group", notes),
        wait: section.duration("wait", shortest, longest, notes),
        password_file: section.text("password_file", notes),
        password_env: section.text("password_env", notes),
        password_credential: section.text("password_credential", notes),
    };
    section.finish(notes);
    low
}

/// What it means.
pub(super) fn high(low: &Low, base: Option<&Path>, notes: &mut Notes<'_>) -> Option<Shared> {
    let said = [
        &low.password_file,
        &low.password_env,
        &low.password_credential,
    ];
    let password = provider::secret("shared", "password", said, base, notes);
    let group = match &low.group {
        None => "default".to_owned(),
        Some(said) => {
            let name = said.get_ref();
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                notes.at(
                    said.span(),
                    "shared.group",
                    "a group's name must have 1 to 64 letters, digits, `-`, `_` and `.`",
                    "write a name, like group = \"shops\"",
                );
            }
            name.clone()
        }
    };
    let Some(url) = &low.valkey else {
        notes.absent(
            low.span.clone(),
            "shared.valkey",
            "the shared limits have no server",
            FORM,
        );
        return None;
    };
    let schemes = ["redis://", "rediss://", "valkey://", "valkeys://"];
    if let Err((what, mend)) = fleet_ledger::check(url.get_ref(), &schemes, FORM) {
        notes.at(url.span(), "shared.valkey", what, mend);
        return None;
    }
    Some(Shared {
        server: SharedOptions {
            url: url.get_ref().clone(),
            password: password.unwrap_or(KeySource::None),
            group,
        },
        wait: low.wait.unwrap_or(WAIT),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, Overrides};

    fn parse(text: &str) -> Result<Option<Shared>, String> {
        let overrides = Overrides {
            state_dir: "/state".into(),
            ..Overrides::default()
        };
        let config = Config::parse(text, None, &overrides);
        config
            .map(|config| config.shared)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn one_line_is_enough() {
        let shared = parse("shared.valkey = \"redis://127.0.0.1:6379\"").unwrap();
        let shared = shared.unwrap();
        assert_eq!(shared.server.url, "redis://127.0.0.1:6379");
        assert_eq!(shared.server.group, "default");
        assert_eq!(shared.wait, WAIT);
        assert!(parse("").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, part) in [
            ("[shared]\n", "no server"),
            ("shared.valkey = \"http://a\"", "not the address"),
            ("shared.valkey = \"redis://:hush@a\"", "password in it"),
            (
                "shared.valkey = \"redis://a\"\nshared.group = \"a b\"",
                "1 to 64",
            ),
        ] {
            let errors = parse(text).unwrap_err();
            assert!(errors.contains(part), "{text}: {errors}");
        }
    }
}
