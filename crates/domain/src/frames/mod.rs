//! What crosses between processes, and the two encoders that content passes.
//!
//! A frame is a little-endian `u32` length followed by that many bytes of
//! postcard. Lengths are bounded before anything is allocated. The first frame
//! that a child sends on a link is its `Hello`, which carries [`VERSION`]; a
//! peer that reads another version closes the link.
//!
//! [`EngineJob::new`] takes what this device may see; [`EgressJob::new`] takes
//! [`Cleared`](crate::privacy::Cleared) alone.

mod codec;
mod egress;
mod engine;
mod ledger;
mod shared;
mod terms;
mod wire;

pub use codec::{FrameError, MAX_FRAME_BYTES, Reader, decode, encode, encode_into};
pub use egress::{
    Download, DownloadEvent, EgressJob, FromEgress, ModelCard, ProviderCard, TimeLimits, ToEgress,
};
pub use engine::{
    Confidence, DraftLoad, DraftSource, EngineJob, EngineState, FromEngine, KvNumbers, LoadedModel,
    LoadingModel, ModelLoad, ModelSource, Timings, ToEngine, Tuning,
};
pub use ledger::{LedgerBatch, LedgerEnd, LedgerLeg, LedgerRow};
pub use shared::{SharedCall, SharedEnd, SharedEntry, SharedFigures, SharedOp, SharedSpan};
pub use terms::{Priority, Purpose, Terms};
pub use wire::WireChat;

/// Version of all frames. Processes of one binary always agree; the check is
/// for a daemon whose binary was replaced while it ran.
pub const VERSION: u16 = 8;
