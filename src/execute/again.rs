//! Whether a leg that failed before it showed anything is tried once more, and
//! when.
//!
//! The next leg comes first. Only when all were tried does one get another
//! chance: one whose failure passes by itself, after a pause that grows and is
//! drawn at random, so that clients of a provider that stumbled do not come
//! back as one. How many such attempts there may be at all, each target's
//! budget says ([`crate::health`]).

use std::time::{Duration, Instant};

use nearfar_domain::events::{Failure, FailureKind};

use super::leg;
use super::{Errand, Links};

/// The pause before the first retry; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A leg's last failure.
pub(super) struct Tried {
    pub(super) index: usize,
    pub(super) failure: Failure,
    pub(super) at: Instant,
    /// A limit kept it out, so it was not tried at all.
    pub(super) denied: bool,
}

/// The leg to try again and the pause before it; `None` when the request has
/// failed. `retried` counts earlier retries of this request.
pub(super) fn again(
    links: &Links,
    errand: &Errand,
    tried: &[Tried],
    retried: u32,
) -> Option<(usize, Duration)> {
    if retried >= links.retries.most {
        return None;
    }
    let now = Instant::now();
    let pause = jittered(back_off(retried));
    let left = time_left(errand).unwrap_or(links.retries.longest_pause);
    let mut best: Option<(usize, Duration)> = None;
    for (place, one) in tried.iter().enumerate() {
        let last_word = tried[place + 1..]
            .iter()
            .all(|later| later.index != one.index);
        let Some(target) = leg::brief(&errand.plan, one.index).map(|brief| brief.target) else {
            continue;
        };
        // What this device's engine cannot do now it cannot do a moment later,
        // unless its process was away.
        let crashed = one.failure.kind == FailureKind::Crashed;
        let worth = !one.denied && passes(&one.failure) && (crashed || !target.is_local());
        if !last_word || !worth {
            continue;
        }
        let asked = one.failure.retry_after_ms.map(Duration::from_millis);
        let since = now.saturating_duration_since(one.at);
        let wait = match (asked, one.failure.kind) {
            (Some(asked), _) => asked.saturating_sub(since) + pause,
            // Its process is waited for by itself.
            (None, FailureKind::Crashed) => Duration::ZERO,
            (None, _) => pause,
        };
        let allowed = links.health.allows(&target, now + wait);
        let fits = wait <= left.min(links.retries.longest_pause);
        if allowed && fits && best.is_none_or(|(_, least)| wait < least) {
            best = Some((one.index, wait));
        }
    }
    let (index, wait) = best?;
    let target = leg::brief(&errand.plan, index)?.target;
    links
        .health
        .spend_retry(&target, now)
        .then_some((index, wait))
}

/// What the deadline leaves; `None` without one.
fn time_left(errand: &Errand) -> Option<Duration> {
    let due = match (errand.deadline_ms, errand.ttft_ms) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }?;
    let left = due - errand.arrived.elapsed().as_secs_f64() * 1e3;
    Some(Duration::try_from_secs_f64(left.max(0.0) / 1e3).unwrap_or(Duration::MAX))
}

/// Whether the same request may succeed at the same target a little later.
pub(super) fn passes(failure: &Failure) -> bool {
    match failure.kind {
        FailureKind::Overloaded
        | FailureKind::Unreachable
        | FailureKind::Cut
        | FailureKind::Malformed
        | FailureKind::Crashed => true,
        // An account without money is not refilled by waiting.
        FailureKind::RateLimited => {
            let code = failure.upstream_code.as_deref().unwrap_or_default();
            failure.upstream_status != Some(402)
                && !matches!(code, "insufficient_quota" | "billing_error")
        }
        FailureKind::TargetError => failure
            .upstream_status
            .is_none_or(|status| status >= 500 && status != 501),
        // A gateway's word; a limit of ours that ran out was long enough.
        FailureKind::TimedOut => failure.upstream_status.is_some(),
        _ => false,
    }
}

fn back_off(retried: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << retried.min(8))
        .min(LONGEST_PAUSE)
}

/// Between half of a pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0u8; 2];
    if getrandom::fill(&mut random).is_err() {
        return pause;
    }
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    pause.mul_f64(0.5 + 0.5 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: FailureKind, status: Option<u16>, code: Option<&str>) -> Failure {
        Failure {
            upstream_status: status,
            upstream_code: code.map(str::to_owned),
            ..Failure::new(kind, "")
        }
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        for (kind, status, code, expected) in [
            (FailureKind::Overloaded, Some(503), None, true),
            (FailureKind::TargetError, Some(500), None, true),
            (FailureKind::TargetError, Some(501), None, false),
            (FailureKind::TargetError, Some(418), None, false),
            (FailureKind::TargetError, None, None, true),
            (FailureKind::RateLimited, Some(429), None, true),
            (FailureKind::RateLimited, Some(402), None, false),
            (
                FailureKind::RateLimited,
                Some(429),
                Some("insufficient_quota"),
                false,
            ),
            (FailureKind::TimedOut, Some(504), None, true),
            (FailureKind::TimedOut, None, None, false),
            (FailureKind::ContextLength, Some(400), None, false),
            (FailureKind::Unauthorized, Some(401), None, false),
            (FailureKind::Refused, Some(400), None, false),
        ] {
            assert_eq!(
                passes(&failure(kind, status, code)),
                expected,
                "{kind:?} {status:?}"
            );
        }
    }

    #[test]
    fn pauses_grow_are_bounded_and_differ() {
        assert_eq!(back_off(0), FIRST_PAUSE);
        assert_eq!(back_off(1), FIRST_PAUSE * 2);
        assert_eq!(back_off(1_000), LONGEST_PAUSE);
        let drawn: std::collections::BTreeSet<Duration> =
            (0..32).map(|_| jittered(LONGEST_PAUSE)).collect();
        assert!(drawn.len() > 1);
        assert!(
            drawn
                .iter()
                .all(|pause| *pause >= LONGEST_PAUSE / 2 && *pause <= LONGEST_PAUSE)
        );
    }
}
