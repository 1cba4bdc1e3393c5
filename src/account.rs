//! Settles each request exactly once: when its answer ends, when it is refused
//! or fails, or when the client goes away and the account is dropped.
//!
//! What is not here: where rows go (the sink that [`Books`] is made with), and
//! content, of which an account sees only how many pieces there were.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use nearfar_domain::events::{Event, FailureKind, Usage};
use nearfar_domain::ids::TargetId;
use nearfar_domain::price::Price;
use nearfar_domain::privacy::{Ceiling, Zone};

use crate::store::{FailedLeg, Row};

/// Where settled requests go. Must not block.
pub type Sink = Box<dyn Fn(Row) + Send + Sync>;

/// No text has longer tokens on the whole, in bytes; short ones may.
const MOST_BYTES_PER_TOKEN: usize = 8;
const SLACK_BYTES: usize = 512;

/// What a request cost, for those who show it: filled when its account is
/// settled, with `None` where nobody knows.
pub type Bill = Arc<OnceLock<Option<u64>>>;

/// Opens accounts.
#[derive(Clone)]
pub struct Books {
    sink: Arc<Sink>,
}

impl Books {
    /// Books whose settled rows go to `sink`.
    pub fn new(sink: Sink) -> Self {
        Self {
            sink: Arc::new(sink),
        }
    }

    /// Opens the account of one request. `row` holds what is known at the start.
    pub fn open(&self, row: Row, arrived: Instant) -> Account {
        Account {
            sink: Arc::clone(&self.sink),
            row: Some(row),
            arrived,
            local: false,
            price: None,
            pieces: 0,
            used: None,
            most_tokens: None,
            bytes: 0,
            cost_before: Some(0),
            shown_elsewhere: false,
            baseline: None,
            bill: Bill::default(),
        }
    }
}

/// One request's account. Dropped unsettled, it is settled as cancelled.
pub struct Account {
    sink: Arc<Sink>,
    /// `None` once settled.
    row: Option<Row>,
    arrived: Instant,
    /// Whether the attempt under way is on this device, where a piece is a token.
    local: bool,
    price: Option<Price>,
    /// Pieces of the answer seen so far.
    pieces: u64,
    /// What the leg under way said that it took, where it ended and is not wanted.
    used: Option<Usage>,
    /// What the legs cost that failed; `None` where nobody knows.
    cost_before: Option<u64>,
    /// The most tokens that the leg under way may write, and the bytes of it.
    most_tokens: Option<u32>,
    bytes: usize,
    /// Whether a leg that is not on this device wrote part of the answer.
    shown_elsewhere: bool,
    /// Who would have answered if this device had not.
    baseline: Option<(String, Price)>,
    bill: Bill,
}

impl Account {
    /// How far the request may go.
    pub fn classified(&mut self, ceiling: Ceiling) {
        if let Some(row) = &mut self.row {
            row.ceiling = ceiling.zone.as_str().to_owned();
            ceiling.source.as_str().clone_into(&mut row.ceiling_source);
        }
    }

    /// Why the first leg is the first.
    pub fn decided(&mut self, reason: &str) {
        if let Some(row) = &mut self.row {
            row.reason = reason.to_owned();
        }
    }

    /// What the request costs once it is settled.
    pub fn bill(&self) -> Bill {
        Arc::clone(&self.bill)
    }

    /// What the legs cost that failed so far; `None` where nobody knows.
    pub fn spent(&self) -> Option<u64> {
        self.cost_before
    }

    /// The leg under way may write so many tokens; `None` is any number.
    pub fn bounded(&mut self, most_tokens: Option<u32>) {
        self.most_tokens = most_tokens;
    }

    /// See [`Account::bounded`].
    pub fn most_tokens(&self) -> Option<u32> {
        self.most_tokens
    }

    /// Whether the leg under way surely wrote more than it may. Its tokens are
    /// told at the end only, so this is by the bytes that as many tokens have at
    /// most.
    pub fn is_past_bound(&self) -> bool {
        self.most_tokens.is_some_and(|most| {
            let bytes = (most as usize).saturating_mul(MOST_BYTES_PER_TOKEN);
            self.bytes > bytes.saturating_add(SLACK_BYTES)
        })
    }

    /// What the request costs if the leg under way ends with `usage`.
    pub fn cost_with(&self, usage: &Usage) -> Option<u64> {
        plus(self.price?.cost(usage), self.cost_before)
    }

    /// Who would answer if this device did not, and what it charges.
    pub fn instead(&mut self, target: &str, price: Price) {
        self.baseline = Some((target.to_owned(), price));
    }

    /// One more leg is tried.
    pub fn attempt(&mut self, target: &TargetId, zone: Zone, price: Option<Price>) {
        self.local = target.is_local();
        self.price = price;
        self.pieces = 0;
        self.used = None;
        self.most_tokens = None;
        self.bytes = 0;
        if let Some(row) = &mut self.row {
            row.target = target.to_string();
            row.zone = zone.as_str().to_owned();
            row.attempts += 1;
        }
    }

    /// The leg under way ended, and its answer is not wanted.
    pub fn wasted(&mut self, usage: &Usage) {
        self.used = Some(*usage);
    }

