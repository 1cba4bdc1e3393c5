//! The path of a request, in one screen. READ FIRST.

use nearfar_domain::chat::Chat;
use nearfar_domain::events::{Event, Failure};
use nearfar_domain::explain::{Ability, Explanation, Reason};
use nearfar_domain::ids::{DecisionId, TargetId};
use nearfar_domain::privacy::{Say, Zone};
use nearfar_domain::route::Side;

/// A request as a front dialect decoded it, whatever the dialect was.
pub struct Asked {
    /// Which front and endpoint: `openai.chat`, `openai.completions`, `route`.
    pub endpoint: &'static str,
    /// The model's name as the client wrote it: `auto`, `local/x`, `provider/x`, or a bare name.
    pub model: String,
    /// The content.
    pub chat: Chat,
    /// Abilities without which an answer would be wrong.
    pub needs: Vec<Ability>,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// Everything that the request itself says about privacy.
    pub says: Vec<Say>,
    /// Which side was asked for.
    pub side: Side,
    /// A target that the route tag names; wins over `model`.
    pub target: Option<TargetId>,
    /// Whole answer within, in milliseconds.
    pub deadline_ms: Option<f64>,
    /// First token within, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// At most this dear, in micro-units.
    pub max_cost_micro: Option<u64>,
    /// What it is accounted to.
    pub feature: Option<String>,
    /// Which conversation it belongs to.
    pub conversation: Option<String>,
    /// `name@version` of the prompt.
    pub prompt_version: Option<String>,
}

/// An answer that has begun: its first visible event is there, so the target is settled.
pub struct Answer {
    /// The decision's id.
    pub decision: DecisionId,
    /// The target that really answers (after failover).
    pub target: TargetId,
    /// Its zone.
    pub zone: Zone,
    /// Why the first leg was the first.
    pub reason: Reason,
    /// 1 for the first leg.
    pub attempt: u32,
    /// The rest; the first event is the first visible one, or `Finished`.
    /// Ends after `Finished` or `Failed`. Dropping it cancels the leg and accounts the request.
    pub events: EventStream,
}

/// Events of one answer; bounded, so a slow client slows its leg and nothing else.
pub type EventStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = Event> + Send>>;

/// Why there is no answer.
#[derive(Debug)]
pub enum RoadError {
    /// A field of the request does not fit this daemon: (field, what to do).
    Field(&'static str, String),
    /// No such model: what to do.
    NoSuchModel(String),
    /// As many requests as allowed are under way.
    Busy {
        /// The limit.
        limit: usize,
    },
    /// nearfar is stopping.
    Draining,
    /// No allowed target can answer.
    Refused(Box<Explanation>),
    /// Every leg failed; this is what the last one said.
    Failed {
        /// The decision.
        decision: DecisionId,
        /// The leg that failed last.
        target: TargetId,
        /// What it said.
        failure: Failure,
    },
}
