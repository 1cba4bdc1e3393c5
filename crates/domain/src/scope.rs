//! What a caller may use: patterns of targets, and zones.
//!
//! A [`Scope`] is a list of grants that must all agree: the tenant's and the
//! key's. Adding one can only narrow it; there is nothing that widens.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::TargetId;
use crate::privacy::Zone;

/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 256;

/// A pattern of targets' names: `local/*`, `openai/gpt-4o*`, `*`. A star stands
/// for any text, also an empty one or one with slashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why a text is no [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPattern {
    /// It is empty, too long, or has blanks or control characters in it.
    #[error(
        "a pattern of targets is 1 to 256 printable characters without blanks, like local/* or openai/gpt-4o"
    )]
    Text,
    /// It names no place, so that it would match nothing.
    #[error(
        "a pattern of targets is <place>/<model>, where either may have stars: local/*, openai/gpt-4o*, or * for all"
    )]
    NoPlace,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is empty, too long, has blanks, or could match no target.
    pub fn parse(text: &str) -> Result<Self, NoPattern> {
        let printable = |c: char| !c.is_whitespace() && !c.is_control();
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES || !text.chars().all(printable) {
            return Err(NoPattern::Text);
        }
        // Every target has a slash; without one, a star must stand for it.
        if !text.contains('/') && !text.contains('*') {
            return Err(NoPattern::NoPlace);
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it covers a target.
    pub fn covers(&self, target: &TargetId) -> bool {
        let (place, model) = (target.place().as_bytes(), target.model().as_bytes());
        let at = |index: usize| match index.checked_sub(place.len()) {
            None => place[index],
            Some(0) => b'/',
            Some(rest) => model[rest - 1],
        };
        glob(self.0.as_bytes(), place.len() + 1 + model.len(), at)
    }
}

/// Whether a text of `length` bytes fits a pattern with stars. Goes back to the
/// last star alone, so the time is at most the product of both lengths.
fn glob(pattern: &[u8], length: usize, at: impl Fn(usize) -> u8) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where in the text it was taken to end.
    let mut back: Option<(usize, usize)> = None;
    while t < length {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == at(t) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, end)) = back else {
                    return false;
                };
                back = Some((star, end + 1));
                (p, t) = (star, end + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl TryFrom<String> for Pattern {
    type Error = NoPattern;

    fn try_from(text: String) -> Result<Self, NoPattern> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one source allows; `None` allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// Targets that one of these covers.
    pub targets: Option<Vec<Pattern>>,
    /// Targets of these zones.
    pub zones: Option<Vec<Zone>>,
}

impl Grant {
    /// Whether it leaves everything open.
    pub fn is_open(&self) -> bool {
        self.targets.is_none() && self.zones.is_none()
    }

    /// Whether it allows a target of a zone.
    pub fn allows(&self, target: &TargetId, zone: Zone) -> bool {
        self.allows_zone(zone)
            && self
                .targets
                .as_ref()
                .is_none_or(|targets| targets.iter().any(|pattern| pattern.covers(target)))
    }

    fn allows_zone(&self, zone: Zone) -> bool {
        self.zones
            .as_ref()
            .is_none_or(|zones| zones.contains(&zone))
    }
}

/// What a caller may use: whatever all grants allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    grants: Vec<Grant>,
}

impl Scope {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// What this scope and `grant` both allow.
    #[must_use]
    pub fn narrowed(mut self, grant: Grant) -> Self {
        if !grant.is_open() {
            self.grants.push(grant);
        }
        self
    }

    /// Whether a target of a zone may be used.
    pub fn allows(&self, target: &TargetId, zone: Zone) -> bool {
        self.grants.iter().all(|grant| grant.allows(target, zone))
    }

    /// The farthest zone of which anything may be used; `Device` where nothing
    /// may be used at all.
    pub fn farthest(&self) -> Zone {
        [Zone::Cloud, Zone::Site]
            .into_iter()
            .find(|zone| self.grants.iter().all(|grant| grant.allows_zone(*zone)))
            .unwrap_or(Zone::Device)
    }

