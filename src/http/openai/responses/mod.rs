//! `/v1/responses`, OpenAI's later API: requests of items, answers of items,
//! and a stream of events with names.
//!
//! [`request`] reads bodies, [`items`] makes turns of items and [`tools`] reads
//! tools; [`stream`] writes the answer, [`object`] is the response itself;
//! [`routes`] has the paths. Kept responses are [`crate::conversations`]'
//! affair. What is not here: tools that OpenAI runs itself, background answers,
//! files and conversations as objects. They are refused by name.

mod items;
mod object;
mod request;
mod routes;
mod stream;
mod tools;

pub(crate) use routes::routes;
