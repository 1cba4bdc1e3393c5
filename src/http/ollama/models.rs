//! What can be asked for, and what is in memory, as Ollama tells it.
//!
//! This device's models come first, then those of providers, told as Ollama
//! tells of models that it does not run itself; `auto` and aliases are models, too. What is
//! not known (when the embedded model was made, a provider's file) is left out.

use std::sync::Arc;

use nearfar_domain::frames::LoadedModel;
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;
use nearfar_domain::snapshot::TargetState;
use nearfar_domain::target::Capabilities;
use serde_json::{Value, json};

use super::clock;
use crate::admission::Identity;
use crate::catalog::{Catalog, FileFacts, LocalModel};

/// The release of Ollama whose API this is: clients compare it with what they
/// need. nearfar's own version stands beside it.
const OLLAMA: &str = "0.12.6";

/// A model of this device with what its file says. Reading it blocks on the disk.
pub(super) struct Described {
    model: LocalModel,
    facts: Option<FileFacts>,
    added_ms: Option<i64>,
}

/// This device's models that a caller may use.
pub(super) fn described(catalog: &Arc<Catalog>, caller: &Identity) -> Vec<Described> {
    let manifests = catalog
        .store()
        .manifests()
        .map_or_else(|_| Vec::new(), |read| read.0);
    let models = catalog.models();
    let describe = |model: &LocalModel| {
        let manifest = manifests.iter().find(|m| m.name == model.name);
        let facts = match manifest {
            Some(manifest) => Some(manifest.facts.clone()),
            None => catalog
                .embedded_facts()
                .filter(|(name, _)| *name == model.name)
                .map(|(_, facts)| facts.clone()),
        };
        Described {
            model: model.clone(),
            facts,
            added_ms: manifest.map(|manifest| manifest.added_ms),
        }
    };
    let may_use = |model: &&LocalModel| {
        let target = TargetId::local(&model.name);
        caller.scope().allows(&target, Zone::Device)
    };
    models.iter().filter(may_use).map(describe).collect()
}

/// `/api/version`.
pub(super) fn version() -> Value {
    json!({"version": OLLAMA, "nearfar": env!("CARGO_PKG_VERSION")})
}

/// `/api/tags`, of targets that the caller may use.
pub(super) fn tags(names: &[&str], targets: &[TargetState], described: &[Described]) -> Value {
    let mut models: Vec<Value> = described.iter().map(here).collect();
    let far = targets.iter().filter(|state| !state.target.id.is_local());
    models.extend(far.map(elsewhere));
    models.extend(names.iter().map(|name| {
        json!({"name": name, "model": name, "size": 0, "digest": "", "details": no_details()})
    }));
    json!({"models": models})
}

/// `/api/show`; `None` when there is no model of this name.
pub(super) fn show(
    names: &[&str],
    targets: &[TargetState],
    described: &[Described],
    name: &str,
) -> Option<Value> {
    if names.contains(&name) {
        return Some(json!({
            "details": no_details(), "model_info": {}, "capabilities": ["completion"],
        }));
    }
    let bare = name.strip_prefix("local/").unwrap_or(name);
    if let Some(found) = described.iter().find(|d| d.model.name == bare) {
        // The engine may have learned more about it than its file says.
        let id = format!("local/{bare}");
        let state = targets
            .iter()
            .find(|state| state.target.id.to_string() == id);
        let known = state.map_or(found.model.capabilities, |state| state.target.capabilities);
        return Some(shown(found, &known));
    }
    let state = targets.iter().find(|state| {
        let id = &state.target.id;
        !id.is_local() && (id.to_string() == name || id.model() == name)
    })?;
    let mut body = elsewhere(state);
    body["model_info"] = match state.target.capabilities.context_tokens {
        Some(tokens) => json!({"general.architecture": "remote", "remote.context_length": tokens}),
        None => json!({}),
    };
    body["capabilities"] = capabilities(&state.target.capabilities);
    Some(body)
}

/// `/api/ps`.
pub(super) fn loaded(models: &[LoadedModel], described: &[Described]) -> Value {
    let one = |loaded: &LoadedModel| {
        let found = described.iter().find(|d| d.model.name == loaded.name);
        let mut body = match found {
            Some(found) => here(found),
            None => json!({"name": tagged(&loaded.name), "model": tagged(&loaded.name)}),
        };
        body["size"] = json!(loaded.memory_bytes);
        body["size_vram"] = json!(0);
        body["context_length"] = json!(loaded.context_tokens);
        body
    };
    json!({"models": models.iter().map(one).collect::<Vec<_>>()})
}

/// Ollama's clients expect a tag.
fn tagged(name: &str) -> String {
    format!("{name}:latest")
}

fn here(described: &Described) -> Value {
    let model = &described.model;
    let name = tagged(&model.name);
    let mut body = json!({
        "name": name,
        "model": name,
        "size": model.file_bytes,
        "digest": model.sha256,
        "details": details(described),
    });
    if let Some(ms) = described.added_ms {
        body["modified_at"] = json!(clock::of_ms(ms));
    }
    body
}

fn elsewhere(state: &TargetState) -> Value {
    let id = &state.target.id;
    json!({
        "name": id.to_string(),
        "model": id.to_string(),
        "remote_model": id.model(),
        "remote_host": id.place(),
        "size": 0,
        "digest": "",
        "details": no_details(),
    })
}

fn shown(described: &Described, known: &Capabilities) -> Value {
    let family = &described.model.architecture;
    let mut info = json!({"general.architecture": family});
    let mut body = json!({"details": details(described)});
    if let Some(facts) = &described.facts {
        info["general.parameter_count"] = json!(facts.parameters);
        info[format!("{family}.context_length")] = json!(facts.context_tokens);
        if let Some(dimensions) = facts.dimensions {
            info[format!("{family}.embedding_length")] = json!(dimensions);
        }
        if let Some(licence) = &facts.licence {
            body["license"] = json!(licence);
        }
    }
    body["model_info"] = info;
    body["capabilities"] = capabilities(known);
    if let Some(ms) = described.added_ms {
        body["modified_at"] = json!(clock::of_ms(ms));
    }
    body
}

fn details(described: &Described) -> Value {
    let family = &described.model.architecture;
    let facts = described.facts.as_ref();
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": facts.map_or_else(String::new, |facts| short(facts.parameters)),
        "quantization_level": facts.map_or("", |facts| facts.quantisation.as_str()),
    })
}

fn no_details() -> Value {
    json!({
        "parent_model": "", "format": "", "family": "", "families": [],
        "parameter_size": "", "quantization_level": "",
    })
}

fn capabilities(known: &Capabilities) -> Value {
    let words = [
        (known.chat, "completion"),
        (known.embeddings, "embedding"),
        (known.tools, "tools"),
        (known.vision, "vision"),
    ];
    words
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, word)| json!(word))
        .collect()
}

/// A count as Ollama shortens it: `1.2B`, `135M`.
fn short(count: u64) -> String {
    let (unit, word, digits) = match count {
        1_000_000_000.. => (1e9, "B", 1),
        1_000_000.. => (1e6, "M", 2),
        1_000.. => (1e3, "K", 0),
        _ => return count.to_string(),
    };
    let text = format!("{:.digits$}", count as f64 / unit);
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        for (count, expected) in [
            (999, "999"),
            (12_000, "12K"),
            (134_515_008, "134.52M"),
            (135_000_000, "135M"),
            (1_235_814_432, "1.2B"),
            (7_000_000_000, "7B"),
        ] {
            assert_eq!(short(count), expected);
        }
    }
}
