//! Gemini's own dialect, as the Gemini API and Vertex AI speak it:
//! `generateContent` and `streamGenerateContent?alt=sse`.

mod decode;
mod request;
mod schema;
mod turns;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod request_tests;

pub use decode::Decoder;
pub use request::encode;
pub use schema::clean;
