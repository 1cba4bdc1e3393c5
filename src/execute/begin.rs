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
use super::{AllFailed, Begun, Errand, Events, Links, whole};
use crate::admission::Ticket;

/// Walks the legs. On the way out, either the answer owns the account and
/// settles it, or it is settled as failed.
pub(crate) async fn begin(links: &Links, mut errand: Errand) -> Result<Begun, AllFailed> {
    let legs = leg::count(&errand.plan);
    let end = Instant::now() + Duration::from_millis(links.limits.total_ms);
    let mut tried: Vec<Tried> = Vec::new();
    let (mut index, mut attempts, mut retried) = (0, 0, 0);
    loop {
        let Some(brief) = leg::brief(&errand.plan, index) else {
            // Legs are never empty and the index stays below their number.
            errand.account.failed(FailureKind::Internal);
            return Err(AllFailed {
                target: TargetId::local(""),
                failure: Failure::new(FailureKind::Internal, "The decision has no leg."),
            });
        };
        attempts += 1;
        errand
            .account
            .attempt(&brief.target, brief.zone, brief.price);
        let next = next_leg(&errand, &tried, index, legs);
        let failure = match attempt(links, &errand, index, &brief, Part::NONE, next.is_some()).await
        {
            Ok(running) if errand.stream => {
                errand.account.first_piece();
                let flow = Flow::new(links, running, errand, index, end);
                return Ok(begun(brief, attempts, flow::events(flow)));
            }
            Ok(running) => match gather(links, running, &mut errand, end).await {
                Ok(events) => {
                    return Ok(begun(brief, attempts, kept(events, errand.ticket)));
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
        });
        let around = failure.kind == FailureKind::Refused && links.retries.around_refusals;
        let hopeless = !failure.kind.another_leg_may_help() && !around;
        if hopeless || Instant::now() >= end {
            errand.account.failed(failure.kind);
            let target = brief.target;
            return Err(AllFailed { target, failure });
        }
        if let Some(next) = next_leg(&errand, &tried, index, legs) {
            index = next;
            continue;
        }
        let Some((once_more, wait)) = again(links, &errand, &tried, retried) else {
            errand.account.failed(failure.kind);
            let target = brief.target;
            return Err(AllFailed { target, failure });
        };
        links.metrics.retried();
        retried += 1;
        index = once_more;
        tokio::time::sleep(wait).await;
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
    whole::gather(links, running, chat, end, &mut errand.account).await
}

/// A whole answer's events. Its place is taken until they are read.
fn kept(events: Vec<Event>, ticket: Ticket) -> Events {
    let mut events = events.into_iter();
    Box::pin(futures_util::stream::poll_fn(move |_| {
        let _taken = &ticket;
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
