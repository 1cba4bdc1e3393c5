//! Gathers what the decision may see into one [`Snapshot`]: local models from
//! the catalog, providers' models from their cards, the state of the processes
//! from [`parts`], how targets have done from [`crate::health`].
//!
//! Read anew for each request: every source is a lock of a few instructions,
//! and a copy that is kept would have to be told of each change.

pub mod parts;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use nearfar_domain::frames::{EngineState, ProviderCard};
use nearfar_domain::ids::TargetId;
use nearfar_domain::price::Price;
use nearfar_domain::snapshot::{Health as Usable, Snapshot, TargetState};
use nearfar_domain::target::{Capabilities, Dialect, Place, Target};

use crate::catalog::LocalModel;
use crate::config::Aliases;
use crate::handover::Role;
use crate::health::{Health, Prior, load_ms};
use crate::links::{EgressLink, EngineLink};
use crate::prices::Tariffs;
use parts::{PartBoard, Presence};

/// Milliseconds before a remote leg's first byte can leave: none is expected
/// beyond the target's own time to first token, which includes connecting.
const REMOTE_WAIT_MS: f64 = 0.0;

/// Tells this device's models, now. Must not block.
pub type Models = Box<dyn Fn() -> Arc<Vec<LocalModel>> + Send + Sync>;

/// Where the sources are.
pub struct View {
    /// Models of this device.
    pub models: Models,
    /// The model that `auto` prefers on this device, from the configuration.
    pub preferred: Option<String>,
    /// Memory that one model may take, in bytes.
    pub memory_bytes: u64,
    /// To the engine.
    pub engine: EngineLink,
    /// To egress.
    pub egress: EgressLink,
    /// What the supervisor said of both.
    pub parts: Arc<PartBoard>,
    /// How targets have done.
    pub health: Arc<Health>,
    /// What models of providers cost that nobody listed.
    pub tariffs: Arc<Tariffs>,
    /// What an answer of this device costs.
    pub local_price: Price,
    /// Own names for targets.
    pub aliases: Aliases,
}

impl View {
    /// Models of this device, now.
    pub fn models(&self) -> Arc<Vec<LocalModel>> {
        (self.models)()
    }

    /// Looks at all sources at one moment.
    pub fn look<T>(&self, models: &[LocalModel], see: impl FnOnce(&Sources<'_>) -> T) -> T {
        let now = Instant::now();
        let state = self.engine.state();
        let cards = self.egress.cards();
        let (engine, egress) = (self.engine.gone_since(), self.egress.gone_since());
        see(&Sources {
            models,
            preferred: self.preferred.as_deref(),
            memory_bytes: self.memory_bytes,
            engine: self.parts.presence(Role::Engine, engine, now),
            engine_state: &state,
            egress: self.parts.presence(Role::Egress, egress, now),
            cards: &cards,
            health: &self.health,
            tariffs: &self.tariffs,
            local_price: self.local_price,
            now,
        })
    }
}

/// Everything that a snapshot is made from, at one moment.
pub struct Sources<'a> {
    /// Models of this device.
    pub models: &'a [LocalModel],
    /// The model that `auto` prefers on this device, from the configuration.
    pub preferred: Option<&'a str>,
    /// Memory that one model may take, in bytes.
    pub memory_bytes: u64,
    /// The engine's process.
    pub engine: Presence,
    /// What the engine said of itself.
    pub engine_state: &'a EngineState,
    /// Egress's process.
    pub egress: Presence,
    /// Providers.
    pub cards: &'a [ProviderCard],
    /// How targets have done.
    pub health: &'a Arc<Health>,
    /// What models of providers cost that nobody listed.
    pub tariffs: &'a Tariffs,
    /// What an answer of this device costs.
    pub local_price: Price,
    /// The moment.
    pub now: Instant,
}

