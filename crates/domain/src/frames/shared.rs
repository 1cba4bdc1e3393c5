//! Counters of limits that several daemons share: names and figures, no content.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;

/// One step at the shared counters: all of it or nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SharedCall {
    /// Names the job.
    pub job: JobId,
    /// What is to be done.
    pub op: SharedOp,
    /// Which daemon asks: drawn at random when its gate starts.
    pub instance: String,
    /// Which of its beginnings; calls of an earlier one are refused.
    pub term: u64,
    /// The number of this change; one that was counted is not counted again.
    pub change: u64,
    /// The counters.
    pub entries: Vec<SharedEntry>,
}

/// What is to be done with the counters of a [`SharedCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedOp {
    /// Hold `amount` of each, of all or of none.
    Reserve,
    /// Count `used`, and change what is held by `taken` and `given`.
    Settle,
    /// As `Settle` after a time without the server: `holds` is all that this
    /// daemon holds, and `floor` what it knows to have been used by all.
    Begin,
}

/// From when to when a shared counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedSpan {
    /// The last minute.
    Minute,
    /// As long as it is held.
    Held,
    /// A day of UTC, by the server's clock.
    Day,
    /// A month of UTC, by the server's clock.
    Month,
}

/// One counter of a [`SharedCall`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedEntry {
    /// Its name among all daemons.
    pub counter: String,
    /// From when to when it counts.
    pub span: SharedSpan,
    /// Whether a reserve of it is used at once.
    pub at_once: bool,
    /// The figure that is not to be passed.
    pub most: u64,
    /// What is to be reserved.
    pub amount: u64,
    /// What was used.
    pub used: u64,
    /// What is held beyond what was reserved here.
    pub taken: u64,
    /// What is no longer held.
    pub given: u64,
    /// All that this daemon holds.
    pub holds: u64,
    /// What was used by all daemons as it was last told …
    pub floor: u64,
    /// … for the day or month that began then, in milliseconds since 1970.
    pub floor_start_ms: i64,
}

/// A counter's figures, of all daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFigures {
    /// Used, in the time that counts.
    pub used: u64,
    /// Held.
    pub held: u64,
    /// The first moment of its day or month, in milliseconds since 1970; else 0.
    pub start_ms: i64,
}

/// How a [`SharedCall`] ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedEnd {
    /// It is done; the figures after it, one for each entry.
    Done(Vec<SharedFigures>),
    /// Nothing was reserved.
    Denied {
        /// The first entry of which too little is left.
        place: u32,
        /// The figures, one for each entry.
        figures: Vec<SharedFigures>,
    },
    /// The server does not know this daemon's term: it lost its data, or heard
    /// nothing for long.
    Stale,
    /// The server is away.
    Failed {
        /// For people; no secret.
        message: String,
    },
}
