//! The rest of a streamed answer after its first visible event.
//!
//! A leg that breaks off here has been seen. Another one goes on right behind
//! what was shown, or the stream ends with an error in band: a truncated answer
//! is never presented as complete.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, Usage};
use nearfar_domain::ids::TargetId;
use tokio::time::{Sleep, sleep_until};

use super::answering::Answering;
use super::attempt::{Running, attempt};
use super::leg::{self, Brief, Part};
use super::shown::{Doubled, Seam, Shown, Way};
use super::{Errand, Events, Links, form, meter, money};
use crate::health::Trial;

/// Egress keeps its own idle limit; this is the backstop behind it.
const IDLE_EXTRA: Duration = Duration::from_secs(2);
/// How often one answer goes on elsewhere.
const MAX_CONTINUATIONS: u32 = 3;
/// Bytes of text in a token, where a provider sends several in a piece.
const BYTES_PER_TOKEN: usize = 5;

/// The leg that answers now.
struct Current {
    index: usize,
    target: TargetId,
    first: Option<Event>,
    job: Answering,
    /// `None` once the attempt was judged.
    trial: Option<Trial>,
    generation: u64,
    first_at: Instant,
    /// Pieces and bytes of its text that were shown, and pieces of reasoning.
    pieces: u64,
    bytes: usize,
    thoughts: u64,
}

impl Current {
    fn new(index: usize, running: Running) -> Self {
        Self {
            index,
            target: running.target,
            first: Some(running.first),
            job: running.job,
            trial: Some(running.trial),
            generation: running.generation,
            first_at: running.first_at,
            pieces: 0,
            bytes: 0,
            thoughts: 0,
        }
    }

    /// About how many tokens its text has: this device's engine sends one per piece.
    fn tokens(&self) -> u64 {
        if self.target.is_local() {
            self.pieces
        } else {
            self.pieces.max((self.bytes / BYTES_PER_TOKEN) as u64)
        }
    }
}

/// An answer under way. Dropping it stops the leg, settles the account and
/// makes room for the next request, in this order.
pub(super) struct Flow {
    leg: Current,
    links: Links,
    errand: Errand,
    pending: VecDeque<Event>,
    shown: Shown,
    /// Where the leg's text joins that of those before it.
    seam: Option<Seam>,
    /// Who goes on, until the first piece of it is shown.
    announce: Option<TargetId>,
    /// Tokens of the answer's text, and of reasoning, by legs that broke off.
    tokens_before: u64,
    thoughts_before: u64,
    continued: u32,
    /// Legs that broke off in this answer.
    broken: Vec<usize>,
    end: Instant,
    /// Rings when a piece is too late, or earlier: it is not set anew for each.
    alarm: Pin<Box<Sleep>>,
    over: bool,
}

/// How long the next piece may take.
pub(super) fn idle(links: &Links) -> Duration {
    Duration::from_millis(links.limits.idle_ms) + IDLE_EXTRA
}

/// Its next piece did not come.
pub(super) fn silent() -> Failure {
    Failure::new(
        FailureKind::TimedOut,
        "The answer broke off: its next piece did not come within the time limit.",
    )
}

impl Flow {
    pub(super) fn new(
        links: &Links,
        running: Running,
        errand: Errand,
        index: usize,
        end: Instant,
    ) -> Self {
        Self {
            leg: Current::new(index, running),
            links: links.clone(),
            errand,
            pending: VecDeque::new(),
            shown: Shown::default(),
            seam: None,
            announce: None,
            tokens_before: 0,
            thoughts_before: 0,
            continued: 0,
            broken: Vec::new(),
            end,
            alarm: Box::pin(sleep_until(Instant::now().into())),
            over: false,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let taken = match self.receive().await {
                // Who answers was settled by the first event.
                Event::Started { .. } => Ok(()),
                Event::Finished { reason, usage } => self.finish(reason, usage),
                Event::Failed(failure) => Err(failure),
                piece => self.take(piece),
            };
            if let Err(failure) = taken {
                self.broke_off(failure).await;
            }
        }
    }

    async fn receive(&mut self) -> Event {
        if let Some(first) = self.leg.first.take() {
            return first;
        }
        let now = tokio::time::Instant::now;
        let due = (now() + idle(&self.links)).min(self.end.into());
        if self.alarm.deadline() > due {
            self.alarm.as_mut().reset(due);
        }
        loop {
            tokio::select! {
                biased;
                event = self.leg.job.next() => {
                    return event.unwrap_or_else(|| Event::Failed(crate::links::lost()));
                }
                () = &mut self.alarm => {
                    if now() >= due {
                        return Event::Failed(silent());
                    }
                    self.alarm.as_mut().reset(due);
                }
            }
        }
    }

