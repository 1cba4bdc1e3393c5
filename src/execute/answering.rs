//! One leg's events on their way: identifiers put back, and what must not occur
//! in an answer found, before anybody else sees them. Each leg has its own: what
//! was held back of a leg that fails goes with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::redact::Restorer;

use super::meter::Meter;
use crate::guard::Watch;
use crate::links::JobStream;

/// The events of one leg.
pub(super) struct Answering {
    job: JobStream<Event>,
    restorer: Option<Restorer>,
    watch: Option<Watch>,
    meter: Meter,
    ready: VecDeque<Event>,
    over: bool,
}

impl Answering {
    pub(super) fn new(
        job: JobStream<Event>,
        restorer: Option<Restorer>,
        watch: Option<Watch>,
        meter: Meter,
    ) -> Self {
        Self {
            job,
            restorer,
            watch,
            meter,
            ready: VecDeque::new(),
            over: false,
        }
    }

    /// When the last piece came in, however late it was read.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.job.ended_at()
    }

    /// The event, unless it completes what must not occur.
    fn checked(&mut self, event: Event) -> Event {
        let found = self.watch.as_mut().and_then(|watch| watch.see(&event));
        let Some(name) = found else {
            return event;
        };
        self.over = true;
        self.ready.clear();
        Event::Failed(Failure::new(
            FailureKind::Blocked,
            format!(
                "The answer was stopped here: it held what the pattern '{name}' of this device's \
                 guard does not let through."
            ),
        ))
    }
}

impl Stream for Answering {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(this.checked(event)));
            }
            if this.over {
                return Poll::Ready(None);
            }
            match Pin::new(&mut this.job).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(event)) => {
                    this.meter.see(&event);
                    match &mut this.restorer {
                        Some(restorer) => restorer.push(event, &mut this.ready),
                        None => this.ready.push_back(event),
                    }
                }
            }
        }
    }
}
