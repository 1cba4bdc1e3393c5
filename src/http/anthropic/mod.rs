//! Anthropic's dialect as clients speak it to us.
//!
//! [`request`] reads bodies ([`turns`] the conversation, [`tools`] the tools),
//! [`stream`] and [`whole`] write answers with what [`shape`] has for both,
//! [`count`] is `count_tokens`, [`models`] the list of models. The headers
//! `anthropic-version` and `anthropic-beta` are read leniently: one version is
//! spoken, and what a beta adds is there or refused by its field's name.

pub(crate) mod count;
pub(crate) mod models;
pub(crate) mod request;
mod shape;
mod stream;
mod tools;
mod turns;
mod whole;
