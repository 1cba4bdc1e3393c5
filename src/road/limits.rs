//! Limits on the road: who asks, the bound of an answer that is counted, and a
//! refusal in the words of the limit that it comes from.

use std::sync::Arc;

use nearfar_domain::explain::{Explanation, Refusal, Verdict};

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

/// A refused decision: in the limit's words where a limit is why.
pub(super) fn refused(
    limits: &Limits,
    denied: Option<Box<Denied>>,
    explanation: Explanation,
) -> RoadError {
    let by_limit = explanation.verdict == Verdict::Refuse(Refusal::Limit);
    match denied {
        Some(denied) if by_limit => {
            limits.refused(&denied);
            RoadError::Limited(denied, Some(Box::new(explanation)))
        }
        _ => RoadError::Refused(Box::new(explanation)),
    }
}
