//! How far a request may go, as types.
//!
//! [`classify`] turns a [`Chat`] into either [`Confined`], which has no method
//! that leads off the device, or [`Portable`], whose [`Portable::clear`] is the
//! only mint of [`Cleared`]. The encoder for the egress process takes `Cleared`
//! alone, so a confined request has no way to be written that would send it.
//!
//! There is deliberately no trait over local and remote targets: a shared input
//! type would erase this wall.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chat::Chat;
use crate::guard::Kinds;
use crate::redact::{Nonce, Redacted, Vault};
use crate::route::RemoteLeg;

/// Where bytes may be processed, from nearest to farthest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zone {
    /// This device.
    Device,
    /// A server of the owner's on the local network.
    Site,
    /// Anyone else's.
    Cloud,
}

impl Zone {
    /// The name in tags, headers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Zone::Device => "device",
            Zone::Site => "site",
            Zone::Cloud => "cloud",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Someone who has a say in how far a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody spoke: the built-in ceiling.
    Default,
    /// The configuration's default, or its ceiling for the feature.
    Config,
    /// The request's privacy tag.
    Tag,
    /// The request's tag, which is not one that we know: read as `device`.
    UnknownTag,
    /// The request asked for local targets only.
    Route,
    /// The configuration's ceiling for the tenant.
    Tenant,
    /// The key that the request came with.
    Key,
    /// An earlier turn of the same conversation.
    Conversation,
    /// The guard found an identifier that must not go farther.
    Detector,
    /// Somebody wants identifiers replaced before the request leaves. Narrows
    /// nothing by itself.
    Redact,
}

impl Source {
    /// The name in the ledger and in explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::Config => "config",
            Source::Tag => "tag",
            Source::UnknownTag => "unknown_tag",
            Source::Route => "route",
            Source::Tenant => "tenant",
            Source::Key => "key",
            Source::Conversation => "conversation",
            Source::Detector => "detector",
            Source::Redact => "redact",
        }
    }
}

/// What one source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Say {
    /// Who.
    pub source: Source,
    /// At most this far.
    pub zone: Zone,
}

/// The farthest zone that one request may reach, and who drew the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The farthest zone.
    pub zone: Zone,
    /// The source that set it; the first one among equals.
    pub source: Source,
}

impl Ceiling {
    /// The widest ceiling: what holds when nobody speaks.
    pub const OPEN: Ceiling = Ceiling {
        zone: Zone::Cloud,
        source: Source::Default,
    };

    /// The minimum over all that speak. Only ever narrows.
    pub fn of(says: &[Say]) -> Ceiling {
        says.iter().fold(Ceiling::OPEN, |ceiling, say| {
            if say.zone < ceiling.zone {
                Ceiling {
                    zone: say.zone,
                    source: say.source,
                }
            } else {
                ceiling
            }
        })
    }
}

/// Reads a privacy tag. What is not known is the narrowest. `redact` narrows
/// nothing, but nothing leaves before identifiers are replaced.
pub fn read_tag(tag: &str) -> Say {
    let say = |source, zone| Say { source, zone };
    match tag.trim().to_ascii_lowercase().as_str() {
        "device" => say(Source::Tag, Zone::Device),
        "site" => say(Source::Tag, Zone::Site),
        "cloud" => say(Source::Tag, Zone::Cloud),
        "redact" => say(Source::Redact, Zone::Cloud),
        _ => say(Source::UnknownTag, Zone::Device),
    }
}

/// A request that must stay on this device.
///
/// ```compile_fail
/// use nearfar_domain::{chat::Chat, privacy::*, route::RemoteLeg};
/// fn leak(confined: Confined, leg: &RemoteLeg) {
///     confined.clear(leg); // there is no such method
/// }
/// ```
///
/// ```compile_fail
/// use nearfar_domain::{frames::EgressJob, ids::JobId, privacy::*};
/// fn leak(confined: Confined) {
///     EgressJob::new(JobId(1), &confined); // egress takes `Cleared` alone
/// }
/// ```
pub struct Confined {
    chat: Chat,
    ceiling: Ceiling,
}

impl Confined {
    /// The content, for this device's engine.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Who confined it.
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
    }
}

/// A request that may leave, up to its ceiling.
///
/// ```compile_fail
/// use nearfar_domain::{chat::Chat, privacy::*};
/// fn widen(chat: Chat) -> Portable {
///     Portable { chat, ceiling: Ceiling::OPEN, must_redact: false, redacted: None } // private
/// }
/// ```
pub struct Portable {
    chat: Chat,
    ceiling: Ceiling,
    /// Nothing leaves before identifiers were replaced.
    must_redact: bool,
    redacted: Option<Redacted>,
}

impl Portable {
    /// The content, for this device's engine.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// The farthest zone.
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
    }

    /// Replaces identifiers of some kinds in what may leave. This device's
    /// engine sees the original all the same.
    pub fn redact(&mut self, kinds: Kinds, nonce: Nonce) {
        self.redacted = Some(Redacted::of(&self.chat, kinds, nonce));
    }

    /// What was replaced, once it was.
    pub fn redacted(&self) -> Option<&Redacted> {
        self.redacted.as_ref()
    }

    /// Clears the request for one remote leg: the only way to a [`Cleared`].
    ///
    /// # Errors
    /// [`Withheld`] when the leg lies beyond the ceiling, or when identifiers
    /// were to be replaced and were not yet.
    pub fn clear<'a>(&'a self, leg: &'a RemoteLeg) -> Result<Cleared<'a>, Withheld> {
        let unredacted = self.must_redact && self.redacted.is_none();
        if leg.zone() > self.ceiling.zone || unredacted {
            return Err(Withheld {
                ceiling: self.ceiling,
                asked: leg.zone(),
                unredacted,
            });
        }
        let replaced = self.redacted.as_ref().and_then(Redacted::chat);
        Ok(Cleared {
            chat: replaced.unwrap_or(&self.chat),
            leg,
            partial: Cow::Borrowed(""),
            redacted: self.redacted.as_ref(),
            vault: self
                .redacted
                .as_ref()
                .map(|redacted| Arc::clone(redacted.vault())),
        })
    }
}

