//! What only its author can read or check, kept so that it can be given back:
//! reasoning with a proof of origin, and marks for the provider's prompt cache.
//!
//! Anthropic signs thinking blocks, Gemini signs parts, OpenAI encrypts
//! reasoning items. Each takes its own back and refuses what it did not write,
//! so a [`Signature`] knows its [`Origin`]. A front shows a foreign one with a
//! prefix and reads it back ([`Signature::shown`], [`Signature::read`]): so it
//! survives a conversation in any dialect.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::chat::{Message, Part, ToolCall};

/// Whose words something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Origin {
    /// OpenAI and those that follow it.
    #[default]
    Openai,
    /// Anthropic, also where others serve its models.
    Anthropic,
    /// Google's Gemini.
    Gemini,
}

impl Origin {
    const ALL: [Origin; 3] = [Origin::Openai, Origin::Anthropic, Origin::Gemini];

    /// The name in a shown signature.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Openai => "openai",
            Origin::Anthropic => "anthropic",
            Origin::Gemini => "gemini",
        }
    }
}

/// Opaque text that its author wants to see again, unchanged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Who can read it.
    pub origin: Origin,
    /// Exactly as it came.
    pub data: String,
}

/// Before the origin's name in a foreign signature. No provider's own begins
/// so: they are base64.
const FOREIGN: &str = "nearfar.";

impl Signature {
    /// A signature as its author wrote it.
    pub fn new(origin: Origin, data: impl Into<String>) -> Self {
        Self {
            origin,
            data: data.into(),
        }
    }

    /// As a front of this dialect shows it: bare where it is the dialect's own.
    pub fn shown(&self, front: Origin) -> Cow<'_, str> {
        if self.origin == front {
            Cow::Borrowed(&self.data)
        } else {
            Cow::Owned(format!("{FOREIGN}{}.{}", self.origin.as_str(), self.data))
        }
    }

    /// What a front of this dialect was given back.
    pub fn read(front: Origin, text: &str) -> Self {
        let foreign = text.strip_prefix(FOREIGN).and_then(|rest| {
            let (name, data) = rest.split_once('.')?;
            let origin = Origin::ALL.into_iter().find(|o| o.as_str() == name)?;
            Some(Self::new(origin, data))
        });
        foreign.unwrap_or_else(|| Self::new(front, text))
    }

    /// The text, for its author only.
    pub fn data_for(&self, origin: Origin) -> Option<&str> {
        (self.origin == origin).then_some(self.data.as_str())
    }
}

/// A stretch of reasoning in an assistant's turn.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Thought {
    /// What may be read of it: Anthropic's thinking, OpenAI's summary. Empty
    /// where it is withheld.
    pub text: String,
    /// The proof, or the reasoning itself in encrypted form.
    pub signature: Option<Signature>,
    /// Anthropic's `redacted_thinking`: the signature is its `data`.
    pub redacted: bool,
    /// The item's id, where the dialect has one (OpenAI's Responses).
    pub id: Option<String>,
    /// How many of the turn's items (content parts, then tool calls) stand
    /// before it.
    pub after: u32,
}

/// Everything up to here is worth keeping in the provider's prompt cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheMark {
    /// How many items stand before the mark: of a message (content parts, then
    /// tool calls), or of the list of tools. At least 1.
    pub after: u32,
    /// How long: Anthropic's `1h`, otherwise its default of five minutes.
    pub long: bool,
}

/// An item of a turn, in the order in which its author wrote it.
#[derive(Clone, Copy)]
pub enum Item<'a> {
    /// Reasoning.
    Thought(&'a Thought),
    /// Content.
    Part(&'a Part),
    /// A tool call.
    Call(&'a ToolCall),
    /// The item before this one ends a prefix that is worth keeping.
    Cache(CacheMark),
}

impl Message {
    /// The turn's items in order: what a dialect with typed blocks writes.
    pub fn items(&self) -> Vec<Item<'_>> {
        let parts = self.content.iter().map(Item::Part);
        let calls = self.tool_calls.iter().map(Item::Call);
        let count = self.content.len() + self.tool_calls.len();
        let mut items = Vec::with_capacity(count + self.thoughts.len() + self.cache_marks.len());
        let place = |after: u32| (after as usize).min(count);
        let thoughts = |at: usize| {
            let here = self.thoughts.iter().filter(move |t| place(t.after) == at);
            here.map(Item::Thought)
        };
        for (at, item) in parts.chain(calls).enumerate() {
            items.extend(thoughts(at));
            items.push(item);
            let mark = self.cache_marks.iter().find(|m| place(m.after) == at + 1);
            items.extend(mark.map(|mark| Item::Cache(*mark)));
        }
        items.extend(thoughts(count));
        items
    }

    /// All of the turn's reasoning that can be read, for a target that takes it
    /// as plain text.
    pub fn reasoning_text(&self) -> Option<Cow<'_, str>> {
        if let Some(text) = self.reasoning.as_deref() {
            return Some(Cow::Borrowed(text));
        }
        let mut texts = self.thoughts.iter().map(|thought| thought.text.as_str());
        let first = texts.find(|text| !text.is_empty())?;
        let mut joined = Cow::Borrowed(first);
        for text in texts.filter(|text| !text.is_empty()) {
            let joined = joined.to_mut();
            joined.push('\n');
            joined.push_str(text);
        }
        Some(joined)
    }
}

// Reasoning is content, and a signature may hold it.

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:?}, {} bytes)", self.origin, self.data.len())
    }
}

impl fmt::Debug for Thought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thought({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chat::Role;

    #[test]
    fn a_signature_survives_every_front() {
        for origin in Origin::ALL {
            let signature = Signature::new(origin, "Eq.a+/b==");
            for front in Origin::ALL {
                let shown = signature.shown(front);
                assert_eq!(shown.contains("nearfar"), origin != front);
                assert_eq!(Signature::read(front, &shown), signature);
                assert_eq!(signature.data_for(front).is_some(), origin == front);
            }
        }
        for odd in ["", "nearfar.", "nearfar.x.y", "nearfar.gemini"] {
            let read = Signature::read(Origin::Anthropic, odd);
            assert_eq!(read, Signature::new(Origin::Anthropic, odd));
        }
    }

    #[test]
    fn items_stand_where_they_stood() {
        let thought = |text: &str, after| Thought {
            text: text.into(),
            after,
            ..Thought::default()
        };
        let mark = |after| CacheMark { after, long: false };
        let message = Message {
            thoughts: vec![thought("a", 0), thought("b", 1), thought("z", 99)],
            cache_marks: vec![mark(1), mark(2)],
            tool_calls: vec![ToolCall::default()],
            ..Message::text(Role::Assistant, "text")
        };
        let shown: String = message
            .items()
            .iter()
            .map(|item| match item {
                Item::Thought(thought) => thought.text.as_str(),
                Item::Part(_) => "P",
                Item::Call(_) => "C",
                Item::Cache(_) => "|",
            })
            .collect();
        assert_eq!(shown, "aP|bC|z");
        assert_eq!(message.reasoning_text().unwrap(), "a\nb\nz");
        assert!(Message::text(Role::User, "x").reasoning_text().is_none());
    }

    #[test]
    fn debug_shows_lengths() {
        let thought = Thought {
            text: "secret".into(),
            signature: Some(Signature::new(Origin::Gemini, "secret")),
            ..Thought::default()
        };
        let shown = format!("{thought:?} {:?}", thought.signature);
        assert!(!shown.contains("secret") && shown.contains("6 bytes"));
    }
}