impl Sources<'_> {
    /// The snapshot: this device's models first, then nearer before farther
    /// providers, each in its own order. A model that an open provider does not
    /// list is there when `named` names it.
    pub fn snapshot(&self, named: &[TargetId]) -> Snapshot {
        let mut targets = self.local_targets();
        let mut remote = Vec::new();
        for card in self.cards {
            for model in &card.models {
                if let Some(id) = TargetId::remote(&card.name, &model.name) {
                    let target = remote_target(card, id, model.capabilities, model.price);
                    remote.push(self.remote_state(
                        card,
                        Target {
                            auto: model.auto,
                            ..target
                        },
                    ));
                }
            }
            let unlisted = named.iter().filter(|id| {
                card.open_list
                    && id.place() == card.name
                    && !card.models.iter().any(|model| model.name == id.model())
            });
            for id in unlisted {
                let price = self.tariffs.price(&card.name, id.model());
                let target = remote_target(card, id.clone(), dialect_can(card.dialect), price);
                remote.push(self.remote_state(card, target));
            }
        }
        remote.sort_by_key(|state| state.target.zone());
        targets.append(&mut remote);
        Snapshot { targets }
    }

    /// The local model that `auto` uses now: the preferred or best one, and the
    /// embedded one while that one is out of order.
    pub fn auto_model(&self) -> Option<&LocalModel> {
        let best = best_model(self.models, self.preferred, self.memory_bytes)?;
        if self.allows(&TargetId::local(&best.name)) {
            return Some(best);
        }
        let fallback = self
            .models
            .iter()
            .find(|model| is_embedded(model) && self.allows(&TargetId::local(&model.name)));
        Some(fallback.unwrap_or(best))
    }

    fn allows(&self, id: &TargetId) -> bool {
        self.health.allows(id, self.now)
    }

    /// The model that `auto` uses for vectors: the only one. With several, a
    /// request must name one: vectors of different models do not compare, and
    /// a model that is added must not change those that an app has stored.
    fn auto_embedder(&self) -> Option<&LocalModel> {
        let mut embedders = self
            .models
            .iter()
            .filter(|model| model.capabilities.embeddings);
        embedders.next().filter(|_| embedders.next().is_none())
    }

    fn local_targets(&self) -> Vec<TargetState> {
        let autos = [self.auto_model(), self.auto_embedder()];
        let auto = |model: &LocalModel| autos.iter().flatten().any(|auto| auto.name == model.name);
        let mut states: Vec<TargetState> = self
            .models
            .iter()
            .map(|model| self.local_state(model, auto(model)))
            .collect();
        states.sort_by_key(|state| (!state.target.auto, !state.target.capabilities.chat));
        states
    }

    fn local_state(&self, model: &LocalModel, auto: bool) -> TargetState {
        let id = TargetId::local(&model.name);
        let loaded = self
            .engine_state
            .models
            .iter()
            .any(|loaded| loaded.name == model.name);
        let load = if loaded {
            0.0
        } else {
            load_ms(model.file_bytes)
        };
        let (mut health, start) = usable(self.engine);
        if health != Usable::ProcessDown && !self.allows(&id) {
            health = Usable::BreakerOpen;
        }
        let mut latency = self.health.latency(&id, &Prior::local(model.file_bytes));
        // What the engine measures in this moment is better than what was
        // learned from answers that ended.
        let loads = &self.engine_state.loads;
        if let Some(load) = loads.iter().find(|load| load.name == model.name) {
            let measured = |rate: Option<f64>| rate.filter(|ms| ms.is_finite() && *ms > 0.0);
            latency.ms_per_prompt_token =
                measured(load.ms_per_prompt_token).unwrap_or(latency.ms_per_prompt_token);
            latency.ms_per_token = measured(load.ms_per_token).unwrap_or(latency.ms_per_token);
        }
        TargetState {
            cached_tokens: 0,
            barred: None,
            soft: None,
            health,
            wait_ms: start + load + self.engine_state.wait_ms.max(0.0),
            latency,
            target: Target {
                id,
                place: Place::Local,
                capabilities: model.capabilities,
                price: Some(self.local_price),
                auto,
            },
        }
    }

    fn remote_state(&self, card: &ProviderCard, target: Target) -> TargetState {
        let (mut health, start) = usable(self.egress);
        if !card.ready {
            health = Usable::NoKey;
        } else if health != Usable::ProcessDown && !self.allows(&target.id) {
            health = Usable::BreakerOpen;
        }
        TargetState {
            cached_tokens: 0,
            barred: None,
            soft: None,
            health,
            wait_ms: start + REMOTE_WAIT_MS,
            latency: self.health.latency(&target.id, &Prior::remote(card.zone)),
            target,
        }
    }
}

fn usable(presence: Presence) -> (Usable, f64) {
    match presence {
        Presence::Up => (Usable::Up, 0.0),
        Presence::Starting(in_ms) => (Usable::Starting, in_ms),
        Presence::Down => (Usable::ProcessDown, 0.0),
    }
}

/// A provider's model that only a request which names it may use.
fn remote_target(
    card: &ProviderCard,
    id: TargetId,
    capabilities: Capabilities,
    price: Option<Price>,
) -> Target {
    Target {
        id,
        place: Place::Remote {
            zone: card.zone,
            dialect: card.dialect,
        },
        capabilities,
        price,
        auto: false,
    }
}

/// What a model that nobody described is taken to be able to do: what its
/// dialect can say. The client chose it by name and knows it better than we do.
fn dialect_can(dialect: Dialect) -> Capabilities {
    let openai = dialect == Dialect::Openai;
    let gemini = dialect == Dialect::Gemini;
    Capabilities {
        context_tokens: None,
        tools: true,
        forced_tools: true,
        // Anthropic's and Bedrock's have no JSON mode without a schema.
        json_object: openai || gemini,
        json_schema: true,
        grammar: openai,
        vision: true,
        logprobs: openai || gemini,
        raw_text: openai,
        chat: true,
        embeddings: openai,
    }
}

/// The model that `auto` prefers: the configured one, else the largest that
/// fits the memory, else the embedded one.
pub fn best_model<'a>(
    models: &'a [LocalModel],
    preferred: Option<&str>,
    memory_bytes: u64,
) -> Option<&'a LocalModel> {
    let named = preferred.and_then(|name| models.iter().find(|model| model.name == name));
    let largest = || {
        models
            .iter()
            .filter(|model| generates(model) && !is_embedded(model))
            .filter(|model| needed_bytes(model) <= memory_bytes)
            .max_by_key(|model| model.file_bytes)
    };
    let embedded = || models.iter().find(|model| is_embedded(model));
    named.or_else(largest).or_else(embedded)
}

/// Weights, and a quarter more for the cache and the computation.
fn needed_bytes(model: &LocalModel) -> u64 {
    model.file_bytes + model.file_bytes / 4
}

fn is_embedded(model: &LocalModel) -> bool {
    model.source == nearfar_domain::frames::ModelSource::Embedded
}

/// Whether the model writes text; an embedding model does not.
fn generates(model: &LocalModel) -> bool {
    model.capabilities.chat
}