/// Proof that this content may go to this leg. Only [`Portable::clear`] makes one.
///
/// ```compile_fail
/// use nearfar_domain::{chat::Chat, privacy::*, route::RemoteLeg};
/// fn forge<'a>(chat: &'a Chat, leg: &'a RemoteLeg) -> Cleared<'a> {
///     Cleared { chat, leg, partial: "".into(), redacted: None, vault: None } // private fields
/// }
/// ```
pub struct Cleared<'a> {
    chat: &'a Chat,
    leg: &'a RemoteLeg,
    partial: Cow<'a, str>,
    redacted: Option<&'a Redacted>,
    vault: Option<Arc<Vault>>,
}

impl<'a> Cleared<'a> {
    /// The same, with the part of its answer that the leg is to go on from. It
    /// was made from this content by an allowed target, so it may go as far.
    /// Identifiers in it are replaced as they were in the request.
    pub fn going_on_from(self, partial: &'a str) -> Self {
        match self.redacted {
            Some(redacted) if !partial.is_empty() => {
                let (partial, vault) = redacted.part(partial);
                Self {
                    partial: Cow::Owned(partial),
                    vault: Some(vault),
                    ..self
                }
            }
            _ => Self {
                partial: Cow::Borrowed(partial),
                ..self
            },
        }
    }

    /// What stands for what, to restore this leg's answer; `None` where nothing
    /// was to be replaced.
    pub fn vault(&self) -> Option<Arc<Vault>> {
        self.vault.clone().filter(|vault| !vault.is_empty())
    }

    /// The part of the answer that there is; empty for a new answer.
    pub(crate) fn partial(&self) -> &str {
        &self.partial
    }

    /// What was cleared.
    pub(crate) fn chat(&self) -> &Chat {
        self.chat
    }

    /// Where it may go.
    pub fn leg(&self) -> &RemoteLeg {
        self.leg
    }
}

/// The leg lies beyond the request's ceiling, or the request is not redacted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request may reach {} at most{}, the target is in {asked}",
    ceiling.zone,
    if *unredacted { " once identifiers are replaced, which they are not" } else { "" }
)]
pub struct Withheld {
    /// The request's ceiling.
    pub ceiling: Ceiling,
    /// The leg's zone.
    pub asked: Zone,
    /// Whether identifiers were to be replaced first.
    pub unredacted: bool,
}

/// A request after classification.
pub enum Classified {
    /// Must stay.
    Confined(Confined),
    /// May leave, up to its ceiling.
    Portable(Portable),
}

impl Classified {
    /// The request's ceiling.
    pub fn ceiling(&self) -> Ceiling {
        match self {
            Classified::Confined(confined) => confined.ceiling,
            Classified::Portable(portable) => portable.ceiling,
        }
    }
}

/// Draws the line for one request. Has one call site, on the road.
pub fn classify(chat: Chat, says: &[Say]) -> Classified {
    let ceiling = Ceiling::of(says);
    match ceiling.zone {
        Zone::Device => Classified::Confined(Confined { chat, ceiling }),
        Zone::Site | Zone::Cloud => Classified::Portable(Portable {
            chat,
            ceiling,
            must_redact: says.iter().any(|say| say.source == Source::Redact),
            redacted: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn say() -> impl Strategy<Value = Say> {
        (0..5u8, 0..3u8).prop_map(|(source, zone)| Say {
            source: [
                Source::Default,
                Source::Config,
                Source::Tag,
                Source::UnknownTag,
                Source::Route,
            ][usize::from(source)],
            zone: [Zone::Device, Zone::Site, Zone::Cloud][usize::from(zone)],
        })
    }

    proptest! {
        #[test]
        fn the_ceiling_only_narrows(says in proptest::collection::vec(say(), 0..6), more in say()) {
            let before = Ceiling::of(&says);
            let mut wider = says.clone();
            wider.push(more);
            prop_assert!(Ceiling::of(&wider).zone <= before.zone);
            wider.reverse();
            prop_assert_eq!(
                Ceiling::of(&wider).zone,
                says.iter().map(|s| s.zone).chain([more.zone]).min().unwrap(),
                "the order does not matter"
            );
        }

        #[test]
        fn any_unknown_tag_is_device(tag in "\\PC{0,20}") {
            let known = ["device", "site", "cloud", "redact"];
            if !known.contains(&tag.trim().to_ascii_lowercase().as_str()) {
                prop_assert_eq!(read_tag(&tag).zone, Zone::Device);
                prop_assert_eq!(read_tag(&tag).source, Source::UnknownTag);
            }
        }
    }

    #[test]
    fn redact_narrows_nothing_and_is_never_forgotten() {
        let say = read_tag(" Redact ");
        assert_eq!((say.source, say.zone), (Source::Redact, Zone::Cloud));
        let says = [say, read_tag("device")];
        assert_eq!(Ceiling::of(&says).zone, Zone::Device);
        let chat = || Chat::text("a@b.io");
        let Classified::Portable(mut portable) = classify(chat(), &[say]) else {
            panic!("it may leave");
        };
        assert!(portable.must_redact && portable.redacted().is_none());
        portable.redact(Kinds::ALL, Nonce::new(1));
        assert!(
            portable
                .redacted()
                .is_some_and(|redacted| redacted.chat().is_some())
        );
        assert!(portable.chat() == &chat(), "this device sees the original");
    }
}
