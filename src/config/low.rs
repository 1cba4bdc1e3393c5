//! What was typed: the file's shape with the place of each value that may turn
//! out wrong later. Types and ranges are checked here; meaning is not.

use std::collections::BTreeMap;
use std::time::Duration;

use nearfar_domain::price::Price;
use nearfar_domain::privacy::Zone;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::access::{self, LowAccess, Tenant};
use super::cache::{self, Cache};
use super::errors::Notes;
use super::fleet_ledger;
use super::guard::{self, Guard};
use super::limit::{self, Limit};
use super::money::{self, Aliases};
use super::reader::{Section, as_section, as_text, nearest, shorten, wrong_type};
use super::shared;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Low {
    pub(super) server: LowServer,
    pub(super) state_dir: Option<Spanned<String>>,
    pub(super) credentials_dir: Option<Spanned<String>>,
    pub(super) default_zone: Option<Zone>,
    pub(super) feature_zones: Vec<(String, Zone)>,
    pub(super) guard: Guard,
    pub(super) access: LowAccess,
    pub(super) tenants: BTreeMap<String, Tenant>,
    pub(super) cache: Cache,
    pub(super) default_model: Option<Spanned<String>>,
    pub(super) memory_budget: Option<u64>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) preload: Option<Vec<Spanned<String>>>,
    pub(super) pinned_on_disk: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) device: Option<Spanned<String>>,
    pub(super) device_memory: Option<u64>,
    pub(super) device_layers: Option<u64>,
    pub(super) limits: LowLimits,
    pub(super) use_limits: Vec<Limit>,
    pub(super) providers: Vec<LowProvider>,
    pub(super) fleet_ledger: Option<fleet_ledger::Low>,
    pub(super) local_price: Option<Price>,
    pub(super) prices: Option<Spanned<String>>,
    pub(super) savings_baseline: Option<Spanned<String>>,
    pub(super) aliases: Aliases,
    pub(super) shared: Option<shared::Low>,
}

/// `[server]`.
#[derive(Debug, Default)]
pub(super) struct LowServer {
    pub(super) listen: Option<Vec<Spanned<String>>>,
    pub(super) max_body_bytes: Option<u64>,
    pub(super) max_requests: Option<u64>,
    pub(super) max_connections: Option<u64>,
    pub(super) header_timeout: Option<Duration>,
    pub(super) body_timeout: Option<Duration>,
    pub(super) drain: Option<Duration>,
    pub(super) keep_answers: Option<Duration>,
    pub(super) keep_answers_bytes: Option<u64>,
}

/// `[limits]`.
#[derive(Debug, Default)]
pub(super) struct LowLimits {
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) total: Option<Duration>,
    pub(super) retries: Option<u64>,
    pub(super) retry_pause: Option<Duration>,
    pub(super) around_refusals: Option<bool>,
    pub(super) answer_tokens: Option<u64>,
}

/// `[providers.NAME]`.
#[derive(Debug)]
pub(super) struct LowProvider {
    pub(super) name: Spanned<String>,
    pub(super) preset: Option<Spanned<String>>,
    pub(super) dialect: Option<Spanned<String>>,
    pub(super) auth: Option<Spanned<String>>,
    pub(super) base_url: Option<Spanned<String>>,
    pub(super) zone: Option<Spanned<Zone>>,
    pub(super) key_file: Option<Spanned<String>>,
    pub(super) key_env: Option<Spanned<String>>,
    pub(super) key_credential: Option<Spanned<String>>,
    pub(super) open_list: Option<Spanned<bool>>,
    pub(super) models: Option<Vec<LowModel>>,
}

/// `[[providers.NAME.models]]`. `None` is "not said".
#[derive(Debug)]
pub(super) struct LowModel {
    pub(super) name: Spanned<String>,
    pub(super) context_tokens: Option<u64>,
    pub(super) auto: Option<bool>,
    pub(super) tools: Option<bool>,
    pub(super) forced_tools: Option<bool>,
    pub(super) json_object: Option<bool>,
    pub(super) json_schema: Option<bool>,
    pub(super) grammar: Option<bool>,
    pub(super) vision: Option<bool>,
    pub(super) logprobs: Option<bool>,
    pub(super) raw_text: Option<bool>,
    pub(super) embeddings: Option<bool>,
    pub(super) prefill: Option<bool>,
    pub(super) price: Option<Price>,
}

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const MAX_LISTEN: usize = 16;
const MAX_PROVIDERS: usize = 64;
const MAX_MODELS: usize = 512;
const MAX_FEATURES: usize = 1_024;

