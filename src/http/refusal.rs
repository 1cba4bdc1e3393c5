//! A decision that came to nothing, in words: its code and its message.

use nearfar_domain::explain::{Exclusion, Explanation, Outcome, Refusal};
use nearfar_domain::privacy::Zone;

/// Whether every target that was asked for would do, were the prompt shorter.
pub(super) fn only_too_long(explanation: &Explanation) -> bool {
    let mut asked_for = explanation
        .candidates
        .iter()
        .filter_map(|candidate| match &candidate.outcome {
            Outcome::Excluded(Exclusion::NotAsked) => None,
            outcome => Some(outcome),
        })
        .peekable();
    asked_for.peek().is_some()
        && asked_for.all(|outcome| {
            matches!(
                outcome,
                Outcome::Excluded(Exclusion::ContextTooSmall { .. })
            )
        })
}

/// The code of a refusal, for programs.
pub(super) fn code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoTargets => "no_targets",
        Refusal::Privacy => "privacy_ceiling",
        Refusal::Capability => "no_capable_target",
        Refusal::Health => "targets_down",
        Refusal::Cost => "cost_limit",
        Refusal::Limit => "over_limit",
        Refusal::Route => "route_excludes_all",
        Refusal::Scope => "key_scope",
    }
}

/// What a refusal says: why, the mend, and the reason of each target.
pub(super) fn message(refusal: Refusal, explanation: &Explanation) -> String {
    let zone = explanation.ceiling.zone;
    let mut message = match refusal {
        Refusal::NoTargets => "There is no model that could answer. Add one with `nearfar model \
             add`, or give egress a provider's key."
            .to_owned(),
        Refusal::Privacy if zone == Zone::Device => "The request must stay on this device, and \
             no model of this device may answer it. Name a local model or `auto`, or relax \
             x-nearfar-privacy."
            .to_owned(),
        Refusal::Privacy => format!(
            "The request may reach zone '{zone}' at most, and no target within it may answer. \
             Name another model or relax x-nearfar-privacy."
        ),
        Refusal::Capability => {
            "No target that this request may reach can do what it asks for.".to_owned()
        }
        Refusal::Health => {
            "Every target that this request may reach is down. Try again shortly.".to_owned()
        }
        Refusal::Cost => "Every target that this request may reach costs more than \
             x-nearfar-max-cost allows."
            .to_owned(),
        Refusal::Limit => "A limit keeps every target out that this request may reach. Wait, or \
             have the limit raised."
            .to_owned(),
        Refusal::Route => {
            "x-nearfar-route leaves no target. Set it to `auto` or leave it out.".to_owned()
        }
        Refusal::Scope => "This key may not use the target that was asked for. GET /v1/models \
             lists what it may use."
            .to_owned(),
    };
    let reasons: Vec<String> = explanation
        .candidates
        .iter()
        .filter_map(|candidate| match &candidate.outcome {
            Outcome::Excluded(exclusion) => {
                Some(format!("{}: {}", candidate.target, exclusion.describe()))
            }
            Outcome::Leg { .. } => None,
        })
        .take(8)
        .collect();
    if !reasons.is_empty() {
        message.push_str(" (");
        message.push_str(&reasons.join("; "));
        message.push(')');
    }
    message
}
