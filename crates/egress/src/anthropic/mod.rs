//! Anthropic's messages dialect, streamed and whole. Pure: bytes in, bytes out.
//!
//! `request` writes, `turns` brings a conversation into the form that Anthropic
//! takes, `decode` reads answers. JSON modes and log-probabilities do not exist
//! here: the model cards say so, and a request that needs them is refused.

mod decode;
mod request;
mod turns;

pub use decode::Decoder;
pub use request::encode;
pub(crate) use request::{close, thinking_budget};

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod request_tests;