impl Low {
    /// Takes the whole table apart.
    pub(super) fn read(table: &DeTable<'_>, notes: &mut Notes<'_>) -> Low {
        let mut low = Low::default();
        let mut root = Section::new("", table, 0..0);
        if let Some(section) = root.section("server", notes) {
            low.server = server(section, notes);
        }
        low.state_dir = root.text("state_dir", notes);
        low.credentials_dir = root.text("credentials_dir", notes);
        low.prices = root.text("prices", notes);
        low.savings_baseline = root.text("savings_baseline", notes);
        if let Some(section) = root.section("aliases", notes) {
            low.aliases = money::aliases(&section, notes);
        }
        if let Some(section) = root.section("privacy", notes) {
            privacy(&mut low, section, notes);
        }
        if let Some(section) = root.section("guard", notes) {
            low.guard = guard::read(section, notes);
        }
        if let Some(section) = root.section("access", notes) {
            low.access = access::read(section, notes);
        }
        if let Some(section) = root.section("tenants", notes) {
            low.tenants = access::tenants(&section, notes);
        }
        if let Some(section) = root.section("cache", notes) {
            low.cache = cache::read(section, notes);
        }
        if let Some(mut section) = root.section("local", notes) {
            low.default_model = section.text("default_model", notes);
            low.threads = section.integer("threads", 1, 512, notes);
            low.device = section.text("device", notes);
            low.device_memory = section.size("device_memory", 64 << 20, 1 << 50, notes);
            low.device_layers = section.integer("device_layers", 0, 512, notes);
            low.memory_budget = section.size("memory_budget", 64 << 20, 1 << 50, notes);
            low.keep_alive = section.duration("keep_alive", SECOND, 30 * DAY, notes);
            low.preload = texts("preload", &mut section, notes);
            low.pinned_on_disk = section.size("pinned_on_disk", 0, 1 << 50, notes);
            low.local_price = money::price(&mut section, notes);
            section.finish(notes);
        }
        if let Some(mut section) = root.section("limits", notes) {
            low.limits = LowLimits {
                connect: section.duration("connect", MS, HOUR, notes),
                first_byte: section.duration("first_byte", MS, HOUR, notes),
                idle: section.duration("idle", MS, HOUR, notes),
                total: section.duration("total", MS, DAY, notes),
                retries: section.integer("retries", 0, 10, notes),
                retry_pause: section.duration("retry_pause", MS, HOUR, notes),
                around_refusals: section.flag("around_refusals", notes),
                answer_tokens: section.integer("answer_tokens", 1, 10_000_000, notes),
            };
            section.finish(notes);
        }
        if let Some(value) = root.take("limit") {
            low.use_limits = limit::read(value, notes);
        }
        if let Some(section) = root.section("providers", notes) {
            low.providers = providers(&section, notes);
        }
        if let Some(section) = root.section("fleet_ledger", notes) {
            low.fleet_ledger = Some(fleet_ledger::low(section, notes));
        }
        if let Some(section) = root.section("shared", notes) {
            low.shared = Some(shared::low(section, notes));
        }
        root.finish(notes);
        low
    }
}

