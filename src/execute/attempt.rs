//! One attempt at one leg, up to its first visible event.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason};
use nearfar_domain::frames::Terms;
use nearfar_domain::ids::TargetId;
use nearfar_domain::target::Place;
use tokio::time::timeout_at;

use super::answering::Answering;
use super::leg::{self, Brief, Part};
use super::patience::{self, Until, Wish};
use super::{Errand, Links};
use crate::health::{Prior, Trial};
use crate::limits::Reservation;

/// An attempt whose first visible event is there.
pub(super) struct Running {
    pub(super) target: TargetId,
    pub(super) first: Event,
    pub(super) job: Answering,
    pub(super) generation: u64,
    pub(super) trial: Trial,
    pub(super) first_at: Instant,
}

/// One attempt up to its first visible event. `part` is what there is of the
/// answer already; `another_leg` whether one is left if this is too late;
/// `reservation` what it may take.
pub(super) async fn attempt(
    links: &Links,
    errand: &Errand,
    index: usize,
    brief: &Brief,
    part: Part<'_>,
    another_leg: bool,
    reservation: Reservation,
) -> Result<Running, Failure> {
    let began = Instant::now();
    let local = brief.target.is_local();
    let begun = !part.text.is_empty();
    // The first token of an answer that has begun was in time, or was not.
    let wish = Wish {
        deadline_ms: errand.deadline_ms.filter(|_| !begun),
        ttft_ms: errand.ttft_ms.filter(|_| !begun),
        elapsed_ms: errand.arrived.elapsed().as_secs_f64() * 1e3,
    };
    let until = patience::for_first_token(wish, &brief.forecast, &links.limits, local, another_leg);
    let (Until::Wish(wait) | Until::Limit(wait)) = until;
    let (prior, waited_ms, computed) = expectations(errand, brief, part.tokens);
    let trial = links.health.begin(&brief.target, prior, began);
    let restart = patience::for_restart(another_leg);
    let terms = Terms {
        // Where another leg may be in time, the engine says at once that it
        // will not be.
        begin_within_ms: matches!(until, Until::Wish(_)).then(|| wait.as_secs_f64() * 1e3),
        ..errand.terms.clone()
    };
    // A process that is not there is no fault of the target's.
    let (mut job, generation) =
        leg::start(links, errand, terms, index, part, restart, reservation).await?;
    let limit = tokio::time::Instant::from_std(began) + wait;
    let failure = loop {
        let event = match timeout_at(limit, job.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => break crate::links::lost(),
            Err(_) => break too_late(until),
        };
        match event {
            Event::Failed(failure) => break failure,
            Event::Finished { reason, usage } => {
                // Nothing more to say is right where much was said.
                if !local && !begun && is_fault(reason) {
                    break empty_answer();
                }
                let first = Event::Finished { reason, usage };
                return Ok(running(brief, first, job, generation, trial));
            }
            event if is_shown(&event) => {
                let first_at = began.elapsed();
                trial.first_token(computed, waited_ms, first_at);
                return Ok(running(brief, event, job, generation, trial));
            }
            _ => {}
        }
    };
    if failure.kind == FailureKind::TimedOut && matches!(until, Until::Wish(_)) {
        // Late for this request, not out of order: it is slower than was
        // thought, and that is learned. The trial ends without a verdict.
        trial.first_token(computed, waited_ms, began.elapsed());
    } else {
        let retry_after = failure.retry_after_ms.map(Duration::from_millis);
        let generation = Some(generation);
        trial.failed(failure.kind, generation, retry_after, Instant::now());
    }
    Err(failure)
}

fn running(brief: &Brief, first: Event, job: Answering, generation: u64, trial: Trial) -> Running {
    Running {
        target: brief.target.clone(),
        first,
        job,
        generation,
        trial,
        first_at: Instant::now(),
    }
}

/// What was assumed of the target, the waiting that was expected, and the
/// tokens of prompt and partial answer that it had to compute.
fn expectations(errand: &Errand, brief: &Brief, part_tokens: u32) -> (Prior, f64, u32) {
    let state = errand
        .snapshot
        .targets
        .iter()
        .find(|state| state.target.id == brief.target);
    let waited_ms = state.map_or(0.0, |state| state.wait_ms);
    let prior = match state.map(|state| state.target.place) {
        Some(Place::Remote { zone, .. }) => Prior::remote(zone),
        _ => {
            let name = brief.target.model();
            let model = errand.models.iter().find(|model| model.name == name);
            Prior::local(model.map_or(0, |model| model.file_bytes))
        }
    };
    let prompt = state.map_or(errand.facts.prompt_tokens, |state| {
        state.to_compute(errand.facts.prompt_tokens)
    });
    (prior, waited_ms, prompt.saturating_add(part_tokens))
}

/// Whether a client would see it. Some providers open with an empty piece.
fn is_shown(event: &Event) -> bool {
    match event {
        Event::Content(text) | Event::Reasoning(text) => !text.is_empty(),
        event => event.is_visible(),
    }
}

/// An answer of nothing is a fault when the provider says that it is done. It
/// may be right when a limit or a filter left nothing.
fn is_fault(reason: FinishReason) -> bool {
    matches!(reason, FinishReason::Stop | FinishReason::ToolCalls)
}

fn empty_answer() -> Failure {
    Failure::new(
        FailureKind::Malformed,
        "The provider ended its answer without saying anything.",
    )
}

fn too_late(until: Until) -> Failure {
    let message = match until {
        Until::Wish(_) => "The first token did not come within what the deadline left.",
        Until::Limit(_) => "The first token did not come within the time limit.",
    };
    Failure::new(FailureKind::TimedOut, message)
}
