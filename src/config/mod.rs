//! The configuration: a TOML file that may be absent.
//!
//! Two kinds of types: `low` is what was typed, [`Config`] is what it means.
//! [`Config::parse`] reports every error at once, each with its place and its
//! mend. Every process of the daemon parses the same text, so nothing here
//! reads a file, a clock or the network; only [`paths`] looks at the
//! environment, and nothing here ever holds a provider's key.

mod access;
pub mod cache;
mod errors;
mod fleet_ledger;
pub mod guard;
pub mod limit;
mod low;
mod money;
pub mod paths;
mod provider;
mod reader;
mod shared;
pub mod units;
mod url;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nearfar_domain::frames::TimeLimits;
use nearfar_domain::ids::TargetId;
use nearfar_domain::price::Price;
use nearfar_domain::privacy::Zone;
use toml::Spanned;
use toml::de::DeTable;

pub use access::{Access, Tenant, is_tenant_name};
pub use cache::Cache;
pub use errors::{ConfigError, ConfigErrors};
pub use guard::Guard;
pub use money::Aliases;
pub use shared::Shared;

use errors::Notes;
use low::{Low, LowLimits};

/// A commented example of every key; it parses.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Where the data API listens when nobody says.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4141);

/// `limits.answer_tokens` when nobody says: long for an answer, and short enough
/// that the worst case of one request does not hold a whole budget.
const DEFAULT_ANSWER_TOKENS: u32 = 4_096;

/// A larger file is not a configuration.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// What the daemon is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The HTTP front.
    pub server: Server,
    /// Where sockets, ledger and models lie.
    pub state_dir: PathBuf,
    /// Ceilings of the device's owner.
    pub privacy: Privacy,
    /// What is looked for in requests and answers.
    pub guard: Guard,
    /// Who has to show a key.
    pub access: Access,
    /// Who pays, by name. `default` need not be there.
    pub tenants: BTreeMap<String, Tenant>,
    /// Which answers are kept.
    pub cache: Cache,
    /// This device's models.
    pub local: Local,
    /// Providers, in the order of the file, then those of the environment.
    pub providers: Vec<nearfar_egress::Provider>,
    /// Where keys named by `key_credential` lie; `None` where nobody said
    /// (systemd tells the egress process by itself).
    pub credentials_dir: Option<PathBuf>,
    /// How long each step of a provider's answer may take.
    pub limits: TimeLimits,
    /// `[limits]`, of trying again.
    pub retries: Retries,
    /// `[[limit]]`: how much may be used.
    pub use_limits: Vec<limit::Limit>,
    /// Tokens of an answer whose request sets no bound, where a limit counts
    /// tokens or money.
    pub answer_tokens: u32,
    /// `[fleet_ledger]`: where this device's ledger is sent.
    pub fleet_ledger: Option<nearfar_egress::LedgerOptions>,
    /// The owner's table of prices.
    pub prices: Option<PathBuf>,
    /// The target that savings are reckoned by; `None` is the one that would
    /// have answered otherwise.
    pub savings_baseline: Option<TargetId>,
    /// Own names for targets.
    pub aliases: Aliases,
    /// `[shared]`: where limits are counted together with other daemons'.
    pub shared: Option<Shared>,
}

/// How often and how long a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts beyond one at each leg.
    pub most: u32,
    /// The longest pause, also when a provider asks for a longer one.
    pub longest_pause: Duration,
    /// Whether a request that a provider's content filter refused is tried at
    /// the next leg.
    pub around_refusals: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            most: 2,
            longest_pause: Duration::from_secs(10),
            around_refusals: false,
        }
    }
}

