//! What clients speak: listeners, routes, dialects and errors.
//!
//! In reading order: [`listener`] accepts connections within limits, [`front`]
//! is what holds for every request, [`hosts`] keeps web pages out, [`body`]
//! reads bodies within bounds, [`openai`] is the dialect, [`tags`] and
//! [`asked`] make a question for the road out of it, [`reply`] sends the
//! answer, [`problem`] is every error. Nothing here decides where a request
//! goes.

mod asked;
mod body;
mod front;
mod hosts;
mod listener;
pub mod openai;
pub mod problem;
mod query;
mod reply;
pub mod route;
mod stall;
pub mod tags;
