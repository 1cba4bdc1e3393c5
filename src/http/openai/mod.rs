//! OpenAI's dialect as clients speak it to us.
//!
//! [`request`] reads bodies, [`chat`] and [`text`] write the two kinds of
//! answers, whole and as streams, [`embeddings`] does both for vectors, [`models`] lists what can be asked for. What
//! we speak to providers is egress's affair.

pub(crate) mod chat;
pub(crate) mod embeddings;
mod fields;
mod form;
pub(crate) mod models;
mod params;
pub mod request;
pub(crate) mod shape;
pub(crate) mod text;