/// The HTTP front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Addresses of the data API. Empty when the file says so: then the unix
    /// socket alone is served. On those that other machines reach, every
    /// request needs a key.
    pub listen: Vec<SocketAddr>,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// Requests under way at once; more are told to come back.
    pub max_requests: usize,
    /// Connections open at once.
    pub max_connections: usize,
    /// From a connection's start to the end of its headers.
    pub header_timeout: Duration,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// How long a stop waits for answers under way.
    pub drain: Duration,
    /// How long an answer is kept in memory after its last use, for requests
    /// that go on from it. Zero keeps none.
    pub keep_answers: Duration,
    /// Bytes that all kept answers may take.
    pub keep_answers_bytes: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![DEFAULT_LISTEN],
            max_body_bytes: 32 << 20,
            max_requests: 64,
            max_connections: 512,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            keep_answers: Duration::from_secs(3_600),
            keep_answers_bytes: 8 << 20,
        }
    }
}

/// Ceilings of the device's owner. A request can narrow them, never widen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// For every request.
    pub default: Zone,
    /// For requests of a feature, on top of the default.
    pub features: BTreeMap<String, Zone>,
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            default: Zone::Cloud,
            features: BTreeMap::new(),
        }
    }
}

/// This device's models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The model that `auto` uses; `None` is the best installed one, else `concierge`.
    pub default_model: Option<String>,
    /// Threads of the engine; `None` is one for each core.
    pub threads: Option<usize>,
    /// What computes models from files.
    pub placement: nearfar_engine::Placement,
    /// Bytes that all models may take in memory together; `None` is three
    /// quarters of what this machine or control group has.
    pub memory_budget: Option<u64>,
    /// How long a model stays in memory that nobody uses; `None` is until
    /// another one needs the room.
    pub keep_alive: Option<Duration>,
    /// Models to load at the start, beside the one for `auto`.
    pub preload: Vec<String>,
    /// Bytes that pinned prompts may take on disk together, so that they
    /// outlive a restart; 0 keeps none there.
    pub pinned_on_disk: u64,
    /// What an answer of this device costs: nothing, or its energy.
    pub price: Price,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            placement: nearfar_engine::Placement::default(),
            default_model: None,
            threads: None,
            memory_budget: None,
            keep_alive: None,
            preload: Vec::new(),
            pinned_on_disk: 512 << 20,
            price: Price::FREE,
        }
    }
}

/// What does not come from the file and wins over it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`; empty when nobody said.
    pub listen: Vec<SocketAddr>,
    /// `--state-dir`, or what the supervisor settled on. An empty path means
    /// that nobody said: then the file's, then the default holds.
    pub state_dir: PathBuf,
    /// Presets whose key variable was found in the environment. Added unless
    /// the file configures them itself.
    pub env_providers: Vec<String>,
}

impl Config {
    /// Where all secrets are, each with what it is for.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &nearfar_egress::KeySource)> {
        let keys = self.providers.iter().map(|p| (p.name.as_str(), &p.key));
        let ledger = self.fleet_ledger.iter();
        let shared = self.shared.iter();
        keys.chain(ledger.map(|ledger| ("fleet_ledger", &ledger.password)))
            .chain(shared.map(|shared| ("shared", &shared.server.password)))
    }

    /// Reads a configuration. `path` names the file in messages and is what
    /// relative paths in it start from; an empty text is a whole configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(
        text: &str,
        path: Option<&Path>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigErrors> {
        let mut notes = Notes::new(text);
        let config = read(text, path, overrides, &mut notes);
        match notes.finish(path) {
            Some(errors) => Err(errors),
            None => Ok(config),
        }
    }
}