fn server(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> LowServer {
    let server = LowServer {
        listen: listen(&mut section, notes),
        // Below this not even a short question fits.
        max_body_bytes: section.size("max_body_bytes", 1 << 10, 1 << 30, notes),
        max_requests: section.integer("max_requests", 1, 65_536, notes),
        max_connections: section.integer("max_connections", 1, 65_536, notes),
        header_timeout: section.duration("header_timeout", 10 * MS, HOUR, notes),
        body_timeout: section.duration("body_timeout", 10 * MS, HOUR, notes),
        drain: section.duration("drain", Duration::ZERO, HOUR, notes),
        keep_answers: section.duration("keep_answers", Duration::ZERO, 30 * DAY, notes),
        keep_answers_bytes: section.size("keep_answers_bytes", 0, 1 << 30, notes),
    };
    section.finish(notes);
    server
}

/// A list of texts.
fn texts(
    name: &'static str,
    section: &mut Section<'_, '_>,
    notes: &mut Notes<'_>,
) -> Option<Vec<Spanned<String>>> {
    let value = section.take(name)?;
    let key = section.key(name);
    match value.get_ref() {
        DeValue::Array(items) if items.len() <= MAX_MODELS => {
            let texts = items.iter().filter_map(|item| as_text(&key, item, notes));
            Some(texts.collect())
        }
        other => {
            notes.at(
                value.span(),
                &key,
                wrong_type(&key, "a short list of names", other),
                "write a list of names, like [\"concierge\"]",
            );
            None
        }
    }
}

/// One address or a list of them.
fn listen(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Vec<Spanned<String>>> {
    let value = section.take("listen")?;
    let key = section.key("listen");
    let mend = "write a list of addresses, like [\"127.0.0.1:4141\"]";
    match value.get_ref() {
        DeValue::String(_) => as_text(&key, value, notes).map(|text| vec![text]),
        DeValue::Array(items) if items.len() > MAX_LISTEN => {
            notes.at(
                value.span(),
                &key,
                format!("`{key}` has more than {MAX_LISTEN} addresses"),
                "leave some out",
            );
            None
        }
        DeValue::Array(items) => Some(
            items
                .iter()
                .filter_map(|item| as_text(&key, item, notes))
                .collect(),
        ),
        other => {
            notes.at(
                value.span(),
                &key,
                wrong_type(&key, "a list of addresses", other),
                mend,
            );
            None
        }
    }
}

fn privacy(low: &mut Low, mut section: Section<'_, '_>, notes: &mut Notes<'_>) {
    if let Some(text) = section.text("default", notes) {
        low.default_zone = zone("privacy.default", &text, notes);
    }
    if let Some(features) = section.section("features", notes) {
        for (count, (name, span, value)) in features.entries().enumerate() {
            let key = features.key(&shorten(name));
            if count == MAX_FEATURES {
                notes.at(
                    span,
                    &key,
                    format!("there are more than {MAX_FEATURES} features"),
                    "leave some out, or set privacy.default",
                );
                break;
            }
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                notes.at(
                    span,
                    &key,
                    "a feature's name must have 1 to 128 printable characters",
                    "shorten the name",
                );
                continue;
            }
            if let Some(text) = as_text(&key, value, notes)
                && let Some(zone) = zone(&key, &text, notes)
            {
                low.feature_zones.push((name.to_owned(), zone));
            }
        }
    }
    section.finish(notes);
}

pub(super) fn zone(key: &str, text: &Spanned<String>, notes: &mut Notes<'_>) -> Option<Zone> {
    match text.get_ref().as_str() {
        "device" => Some(Zone::Device),
        "site" => Some(Zone::Site),
        "cloud" => Some(Zone::Cloud),
        other => {
            let near = nearest(other, &["device", "site", "cloud"]);
            notes.at(
                text.span(),
                key,
                format!("`{}` is not a zone", shorten(other)),
                match near {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write \"device\", \"site\" or \"cloud\"".to_owned(),
                },
            );
            None
        }
    }
}

fn providers(section: &Section<'_, '_>, notes: &mut Notes<'_>) -> Vec<LowProvider> {
    let mut providers = Vec::new();
    for (count, (name, span, value)) in section.entries().enumerate() {
        if count == MAX_PROVIDERS {
            notes.at(
                span,
                "providers",
                format!("there are more than {MAX_PROVIDERS} providers"),
                "leave some out",
            );
            break;
        }
        let path = section.key(&shorten(name));
        if let Some(section) = as_section(&path, value, span.clone(), notes) {
            providers.push(provider(
                Spanned::new(span, name.to_owned()),
                section,
                notes,
            ));
        }
    }
    providers
}

fn provider(
    name: Spanned<String>,
    mut section: Section<'_, '_>,
    notes: &mut Notes<'_>,
) -> LowProvider {
    let preset = section.text("preset", notes);
    let dialect = section.text("dialect", notes);
    let auth = section.text("auth", notes);
    let base_url = section.text("base_url", notes);
    let zone = section.text("zone", notes).and_then(|text| {
        zone(&section.key("zone"), &text, notes).map(|zone| Spanned::new(text.span(), zone))
    });
    let key_file = section.text("key_file", notes);
    let key_env = section.text("key_env", notes);
    let key_credential = section.text("key_credential", notes);
    let open_list = section
        .flag("open_list", notes)
        .map(|flag| Spanned::new(section.key_span("open_list"), flag));
    let models = models(&mut section, notes);
    section.finish(notes);
    LowProvider {
        name,
        preset,
        dialect,
        auth,
        base_url,
        zone,
        key_file,
        key_env,
        key_credential,
        open_list,
        models,
    }
}

fn models(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Vec<LowModel>> {
    let value = section.take("models")?;
    let path = section.key("models");
    let DeValue::Array(items) = value.get_ref() else {
        notes.at(
            value.span(),
            &path,
            wrong_type(&path, "a list of tables", value.get_ref()),
            format!("write a section [[{path}]] for each model"),
        );
        return None;
    };
    if items.len() > MAX_MODELS {
        notes.at(
            value.span(),
            &path,
            format!("`{path}` has more than {MAX_MODELS} models"),
            "leave some out and set open_list = true",
        );
        return None;
    }
    Some(
        items
            .iter()
            .filter_map(|item| {
                let section = as_section(&path, item, item.span(), notes)?;
                model(section, notes)
            })
            .collect(),
    )
}

fn model(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Option<LowModel> {
    let said_name = section.take("name").is_some();
    let name = section.text("name", notes);
    let low = LowModel {
        name: name
            .clone()
            .unwrap_or_else(|| Spanned::new(0..0, String::new())),
        context_tokens: section.integer("context_tokens", 16, 100_000_000, notes),
        auto: section.flag("auto", notes),
        tools: section.flag("tools", notes),
        forced_tools: section.flag("forced_tools", notes),
        json_object: section.flag("json_object", notes),
        json_schema: section.flag("json_schema", notes),
        grammar: section.flag("grammar", notes),
        vision: section.flag("vision", notes),
        logprobs: section.flag("logprobs", notes),
        raw_text: section.flag("raw_text", notes),
        embeddings: section.flag("embeddings", notes),
        prefill: section.flag("prefill", notes),
        price: money::price(&mut section, notes),
    };
    if !said_name {
        notes.absent(
            section.span.clone(),
            section.key("name"),
            "a model has no name",
            "write name = \"…\", as the provider calls the model",
        );
    }
    section.finish(notes);
    name.map(|_| low)
}
