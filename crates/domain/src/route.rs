//! The decision: a pure function of the request's facts and a snapshot.
//!
//! Gate first, fail closed (ceiling, the request's own wishes, abilities,
//! health, cost); what is left is frozen. Then predict time and price, score,
//! and put the legs in order. Failover later walks these legs and no others.

use std::sync::Arc;

use crate::explain::{
    Ability, Candidate, Exclusion, Explanation, Forecast, Outcome, Reason, Refusal, Verdict,
};
use crate::ids::{DecisionId, TargetId};
use crate::limit::Soft;
use crate::price::{Estimate, Price, Sizes};
use crate::privacy::{Classified, Confined, Portable, Zone};
use crate::scope::Scope;
use crate::snapshot::{Health, Snapshot, TargetState};
use crate::target::{Dialect, Place, RemoteZone};

/// What the decision may know of a request: measures and wishes, no content.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Drawn by the caller, who has the clock and the randomness.
    pub id: DecisionId,
    /// Estimated tokens of the prompt, tools included.
    pub prompt_tokens: u32,
    /// Tokens of answer that are expected (a guess, or the request's limit if lower).
    pub expected_tokens: u32,
    /// Tokens of answer that must fit into the context.
    pub reserved_tokens: u32,
    /// Abilities without which an answer would be wrong.
    pub needs: Vec<Ability>,
    /// Which model was asked for.
    pub model: ModelChoice,
    /// What the caller may use.
    pub scope: Arc<Scope>,
    /// Which side was asked for.
    pub side: Side,
    /// Whole answer within, in milliseconds.
    pub deadline_ms: Option<f64>,
    /// First token within, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// At most this dear, in micro-units.
    pub max_cost_micro: Option<u64>,
    /// The most tokens that the prompt may turn out to be.
    pub most_prompt_tokens: u32,
    /// The most tokens that may be written: the request's limit or the owner's.
    pub most_completion_tokens: Option<u32>,
    /// Whether parts of the prompt are to go into the provider's cache.
    pub writes_cache: bool,
}

impl Facts {
    /// What prices are estimated from, at a target with so much context.
    pub fn sizes(&self, context_tokens: Option<u32>) -> Sizes {
        let limits = [self.most_completion_tokens, context_tokens];
        Sizes {
            prompt: u64::from(self.prompt_tokens),
            most_prompt: u64::from(self.most_prompt_tokens.max(self.prompt_tokens)),
            completion: u64::from(self.expected_tokens),
            most_completion: limits.into_iter().flatten().min().map(u64::from),
            writes_cache: self.writes_cache,
        }
    }
}

/// Which model was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelChoice {
    /// nearfar decides.
    Auto,
    /// This one and no other.
    Named(TargetId),
    /// One of these: an alias.
    AnyOf(Vec<TargetId>),
}

/// Which side was asked for (`x-nearfar-route`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Either.
    Auto,
    /// This device.
    Local,
    /// Not this device.
    Remote,
}

/// An attempt on this device. Made by [`decide`] alone.
#[derive(Clone, Debug)]
pub struct LocalLeg {
    target: TargetId,
    price: Option<Price>,
    forecast: Forecast,
}

/// An attempt at a provider. Made by [`decide`] alone.
#[derive(Clone, Debug)]
pub struct RemoteLeg {
    target: TargetId,
    zone: RemoteZone,
    dialect: Dialect,
    price: Option<Price>,
    forecast: Forecast,
}

impl LocalLeg {
    /// The model's target.
    pub fn target(&self) -> &TargetId {
        &self.target
    }

    /// What it costs: nothing, or its energy.
    pub fn price(&self) -> Option<Price> {
        self.price
    }

    /// What was predicted.
    pub fn forecast(&self) -> &Forecast {
        &self.forecast
    }
}

impl RemoteLeg {
    /// The provider and model.
    pub fn target(&self) -> &TargetId {
        &self.target
    }

    /// Where it lies.
    pub fn zone(&self) -> Zone {
        self.zone.into()
    }

    /// What it speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What it charges.
    pub fn price(&self) -> Option<Price> {
        self.price
    }

    /// What was predicted.
    pub fn forecast(&self) -> &Forecast {
        &self.forecast
    }
}

/// One attempt at one target.
#[derive(Clone, Debug)]
pub enum Leg {
    /// On this device.
    Local(LocalLeg),
    /// At a provider.
    Remote(RemoteLeg),
}

/// At least one leg, in the order of trying.
#[derive(Clone, Debug)]
pub struct Legs<L> {
    first: L,
    rest: Vec<L>,
}

impl<L> Legs<L> {
    fn new(legs: Vec<L>) -> Option<Self> {
        let mut legs = legs.into_iter();
        Some(Self {
            first: legs.next()?,
            rest: legs.collect(),
        })
    }

