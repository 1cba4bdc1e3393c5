//! Runs a decision: walks its legs until one answers, then passes that answer on.
//!
//! In reading order: [`leg`] starts one attempt on its own link with its own
//! proof, [`patience`] says how long it may take to its first token, which
//! [`attempt`] waits for; its events pass through
//! [`answering`]. [`begin`] goes from leg to leg until an answer has
//! begun, and [`again`] says whether one is tried once more. Then [`flow`]
//! passes a stream on and, when it breaks off, goes on at another leg
//! ([`shown`] joins the parts), or [`whole`] gathers the answer unseen. [`form`]
//! checks what a provider promised.
//!
//! What is not here: which legs there are. They were frozen by the decision;
//! nothing here can add one.

mod again;
mod answering;
mod attempt;
mod begin;
mod flow;
mod form;
mod leg;
mod meter;
mod money;
mod patience;
mod shown;
mod whole;

use std::sync::Arc;
use std::time::Instant;

use nearfar_domain::events::{Event, Failure};
use nearfar_domain::frames::{Terms, TimeLimits};
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;
use nearfar_domain::redact::Restorer;
use nearfar_domain::route::{Facts, Plan};
use nearfar_domain::snapshot::Snapshot;

use crate::account::Account;
use crate::admission::Ticket;
use crate::catalog::LocalModel;
use crate::config::Retries;
use crate::guard::Guard;
use crate::health::Health;
use crate::limits::{Denied, Limits, Reservation, Who};
use crate::links::{EgressLink, EngineLink, JobStream};
use crate::telemetry::Metrics;

use answering::Answering;
pub(crate) use begin::begin;
use meter::Meter;
pub(crate) use money::Purse;

/// What legs run on.
#[derive(Clone)]
pub struct Links {
    /// To this device's engine.
    pub engine: EngineLink,
    /// To egress.
    pub egress: EgressLink,
    /// Told how each attempt went.
    pub health: Arc<Health>,
    /// Told of each leg that failed.
    pub metrics: Arc<Metrics>,
    /// Hard time limits. A request's deadline orders legs; these end them.
    pub limits: TimeLimits,
    /// What may be used: each leg reserves its worst case.
    pub use_limits: Arc<Limits>,
    /// How often a leg is tried again.
    pub retries: Retries,
}

/// One decision to be run.
pub(crate) struct Errand {
    /// The request and its legs.
    pub(crate) plan: Plan,
    /// What the decision saw.
    pub(crate) snapshot: Snapshot,
    /// Models of this device at that moment.
    pub(crate) models: Arc<Vec<LocalModel>>,
    /// What the decision knew of the request.
    pub(crate) facts: Facts,
    /// Who asks, as far as limits care.
    pub(crate) who: Who,
    /// Whether the client sees the answer grow.
    pub(crate) stream: bool,
    /// When the request arrived.
    pub(crate) arrived: Instant,
    /// Whole answer within, in milliseconds.
    pub(crate) deadline_ms: Option<f64>,
    /// First token within, in milliseconds.
    pub(crate) ttft_ms: Option<f64>,
    /// What it may cost.
    pub(crate) purse: Purse,
    /// How this device's engine is to treat it among others.
    pub(crate) terms: Terms,
    /// What must not occur in the answer.
    pub(crate) guard: Arc<Guard>,
    /// Settled when the answer ends or nobody wants it any more.
    pub(crate) account: Account,
    /// The places that the request takes.
    pub(crate) places: Places,
}

/// What a request holds until its answer has ended: its place at the door, and
/// those of limits of requests.
pub(crate) struct Places {
    _ticket: Ticket,
    _entered: Reservation,
}

impl Places {
    /// Holds both.
    pub(crate) fn new(ticket: Ticket, entered: Reservation) -> Self {
        Self {
            _ticket: ticket,
            _entered: entered,
        }
    }
}

impl Errand {
    /// The events of a leg that was started, with all that is done to them.
    fn answering(
        &self,
        job: JobStream<Event>,
        restorer: Option<Restorer>,
        meter: Meter,
    ) -> Answering {
        Answering::new(job, restorer, self.guard.watch(), meter)
    }
}

/// Events of one answer.
pub(crate) type Events = std::pin::Pin<Box<dyn futures_util::Stream<Item = Event> + Send>>;

/// An answer that has begun.
pub(crate) struct Begun {
    /// Who answers.
    pub(crate) target: TargetId,
    /// Where.
    pub(crate) zone: Zone,
    /// 1 for the first attempt.
    pub(crate) attempt: u32,
    /// From the first visible event on.
    pub(crate) events: Events,
}

/// Every leg failed.
pub(crate) struct AllFailed {
    /// The last one.
    pub(crate) target: TargetId,
    /// What it said.
    pub(crate) failure: Failure,
    /// The limit that let no leg be tried at all.
    pub(crate) denied: Option<Box<Denied>>,
}
