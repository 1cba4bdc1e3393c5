//! The labels of every series, and the bound on how many there can be.
//!
//! A label's value is a word from a closed list, or a target's name. Targets of
//! an open model list are named by clients, so their number is bounded here:
//! what comes after the first [`MAX_TARGETS`] is counted under its provider.

use std::collections::BTreeSet;
use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;

/// Targets with series of their own.
const MAX_TARGETS: usize = 64;
/// Providers with series of their own; what comes after is `other`.
const MAX_PLACES: usize = 32;
/// The longest target name in a label, in bytes.
const MAX_TARGET_BYTES: usize = 128;

/// Labels of the request counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) endpoint: &'static str,
    pub(super) target: String,
    pub(super) zone: &'static str,
    pub(super) outcome: &'static str,
}

/// Labels of the decision counter: `verdict` is `go` or `refuse`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DecisionLabels {
    pub(super) verdict: &'static str,
    pub(super) reason: &'static str,
}

/// Labels of everything that is told per target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TargetLabels {
    pub(super) target: String,
}

/// Labels of the token counters: `kind` is `prompt`, `cached_prompt`,
/// `completion` or `reasoning`. The second and the fourth are parts of the
/// first and the third.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TokenLabels {
    pub(super) target: String,
    pub(super) kind: &'static str,
}

/// Labels of the counter of identifiers: `action` is what is done about them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GuardLabels {
    pub(super) kind: &'static str,
    pub(super) action: &'static str,
}

/// Labels of the counter of requests that nobody was let in with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeniedLabels {
    pub(super) why: &'static str,
}

/// Labels of the counter of failed legs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FailureLabels {
    pub(super) target: String,
    pub(super) kind: &'static str,
}

/// Which targets have series of their own.
#[derive(Debug, Default)]
pub(super) struct KnownTargets {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    targets: BTreeSet<String>,
    places: BTreeSet<String>,
}

impl KnownTargets {
    /// The label for a target: its name, `<provider>/other`, or `other`.
    pub(super) fn label(&self, target: &str) -> String {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if target.is_empty() || seen.targets.contains(target) {
            return target.to_owned();
        }
        if target.len() <= MAX_TARGET_BYTES && seen.targets.len() < MAX_TARGETS {
            seen.targets.insert(target.to_owned());
            return target.to_owned();
        }
        let place = target.split_once('/').map_or("", |(place, _)| place);
        if seen.places.contains(place) {
            return format!("{place}/other");
        }
        if !place.is_empty() && place.len() <= MAX_TARGET_BYTES && seen.places.len() < MAX_PLACES {
            seen.places.insert(place.to_owned());
            return format!("{place}/other");
        }
        "other".to_owned()
    }
}

/// The word out of a closed list that equals `text`, or `other`.
pub(super) fn word(text: &str, list: &[&'static str]) -> &'static str {
    list.iter()
        .find(|word| **word == text)
        .copied()
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_make_series_without_end() {
        let known = KnownTargets::default();
        let mut labels = BTreeSet::new();
        for index in 0..5_000 {
            labels.insert(known.label(&format!("openrouter/model-{index}")));
            labels.insert(known.label(&format!("place-{index}/model")));
        }
        labels.insert(known.label(&format!("x/{}", "y".repeat(10_000))));
        assert!(
            labels.len() <= MAX_TARGETS + MAX_PLACES + 1,
            "{}",
            labels.len()
        );
        assert!(labels.contains("openrouter/model-0"));
        assert!(labels.contains("openrouter/other"));
        assert!(labels.contains("other"));
    }
}
