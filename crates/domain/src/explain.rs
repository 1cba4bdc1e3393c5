//! Why a decision is what it is, in a form that people and programs read.

use serde::{Deserialize, Serialize};

use crate::ids::{DecisionId, TargetId};
use crate::limit::{Barred, Soft};
use crate::price::Estimate;
use crate::privacy::{Ceiling, Zone};

/// A decision laid open: metadata only, never content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The decision.
    pub id: DecisionId,
    /// How far the request may go, and who said so.
    pub ceiling: Ceiling,
    /// Why the first leg is the first, or why there is none.
    pub verdict: Verdict,
    /// Every target that was considered.
    pub candidates: Vec<Candidate>,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is at least one leg.
    Go(Reason),
    /// There is none.
    Refuse(Refusal),
}

/// Why the first leg is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request named this target.
    Named,
    /// The request must stay on the device.
    Confined,
    /// The device can do it in time.
    Near,
    /// The request asked for a remote target.
    AskedRemote,
    /// No nearer target has the ability.
    Capability,
    /// No nearer target is in health.
    Health,
    /// A nearer target would miss the deadline.
    Deadline,
    /// It is the cheaper one.
    Cost,
    /// The same request was answered before, and that answer was kept.
    Cache,
    /// A request that means the same was answered before.
    SemanticCache,
    /// A limit is past its soft share, so the cheapest or nearest comes first.
    Limit,
}

impl Reason {
    /// The word in headers, metrics and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Named => "named",
            Reason::Confined => "confined",
            Reason::Near => "near",
            Reason::AskedRemote => "asked_remote",
            Reason::Capability => "capability",
            Reason::Health => "health",
            Reason::Deadline => "deadline",
            Reason::Cost => "cost",
            Reason::Cache => "cache",
            Reason::SemanticCache => "semantic_cache",
            Reason::Limit => "limit",
        }
    }
}

/// Why no target may or can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There are no targets at all.
    NoTargets,
    /// Targets could answer, but all lie beyond the ceiling.
    Privacy,
    /// No allowed target has the abilities that the request needs.
    Capability,
    /// Every allowed and able target is down.
    Health,
    /// Every allowed and able target is dearer than the request allows.
    Cost,
    /// A limit keeps every allowed and able target out.
    Limit,
    /// The request's own routing wish leaves nothing.
    Route,
    /// Its caller may use none of the targets that could answer.
    Scope,
}

impl Refusal {
    /// The word in errors, metrics and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::NoTargets => "no_targets",
            Refusal::Privacy => "privacy",
            Refusal::Capability => "capability",
            Refusal::Health => "health",
            Refusal::Cost => "cost",
            Refusal::Limit => "limit",
            Refusal::Route => "route",
            Refusal::Scope => "scope",
        }
    }
}

/// One target that was considered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The target.
    pub target: TargetId,
    /// Its zone.
    pub zone: Zone,
    /// What it would cost; `None` where its price is not known.
    pub cost: Option<Estimate>,
    /// What became of it.
    pub outcome: Outcome,
    /// The limit past its soft share that put it behind others.
    #[serde(default)]
    pub behind: Option<Soft>,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not allowed or not able; the first reason found.
    Excluded(Exclusion),
    /// A leg of the decision.
    Leg {
        /// 0 is tried first.
        rank: u32,
        /// What was predicted and how it was scored.
        forecast: Forecast,
    },
}

/// Why a target is out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// Lies beyond the ceiling.
    BeyondCeiling,
    /// The request named another target, or `auto` may not choose this one.
    NotAsked,
    /// The request's key or tenant may not use it.
    OutOfScope,
    /// The request asked for local or for remote targets only.
    RouteTag,
    /// Lacks the ability of this name.
    Lacks(Ability),
    /// Prompt and answer need more context than it has.
    ContextTooSmall {
        /// Estimated need in tokens.
        need: u32,
        /// What it has.
        has: u32,
    },
    /// It is down.
    Down(crate::snapshot::Health),
    /// What it may cost is over the request's limit.
    TooDear {
        /// The most that it may cost, in micro-units.
        cost_micro: u64,
    },
    /// The request limits the cost and this price is not known.
    PriceUnknown,
    /// A limit keeps it out.
    OverLimit(Barred),
    /// Allowed and able, but there are enough better ones.
    Outranked,
}

/// What was predicted for a leg.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Time to first token, waiting included, in milliseconds.
    pub ttft_ms: f64,
    /// Time of the whole answer in milliseconds.
    pub total_ms: f64,
    /// Probability that every deadline of the request is met; 1 without one.
    pub p_meets: f64,
    /// Likely cost in micro-units; `None` where the price is not known.
    pub cost_micro: Option<u64>,
    /// The most that it can cost; `None` where the price is not known or nothing
    /// bounds the answer.
    pub most_cost_micro: Option<u64>,
    /// The score; higher is tried earlier.
    pub score: f64,
}

/// An ability that a request can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// See [`crate::target::Capabilities::tools`].
    Tools,
    /// See [`crate::target::Capabilities::forced_tools`].
    ForcedTools,
    /// See [`crate::target::Capabilities::json_object`].
    JsonObject,
    /// See [`crate::target::Capabilities::json_schema`].
    JsonSchema,
    /// See [`crate::target::Capabilities::grammar`].
    Grammar,
    /// See [`crate::target::Capabilities::vision`].
    Vision,
    /// See [`crate::target::Capabilities::logprobs`].
    Logprobs,
    /// See [`crate::target::Capabilities::raw_text`].
    RawText,
    /// See [`crate::target::Capabilities::chat`].
    Chat,
    /// See [`crate::target::Capabilities::embeddings`].
    Embeddings,
}

impl Ability {
    /// The word in explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Ability::Tools => "tools",
            Ability::ForcedTools => "forced tool calls",
            Ability::JsonObject => "JSON mode",
            Ability::JsonSchema => "JSON schema",
            Ability::Grammar => "grammars",
            Ability::Vision => "vision",
            Ability::Logprobs => "log-probabilities",
            Ability::RawText => "raw text completion",
            Ability::Chat => "answers in words",
            Ability::Embeddings => "embeddings",
        }
    }
}

impl Exclusion {
    /// One clause for people.
    pub fn describe(&self) -> String {
        use crate::snapshot::Health;
        match self {
            Exclusion::BeyondCeiling => "beyond the request's privacy ceiling".to_owned(),
            Exclusion::NotAsked => "not the model asked for".to_owned(),
            Exclusion::OutOfScope => "the request's key or tenant may not use it".to_owned(),
            Exclusion::RouteTag => "excluded by the request's route".to_owned(),
            Exclusion::Lacks(ability) => format!("cannot do {}", ability.as_str()),
            Exclusion::ContextTooSmall { need, has } => {
                format!("context of {has} tokens, about {need} needed")
            }
            Exclusion::Down(Health::NoKey) => "no key for this provider".to_owned(),
            Exclusion::Down(Health::BreakerOpen) => "failed too often of late".to_owned(),
            Exclusion::Down(_) => "its process is not running".to_owned(),
            Exclusion::TooDear { cost_micro } => {
                format!("may cost {cost_micro} micro-units, over the request's limit")
            }
            Exclusion::PriceUnknown => {
                "its price is not known and the request sets a limit".to_owned()
            }
            Exclusion::OverLimit(barred) => barred.describe(),
            Exclusion::Outranked => "enough better targets come first".to_owned(),
        }
    }
}
