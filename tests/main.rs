//! The integration tests, in one binary so that they link once.
#![allow(clippy::unwrap_used)]

mod support;
mod tidy;
