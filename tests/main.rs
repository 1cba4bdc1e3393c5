//! The integration tests, in one binary so that they link once.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod cache;
mod cli;
mod egress_link;
mod embeddings;
mod fault_table;
mod faults;
#[cfg(feature = "postgres")]
mod fleet_ledger;
mod guard;
mod keys;
mod limits;
mod model_memory;
mod model_verbs;
mod prefill;
mod providers;
mod sandbox;
mod sdk;
#[cfg(feature = "valkey")]
mod shared_limits;
mod supervisor;
mod support;
mod tidy;
mod wall;
