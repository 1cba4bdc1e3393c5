//! How long an attempt may take to its first token.
//!
//! A deadline is a wish: it decides when it is time to try the next leg, and
//! never leaves a request unanswered that a leg could still answer. What ends
//! an attempt for good are the time limits.

use std::time::Duration;

use nearfar_domain::explain::Forecast;
use nearfar_domain::frames::TimeLimits;

/// However late it is, an attempt gets this multiple of what was predicted for
/// it, and a little more: a leg that was chosen as the least bad one must have
/// its chance.
const FAIR_MULTIPLE: f64 = 2.0;
const FAIR_EXTRA_MS: f64 = 50.0;

/// The longest wait for a process that is being restarted, when no other leg is left.
pub(super) const RESTART: Duration = Duration::from_secs(5);
/// The same when another leg could answer instead.
const RESTART_WITH_CHOICE: Duration = Duration::from_millis(500);

/// How long to wait for a leg's process to come back.
pub(super) fn for_restart(another_leg: bool) -> Duration {
    if another_leg {
        RESTART_WITH_CHOICE
    } else {
        RESTART
    }
}

/// What a request wishes, and how much of it is used up, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) deadline_ms: Option<f64>,
    pub(super) ttft_ms: Option<f64>,
    pub(super) elapsed_ms: f64,
}

/// When to give up on a first token, and whether that is the request's wish
/// (the target is not at fault) or a hard limit (it is).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Until {
    Wish(Duration),
    Limit(Duration),
}

/// How long an attempt may take to its first token.
pub(super) fn for_first_token(
    wish: Wish,
    forecast: &Forecast,
    limits: &TimeLimits,
    local: bool,
    another_leg: bool,
) -> Until {
    // Egress keeps the finer limits itself; this is the backstop behind it. A
    // local request may wait in the engine's queue for as long as an answer may
    // take.
    let hard_ms = if local {
        limits.total_ms
    } else {
        limits
            .connect_ms
            .saturating_add(limits.first_byte_ms)
            .saturating_add(1_000)
    };
    let hard = Duration::from_millis(hard_ms);
    // Once the first token is there, the rest takes its time whoever answers.
    let rest_ms = (forecast.total_ms - forecast.ttft_ms).max(0.0);
    let by_deadline = wish.deadline_ms.map(|ms| ms - rest_ms);
    let due = match (wish.ttft_ms, by_deadline) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let Some(due) = due.filter(|_| another_leg) else {
        return Until::Limit(hard);
    };
    let fair = forecast.ttft_ms.max(0.0) * FAIR_MULTIPLE + FAIR_EXTRA_MS;
    let soft_ms = (due - wish.elapsed_ms).max(fair);
    let soft = Duration::try_from_secs_f64(soft_ms / 1e3).unwrap_or(hard);
    if soft < hard {
        Until::Wish(soft)
    } else {
        Until::Limit(hard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORECAST: Forecast = Forecast {
        ttft_ms: 100.0,
        total_ms: 500.0,
        p_meets: 1.0,
        cost_micro: None,
        most_cost_micro: None,
        score: 1.0,
    };

    fn until(deadline_ms: Option<f64>, ttft_ms: Option<f64>, another_leg: bool) -> Until {
        let wish = Wish {
            deadline_ms,
            ttft_ms,
            elapsed_ms: 20.0,
        };
        for_first_token(wish, &FORECAST, &TimeLimits::default(), false, another_leg)
    }

    #[test]
    fn the_deadline_leaves_room_for_the_rest_of_the_answer() {
        let expected = Until::Wish(Duration::from_millis(1_000 - 400 - 20));
        assert_eq!(until(Some(1_000.0), None, true), expected);
        let sooner = Until::Wish(Duration::from_millis(330));
        assert_eq!(until(Some(1_000.0), Some(350.0), true), sooner);
    }

    #[test]
    fn an_impossible_deadline_still_gives_each_leg_its_chance() {
        let fair = Until::Wish(Duration::from_millis(250));
        assert_eq!(until(Some(1.0), None, true), fair);
        assert_eq!(until(Some(-5.0), Some(0.0), true), fair);
    }

    #[test]
    fn the_last_leg_is_ended_by_the_limits_alone() {
        let hard = Until::Limit(Duration::from_millis(66_000));
        assert_eq!(until(Some(1.0), Some(1.0), false), hard);
        assert_eq!(until(None, None, true), hard);
        assert_eq!(until(Some(1e300), None, true), hard);
    }
}