    /// The one that is tried first.
    pub fn first(&self) -> &L {
        &self.first
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &L> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// How many; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        1 + self.rest.len()
    }
}

/// What will be done, and why.
pub struct Decision {
    /// Every candidate and what became of it.
    pub explanation: Explanation,
    /// The request with its legs.
    pub plan: Plan,
}

/// A request with the legs that it may take. For a confined request there is
/// no remote arm to write.
///
/// ```compile_fail
/// use nearfar_domain::{privacy::Confined, route::{Legs, Leg, Plan}};
/// fn widen(request: Confined, legs: Legs<Leg>) -> Plan {
///     Plan::Confined { request, legs } // needs Legs<LocalLeg>
/// }
/// ```
pub enum Plan {
    /// Stays on this device.
    Confined {
        /// The request.
        request: Confined,
        /// Local attempts only.
        legs: Legs<LocalLeg>,
    },
    /// May leave.
    Portable {
        /// The request.
        request: Portable,
        /// Attempts on either side.
        legs: Legs<Leg>,
    },
}

/// How many legs a decision has at most: enough to survive two bad targets,
/// few enough that a doomed request ends soon.
const MAX_LEGS: usize = 4;

/// Utility of meeting the deadline for sure. The other weights are read against it.
const WEIGHT_DEADLINE: f64 = 1.0;
/// Utility lost per currency unit that an answer costs.
const WEIGHT_COST_PER_UNIT: f64 = 5.0;
/// Utility lost for a price that nobody knows: as if it cost a hundredth of a unit.
const PENALTY_PRICE_UNKNOWN: f64 = 0.05;
/// Utility lost per zone that the bytes travel: what "near when it can" weighs.
const PENALTY_PER_ZONE: f64 = 0.1;

/// Chooses the legs for one request.
///
/// # Errors
/// An [`Explanation`] whose verdict is a refusal, when no allowed target can
/// answer. The request is dropped with it: nobody can try it elsewhere.
pub fn decide(
    request: Classified,
    facts: &Facts,
    snapshot: &Snapshot,
) -> Result<Decision, Explanation> {
    let ceiling = request.ceiling();
    let mut exclusions = Vec::with_capacity(snapshot.targets.len());
    let mut scored: Vec<(usize, Forecast)> = Vec::with_capacity(snapshot.targets.len());
    for (index, state) in snapshot.targets.iter().enumerate() {
        let excluded = exclude(state, ceiling.zone, facts);
        if excluded.is_none() {
            scored.push((index, forecast(state, facts)));
        }
        exclusions.push(excluded);
    }
    // A stable sort keeps the snapshot's order, near first, among equals.
    scored.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
    let best = scored.first().map(|(index, _)| *index);
    let behind = saving::order(&mut scored, snapshot);
    scored.truncate(MAX_LEGS);

    let verdict = match scored.first() {
        Some(&(first, _)) if best != Some(first) => Verdict::Go(Reason::Limit),
        Some(&(first, _)) => Verdict::Go(reason(&request, facts, snapshot, &exclusions, first)),
        None => Verdict::Refuse(refusal(&exclusions)),
    };
    let explanation = Explanation {
        id: facts.id,
        ceiling,
        verdict,
        candidates: candidates(facts, snapshot, exclusions, &scored, &behind),
    };
    let plan = match request {
        Classified::Confined(request) => {
            let legs = scored.iter().filter_map(|(index, forecast)| {
                match leg(&snapshot.targets[*index], *forecast) {
                    Leg::Local(leg) => Some(leg),
                    Leg::Remote(_) => None,
                }
            });
            Legs::new(legs.collect()).map(|legs| Plan::Confined { request, legs })
        }
        Classified::Portable(request) => {
            let legs = scored
                .iter()
                .map(|(index, forecast)| leg(&snapshot.targets[*index], *forecast));
            Legs::new(legs.collect()).map(|legs| Plan::Portable { request, legs })
        }
    };
    match plan {
        Some(plan) => Ok(Decision { explanation, plan }),
        None => Err(explanation),
    }
}

