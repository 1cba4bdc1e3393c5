//! The only process that can reach the network, and the only one that holds keys.
//!
//! In reading order: [`Provider`] is what configuration says of one, `presets`
//! know the common ones, `secrets` holds the keys. [`serve`] (in `link`, over a
//! [`socket`], of which the gate holds the other end) takes jobs from the gate; `job` runs one over the connections of `client`:
//! `exchange` asks, `reading` takes the answer, `emit` passes it on. What a
//! provider is sent and what its answer means is in the codecs [`openai`],
//! [`anthropic`], [`gemini`] and [`bedrock`], chosen in [`codec`]: pure, no I/O,
//! tested without a network. `auth` shows the key as each wants it.
//! [`sse`] cuts a stream into messages, [`upstream`] reads errors. `download`
//! fetches model files, `ledger` stores rows in the fleet's ledger,
//! `shared` counts what several daemons share.
//!
//! What is not here: any decision (a job names its provider and model), retries
//! on other providers (the gate walks the legs), and prompts in logs.
// Tests open sockets and start tasks as they like.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod anthropic;
mod auth;
pub mod bedrock;
mod client;
pub mod codec;
mod download;
mod emit;
mod exchange;
pub mod gemini;
mod google;
mod job;
mod ledger;
mod link;
mod object;
pub mod openai;
mod picture;
mod prefill;
mod presets;
mod provider;
mod reading;
mod secrets;
mod shared;
pub mod socket;
pub mod sse;
#[cfg(feature = "postgres")]
mod tls;
pub mod upstream;

pub use auth::Auth;
pub use ledger::{LEDGER_SQL, LedgerOptions};
pub use link::serve;
pub use presets::{habits_at, preset, presets};
pub use provider::{KeySource, Options, Provider};
pub use shared::SharedOptions;
