//! `nearfar serve`: check the configuration, take the state directory, open the
//! listeners, then start the processes and look after them.
#![allow(
    clippy::disallowed_methods,
    reason = "which providers have a key in the environment"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::{SystemTime, UNIX_EPOCH};

use nearfar_egress::KeySource;

use super::family::Family;
use super::listen::Listeners;
use super::spawn::Happening;
use super::state_dir::StateDir;
use super::{ServeArgs, logging, sandbox};
use crate::admission::Keys;
use crate::config::{Config, Overrides};
use crate::handover::{Role, Setup};

/// Runs the daemon until it is told to stop.
///
/// Errors of the start (configuration, state directory, addresses) go to
/// standard error as they are, and nothing is left running.
pub fn serve(args: ServeArgs) -> ExitCode {
    logging::begin();
    match start(args) {
        Ok(family) => family.look_after(),
        Err(error) => {
            // Not a log line: the one who typed the command reads it.
            let _ = writeln!(std::io::stderr(), "nearfar: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that can fail for a reason that a person can mend.
fn start(args: ServeArgs) -> Result<Family, Box<dyn std::error::Error>> {
    let (text, path) = configuration(args.config)?;
    let env_providers = providers_of_the_environment();
    let overrides = Overrides {
        listen: args.listen,
        state_dir: args.state_dir.unwrap_or_default(),
        env_providers,
    };
    let config = Config::parse(&text, path.as_deref(), &overrides)?;
    let prices_text = match &config.prices {
        Some(path) => crate::prices::text_of(path)?,
        None => String::new(),
    };
    let state = StateDir::open(&config.state_dir)?;
    let listeners = Listeners::open(&config.server.listen, &state, || has_keys(&config))?;
    // The keys that came in the environment are in this process's own; no
    // other process of this user may look.
    if let Err(error) = sandbox::hide() {
        tracing::warn!(%error, "the supervisor's memory is open to this user's other processes");
    }
    let (tell, happenings) = mpsc::channel();
    signals(&tell)?;
    let setup = Setup {
        role: Role::Gate,
        config_text: text,
        prices_text,
        config_path: path,
        listen: overrides.listen,
        state_dir: state.path().to_owned(),
        env_providers: overrides.env_providers,
        sandbox: Vec::new(),
        started_ms: now_ms(),
    };
    let keys = key_variables(&config);
    let addresses = listeners.addresses.clone();
    let family = Family::start(config, setup, keys, state, listeners, tell, happenings);
    announce(&addresses);
    Ok(family)
}

/// Whether there is a key that is good. Looked at only where other machines
/// reach nearfar; the keys themselves are the gate's affair.
fn has_keys(config: &Config) -> bool {
    let keys = Keys::open(config).list();
    let now_ms = now_ms();
    let good = |end: Option<i64>| end.is_none_or(|end| end > now_ms);
    keys.iter()
        .any(|key| key.revoked_ms.is_none() && good(key.expires_ms))
}

/// The configuration's text and the place it came from.
fn configuration(named: Option<PathBuf>) -> Result<(String, Option<PathBuf>), ReadError> {
    let Some(path) = named.or_else(crate::config::paths::found_config) else {
        return Ok((String::new(), None));
    };
    let path = crate::config::paths::absolute(&path);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((text, Some(path))),
        Err(source) => Err(ReadError { path, source }),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read the configuration {}: {source}", path.display())]
struct ReadError {
    path: PathBuf,
    source: std::io::Error,
}

/// Presets whose key variable is set.
fn providers_of_the_environment() -> Vec<String> {
    let found = nearfar_egress::presets()
        .into_iter()
        .filter(|p| match &p.key {
            KeySource::Env(name) => is_set(name),
            KeySource::None | KeySource::File(_) | KeySource::Credential(_) => false,
        });
    found.map(|p| p.name).collect()
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// The names of all variables that are for egress alone: keys that providers
/// name, and the addresses that go with them. Warns about keys that are set.
fn key_variables(config: &Config) -> Vec<String> {
    let named: Vec<String> = config
        .secrets()
        .filter_map(|(_, key)| match key {
            KeySource::Env(name) => Some(name.clone()),
            KeySource::None | KeySource::File(_) | KeySource::Credential(_) => None,
        })
        .collect();
    let set: Vec<&str> = named
        .iter()
        .map(String::as_str)
        .filter(|n| is_set(n))
        .collect();
    if !set.is_empty() {
        tracing::warn!(
            reason = set.join(", "),
            "keys come from the environment, where this user's shell and root can read them; \
             a credentials directory is the way: set `credentials_dir` and `key_credential`"
        );
    }
    let addresses = named
        .iter()
        .filter_map(|name| Some(format!("{}_BASE_URL", name.strip_suffix("_API_KEY")?)));
    let addresses: Vec<String> = addresses.collect();
    [named, addresses].concat()
}

/// One line for each address, for people and for scripts that wait for it.
fn announce(addresses: &[std::net::SocketAddr]) {
    let mut out = std::io::stdout().lock();
    for address in addresses {
        // A closed standard output is no reason to stop serving.
        let _ = writeln!(out, "nearfar listening on http://{address}");
    }
    let _ = out.flush();
}

/// A thread that turns signals into happenings. The first asks for a drain, a
/// second for an end at once.
fn signals(tell: &Sender<Happening>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let tell = tell.clone();
    // Registered before this returns, so that no signal falls between.
    let (mut terminate, mut interrupt, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let wait = async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = hangup.recv() => "SIGHUP",
                else => return,
            };
            if tell.send(Happening::Stop(name)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(wait))?;
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// Where the control socket of a state directory is.
pub fn control_socket(state_dir: &Path) -> PathBuf {
    state_dir.join(super::listen::CONTROL_SOCKET)
}
