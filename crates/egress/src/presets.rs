//! Providers by name, from the table in `presets.toml`.

use std::sync::OnceLock;

use nearfar_domain::frames::ModelCard;
use nearfar_domain::price::Price;
use nearfar_domain::target::{Capabilities, Dialect, RemoteZone};
use serde::Deserialize;

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
    base_url: String,
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
    price: Option<[u64; 3]>,
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
    table().iter().find(|p| p.name == name).cloned()
}

/// Every provider that is known by name.
pub fn presets() -> Vec<Provider> {
    table().to_vec()
}

fn table() -> &'static [Provider] {
    static PARSED: OnceLock<Vec<Provider>> = OnceLock::new();
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

fn provider(entry: Entry) -> Provider {
    Provider {
        name: entry.name,
        dialect: entry.dialect,
        base_url: entry.base_url,
        zone: entry.zone,
        key: entry.key_env.map_or(KeySource::None, KeySource::Env),
        models: entry.model.into_iter().map(card).collect(),
        open_list: true,
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
        price: entry.price.map(|[prompt, cached, completion]| Price {
            prompt_micro_per_mtok: prompt,
            cached_prompt_micro_per_mtok: cached,
            completion_micro_per_mtok: completion,
        }),
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
        assert!(all >= 14, "{all} presets");
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
            assert!(provider.models[0].price.is_some(), "{name}");
            assert_eq!(provider.models.iter().filter(|m| m.auto).count(), 1);
        }
    }

    #[test]
    fn what_takes_no_key_is_on_the_site_and_on_loopback() {
        for provider in presets() {
            let own = provider.zone == RemoteZone::Site;
            assert_eq!(own, provider.key == KeySource::None, "{}", provider.name);
            assert_eq!(
                own,
                provider.base_url.starts_with("http://127.0.0.1:"),
                "{}",
                provider.name
            );
        }
    }

    #[test]
    fn a_cached_prompt_is_never_dearer() {
        for model in presets().iter().flat_map(|p| &p.models) {
            if let Some(price) = model.price {
                assert!(
                    price.cached_prompt_micro_per_mtok <= price.prompt_micro_per_mtok,
                    "{}",
                    model.name
                );
            }
        }
    }

    #[test]
    fn an_unknown_name_is_none() {
        assert_eq!(preset("nobody"), None);
    }
}
