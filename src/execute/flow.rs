//! The rest of an answer after its first visible event. A failure here ends
//! the stream in band: a truncated answer is never presented as complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::ids::TargetId;

use super::begin::Running;
use super::{Events, Links};
use crate::account::Account;
use crate::admission::Ticket;
use crate::health::Trial;
use crate::links::JobStream;
use crate::telemetry::Metrics;

/// Egress keeps its own idle limit; this is the backstop behind it.
const IDLE_EXTRA: Duration = Duration::from_secs(2);

/// An answer under way. Dropping it stops the leg, settles the account and
/// makes room for the next request, in this order.
pub(super) struct Flow {
    first: Option<Event>,
    job: JobStream<Event>,
    account: Account,
    metrics: Arc<Metrics>,
    target: TargetId,
    /// `None` once the attempt was judged.
    trial: Option<Trial>,
    generation: u64,
    first_at: Instant,
    idle: Duration,
    end: Instant,
    over: bool,
    _ticket: Ticket,
}

impl Flow {
    pub(super) fn new(links: &Links, running: Running, account: Account, ticket: Ticket) -> Self {
        Self {
            first: Some(running.first),
            job: running.job,
            account,
            metrics: Arc::clone(&links.metrics),
            target: running.target,
            trial: Some(running.trial),
            generation: running.generation,
            first_at: running.first_at,
            idle: Duration::from_millis(links.limits.idle_ms) + IDLE_EXTRA,
            end: running.first_at + Duration::from_millis(links.limits.total_ms),
            over: false,
            _ticket: ticket,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        loop {
            let event = match self.first.take() {
                Some(first) => first,
                None => self.receive().await,
            };
            match &event {
                // Who answers was settled by the first event.
                Event::Started { .. } => continue,
                Event::Finished { usage, .. } => {
                    self.over = true;
                    self.account.finished(usage);
                    if let Some(trial) = self.trial.take() {
                        // When the last piece came, not when it was read.
                        let ended = self.job.ended_at().unwrap_or_else(Instant::now);
                        let elapsed = ended.saturating_duration_since(self.first_at);
                        let rest = usage.completion.map(|tokens| tokens.saturating_sub(1));
                        trial.succeeded(rest, elapsed);
                    }
                }
                Event::Failed(failure) => {
                    self.over = true;
                    self.account.failed(failure.kind);
                    self.metrics.leg_failed(&self.target, failure.kind);
                    if let Some(trial) = self.trial.take() {
                        let retry_after = failure.retry_after_ms.map(Duration::from_millis);
                        let generation = Some(self.generation);
                        trial.failed(failure.kind, generation, retry_after, Instant::now());
                    }
                }
                piece => self.account.piece(piece),
            }
            return Some(event);
        }
    }

    async fn receive(&mut self) -> Event {
        let left = self.end.saturating_duration_since(Instant::now());
        let wait = self.idle.min(left);
        match tokio::time::timeout(wait, self.job.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => Event::Failed(crate::links::lost()),
            Err(_) => Event::Failed(Failure::new(
                FailureKind::TimedOut,
                "The answer broke off: its next piece did not come within the time limit.",
            )),
        }
    }
}

/// The answer as a stream. It ends after `Finished` or `Failed`.
pub(super) fn events(flow: Flow) -> Events {
    Box::pin(futures_util::stream::unfold(flow, |mut flow| async move {
        let event = flow.next().await?;
        Some((event, flow))
    }))
}
