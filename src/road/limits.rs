//! Limits on the road: who asks, the bound of an answer that is counted, and a
//! refusal in the words of the limit that it comes from.

use std::sync::Arc;

use nearfar_domain::explain::{Exclusion, Explanation, Outcome, Refusal, Verdict};
use nearfar_domain::ids::TargetId;

use super::{Asked, RoadError};
use crate::limits::{Denied, Limits, Who};

/// Who asks, as far as limits care.
pub(super) fn who(asked: &Asked) -> Who {
    Who {
        key: asked.identity.key().cloned(),
        tenant: Arc::clone(asked.identity.tenant()),
        feature: asked.feature.as_deref().unwrap_or_default().into(),
        endpoint: asked.endpoint,
    }
}

/// The bound of the answer: the request's own, or the one that answers get which
/// a limit counts, so that there is a worst case to reserve.
pub(super) fn bound(limits: &Limits, who: &Who, asked: Option<u32>) -> Option<u32> {
    if limits.is_empty() {
        return asked;
    }
    asked.or_else(|| limits.answer_bound(who))
}

/// A refused decision: where limits are why, in the words of the one that has
/// room again first, of those that keep out what would have done.
pub(super) fn refused(
    limits: &Limits,
    denied: Vec<(TargetId, Denied)>,
    explanation: Explanation,
) -> RoadError {
    let by_limit = explanation.verdict == Verdict::Refuse(Refusal::Limit);
    let would_do = |target: &TargetId| {
        explanation.candidates.iter().any(|candidate| {
            let out = matches!(
                candidate.outcome,
                Outcome::Excluded(Exclusion::OverLimit(_))
            );
            out && candidate.target == *target
        })
    };
    let soonest = denied
        .into_iter()
        .filter(|(target, _)| by_limit && would_do(target))
        .map(|(_, denied)| denied)
        .min_by_key(|denied| denied.retry_after_ms().unwrap_or(u64::MAX));
    match soonest {
        Some(denied) => {
            limits.refused(&denied);
            RoadError::Limited(Box::new(denied), Some(Box::new(explanation)))
        }
        _ => RoadError::Refused(Box::new(explanation)),
    }
}