fn read(text: &str, path: Option<&Path>, overrides: &Overrides, notes: &mut Notes<'_>) -> Config {
    // A table that could not be read leaves an empty one, so that what the
    // command line says is checked all the same.
    let empty = DeTable::new();
    let parsed;
    let mut table = &empty;
    if text.len() > MAX_TEXT_BYTES {
        notes.outside(
            "configuration",
            "the file is larger than 1 MiB",
            "check that it is the right file",
        );
    } else {
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            notes.broken = true;
            let span = error.span().unwrap_or(text.len()..text.len());
            let (what, mend) = syntax(error.message());
            notes.at(span, "", what, mend);
        }
        parsed = root.into_inner();
        table = &parsed;
    }
    let low = Low::read(table, notes);
    let base = path.and_then(Path::parent);
    let state_dir = if overrides.state_dir.as_os_str().is_empty() {
        match &low.state_dir {
            Some(dir) => file_path("state_dir", dir, base, notes),
            None => paths::default_state_dir(),
        }
    } else {
        overrides.state_dir.clone()
    };
    Config {
        server: server(&low, overrides, notes),
        state_dir,
        privacy: Privacy {
            default: low.default_zone.unwrap_or(Zone::Cloud),
            features: low.feature_zones.iter().cloned().collect(),
        },
        guard: low.guard,
        access: low.access.access,
        tenants: low.tenants,
        cache: low.cache,
        local: Local {
            default_model: low
                .default_model
                .as_ref()
                .and_then(|name| local_model("local.default_model", name, notes)),
            threads: low.threads.map(|threads| threads as usize),
            placement: nearfar_engine::Placement {
                device: low
                    .device
                    .as_ref()
                    .and_then(|name| device(name, notes))
                    .unwrap_or_default(),
                memory_bytes: low.device_memory,
                layers: low.device_layers.map(|layers| layers as usize),
            },
            memory_budget: low.memory_budget,
            keep_alive: low.keep_alive,
            preload: low
                .preload
                .iter()
                .flatten()
                .filter_map(|name| local_model("local.preload", name, notes))
                .collect(),
            pinned_on_disk: low
                .pinned_on_disk
                .unwrap_or(Local::default().pinned_on_disk),
            price: low.local_price.unwrap_or(Price::FREE),
        },
        providers: provider::all(&low.providers, base, &overrides.env_providers, notes),
        credentials_dir: low
            .credentials_dir
            .as_ref()
            .map(|dir| file_path("credentials_dir", dir, base, notes)),
        limits: limits(&low.limits),
        retries: retries(&low.limits),
        use_limits: low.use_limits,
        answer_tokens: low
            .limits
            .answer_tokens
            .and_then(|tokens| u32::try_from(tokens).ok())
            .unwrap_or(DEFAULT_ANSWER_TOKENS),
        fleet_ledger: low
            .fleet_ledger
            .as_ref()
            .and_then(|low| fleet_ledger::high(low, base, notes)),
        prices: low
            .prices
            .as_ref()
            .map(|file| file_path("prices", file, base, notes)),
        savings_baseline: low
            .savings_baseline
            .as_ref()
            .and_then(|name| money::target("savings_baseline", name, notes)),
        aliases: low.aliases,
        shared: low
            .shared
            .as_ref()
            .and_then(|low| shared::high(low, base, notes)),
    }
}

/// What the TOML parser says, in a sentence, and what to do.
fn syntax(message: &str) -> (String, String) {
    let first = message.lines().next().unwrap_or("cannot be read").trim();
    let mend = if first.contains("duplicate key") {
        "leave one of them out"
    } else if first.contains("string") {
        "put texts into double quotes"
    } else if first.contains("newline") || first.contains("line") {
        "write one key = value on each line"
    } else {
        "see `nearfar config example` for how a configuration is written"
    };
    (format!("not TOML: {first}"), mend.to_owned())
}

