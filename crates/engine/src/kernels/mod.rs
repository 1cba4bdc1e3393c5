//! CPU kernels: what a decoder does to numbers, made fast by hand.
//!
//! In reading order: [`Isa`] says what this processor can do, [`Team`] is the
//! thread pool, [`Packed`] holds weights in interleaved tiles, [`Activations`]
//! holds quantised rows, [`multiply`] and [`gate_up`] bring the two together,
//! [`attend`] reads the KV cache, and `elementwise` has the norms, the rotary
//! embedding and the rest.
//!
//! Not here: what a model family is, the cache's bookkeeping, sampling.
//!
//! Every kernel exists as portable code first. The vector versions compute the
//! same within rounding; the tests hold each against the portable one, and the
//! portable one against plain `f64`.
// The only module with unsafe code: vector instructions, and slices of which
// several threads write disjoint parts.
#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "an index names the row, lane or half in several arrays at once"
)]

mod activations;
mod attention;
mod disjoint;
mod elementwise;
mod float16;
mod gate;
mod isa;
pub mod measure;
mod memory;
mod multiply;
mod packed;
mod pieces;
mod team;

pub(crate) use activations::Activations;
pub(crate) use attention::{AttendJob, TILE_TOKENS, TileForm, Tiles, attend, tile_len};
pub(crate) use elementwise::{RopeStyle, add, add_row, rms_norm, rope, scale, softcap};
pub(crate) use gate::gate;
pub use isa::Isa;
pub(crate) use multiply::{Activation, gate_up, multiply};
pub(crate) use packed::Packed;
pub(crate) use team::Team;

#[cfg(test)]
mod tests;
