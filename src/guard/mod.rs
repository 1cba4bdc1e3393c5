//! What the device's owner lets into models and out of them: identifiers by
//! kind, patterns, models, sizes. Settings come from `[guard]`; how identifiers
//! are found and replaced is the domain's.
//!
//! What is not here: where redaction takes place. The wall does it
//! (`domain::privacy`), so that no remote leg can be without.

mod patterns;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use nearfar_domain::chat::Chat;
use nearfar_domain::guard::{Counts, Kind, Kinds, scan};
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::{Say, Source, Zone};
use nearfar_domain::redact::{Nonce, texts};

use crate::config::guard::{Action, Guard as Settings};
use patterns::Patterns;
pub(crate) use patterns::Watch;

/// What is replaced where a request asks for it and the settings name nothing:
/// every kind but web addresses, which a question is often about.
const BY_TAG: Kinds = Kinds::ALL.without(Kind::Url);

/// The settings at work.
pub struct Guard {
    settings: Settings,
    in_prompt: Option<Patterns>,
    in_answer: Option<Arc<Patterns>>,
}

/// What was found in a request that may go on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What the guard says about its ceiling.
    pub(crate) says: Vec<Say>,
    /// What must be replaced before it leaves; empty for nothing.
    pub(crate) redact: Kinds,
    /// How many identifiers of each kind.
    pub(crate) counts: Counts,
}

/// Why a request may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It holds an identifier of this kind.
    Identifier(Kind),
    /// It holds what the pattern of this name looks for.
    Pattern(String),
    /// It has more text than this many bytes.
    TooLong(usize),
    /// No target of this name may answer.
    Model(String),
}

impl Blocked {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Blocked::Identifier(_) | Blocked::Pattern(_) => "guard_blocked",
            Blocked::TooLong(_) => "prompt_too_long",
            Blocked::Model(_) => "model_not_allowed",
        }
    }

    /// For people: what and the mend. Quotes nothing of the request.
    pub fn message(&self) -> String {
        match self {
            Blocked::Identifier(kind) => format!(
                "The request holds an identifier of kind '{}', which this device's guard does not \
                 let through. Leave it out.",
                kind.as_str()
            ),
            Blocked::Pattern(name) => format!(
                "The request holds what the pattern '{name}' of this device's guard does not let \
                 through. Leave it out."
            ),
            Blocked::TooLong(most) => {
                format!("The request's text is longer than the {most} bytes that are allowed here.")
            }
            Blocked::Model(name) => format!(
                "This device's guard does not let {name} answer. Use auto, or a model that \
                 guard.models names."
            ),
        }
    }
}

impl Guard {
    /// Compiles what the settings name, and nothing where they name nothing.
    pub fn new(settings: Settings) -> Self {
        let of = |wanted: fn(&crate::config::guard::Pattern) -> bool| {
            Patterns::new(settings.patterns.iter().filter(|pattern| wanted(pattern)))
        };
        Self {
            in_prompt: of(|pattern| pattern.in_prompt),
            in_answer: of(|pattern| pattern.in_answer).map(Arc::new),
            settings,
        }
    }

    /// Looks at a request. `says` is what was said of it so far.
    ///
    /// # Errors
    /// Why it may not go on.
    pub(crate) fn examine(&self, chat: &Chat, says: &[Say]) -> Result<Seen, Blocked> {
        let settings = &self.settings;
        if let Some(most) = settings.max_prompt_bytes
            && chat.text_bytes() > most
        {
            return Err(Blocked::TooLong(most));
        }
        let mut seen = Seen::default();
        let kinds = settings.kinds();
        let mut forbidden = None;
        if !kinds.is_empty() || self.in_prompt.is_some() {
            texts(chat, |text| {
                scan(text, kinds, |finding| seen.counts.add(finding.kind));
                if forbidden.is_none() {
                    forbidden = self
                        .in_prompt
                        .as_ref()
                        .and_then(|patterns| patterns.find(text));
                }
            });
        }
        if let Some(name) = forbidden {
            return Err(Blocked::Pattern(name.to_owned()));
        }
        let found = seen.counts.kinds();
        if let Some(kind) = found.and(settings.kinds_with(Action::Block)).iter().next() {
            return Err(Blocked::Identifier(kind));
        }
        for zone in [Zone::Site, Zone::Device] {
            let source = Source::Detector;
            if !found.and(settings.kinds_with(Action::Tag(zone))).is_empty() {
                seen.says.push(Say { source, zone });
            }
        }
        let always = settings.kinds_with(Action::Redact);
        let by_tag = says.iter().any(|say| say.source == Source::Redact);
        if by_tag {
            seen.redact = always.or(BY_TAG);
        } else if !found.and(always).is_empty() {
            seen.redact = always;
            seen.says.push(Say {
                source: Source::Redact,
                zone: Zone::Cloud,
            });
        }
        Ok(seen)
    }

    /// What is done about a kind, for metrics; `redact` where a request alone
    /// asked for it.
    pub(crate) fn action(&self, kind: Kind) -> &'static str {
        let action = self.settings.actions.get(&kind);
        action.map_or("redact", |action| action.as_str())
    }

    /// Whether a target may answer.
    pub(crate) fn allows(&self, target: &TargetId) -> bool {
        let models = &self.settings.models;
        if models.is_empty() {
            return true;
        }
        let name = target.to_string();
        models.iter().any(|pattern| patterns::glob(pattern, &name))
    }

    /// The most tokens of an answer, where a request asks for more or does not say.
    pub(crate) fn answer_tokens(&self, asked: Option<u32>) -> Option<u32> {
        match (asked, self.settings.max_answer_tokens) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        }
    }

    /// Watches one leg's answer; `None` where nothing is forbidden in answers.
    pub(crate) fn watch(&self) -> Option<Watch> {
        self.in_answer
            .as_ref()
            .map(|patterns| Watch::new(Arc::clone(patterns)))
    }
}

/// Draws what a request's placeholders end in.
pub(crate) fn draw_nonce() -> Nonce {
    let mut random = [0; 4];
    if getrandom::fill(&mut random).is_err() {
        // Exact all the same: look-alikes are replaced whatever the nonce is.
        let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed();
        random = since_1970
            .map_or(0, |time| time.subsec_nanos())
            .to_be_bytes();
    }
    Nonce::new(u32::from_be_bytes(random))
}