/// The first reason why a target is out, or `None`.
fn exclude(state: &TargetState, ceiling: Zone, facts: &Facts) -> Option<Exclusion> {
    let target = &state.target;
    let wanted = match &facts.model {
        // Each kind of answer has its own model for `auto`. One that writes no
        // words is nobody's second choice for a conversation.
        ModelChoice::Auto => {
            target.auto && (target.capabilities.chat || facts.needs.contains(&Ability::Embeddings))
        }
        ModelChoice::Named(id) => *id == target.id,
        ModelChoice::AnyOf(ids) => ids.contains(&target.id),
    };
    if !wanted {
        return Some(Exclusion::NotAsked);
    }
    if !facts.scope.allows(&target.id, target.zone()) {
        return Some(Exclusion::OutOfScope);
    }
    if target.zone() > ceiling {
        return Some(Exclusion::BeyondCeiling);
    }
    let local = matches!(target.place, Place::Local);
    if matches!(
        (facts.side, local),
        (Side::Local, false) | (Side::Remote, true)
    ) {
        return Some(Exclusion::RouteTag);
    }
    let vectors = facts.needs.contains(&Ability::Embeddings);
    if !vectors && !target.capabilities.chat {
        return Some(Exclusion::Lacks(Ability::Chat));
    }
    if let Some(ability) = facts.needs.iter().find(|need| !has(state, **need)) {
        return Some(Exclusion::Lacks(*ability));
    }
    let need = facts.prompt_tokens.saturating_add(facts.reserved_tokens);
    // Each of many inputs has a context of its own; whoever reads them counts.
    let fits = |has: &u32| vectors || need <= *has;
    if let Some(has) = target.capabilities.context_tokens.filter(|has| !fits(has)) {
        return Some(Exclusion::ContextTooSmall { need, has });
    }
    if !matches!(state.health, Health::Up | Health::Starting) {
        return Some(Exclusion::Down(state.health));
    }
    facts
        .max_cost_micro
        .and_then(|limit| too_dear(state, facts, limit))
        .or_else(|| state.barred.clone().map(Exclusion::OverLimit))
}

/// Whether the request may cost more there than its limit.
///
/// Where the request bounds its answer, all of that must be paid for. Where it
/// does not, the answer is later bounded by what the money pays for, and that
/// must be enough for an answer of the length that is expected.
fn too_dear(state: &TargetState, facts: &Facts, limit: u64) -> Option<Exclusion> {
    let Some(price) = state.target.price else {
        return Some(Exclusion::PriceUnknown);
    };
    let tokens = facts
        .most_completion_tokens
        .unwrap_or(facts.expected_tokens);
    let sizes = Sizes {
        most_completion: Some(u64::from(tokens)),
        ..facts.sizes(None)
    };
    let cost_micro = price.estimate(&sizes).most_micro?;
    (cost_micro > limit).then_some(Exclusion::TooDear { cost_micro })
}

fn has(state: &TargetState, ability: Ability) -> bool {
    let can = &state.target.capabilities;
    match ability {
        Ability::Tools => can.tools,
        Ability::ForcedTools => can.forced_tools,
        Ability::JsonObject => can.json_object,
        Ability::JsonSchema => can.json_schema,
        Ability::Grammar => can.grammar,
        Ability::Vision => can.vision,
        Ability::Logprobs => can.logprobs,
        Ability::RawText => can.raw_text,
        Ability::Chat => can.chat,
        Ability::Embeddings => can.embeddings,
    }
}

fn estimate(state: &TargetState, facts: &Facts) -> Option<Estimate> {
    let sizes = facts.sizes(state.target.capabilities.context_tokens);
    state.target.price.map(|price| price.estimate(&sizes))
}

fn forecast(state: &TargetState, facts: &Facts) -> Forecast {
    let latency = &state.latency;
    let ttft_ms = state.wait_ms + latency.ttft(state.to_compute(facts.prompt_tokens));
    let rest = f64::from(facts.expected_tokens.saturating_sub(1)) * latency.ms_per_token;
    let total_ms = ttft_ms + rest;
    let p_ttft = p_within(ttft_ms, facts.ttft_ms, latency.log_sd);
    let p_total = p_within(total_ms, facts.deadline_ms, latency.log_sd);
    let p_meets = p_ttft.min(p_total);
    let estimate = estimate(state, facts);
    let cost_micro = estimate.map(|estimate| estimate.likely_micro);
    // What a limit on the cost leaves is what the answer is bounded by.
    let most_cost_micro = estimate.and_then(|estimate| match facts.max_cost_micro {
        Some(limit) => Some(estimate.most_micro.unwrap_or(limit).min(limit)),
        None => estimate.most_micro,
    });
    let cost = cost_micro.map_or(PENALTY_PRICE_UNKNOWN, |micro| {
        micro as f64 / 1e6 * WEIGHT_COST_PER_UNIT
    });
    let zones = match state.target.zone() {
        Zone::Device => 0.0,
        Zone::Site => 1.0,
        Zone::Cloud => 2.0,
    };
    Forecast {
        ttft_ms,
        total_ms,
        p_meets,
        cost_micro,
        most_cost_micro,
        score: WEIGHT_DEADLINE * p_meets - cost - PENALTY_PER_ZONE * zones,
    }
}

