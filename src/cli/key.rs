//! `nearfar key …`: virtual keys.
//!
//! The verbs talk to the running daemon. Where none runs, they work on the file
//! of keys itself: the first key has to be there before nearfar listens where
//! other machines reach it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use hyper::Method;
use nearfar_domain::calendar::{civil_of, clock_of};
use serde_json::{Value, json};

use super::client::{Client, Reply, block_on};
use super::failed::Failed;
use super::style;
use crate::admission::{KeyProblem, Keys, NewKey};
use crate::config::{Config, Overrides, paths, units};
use crate::http::keys as shape;
use crate::supervisor::StateDir;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    Create(Create),
    List(List),
    /// Show one key: what it may use, until when, when it was used last
    #[command(after_help = "Examples:\n  \
        nearfar key show kiosk\n  nearfar key show key_3k9x0w2m1q7z --json\n\n\
        Exit codes: 0 done, 1 no such key or failed, 2 wrong usage.")]
    Show {
        /// Its id, or its name
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse keys from the next request on
    #[command(
        long_about = "Refuse keys from the next request on. Answers under way go on. There is no \
            way back: make another key.",
        after_help = "Examples:\n  \
            nearfar key revoke kiosk\n  nearfar key revoke key_3k9x0w2m1q7z\n\n\
            Exit codes: 0 done, 1 no such key or failed, 2 wrong usage."
    )]
    Revoke {
        /// Their ids, or their names
        #[arg(required = true)]
        keys: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a key another token; the one before stays good for a while
    #[command(
        long_about = "Give a key another token, which is shown once. Its id, tenant, scope and \
            accounts stay. The token before stays good for the time of grace, so that clients \
            can change over; the one before that is refused at once.",
        after_help = "Examples:\n  \
            nearfar key rotate kiosk\n  nearfar key rotate kiosk --grace 1h\n  \
            nearfar key rotate kiosk --grace 0s   when the token is known to others\n\n\
            Exit codes: 0 done, 1 no such key or failed, 2 wrong usage."
    )]
    Rotate {
        /// Its id, or its name
        key: String,
        /// How long the token before stays good, such as 1h or 7d; at most 30d
        #[arg(long, value_name = "TIME", default_value = "1d")]
        grace: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// `key create`.
#[derive(Debug, Args)]
#[command(
    about = "Make a key; its token is shown once",
    long_about = "Make a key. Its token is shown once and kept nowhere: nearfar has a hash of it \
        alone. What is not limited is allowed as far as the tenant may go; a key can narrow what \
        its tenant may use, never widen it.",
    after_help = "Examples:\n  \
        nearfar key create kiosk\n  \
        nearfar key create kiosk --targets 'local/*' --expires-in 90d\n  \
        nearfar key create app --tenant acme --targets 'openai/gpt-4o*,local/*' --features chat,search\n  \
        export OPENAI_API_KEY=$(nearfar key create ci --json | jq -r .token)\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Create {
    /// What to call it
    pub name: String,
    /// Who pays: a [tenants.NAME] of the configuration [default: default]
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// How long it is good, such as 12h or 90d [default: until it is revoked]
    #[arg(long, value_name = "TIME")]
    pub expires_in: Option<String>,
    /// Targets that it may use; * stands for any text [default: all]
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub targets: Vec<String>,
    /// Zones that it may use: device, site, cloud [default: all]
    #[arg(long, value_name = "ZONES", value_delimiter = ',')]
    pub zones: Vec<String>,
    /// Fronts that it may call: openai, anthropic, ollama [default: all]
    #[arg(long, value_name = "FRONTS", value_delimiter = ',')]
    pub fronts: Vec<String>,
    /// Features that its requests may name [default: any]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub features: Vec<String>,
    /// What its requests are accounted to where they do not say
    #[arg(long, value_name = "NAME")]
    pub feature: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `key list`.
#[derive(Debug, Args)]
#[command(
    about = "List keys",
    visible_alias = "ls",
    after_help = "Examples:\n  \
        nearfar key list\n  nearfar key list --tenant acme --all --json\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct List {
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Also those that are not good any more
    #[arg(long)]
    pub all: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs a verb.
///
/// # Errors
/// A wrong argument, no such key, or the daemon's own words.
pub fn run(command: KeyCommand, state_dir: &Path) -> Result<(), Failed> {
    let book = Book::find(state_dir);
    let text = match command {
        KeyCommand::Create(create) => made(&book.create(&new_key(&create)?)?, create.json),
        KeyCommand::List(list) => {
            let mut keys = book.list()?;
            keys.retain(|key| {
                let of_tenant = list.tenant.as_ref().is_none_or(|t| key["tenant"] == **t);
                of_tenant && (list.all || key["state"] == "active")
            });
            if list.json {
                format!("{}\n", json!({"keys": keys}))
            } else {
                table(&keys)
            }
        }
        KeyCommand::Show { key, json } => {
            let found = book.show(&key)?;
            if json {
                format!("{found}\n")
            } else {
                details(&found["key"])
            }
        }
        KeyCommand::Revoke { keys, json } => {
            let mut text = String::new();
            for key in keys {
                let revoked = book.revoke(&key)?;
                if json {
                    text.push_str(&format!("{revoked}\n"));
                } else {
                    let key = &revoked["key"];
                    text.push_str(&format!(
                        "Revoked {} ({}).\n",
                        word(key, "id"),
                        word(key, "name")
                    ));
                }
            }
            text
        }
        KeyCommand::Rotate { key, grace, json } => {
            made(&book.rotate(&key, seconds("--grace", &grace)?)?, json)
        }
    };
    Ok(style::print(&text)?)
}

fn new_key(create: &Create) -> Result<NewKey, Failed> {
    let list = |said: &[String]| (!said.is_empty()).then(|| said.to_vec());
    let expires_in_s = match &create.expires_in {
        Some(text) => Some(seconds("--expires-in", text)?),
        None => None,
    };
    Ok(NewKey {
        name: create.name.clone(),
        tenant: create.tenant.clone(),
        feature: create.feature.clone(),
        features: list(&create.features),
        targets: list(&create.targets),
        zones: list(&create.zones),
        fronts: list(&create.fronts),
        expires_in_s,
    })
}

fn seconds(option: &str, text: &str) -> Result<u64, Failed> {
    let time = units::duration(text).ok_or_else(|| {
        Failed::usage(format!(
            "{option} {}: this is not a time.",
            style::safe(text)
        ))
        .mend("Write a number with a unit (s, m, h, d), such as 90d or 1h30m.")
    })?;
    Ok(time.as_secs())
}

/// Where the keys are: with the daemon, or in its state directory.
enum Book<'a> {
    Daemon(Client),
    Files(&'a Path),
}

impl<'a> Book<'a> {
    fn find(state_dir: &'a Path) -> Self {
        let client = Client::control(state_dir);
        match block_on(client.get("/admin/v1/status")) {
            Err(_) if !runs(state_dir) => Self::Files(state_dir),
            _ => Self::Daemon(client),
        }
    }

    fn create(&self, new: &NewKey) -> Result<Value, Failed> {
        match self {
            Self::Daemon(client) => {
                let body = json!({
                    "name": new.name,
                    "tenant": new.tenant,
                    "feature": new.feature,
                    "features": new.features,
                    "targets": new.targets,
                    "zones": new.zones,
                    "fronts": new.fronts,
                    "expires_in_s": new.expires_in_s,
                });
                ask(client, Method::POST, "/admin/v1/keys", Some(&body))
            }
            Self::Files(state_dir) => with_files(state_dir, |keys, now_ms| {
                let (key, token) = keys.create(new, now_ms)?;
                Ok(shape::with_token(&key, &token, now_ms))
            }),
        }
    }

    fn list(&self) -> Result<Vec<Value>, Failed> {
        match self {
            Self::Daemon(client) => {
                let answer = ask(client, Method::GET, "/admin/v1/keys", None)?;
                Ok(answer["keys"].as_array().cloned().unwrap_or_default())
            }
            Self::Files(state_dir) => with_files(state_dir, |keys, now_ms| {
                let all = keys.list();
                Ok(all.iter().map(|key| shape::shown(key, now_ms)).collect())
            }),
        }
    }

    fn show(&self, key: &str) -> Result<Value, Failed> {
        match self {
            Self::Daemon(client) => ask(client, Method::GET, &path(key)?, None),
            Self::Files(state_dir) => with_files(state_dir, |keys, now_ms| {
                let key = keys.find(key)?;
                Ok(json!({"key": shape::shown(&key, now_ms)}))
            }),
        }
    }

    fn revoke(&self, key: &str) -> Result<Value, Failed> {
        match self {
            Self::Daemon(client) => ask(client, Method::DELETE, &path(key)?, None),
            Self::Files(state_dir) => with_files(state_dir, |keys, now_ms| {
                let key = keys.revoke(key, now_ms)?;
                Ok(json!({"key": shape::shown(&key, now_ms)}))
            }),
        }
    }

    fn rotate(&self, key: &str, grace_s: u64) -> Result<Value, Failed> {
        match self {
            Self::Daemon(client) => {
                let path = format!("{}/rotate", path(key)?);
                ask(
                    client,
                    Method::POST,
                    &path,
                    Some(&json!({"grace_s": grace_s})),
                )
            }
            Self::Files(state_dir) => with_files(state_dir, |keys, now_ms| {
                let (key, token) = keys.rotate(key, Some(grace_s), now_ms)?;
                Ok(shape::with_token(&key, &token, now_ms))
            }),
        }
    }
}

fn ask(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
    block_on(async {
        let reply: Reply = client.open(method, path, &[], body).await?;
        reply.json().await
    })
}

/// The path of a key. Names may hold anything; what a path cannot is escaped.
fn path(key: &str) -> Result<String, Failed> {
    if key.is_empty() {
        return Err(Failed::usage("A key's id or name is empty."));
    }
    let mut path = String::from("/admin/v1/keys/");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(path)
}

/// Whether a daemon has the state directory, or may have it.
fn runs(state_dir: &Path) -> bool {
    let lock = state_dir.join("lock");
    match std::fs::File::open(&lock) {
        Ok(file) => matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Works on the files while no daemon does, and none can start.
fn with_files<T>(
    state_dir: &Path,
    work: impl FnOnce(&Keys, i64) -> Result<T, KeyProblem>,
) -> Result<T, Failed> {
    let ours = rustix::process::geteuid().as_raw();
    if let Ok(about) = std::fs::metadata(state_dir)
        && about.uid() != ours
    {
        let dir = state_dir.display();
        let mend =
            "Run this as the user that runs nearfar, such as `sudo -u nearfar nearfar key …`.";
        return Err(Failed::new(format!("{dir} belongs to another user.")).mend(mend));
    }
    let failed = |error: &dyn std::fmt::Display| Failed::new(format!("{error}."));
    let state = StateDir::open(state_dir).map_err(|error| failed(&error))?;
    let config = config(state.path())?;
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let keys = Keys::open(&config);
    work(&keys, now_ms).map_err(|problem| match problem {
        KeyProblem::Field(field, mend) => Failed::usage(format!("{field}: {mend}")),
        other => failed(&other),
    })
}

/// The tenants are in the configuration file that the daemon would read.
fn config(state_dir: &Path) -> Result<Config, Failed> {
    let path = paths::found_config();
    let text = match path.as_ref().map(std::fs::read_to_string) {
        // Without a file there is the default tenant alone.
        None => String::new(),
        Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Some(Ok(text)) => text,
        Some(Err(error)) => return Err(Failed::new(format!("The configuration: {error}."))),
    };
    let overrides = Overrides {
        state_dir: state_dir.to_owned(),
        ..Overrides::default()
    };
    Config::parse(&text, path.as_deref(), &overrides)
        .map_err(|errors| Failed::new(errors.to_string()))
}

/// A new token, for people or as JSON.
fn made(answer: &Value, json: bool) -> String {
    if json {
        return format!("{answer}\n");
    }
    let key = &answer["key"];
    let (id, name) = (word(key, "id"), word(key, "name"));
    let mut text = format!(
        "Key {id} ({name}), tenant {}:\n\n  {}\n\nIt is shown this once. Clients send it as their \
         API key (OPENAI_API_KEY, ANTHROPIC_API_KEY, OLLAMA_API_KEY).\n",
        word(key, "tenant"),
        word(answer, "token"),
    );
    if let Some(until) = key["previous_token_until_ms"].as_i64() {
        text.push_str(&format!(
            "The token before is good until {}.\n",
            date(until)
        ));
    }
    text
}

fn table(keys: &[Value]) -> String {
    if keys.is_empty() {
        return "There are no keys. Make one with `nearfar key create NAME`.\n".to_owned();
    }
    let rows = keys.iter().map(|key| {
        vec![
            word(key, "id"),
            word(key, "name"),
            word(key, "tenant"),
            word(key, "state"),
            listed(&key["targets"], "all"),
            listed(&key["zones"], "all"),
            time(&key["expires_ms"], "never"),
            time(&key["last_used_ms"], "never"),
        ]
    });
    let heading = [
        "id",
        "name",
        "tenant",
        "state",
        "targets",
        "zones",
        "expires (UTC)",
        "last used (UTC)",
    ];
    style::table(&heading, rows.collect(), &[])
}

fn details(key: &Value) -> String {
    let feature = match key["feature"].as_str() {
        Some(feature) => feature.to_owned(),
        None => "none".to_owned(),
    };
    let lines = [
        ("id", word(key, "id")),
        ("name", word(key, "name")),
        ("tenant", word(key, "tenant")),
        ("state", word(key, "state")),
        ("targets", listed(&key["targets"], "all")),
        ("zones", listed(&key["zones"], "all")),
        ("fronts", listed(&key["fronts"], "all")),
        ("features", listed(&key["features"], "any")),
        ("default feature", feature),
        ("created", time(&key["created_ms"], "unknown")),
        ("expires", time(&key["expires_ms"], "never")),
        ("last used", time(&key["last_used_ms"], "never")),
        ("revoked", time(&key["revoked_ms"], "no")),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(&format!("{name:<16} {}\n", style::safe(&value)));
    }
    text
}

fn word(value: &Value, name: &str) -> String {
    style::safe(value[name].as_str().unwrap_or("?"))
}

fn listed(value: &Value, all: &str) -> String {
    match value.as_array() {
        Some(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(",")
        }
        None => all.to_owned(),
    }
}

fn time(value: &Value, none: &str) -> String {
    value.as_i64().map_or_else(|| none.to_owned(), date)
}

/// `2026-01-31 12:00`, in UTC.
fn date(ms: i64) -> String {
    let (year, month, day) = civil_of(ms);
    let (hour, minute, _) = clock_of(ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_the_epoch() {
        for (ms, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400_000, "2000-02-29 00:00"),
            (1_709_251_199_000, "2024-02-29 23:59"),
            (1_735_689_600_000, "2025-01-01 00:00"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ] {
            assert_eq!(date(ms), text);
        }
    }

    #[test]
    fn names_are_escaped_in_paths() {
        let path = |key| path(key).ok();
        assert_eq!(path("key_1"), Some("/admin/v1/keys/key_1".to_owned()));
        assert_eq!(
            path("a b/c?"),
            Some("/admin/v1/keys/a%20b%2Fc%3F".to_owned())
        );
        assert_eq!(path(""), None);
    }

    #[test]
    fn a_token_is_shown_with_what_to_do() {
        let answer = json!({
            "key": {"id": "key_1", "name": "kiosk", "tenant": "acme",
                    "previous_token_until_ms": 0},
            "token": "nf_x_y",
        });
        let text = made(&answer, false);
        assert!(
            text.contains("nf_x_y") && text.contains("shown this once"),
            "{text}"
        );
        assert!(text.contains("good until 1970-01-01 00:00"), "{text}");
        assert_eq!(made(&answer, true), format!("{answer}\n"));
    }
}
