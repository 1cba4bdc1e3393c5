//! nearfar: a daemon that answers LLM requests near when it can, far when it must.
//!
//! In reading order, which is the order in which a request travels: [`road`]
//! is the whole path on one screen; [`admission`] lets a request in,
//! [`limits`] say how much may be used, [`guard`] looks at what it holds,
//! [`cache`] may know the answer,
//! [`execute`] walks the decision's legs over the [`links`] to the other
//! processes, [`account`] settles it, [`export`] sends
//! the ledger on to a fleet's. [`snapshot`] gathers what the decision
//! may see from [`catalog`], [`health`] and the links. [`gate`] is what
//! a handler may ask; [`http`] is what clients speak; [`handover`] is what the
//! supervisor gives its children; [`app`] is the only wiring; [`supervisor`] starts and confines the
//! processes; [`cli`] is what people type.
// Tests open sockets and start tasks as they like.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod account;
pub mod admission;
pub mod app;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod conversations;
pub mod execute;
pub mod export;
pub mod gate;
pub mod guard;
pub mod handover;
pub mod health;
pub mod http;
pub mod limits;
pub mod links;
pub mod prices;
pub mod road;
pub mod snapshot;
pub mod store;
pub mod supervisor;
pub mod telemetry;
