//! Settles each request exactly once: when its answer ends, when it is refused
//! or fails, or when the client goes away and the account is dropped.
//!
//! What is not here: where rows go (the sink that [`Books`] is made with), and
//! content, of which an account sees only how many pieces there were.

use std::sync::Arc;
use std::time::Instant;

use nearfar_domain::events::{Event, FailureKind, Usage};
use nearfar_domain::ids::TargetId;
use nearfar_domain::price::Price;
use nearfar_domain::privacy::{Ceiling, Zone};

use crate::store::{FailedLeg, Row};

/// Where settled requests go. Must not block.
pub type Sink = Box<dyn Fn(Row) + Send + Sync>;

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
            cost_before: Some(0),
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
    /// What the legs cost that broke off after they were seen; `None` where
    /// nobody knows.
    cost_before: Option<u64>,
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

    /// One more leg is tried.
    pub fn attempt(&mut self, target: &TargetId, zone: Zone, price: Option<Price>) {
        // What the leg before wrote until it failed costs, and it did not say
        // how much.
        if self.pieces > 0 && self.price != Some(Price::FREE) {
            self.cost_before = None;
        }
        self.local = target.is_local();
        self.price = price;
        self.pieces = 0;
        if let Some(row) = &mut self.row {
            row.target = target.to_string();
            row.zone = zone.as_str().to_owned();
            row.attempts += 1;
        }
    }

    /// The leg under way gives no whole answer.
    pub fn leg_failed(&mut self, kind: FailureKind) {
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
        }
    }

    /// The answer is whole.
    pub fn finished(&mut self, usage: &Usage) {
        self.finished_in_parts(usage, usage);
    }

    /// The answer is whole. `last` is what its last leg took, `usage` what the
    /// answer took as its client sees it.
    pub fn finished_in_parts(&mut self, last: &Usage, usage: &Usage) {
        let cost = cost(self.price, last)
            .zip(self.cost_before)
            .map(|(cost, before)| cost.saturating_add(before));
        if let Some(row) = &mut self.row {
            row.prompt_tokens = usage.prompt;
            row.cached_prompt_tokens = usage.cached_prompt;
            row.completion_tokens = usage.completion;
            row.reasoning_tokens = usage.reasoning;
            row.cost_micro = cost;
        }
        self.settle("ok", "");
    }

    /// No leg may or can answer, or the request was turned away.
    pub fn refused(&mut self, reason: &str) {
        self.decided(reason);
        self.settle("refused", "");
    }

    /// Every leg failed, or the answer broke off.
    pub fn failed(&mut self, kind: FailureKind) {
        self.tokens_so_far();
        let outcome = if kind == FailureKind::Cancelled {
            "cancelled"
        } else {
            "failed"
        };
        self.settle(outcome, kind.as_str());
    }

    /// What an answer that broke off took, as far as it is known: this device's
    /// engine sends a piece per token, and costs nothing.
    fn tokens_so_far(&mut self) {
        let (local, pieces, price) = (self.local, self.pieces, self.price);
        if let Some(row) = &mut self.row
            && local
        {
            row.completion_tokens = Some(pieces);
            row.cost_micro = price.filter(|price| *price == Price::FREE).map(|_| 0);
        }
    }

    fn settle(&mut self, outcome: &str, failure: &str) {
        let elapsed = self.elapsed_ms();
        if let Some(mut row) = self.row.take() {
            outcome.clone_into(&mut row.outcome);
            failure.clone_into(&mut row.failure);
            row.duration_ms = elapsed;
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
            self.tokens_so_far();
            self.settle("cancelled", FailureKind::Cancelled.as_str());
        }
    }
}

/// `None` where the price or a count is not known. A free target's cost is
/// known to be nothing whatever it counted.
fn cost(price: Option<Price>, usage: &Usage) -> Option<u64> {
    let price = price?;
    if price == Price::FREE {
        return Some(0);
    }
    let cached = usage.cached_prompt.unwrap_or(0);
    Some(price.cost_micro(usage.prompt?, cached, usage.completion?))
}