    /// Whether it leaves everything open.
    pub fn is_open(&self) -> bool {
        self.grants.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn covers(pattern: &str, target: &str) -> bool {
        let target = TargetId::parse(target).unwrap();
        Pattern::parse(pattern).unwrap().covers(&target)
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, target) in [
            ("*", "local/concierge"),
            ("local/*", "local/concierge"),
            ("openai/gpt-4o*", "openai/gpt-4o"),
            ("openai/gpt-4o*", "openai/gpt-4o-mini"),
            ("*/llama*", "groq/llama-3"),
            ("openrouter/*llama*b", "openrouter/meta-llama/llama-3.2-3b"),
            ("open*", "openai/gpt"),
            ("*a*a", "x/aba"),
            ("local/x", "local/x"),
        ] {
            assert!(covers(pattern, target), "{pattern} {target}");
        }
        for (pattern, target) in [
            ("local/*", "localhost/x"),
            ("openai/gpt-4o", "openai/gpt-4o-mini"),
            ("openai/*", "azure/openai/x"),
            ("*/llama", "groq/llama-3"),
            ("local/", "local/x"),
            ("*a*b", "x/ba"),
        ] {
            assert!(!covers(pattern, target), "{pattern} {target}");
        }
    }

    #[test]
    fn what_could_match_nothing_is_no_pattern() {
        for bad in ["", "a b/c", "gpt-4o", "x\n/y", &"x/".repeat(200)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Pattern>("\"gpt\"").is_err());
    }

    #[test]
    fn the_farthest_zone_is_one_that_all_grants_have() {
        let zones = |zones: &[Zone]| Grant {
            targets: None,
            zones: Some(zones.to_vec()),
        };
        assert_eq!(Scope::all().farthest(), Zone::Cloud);
        let near = Scope::all().narrowed(zones(&[Zone::Device, Zone::Site]));
        assert_eq!(near.farthest(), Zone::Site);
        let none = near.narrowed(zones(&[Zone::Cloud]));
        assert_eq!(none.farthest(), Zone::Device);
        assert!(!none.allows(&TargetId::local("x"), Zone::Device));
    }

    fn grants() -> impl Strategy<Value = Grant> {
        let pattern = prop::sample::select(vec!["*", "local/*", "a/*", "*/x", "*x*", "a/y", "b*"]);
        let zone = prop::sample::select(vec![Zone::Device, Zone::Site, Zone::Cloud]);
        (
            prop::option::of(prop::collection::vec(pattern, 0..4)),
            prop::option::of(prop::collection::vec(zone, 0..4)),
        )
            .prop_map(|(targets, zones)| Grant {
                targets: targets.map(|all| {
                    let parse = |text: &str| Pattern::parse(text).unwrap();
                    all.into_iter().map(parse).collect()
                }),
                zones,
            })
    }

    proptest! {
        #[test]
        fn a_grant_more_never_widens(
            all in prop::collection::vec(grants(), 0..4),
            more in grants(),
            target in prop::sample::select(vec!["local/x", "local/y", "a/x", "a/y", "b/z"]),
            zone in prop::sample::select(vec![Zone::Device, Zone::Site, Zone::Cloud]),
        ) {
            let wide = all.into_iter().fold(Scope::all(), Scope::narrowed);
            let narrow = wide.clone().narrowed(more);
            let target = TargetId::parse(target).unwrap();
            prop_assert!(wide.allows(&target, zone) || !narrow.allows(&target, zone));
            prop_assert!(narrow.farthest() <= wide.farthest());
            prop_assert!(!narrow.allows(&target, zone) || zone <= narrow.farthest());
        }

        #[test]
        fn a_pattern_means_what_its_plain_reading_means(
            pattern in "[ab*/]{1,8}", target in "[ab]{1,3}/[ab/]{1,4}"
        ) {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|n| plain(rest, &text[n..])),
                    Some((byte, rest)) => text.first() == Some(byte) && plain(rest, &text[1..]),
                }
            }
            if let Ok(parsed) = Pattern::parse(&pattern) {
                let id = TargetId::parse(&target).unwrap();
                prop_assert_eq!(parsed.covers(&id), plain(pattern.as_bytes(), target.as_bytes()));
            }
        }
    }
}