fn server(whole: &Low, overrides: &Overrides, notes: &mut Notes<'_>) -> Server {
    let low = &whole.server;
    let default = Server::default();
    let mut listen: Vec<SocketAddr> = Vec::new();
    for text in low.listen.iter().flatten() {
        if let Some(address) = listen_address(text, notes) {
            if listen.contains(&address) && address.port() != 0 {
                notes.at(
                    text.span(),
                    "server.listen",
                    format!("{address} is there twice"),
                    "leave one out",
                );
            }
            listen.push(address);
        }
    }
    if let Some(empty) = &low.listen
        && empty.is_empty()
    {
        // An empty list says that the unix socket alone is wanted.
        listen.clear();
    } else if listen.is_empty() {
        listen = default.listen;
    }
    if !overrides.listen.is_empty() {
        listen.clone_from(&overrides.listen);
    }
    let reached = listen.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = reached
        && whole.access.access.require_key == Some(false)
    {
        notes.at(
            whole.access.require_key_at.clone(),
            "access.require_key",
            format!("{address} can be reached from other machines, so its callers need keys"),
            "leave `require_key` out, or listen on 127.0.0.1 or [::1] alone",
        );
    }
    let or = |said: Option<u64>, default: usize| said.map_or(default, |value| value as usize);
    Server {
        listen,
        max_body_bytes: or(low.max_body_bytes, default.max_body_bytes),
        max_requests: or(low.max_requests, default.max_requests),
        max_connections: or(low.max_connections, default.max_connections),
        header_timeout: low.header_timeout.unwrap_or(default.header_timeout),
        body_timeout: low.body_timeout.unwrap_or(default.body_timeout),
        drain: low.drain.unwrap_or(default.drain),
        keep_answers: low.keep_answers.unwrap_or(default.keep_answers),
        keep_answers_bytes: or(low.keep_answers_bytes, default.keep_answers_bytes),
    }
}

fn listen_address(text: &Spanned<String>, notes: &mut Notes<'_>) -> Option<SocketAddr> {
    let said = text.get_ref().as_str();
    let address = match said.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => said.to_owned(),
    };
    match address.parse::<SocketAddr>() {
        Ok(address) => Some(address),
        Err(_) => {
            notes.at(
                text.span(),
                "server.listen",
                "this is not an address with a port",
                "write it like \"127.0.0.1:4141\" or \"[::1]:4141\"",
            );
            None
        }
    }
}

/// A model's name with or without `local/`.
fn device(name: &Spanned<String>, notes: &mut Notes<'_>) -> Option<nearfar_engine::Device> {
    let device = name.get_ref().parse();
    if device.is_err() {
        notes.at(
            name.span(),
            "local.device".to_owned(),
            "this is not a device",
            "write \"cpu\", \"auto\", \"cuda:0\" or \"metal\"",
        );
    }
    device.ok()
}

fn local_model(key: &str, name: &Spanned<String>, notes: &mut Notes<'_>) -> Option<String> {
    let said = name.get_ref();
    let bare = said.strip_prefix("local/").unwrap_or(said);
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    if !bare.is_empty() && bare.len() <= 128 && bare.chars().all(fits) {
        return Some(bare.to_owned());
    }
    notes.at(
        name.span(),
        key,
        "this is not a local model's name",
        "write a name that `nearfar model list` shows, like \"concierge\"",
    );
    None
}

/// A path of the file: relative ones start where the file lies.
fn file_path(
    key: &str,
    text: &Spanned<String>,
    base: Option<&Path>,
    notes: &mut Notes<'_>,
) -> PathBuf {
    let said = text.get_ref();
    if said.starts_with('~') || said.contains("$") {
        notes.at(
            text.span(),
            key,
            "`~` and variables are not replaced in this file",
            "write the whole path, beginning with /",
        );
    }
    match base {
        Some(base) if !Path::new(said).is_absolute() => base.join(said),
        _ => PathBuf::from(said),
    }
}

fn retries(low: &LowLimits) -> Retries {
    let default = Retries::default();
    Retries {
        most: low
            .retries
            .map_or(default.most, |most| u32::try_from(most).unwrap_or(u32::MAX)),
        longest_pause: low.retry_pause.unwrap_or(default.longest_pause),
        around_refusals: low.around_refusals.unwrap_or(default.around_refusals),
    }
}

fn limits(low: &LowLimits) -> TimeLimits {
    let default = TimeLimits::default();
    let or = |said: Option<Duration>, default: u64| {
        said.map_or(default, |duration| duration.as_millis() as u64)
    };
    TimeLimits {
        connect_ms: or(low.connect, default.connect_ms),
        first_byte_ms: or(low.first_byte, default.first_byte_ms),
        idle_ms: or(low.idle, default.idle_ms),
        total_ms: or(low.total, default.total_ms),
    }
}
