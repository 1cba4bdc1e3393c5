//! Amazon Bedrock: the Converse API, its binary event stream, and AWS's
//! signatures.

mod decode;
mod eventstream;
mod request;
pub(crate) mod sigv4;
mod turns;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod request_tests;

pub use decode::Decoder;
pub use eventstream::{Frame, Frames, Torn, encode as encode_frame};
pub use request::encode;
