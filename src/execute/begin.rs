//! From leg to leg until an answer has begun. Until then nothing was shown,
//! and a failed leg hands over unseen; an answer that is wanted whole has begun
//! when it is whole.

use std::time::{Duration, Instant};

use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::ids::TargetId;

use super::again::{Tried, again};
use super::attempt::{Running, attempt};
use super::flow::{self, Flow};
use super::leg::{self, Brief, Part};
use super::{AllFailed, Begun, Errand, Events, Links, Places, meter, whole};
use crate::limits::Denied;

/// Walks the legs. On the way out, either the answer owns the account and
/// settles it, or it is settled as failed.
pub(crate) async fn begin(links: &Links, mut errand: Errand) -> Result<Begun, AllFailed> {
    let legs = leg::count(&errand.plan);
    let end = Instant::now() + Duration::from_millis(links.limits.total_ms);
    let mut tried: Vec<Tried> = Vec::new();
    let (mut index, mut attempts, mut retried) = (0, 0, 0);
    let mut denied = None;
    loop {
        let Some(brief) = leg::brief(&errand.plan, index) else {
            // Legs are never empty and the index stays below their number.
            errand.account.failed(FailureKind::Internal);
            return Err(AllFailed {
                target: TargetId::local(""),
                failure: Failure::new(FailureKind::Internal, "The decision has no leg."),
                denied: None,
            });
        };
        let next = next_leg(&errand, &tried, index, legs);
        let reservation = match meter::reserve(links, &errand, &brief, 0).await {
            Ok(reservation) => reservation,
            // Others were faster since the decision: this leg is not tried.
            Err(limit) => {
                tried.push(Tried {
                    index,
                    failure: over_limit(&limit),
                    at: Instant::now(),
                    denied: true,
                });
                denied = Some(limit);
                if let Some(next) = next {
                    index = next;
                    continue;
                }
                return Err(gave_up(errand, tried, denied, brief.target));
            }
        };
        attempts += 1;
        errand
            .account
            .attempt(&brief.target, brief.zone, brief.price);
        let another = next.is_some();
        let part = Part::NONE;
        let attempted = match errand.purse.bound(&brief, &errand.account, false) {
            Ok(most_tokens) => {
                errand.account.bounded(most_tokens);
                attempt(links, &errand, index, &brief, part, another, reservation).await
            }
            Err(failure) => Err(failure),
        };
        let failure = match attempted {
            Ok(running) if errand.stream => {
                errand.account.first_piece();
                let flow = Flow::new(links, running, errand, index, end);
                return Ok(begun(brief, attempts, flow::events(flow)));
            }
            Ok(running) => match gather(links, running, &mut errand, end).await {
                Ok(events) => {
                    return Ok(begun(brief, attempts, kept(events, errand.places)));
                }
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        links.metrics.leg_failed(&brief.target, failure.kind);
        errand.account.leg_failed(failure.kind);
        tried.push(Tried {
            index,
            failure: failure.clone(),
            at: Instant::now(),
            denied: false,
        });
        let around = failure.kind == FailureKind::Refused && links.retries.around_refusals;
        let hopeless = !failure.kind.another_leg_may_help() && !around;
        if hopeless || Instant::now() >= end {
            return Err(gave_up(errand, tried, None, brief.target));
        }
        if let Some(next) = next_leg(&errand, &tried, index, legs) {
            index = next;
            continue;
        }
        let Some((once_more, wait)) = again(links, &errand, &tried, retried) else {
            return Err(gave_up(errand, tried, denied, brief.target));
        };
        links.metrics.retried();
        retried += 1;
        index = once_more;
        tokio::time::sleep(wait).await;
    }
}

/// No leg gave an answer. What a target said tells more than that a limit kept
/// another one out; where none was tried, the limit is why.
fn gave_up(
    mut errand: Errand,
    tried: Vec<Tried>,
    denied: Option<Box<Denied>>,
    target: TargetId,
) -> AllFailed {
    let said = tried.iter().rposition(|one| !one.denied);
    let asked = said.and_then(|place| leg::brief(&errand.plan, tried[place].index));
    let last = said.unwrap_or(tried.len().saturating_sub(1));
    let failure = match tried.into_iter().nth(last) {
        Some(one) => one.failure,
        None => Failure::new(FailureKind::Internal, "No leg of the decision was tried."),
    };
    let denied = denied.filter(|_| said.is_none());
    match &denied {
        Some(_) => errand.account.refused("limit"),
        None => errand.account.failed(failure.kind),
    }
    AllFailed {
        target: asked.map_or(target, |brief| brief.target),
        failure,
        denied,
    }
}

fn over_limit(denied: &Denied) -> Failure {
    Failure {
        retry_after_ms: denied.retry_after_ms(),
        ..Failure::new(FailureKind::RateLimited, denied.message())
    }
}

fn begun(brief: Brief, attempt: u32, events: Events) -> Begun {
    Begun {
        target: brief.target,
        zone: brief.zone,
        attempt,
        events,
    }
}

async fn gather(
    links: &Links,
    running: Running,
    errand: &mut Errand,
    end: Instant,
) -> Result<Vec<Event>, Failure> {
    errand.account.first_piece();
    let chat = leg::chat(&errand.plan);
    let (purse, account) = (errand.purse, &mut errand.account);
    whole::gather(links, running, chat, end, purse, account).await
}

/// A whole answer's events. Its places are taken until they are read.
fn kept(events: Vec<Event>, places: Places) -> Events {
    let mut events = events.into_iter();
    Box::pin(futures_util::stream::poll_fn(move |_| {
        let _taken = &places;
        std::task::Poll::Ready(events.next())
    }))
}

/// The next leg that was not tried. A prompt that is too long for a model is
/// too long for it wherever it runs.
fn next_leg(errand: &Errand, tried: &[Tried], after: usize, legs: usize) -> Option<usize> {
    let too_long = |model: &str| {
        tried.iter().any(|one| {
            one.failure.kind == FailureKind::ContextLength
                && leg::brief(&errand.plan, one.index)
                    .is_some_and(|brief| brief.target.model() == model)
        })
    };
    (after + 1..legs).find(|index| {
        let fresh = tried.iter().all(|one| one.index != *index);
        fresh
            && leg::brief(&errand.plan, *index).is_some_and(|brief| !too_long(brief.target.model()))
    })
}
