//! OpenAI's dialect as clients speak it to us.
//!
//! [`request`] reads bodies, [`chat`] and [`text`] write the two kinds of
//! answers, whole and as streams, [`embeddings`] does both for vectors,
//! [`forms`] tells [`crate::http::reply`] which of them is wanted, [`models`]
//! lists what can be asked for; [`responses`] is the later API beside them all. What we speak to providers is egress's affair.

pub(crate) mod chat;
pub(crate) mod embeddings;
mod form;
pub(crate) mod forms;
pub(crate) mod models;
pub(crate) mod params;
pub mod request;
pub(crate) mod responses;
pub(crate) mod shape;
mod signed;
pub(crate) mod text;