    /// A piece of the leg's.
    fn take(&mut self, piece: Event) -> Result<(), Failure> {
        self.errand.account.piece(&piece);
        if self.errand.account.is_past_bound() {
            return Err(money::passed());
        }
        // A signature is of its own leg's thoughts, not of several legs'.
        if self.continued > 0 && matches!(piece, Event::Signature { .. }) {
            return Ok(());
        }
        let Some(seam) = &mut self.seam else {
            self.show(piece);
            return Ok(());
        };
        match piece {
            Event::Content(text) => {
                let text = seam.push(&text).map_err(begun_anew)?;
                if seam.is_closed() {
                    self.seam = None;
                }
                if !text.is_empty() {
                    self.show(Event::Content(text));
                }
            }
            // The answer has begun: what is thought before its rest is no
            // part of it, and tokens that are not shown have no probability.
            Event::Reasoning(_) | Event::Logprobs(_) => {}
            other => {
                self.close_seam()?;
                self.show(other);
            }
        }
        Ok(())
    }

    /// What the seam held back comes out.
    fn close_seam(&mut self) -> Result<(), Failure> {
        if let Some(mut seam) = self.seam.take() {
            let text = seam.finish().map_err(begun_anew)?;
            if !text.is_empty() {
                self.show(Event::Content(text));
            }
        }
        Ok(())
    }

    fn show(&mut self, event: Event) {
        if let Some(target) = self.announce.take() {
            self.pending.push_back(Event::Started {
                model: target.to_string(),
            });
        }
        match &event {
            Event::Content(text) => {
                self.leg.pieces += 1;
                self.leg.bytes += text.len();
            }
            Event::Reasoning(_) => self.leg.thoughts += 1,
            _ => {}
        }
        self.shown.add(&event);
        self.pending.push_back(event);
    }

    /// The leg says that the answer is whole.
    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Result<(), Failure> {
        self.close_seam()?;
        let promised = !self.leg.target.is_local() && reason == FinishReason::Stop;
        if promised
            && !self.shown.called()
            && let Some(text) = self.shown.content()
            && let Some(failure) = form::misfit(&leg::chat(&self.errand.plan).response_format, text)
        {
            self.errand.account.wasted(&usage);
            return Err(failure);
        }
        self.over = true;
        if self
            .errand
            .purse
            .is_over(self.errand.account.cost_with(&usage))
        {
            // It is whole and was shown: it goes out, and counts as a fault.
            let kind = FailureKind::TooDear;
            self.links.metrics.leg_failed(&self.leg.target, kind);
        }
        let whole = self.of_all_legs(usage);
        self.errand.account.finished_in_parts(&usage, &whole);
        if let Some(trial) = self.leg.trial.take() {
            // When the last piece came, not when it was read.
            let ended = self.leg.job.ended_at().unwrap_or_else(Instant::now);
            let elapsed = ended.saturating_duration_since(self.leg.first_at);
            let rest = usage.completion.map(|tokens| tokens.saturating_sub(1));
            trial.succeeded(rest, elapsed);
        }
        self.show(Event::Finished {
            reason,
            usage: whole,
        });
        Ok(())
    }

    /// The answer's usage: what the last leg read of the answer was no prompt
    /// of the client's, and what the others wrote belongs to it.
    fn of_all_legs(&self, usage: Usage) -> Usage {
        if self.continued == 0 {
            return usage;
        }
        let before = self.tokens_before + self.thoughts_before;
        let prompt = |tokens: u64| tokens.saturating_sub(self.tokens_before);
        Usage {
            prompt: usage.prompt.map(prompt),
            cached_prompt: usage
                .cached_prompt
                .map(|cached| cached.min(usage.prompt.map_or(cached, prompt))),
            cache_written: usage.cache_written,
            cache_written_hour: usage.cache_written_hour,
            completion: usage.completion.map(|tokens| tokens + before),
            reasoning: usage.reasoning.map(|tokens| tokens + self.thoughts_before),
        }
    }

    /// The leg gives no whole answer: another one goes on, or this is the end.
    async fn broke_off(&mut self, failure: Failure) {
        self.judge(&failure);
        self.links
            .metrics
            .leg_failed(&self.leg.target, failure.kind);
        self.errand.account.leg_failed(failure.kind);
        match self.go_on(&failure).await {
            Some((index, running)) => self.joined(index, running, failure.kind),
            None => {
                self.over = true;
                self.errand.account.failed(failure.kind);
                self.pending.push_back(Event::Failed(failure));
            }
        }
    }

    fn judge(&mut self, failure: &Failure) {
        if let Some(trial) = self.leg.trial.take() {
            let retry_after = failure.retry_after_ms.map(Duration::from_millis);
            let generation = Some(self.leg.generation);
            trial.failed(failure.kind, generation, retry_after, Instant::now());
        }
    }

