//! Small loops over `f32` slices, written so that the compiler vectorises them.

const LANES: usize = 16;

/// The scalar product of two slices of one length.
#[inline]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + tail
}

/// `out += factor * x`
#[inline]
pub(super) fn add_scaled(out: &mut [f32], factor: f32, x: &[f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += factor * x;
    }
}

/// `out += x`
pub(super) fn add(out: &mut [f32], x: &[f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += x;
    }
}

/// Adds one row to each row of `out`.
pub(super) fn add_row(out: &mut [f32], row: &[f32]) {
    for out in out.chunks_exact_mut(row.len()) {
        add(out, row);
    }
}

/// `x *= factor`
pub(super) fn scale(x: &mut [f32], factor: f32) {
    if factor != 1.0 {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Root-mean-square norm of each row of `weight.len()` numbers, in place.
pub(super) fn rms_norm(x: &mut [f32], weight: &[f32], eps: f32) {
    for row in x.chunks_exact_mut(weight.len()) {
        let factor = 1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt();
        for (x, w) in row.iter_mut().zip(weight) {
            *x *= factor * w;
        }
    }
}

/// As [`rms_norm`], into another slice.
pub(super) fn rms_norm_into(x: &[f32], weight: &[f32], eps: f32, out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(x);
    rms_norm(out, weight, eps);
}

/// e^x within 2 units in the last place, without a call, so that loops over it
/// vectorise. Cephes' reduction to [-ln2/2, ln2/2] and polynomial.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Below, the result is 0 or denormal; above, infinite.
    let x = x.clamp(-87.3, 88.3);
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let y = p * r * r + r + 1.0;
    y * f32::from_bits((((n as i32) + 127) as u32) << 23)
}

/// Turns scores into weights that sum to one.
pub(super) fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for x in scores.iter_mut() {
        *x = exp(*x - max);
    }
    let sum: f32 = scores.iter().sum();
    let factor = 1.0 / sum;
    scores.iter_mut().for_each(|x| *x *= factor);
}

/// `gate = silu(gate) * up`
pub(super) fn silu_gate(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + exp(-*g)) * u;
    }
}

/// `gate = gelu(gate) * up`, with the tanh form of gelu:
/// 0.5 x (1 + tanh(y)) = x / (1 + e^-2y).
pub(super) fn gelu_gate(gate: &mut [f32], up: &[f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for (g, u) in gate.iter_mut().zip(up) {
        let x = *g;
        let y = SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x);
        *g = x / (1.0 + exp(-2.0 * y)) * u;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        for step in -8700..=8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(-1000.0) < 1.3e-38 && exp(-1000.0) >= 0.0);
    }

    #[test]
    fn gates_follow_their_definitions() {
        for step in -40..=40 {
            let x = step as f32 / 4.0;
            let mut gate = [x];
            silu_gate(&mut gate, &[2.0]);
            assert!((gate[0] - 2.0 * x / (1.0 + (-x).exp())).abs() < 1e-5);
            let mut gate = [x];
            gelu_gate(&mut gate, &[1.0]);
            let inner = 0.797_884_56 * (f64::from(x) + 0.044_715 * f64::from(x).powi(3));
            let exact = 0.5 * f64::from(x) * (1.0 + inner.tanh());
            assert!(
                (f64::from(gate[0]) - exact).abs() < 1e-5,
                "{x}: {} {exact}",
                gate[0]
            );
        }
    }

    #[test]
    fn dot_counts_every_element() {
        for length in [1, 15, 16, 17, 40] {
            let x: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let exact: f32 = x.iter().map(|x| x * x).sum();
            assert_eq!(dot(&x, &x), exact);
        }
    }
}
