//! An answer that its client wants whole. It is gathered here, before anything
//! is shown, so that a leg that breaks off is replaced unseen.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::chat::Chat;
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason};

use super::attempt::Running;
use super::{Links, Purse, flow, form, money};
use crate::account::Account;

/// The most bytes of an answer that is kept whole.
const MAX_BYTES: usize = 64 << 20;

/// Waits for the rest of an attempt and judges it. The account is settled when
/// the answer is whole; the events end with `Finished`.
pub(super) async fn gather(
    links: &Links,
    mut running: Running,
    chat: &Chat,
    end: Instant,
    purse: Purse,
    account: &mut Account,
) -> Result<Vec<Event>, Failure> {
    let idle = flow::idle(links);
    let mut next = Some(running.first);
    let mut gathered = Gathered::default();
    let failure = loop {
        let event = match next.take() {
            Some(first) => first,
            None => {
                let left = end.saturating_duration_since(Instant::now());
                match tokio::time::timeout(idle.min(left), running.job.next()).await {
                    Ok(Some(event)) => event,
                    Ok(None) => break crate::links::lost(),
                    Err(_) => break flow::silent(),
                }
            }
        };
        match event {
            Event::Started { .. } => {}
            Event::Failed(failure) => break failure,
            Event::Finished { reason, usage } => {
                let checked = !running.target.is_local() && reason == FinishReason::Stop;
                if checked
                    && !gathered.called
                    && let Some(failure) = form::misfit(&chat.response_format, &gathered.text)
                {
                    account.wasted(&usage);
                    break failure;
                }
                if purse.is_over(account.cost_with(&usage)) {
                    account.wasted(&usage);
                    break money::passed();
                }
                account.finished(&usage);
                let ended = running.job.ended_at().unwrap_or_else(Instant::now);
                let elapsed = ended.saturating_duration_since(running.first_at);
                let rest = usage.completion.map(|tokens| tokens.saturating_sub(1));
                running.trial.succeeded(rest, elapsed);
                gathered.events.push(Event::Finished { reason, usage });
                return Ok(gathered.events);
            }
            piece => {
                account.piece(&piece);
                if account.is_past_bound() {
                    break money::passed();
                }
                if !gathered.take(piece) {
                    break Failure::new(
                        FailureKind::Malformed,
                        "The answer is too long to be kept whole. Ask for a stream.",
                    );
                }
            }
        }
    };
    let retry_after = failure.retry_after_ms.map(Duration::from_millis);
    let generation = Some(running.generation);
    running
        .trial
        .failed(failure.kind, generation, retry_after, Instant::now());
    Err(failure)
}

#[derive(Default)]
struct Gathered {
    events: Vec<Event>,
    text: String,
    called: bool,
    bytes: usize,
}

impl Gathered {
    /// Keeps a piece; text is joined, so that a long answer is one string and
    /// not a hundred thousand. Returns whether there was room.
    fn take(&mut self, piece: Event) -> bool {
        self.bytes += size(&piece);
        if self.bytes > MAX_BYTES {
            return false;
        }
        if let Event::Content(text) = &piece {
            self.text.push_str(text);
        }
        self.called |= matches!(piece, Event::ToolCall(_));
        match (self.events.last_mut(), piece) {
            (Some(Event::Content(text)), Event::Content(more))
            | (Some(Event::Reasoning(text)), Event::Reasoning(more)) => text.push_str(&more),
            (_, piece) => self.events.push(piece),
        }
        true
    }
}

fn size(event: &Event) -> usize {
    const OVERHEAD: usize = 32;
    OVERHEAD
        + match event {
            // Once for the events, once for the check of the form.
            Event::Content(text) => 2 * text.len(),
            Event::Reasoning(text) => text.len(),
            Event::ToolCall(call) => call.arguments.len(),
            Event::Logprobs(tokens) => tokens.iter().map(|t| 96 * (1 + t.top.len())).sum(),
            Event::Vectors(vectors) => vectors.iter().map(|v| 4 * v.len()).sum(),
            _ => 0,
        }
}
