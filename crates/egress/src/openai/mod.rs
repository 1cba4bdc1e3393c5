//! OpenAI's dialect, which most others follow: chat completions and raw-text
//! completions, streamed and whole. Pure: bytes in, bytes out.
//!
//! `request` writes, `wire` has the shapes of answers, `decode` reads them,
//! `calls` puts tool calls in order, `habits` knows who deviates how.

mod calls;
mod decode;
mod embeddings;
mod habits;
mod request;
mod wire;

pub use decode::Decoder;
pub use embeddings::Embeddings;
pub(crate) use habits::host;
pub use habits::{Habits, Limit, Reasoning, Required, Seed};
pub use request::encode;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod embeddings_tests;
#[cfg(test)]
mod request_tests;
