//! Providers by name, from the table in `presets.toml`.

use std::sync::OnceLock;

use nearfar_domain::frames::ModelCard;
use nearfar_domain::target::{Capabilities, Dialect, RemoteZone};
use serde::Deserialize;

use crate::auth::Auth;
use crate::openai::{Habits, host};
use crate::provider::{KeySource, Provider};

const TABLE: &str = include_str!("presets.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    provider: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    dialect: Dialect,
    /// None where it is another one for everybody.
    base_url: Option<String>,
    /// Ends of other host names that behave like this one.
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    habits: Habits,
    auth: Option<String>,
    key_env: Option<String>,
    #[serde(default = "cloud")]
    zone: RemoteZone,
    #[serde(default)]
    model: Vec<ModelEntry>,
}

fn cloud() -> RemoteZone {
    RemoteZone::Cloud
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    name: String,
    context_tokens: Option<u32>,
    can: Vec<Can>,
    #[serde(default)]
    auto: bool,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Can {
    Tools,
    ForcedTools,
    JsonObject,
    JsonSchema,
    Grammar,
    Vision,
    Logprobs,
    RawText,
    Embeddings,
    Prefill,
}

/// The provider of this name, ready to use once its key is there.
pub fn preset(name: &str) -> Option<Provider> {
    let found = table().iter().find(|known| known.provider.name == name);
    found.map(|known| known.provider.clone())
}

/// Every provider that is known by name.
pub fn presets() -> Vec<Provider> {
    table().iter().map(|known| known.provider.clone()).collect()
}

/// What is known of the server at this base URL: a preset's habits, told from
/// the host, or those of a server that nobody knows.
pub fn habits_at(base_url: &str) -> Habits {
    let asked = host(base_url);
    // A host of the owner's behaves as whatever runs there.
    if asked.starts_with("127.") || asked == "localhost" {
        return Habits::default();
    }
    let is_it = |known: &&Known| {
        let own = host(&known.provider.base_url);
        (!own.is_empty() && own == asked) || known.hosts.iter().any(|end| asked.ends_with(end))
    };
    let found = table().iter().find(is_it);
    found.map_or_else(Habits::default, |known| known.provider.habits)
}

struct Known {
    provider: Provider,
    hosts: Vec<String>,
}

fn table() -> &'static [Known] {
    static PARSED: OnceLock<Vec<Known>> = OnceLock::new();
    PARSED.get_or_init(|| match toml::from_str::<Table>(TABLE) {
        Ok(table) => table.provider.into_iter().map(provider).collect(),
        Err(error) => {
            // The table is part of the binary and a test parses it; a daemon
            // without presets still serves.
            tracing::error!(%error, "the table of presets does not parse");
            Vec::new()
        }
    })
}

fn provider(entry: Entry) -> Known {
    let base_url = entry.base_url.unwrap_or_default();
    let named = entry.auth.as_deref().and_then(Auth::named);
    let provider = Provider {
        auth: named.unwrap_or_else(|| Auth::usual(entry.dialect, &base_url)),
        habits: entry.habits,
        preset: Some(entry.name.clone()),
        name: entry.name,
        dialect: entry.dialect,
        base_url,
        zone: entry.zone,
        key: entry.key_env.map_or(KeySource::None, KeySource::Env),
        models: entry.model.into_iter().map(card).collect(),
        open_list: true,
    };
    Known {
        provider,
        hosts: entry.hosts,
    }
}

fn card(entry: ModelEntry) -> ModelCard {
    let can = |ability| entry.can.contains(&ability);
    ModelCard {
        capabilities: Capabilities {
            context_tokens: entry.context_tokens,
            tools: can(Can::Tools),
            forced_tools: can(Can::ForcedTools),
            json_object: can(Can::JsonObject),
            json_schema: can(Can::JsonSchema),
            grammar: can(Can::Grammar),
            vision: can(Can::Vision),
            logprobs: can(Can::Logprobs),
            raw_text: can(Can::RawText),
            chat: entry.can.iter().all(|can| *can != Can::Embeddings),
            embeddings: can(Can::Embeddings),
        },
        price: None,
        auto: entry.auto,
        prefill: can(Can::Prefill),
        name: entry.name,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_parses_and_names_are_unique() {
        let table: Table = toml::from_str(TABLE).unwrap();
        assert_eq!(table.provider.len(), presets().len());
        let mut names: Vec<_> = presets().into_iter().map(|p| p.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(all >= 22, "{all} presets");
        for entry in &table.provider {
            let auth = entry.auth.as_deref();
            assert!(
                auth.is_none_or(|auth| Auth::named(auth).is_some()),
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn openai_and_anthropic_have_a_model_for_auto() {
        for (name, variable) in [
            ("openai", "OPENAI_API_KEY"),
            ("anthropic", "ANTHROPIC_API_KEY"),
        ] {
            let provider = preset(name).unwrap();
            assert_eq!(provider.key, KeySource::Env(variable.to_owned()));
            assert!(provider.models[0].auto, "{name}");
            assert_eq!(provider.models.iter().filter(|m| m.auto).count(), 1);
        }
    }

    #[test]
    fn what_takes_no_key_is_on_the_site_and_on_loopback() {
        for provider in presets() {
            let own = provider.zone == RemoteZone::Site;
            assert_eq!(own, provider.key == KeySource::None, "{}", provider.name);
            let (url, name) = (&provider.base_url, &provider.name);
            let elsewhere = url.is_empty() || url.starts_with("http://127.0.0.1:");
            assert!(!own || elsewhere, "{name}");
            assert!(
                own || url.is_empty() || url.starts_with("https://"),
                "{name}"
            );
        }
    }

    #[test]
    fn servers_are_told_by_their_host() {
        assert!(!habits_at("https://api.openai.com:443/v1").sampling_extras);
        assert_eq!(
            habits_at("https://api.mistral.ai/v1").seed,
            crate::openai::Seed::RandomSeed
        );
        let azure = habits_at("https://mine.openai.azure.com/openai/v1");
        assert_eq!(azure.limit, crate::openai::Limit::MaxCompletionTokens);
        for unknown in [
            "http://127.0.0.1:8000/v1",
            "http://api.openai.com.evil.example/v1",
            "https://mine.openai.azure.com.evil.example/v1",
        ] {
            assert_eq!(habits_at(unknown), Habits::default(), "{unknown}");
        }
    }

    #[test]
    fn an_unknown_name_is_none() {
        assert_eq!(preset("nobody"), None);
    }
}
