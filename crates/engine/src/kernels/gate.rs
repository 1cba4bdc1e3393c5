//! The gate of a feed-forward part by itself.

use super::elementwise::{gelu_tanh, silu};
use super::{Activation, Isa};

/// `gate = activation(gate) * up`: for models that add a bias to both first,
/// where [`super::gate_up`] cannot be used.
pub(crate) fn gate(isa: Isa, activation: Activation, gate: &mut [f32], up: &[f32]) {
    isa.compiled(
        #[inline(always)]
        || match activation {
            Activation::Silu => {
                for (g, u) in gate.iter_mut().zip(up) {
                    *g = silu(*g) * u;
                }
            }
            Activation::GeluTanh => {
                for (g, u) in gate.iter_mut().zip(up) {
                    *g = gelu_tanh(*g) * u;
                }
            }
        },
    );
}