/// Probability that a time whose logarithm is normal around `ln(expected)` with
/// spread `log_sd` stays within `limit`.
fn p_within(expected_ms: f64, limit_ms: Option<f64>, log_sd: f64) -> f64 {
    let Some(limit) = limit_ms else { return 1.0 };
    if limit <= 0.0 {
        return 0.0;
    }
    let z = (limit.ln() - expected_ms.max(0.01).ln()) / log_sd.max(1e-3);
    normal_cdf(z)
}

/// Φ(z), by Abramowitz and Stegun 26.2.17; absolute error under 7.5e-8.
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

fn leg(state: &TargetState, forecast: Forecast) -> Leg {
    let target = state.target.id.clone();
    match state.target.place {
        Place::Local => Leg::Local(LocalLeg {
            target,
            price: state.target.price,
            forecast,
        }),
        Place::Remote { zone, dialect } => Leg::Remote(RemoteLeg {
            target,
            zone,
            dialect,
            price: state.target.price,
            forecast,
        }),
    }
}

fn reason(
    request: &Classified,
    facts: &Facts,
    snapshot: &Snapshot,
    exclusions: &[Option<Exclusion>],
    first: usize,
) -> Reason {
    if matches!(facts.model, ModelChoice::Named(_)) {
        return Reason::Named;
    }
    if matches!(request, Classified::Confined(_)) {
        return Reason::Confined;
    }
    let zone = snapshot.targets[first].target.zone();
    if zone == Zone::Device {
        return Reason::Near;
    }
    if facts.side == Side::Remote {
        return Reason::AskedRemote;
    }
    // Why was nothing nearer taken? The most telling among the nearer targets.
    let nearer = || {
        snapshot
            .targets
            .iter()
            .zip(exclusions)
            .filter(|(state, excluded)| {
                let asked = !matches!(excluded, Some(Exclusion::NotAsked));
                state.target.zone() < zone && state.target.auto && asked
            })
    };
    if nearer().any(|(_, excluded)| excluded.is_none()) {
        return if facts.deadline_ms.is_some() || facts.ttft_ms.is_some() {
            Reason::Deadline
        } else {
            Reason::Cost
        };
    }
    if nearer().any(|(_, excluded)| matches!(excluded, Some(Exclusion::Down(_)))) {
        return Reason::Health;
    }
    if nearer().any(|(_, excluded)| matches!(excluded, Some(Exclusion::OverLimit(_)))) {
        return Reason::Limit;
    }
    if nearer().any(|(_, excluded)| excluded.is_some()) {
        return Reason::Capability;
    }
    Reason::Near
}

/// The refusal that tells the most: what would have to change for an answer.
fn refusal(exclusions: &[Option<Exclusion>]) -> Refusal {
    let any = |wanted: fn(&Exclusion) -> bool| exclusions.iter().flatten().any(wanted);
    if any(|e| matches!(e, Exclusion::Down(_))) {
        Refusal::Health
    } else if any(|e| matches!(e, Exclusion::OverLimit(_))) {
        Refusal::Limit
    } else if any(|e| matches!(e, Exclusion::TooDear { .. } | Exclusion::PriceUnknown)) {
        Refusal::Cost
    } else if any(|e| matches!(e, Exclusion::BeyondCeiling)) {
        Refusal::Privacy
    } else if any(|e| matches!(e, Exclusion::OutOfScope)) {
        Refusal::Scope
    } else if any(|e| matches!(e, Exclusion::Lacks(_) | Exclusion::ContextTooSmall { .. })) {
        Refusal::Capability
    } else if any(|e| matches!(e, Exclusion::RouteTag)) {
        Refusal::Route
    } else {
        Refusal::NoTargets
    }
}

fn candidates(
    facts: &Facts,
    snapshot: &Snapshot,
    exclusions: Vec<Option<Exclusion>>,
    scored: &[(usize, Forecast)],
    behind: &[(usize, Soft)],
) -> Vec<Candidate> {
    let behind_of = |index: usize| behind.iter().find(|(i, _)| *i == index);
    let rank_of = |index: usize| scored.iter().position(|(i, _)| *i == index);
    let mut all: Vec<Candidate> = Vec::with_capacity(exclusions.len());
    for (index, (state, excluded)) in snapshot.targets.iter().zip(exclusions).enumerate() {
        let outcome = match (excluded, rank_of(index)) {
            (Some(exclusion), _) => Outcome::Excluded(exclusion),
            (None, Some(rank)) => Outcome::Leg {
                rank: u32::try_from(rank).unwrap_or(u32::MAX),
                forecast: scored[rank].1,
            },
            (None, None) => Outcome::Excluded(Exclusion::Outranked),
        };
        all.push(Candidate {
            target: state.target.id.clone(),
            zone: state.target.zone(),
            cost: estimate(state, facts),
            outcome,
            behind: behind_of(index).map(|(_, soft)| soft.clone()),
        });
    }
    all
}

#[path = "route_saving.rs"]
mod saving;

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