    /// What the leg under way costs if it ends here. One that failed before it
    /// wrote anything costs nothing; one that broke off did not say how much it
    /// took, save this device's engine, which sends a piece per token.
    fn cost_of_leg(&self) -> Option<u64> {
        match (&self.used, self.pieces) {
            (Some(usage), _) => self.price?.cost(usage),
            (None, 0) => Some(0),
            (None, pieces) if self.local => self.price?.cost(&Usage {
                completion: Some(pieces),
                ..Usage::default()
            }),
            (None, _) => self.price.filter(Price::is_free).map(|_| 0),
        }
    }

    /// The leg under way gives no whole answer.
    pub fn leg_failed(&mut self, kind: FailureKind) {
        self.cost_before = plus(self.cost_before, self.cost_of_leg());
        self.shown_elsewhere |= !self.local && self.pieces > 0;
        if let Some(row) = &mut self.row {
            row.failed_legs.push(FailedLeg {
                target: row.target.clone(),
                zone: row.zone.clone(),
                failure: kind.as_str().to_owned(),
                pieces: self.pieces,
            });
        }
    }

    /// The first piece that the client sees is there.
    pub fn first_piece(&mut self) {
        let elapsed = self.elapsed_ms();
        if let Some(row) = &mut self.row {
            row.ttft_ms.get_or_insert(elapsed);
        }
    }

    /// A piece of the answer went by.
    pub fn piece(&mut self, event: &Event) {
        if matches!(
            event,
            Event::Content(_) | Event::Reasoning(_) | Event::ToolCall(_)
        ) {
            self.pieces += 1;
            self.bytes += match event {
                Event::Content(text) | Event::Reasoning(text) => text.len(),
                Event::ToolCall(call) => call.arguments.len(),
                _ => 0,
            };
        }
    }

    /// The answer is whole.
    pub fn finished(&mut self, usage: &Usage) {
        self.finished_in_parts(usage, usage);
    }

    /// The answer is whole. `last` is what its last leg took, `usage` what the
    /// answer took as its client sees it.
    pub fn finished_in_parts(&mut self, last: &Usage, usage: &Usage) {
        let cost = self.cost_with(last);
        let saved = self.saved(usage);
        if let Some(row) = &mut self.row {
            row.prompt_tokens = usage.prompt;
            row.cached_prompt_tokens = usage.cached_prompt;
            row.completion_tokens = usage.completion;
            row.reasoning_tokens = usage.reasoning;
            row.cache_written_tokens = usage.cache_written;
            row.cost_micro = cost;
            if let Some((baseline, micro)) = saved {
                row.baseline = baseline;
                row.saved_local_micro = Some(micro);
            }
        }
        self.settle("ok", "");
    }

    /// What the answer would have cost where it would have come from otherwise,
    /// with the same tokens and no cache. Only of an answer that this device
    /// gave whole.
    fn saved(&self, usage: &Usage) -> Option<(String, u64)> {
        if !self.local || self.shown_elsewhere {
            return None;
        }
        let (target, price) = self.baseline.as_ref()?;
        let there = Usage {
            cached_prompt: None,
            cache_written: None,
            cache_written_hour: None,
            ..*usage
        };
        Some((target.clone(), price.cost(&there)?))
    }

    /// The answer is one that was kept: nobody is asked, and it costs nothing.
    /// `saved_micro` is what it cost when it was made.
    pub fn kept(&mut self, target: &TargetId, zone: Zone, saved_micro: Option<u64>) {
        if let Some(row) = &mut self.row {
            row.target = target.to_string();
            row.zone = zone.as_str().to_owned();
            row.cost_micro = Some(0);
            row.saved_micro = saved_micro;
        }
    }

    /// The kept answer was passed on. Tokens were taken when it was made, and
    /// are in that request's row.
    pub fn served(&mut self) {
        self.settle("ok", "");
    }

    /// No leg may or can answer, or the request was turned away.
    pub fn refused(&mut self, reason: &str) {
        self.decided(reason);
        if let Some(row) = &mut self.row {
            row.cost_micro = Some(0);
        }
        self.settle("refused", "");
    }

    /// Every leg failed, or the answer broke off.
    pub fn failed(&mut self, kind: FailureKind) {
        self.tokens_so_far(self.cost_before);
        let outcome = if kind == FailureKind::Cancelled {
            "cancelled"
        } else {
            "failed"
        };
        self.settle(outcome, kind.as_str());
    }

    /// What an answer that broke off took, as far as it is known.
    fn tokens_so_far(&mut self, cost: Option<u64>) {
        let (local, pieces) = (self.local, self.pieces);
        if let Some(row) = &mut self.row {
            if local {
                row.completion_tokens = Some(pieces);
            }
            row.cost_micro = cost;
        }
    }

    fn settle(&mut self, outcome: &str, failure: &str) {
        let elapsed = self.elapsed_ms();
        if let Some(mut row) = self.row.take() {
            outcome.clone_into(&mut row.outcome);
            failure.clone_into(&mut row.failure);
            row.duration_ms = elapsed;
            row.failed_cost_micro = self.cost_before;
            // Set once: an account is settled once.
            let _ = self.bill.set(row.cost_micro);
            (self.sink)(row);
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.arrived.elapsed().as_secs_f64() * 1e3
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.row.is_some() {
            let cost = plus(self.cost_before, self.cost_of_leg());
            self.tokens_so_far(cost);
            self.settle("cancelled", FailureKind::Cancelled.as_str());
        }
    }
}

/// `None` where one of them is not known.
fn plus(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.saturating_add(other?))
}
