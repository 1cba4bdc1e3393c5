//! How long answers are, learned per feature.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::locked;

/// Tokens of an answer before anything was seen: a few sentences.
const DEFAULT_TOKENS: f64 = 150.0;
/// The weight of a new answer.
const WEIGHT: f64 = 0.1;
/// Features that are remembered; the name is the client's, so it is bounded.
const MAX_FEATURES: usize = 256;

/// Mean length of answers per feature; requests that name none share one.
#[derive(Default)]
pub struct Lengths {
    means: Mutex<BTreeMap<String, f64>>,
}

impl Lengths {
    /// Tokens that an answer for this feature is expected to have.
    pub fn expected(&self, feature: &str) -> u32 {
        let means = locked(&self.means);
        let mean = means.get(feature).copied().unwrap_or(DEFAULT_TOKENS);
        mean.round().clamp(1.0, 1e6) as u32
    }

    /// A whole answer had this many tokens.
    pub fn observe(&self, feature: &str, tokens: u64) {
        let mut means = locked(&self.means);
        if let Some(mean) = means.get_mut(feature) {
            *mean += WEIGHT * (tokens as f64 - *mean);
        } else if means.len() < MAX_FEATURES {
            let first = DEFAULT_TOKENS + 2.0 * WEIGHT * (tokens as f64 - DEFAULT_TOKENS);
            means.insert(feature.to_owned(), first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_has_its_own_length() {
        let lengths = Lengths::default();
        for _ in 0..100 {
            lengths.observe("lights", 8);
            lengths.observe("story", 900);
        }
        assert!(lengths.expected("lights") < 12);
        assert!(lengths.expected("story") > 850);
        assert_eq!(lengths.expected("new"), 150);
    }
}
