//! The integration tests, in one binary so that they link once.
#![allow(clippy::unwrap_used)]

mod sandbox;
mod supervisor;
mod support;
mod tidy;