    /// Finds a leg of the decision's that goes on, and waits for its first piece.
    async fn go_on(&mut self, failure: &Failure) -> Option<(usize, Running)> {
        if !may_go_on(failure.kind) || self.continued >= MAX_CONTINUATIONS {
            return None;
        }
        let way = self.shown.way_on(leg::chat(&self.errand.plan));
        let (text, tail, held) = match &way {
            Way::Never => return None,
            Way::Afresh => ("", "", false),
            Way::From { part, tail, held } => (part.as_str(), tail.as_str(), *held),
        };
        let begun = !text.is_empty();
        self.tokens_before += self.leg.tokens();
        self.thoughts_before += self.leg.thoughts;
        self.broken.push(self.leg.index);
        let written = self.tokens_before + self.thoughts_before;
        let tokens = u32::try_from(written).unwrap_or(u32::MAX);
        let part = Part { text, tokens };
        let order = self.order(begun, held);
        for (place, index) in order.iter().enumerate() {
            if Instant::now() >= self.end {
                return None;
            }
            let brief = leg::brief(&self.errand.plan, *index)?;
            let reserved = meter::reserve(&self.links, &self.errand, &brief, tokens);
            // A limit that is reached by now keeps the leg out.
            let Ok(reservation) = reserved.await else {
                continue;
            };
            self.errand
                .account
                .attempt(&brief.target, brief.zone, brief.price);
            let more = place + 1 < order.len();
            let bound = self.errand.purse.bound(&brief, &self.errand.account, begun);
            let tried = match bound {
                Ok(most_tokens) => {
                    self.errand.account.bounded(most_tokens);
                    let (links, errand) = (&self.links, &self.errand);
                    attempt(links, errand, *index, &brief, part, more, reservation).await
                }
                Err(failure) => {
                    drop(reservation);
                    Err(failure)
                }
            };
            match tried {
                Ok(running) => {
                    let echoes = !brief.target.is_local();
                    self.seam = begun
                        .then(|| Seam::new(text, tail, echoes))
                        .filter(|seam| !seam.is_closed());
                    return Some((*index, running));
                }
                Err(other) => {
                    self.links.metrics.leg_failed(&brief.target, other.kind);
                    self.errand.account.leg_failed(other.kind);
                    if begun && refuses_prefill(&brief, &other) {
                        self.links.health.refused_prefill(&brief.target);
                    }
                }
            }
        }
        None
    }

    /// Legs that may go on, in the order of trying: those that were not asked
    /// yet, those that had failed before, and the one that broke off, once.
    fn order(&self, begun: bool, held: bool) -> Vec<usize> {
        let current = self.leg.index;
        let legs = leg::count(&self.errand.plan);
        (current + 1..legs)
            .chain(0..current)
            .chain([current])
            .filter(|index| {
                let broken = self.broken.iter().filter(|broken| *broken == index);
                let times = broken.count();
                times < 2
                    && leg::brief(&self.errand.plan, *index)
                        .is_some_and(|brief| self.can_go_on(&brief, begun, held))
            })
            .collect()
    }

    fn can_go_on(&self, brief: &Brief, begun: bool, held: bool) -> bool {
        if !self.links.health.allows(&brief.target, Instant::now()) {
            return false;
        }
        if !begun || brief.target.is_local() {
            return true;
        }
        // Providers hold a form from an answer's beginning on, not from its middle.
        let text = leg::is_text(&self.errand.plan);
        !held
            && (text || self.links.egress.takes_prefill(&brief.target))
            && !self.links.health.refuses_prefill(&brief.target)
    }

    fn joined(&mut self, index: usize, running: Running, kind: FailureKind) {
        self.continued += 1;
        self.links.metrics.continued();
        tracing::info!(
            from = %self.leg.target,
            to = %running.target,
            kind = kind.as_str(),
            "an answer that broke off goes on"
        );
        self.announce = Some(running.target.clone());
        if self.shown.only_reasoned() {
            // Thoughts of two models are told apart.
            self.pending.push_back(Event::Reasoning("\n\n".to_owned()));
        }
        self.leg = Current::new(index, running);
    }
}

/// Whether what broke off may go on elsewhere: not what nobody wants, what is
/// wrong in itself or what a filter stopped.
fn may_go_on(kind: FailureKind) -> bool {
    kind.another_leg_may_help() && kind != FailureKind::Forbidden
}

/// Whether the provider refused the partial turn rather than the moment.
fn refuses_prefill(brief: &Brief, failure: &Failure) -> bool {
    !brief.target.is_local()
        && matches!(
            failure.kind,
            FailureKind::BadRequest | FailureKind::Unsupported
        )
}

fn begun_anew(_: Doubled) -> Failure {
    Failure::new(
        FailureKind::Malformed,
        "The answer broke off, and the provider that was to go on with it began it anew.",
    )
}

/// The answer as a stream. It ends after `Finished` or `Failed`.
pub(super) fn events(flow: Flow) -> Events {
    Box::pin(futures_util::stream::unfold(flow, |mut flow| async move {
        let event = flow.next().await?;
        Some((event, flow))
    }))
}
