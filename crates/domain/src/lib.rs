//! What nearfar knows about a request and how it decides: chat, privacy,
//! targets, the decision and the frames that cross processes.
//!
//! Nothing here does I/O, reads a clock, draws a random number or awaits.
//! Everything that the decision may see is an argument, so that a decision can
//! be explained, tested and replayed.
//!
//! In reading order: [`chat`] is the request, [`privacy`] decides how far it
//! may go, [`target`] and [`snapshot`] describe what could answer it,
//! [`scope`] is what its caller may use, [`route`] chooses, [`explain`] says why, [`events`] is the answer, and
//! [`frames`] is how both cross a process boundary. [`calendar`] tells dates.

pub mod calendar;
pub mod chat;
pub mod embed;
pub mod events;
pub mod explain;
pub mod frames;
pub mod guard;
pub mod ids;
pub mod limit;
pub mod price;
pub mod privacy;
pub mod redact;
pub mod route;
pub mod scope;
pub mod snapshot;
pub mod target;
pub mod thought;
