//! Names and numbers that identify things, as types of their own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A decision's id: 128 bits that the caller draws (time-ordered, so that the
/// ledger's index stays dense), printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DecisionId(pub u128);

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dec_{:032x}", self.0)
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One job on one link between two processes. Unique for the life of the link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// Who can answer: `local/<model>` or `<provider>/<model>`.
///
/// The provider name `local` is reserved for this device, so the two forms
/// cannot be confused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId {
    place: String,
    model: String,
}

/// The place part of every target on this device.
pub const LOCAL: &str = "local";

impl TargetId {
    /// A model that this device runs.
    pub fn local(model: impl Into<String>) -> Self {
        Self {
            place: LOCAL.to_owned(),
            model: model.into(),
        }
    }

    /// A model of a provider. Returns `None` for the reserved name `local` and
    /// for empty parts.
    pub fn remote(provider: impl Into<String>, model: impl Into<String>) -> Option<Self> {
        let (place, model) = (provider.into(), model.into());
        (place != LOCAL && !place.is_empty() && !model.is_empty()).then_some(Self { place, model })
    }

    /// Reads `place/model`; the model may contain further slashes.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, model) = text.split_once('/')?;
        if place.is_empty() || model.is_empty() {
            return None;
        }
        Some(Self {
            place: place.to_owned(),
            model: model.to_owned(),
        })
    }

    /// `local` or the provider's name.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The model's name without its place.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether this device itself answers.
    pub fn is_local(&self) -> bool {
        self.place == LOCAL
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place, self.model)
    }
}

impl fmt::Debug for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_target_reads_back_what_it_prints() {
        let id = TargetId::parse("openrouter/meta-llama/llama-3.2-3b").unwrap();
        assert_eq!(id.place(), "openrouter");
        assert_eq!(id.model(), "meta-llama/llama-3.2-3b");
        assert_eq!(TargetId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn a_provider_cannot_call_itself_local() {
        assert_eq!(TargetId::remote("local", "x"), None);
        assert!(TargetId::parse("local/x").unwrap().is_local());
        assert_eq!(TargetId::parse("/x"), None);
        assert_eq!(TargetId::parse("gpt"), None);
    }
}
