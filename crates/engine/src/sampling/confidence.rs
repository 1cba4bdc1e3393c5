//! How sure a model is of its next token.

/// Two figures of one distribution over the next token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Certainty {
    /// Probability of the likeliest token less that of the second: 0 to 1.
    pub margin: f32,
    /// Entropy in nats: 0 when one token has all.
    pub entropy: f32,
}

/// Logits that lie so far below the best have a probability under e⁻²⁴ and
/// weigh nothing.
const LOWEST: f32 = -24.0;

/// Reads the certainty off `logits`, before any bias or penalty: one pass for
/// the two best and one for the sums, both without branches that the compiler
/// could not turn into vector code. `None` where there are no two finite logits.
///
/// With x the logits less the best one: `Z = Σ eˣ`, entropy = `ln Z − Σ x eˣ / Z`.
pub fn certainty(logits: &[f32]) -> Option<Certainty> {
    let (first, second) = two_best(logits);
    if !first.is_finite() || !second.is_finite() {
        return None;
    }
    // Eight running sums: the compiler may not reorder a single one.
    let (mut mass, mut moment) = ([0.0f32; 8], [0.0f32; 8]);
    let mut chunks = logits.chunks_exact(8);
    for chunk in &mut chunks {
        for lane in 0..8 {
            let x = (chunk[lane] - first).max(LOWEST);
            let weight = exp(x);
            mass[lane] += weight;
            moment[lane] += x * weight;
        }
    }
    for logit in chunks.remainder() {
        let x = (logit - first).max(LOWEST);
        let weight = exp(x);
        mass[0] += weight;
        moment[0] += x * weight;
    }
    let (mass, moment) = (mass.iter().sum::<f32>(), moment.iter().sum::<f32>());
    Some(Certainty {
        margin: (1.0 - (second - first).exp()) / mass,
        entropy: (mass.ln() - moment / mass).max(0.0),
    })
}

fn two_best(logits: &[f32]) -> (f32, f32) {
    let (mut first, mut second) = ([f32::NEG_INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let mut see = |lane: usize, logit: f32| {
        second[lane] = second[lane].max(first[lane].min(logit));
        first[lane] = first[lane].max(logit);
    };
    let mut chunks = logits.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, logit) in chunk.iter().enumerate() {
            see(lane, *logit);
        }
    }
    for logit in chunks.remainder() {
        see(0, *logit);
    }
    let mut best = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for logit in first.into_iter().chain(second) {
        best = (best.0.max(logit), best.1.max(best.0.min(logit)));
    }
    best
}

/// eˣ for x from [`LOWEST`] to 0, within 3e-6 of the true value: 2ⁱ by the
/// exponent's bits times a polynomial for the fraction.
fn exp(x: f32) -> f32 {
    let y = x * std::f32::consts::LOG2_E;
    let whole = y.floor();
    let f = (y - whole) * std::f32::consts::LN_2;
    let polynomial =
        1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0)))));
    f32::from_bits(((whole as i32 + 127) << 23) as u32) * polynomial
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn exact(logits: &[f32]) -> Certainty {
        let most = logits.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut p: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        p.sort_by(|a, b| b.total_cmp(a));
        Certainty {
            margin: (p[0] - p[1]) as f32,
            entropy: entropy as f32,
        }
    }

    #[test]
    fn it_is_what_the_definition_says() {
        let mut state = 1u32;
        for length in [2, 3, 8, 9, 1000, 30_001] {
            for scale in [0.1, 3.0, 20.0] {
                let logits: Vec<f32> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state as f32 / u32::MAX as f32 - 0.5) * scale
                    })
                    .collect();
                let (told, exact) = (certainty(&logits).unwrap(), exact(&logits));
                assert!(
                    (told.margin - exact.margin).abs() < 1e-4,
                    "{told:?} {exact:?}"
                );
                assert!(
                    (told.entropy - exact.entropy).abs() < 2e-3,
                    "{told:?} {exact:?}"
                );
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        let even = certainty(&[1.0; 4]).unwrap();
        assert!(even.margin == 0.0 && (even.entropy - 4f32.ln()).abs() < 1e-5);
        let sure = certainty(&[100.0, 0.0, -5.0]).unwrap();
        assert!(sure.margin > 0.999 && sure.entropy < 1e-3, "{sure:?}");
        assert_eq!(certainty(&[1.0, f32::NEG_INFINITY]), None);
        assert_eq!(certainty(&[f32::NAN, f32::NAN]), None);
    }
}
